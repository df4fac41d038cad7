//! From a plan to code: the interpretation whose values are Cranelift's.
//!
//! A value of `W` bits is an IR value of that type; conditions are of 8 bits and 0 or 1. Status flags stay symbolic as long as the operation
//! that set them is known, and become words only where somebody reads them.

use super::plan::{Edge, Needs, Node, Plan, Shape};
use super::{COUNT_BITS, Handover, Meaning, flag_code};
use crate::block::Block;
use crate::insn::Insn;
use crate::interpretation::{DoubleOperation, FlagRule, Interpretation};
use crate::operand::{gpr_number, is_high_byte, mask, segment_of};
use crate::semantics::status;
use crate::state::{Cpu, ZERO_REGISTER};
use crate::tlb::{JumpCache, JumpEntry, SOFTWARE_ENTRIES, SoftwareEntry, SoftwareTlb};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::types::{F64, I8, I16, I32, I64};
use cranelift_codegen::ir::{self, AbiParam, AliasRegionData, BlockArg, Function, InstBuilder, MemFlagsData, Signature, Type, Value};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, control::ControlPlane};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use iced_x86::{Instruction, OpKind, Register};
use isa::register::Segment;
use isa::segment::SegmentRegister;
use std::mem::{offset_of, size_of};

/// The instruction cannot be compiled in this form.
pub(crate) struct Cut;

/// Where control goes from the end of a block.
pub(crate) enum Next {
    Goes,
    Branches(Value),
    Computed(Value),
}

/// Why compiled code left to the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// An access missed, time runs out, or an instruction is not compiled.
    Plain,
    /// A branch went where the region does not.
    Edge,
    /// A computed branch went where the region does not; `Handover::target` says where.
    Target,
}

/// What is known of the status flags at a point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    /// They are in memory, in whatever form.
    Left,
    /// The two words.
    Words(Value, Value),
    /// An operation set them.
    Set { rule: FlagRule, width: u32, a: Value, b: Value, result: Value, before: usize },
    /// As `then` if the condition is 1, else as `otherwise`.
    Either { condition: Value, then: usize, otherwise: usize },
}

/// The guest's state at a point of the compiled code.
#[derive(Clone, PartialEq, Eq)]
struct State {
    registers: [Value; 16],
    /// Low halves of XMM registers, as double-precision numbers; the high halves live in memory.
    low: [Value; 16],
    /// [`Handover::packed`].
    packed: Value,
    /// Index into [`Emitter::flags`].
    flags: usize,
}

/// A place where control leaves to the interpreter: the state, and the number of the instruction as its parameter.
struct Exit {
    block: ir::Block,
    state: State,
    base: *const Insn,
}

/// Cranelift's contexts, kept from region to region.
pub(super) struct Workshop {
    isa: OwnedTargetIsa,
    context: Context,
    builder: FunctionBuilderContext,
}

impl Workshop {
    /// A compiler for this host; `None` if Cranelift has none.
    pub(super) fn new() -> Option<Self> {
        let mut flags = settings::builder();
        let verify = if cfg!(debug_assertions) { "true" } else { "false" };
        for (name, value) in [("opt_level", "speed"), ("is_pic", "false"), ("unwind_info", "false"), ("enable_verifier", verify)] {
            flags.set(name, value).ok()?;
        }
        let isa = cranelift_native::builder().ok()?.finish(settings::Flags::new(flags)).ok()?;
        Some(Self { isa, context: Context::new(), builder: FunctionBuilderContext::new() })
    }

    /// The code of a region; `None` if it cannot be made.
    pub(super) fn compile(&mut self, plan: &Plan) -> Option<&[u8]> {
        self.context.clear();
        let mut signature = Signature::new(self.isa.default_call_conv());
        signature.params.extend([AbiParam::new(I64), AbiParam::new(I64)]);
        self.context.func = Function::with_name_signature(ir::UserFuncName::default(), signature);
        if !build(plan, &mut self.context.func, &mut self.builder, &self.isa) {
            // What was begun may not be used again.
            self.builder = FunctionBuilderContext::new();
            return None;
        }
        let compiled = self.context.compile(&*self.isa, &mut ControlPlane::default()).ok()?;
        compiled.buffer.relocs().is_empty().then(|| compiled.code_buffer())
    }
}

const fn integer(width: u32) -> Type {
    match width {
        8 => I8,
        16 => I16,
        32 => I32,
        _ => I64,
    }
}

/// Builds the whole function. Returns whether all went well.
fn build(plan: &Plan, function: &mut Function, context: &mut FunctionBuilderContext, isa: &OwnedTargetIsa) -> bool {
    let mut region = |number| {
        let data = AliasRegionData { user_id: number, description: "".into() };
        Some(function.dfg.alias_regions.insert(data))
    };
    let (own, tables, guest) = (region(1), region(2), region(3));
    let own = MemFlagsData::trusted().with_alias_region(own);
    let tables = MemFlagsData::trusted().with_alias_region(tables);
    let guest = MemFlagsData::new().with_notrap().with_alias_region(guest);
    let mut builder = FunctionBuilder::new(function, context);
    let first = builder.create_block();
    builder.append_block_params_for_function_params(first);
    builder.switch_to_block(first);
    let (cpu, index) = (builder.block_params(first)[0], builder.block_params(first)[1]);
    let blocks = plan.nodes.iter().map(|_| builder.create_block()).collect();
    let packed = builder.ins().load(I64, own, cpu, handover(offset_of!(Handover, packed)));
    let state = State { registers: [cpu; 16], low: [cpu; 16], packed, flags: 0 };
    let mut emitter = Emitter {
        builder: &mut builder,
        plan,
        cpu,
        own,
        tables,
        guest,
        blocks,
        inherited: (0..plan.nodes.len()).map(|_| None).collect(),
        flags: vec![Flags::Left],
        before: state.clone(),
        state,
        exits: Vec::new(),
        last_exit: None,
        base: std::ptr::null(),
        number: 0,
        instruction: Instruction::default(),
        node: 0,
        update: None,
        gates: Vec::new(),
        plain: Vec::new(),
        target: None,
        next_rip: 0,
        broken: false,
    };
    emitter.load_state();
    emitter.dispatch(index);
    for node in 0..plan.nodes.len() {
        emitter.node(node);
    }
    emitter.leave_all();
    let broken = emitter.broken;
    if !broken {
        builder.seal_all_blocks();
        builder.finalize(isa.frontend_config());
    }
    !broken
}

/// Offset in `Cpu` of a field of the handover.
const fn handover(field: usize) -> i32 {
    (offset_of!(Cpu, handover) + field) as i32
}

const fn register_at(number: usize) -> i32 {
    (offset_of!(Cpu, regs) + 8 * number) as i32
}

const fn xmm_at(number: usize, half: usize) -> i32 {
    (offset_of!(Cpu, xmm) + 16 * number + 8 * half) as i32
}

/// Offset in `Cpu` of the entry of the jump cache for an address.
const fn jump_at(rip: u64) -> i32 {
    (offset_of!(Cpu, jumps) + size_of::<JumpEntry>() * JumpCache::slot(rip)) as i32
}

/// Makes the code of one region.
pub(crate) struct Emitter<'a, 'b> {
    builder: &'a mut FunctionBuilder<'b>,
    plan: &'a Plan,
    cpu: Value,
    /// Accesses to fields of `Cpu`, to its tables, and to guest memory: none aliases another.
    own: MemFlagsData,
    tables: MemFlagsData,
    guest: MemFlagsData,
    /// Where each node begins.
    blocks: Vec<ir::Block>,
    /// What a node with one way in finds.
    inherited: Vec<Option<State>>,
    flags: Vec<Flags>,
    state: State,
    /// The state in front of the instruction at hand.
    before: State,
    exits: Vec<Exit>,
    /// The exit made last, if it is still good for the state in front of the instruction at hand.
    last_exit: Option<usize>,
    /// Slot of the first instruction of the block at hand.
    base: *const Insn,
    /// Number of the instruction at hand.
    number: usize,
    instruction: Instruction,
    node: usize,
    /// Host address of the memory operand that was read for update.
    update: Option<(u32, Value)>,
    /// Ways out of the block that are open only while the jump cache says so: where they begin, and where they lead.
    gates: Vec<(ir::Block, Edge, ir::Block, Vec<BlockArg>)>,
    /// Double-precision values known to be neither special nor denormal.
    plain: Vec<Value>,
    /// The computed target of the instruction at hand, once it is known.
    target: Option<Value>,
    next_rip: u64,
    /// Something went wrong: the region is not used.
    broken: bool,
}

impl Emitter<'_, '_> {
    fn k(&mut self, value: u64) -> Value {
        self.builder.ins().iconst(I64, value as i64)
    }

    /// A value as one of another width: cut off or zero-extended.
    fn fit(&mut self, value: Value, to: Type) -> Value {
        let from = self.builder.func.dfg.value_type(value);
        match from.bits().cmp(&to.bits()) {
            std::cmp::Ordering::Equal => value,
            std::cmp::Ordering::Less => self.builder.ins().uextend(to, value),
            std::cmp::Ordering::Greater => self.builder.ins().ireduce(to, value),
        }
    }

    fn pair<const W: u32>(&mut self, a: Value, b: Value) -> (Value, Value) {
        (self.fit(a, integer(W)), self.fit(b, integer(W)))
    }

    fn load_own(&mut self, kind: Type, offset: i32) -> Value {
        self.builder.ins().load(kind, self.own, self.cpu, offset)
    }

    fn store_own(&mut self, value: Value, offset: i32) {
        self.builder.ins().store(self.own, value, self.cpu, offset);
    }

    /// At the function's beginning: the registers that the region uses.
    fn load_state(&mut self) {
        for number in 0..16 {
            if self.plan.used >> number & 1 != 0 {
                self.state.registers[number] = self.load_own(I64, register_at(number));
            }
            if self.plan.used_low >> number & 1 != 0 {
                self.state.low[number] = self.load_own(F64, xmm_at(number, 0));
            }
        }
        self.before = self.state.clone();
    }

    /// To the node of the entry with the number `index`.
    fn dispatch(&mut self, index: Value) {
        let nodes: Vec<usize> = (0..self.plan.nodes.len()).filter(|node| self.plan.nodes[*node].entry).collect();
        for node in 0..nodes.len() {
            self.parameters(nodes[node]);
        }
        for node in (0..self.plan.nodes.len()).filter(|node| !self.plan.nodes[*node].entry) {
            if self.plan.nodes[node].ways_in > 1 {
                self.parameters(node);
            }
        }
        let arguments = self.arguments();
        for (number, node) in nodes.iter().enumerate() {
            let block = self.blocks[*node];
            if number + 1 == nodes.len() {
                self.builder.ins().jump(block, &arguments);
            } else {
                let here = self.builder.ins().icmp_imm_s(IntCC::Equal, index, number as i64);
                let other = self.builder.create_block();
                self.builder.ins().brif(here, block, &arguments, other, &[]);
                self.builder.switch_to_block(other);
            }
        }
    }

    /// Gives the block of a node its parameters: what changes in the region.
    fn parameters(&mut self, node: usize) {
        let block = self.blocks[node];
        for _ in 0..self.plan.written.count_ones() {
            self.builder.append_block_param(block, I64);
        }
        for _ in 0..self.plan.written_low.count_ones() {
            self.builder.append_block_param(block, F64);
        }
        self.builder.append_block_param(block, I64);
    }

    /// The arguments for the parameters above.
    fn arguments(&self) -> Vec<BlockArg> {
        let registers = (0..16).filter(|number| self.plan.written >> number & 1 != 0).map(|number| self.state.registers[number]);
        let low = (0..16).filter(|number| self.plan.written_low >> number & 1 != 0).map(|number| self.state.low[number]);
        registers.chain(low).chain([self.state.packed]).map(BlockArg::Value).collect()
    }

    /// Whether control comes to a node by one way only, which hands on all it knows.
    fn inherits(&self, node: usize) -> bool {
        let node = &self.plan.nodes[node];
        node.ways_in == 1 && !node.entry
    }

    fn node(&mut self, number: usize) {
        let plan = self.plan;
        let node = &plan.nodes[number];
        let block = Block::at(node.block);
        self.builder.switch_to_block(self.blocks[number]);
        if self.inherits(number) {
            let Some(state) = self.inherited[number].take() else {
                self.broken = true;
                return;
            };
            self.state = state;
        } else {
            let parameters = self.builder.block_params(self.blocks[number]).to_vec();
            let mut parameters = parameters.into_iter();
            let mut next = || parameters.next().expect("a parameter for everything that changes");
            for number in (0..16).filter(|number| plan.written >> number & 1 != 0) {
                self.state.registers[number] = next();
            }
            for number in (0..16).filter(|number| plan.written_low >> number & 1 != 0) {
                self.state.low[number] = next();
            }
            self.state.packed = next();
            self.state.flags = match node.needs {
                Needs::Words => {
                    let result = self.load_own(I64, offset_of!(Cpu, flag_result) as i32);
                    let aux = self.load_own(I64, offset_of!(Cpu, flag_aux) as i32);
                    self.new_flags(Flags::Words(result, aux))
                }
                Needs::Left | Needs::Nothing => 0,
            };
            self.plain.clear();
        }
        let paid = (i64::from(block.cost()) << COUNT_BITS) + block.count() as i64;
        self.state.packed = self.builder.ins().iadd_imm_s(self.state.packed, -paid);
        self.base = block.entry();
        self.node = number;
        self.next_rip = block.links().target[0];
        self.last_exit = None;
        for number in 0..node.count {
            self.begin(block, number);
            let insn = block.slot(number);
            match block.meaning(number) {
                Meaning::Operation(emit) => {
                    if emit(self, insn).is_err() {
                        self.broken = true;
                        return;
                    }
                }
                Meaning::Branch(emit) => {
                    let Ok(next) = emit(self, insn) else {
                        self.broken = true;
                        return;
                    };
                    return self.finish(node, next);
                }
                Meaning::None => unreachable!("the plan ends in front of it"),
            }
        }
        self.begin(block, node.count);
        if node.cut {
            self.leave(Reason::Plain);
        } else {
            self.finish(node, Next::Goes);
        }
    }

    /// In front of an instruction.
    fn begin(&mut self, block: &Block, number: usize) {
        if number < block.count() {
            self.instruction = *block.instruction(number as u16);
        }
        self.number = number;
        self.update = None;
        self.target = None;
        if self.before != self.state {
            self.before = self.state.clone();
            self.last_exit = None;
        }
    }

    /// The block to leave through, in front of the instruction at hand, with its argument.
    fn exit(&mut self, reason: Reason) -> (ir::Block, [BlockArg; 1]) {
        let number = match self.last_exit {
            Some(number) => number,
            None => {
                let block = self.builder.create_block();
                self.builder.set_cold_block(block);
                self.builder.append_block_param(block, I64);
                self.exits.push(Exit { block, state: self.before.clone(), base: self.base });
                self.exits.len() - 1
            }
        };
        self.last_exit = Some(number);
        let argument = self.k(self.number as u64 | (reason as u64) << 16);
        (self.exits[number].block, [BlockArg::Value(argument)])
    }

    fn leave(&mut self, reason: Reason) {
        let (block, arguments) = self.exit(reason);
        self.builder.ins().jump(block, &arguments);
    }

    /// Leaves in front of the instruction at hand unless a condition holds.
    fn demand(&mut self, condition: Value, reason: Reason) {
        let (exit, arguments) = self.exit(reason);
        let on = self.builder.create_block();
        self.builder.ins().brif(condition, on, &[], exit, &arguments);
        self.builder.switch_to_block(on);
    }

    /// The code of all exits.
    fn leave_all(&mut self) {
        for exit in std::mem::take(&mut self.exits) {
            self.builder.switch_to_block(exit.block);
            self.state = exit.state;
            let number = self.builder.block_params(exit.block)[0];
            self.leave_flags();
            for number in (0..16).filter(|number| self.plan.written >> number & 1 != 0) {
                self.store_own(self.state.registers[number], register_at(number));
            }
            for number in (0..16).filter(|number| self.plan.written_low >> number & 1 != 0) {
                self.store_own(self.state.low[number], xmm_at(number, 0));
            }
            self.store_own(self.state.packed, handover(offset_of!(Handover, packed)));
            let base = self.k(exit.base as u64);
            self.store_own(base, handover(offset_of!(Handover, base)));
            self.store_own(number, handover(offset_of!(Handover, exit)));
            self.builder.ins().return_(&[]);
        }
    }

    fn new_flags(&mut self, flags: Flags) -> usize {
        self.flags.push(flags);
        self.flags.len() - 1
    }

    /// The two flag words.
    fn words(&mut self, flags: usize) -> (Value, Value) {
        match self.flags[flags] {
            Flags::Left => {
                // The plan asks for words wherever somebody reads.
                self.broken = true;
                let zero = self.k(0);
                (zero, zero)
            }
            Flags::Words(result, aux) => (result, aux),
            Flags::Set { rule, width, a, b, result, before } => {
                let old = if flag_code(rule, width).is_none() { self.words(before) } else { (result, result) };
                match width {
                    8 => status::flag_words::<Self, 8>(self, rule, a, b, result, old),
                    16 => status::flag_words::<Self, 16>(self, rule, a, b, result, old),
                    32 => status::flag_words::<Self, 32>(self, rule, a, b, result, old),
                    _ => status::flag_words::<Self, 64>(self, rule, a, b, result, old),
                }
            }
            Flags::Either { condition, then, otherwise } => {
                let (then, otherwise) = (self.words(then), self.words(otherwise));
                let result = self.builder.ins().select(condition, then.0, otherwise.0);
                let aux = self.builder.ins().select(condition, then.1, otherwise.1);
                (result, aux)
            }
        }
    }

    fn store_words(&mut self) {
        let (result, aux) = self.words(self.state.flags);
        self.store_own(result, offset_of!(Cpu, flag_result) as i32);
        self.store_own(aux, offset_of!(Cpu, flag_aux) as i32);
        let none = self.k(0);
        self.store_own(none, handover(offset_of!(Handover, flag_code)));
    }

    /// Leaves the flags in memory, in the form that costs least.
    fn leave_flags(&mut self) {
        match self.flags[self.state.flags] {
            Flags::Left => {}
            Flags::Set { rule, width, a, b, result, .. } if flag_code(rule, width).is_some() => {
                let code = flag_code(rule, width).unwrap_or_default();
                let code = self.k(code);
                self.store_own(code, handover(offset_of!(Handover, flag_code)));
                let result = self.fit(result, I64);
                self.store_own(result, offset_of!(Cpu, flag_result) as i32);
                if rule != FlagRule::Logic {
                    for (value, offset) in [(a, offset_of!(Handover, flag_a)), (b, offset_of!(Handover, flag_b))] {
                        let value = self.fit(value, I64);
                        self.store_own(value, handover(offset));
                    }
                }
            }
            _ => self.store_words(),
        }
    }

    /// Behind the last instruction: on to the next nodes, or out.
    fn finish(&mut self, node: &Node, next: Next) {
        let back = node.compiled_ways().filter(|edge| edge.to <= self.node);
        if let Some(bound) = back.map(|edge| self.plan.nodes[edge.to].bound).max() {
            let enough = self.builder.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, self.state.packed, bound << COUNT_BITS);
            self.demand(enough, Reason::Plain);
        }
        let needs = node.compiled_ways().filter(|edge| !self.inherits(edge.to)).map(|edge| self.plan.nodes[edge.to].needs).max();
        match needs {
            Some(Needs::Words) => {
                self.store_words();
                // What was stored is also what is known.
                let (result, aux) = self.words(self.state.flags);
                self.state.flags = self.new_flags(Flags::Words(result, aux));
            }
            Some(Needs::Left) => self.leave_flags(),
            Some(Needs::Nothing) | None => {}
        }
        match next {
            Next::Goes => match node.ways[..] {
                [Some(edge)] => {
                    let (block, arguments) = self.edge(edge);
                    self.builder.ins().jump(block, &arguments);
                }
                _ => self.leave(Reason::Edge),
            },
            Next::Branches(condition) => {
                debug_assert_eq!(node.shape, Shape::Branches);
                let (other, other_arguments) = self.edge_or_exit(node.ways[0]);
                let (taken, taken_arguments) = self.edge_or_exit(node.ways[1]);
                self.builder.ins().brif(condition, taken, &taken_arguments, other, &other_arguments);
            }
            Next::Computed(target) => {
                let ways: Vec<Edge> = node.compiled_ways().collect();
                self.search(target, &ways);
            }
        }
        self.fill_gates();
    }

    fn edge_or_exit(&mut self, edge: Option<Edge>) -> (ir::Block, Vec<BlockArg>) {
        match edge {
            Some(edge) => self.edge(edge),
            None => {
                let (block, arguments) = self.exit(Reason::Edge);
                (block, arguments.to_vec())
            }
        }
    }

    /// Where a way to another node begins.
    fn edge(&mut self, edge: Edge) -> (ir::Block, Vec<BlockArg>) {
        let block = self.blocks[edge.to];
        let arguments = if self.inherits(edge.to) {
            self.inherited[edge.to] = Some(self.state.clone());
            Vec::new()
        } else {
            self.arguments()
        };
        if !edge.guarded {
            return (block, arguments);
        }
        let gate = self.builder.create_block();
        self.gates.push((gate, edge, block, arguments));
        (gate, Vec::new())
    }

    /// A guarded way is open while the jump cache has the target in the present context.
    fn fill_gates(&mut self) {
        for (gate, edge, block, arguments) in std::mem::take(&mut self.gates) {
            self.builder.switch_to_block(gate);
            let at = jump_at(edge.rip);
            let rip = self.builder.ins().load(I64, self.tables, self.cpu, at + offset_of!(JumpEntry, rip) as i32);
            let context = self.builder.ins().load(I64, self.tables, self.cpu, at + offset_of!(JumpEntry, context) as i32);
            let own = self.load_own(I64, offset_of!(Cpu, context) as i32);
            let there = self.builder.ins().icmp_imm_s(IntCC::Equal, rip, edge.rip as i64);
            let valid = self.builder.ins().icmp(IntCC::Equal, context, own);
            let open = self.builder.ins().band(there, valid);
            let (exit, exit_arguments) = self.exit(Reason::Plain);
            self.builder.ins().brif(open, block, &arguments, exit, &exit_arguments);
        }
    }

    /// To the node that begins at a computed address, or out.
    fn search(&mut self, target: Value, ways: &[Edge]) {
        if ways.len() > 3 {
            let mut ways = ways.to_vec();
            ways.sort_by_key(|edge| edge.rip);
            let (low, high) = ways.split_at(ways.len() / 2);
            let middle = self.k(high[0].rip);
            let below = self.builder.ins().icmp(IntCC::UnsignedLessThan, target, middle);
            let (left, right) = (self.builder.create_block(), self.builder.create_block());
            self.builder.ins().brif(below, left, &[], right, &[]);
            for (block, half) in [(left, low), (right, high)] {
                self.builder.switch_to_block(block);
                self.search(target, half);
            }
            return;
        }
        for edge in ways {
            let here = self.builder.ins().icmp_imm_s(IntCC::Equal, target, edge.rip as i64);
            let (block, arguments) = self.edge(*edge);
            let other = self.builder.create_block();
            self.builder.ins().brif(here, block, &arguments, other, &[]);
            self.builder.switch_to_block(other);
        }
        self.store_own(target, handover(offset_of!(Handover, target)));
        self.leave(Reason::Target);
    }

    /// In front of a store by a branch whose computed target is known: makes sure that control will stay in the region, because a branch that
    /// has stored may not be executed again. (`CALL [RSP-8]` overwrites its own operand.)
    fn secure(&mut self, target: Value) {
        let plan = self.plan;
        let node = &plan.nodes[self.node];
        let mut member = self.builder.ins().iconst(I8, 0);
        let mut bound = 0;
        for edge in node.compiled_ways() {
            let here = self.builder.ins().icmp_imm_s(IntCC::Equal, target, edge.rip as i64);
            let context = self.builder.ins().load(I64, self.tables, self.cpu, jump_at(edge.rip) + offset_of!(JumpEntry, context) as i32);
            let rip = self.builder.ins().load(I64, self.tables, self.cpu, jump_at(edge.rip) + offset_of!(JumpEntry, rip) as i32);
            let own = self.load_own(I64, offset_of!(Cpu, context) as i32);
            let there = self.builder.ins().icmp_imm_s(IntCC::Equal, rip, edge.rip as i64);
            let valid = self.builder.ins().icmp(IntCC::Equal, context, own);
            let open = self.builder.ins().band(there, valid);
            let open = self.builder.ins().band(here, open);
            member = self.builder.ins().bor(member, open);
            if edge.to <= self.node {
                bound = plan.nodes[edge.to].bound.max(bound);
            }
        }
        self.store_own(target, handover(offset_of!(Handover, target)));
        self.demand(member, Reason::Target);
        let enough = self.builder.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, self.state.packed, bound << COUNT_BITS);
        self.demand(enough, Reason::Plain);
    }

    /// The host address of `bytes` bytes, if the half of the software TLB at `half` in `Cpu` has them; else control leaves.
    fn host(&mut self, address: Value, bytes: u32, half: usize) -> Value {
        const { assert!(size_of::<SoftwareEntry>() == 16 && SOFTWARE_ENTRIES == 4096) };
        let index = self.builder.ins().ushr_imm_u(address, 8);
        let index = self.builder.ins().band_imm_u(index, ((SOFTWARE_ENTRIES - 1) << 4) as i64);
        let entry = self.builder.ins().iadd(self.cpu, index);
        let tag = self.builder.ins().load(I64, self.tables, entry, (half + offset_of!(SoftwareEntry, tag)) as i32);
        let last = if bytes > 1 { self.builder.ins().iadd_imm_s(address, i64::from(bytes) - 1) } else { address };
        let page = self.builder.ins().band_imm_s(last, !0xfff);
        let context = self.load_own(I64, offset_of!(Cpu, context) as i32);
        let wanted = self.builder.ins().bor(page, context);
        let hit = self.builder.ins().icmp(IntCC::Equal, wanted, tag);
        self.demand(hit, Reason::Plain);
        let addend = self.builder.ins().load(I64, self.tables, entry, (half + offset_of!(SoftwareEntry, addend)) as i32);
        self.builder.ins().iadd(address, addend)
    }

    fn readable(&mut self, address: Value, bytes: u32) -> Value {
        self.host(address, bytes, offset_of!(Cpu, software_tlb) + offset_of!(SoftwareTlb, read))
    }

    fn writable(&mut self, address: Value, bytes: u32) -> Value {
        self.host(address, bytes, offset_of!(Cpu, software_tlb) + offset_of!(SoftwareTlb, write))
    }

    fn load_host(&mut self, host: Value, width: u32) -> Value {
        self.builder.ins().load(integer(width), self.guest, host, 0)
    }

    fn store_host(&mut self, host: Value, value: Value, width: u32) {
        let value = self.fit(value, integer(width));
        self.builder.ins().store(self.guest, value, host, 0);
    }

    /// A general register of whatever width.
    fn read(&mut self, register: Register) -> Value {
        let whole = self.register(gpr_number(register));
        let whole = if is_high_byte(register) { self.builder.ins().ushr_imm_u(whole, 8) } else { whole };
        self.fit(whole, integer(register.size() as u32 * 8))
    }

    /// The linear address of the memory operand, in 64-bit mode.
    fn address(&mut self) -> Value {
        let instruction = self.instruction;
        let segment = instruction.memory_segment();
        let offset = if instruction.is_ip_rel_memory_operand() {
            self.k(instruction.ip_rel_memory_address())
        } else {
            let mut sum = self.k(instruction.memory_displacement64());
            let base = instruction.memory_base();
            if base != Register::None {
                let base = self.read(base);
                let base = self.fit(base, I64);
                sum = self.builder.ins().iadd(base, sum);
            }
            let index = instruction.memory_index();
            if index != Register::None {
                let index = self.read(index);
                let index = self.fit(index, I64);
                let scale = instruction.memory_index_scale().trailing_zeros();
                let index = self.builder.ins().ishl_imm_u(index, i64::from(scale));
                sum = self.builder.ins().iadd(sum, index);
            }
            let narrow = [base, index].into_iter().any(|register| register.size() == 4)
                || base == Register::None && index == Register::None && instruction.memory_displ_size() == 4;
            if narrow { self.builder.ins().band_imm_u(sum, 0xffff_ffff) } else { sum }
        };
        match segment_of(segment) {
            Some(segment @ (Segment::Fs | Segment::Gs)) => {
                let at = offset_of!(Cpu, segments) + segment as usize * size_of::<SegmentRegister>() + offset_of!(SegmentRegister, base);
                let base = self.load_own(I64, at as i32);
                self.builder.ins().iadd(base, offset)
            }
            _ => offset,
        }
    }

    /// Whether a double-precision value is neither denormal nor, by itself, anything that the result would not show.
    fn not_denormal(&mut self, value: Value) -> Value {
        // Doubled, a zero is 0, a denormal less than the smallest normal number. Less one, the zero is out of the way.
        let bits = self.builder.ins().bitcast(I64, MemFlagsData::new(), value);
        let doubled = self.builder.ins().ishl_imm_u(bits, 1);
        let less = self.builder.ins().iadd_imm_s(doubled, -1);
        let least = self.k((1 << 53) - 1);
        self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, less, least)
    }
}

impl Interpretation for Emitter<'_, '_> {
    type Value = Value;
    type Double = Value;
    type Stop = Cut;
    type Next = Next;

    fn constant<const W: u32>(&mut self, value: u64) -> Value {
        self.builder.ins().iconst(integer(W), (value & mask(W)) as i64)
    }

    fn register(&mut self, number: u8) -> Value {
        if number == ZERO_REGISTER {
            return self.k(0);
        }
        if self.plan.used >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.registers[usize::from(number)]
    }

    fn set_register(&mut self, number: u8, value: Value) {
        if self.plan.written >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.registers[usize::from(number)] = self.fit(value, I64);
    }

    fn load<const W: u32>(&mut self, address: Value) -> Result<Value, Cut> {
        let host = self.readable(address, W / 8);
        Ok(self.load_host(host, W))
    }

    fn load_for_update<const W: u32>(&mut self, address: Value) -> Result<Value, Cut> {
        let host = self.writable(address, W / 8);
        Ok(self.load_host(host, W))
    }

    fn store<const W: u32>(&mut self, address: Value, value: Value) -> Result<(), Cut> {
        let host = self.writable(address, W / 8);
        if let Some(target) = self.target {
            self.secure(target);
        }
        self.store_host(host, value, W);
        Ok(())
    }

    fn operand<const W: u32>(&mut self, _: &Insn, operand: u32, update: bool) -> Result<Value, Cut> {
        let instruction = self.instruction;
        match instruction.op_kind(operand) {
            OpKind::Register if instruction.op_register(operand).is_gpr() => Ok(self.read(instruction.op_register(operand))),
            OpKind::Register => Err(Cut),
            OpKind::Memory => {
                let address = self.address();
                if !update {
                    return self.load::<W>(address);
                }
                let host = self.writable(address, W / 8);
                self.update = Some((operand, host));
                Ok(self.load_host(host, W))
            }
            _ => Ok(self.constant::<W>(instruction.immediate(operand))),
        }
    }

    fn set_operand<const W: u32>(&mut self, _: &Insn, operand: u32, value: Value) -> Result<(), Cut> {
        let instruction = self.instruction;
        match (instruction.op_kind(operand), self.update) {
            (OpKind::Register, _) => {
                let register = instruction.op_register(operand);
                if is_high_byte(register) {
                    let number = gpr_number(register);
                    let old = self.register(number);
                    let others = self.builder.ins().band_imm_s(old, !0xff00);
                    let value = self.fit(value, I64);
                    let value = self.builder.ins().ishl_imm_u(value, 8);
                    let value = self.builder.ins().bor(others, value);
                    self.set_register(number, value);
                } else {
                    crate::semantics::place::write_register::<Self, W>(self, gpr_number(register), value);
                }
                Ok(())
            }
            (_, Some((updated, host))) if updated == operand => {
                self.store_host(host, value, W);
                Ok(())
            }
            _ => {
                let address = self.address();
                self.store::<W>(address, value)
            }
        }
    }

    fn truncate<const W: u32>(&mut self, value: Value) -> Value {
        self.fit(value, integer(W))
    }

    fn zero_extend<const W: u32>(&mut self, value: Value) -> Value {
        let narrow = if self.builder.func.dfg.value_type(value).bits() > W { self.fit(value, integer(W)) } else { value };
        self.fit(narrow, I64)
    }

    fn sign_extend<const W: u32>(&mut self, value: Value) -> Value {
        let narrow = self.fit(value, integer(W));
        if W == 64 { narrow } else { self.builder.ins().sextend(I64, narrow) }
    }

    fn add<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().iadd(a, b)
    }

    fn subtract<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().isub(a, b)
    }

    fn multiply<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().imul(a, b)
    }

    fn multiply_high(&mut self, a: Value, b: Value, signed: bool) -> Value {
        if signed { self.builder.ins().smulhi(a, b) } else { self.builder.ins().umulhi(a, b) }
    }

    fn and<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().band(a, b)
    }

    fn or<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().bor(a, b)
    }

    fn xor<const W: u32>(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = self.pair::<W>(a, b);
        self.builder.ins().bxor(a, b)
    }

    fn not<const W: u32>(&mut self, a: Value) -> Value {
        let a = self.fit(a, integer(W));
        self.builder.ins().bnot(a)
    }

    fn shift<const W: u32>(&mut self, rule: FlagRule, a: Value, count: Value) -> Value {
        let own = integer(W);
        let a = self.fit(a, own);
        match rule {
            FlagRule::RotateLeft => self.builder.ins().rotl(a, count),
            FlagRule::RotateRight => self.builder.ins().rotr(a, count),
            // The host's narrow shifts take the count modulo the width; the guest's shift everything out.
            _ if W < 32 => {
                let a = if rule == FlagRule::ShiftArithmetic { self.builder.ins().sextend(I32, a) } else { self.fit(a, I32) };
                let wide = self.shift::<32>(rule, a, count);
                self.fit(wide, own)
            }
            FlagRule::ShiftLeft => self.builder.ins().ishl(a, count),
            FlagRule::ShiftRight => self.builder.ins().ushr(a, count),
            _ => self.builder.ins().sshr(a, count),
        }
    }

    fn differ(&mut self, a: Value, b: Value) -> Value {
        let kind = self.builder.func.dfg.value_type(a);
        let b = self.fit(b, kind);
        self.builder.ins().icmp(IntCC::NotEqual, a, b)
    }

    fn select(&mut self, condition: Value, yes: Value, no: Value) -> Value {
        let kind = self.builder.func.dfg.value_type(yes);
        let no = self.fit(no, kind);
        self.builder.ins().select(condition, yes, no)
    }

    fn swap_bytes<const W: u32>(&mut self, a: Value) -> Value {
        let a = self.fit(a, integer(W));
        self.builder.ins().bswap(a)
    }

    fn set_flags<const W: u32>(&mut self, rule: FlagRule, a: Value, b: Value, result: Value) {
        let before = self.state.flags;
        self.state.flags = self.new_flags(Flags::Set { rule, width: W, a, b, result, before });
    }

    fn set_flags_if<const W: u32>(&mut self, condition: Value, rule: FlagRule, a: Value, b: Value, result: Value) {
        let otherwise = self.state.flags;
        self.set_flags::<W>(rule, a, b, result);
        let then = self.state.flags;
        self.state.flags = self.new_flags(Flags::Either { condition, then, otherwise });
    }

    fn carry(&mut self) -> Value {
        self.condition(2)
    }

    fn condition(&mut self, code: u8) -> Value {
        if let Flags::Set { rule, width, a, b, result, .. } = self.flags[self.state.flags]
            && let Some(condition) = self.direct_condition(code, rule, width, a, b, result)
        {
            return condition;
        }
        let words = self.words(self.state.flags);
        // Kept, so that the next one who asks need not make them again.
        self.state.flags = self.new_flags(Flags::Words(words.0, words.1));
        let condition = status::condition(self, code, words);
        self.fit(condition, I8)
    }

    fn double(&mut self, number: u8) -> Value {
        if self.plan.used_low >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.low[usize::from(number)]
    }

    fn set_double(&mut self, number: u8, value: Value) {
        if self.plan.written_low >> number & 1 == 0 {
            self.broken = true;
        }
        self.state.low[usize::from(number)] = value;
    }

    fn xmm_half(&mut self, number: u8, half: u8) -> Value {
        if half == 1 {
            return self.load_own(I64, xmm_at(number.into(), 1));
        }
        let value = self.double(number);
        self.builder.ins().bitcast(I64, MemFlagsData::new(), value)
    }

    fn set_xmm_half(&mut self, number: u8, half: u8, value: Value) {
        let value = self.fit(value, I64);
        if half == 1 {
            return self.store_own(value, xmm_at(number.into(), 1));
        }
        let value = self.builder.ins().bitcast(F64, MemFlagsData::new(), value);
        self.set_double(number, value);
    }

    fn double_from_bits(&mut self, value: Value) -> Value {
        self.builder.ins().bitcast(F64, MemFlagsData::new(), value)
    }

    /// As `sse::double::fast_double`, whose conditions on MXCSR the door has checked.
    fn double_arithmetic(&mut self, _: &Insn, kind: DoubleOperation, a: Value, b: Value) -> Result<Value, Cut> {
        let result = match kind {
            DoubleOperation::Add => self.builder.ins().fadd(a, b),
            DoubleOperation::Subtract => self.builder.ins().fsub(a, b),
            DoubleOperation::Multiply => self.builder.ins().fmul(a, b),
            DoubleOperation::Divide => self.builder.ins().fdiv(a, b),
        };
        // An infinity or NaN among the operands shows in the result (or makes a quotient of zero), a denormal need not.
        let bits = self.builder.ins().bitcast(I64, MemFlagsData::new(), result);
        let doubled = self.builder.ins().ishl_imm_u(bits, 1);
        let least = self.k(2 << 53);
        let offset = self.builder.ins().isub(doubled, least);
        let range = self.k(0x7fd << 53);
        let mut ok = self.builder.ins().icmp(IntCC::UnsignedLessThan, offset, range);
        if matches!(kind, DoubleOperation::Add | DoubleOperation::Subtract) {
            let zero = self.builder.ins().icmp_imm_s(IntCC::Equal, doubled, 0);
            ok = self.builder.ins().bor(ok, zero);
        }
        for operand in [a, b] {
            if !self.plain.contains(&operand) {
                let fine = self.not_denormal(operand);
                ok = self.builder.ins().band(ok, fine);
                self.plain.push(operand);
            }
        }
        self.demand(ok, Reason::Plain);
        self.plain.push(result);
        Ok(result)
    }

    fn branch(&mut self, _: &Insn, condition: Value) -> Next {
        Next::Branches(condition)
    }

    fn jump(&mut self, _: &Insn) -> Next {
        Next::Goes
    }

    fn jump_to(&mut self, _: &Insn, target: Value) -> Result<Next, Cut> {
        self.target = Some(target);
        Ok(Next::Computed(target))
    }

    fn next_rip(&mut self, _: &Insn) -> u64 {
        self.next_rip
    }
}

impl Emitter<'_, '_> {
    /// A condition as one comparison, where the operation that set the flags allows it.
    fn direct_condition(&mut self, code: u8, rule: FlagRule, width: u32, a: Value, b: Value, result: Value) -> Option<Value> {
        let kind = integer(width);
        let (compared, against) = match (rule, code >> 1) {
            // The flags of a subtraction order its operands.
            (FlagRule::Subtract, 1) => (IntCC::UnsignedLessThan, true),
            (FlagRule::Subtract, 2) => (IntCC::Equal, true),
            (FlagRule::Subtract, 3) => (IntCC::UnsignedLessThanOrEqual, true),
            (FlagRule::Subtract, 6) => (IntCC::SignedLessThan, true),
            (FlagRule::Subtract, 7) => (IntCC::SignedLessThanOrEqual, true),
            // Without carry and overflow the result tells all.
            (FlagRule::Logic, 2 | 3) => (IntCC::Equal, false),
            (FlagRule::Logic, 6) => (IntCC::SignedLessThan, false),
            (FlagRule::Logic, 7) => (IntCC::SignedLessThanOrEqual, false),
            (FlagRule::RotateLeft | FlagRule::RotateRight, _) => return None,
            (_, 2) => (IntCC::Equal, false),
            (_, 4) => (IntCC::SignedLessThan, false),
            _ => return None,
        };
        let compared = if code & 1 == 0 { compared } else { compared.complement() };
        if against {
            // With a borrow passed on (SBB) the result is not the difference of the operands, and they tell nothing.
            let inst = self.builder.func.dfg.value_def(result).inst()?;
            let arguments = self.builder.func.dfg.inst_args(inst);
            let (a, b) = (self.fit_known(a, kind)?, self.fit_known(b, kind)?);
            if arguments != [a, b] {
                return None;
            }
            return Some(self.builder.ins().icmp(compared, a, b));
        }
        let result = self.fit(result, kind);
        Some(self.builder.ins().icmp_imm_s(compared, result, 0))
    }

    /// A value that is of a type already.
    fn fit_known(&self, value: Value, kind: Type) -> Option<Value> {
        (self.builder.func.dfg.value_type(value) == kind).then_some(value)
    }
}
