//! From a plan to code: the interpretation whose values are Cranelift's.
//!
//! A value of `W` bits is an IR value of that type; conditions are of 8 bits and 0 or 1. Status flags stay symbolic as long as the operation
//! that set them is known, and become words only where somebody reads them.

mod flags;
mod interpretation;
mod memory;
mod ways;

use super::plan::{Edge, Needs, Plan, members};
use super::{COUNT_BITS, Handover, Meaning};
use crate::block::Block;
use crate::insn::Insn;
use crate::state::Cpu;
use crate::tlb::{JumpCache, JumpEntry};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F64, I8, I16, I32, I64};
use cranelift_codegen::ir::{self, AliasRegionData, BlockArg, Function, InstBuilder, MemFlagsData, Type, Value};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use flags::Flags;
use iced_x86::Instruction;
use memory::{Kept, Page};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

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

/// What a node with one way in finds.
struct Inherited {
    state: State,
    plain: Vec<Value>,
    pages: Vec<Page>,
}

/// The way from one instruction to its exit.
struct Stub {
    block: ir::Block,
    exit: usize,
    /// What the exit is told: see [`Handover::exit`].
    number: u64,
}

/// A place where control leaves to the interpreter, and the state there.
struct Exit {
    block: ir::Block,
    state: State,
    base: *const Insn,
}

const fn integer(width: u32) -> Type {
    match width {
        8 => I8,
        16 => I16,
        32 => I32,
        _ => I64,
    }
}

/// How many general registers a region may use whose loops are to keep pages from turn to turn; with more, the host's would not do.
const ROOM: u32 = 12;

/// Builds the whole function of a region. Returns whether all went well.
pub(super) fn build(plan: &Plan, function: &mut Function, context: &mut FunctionBuilderContext, isa: &OwnedTargetIsa) -> bool {
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
        stubs: Vec::new(),
        last_exit: None,
        base: std::ptr::null(),
        number: 0,
        instruction: Instruction::default(),
        node: 0,
        update: None,
        gates: Vec::new(),
        plain: Vec::new(),
        bits: BTreeMap::new(),
        narrow: BTreeSet::new(),
        halves: BTreeMap::new(),
        distances: BTreeMap::new(),
        pages: Vec::new(),
        kept: None,
        again: None,
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

/// What a block takes off [`Handover::packed`].
fn paid(block: &Block) -> i64 {
    (i64::from(block.cost()) << COUNT_BITS) + block.count() as i64
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
    (offset_of!(Cpu, jumps) + offset_of!(JumpCache, entries) + size_of::<JumpEntry>() * JumpCache::slot(rip)) as i32
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
    inherited: Vec<Option<Inherited>>,
    flags: Vec<Flags>,
    state: State,
    /// The state in front of the instruction at hand.
    before: State,
    exits: Vec<Exit>,
    stubs: Vec<Stub>,
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
    /// The same 64 bits as an integer, for double-precision values that were made from one.
    bits: BTreeMap<Value, Value>,
    /// Values of 64 bits whose upper halves are zero.
    narrow: BTreeSet<Value>,
    /// Lower halves that were taken of such values.
    halves: BTreeMap<Value, Value>,
    /// Values that are a constant away from another.
    distances: BTreeMap<Value, (Value, i64)>,
    /// Pages that the software TLB had on the way to here.
    pages: Vec<Page>,
    /// The same from turn to turn, in a block that is a loop by itself.
    kept: Option<Kept>,
    /// Where a further turn of it begins.
    again: Option<ir::Block>,
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
            std::cmp::Ordering::Less if from == I32 => {
                let whole = self.halves.get(&value).copied().unwrap_or_else(|| self.builder.ins().uextend(to, value));
                self.narrow.insert(whole);
                whole
            }
            std::cmp::Ordering::Less => self.builder.ins().uextend(to, value),
            std::cmp::Ordering::Greater => {
                let part = self.builder.ins().ireduce(to, value);
                if to == I32 && self.narrow.contains(&value) {
                    self.halves.insert(part, value);
                }
                part
            }
        }
    }

    /// Whether the upper half of a value is known to be zero.
    fn is_narrow(&self, value: Value) -> bool {
        self.narrow.contains(&value) || self.known(value).is_some_and(|constant| constant as u64 >> 32 == 0)
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
        for node in (0..self.plan.nodes.len()).filter(|node| !self.inherits(*node)).collect::<Vec<_>>() {
            self.parameters(node);
        }
        let arguments = self.arguments();
        for (number, node) in nodes.iter().enumerate() {
            let block = if self.plan.nodes[*node].expects_nothing() { self.blocks[*node] } else { self.builder.create_block() };
            let passed: &[BlockArg] = if block == self.blocks[*node] { &arguments } else { &[] };
            if number + 1 == nodes.len() {
                self.builder.ins().jump(block, passed);
            } else {
                let here = self.builder.ins().icmp_imm_s(IntCC::Equal, index, number as i64);
                let other = self.builder.create_block();
                self.builder.ins().brif(here, block, passed, other, &[]);
                self.builder.switch_to_block(other);
            }
            if block != self.blocks[*node] {
                let rest = self.builder.current_block();
                self.builder.switch_to_block(block);
                self.check_registers(*node);
                self.builder.ins().jump(self.blocks[*node], &arguments);
                if let Some(rest) = rest.filter(|_| number + 1 < nodes.len()) {
                    self.builder.switch_to_block(rest);
                }
            }
        }
    }

    /// At a door: leaves at once, the block paid, unless the registers are ordinary, or narrow, that the block takes for it.
    fn check_registers(&mut self, number: usize) {
        let node = &self.plan.nodes[number];
        let block = Block::at(node.block);
        let before = self.state.clone();
        self.state.packed = self.builder.ins().iadd_imm_s(self.state.packed, -paid(block));
        self.before = self.state.clone();
        (self.base, self.number, self.last_exit) = (block.entry(), 0, None);
        for register in members(node.plain) {
            self.demand_no_denormal(self.state.low[register]);
        }
        let narrow = members(node.narrow).map(|register| self.state.registers[register]);
        let all = narrow.collect::<Vec<_>>().into_iter().reduce(|all, next| self.builder.ins().bor(all, next));
        if let Some(all) = all {
            let narrow = self.builder.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, all, i64::from(u32::MAX));
            self.demand(narrow, Reason::Plain);
        }
        (self.state, self.before, self.last_exit) = (before.clone(), before, None);
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
        let registers = members(self.plan.written).map(|number| self.state.registers[number]);
        let low = members(self.plan.written_low).map(|number| self.state.low[number]);
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
        (self.again, self.kept) = (None, None);
        if self.inherits(number) {
            let Some(inherited) = self.inherited[number].take() else {
                self.broken = true;
                return;
            };
            (self.state, self.plain, self.pages) = (inherited.state, inherited.plain, inherited.pages);
        } else {
            let block = self.begin_turns(number);
            let parameters = self.builder.block_params(block).to_vec();
            let mut parameters = parameters.into_iter();
            let mut next = || parameters.next().expect("a parameter for everything that changes");
            for number in members(plan.written) {
                self.state.registers[number] = next();
            }
            for number in members(plan.written_low) {
                self.state.low[number] = next();
            }
            self.state.packed = next();
            self.state.flags = match node.needs {
                Needs::Words => {
                    let result = self.load_own(I64, offset_of!(Cpu, flag_result) as i32);
                    let aux = self.load_own(I64, offset_of!(Cpu, flag_aux) as i32);
                    self.new_flags(Flags::Words(result, aux))
                }
                Needs::Left => node.finds.map_or(0, |recipe| self.recalled(recipe)),
                Needs::Nothing => 0,
            };
            let ordinary = members(node.plain);
            self.plain = ordinary.map(|register| self.state.low[register]).collect();
            let narrow = members(node.narrow);
            self.narrow.extend(narrow.map(|register| self.state.registers[register]));
            self.pages.clear();
        }
        self.state.packed = self.builder.ins().iadd_imm_s(self.state.packed, -paid(block));
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

    /// At the beginning of a node with parameters: where a further turn begins, if it is a loop by itself. Returns the block that has the
    /// parameters.
    fn begin_turns(&mut self, number: usize) -> ir::Block {
        let first = self.blocks[number];
        let turns = self.plan.nodes[number].compiled_ways().any(|edge| edge.to == number);
        if !turns || self.plan.used.count_ones() > ROOM {
            return first;
        }
        self.keep_pages();
        let again = self.builder.create_block();
        let arguments: Vec<BlockArg> = self.builder.block_params(first).iter().copied().map(BlockArg::Value).collect();
        self.builder.ins().jump(again, &arguments);
        for argument in self.builder.block_params(first).to_vec() {
            let kind = self.builder.func.dfg.value_type(argument);
            self.builder.append_block_param(again, kind);
        }
        self.builder.switch_to_block(again);
        self.again = Some(again);
        again
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

    /// The block to leave through, in front of the instruction at hand: a cold one that names the instruction and goes on to an exit, which
    /// instructions with the same state share.
    fn exit(&mut self, reason: Reason) -> ir::Block {
        let exit = match self.last_exit {
            Some(exit) => exit,
            None => {
                let block = self.cold_block();
                self.exits.push(Exit { block, state: self.before.clone(), base: self.base });
                self.exits.len() - 1
            }
        };
        self.last_exit = Some(exit);
        let number = self.number as u64 | (reason as u64) << 16;
        if let Some(stub) = self.stubs.last().filter(|stub| stub.exit == exit && stub.number == number) {
            return stub.block;
        }
        let block = self.cold_block();
        self.stubs.push(Stub { block, exit, number });
        block
    }

    fn cold_block(&mut self) -> ir::Block {
        let block = self.builder.create_block();
        self.builder.set_cold_block(block);
        block
    }

    fn leave(&mut self, reason: Reason) {
        let exit = self.exit(reason);
        self.builder.ins().jump(exit, &[]);
    }

    /// Leaves in front of the instruction at hand unless a condition holds.
    fn demand(&mut self, condition: Value, reason: Reason) {
        let on = self.builder.create_block();
        self.demand_on(condition, reason, on);
    }

    /// The same, with the block to go on with.
    fn demand_on(&mut self, condition: Value, reason: Reason, on: ir::Block) {
        let exit = self.exit(reason);
        self.builder.ins().brif(condition, on, &[], exit, &[]);
        self.builder.switch_to_block(on);
    }

    /// The code of all exits.
    fn leave_all(&mut self) {
        for stub in std::mem::take(&mut self.stubs) {
            self.builder.switch_to_block(stub.block);
            // Stored here and now, the number is part of an instruction; passed on, it could be loaded on the way that stays.
            let number = self.k(stub.number);
            self.store_own(number, handover(offset_of!(Handover, exit)));
            let exit = self.exits[stub.exit].block;
            self.builder.ins().jump(exit, &[]);
        }
        for exit in std::mem::take(&mut self.exits) {
            self.builder.switch_to_block(exit.block);
            self.state = exit.state;
            self.leave_flags();
            for number in members(self.plan.written) {
                self.store_own(self.state.registers[number], register_at(number));
            }
            for number in members(self.plan.written_low) {
                self.store_own(self.state.low[number], xmm_at(number, 0));
            }
            self.store_own(self.state.packed, handover(offset_of!(Handover, packed)));
            let base = self.k(exit.base as u64);
            self.store_own(base, handover(offset_of!(Handover, base)));
            self.builder.ins().return_(&[]);
        }
    }
}
