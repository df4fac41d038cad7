//! Virtual-8086 mode: how IRET enters it, and its IRET and INT n.
//!
//! What is modelled: SDM vol 3, 21.2 "Virtual-8086 Mode" and 21.3 "Interrupt and Exception Handling in Virtual-8086 Mode": IOPL-sensitive
//! instructions, the virtual interrupt flag and the redirection of software interrupts (CR4.VME, six methods of handling); APM vol 2, 8.9
//! "Virtual-8086 Mode Interrupt Control Transfers". How interrupts leave the mode is told in `delivery/gate.rs`, what is #UD there in
//! `select`. What is not: #GP for a program that is resumed with VIF and VIP both set.
//!
//! A decision of ours: a redirected interrupt reads its vector, at linear address 4 n, with the rights of the program.

use super::Flow;
use super::descriptor::Stack;
use crate::operand::mask;
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use iced_x86::Instruction;
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::system::{TSS_AVAILABLE, TSS_BUSY};
use isa::segment::{SegmentRegister, Selector};

/// Offset in the TSS of the word that says where the I/O permission bitmap is. SDM vol 3, 8.2.1 "Task-State Segment (TSS)".
pub(super) const BITMAP_BASE: u64 = 0x66;
/// Bytes of the software interrupt redirection bitmap, which ends where the I/O permission bitmap begins.
const REDIRECTION_BYTES: u64 = 32;
/// The last offset of a segment.
const LIMIT: u64 = 0xffff;

/// The segments whose selectors lie above SS on the stack from which virtual-8086 mode is entered, and on that which leaving it makes.
pub(crate) const SAVED: [Segment; 4] = [Segment::Es, Segment::Ds, Segment::Fs, Segment::Gs];

impl Cpu {
    /// Whether CLI and STI, and in virtual-8086 mode 16-bit PUSHF, POPF, IRET and some INT n, work on VIF where IOPL forbids IF. SDM vol 3,
    /// 21.3.2 and 21.4 "Protected-Mode Virtual Interrupts".
    pub(super) fn has_virtual_interrupt_flag(&self) -> bool {
        if self.is_v86() { self.cr4.vme() } else { self.cpl == 3 && self.cr4.pvi() }
    }

    /// Whether IOPL lets the program use the interrupt flag.
    pub(super) fn has_io_privilege(&self) -> bool {
        self.is_real() || self.cpl <= self.system_flags().iopl()
    }

    /// #GP(0) for an instruction of virtual-8086 mode that IOPL forbids, unless VIF stands in, as it does for 16-bit forms only. Returns
    /// whether it does.
    pub(super) fn require_v86_privilege(&self, bytes: u8) -> Outcome<bool> {
        match (self.has_io_privilege(), self.cr4.vme() && bytes == 2) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(Trap::GP0),
        }
    }

    /// The flags that POPF and IRET make where VIF stands in for IF: #GP(0) if an interrupt waits for the flag that is set, or for TF.
    pub(super) fn with_virtual_flag(&self, flags: Rflags, image: u64) -> Outcome<Rflags> {
        let image = Rflags::from_bits(image);
        if image.tf() || self.system_flags().vip() && image.r#if() { Err(Trap::GP0) } else { Ok(flags.with_vif(image.r#if())) }
    }

    /// The flags as PUSHF and redirected interrupts show them where VIF stands in for IF.
    pub(super) fn shown_flags(&self) -> Rflags {
        let flags = self.rflags();
        flags.with_iopl(3).with_if(flags.vif())
    }

    /// IRET at CPL 0 with VM set in the image: the rest of the frame is on the stack.
    pub(super) fn enter_v86(&mut self, mut stack: Stack, rip: u64, code: Selector, image: u64) -> Outcome<Flow> {
        let pointer = stack.pop(self, 4)?;
        let mut selector = |cpu: &mut Self| stack.pop(cpu, 4).map(|word| SegmentRegister::virtual_8086(word as u16));
        let outer = selector(self)?;
        let mut others = [outer; SAVED.len()];
        for other in &mut others {
            *other = selector(self)?;
        }
        if rip > LIMIT {
            return Err(Trap::GP0);
        }
        let flags = self.merged_flags(image, 4, true).with_vm(true);
        for (segment, register) in SAVED.into_iter().zip(others) {
            self.segments[segment.number()] = register;
        }
        self.segments[Segment::Ss.number()] = outer;
        self.regs[4] = pointer;
        self.set_code(SegmentRegister::virtual_8086(code.into_bits()), rip, 3);
        self.set_rflags(flags);
        Ok(Flow::Jump)
    }

    /// IRET in virtual-8086 mode, which stays there.
    pub(super) fn iret_in_v86(&mut self, bytes: u8) -> Outcome<Flow> {
        let stands_in = self.require_v86_privilege(bytes)?;
        let mut stack = self.current_stack();
        let rip = stack.pop(self, bytes)?;
        let code = stack.pop(self, bytes)? as u16;
        let image = stack.pop(self, bytes)?;
        if rip > LIMIT {
            return Err(Trap::GP0);
        }
        let mut flags = self.merged_flags(image, bytes, true);
        if stands_in {
            flags = self.with_virtual_flag(flags, image)?;
        }
        self.set_stack_pointer(stack.pointer, stack.bits);
        self.set_code(SegmentRegister::virtual_8086(code), rip, 3);
        self.set_rflags(flags);
        Ok(Flow::Jump)
    }

    /// INT n in virtual-8086 mode: `true` if it went to the program's own handler, `false` if it goes through the IDT. SDM vol 3, Table 21-2
    /// "Software Interrupt Handling Methods While in Virtual-8086 Mode".
    pub(super) fn interrupt_in_v86(&mut self, vector: u8, instruction: &Instruction) -> Outcome<bool> {
        let virtual_flag = !self.has_io_privilege();
        if self.cr4.vme() && !self.is_redirected_to_monitor(vector)? {
            self.redirect(vector, instruction, virtual_flag)?;
            return Ok(true);
        }
        if virtual_flag { Err(Trap::GP0) } else { Ok(false) }
    }

    /// The vector's bit in the redirection bitmap of the TSS. Where there is no such byte, the instruction is #GP(0).
    fn is_redirected_to_monitor(&mut self, vector: u8) -> Outcome<bool> {
        let tr = self.tr;
        let limit = u64::from(tr.limit);
        if !tr.is_usable() || !matches!(tr.attributes.kind(), TSS_AVAILABLE | TSS_BUSY) || BITMAP_BASE + 1 > limit {
            return Err(Trap::GP0);
        }
        let bitmap = self.load_system(self.table_address(tr.base.wrapping_add(BITMAP_BASE)), 2)?;
        let Some(at) = (bitmap + u64::from(vector / 8)).checked_sub(REDIRECTION_BYTES).filter(|at| *at <= limit) else {
            return Err(Trap::GP0);
        };
        let byte = self.load_system(self.table_address(tr.base.wrapping_add(at)), 1)?;
        Ok(byte >> (vector % 8) & 1 != 0)
    }

    /// An interrupt as the 8086 takes it, through the table at linear address 0.
    fn redirect(&mut self, vector: u8, instruction: &Instruction, virtual_flag: bool) -> Outcome {
        self.charge(self.model.costs.exception_delivery.ticks());
        let entry = self.load(u64::from(vector) * 4, 4)?;
        let flags = self.rflags();
        let mut stack = self.current_stack();
        stack.push(self, 2, if virtual_flag { self.shown_flags() } else { flags }.into_bits())?;
        stack.push(self, 2, u64::from(self.segment(Segment::Cs).selector.into_bits()))?;
        stack.push(self, 2, self.next_rip(instruction) & mask(16))?;
        self.set_stack_pointer(stack.pointer, stack.bits);
        let flags = flags.with_tf(false);
        self.set_rflags(if virtual_flag { flags.with_vif(false) } else { flags.with_if(false) });
        self.set_code(SegmentRegister::virtual_8086((entry >> 16) as u16), entry & 0xffff, 3);
        self.trace_cancelled = true;
        Ok(())
    }
}
