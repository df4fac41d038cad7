//! The direct interpreter: one handler per operation type, each calling the next in tail position.
//!
//! A handler runs its operation with `Direct<false>`, which never calls anything: an access that the software TLB cannot serve is just an
//! `Err`, and the handler's cold twin runs the whole instruction again with `Direct<true>`, which does the access properly. So hot handlers
//! need no stack frame, and the call of the next handler is a jump.
//!
//! **Stack.** Rust does not promise that jump. Nothing depends on it: a run of handlers ends when the slice's budget is used up, the engine
//! bounds a slice to [`crate::engine::SLICE_INSTRUCTIONS`] instructions, and without optimisation each block returns to the engine.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`. The argument, once for all blocks in it: `cpu` points to the
//! `Cpu` that `Cpu::run` borrows mutably for the whole run, and no reference to it lives across a call of a handler; `insn` points into the
//! slots of a block owned by the run's `CodeCache`, which frees blocks only between handlers and never while one of them executes; a
//! block's slots begin with a `Header` and end with `Links`, written by `crate::block` alone; register numbers in an `Insn` are below 17 and
//! XMM numbers below 16, checked when the block is built; software-TLB addends lead to pages that `Memory` keeps alive while its
//! generation stands.
#![expect(unsafe_code, reason = "handlers work on raw pointers, see the argument above")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, in the module's documentation, holds for all of them")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every unsafe function here consists of such operations only")]

use crate::engine::StopCode;
use crate::flags;
use crate::insn::{Header, Insn, Links, UNLINKABLE};
use crate::interpretation::{Branch, DoubleOperation, FlagRule, Interpretation, Operation};
use crate::operand::{mask, sign_extend};
use crate::semantics::status;
use crate::sse::double::fast_double;
use crate::state::Cpu;
use crate::system::Flow;
use crate::tlb::SoftwareTlb;
use crate::trap::{Access, Trap};

/// The direct interpretation. With `SLOW`, accesses may leave the inline path.
#[derive(Clone, Copy)]
pub(crate) struct Direct<const SLOW: bool>(pub(crate) *mut Cpu);

/// Where a terminator goes.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// Entry of the next block; null when the engine has to find it.
    entry: *const Insn,
    /// Which of the links asks, when `entry` is null; [`ASKED`] when the engine was asked already.
    which: usize,
}

/// See [`Next::which`].
const ASKED: usize = 2;

/// The instruction did not complete. With `SLOW` the reason is in `Cpu::trap`.
pub(crate) struct Stopped;

impl<const SLOW: bool> Direct<SLOW> {
    #[inline(always)]
    fn cpu(&mut self) -> &mut Cpu {
        unsafe { &mut *self.0 }
    }

    #[inline(always)]
    fn flag_words(&mut self) -> (u64, u64) {
        let cpu = self.cpu();
        (cpu.flag_result, cpu.flag_aux)
    }

    /// The inline path of a read: the host address, if the software TLB has the page.
    #[inline(always)]
    fn readable<const W: u32>(&mut self, address: u64) -> Option<u64> {
        let cpu = self.cpu();
        let entry = unsafe { *cpu.software_tlb.read.get_unchecked(SoftwareTlb::slot(address)) };
        let last = address.wrapping_add(u64::from(W) / 8 - 1);
        (last & !0xfff | cpu.context == entry.tag).then(|| address.wrapping_add(entry.addend))
    }

    /// The inline path of a write.
    #[inline(always)]
    fn writable<const W: u32>(&mut self, address: u64) -> Option<u64> {
        let cpu = self.cpu();
        let entry = unsafe { *cpu.software_tlb.write.get_unchecked(SoftwareTlb::slot(address)) };
        let last = address.wrapping_add(u64::from(W) / 8 - 1);
        (last & !0xfff | cpu.context == entry.tag).then(|| address.wrapping_add(entry.addend))
    }

    #[inline(always)]
    fn read_host<const W: u32>(host: u64) -> u64 {
        unsafe {
            match W {
                8 => u64::from(*(host as *const u8)),
                16 => u64::from((host as *const u16).read_unaligned()),
                32 => u64::from((host as *const u32).read_unaligned()),
                _ => (host as *const u64).read_unaligned(),
            }
        }
    }

    #[inline(always)]
    fn write_host<const W: u32>(host: u64, value: u64) {
        unsafe {
            match W {
                8 => *(host as *mut u8) = value as u8,
                16 => (host as *mut u16).write_unaligned(value as u16),
                32 => (host as *mut u32).write_unaligned(value as u32),
                _ => (host as *mut u64).write_unaligned(value),
            }
        }
    }
}

/// Sets the status flags by a rule, for values of `width` bits.
pub(crate) fn set_flags(cpu: &mut Cpu, width: u32, rule: FlagRule, a: u64, b: u64, result: u64) {
    let mut direct = Direct::<false>(cpu);
    match width {
        8 => direct.set_flags::<8>(rule, a, b, result),
        16 => direct.set_flags::<16>(rule, a, b, result),
        32 => direct.set_flags::<32>(rule, a, b, result),
        _ => direct.set_flags::<64>(rule, a, b, result),
    }
}

/// Keeps the reason of a failed slow access for the engine.
fn keep<T>(cpu: &mut Cpu, outcome: Result<T, Trap>) -> Result<T, Stopped> {
    outcome.map_err(|trap| {
        cpu.trap = Some(trap);
        Stopped
    })
}

#[cold]
#[inline(never)]
fn slow_load(cpu: &mut Cpu, address: u64, bytes: u8, update: bool) -> Result<u64, Stopped> {
    let outcome = cpu.load_translated(address, bytes, if update { Access::Write } else { Access::Read }, cpu.privilege());
    keep(cpu, outcome)
}

#[cold]
#[inline(never)]
fn slow_store(cpu: &mut Cpu, address: u64, bytes: u8, value: u64) -> Result<(), Stopped> {
    let outcome = cpu.store_translated(address, bytes, value, cpu.privilege());
    keep(cpu, outcome)
}

// The slow ways are functions of their own and return in registers: a handler with a local whose address escapes could not end in a jump.

#[cold]
#[inline(never)]
fn slow_operand(cpu: &mut Cpu, insn: &Insn, operand: u32, update: bool) -> Result<u64, Stopped> {
    let instruction = unsafe { block_of(insn).instruction(insn.number) };
    let outcome = if update { cpu.read_operand_for_update(instruction, operand) } else { cpu.read_operand(instruction, operand) };
    keep(cpu, outcome)
}

#[cold]
#[inline(never)]
fn slow_set_operand(cpu: &mut Cpu, insn: &Insn, operand: u32, value: u64) -> Result<(), Stopped> {
    let instruction = unsafe { block_of(insn).instruction(insn.number) };
    let outcome = cpu.write_operand(instruction, operand, value);
    keep(cpu, outcome)
}

#[cold]
#[inline(never)]
fn slow_double(cpu: &mut Cpu, kind: DoubleOperation, a: u64, b: u64) -> Result<u64, Stopped> {
    let outcome = cpu.double_arithmetic(kind, a, b);
    keep(cpu, outcome)
}

impl<const SLOW: bool> Interpretation for Direct<SLOW> {
    type Value = u64;
    type Double = f64;
    type Stop = Stopped;
    type Next = Next;

    #[inline(always)]
    fn constant<const W: u32>(&mut self, value: u64) -> u64 {
        value & mask(W)
    }
    #[inline(always)]
    fn register(&mut self, number: u8) -> u64 {
        unsafe { *self.cpu().regs.get_unchecked(usize::from(number)) }
    }
    #[inline(always)]
    fn set_register(&mut self, number: u8, value: u64) {
        unsafe { *self.cpu().regs.get_unchecked_mut(usize::from(number)) = value }
    }

    #[inline(always)]
    fn load<const W: u32>(&mut self, address: u64) -> Result<u64, Stopped> {
        match self.readable::<W>(address) {
            Some(host) => Ok(Self::read_host::<W>(host)),
            None if SLOW => slow_load(self.cpu(), address, (W / 8) as u8, false),
            None => Err(Stopped),
        }
    }
    #[inline(always)]
    fn load_for_update<const W: u32>(&mut self, address: u64) -> Result<u64, Stopped> {
        match self.writable::<W>(address) {
            Some(host) => Ok(Self::read_host::<W>(host)),
            None if SLOW => slow_load(self.cpu(), address, (W / 8) as u8, true),
            None => Err(Stopped),
        }
    }
    #[inline(always)]
    fn store<const W: u32>(&mut self, address: u64, value: u64) -> Result<(), Stopped> {
        match self.writable::<W>(address) {
            Some(host) => {
                Self::write_host::<W>(host, value);
                Ok(())
            }
            None if SLOW => slow_store(self.cpu(), address, (W / 8) as u8, value),
            None => Err(Stopped),
        }
    }
    #[inline(always)]
    fn operand<const W: u32>(&mut self, insn: &Insn, operand: u32, update: bool) -> Result<u64, Stopped> {
        if SLOW { slow_operand(self.cpu(), insn, operand, update).map(|value| value & mask(W)) } else { Err(Stopped) }
    }
    #[inline(always)]
    fn set_operand<const W: u32>(&mut self, insn: &Insn, operand: u32, value: u64) -> Result<(), Stopped> {
        if SLOW { slow_set_operand(self.cpu(), insn, operand, value) } else { Err(Stopped) }
    }

    #[inline(always)]
    fn truncate<const W: u32>(&mut self, value: u64) -> u64 {
        value & mask(W)
    }
    #[inline(always)]
    fn zero_extend<const W: u32>(&mut self, value: u64) -> u64 {
        value
    }
    #[inline(always)]
    fn sign_extend<const W: u32>(&mut self, value: u64) -> u64 {
        sign_extend(W, value)
    }

    #[inline(always)]
    fn add<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a.wrapping_add(b) & mask(W)
    }
    #[inline(always)]
    fn subtract<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a.wrapping_sub(b) & mask(W)
    }
    #[inline(always)]
    fn multiply<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a.wrapping_mul(b) & mask(W)
    }
    #[inline(always)]
    fn multiply_high(&mut self, a: u64, b: u64, signed: bool) -> u64 {
        if signed { ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64 } else { ((u128::from(a) * u128::from(b)) >> 64) as u64 }
    }
    #[inline(always)]
    fn and<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a & b
    }
    #[inline(always)]
    fn or<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a | b
    }
    #[inline(always)]
    fn xor<const W: u32>(&mut self, a: u64, b: u64) -> u64 {
        a ^ b
    }
    #[inline(always)]
    fn not<const W: u32>(&mut self, a: u64) -> u64 {
        !a & mask(W)
    }
    #[inline(always)]
    fn shift<const W: u32>(&mut self, rule: FlagRule, a: u64, count: u64) -> u64 {
        let count = (count & 63) as u32;
        match rule {
            FlagRule::ShiftLeft => (a << count) & mask(W),
            FlagRule::ShiftRight => a >> count,
            FlagRule::ShiftArithmetic => (sign_extend(W, a) as i64 >> count) as u64 & mask(W),
            FlagRule::RotateLeft => match W {
                8 => u64::from((a as u8).rotate_left(count)),
                16 => u64::from((a as u16).rotate_left(count)),
                32 => u64::from((a as u32).rotate_left(count)),
                _ => a.rotate_left(count),
            },
            _ => match W {
                8 => u64::from((a as u8).rotate_right(count)),
                16 => u64::from((a as u16).rotate_right(count)),
                32 => u64::from((a as u32).rotate_right(count)),
                _ => a.rotate_right(count),
            },
        }
    }
    #[inline(always)]
    fn differ(&mut self, a: u64, b: u64) -> u64 {
        u64::from(a != b)
    }
    #[inline(always)]
    fn select(&mut self, condition: u64, yes: u64, no: u64) -> u64 {
        if condition != 0 { yes } else { no }
    }
    #[inline(always)]
    fn swap_bytes<const W: u32>(&mut self, a: u64) -> u64 {
        a.swap_bytes() >> (64 - W)
    }

    #[inline(always)]
    fn set_flags<const W: u32>(&mut self, rule: FlagRule, a: u64, b: u64, result: u64) {
        let old = self.flag_words();
        let new = status::flag_words::<Self, W>(self, rule, a, b, result, old);
        let cpu = self.cpu();
        (cpu.flag_result, cpu.flag_aux) = new;
    }
    #[inline(always)]
    fn set_flags_if<const W: u32>(&mut self, condition: u64, rule: FlagRule, a: u64, b: u64, result: u64) {
        if condition != 0 {
            self.set_flags::<W>(rule, a, b, result);
        }
    }
    #[inline(always)]
    fn carry(&mut self) -> u64 {
        u64::from(flags::carry(self.cpu().flag_aux))
    }
    #[inline(always)]
    fn condition(&mut self, code: u8) -> u64 {
        let words = self.flag_words();
        status::condition(self, code, words)
    }

    #[inline(always)]
    fn double(&mut self, number: u8) -> f64 {
        f64::from_bits(self.xmm_half(number, 0))
    }
    #[inline(always)]
    fn set_double(&mut self, number: u8, value: f64) {
        self.set_xmm_half(number, 0, value.to_bits());
    }
    #[inline(always)]
    fn xmm_half(&mut self, number: u8, half: u8) -> u64 {
        unsafe { *self.cpu().xmm.get_unchecked(usize::from(number)).get_unchecked(usize::from(half)) }
    }
    #[inline(always)]
    fn set_xmm_half(&mut self, number: u8, half: u8, value: u64) {
        unsafe { *self.cpu().xmm.get_unchecked_mut(usize::from(number)).get_unchecked_mut(usize::from(half)) = value }
    }
    #[inline(always)]
    fn double_from_bits(&mut self, value: u64) -> f64 {
        f64::from_bits(value)
    }
    #[inline(always)]
    fn double_arithmetic(&mut self, _: &Insn, kind: DoubleOperation, a: f64, b: f64) -> Result<f64, Stopped> {
        if let Some(result) = fast_double(self.cpu().mxcsr, kind, a, b) {
            return Ok(result);
        }
        if SLOW { slow_double(self.cpu(), kind, a.to_bits(), b.to_bits()).map(f64::from_bits) } else { Err(Stopped) }
    }

    #[inline(always)]
    fn branch(&mut self, insn: &Insn, condition: u64) -> Next {
        self.follow(insn, condition as usize & 1)
    }
    #[inline(always)]
    fn jump(&mut self, insn: &Insn) -> Next {
        self.follow(insn, 1)
    }
    #[inline(always)]
    fn jump_to(&mut self, _: &Insn, target: u64) -> Result<Next, Stopped> {
        let cpu = self.cpu();
        if let Some(entry) = cpu.jumps.find(target, cpu.context) {
            return Ok(Next { entry, which: ASKED });
        }
        if !SLOW {
            return Err(Stopped);
        }
        if !isa::paging::is_canonical(target) {
            cpu.trap = Some(Trap::GP0);
            return Err(Stopped);
        }
        missed(cpu, std::ptr::null_mut(), target);
        Ok(Next { entry: std::ptr::null(), which: ASKED })
    }
    #[inline(always)]
    fn next_rip(&mut self, insn: &Insn) -> u64 {
        unsafe { (*links_of(insn)).target[0] }
    }
}

impl<const SLOW: bool> Direct<SLOW> {
    /// The entry of a direct successor: by its link, or by the jump cache where there can be no link.
    #[inline(always)]
    fn follow(&mut self, insn: &Insn, which: usize) -> Next {
        unsafe {
            let links = links_of(insn);
            let entry = *(*links).entry.get_unchecked(which);
            if entry != UNLINKABLE {
                // Null asks the engine, once.
                return Next { entry, which };
            }
            let target = *(*links).target.get_unchecked(which);
            let cpu = self.cpu();
            Next { entry: cpu.jumps.find(target, cpu.context).unwrap_or(std::ptr::null()), which }
        }
    }
}

/// Leaves to the engine, which finds the block for `target` and writes its entry to `link` if it may.
#[cold]
#[inline(never)]
fn missed(cpu: &mut Cpu, link: *mut *const Insn, target: u64) {
    cpu.rip = target;
    cpu.link = link;
    cpu.stop = StopCode::Miss;
}

/// As `missed`, for the direct successor of a terminator; asks for the link where it may stay.
#[cold]
#[inline(never)]
unsafe extern "C" fn missed_link(cpu: *mut Cpu, insn: *const Insn, which: usize) {
    if which == ASKED {
        return;
    }
    let links = links_of(insn).cast_mut();
    let entry = &raw mut (*links).entry[which];
    let link = if (*entry).is_null() { entry } else { std::ptr::null_mut() };
    missed(&mut *cpu, link, (*links).target[which]);
}

/// The links of the block whose terminator is `insn`.
#[inline(always)]
unsafe fn links_of(insn: *const Insn) -> *const Links {
    insn.add(1).cast::<Links>()
}

/// The header of the block that an instruction belongs to.
#[inline(always)]
pub(crate) unsafe fn header_of(insn: *const Insn) -> *const Header {
    insn.sub(usize::from((*insn).number) + 1).cast::<Header>()
}

/// The block that an instruction belongs to.
#[inline(always)]
pub(crate) unsafe fn block_of<'a>(insn: *const Insn) -> &'a crate::block::Block {
    &*(*header_of(insn)).block
}

/// Pays for a whole block and runs it; leaves to the engine when the budget does not suffice.
#[inline(always)]
pub(crate) unsafe fn enter(cpu: *mut Cpu, entry: *const Insn) {
    let header = &*entry.sub(1).cast::<Header>();
    let budget = (*cpu).budget - i64::from(header.cost);
    if budget < 0 {
        return over_budget(cpu, header.rip);
    }
    (*cpu).budget = budget;
    (*cpu).retired += u64::from(header.count);
    (header.handler)(cpu, entry);
}

/// Between blocks: on to the next one, or without optimisation back to the engine, so that the stack stays shallow.
#[inline(always)]
unsafe fn proceed(cpu: *mut Cpu, entry: *const Insn) {
    if cfg!(debug_assertions) {
        (*cpu).rip = (*entry.sub(1).cast::<Header>()).rip;
        (*cpu).next = entry;
        (*cpu).stop = StopCode::Next;
    } else {
        enter(cpu, entry);
    }
}

#[cold]
#[inline(never)]
unsafe extern "C" fn over_budget(cpu: *mut Cpu, rip: u64) {
    (*cpu).rip = rip;
    (*cpu).stop = StopCode::Budget;
}

/// Ticks of the block from `insn` on, the instruction included.
#[inline(always)]
unsafe fn cost_from(insn: *const Insn) -> i64 {
    let before = if (*insn).number == 0 { 0 } else { (*insn.sub(1)).cost_through };
    i64::from((*header_of(insn)).cost - before)
}

/// Gives back what the present instruction and all behind it in the block were charged, and points RIP at it.
unsafe fn roll_back(cpu: &mut Cpu, insn: *const Insn) {
    let number = (*insn).number;
    cpu.budget += cost_from(insn);
    cpu.retired -= u64::from((*header_of(insn)).count - u32::from(number));
    cpu.rip = block_of(insn).rip_of(number);
}

/// Ends the run of handlers in front of `insn`, which did not complete.
#[cold]
#[inline(never)]
unsafe extern "C" fn trapped(cpu: *mut Cpu, insn: *const Insn) {
    let cpu = &mut *cpu;
    roll_back(cpu, insn);
    cpu.stop = StopCode::Trap;
    cpu.stopped_at = insn;
}

/// Ends the run of handlers behind `insn`, which completed and asked for it.
#[cold]
#[inline(never)]
unsafe extern "C" fn left(cpu: *mut Cpu, insn: *const Insn) {
    let cpu = &mut *cpu;
    let header = &*header_of(insn);
    let number = (*insn).number;
    cpu.budget += i64::from(header.cost - (*insn).cost_through);
    cpu.retired -= u64::from(header.count - u32::from(number) - 1);
    cpu.rip = block_of(insn).rip_of(number + 1);
    cpu.stop = StopCode::Left;
}

/// The handler of an operation.
pub(crate) unsafe extern "C" fn operation<O: Operation>(cpu: *mut Cpu, insn: *const Insn) {
    if O::execute(&mut Direct::<false>(cpu), &*insn).is_err() {
        return slow_operation::<O>(cpu, insn);
    }
    let next = insn.add(1);
    ((*next).handler)(cpu, next);
}

/// The same operation when the inline paths did not suffice, and the handler of operations that have none.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn slow_operation<O: Operation>(cpu: *mut Cpu, insn: *const Insn) {
    // What the operation reaches outside sees the time of this instruction.
    let unspent = cost_from(insn);
    (*cpu).budget += unspent;
    let outcome = O::execute(&mut Direct::<true>(cpu), &*insn);
    (*cpu).budget -= unspent;
    if outcome.is_err() {
        return trapped(cpu, insn);
    }
    if (*cpu).leave || (*cpu).budget < 0 {
        return left(cpu, insn);
    }
    let next = insn.add(1);
    ((*next).handler)(cpu, next);
}

/// The handler of a terminator.
pub(crate) unsafe extern "C" fn branch<B: Branch>(cpu: *mut Cpu, insn: *const Insn) {
    match B::execute(&mut Direct::<false>(cpu), &*insn) {
        Err(_) => slow_branch::<B>(cpu, insn),
        Ok(next) => go(cpu, insn, next),
    }
}

/// On to where a terminator goes.
#[inline(always)]
unsafe fn go(cpu: *mut Cpu, insn: *const Insn, next: Next) {
    if next.entry.is_null() { missed_link(cpu, insn, next.which) } else { proceed(cpu, next.entry) }
}

#[cold]
#[inline(never)]
unsafe extern "C" fn slow_branch<B: Branch>(cpu: *mut Cpu, insn: *const Insn) {
    let unspent = cost_from(insn);
    (*cpu).budget += unspent;
    let outcome = B::execute(&mut Direct::<true>(cpu), &*insn);
    (*cpu).budget -= unspent;
    match outcome {
        Err(_) => trapped(cpu, insn),
        Ok(next) if next.entry.is_null() => missed_link(cpu, insn, next.which),
        // The engine looks at whatever asked to leave before it enters the block.
        Ok(next) => missed(&mut *cpu, std::ptr::null_mut(), (*next.entry.sub(1).cast::<Header>()).rip),
    }
}

/// An operation and the conditional branch behind it in one handler.
pub(crate) unsafe extern "C" fn fused<O: Operation, B: Branch>(cpu: *mut Cpu, insn: *const Insn) {
    if O::execute(&mut Direct::<false>(cpu), &*insn).is_err() {
        return slow_operation::<O>(cpu, insn);
    }
    let second = insn.add(1);
    match B::execute(&mut Direct::<false>(cpu), &*second) {
        Err(_) => slow_branch::<B>(cpu, second),
        Ok(next) => go(cpu, second, next),
    }
}

/// Stands behind the last instruction of a block that is not a branch: goes on at the next address.
pub(crate) unsafe extern "C" fn fall_through(cpu: *mut Cpu, insn: *const Insn) {
    let mut direct = Direct::<false>(cpu);
    // This slot is the terminator's place without an instruction of its own: the links follow it.
    let next = direct.follow(&*insn, 0);
    go(cpu, insn, next);
}

/// The first instruction of a block whose bytes were overwritten: nobody may enter it any more.
pub(crate) unsafe extern "C" fn stale(cpu: *mut Cpu, insn: *const Insn) {
    let cpu = &mut *cpu;
    roll_back(cpu, insn);
    cpu.jumps.forget(cpu.rip);
    cpu.link = std::ptr::null_mut();
    cpu.stop = StopCode::Miss;
}

/// What `call` found.
#[derive(PartialEq, Eq)]
enum Called {
    Next,
    Left,
    Trapped,
}

/// Calls the function of `insn`. Not part of the handler, which has to end in a jump and so may have no local whose address escapes.
#[inline(never)]
unsafe fn call(cpu: *mut Cpu, insn: *const Insn) -> Called {
    let cpu = &mut *cpu;
    let block = block_of(insn);
    let number = (*insn).number;
    let (function, instruction) = block.function_of(number);
    // The function sees RIP and the time of its own instruction.
    cpu.rip = instruction.ip();
    let unspent = cost_from(insn);
    cpu.budget += unspent;
    let outcome = function(cpu, instruction);
    cpu.budget -= unspent;
    match outcome {
        Err(trap) => {
            cpu.trap = Some(trap);
            Called::Trapped
        }
        Ok(Flow::Next) if !cpu.leave && cpu.budget >= 0 => Called::Next,
        Ok(Flow::Next | Flow::End) => {
            left(cpu, insn);
            Called::Left
        }
        Ok(Flow::Jump) => {
            let target = cpu.rip;
            left(cpu, insn);
            cpu.rip = target;
            Called::Left
        }
        Ok(Flow::Again) => {
            roll_back(cpu, insn);
            cpu.again = true;
            // SDM vol 3, 18.3.1.1 "Instruction-Breakpoint Exception Condition": set between the iterations of a repeated instruction.
            cpu.set_resume_flag(true);
            cpu.stop = StopCode::Left;
            Called::Left
        }
    }
}

/// The handler of an instruction that is a plain function over the processor.
pub(crate) unsafe extern "C" fn function(cpu: *mut Cpu, insn: *const Insn) {
    match call(cpu, insn) {
        Called::Next => {
            let next = insn.add(1);
            ((*next).handler)(cpu, next)
        }
        Called::Left => {}
        Called::Trapped => trapped(cpu, insn),
    }
}

/// The handler of VMREAD, or with `WRITE` of VMWRITE, of 64-bit registers: the field by a look at the silicon where nothing more comes of
/// it, else as any other function.
pub(crate) unsafe extern "C" fn field<const WRITE: bool>(cpu: *mut Cpu, insn: *const Insn) {
    if !access_field::<WRITE>(cpu, insn) {
        return function(cpu, insn);
    }
    if (*cpu).budget < 0 {
        return left(cpu, insn);
    }
    let next = insn.add(1);
    ((*next).handler)(cpu, next)
}

#[inline(never)]
unsafe fn access_field<const WRITE: bool>(cpu: *mut Cpu, insn: *const Insn) -> bool {
    let cpu = &mut *cpu;
    let (first, second) = (usize::from((*insn).a), usize::from((*insn).b));
    // The field is named by the reg operand, which is the first of VMWRITE and the second of VMREAD.
    let (name, value) = if WRITE { (cpu.regs[first], Some(cpu.regs[second])) } else { (cpu.regs[second], None) };
    let Some(extension) = cpu.extension.as_mut().filter(|_| cpu.cpl == 0) else { return false };
    let Some(value) = extension.plain_field(name, value) else { return false };
    let ticks = if WRITE {
        cpu.model.costs.vmwrite.ticks()
    } else {
        cpu.regs[first] = value;
        cpu.model.costs.vmread.ticks()
    };
    cpu.set_all_status(0);
    cpu.charge(ticks);
    true
}
