//! Cranelift at work: functions are built here and compiled to code by a thread of their own, or at once.

use super::code::Code;
use super::emit;
use super::plan::Plan;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, BlockArg, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, Value};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, settings::Flags};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::sync::mpsc::{Receiver, Sender, channel};

/// A function to be compiled, or its code; under the ticket of its region. No code means that it cannot be made.
type Order = (u64, Function);
type Delivery = (u64, Option<Code>);

/// The other thread.
struct Worker {
    orders: Sender<Order>,
    deliveries: Receiver<Delivery>,
    /// Orders that were not delivered yet.
    open: usize,
}

/// What makes code for this host.
pub(super) struct Workshop {
    isa: OwnedTargetIsa,
    builder: FunctionBuilderContext,
    worker: Option<Worker>,
}

impl Workshop {
    /// A compiler for this host; `None` if Cranelift has none.
    pub(super) fn new() -> Option<Self> {
        let mut flags = settings::builder();
        let verify = if cfg!(debug_assertions) { "true" } else { "false" };
        for (name, value) in [("opt_level", "speed"), ("is_pic", "false"), ("unwind_info", "false"), ("enable_verifier", verify)] {
            flags.set(name, value).ok()?;
        }
        let isa = cranelift_native::builder().ok()?.finish(Flags::new(flags)).ok()?;
        Some(Self { isa, builder: FunctionBuilderContext::new(), worker: None })
    }

    /// The function of a region; `None` if something in it cannot be compiled.
    pub(super) fn build(&mut self, plan: &Plan) -> Option<Function> {
        let mut signature = Signature::new(self.isa.default_call_conv());
        signature.params.extend([AbiParam::new(I64), AbiParam::new(I64)]);
        let mut function = Function::with_name_signature(UserFuncName::default(), signature);
        if emit::build(plan, &mut function, &mut self.builder, &self.isa) {
            return Some(function);
        }
        // What was begun may not be used again.
        self.builder = FunctionBuilderContext::new();
        None
    }

    /// The code of a function, at once.
    pub(super) fn compile(&self, function: Function) -> Option<Code> {
        compile(&self.isa, &mut Context::new(), function)
    }

    /// Has the other thread ready: what it needs at first, the host's pages of Cranelift above all, it has by the time of the first order.
    pub(super) fn prepare(&mut self) {
        if self.worker.is_none() {
            self.worker = hire(&self.isa);
        }
    }

    /// Has a function compiled while the guest runs on. Returns what there is to deliver if the host has no thread to spare.
    pub(super) fn order(&mut self, ticket: u64, function: Function) -> Option<Option<Code>> {
        self.prepare();
        let Some(worker) = &mut self.worker else { return Some(self.compile(function)) };
        match worker.orders.send((ticket, function)) {
            Ok(()) => {
                worker.open += 1;
                None
            }
            // The thread has died, which only a defect of Cranelift can bring about: this region stays with the interpreter.
            Err(_) => Some(None),
        }
    }

    /// Whether something was ordered and not taken yet.
    pub(super) fn is_busy(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.open > 0)
    }

    /// A delivery, if there is one.
    pub(super) fn take(&mut self) -> Option<Delivery> {
        let worker = self.worker.as_mut()?;
        let delivery = worker.deliveries.try_recv().ok()?;
        worker.open -= 1;
        Some(delivery)
    }
}

fn compile(isa: &OwnedTargetIsa, context: &mut Context, function: Function) -> Option<Code> {
    context.clear();
    context.func = function;
    let compiled = context.compile(&**isa, &mut ControlPlane::default()).ok()?;
    // Code that calls nothing refers to nothing outside of itself.
    if !compiled.buffer.relocs().is_empty() {
        return None;
    }
    Code::new(compiled.code_buffer()).ok()
}

/// A function of no use: a loop over memory with more values than registers.
fn exercise(isa: &OwnedTargetIsa) -> Function {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.push(AbiParam::new(I64));
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    let [first, again, end] = [(); 3].map(|()| builder.create_block());
    builder.append_block_params_for_function_params(first);
    builder.switch_to_block(first);
    let memory = builder.block_params(first)[0];
    let flags = MemFlagsData::trusted();
    let values: Vec<Value> = (0..20).map(|number| builder.ins().load(I64, flags, memory, 8 * number)).collect();
    let arguments: Vec<BlockArg> = values.iter().copied().map(BlockArg::Value).collect();
    builder.ins().jump(again, &arguments);
    values.iter().for_each(|_| {
        builder.append_block_param(again, I64);
    });
    builder.switch_to_block(again);
    let values = builder.block_params(again).to_vec();
    let sums: Vec<Value> = values.iter().zip(values.iter().rev()).map(|(a, b)| builder.ins().iadd(*a, *b)).collect();
    builder.ins().store(flags, sums[0], memory, 0);
    let arguments: Vec<BlockArg> = sums.iter().copied().map(BlockArg::Value).collect();
    builder.ins().brif(sums[1], again, &arguments, end, &[]);
    builder.switch_to_block(end);
    builder.ins().return_(&[]);
    builder.seal_all_blocks();
    builder.finalize(isa.frontend_config());
    function
}

/// Starts the thread. It ends when the workshop is dropped.
fn hire(isa: &OwnedTargetIsa) -> Option<Worker> {
    let (orders, received) = channel::<Order>();
    let (delivered, deliveries) = channel();
    let isa = isa.clone();
    let work = move || {
        let mut context = Context::new();
        let _ = compile(&isa, &mut context, exercise(&isa));
        for (ticket, function) in received {
            let code = compile(&isa, &mut context, function);
            if delivered.send((ticket, code)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("compiler".into()).spawn(work).ok()?;
    Some(Worker { orders, deliveries, open: 0 })
}
