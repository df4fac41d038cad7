//! The compiling tier: hot code becomes code of the host, through Cranelift.
//!
//! **What it may do.** Compiled code does exactly what the interpreter does when every look-up hits: loads and stores that the software TLB
//! serves, branches whose links are known, indirect jumps that the jump cache knows. In front of anything else (a fault, a device, a system
//! instruction, an unknown target, too little time) it leaves to the interpreter, at that very instruction, with all state as the
//! interpreter would have it. So no cache, charge or trace can tell which tier ran, nor when code became ready.
//!
//! **A region** is a set of blocks reached from a hot one over links that are known ([`plan`]). Its code ([`emit`]) keeps registers and flags in
//! SSA form. Control enters at *doors*: the handlers in the headers of the blocks that begin loops. A region dies with the first of its
//! blocks that is overwritten.
//!
//! **Confinement.** Compiled code reads and writes: fields of `Cpu` at constant offsets; entries of the software TLB and the jump cache, whose
//! index is masked; and host memory at an address that a matching entry of the software TLB gave, within the page the entry stands for,
//! because the tag is compared with that of the last byte. It calls nothing. Its pages are never writable and executable at once ([`code`]).
//! A machine's compiled code is bounded by [`regions::MAXIMUM_BYTES`]; beyond, all of it is thrown away.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`; the argument is that of `direct`, of which it is a part: a region's
//! pointers lead to blocks that the code cache owns, and it is removed from the cache before any of them is freed.
#![expect(unsafe_code, reason = "handlers work on raw pointers, see the argument in `direct`")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every unsafe function here consists of such operations only")]

mod code;
mod emit;
mod narrow;
mod plain;
mod plan;
mod recipes;
mod regions;
#[cfg(test)]
mod tests;
mod workshop;

use crate::block::Block;
use crate::direct::{block_of, header_of, set_flags};
use crate::insn::{Handler, Header, Insn};
use crate::interpretation::{Branch, FlagRule, Operation};
use crate::operand::mask;
use crate::sse::double::plain_doubles;
use crate::state::Cpu;
use emit::{Cut, Emitter, Next};
pub(crate) use regions::Compiler;
use regions::Door;
use std::cell::{Cell, RefCell};

/// The most targets of an indirect branch that are remembered.
const MAXIMUM_SEEN: usize = 64;

/// The part of [`Handover::packed`] that counts instructions, downwards.
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// What compiled code and the interpreter hand each other through memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Handover {
    /// Ticks left, the block at hand paid, above bit 20; below, all ones less the instructions begun since the door.
    packed: u64,
    /// Slot of the first instruction of the block that compiled code left from.
    base: *const Insn,
    /// Number of the instruction in its block at which the interpreter goes on; from bit 16 the reason, see [`emit::Reason`].
    exit: u64,
    /// Where an indirect branch would go whose target the region does not know.
    target: u64,
    /// Zero when the flag words in `Cpu` hold; else the rule and the width whose operands and result stand below and in `Cpu::flag_result`,
    /// when compiled code has left.
    flag_code: u64,
    flag_a: u64,
    flag_b: u64,
    /// The block that was last entered while it was counted.
    previous: *const Insn,
}

impl Handover {
    pub(crate) const fn new() -> Self {
        Self { packed: 0, base: std::ptr::null(), exit: 0, target: 0, flag_code: 0, flag_a: 0, flag_b: 0, previous: std::ptr::null() }
    }

    /// Blocks were freed.
    pub(crate) fn forget(&mut self) {
        self.previous = std::ptr::null();
    }
}

/// Makes code of an instruction that falls through.
type EmitOperation = for<'a, 'b, 'c> fn(&'a mut Emitter<'b, 'c>, &Insn) -> Result<(), Cut>;
/// Makes code of an instruction that ends a block.
type EmitBranch = for<'a, 'b, 'c> fn(&'a mut Emitter<'b, 'c>, &Insn) -> Result<Next, Cut>;

/// What the compiler makes of an instruction.
#[derive(Clone, Copy)]
pub(crate) enum Meaning {
    /// Nothing: it is left to the interpreter.
    None,
    Operation(EmitOperation),
    Branch(EmitBranch),
}

impl Meaning {
    pub(crate) const NONE: Self = Self::None;

    pub(crate) fn operation<O: Operation>() -> Self {
        fn emit<O: Operation>(emitter: &mut Emitter<'_, '_>, insn: &Insn) -> Result<(), Cut> {
            O::execute(emitter, insn)
        }
        Self::Operation(emit::<O>)
    }

    pub(crate) fn branch<B: Branch>() -> Self {
        fn emit<B: Branch>(emitter: &mut Emitter<'_, '_>, insn: &Insn) -> Result<Next, Cut> {
            B::execute(emitter, insn)
        }
        Self::Branch(emit::<B>)
    }
}

/// What the compiling tier knows of a block.
#[derive(Default)]
pub(crate) struct Tier {
    /// Entries until it is hot.
    heat: Cell<u32>,
    /// Where control gets from its header into compiled code.
    door: Cell<Option<std::ptr::NonNull<Door>>>,
    /// Targets of its indirect branch.
    seen: RefCell<Vec<u64>>,
    /// How often it was overwritten.
    changes: Cell<u32>,
    /// How often it was hot and not worth compiling.
    postponed: Cell<u32>,
    /// Regions that hold it.
    regions: RefCell<Vec<usize>>,
}

impl Tier {
    /// A block takes the place of another.
    pub(crate) fn succeed(&mut self, other: &Self) {
        self.changes.set(other.changes.get());
    }

    fn note(&self, target: u64) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() < MAXIMUM_SEEN && !seen.contains(&target) {
            seen.push(target);
        }
    }
}

/// Puts a handler in front of a block, or takes it away. A block whose bytes were overwritten keeps what leads away from it.
unsafe fn set_front(entry: *const Insn, front: Option<Handler>) {
    let header = entry.sub(1).cast::<Header>().cast_mut();
    if !std::ptr::fn_addr_eq((*header).handler, crate::direct::stale as Handler) {
        (*header).handler = front.unwrap_or((*entry).handler);
    }
}

/// In front of a block that is counted.
unsafe extern "C" fn warm(cpu: *mut Cpu, insn: *const Insn) {
    count(cpu, insn);
    ((*insn).handler)(cpu, insn)
}

#[cold]
#[inline(never)]
unsafe fn count(cpu: *mut Cpu, insn: *const Insn) {
    let cpu = &mut *cpu;
    let previous = std::mem::replace(&mut cpu.handover.previous, insn);
    if !previous.is_null() {
        let previous = block_of(previous);
        if previous.ends_indirectly() {
            previous.tier.note((*header_of(insn)).rip);
        }
    }
    let tier = &block_of(insn).tier;
    let heat = tier.heat.get() - 1;
    tier.heat.set(heat);
    if heat == regions::WARM {
        cpu.environment().code.compiler.prepare();
    }
    if heat == 0 {
        set_front(insn, None);
        if tier.regions.borrow().is_empty() {
            regions::begin(cpu, block_of(insn), None);
        }
    }
}

/// In front of a block at which compiled code can be entered.
unsafe extern "C" fn door(cpu: *mut Cpu, insn: *const Insn) {
    let slot = pass(cpu, insn);
    ((*slot).handler)(cpu, slot)
}

/// Runs compiled code, if there is time for it. Returns the instruction at which the interpreter goes on.
#[inline(never)]
unsafe fn pass(cpu: *mut Cpu, insn: *const Insn) -> *const Insn {
    let Some(door) = block_of(insn).tier.door.get() else { return insn };
    let door = door.as_ref();
    if (*cpu).budget < door.needed || door.doubles && !plain_doubles((*cpu).mxcsr) {
        return insn;
    }
    (*cpu).handover.packed = (((*cpu).budget + door.cost) as u64) << COUNT_BITS | COUNT_MASK;
    let begun = (*cpu).retired - door.count;
    (door.code)(cpu, door.index);
    let region = door.region;
    let cpu = &mut *cpu;
    let packed = cpu.handover.packed;
    cpu.budget = packed as i64 >> COUNT_BITS;
    cpu.retired = begun + (COUNT_MASK - (packed & COUNT_MASK));
    unpack_flags(cpu);
    let slot = cpu.handover.base.add((cpu.handover.exit & 0xffff) as usize);
    let left = i64::from((*header_of(cpu.handover.base)).count) - (cpu.handover.exit & 0xffff) as i64;
    let executed = (COUNT_MASK - (packed & COUNT_MASK)) as i64 - left;
    let credit = i64::from(door.credit.get()) + executed - i64::from(regions::PASSAGE);
    door.credit.set(credit.min(i64::from(regions::CREDIT)) as i32);
    if credit < 0 {
        close(insn);
    }
    let reason = cpu.handover.exit >> 16;
    if reason != emit::Reason::Plain as u64 {
        missed(cpu, slot, region, reason);
    }
    slot
}

/// Takes away a door behind which compiled code does too little before it leaves again.
#[cold]
#[inline(never)]
unsafe fn close(insn: *const Insn) {
    block_of(insn).tier.door.set(None);
    set_front(insn, None);
}

/// Control left over an edge that the region does not know.
#[cold]
#[inline(never)]
unsafe fn missed(cpu: &mut Cpu, slot: *const Insn, region: usize, reason: u64) {
    if reason == emit::Reason::Target as u64 {
        block_of(slot).tier.note(cpu.handover.target);
    }
    if let Some(head) = cpu.environment().code.compiler.count_miss(region) {
        regions::begin(cpu, Block::at(head), Some(region));
    }
}

/// The rules whose operands and result compiled code can leave in place of flag words; the place in the table, counted from one, is the
/// rule's number in [`Handover::flag_code`]. The other rules need the flags before.
const LEFT_RULES: [FlagRule; 7] = [
    FlagRule::Add,
    FlagRule::Subtract,
    FlagRule::Logic,
    FlagRule::Multiply,
    FlagRule::ShiftLeft,
    FlagRule::ShiftRight,
    FlagRule::ShiftArithmetic,
];

/// With the width added: the code of a subtraction whose result was not left, because it is just the difference of its operands.
const DIFFERENCE: u64 = 0;
/// The same for an addition.
const SUM: u64 = 0x100 << 4;
/// The same for a logical operation, whose result was left in place of its first operand.
const RESULT: u64 = 0x100 << 5;

/// The code under which operands and result of a rule can be left for [`unpack_flags`].
fn flag_code(rule: FlagRule, width: u32) -> Option<u64> {
    let place = LEFT_RULES.iter().position(|left| *left == rule)?;
    Some((place as u64 + 1) << 8 | u64::from(width))
}

/// Makes the flag words of what compiled code left instead.
fn unpack_flags(cpu: &mut Cpu) {
    let code = std::mem::take(&mut cpu.handover.flag_code);
    if code == 0 {
        return;
    }
    let width = (code & 0xff) as u32;
    let (a, b) = (cpu.handover.flag_a & mask(width), cpu.handover.flag_b & mask(width));
    let (rule, result) = match code & !0xff {
        DIFFERENCE => (FlagRule::Subtract, a.wrapping_sub(b) & mask(width)),
        SUM => (FlagRule::Add, a.wrapping_add(b) & mask(width)),
        RESULT => (FlagRule::Logic, a),
        number => (LEFT_RULES[(number >> 8) as usize - 1], cpu.flag_result),
    };
    set_flags(cpu, width, rule, a, b, result);
}
