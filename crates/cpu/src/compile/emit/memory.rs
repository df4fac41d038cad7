//! Memory operands in compiled code: the linear address, and the inline path of the software TLB.
//!
//! In a region no translation can change and no entry be replaced, so what was found once on a way holds to its end. That an access is
//! served from what an earlier one found is therefore no shortcut that anybody could see.

use super::{Emitter, Reason, integer};
use crate::interpretation::Interpretation;
use crate::operand::{gpr_number, is_high_byte, segment_of};
use crate::state::Cpu;
use crate::tlb::{SOFTWARE_ENTRIES, SoftwareEntry, SoftwareTlb};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value};
use cranelift_frontend::Variable;
use iced_x86::Register;
use isa::register::Segment;
use isa::segment::SegmentRegister;
use std::collections::BTreeMap;
use std::mem::offset_of;

/// Accesses whose distances from the first fall into the same so many bytes ask the same question. Asked for all of them at once, it is
/// compared without an addition, and denied a little more often than need be: then the access looks for itself.
const WINDOW: i64 = 128;
/// The most bytes of an access.
const WIDEST: i64 = 8;

/// A page that the software TLB had.
#[derive(Clone)]
pub(super) struct Page {
    /// The address that found it is at this distance from this value.
    root: Value,
    distance: i64,
    write: bool,
    /// The offset of that address in its page, and the host's address for it.
    inside: Value,
    host: Value,
    /// Where windows begin in the page whose number is not zero.
    windows: BTreeMap<i64, Value>,
}

/// What a loop of one block keeps from turn to turn: the page that an access was on in the turn before, where the next is likely to be.
pub(super) struct Kept {
    /// How far behind the beginning of a kept page an access may begin: nowhere in the first turn.
    limit: Variable,
    /// Where the page begins and what to add for the host's address, for each of the accesses that look for themselves, the first ones.
    pages: [(Variable, Variable); KEPT],
    used: usize,
}

/// How many pages a loop keeps. Each takes two registers.
const KEPT: usize = 3;

/// What to do at an address.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Load,
    /// Of a value that has the width of the access.
    Store(Value),
    /// Only the host address is wanted.
    Host,
}

impl Emitter<'_, '_> {
    /// Notes that a value is a constant away from another.
    pub(super) fn note_distance(&mut self, value: Value, from: Value, by: i64) {
        let (root, before) = self.distances.get(&from).copied().unwrap_or((from, 0));
        self.distances.insert(value, (root, before.wrapping_add(by)));
    }

    /// An access within a page. The first at a distance from some value looks into the software TLB; later ones at other distances from it
    /// only ask whether they are on the same page, and look themselves if not. Where the software TLB has nothing, control leaves.
    pub(super) fn access(&mut self, address: Value, width: u32, write: bool, access: Access) -> Option<Value> {
        let bytes = i64::from(width / 8);
        let (root, distance) = self.distances.get(&address).copied().unwrap_or((address, 0));
        let known = self.pages.iter_mut().find(|page| page.root == root && page.write == write);
        let near = known.map(|page| (distance.wrapping_sub(page.distance), page)).filter(|near| near.0.unsigned_abs() < 2048);
        let Some((by, page)) = near else {
            let host = self.look_up_first(address, bytes, write);
            let inside = self.builder.ins().band_imm_u(address, 0xfff);
            self.pages.push(Page { root, distance, write, inside, host, windows: BTreeMap::new() });
            return self.perform(host, 0, width, access);
        };
        let (host, window) = (page.host, by.div_euclid(WINDOW));
        let first = match window {
            0 => page.inside,
            _ => *page.windows.entry(window).or_insert_with(|| self.builder.ins().iadd_imm_s(page.inside, window * WINDOW)),
        };
        let (same, other, join) = (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(other);
        let on_page = self.builder.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, first, 4096 - (WINDOW + WIDEST - 1));
        self.builder.ins().brif(on_page, same, &[], other, &[]);
        self.builder.switch_to_block(same);
        let result = self.perform(host, by as i32, width, access);
        let arguments: Vec<BlockArg> = result.map(BlockArg::Value).into_iter().collect();
        self.builder.ins().jump(join, &arguments);
        self.builder.switch_to_block(other);
        let addend = self.look_up(address, bytes, write, true);
        let host = self.builder.ins().iadd(address, addend);
        let result_there = self.perform(host, 0, width, access);
        let arguments: Vec<BlockArg> = result_there.map(BlockArg::Value).into_iter().collect();
        self.builder.ins().jump(join, &arguments);
        let result = result.map(|value| {
            let kind = self.builder.func.dfg.value_type(value);
            self.builder.append_block_param(join, kind)
        });
        self.builder.switch_to_block(join);
        result
    }

    fn perform(&mut self, host: Value, offset: i32, width: u32, access: Access) -> Option<Value> {
        match access {
            Access::Load => Some(self.builder.ins().load(integer(width), self.guest, host, offset)),
            Access::Store(value) => {
                self.builder.ins().store(self.guest, value, host, offset);
                None
            }
            Access::Host => Some(self.builder.ins().iadd_imm_s(host, i64::from(offset))),
        }
    }

    /// In front of a loop of one block.
    pub(super) fn keep_pages(&mut self) {
        let none = self.k(0);
        let mut variable = || {
            let variable = self.builder.declare_var(I64);
            self.builder.def_var(variable, none);
            variable
        };
        self.kept = Some(Kept { limit: variable(), pages: [(); KEPT].map(|()| (variable(), variable())), used: 0 });
    }

    /// At the end of such a block: each of its accesses has found its page.
    pub(super) fn keep_on(&mut self) {
        if let Some(kept) = self.kept.take() {
            let limit = self.k((4096 - WIDEST + 1) as u64);
            self.builder.def_var(kept.limit, limit);
        }
    }

    /// The host address for an access that nothing before it in the block tells of.
    fn look_up_first(&mut self, address: Value, bytes: i64, write: bool) -> Value {
        let kept = self.kept.as_mut().filter(|kept| kept.used < KEPT);
        let addend = match kept {
            None => self.look_up(address, bytes, write, false),
            Some(kept) => {
                let (limit, (start, addend)) = (kept.limit, kept.pages[kept.used]);
                kept.used += 1;
                let (limit, known) = (self.builder.use_var(limit), self.builder.use_var(start));
                let inside = self.builder.ins().isub(address, known);
                let same = self.builder.ins().icmp(IntCC::UnsignedLessThan, inside, limit);
                let (on, other) = (self.builder.create_block(), self.cold_block());
                self.builder.ins().brif(same, on, &[], other, &[]);
                self.builder.switch_to_block(other);
                let found = self.look_up(address, bytes, write, true);
                let page = self.builder.ins().band_imm_s(address, !0xfff);
                self.builder.def_var(start, page);
                self.builder.def_var(addend, found);
                self.builder.ins().jump(on, &[]);
                self.builder.switch_to_block(on);
                self.builder.use_var(addend)
            }
        };
        self.builder.ins().iadd(address, addend)
    }

    /// What to add to an address for the host's, if the software TLB has `bytes` bytes there; else control leaves. `rarely` says that it is
    /// looked for off the usual way.
    fn look_up(&mut self, address: Value, bytes: i64, write: bool, rarely: bool) -> Value {
        const { assert!(size_of::<SoftwareEntry>() == 16 && SOFTWARE_ENTRIES == 4096) };
        debug_assert!(bytes <= WIDEST, "a window ends so many bytes behind its last address");
        let half = if write { offset_of!(SoftwareTlb, write) } else { offset_of!(SoftwareTlb, read) };
        let half = offset_of!(Cpu, software_tlb) + half;
        let index = self.builder.ins().ushr_imm_u(address, 8);
        let index = self.builder.ins().band_imm_u(index, ((SOFTWARE_ENTRIES - 1) << 4) as i64);
        let entry = self.builder.ins().iadd(self.cpu, index);
        let tag = self.builder.ins().load(I64, self.tables, entry, (half + offset_of!(SoftwareEntry, tag)) as i32);
        let last = if bytes > 1 { self.builder.ins().iadd_imm_s(address, bytes - 1) } else { address };
        let page = self.builder.ins().band_imm_s(last, !0xfff);
        let context = self.load_own(I64, offset_of!(Cpu, context) as i32);
        let wanted = self.builder.ins().bor(page, context);
        let hit = self.builder.ins().icmp(IntCC::Equal, wanted, tag);
        let on = if rarely { self.cold_block() } else { self.builder.create_block() };
        self.demand_on(hit, Reason::Plain, on);
        self.builder.ins().load(I64, self.tables, entry, (half + offset_of!(SoftwareEntry, addend)) as i32)
    }

    /// The host address behind a check that a write may go there.
    pub(super) fn writable(&mut self, address: Value, width: u32) -> Value {
        self.access(address, width, true, Access::Host).expect("this access has a result")
    }

    pub(super) fn store_host(&mut self, host: Value, value: Value, width: u32) {
        let value = self.fit(value, integer(width));
        self.builder.ins().store(self.guest, value, host, 0);
    }

    /// A general register of whatever width.
    pub(super) fn read(&mut self, register: Register) -> Value {
        let whole = self.register(gpr_number(register));
        let whole = if is_high_byte(register) { self.builder.ins().ushr_imm_u(whole, 8) } else { whole };
        self.fit(whole, integer(register.size() as u32 * 8))
    }

    /// The linear address of the memory operand, in 64-bit mode.
    pub(super) fn address(&mut self) -> Value {
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
                if instruction.memory_index() == Register::None {
                    self.note_distance(sum, base, instruction.memory_displacement64() as i64);
                }
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
}
