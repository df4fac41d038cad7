//! The virtual APIC: accesses to the APIC-access page and to x2APIC MSRs, virtual interrupts, posted interrupts.
//!
//! Modelled: SDM chapter 30 "APIC Virtualization and Virtual Interrupts": TPR, PPR, EOI and self-IPI virtualization, evaluation and delivery
//! of virtual interrupts, reads and writes of the APIC-access page by linear addresses, x2APIC MSRs, posted-interrupt processing. An access
//! to the page by a guest-physical address always exits. Not modelled: IPI virtualization, which the models lack.

use crate::silicon::{Operation, Vmx};
use crate::vmcs::Fields;
use cpu::state::Cpu;
use cpu::trap::{Access, Exit, Outcome, Trap};
use isa::msr;
use isa::vmx::VmcsField;

/// Offsets of the local APIC's registers, in the virtual-APIC page as in the APIC's own. SDM 30.1.1 "Virtualized APIC Registers".
pub(crate) mod register {
    pub const TASK_PRIORITY: u16 = 0x80;
    pub const PROCESSOR_PRIORITY: u16 = 0xa0;
    pub const END_OF_INTERRUPT: u16 = 0xb0;
    pub const IN_SERVICE: u16 = 0x100;
    pub const REQUESTED: u16 = 0x200;
    pub const COMMAND_LOW: u16 = 0x300;
    pub const COMMAND_HIGH: u16 = 0x310;
    /// Of the x2APIC alone: an interrupt for oneself.
    pub const SELF_COMMAND: u16 = 0x3f0;
}

/// What the controls say of the virtual APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VirtualApic {
    /// "use TPR shadow".
    tpr_shadow: bool,
    /// "virtualize x2APIC mode".
    x2apic: bool,
    /// "APIC-register virtualization".
    registers: bool,
    /// "virtual-interrupt delivery".
    interrupts: bool,
}

impl VirtualApic {
    pub(crate) fn of(fields: &Fields) -> VirtualApic {
        let secondary = fields.secondary();
        VirtualApic {
            tpr_shadow: fields.primary().use_tpr_shadow(),
            x2apic: secondary.virtualize_x2apic_mode(),
            registers: secondary.apic_register_virtualization(),
            interrupts: secondary.virtual_interrupt_delivery(),
        }
    }

    /// Whether a register can be read or written through the APIC-access page without an exit. SDM 30.4.2 "Virtualizing Reads from the
    /// APIC-Access Page", 30.4.3 "Virtualizing Writes to the APIC-Access Page".
    fn virtualizes(self, register: u16, write: bool) -> bool {
        if !self.tpr_shadow {
            return false;
        }
        if self.registers {
            let both = matches!(register, 0x20 | 0x80 | 0xb0 | 0xd0..=0xf0 | 0x280 | 0x300..=0x370 | 0x380 | 0x3e0);
            return both || !write && matches!(register, 0x30 | 0x100..=0x270);
        }
        register == register::TASK_PRIORITY || self.interrupts && matches!(register, register::END_OF_INTERRUPT | register::COMMAND_LOW)
    }
}

/// Byte and bit of a vector in one of the registers of 256 bits, whose 32-bit parts are 16 bytes apart.
const fn place(register: u16, vector: u8) -> (u16, u8) {
    (register + (vector as u16 >> 5) * 16 + (vector as u16 >> 3 & 3), vector & 7)
}

impl Vmx {
    /// Begins to virtualize the APIC for the guest that is entered. SDM 27.3.2.5 "Updating Non-Register State".
    pub(crate) fn enter_virtual_apic(&mut self, cpu: &mut Cpu) {
        cpu.apic_access_page = self.intercepts.apic_access_page;
        if self.intercepts.virtual_apic.interrupts {
            self.virtualize_processor_priority(cpu);
        }
    }

    fn page(&self) -> u64 {
        self.current.get(VmcsField::VirtualApicAddress)
    }

    fn load(&self, cpu: &Cpu, offset: u16, bytes: u8) -> u64 {
        cpu.read_physical(self.page() + u64::from(offset), bytes)
    }

    fn store(&self, cpu: &mut Cpu, offset: u16, bytes: u8, value: u64) {
        cpu.write_physical(self.page() + u64::from(offset), bytes, value);
    }

    fn set_vector(&self, cpu: &mut Cpu, register: u16, vector: u8, value: bool) {
        let (byte, bit) = place(register, vector);
        let old = self.load(cpu, byte, 1);
        self.store(cpu, byte, 1, old & !(1 << bit) | u64::from(value) << bit);
    }

    /// The highest vector in a register of 256 bits; 0 where there is none.
    fn highest(&self, cpu: &Cpu, register: u16) -> u8 {
        (0..=u8::MAX)
            .rev()
            .find(|&vector| {
                let (byte, bit) = place(register, vector);
                self.load(cpu, byte, 1) >> bit & 1 != 0
            })
            .unwrap_or(0)
    }

    /// Requesting and servicing virtual interrupt. SDM 25.4.2 "Guest Non-Register State", guest interrupt status.
    fn interrupt_status(&self) -> (u8, u8) {
        let status = self.current.get(VmcsField::GuestInterruptStatus);
        (status as u8, (status >> 8) as u8)
    }

    fn set_interrupt_status(&mut self, requesting: u8, servicing: u8) {
        self.current.set(VmcsField::GuestInterruptStatus, u64::from(servicing) << 8 | u64::from(requesting));
    }

    /// SDM 30.1.3 "PPR Virtualization", and the evaluation of pending virtual interrupts that always follows (30.2.1).
    fn virtualize_processor_priority(&mut self, cpu: &mut Cpu) {
        let (requesting, servicing) = self.interrupt_status();
        let task = cpu.virtual_tpr.unwrap_or(0);
        let priority = if task >> 4 >= servicing >> 4 { task } else { servicing & 0xf0 };
        self.store(cpu, register::PROCESSOR_PRIORITY, 4, priority.into());
        let window = self.current.fields().primary().interrupt_window_exiting();
        cpu.virtual_interrupt_recognized = !window && requesting >> 4 > priority >> 4;
        cpu.look_around();
    }

    /// Only recognition, where the priority is what it was.
    fn evaluate(&mut self, cpu: &mut Cpu) {
        let (requesting, _) = self.interrupt_status();
        let priority = self.load(cpu, register::PROCESSOR_PRIORITY, 1) as u8;
        let window = self.current.fields().primary().interrupt_window_exiting();
        cpu.virtual_interrupt_recognized = !window && requesting >> 4 > priority >> 4;
        cpu.look_around();
    }

    /// SDM 30.2.2 "Virtual-Interrupt Delivery": the vector, which is in service now.
    pub(crate) fn deliver_virtual_interrupt(&mut self, cpu: &mut Cpu) -> u8 {
        let (vector, _) = self.interrupt_status();
        self.set_vector(cpu, register::IN_SERVICE, vector, true);
        self.set_vector(cpu, register::REQUESTED, vector, false);
        self.store(cpu, register::PROCESSOR_PRIORITY, 4, u64::from(vector & 0xf0));
        let requesting = self.highest(cpu, register::REQUESTED);
        self.set_interrupt_status(requesting, vector);
        cpu.virtual_interrupt_recognized = false;
        vector
    }

    /// SDM 30.1.4 "EOI Virtualization".
    fn virtualize_end_of_interrupt(&mut self, cpu: &mut Cpu) -> Option<Exit> {
        let (requesting, vector) = self.interrupt_status();
        self.set_vector(cpu, register::IN_SERVICE, vector, false);
        let servicing = self.highest(cpu, register::IN_SERVICE);
        self.set_interrupt_status(requesting, servicing);
        self.virtualize_processor_priority(cpu);
        let bitmaps = [VmcsField::EoiExitBitmap0, VmcsField::EoiExitBitmap1, VmcsField::EoiExitBitmap2, VmcsField::EoiExitBitmap3];
        let exits = self.current.get(bitmaps[usize::from(vector >> 6)]) >> (vector & 63) & 1 != 0;
        exits.then_some(Exit::VirtualizedEoi { vector })
    }

    /// A virtual interrupt is requested. SDM 30.1.5 "Self-IPI Virtualization".
    fn request(&mut self, cpu: &mut Cpu, vector: u8) {
        self.set_vector(cpu, register::REQUESTED, vector, true);
        let (requesting, servicing) = self.interrupt_status();
        self.set_interrupt_status(requesting.max(vector), servicing);
        self.evaluate(cpu);
    }

    /// An access to the APIC-access page by a linear address. What is written takes effect behind the instruction.
    pub(crate) fn access_apic_page(&mut self, cpu: &mut Cpu, offset: u16, bytes: u8, write: Option<u64>, access: Access) -> Outcome<u64> {
        let exit = Trap::Exit(Exit::ApicAccess { offset, access, table_walk: false, length: 0 });
        // The bytes must lie in the four that a register has.
        let register = offset & !0xf;
        let within = (offset & 0xf) + u16::from(bytes) <= 4;
        if cpu.delivering.is_some() || !within || !self.intercepts.virtual_apic.virtualizes(register, access == Access::Write) {
            return Err(exit);
        }
        match write {
            None => {
                if register == register::TASK_PRIORITY {
                    self.store(cpu, register, 4, cpu.virtual_tpr.unwrap_or(0).into());
                }
                Ok(self.load(cpu, offset, bytes))
            }
            Some(value) => {
                self.store(cpu, offset, bytes, value);
                if offset == register::TASK_PRIORITY {
                    cpu.virtual_tpr = Some(value as u8);
                }
                cpu.apic_write = Some(register);
                cpu.look_around();
                Ok(0)
            }
        }
    }

    /// What follows a write to a register, behind the instruction. SDM 30.4.3.2 "APIC-Write Emulation".
    pub(crate) fn complete_apic_write(&mut self, cpu: &mut Cpu, register: u16) -> Option<Exit> {
        match register {
            register::TASK_PRIORITY => {
                self.store(cpu, register, 4, cpu.virtual_tpr.unwrap_or(0).into());
                // Without virtual-interrupt delivery the threshold is compared, which the core does. SDM 30.1.2 "TPR Virtualization".
                if self.intercepts.virtual_apic.interrupts {
                    self.virtualize_processor_priority(cpu);
                }
                None
            }
            register::END_OF_INTERRUPT if self.intercepts.virtual_apic.interrupts => {
                self.store(cpu, register, 4, 0);
                self.virtualize_end_of_interrupt(cpu)
            }
            register::COMMAND_LOW if self.intercepts.virtual_apic.interrupts && is_self_command(self.load(cpu, register, 4)) => {
                let vector = self.load(cpu, register, 1) as u8;
                self.request(cpu, vector);
                None
            }
            register::COMMAND_HIGH => {
                self.store(cpu, register, 3, 0);
                None
            }
            register::SELF_COMMAND => {
                let vector = self.load(cpu, register, 1) as u8;
                self.request(cpu, vector);
                None
            }
            _ => Some(Exit::ApicWrite { offset: register }),
        }
    }

    /// The register behind an x2APIC MSR that is virtualized for the guest that runs.
    fn virtual_register(&self, index: u32) -> Option<u16> {
        let in_range = (msr::IA32_X2APIC_FIRST..=msr::IA32_X2APIC_FIRST | 0xff).contains(&index);
        (self.operation == Operation::NonRoot && self.intercepts.virtual_apic.x2apic && in_range).then_some((index as u16 & 0xff) << 4)
    }

    /// RDMSR of a guest. SDM 30.5 "Virtualizing MSR-Based APIC Accesses".
    pub(crate) fn read_virtual_msr(&self, cpu: &Cpu, index: u32) -> Option<u64> {
        let register = self.virtual_register(index)?;
        match register {
            register::TASK_PRIORITY => Some(self.load(cpu, register, 8) & !0xff | u64::from(cpu.virtual_tpr.unwrap_or(0))),
            _ if self.intercepts.virtual_apic.registers => Some(self.load(cpu, register, 8)),
            _ => None,
        }
    }

    /// WRMSR of a guest.
    pub(crate) fn write_virtual_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Outcome> {
        let register = self.virtual_register(index)?;
        let allowed = match register {
            register::TASK_PRIORITY => value >> 8 == 0,
            register::END_OF_INTERRUPT if self.intercepts.virtual_apic.interrupts => value == 0,
            register::SELF_COMMAND if self.intercepts.virtual_apic.interrupts => value >> 8 == 0,
            _ => return None,
        };
        if !allowed {
            return Some(Err(Trap::GP0));
        }
        // SDM 30.5: a vector below 16 is not for the processor's self-IPI virtualization, but an APIC-write exit.
        let ordinary = register != register::SELF_COMMAND || value >> 4 != 0;
        self.store(cpu, register, 8, value);
        if register == register::TASK_PRIORITY {
            cpu.virtual_tpr = Some(value as u8);
        }
        cpu.apic_write = Some(if ordinary { register } else { REFUSED_SELF_COMMAND });
        cpu.look_around();
        Some(Ok(()))
    }

    /// An external interrupt has come under "process posted interrupts". SDM 30.6 "Posted-Interrupt Processing".
    pub(crate) fn external_interrupt(&mut self, cpu: &mut Cpu) -> Option<Exit> {
        let vector = cpu.acknowledge_interrupt();
        if u64::from(vector) != self.current.get(VmcsField::PostedInterruptNotificationVector) {
            return Some(Exit::ExternalInterrupt { vector: Some(vector) });
        }
        let descriptor = self.current.get(VmcsField::PostedInterruptDescriptorAddress);
        let control = cpu.read_physical(descriptor + 32, 1);
        cpu.write_physical(descriptor + 32, 1, control & !1);
        cpu.end_of_interrupt();
        let mut highest = None;
        for quarter in 0..4 {
            let requests = cpu.read_physical(descriptor + quarter * 8, 8);
            cpu.write_physical(descriptor + quarter * 8, 8, 0);
            for bit in (0..64).filter(|bit| requests >> bit & 1 != 0) {
                let vector = (quarter * 64 + bit) as u8;
                self.set_vector(cpu, register::REQUESTED, vector, true);
                highest = Some(vector);
            }
        }
        if let Some(vector) = highest {
            let (requesting, servicing) = self.interrupt_status();
            self.set_interrupt_status(requesting.max(vector), servicing);
        }
        self.evaluate(cpu);
        None
    }
}

/// Stands for a write of a vector below 16 to the self-IPI register, which exits behind the instruction.
const REFUSED_SELF_COMMAND: u16 = register::SELF_COMMAND | 1;

/// Whether a value of the low half of the interrupt-command register sends a fixed, edge-triggered interrupt to the sender alone.
///
/// SDM 30.4.3.2 "APIC-Write Emulation", offset 300H.
const fn is_self_command(value: u64) -> bool {
    const RESERVED: u64 = 0xfff3_3000;
    const SHORTHAND: u64 = 0xc_0000;
    const TRIGGER_AND_MODE: u64 = 0x8700;
    value & RESERVED == 0 && value & SHORTHAND == 0x4_0000 && value & TRIGGER_AND_MODE == 0 && value & 0xf0 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_registers_are_virtualized() {
        let nothing = VirtualApic { tpr_shadow: true, ..VirtualApic::default() };
        let interrupts = VirtualApic { interrupts: true, ..nothing };
        let registers = VirtualApic { registers: true, ..nothing };
        // (controls, register, read, written)
        let rows = [
            (VirtualApic::default(), 0x80, false, false),
            (nothing, 0x80, true, true),
            (nothing, 0xb0, false, false),
            (interrupts, 0xb0, true, true),
            (interrupts, 0x300, true, true),
            (interrupts, 0x310, false, false),
            (registers, 0x20, true, true),
            (registers, 0x30, true, false),
            (registers, 0xa0, false, false),
            (registers, 0x100, true, false),
            (registers, 0x270, true, false),
            (registers, 0x280, true, true),
            (registers, 0x370, true, true),
            (registers, 0x380, true, true),
            (registers, 0x390, false, false),
            (registers, 0x3e0, true, true),
            (registers, 0x3f0, false, false),
        ];
        for (controls, register, read, written) in rows {
            assert_eq!((controls.virtualizes(register, false), controls.virtualizes(register, true)), (read, written), "{register:#x}");
        }
    }

    #[test]
    fn which_commands_are_for_oneself() {
        let rows = [
            (0x4_0031, true),
            (0x4_0001, false),
            (0x8_0031, false),
            (0x4_8031, false),
            (0x4_0431, false),
            (0x4_1031, false),
            (0x4_4031, true),
            (0x14_0031, false),
        ];
        for (value, expected) in rows {
            assert_eq!(is_self_command(value), expected, "{value:#x}");
        }
    }
}
