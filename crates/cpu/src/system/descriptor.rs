//! Descriptor tables, and stacks that are not the current one: what segment loads, far transfers and event delivery share.
//!
//! What is modelled: reading of descriptors from GDT and LDT with limit checks, the accessed flag (SDM vol 3, 3.4.5.1 "Code- and
//! Data-Segment Descriptor Types"), 16-byte system descriptors of long mode, stack pointers in the TSS.

use crate::access::Privilege;
use crate::operand::mask;
use crate::state::Cpu;
use crate::trap::{Access, Outcome, Trap};
use isa::paging::is_canonical;
use isa::register::{Gpr, Segment};
use isa::segment::{Descriptor, SegmentRegister, Selector, system};

/// What a segment descriptor is looked at for, as far as the checks depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The code segment of a far return or IRET from a privilege level, in long mode or not.
    Return { from: u8, long: bool },
    /// The stack segment of a privilege level.
    Stack { level: u8 },
}

/// The last descriptors that passed the checks of a purpose, with the registers that they were loaded to. What a descriptor is found to be
/// depends on its eight bytes, the selector and the purpose alone: if all are the same, so is the register. The bytes are read each time.
#[derive(Debug)]
pub(crate) struct KnownSegments([Option<(Purpose, Selector, Descriptor, SegmentRegister)>; 8]);

impl KnownSegments {
    pub(crate) const fn new() -> Self {
        Self([None; 8])
    }

    const fn slot(selector: Selector) -> usize {
        selector.index() as usize & 7
    }

    /// The register that a descriptor is loaded to, if it is known to pass, and to need no write of its accessed flag.
    #[inline]
    pub(crate) fn find(&self, purpose: Purpose, selector: Selector, descriptor: Descriptor) -> Option<&SegmentRegister> {
        let (for_, of, bytes, register) = self.0[Self::slot(selector)].as_ref()?;
        (*for_ == purpose && *of == selector && *bytes == descriptor).then_some(register)
    }

    /// Keeps what was found; `descriptor` is as it was read, before its accessed flag was set.
    pub(crate) fn keep(&mut self, purpose: Purpose, selector: Selector, descriptor: Descriptor, register: SegmentRegister) {
        self.0[Self::slot(selector)] = descriptor.is_accessed().then_some((purpose, selector, descriptor, register));
    }
}

/// A descriptor as it was read, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Low eight bytes.
    pub descriptor: Descriptor,
    /// Linear address.
    pub address: u64,
}

impl Cpu {
    /// Where the descriptor of a selector lies; `None` when its table ends before its last byte.
    #[inline]
    fn descriptor_address(&self, selector: Selector, bytes: u64) -> Option<u64> {
        let (base, limit) = if selector.ti() {
            if !self.ldtr.is_usable() {
                return None;
            }
            (self.ldtr.base, u64::from(self.ldtr.limit))
        } else {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        };
        let offset = u64::from(selector.index()) * 8;
        (offset + bytes - 1 <= limit).then(|| self.table_address(base.wrapping_add(offset)))
    }

    /// A linear address in a system table, as wide as linear addresses are now.
    pub(crate) fn table_address(&self, linear: u64) -> u64 {
        if self.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    /// The descriptor of a selector; `outside` is the fault when the table has none. The null selector has one as any other.
    #[inline]
    pub(crate) fn find_descriptor(&mut self, selector: Selector, outside: impl FnOnce() -> Trap) -> Outcome<Found> {
        let address = self.descriptor_address(selector, 8).ok_or_else(outside)?;
        Ok(Found { descriptor: Descriptor(self.load_system(address, 8)?), address })
    }

    /// The upper half of a 16-byte descriptor of long mode.
    pub(crate) fn upper_descriptor(&mut self, selector: Selector, found: Found, outside: Trap) -> Outcome<u64> {
        self.descriptor_address(selector, 16).ok_or(outside)?;
        self.load_system(found.address.wrapping_add(8), 8)
    }

    /// Sets the accessed flag of a code or data descriptor, and returns the register that loads it.
    pub(crate) fn access_descriptor(&mut self, selector: Selector, found: Found) -> Outcome<SegmentRegister> {
        let mut descriptor = found.descriptor;
        if !descriptor.is_accessed() {
            descriptor.0 |= 1 << 40;
            self.store_system(found.address.wrapping_add(5), 1, descriptor.0 >> 40 & 0xff)?;
        }
        Ok(descriptor.load(selector))
    }

    /// The linear address of bytes in a stack segment; `None` when they are outside.
    pub(crate) fn stack_linear(&self, segment: &SegmentRegister, flat: bool, offset: u64, bytes: u64) -> Option<u64> {
        if flat {
            return (is_canonical(offset) && is_canonical(offset.wrapping_add(bytes - 1))).then_some(offset);
        }
        let last = offset.wrapping_add(bytes - 1);
        let limit = u64::from(segment.limit);
        let inside = if segment.attributes.is_expand_down() {
            offset > limit && last <= if segment.attributes.db() { 0xffff_ffff } else { 0xffff }
        } else {
            last <= limit
        };
        (inside && segment.is_usable()).then(|| segment.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// SS and stack pointer for a privilege level from a 32-bit or 16-bit TSS. SDM vol 3, 6.12.1 "Exception- or Interrupt-Handler
    /// Procedures"; `external` is the EXT bit of error codes.
    pub(crate) fn inner_stack(&mut self, level: u8, external: u32) -> Outcome<Stack> {
        let wide = self.tr.attributes.kind() & 8 != 0;
        let bytes = if wide { 8 } else { 4 };
        let offset = if wide { 4 + 8 * u64::from(level) } else { 2 + 4 * u64::from(level) };
        let tss_fault = Trap::ts(self.tr.selector.error_code() | external);
        if offset + bytes - 1 > u64::from(self.tr.limit) {
            return Err(tss_fault);
        }
        let at = self.tr.base.wrapping_add(offset) & 0xffff_ffff;
        let (pointer, selector) = if wide {
            (self.load_system(at, 4)?, self.load_system(at + 4, 2)?)
        } else {
            (self.load_system(at, 2)?, self.load_system(at + 2, 2)?)
        };
        let selector = Selector::from_bits(selector as u16);
        if selector.is_null() {
            return Err(Trap::ts(external));
        }
        let code = selector.error_code() | external;
        let found = self.find_descriptor(selector, || Trap::ts(code))?;
        let attributes = found.descriptor.attributes();
        if selector.rpl() != level || attributes.dpl() != level || !attributes.is_writable() {
            return Err(Trap::ts(code));
        }
        if !attributes.p() {
            return Err(Trap::ss(code));
        }
        let segment = self.access_descriptor(selector, found)?;
        let bits = if segment.attributes.db() { 32 } else { 16 };
        Ok(Stack { segment, pointer, bits, flat: false, privilege: privilege_of(level), fault: code })
    }

    /// A stack pointer from the 64-bit TSS: RSP0 to RSP2, or IST1 to IST7 with `index` 1 to 7. SDM vol 3, 8.7 "Task Management in 64-Bit
    /// Mode".
    pub(crate) fn long_stack_pointer(&mut self, level: u8, index: u8, external: u32) -> Outcome<u64> {
        let offset = if index != 0 { 0x1c + 8 * u64::from(index) } else { 4 + 8 * u64::from(level) };
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(Trap::ts(self.tr.selector.error_code() | external));
        }
        self.load_system(self.tr.base.wrapping_add(offset), 8)
    }

    /// The stack in use.
    pub(crate) fn current_stack(&self) -> Stack {
        let bits = self.stack_bits();
        Stack {
            segment: *self.segment(Segment::Ss),
            pointer: self.gpr(Gpr::Rsp) & mask(bits),
            bits,
            flat: bits == 64,
            privilege: self.privilege(),
            fault: 0,
        }
    }

    /// Makes a stack's pointer RSP: as much of it as the stack's width has.
    pub(crate) fn set_stack_pointer(&mut self, pointer: u64, bits: u32) {
        let old = self.gpr(Gpr::Rsp);
        self.set_gpr(Gpr::Rsp, if bits == 16 { old & !0xffff | pointer & 0xffff } else { pointer & mask(bits) });
    }
}

/// The privilege of explicit accesses at a level.
pub(crate) const fn privilege_of(level: u8) -> Privilege {
    if level == 3 { Privilege::User } else { Privilege::Supervisor }
}

/// A stack being pushed to or popped from; nothing of the processor changes until its user is done.
#[derive(Clone)]
pub(crate) struct Stack {
    pub segment: SegmentRegister,
    pub pointer: u64,
    /// Width of the pointer.
    pub bits: u32,
    /// No segment: 64-bit mode.
    pub flat: bool,
    pub privilege: Privilege,
    /// The error code of the #SS when an access is outside the segment or not canonical.
    pub fault: u32,
}

impl Stack {
    fn linear(&self, cpu: &Cpu, offset: u64, bytes: u8) -> Outcome<u64> {
        cpu.stack_linear(&self.segment, self.flat, offset, u64::from(bytes)).ok_or_else(|| Trap::ss(self.fault))
    }

    /// Pushes.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, bytes: u8, value: u64) -> Outcome {
        let pointer = self.pointer.wrapping_sub(u64::from(bytes)) & mask(self.bits);
        let linear = self.linear(cpu, pointer, bytes)?;
        cpu.store_as(linear, bytes, value & mask(u32::from(bytes) * 8), self.privilege)?;
        self.pointer = pointer;
        Ok(())
    }

    /// Pushes several words.
    #[inline]
    pub(crate) fn push_all(&mut self, cpu: &mut Cpu, bytes: u8, words: &[u64]) -> Outcome {
        let bottom = self.pointer.wrapping_sub(8 * words.len() as u64);
        if self.flat && bytes == 8 && cpu.store_words(bottom, words, self.privilege) {
            self.pointer = bottom;
            return Ok(());
        }
        words.iter().try_for_each(|word| self.push(cpu, bytes, *word))
    }

    /// Reads quadwords from the top upwards. `false`, with nothing done, if they have to be popped one by one.
    pub(crate) fn peek_all(&self, cpu: &Cpu, bytes: u8, into: &mut [u64]) -> bool {
        self.flat && bytes == 8 && cpu.load_words(self.pointer, into, self.privilege)
    }

    /// Pops.
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, bytes: u8) -> Outcome<u64> {
        let value = self.peek(cpu, 0, bytes)?;
        self.skip(u64::from(bytes));
        Ok(value)
    }

    /// Reads above the top.
    pub(crate) fn peek(&self, cpu: &mut Cpu, above: u64, bytes: u8) -> Outcome<u64> {
        let linear = self.linear(cpu, self.pointer.wrapping_add(above) & mask(self.bits), bytes)?;
        cpu.load_as(linear, bytes, Access::Read, self.privilege)
    }

    /// Removes bytes unread.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.pointer = self.pointer.wrapping_add(bytes) & mask(self.bits);
    }
}

/// Whether a system descriptor's type is a TSS that a task switch or LTR may meet.
pub(crate) const fn is_available_tss(kind: u8, long: bool) -> bool {
    kind == system::TSS_AVAILABLE || kind == system::TSS16_AVAILABLE && !long
}
