//! The local APIC of one processor, in xAPIC and x2APIC mode.
//!
//! Source: SDM vol 3, chapter 11 "Advanced Programmable Interrupt Controller (APIC)".
//! What is modelled: the register page and the x2APIC MSRs with their reserved-bit rules (one table, [`register`]), IA32_APIC_BASE with its
//! transitions, acceptance and priorities of interrupts, ICR and self IPI, LVT entries, LINT pins, error status, and the timer in its three
//! modes. It sends nothing itself: what a write causes outside comes back as [`Effects`], and [`routing`] says whom a message reaches.
//! It depends on no processor core, so the same type serves as real hardware and as a hypervisor's virtual APIC.
//! What is not: arbitration and remote-read registers (absent since the Pentium 4), CMCI, suppression of EOI broadcasts, and the delivery
//! status bits, which read idle because a message is accepted as soon as it is sent.
//!
//! Time is handed in as CPU cycles and must not go back.

use isa::apic::{ApicMessage, DeliveryMode};
use isa::cpuid::Feature;
use models::{CpuModel, Vendor};
use serde::{Deserialize, Serialize};

mod command;
mod local;
pub mod register;
pub mod routing;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use command::{IcrMessage, Shorthand};
pub use local::{Lint, LocalSource};
use register::{Access, Register};
use timer::Timer;
use vectors::VectorSet;

/// A write or read that the processor answers with #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// What the processor model offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// CPUID.01H:ECX bit 21.
    pub x2apic: bool,
    /// CPUID.01H:ECX bit 24.
    pub tsc_deadline: bool,
    /// CPUID.80000008H:EAX bits 7:0, the width of the base address.
    pub physical_address_bits: u8,
    /// CPU cycles in one cycle of the timer's input clock, before the divide configuration register; zero is taken as one.
    pub cycles_per_bus_clock: u32,
    /// The entry of performance counters masks itself when it interrupts: on Intel's processors.
    pub masks_performance: bool,
}

/// The input clock of the timer, in hertz. Assumed: the base clock of every processor since 2008.
const BUS_CLOCK: u64 = 100_000_000;

impl Features {
    /// What `model` offers.
    pub fn of(model: &CpuModel) -> Self {
        Self {
            x2apic: model.has(Feature::X2apic),
            tsc_deadline: model.has(Feature::TscDeadline),
            physical_address_bits: model.physical_address_bits,
            cycles_per_bus_clock: u32::try_from(model.tsc_hz / BUS_CLOCK).unwrap_or(u32::MAX),
            masks_performance: model.vendor == Vendor::Intel,
        }
    }
}

impl Default for Features {
    fn default() -> Self {
        Self { x2apic: true, tsc_deadline: true, physical_address_bits: 46, cycles_per_bus_clock: 20, masks_performance: true }
    }
}

/// SDM 11.4.3 and 11.12.1 "Detecting and Enabling x2APIC Mode": the states that IA32_APIC_BASE selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Globally disabled: no registers, no messages; LINT0 is the INTR pin and LINT1 the NMI pin.
    Disabled,
    /// Registers in memory.
    Xapic,
    /// Registers as MSRs.
    X2apic,
}

/// IA32_APIC_BASE bit 8: this is the bootstrap processor.
pub const BASE_BOOTSTRAP: u64 = 1 << 8;
/// IA32_APIC_BASE bit 10: x2APIC mode.
pub const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE bit 11: globally enabled.
pub const BASE_ENABLE: u64 = 1 << 11;
/// The address of the register page after reset.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// Version 0x14, highest LVT entry 5, no suppression of EOI broadcasts.
const VERSION_VALUE: u32 = 0x0005_0014;
const SPURIOUS_RESET: u32 = 0xff;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const LVT_MASK: u32 = 1 << 16;
const LVT_REMOTE_IRR: u32 = 1 << 14;
const LVT_LEVEL: u32 = 1 << 15;

/// Bits of the error status register (SDM 11.5.3 "Error Handling").
pub mod error {
    /// The vector of a message to be sent is below 16.
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    /// The vector of a received message, of an LVT entry or of a self IPI is below 16.
    pub const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    /// An access in xAPIC mode to a reserved place in the register page.
    pub const ILLEGAL_REGISTER_ADDRESS: u32 = 1 << 7;
}

/// What a write to a register causes outside this APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// An interprocessor interrupt to be sent, possibly to this processor itself.
    pub message: Option<IcrMessage>,
    /// The vector of a level-triggered interrupt that ended, to be broadcast to the I/O APICs.
    pub end_of_interrupt: Option<u8>,
}

/// What became of a message or of a local interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was dropped: disabled, masked, or an illegal vector.
    Ignored,
    /// It is in the interrupt request register; see [`LocalApic::highest_pending`].
    Interrupt,
    /// The core takes an NMI.
    Nmi,
    /// The core takes an SMI.
    Smi,
    /// The core takes an INIT, and then calls [`LocalApic::init`].
    Init,
    /// The core starts, if it waits for a start-up message, at this page number.
    Startup(u8),
    /// The core runs an interrupt-acknowledge cycle with the 8259.
    ExtInt,
}

/// A local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    id: u32,
    features: Features,
    base: u64,
    task_priority: u8,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    in_service: VectorSet,
    trigger_mode: VectorSet,
    requests: VectorSet,
    error_status: u32,
    errors: u32,
    interrupt_command: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error: registers 0x320 to 0x370.
    local_vector_table: [u32; 6],
    lint: [bool; 2],
    timer: Timer,
}

impl LocalApic {
    /// The APIC with identifier `id` after power-up: enabled in xAPIC mode, software-disabled, everything masked.
    pub fn new(id: u32, bootstrap: bool, features: Features) -> Self {
        Self {
            id,
            features,
            base: DEFAULT_BASE | BASE_ENABLE | if bootstrap { BASE_BOOTSTRAP } else { 0 },
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: SPURIOUS_RESET,
            in_service: VectorSet::default(),
            trigger_mode: VectorSet::default(),
            requests: VectorSet::default(),
            error_status: 0,
            errors: 0,
            interrupt_command: 0,
            local_vector_table: [LVT_MASK; 6],
            lint: [false; 2],
            timer: Timer::new(features.cycles_per_bus_clock),
        }
    }

    /// Whether a processor with these features can have this APIC, which may come from anywhere.
    pub fn is_possible(&self, features: Features) -> bool {
        self.features == features && self.timer.has_clock(features.cycles_per_bus_clock)
    }

    /// SDM 11.4.7.3 "Local APIC State After an INIT Reset": as after power-up, but identifier and mode stay.
    pub fn init(&mut self) {
        let (base, lint) = (self.base, self.lint);
        *self = Self::new(self.id, false, self.features);
        self.base = base;
        self.lint = lint;
        if self.mode() == Mode::X2apic {
            self.logical_destination = x2apic_logical_destination(self.id);
        }
    }

    /// What firmware leaves on the bootstrap processor: software-enabled with spurious vector 15, and virtual wire mode, in which LINT0
    /// passes the 8259's interrupts and LINT1 NMIs (MultiProcessor Specification 1.4, 3.6.2.2 "Virtual Wire Mode").
    pub fn set_virtual_wire(&mut self) {
        self.spurious = SOFTWARE_ENABLE | 0x0f;
        self.local_vector_table[local::LINT0] = (DeliveryMode::ExtInt as u32) << 8;
        self.local_vector_table[local::LINT0 + 1] = (DeliveryMode::Nmi as u32) << 8;
    }

    /// The identifier.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The mode that IA32_APIC_BASE selects.
    pub fn mode(&self) -> Mode {
        match (self.base & BASE_ENABLE != 0, self.base & BASE_X2APIC != 0) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::Xapic,
            (true, true) => Mode::X2apic,
        }
    }

    /// The guest-physical address of the register page; `None` unless in xAPIC mode.
    pub fn page(&self) -> Option<u64> {
        (self.mode() == Mode::Xapic).then_some(self.base & !0xfff)
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// #GP for reserved bits, and for the transitions that SDM 11.12.5 "x2APIC State Transitions" forbids: into x2APIC mode from disabled,
    /// out of it into xAPIC mode, and to the state EN = 0, EXTD = 1.
    pub fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let address = 1_u64.checked_shl(u32::from(self.features.physical_address_bits)).unwrap_or(0).wrapping_sub(1) & !0xfff;
        let extended = if self.features.x2apic { BASE_X2APIC } else { 0 };
        if value & !(address | BASE_ENABLE | BASE_BOOTSTRAP | extended) != 0 {
            return Err(GeneralProtection);
        }
        let before = self.mode();
        let (enable, extend) = (value & BASE_ENABLE != 0, value & BASE_X2APIC != 0);
        match (before, enable, extend) {
            (_, false, true) | (Mode::Disabled, true, true) | (Mode::X2apic, true, false) => return Err(GeneralProtection),
            _ => {}
        }
        self.base = value;
        match (before, self.mode()) {
            // An APIC that was disabled and is enabled again is in the state after power-up (SDM 11.4.3).
            (Mode::Xapic | Mode::X2apic, Mode::Disabled) => self.init(),
            (Mode::Xapic, Mode::X2apic) => {
                self.logical_destination = x2apic_logical_destination(self.id);
                // SDM 11.12.5: the upper half of the ICR is not kept.
                self.interrupt_command &= 0xffff_ffff;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the 32-bit register at `offset` of the register page. A reserved place reads as zero and sets an error.
    pub fn read(&mut self, offset: u32, now: u64) -> u32 {
        self.advance(now);
        match register::at(offset).filter(|register| register.xapic != Access::None) {
            Some(register) if register.xapic.readable() => self.get(register, offset, now),
            Some(_) => 0,
            None => {
                self.error(error::ILLEGAL_REGISTER_ADDRESS);
                0
            }
        }
    }

    /// Writes the 32-bit register at `offset` of the register page. Reserved bits and read-only registers are ignored; a reserved place
    /// sets an error.
    pub fn write(&mut self, offset: u32, value: u32, now: u64) -> Effects {
        self.advance(now);
        match register::at(offset).filter(|register| register.xapic != Access::None) {
            Some(register) if register.xapic.writable() => self.set(register, value & register.writable, now),
            Some(_) => Effects::default(),
            None => {
                self.error(error::ILLEGAL_REGISTER_ADDRESS);
                Effects::default()
            }
        }
    }

    /// Reads MSR `msr` (0x800 to 0x8ff).
    ///
    /// # Errors
    /// #GP outside x2APIC mode, for a reserved MSR and for a write-only one (SDM 11.12.1.2 "x2APIC Register Address Space").
    pub fn read_msr(&mut self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        self.advance(now);
        let (register, offset) = self.x2apic_register(msr)?;
        if !register.x2apic.readable() {
            return Err(GeneralProtection);
        }
        if offset == register::ICR_LOW {
            return Ok(self.interrupt_command);
        }
        Ok(u64::from(self.get(register, offset, now)))
    }

    /// Writes MSR `msr` (0x800 to 0x8ff).
    ///
    /// # Errors
    /// #GP as for a read, for a read-only MSR, and for reserved bits (SDM 11.12.1.3 "Reserved Bit Checking").
    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<Effects, GeneralProtection> {
        self.advance(now);
        let (register, offset) = self.x2apic_register(msr)?;
        let low = value as u32;
        let mut allowed = register.writable | register.read_only_bits();
        if offset == register::LVT_TIMER && !self.features.tsc_deadline {
            allowed &= !timer::LVT_TSC_DEADLINE;
        }
        let upper_is_reserved = offset != register::ICR_LOW;
        if !register.x2apic.writable() || upper_is_reserved && value >> 32 != 0 {
            return Err(GeneralProtection);
        }
        match offset {
            // Of these two only zero may be written.
            register::EOI | register::ESR if low != 0 => Err(GeneralProtection),
            register::EOI | register::ESR => Ok(self.set(register, 0, now)),
            _ if low & !allowed != 0 => Err(GeneralProtection),
            register::ICR_LOW => {
                self.interrupt_command = value & (0xffff_ffff_0000_0000 | u64::from(register.writable));
                Ok(self.send())
            }
            _ => Ok(self.set(register, low & register.writable, now)),
        }
    }

    /// A message from the bus for this APIC; [`Self::matches`] said that it is addressed.
    pub fn accept(&mut self, message: &ApicMessage) -> Accepted {
        if self.mode() == Mode::Disabled {
            return Accepted::Ignored;
        }
        match message.mode {
            // SDM 11.4.7.2 "Local APIC State After It Has Been Software Disabled": only INIT, NMI, SMI and SIPI still arrive.
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if self.software_enabled() => self.request(message.vector, message.level),
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => Accepted::Ignored,
            DeliveryMode::Smi => Accepted::Smi,
            DeliveryMode::Nmi => Accepted::Nmi,
            DeliveryMode::Init => Accepted::Init,
            DeliveryMode::Startup => Accepted::Startup(message.vector),
            DeliveryMode::ExtInt => Accepted::ExtInt,
        }
    }

    /// The vector that the core would take now: the highest requested one, if its class is above the processor priority.
    pub fn highest_pending(&self) -> Option<u8> {
        self.requests.highest().filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// The core takes an interrupt: the vector, which is in service from now on. The spurious vector if none can be taken any more.
    pub fn acknowledge(&mut self) -> u8 {
        match self.highest_pending() {
            Some(vector) => {
                self.requests.remove(vector);
                self.in_service.insert(vector);
                vector
            }
            // SDM 11.9 "Spurious Interrupt": no bit of the ISR is set.
            None => self.spurious as u8,
        }
    }

    /// CR8: the class of the task priority.
    pub fn cr8(&self) -> u8 {
        self.task_priority >> 4
    }

    /// A write of CR8; bits above 3:0 are the core's to refuse.
    pub fn set_cr8(&mut self, class: u8) {
        self.task_priority = class << 4;
    }

    /// The task-priority register.
    pub fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// The processor-priority register (SDM 11.8.3.1 "Task and Processor Priorities").
    pub fn processor_priority(&self) -> u8 {
        let served = self.in_service.highest().unwrap_or(0);
        if self.task_priority >> 4 >= served >> 4 { self.task_priority } else { served & 0xf0 }
    }

    /// Whether vector `vector` is requested.
    pub fn requested(&self, vector: u8) -> bool {
        self.requests.contains(vector)
    }

    /// Whether vector `vector` is in service.
    pub fn in_service(&self, vector: u8) -> bool {
        self.in_service.contains(vector)
    }

    /// IA32_TSC_DEADLINE; zero when not armed.
    pub fn tsc_deadline(&mut self, now: u64) -> u64 {
        self.advance(now);
        self.timer.deadline()
    }

    /// A write of IA32_TSC_DEADLINE; `tsc` is the time-stamp counter at cycle `now`. Ignored unless the timer is in TSC-deadline mode.
    pub fn set_tsc_deadline(&mut self, value: u64, tsc: u64, now: u64) {
        self.advance(now);
        self.timer.set_deadline(value, tsc, now);
        self.advance(now);
    }

    /// The time-stamp counter was set to `tsc` at cycle `now`: a deadline that is armed moves.
    pub fn tsc_changed(&mut self, tsc: u64, now: u64) {
        self.advance(now);
        self.timer.set_deadline(self.timer.deadline(), tsc, now);
        self.advance(now);
    }

    /// The cycle at which the timer interrupts next; `None` when it does not.
    pub fn next_event(&self) -> Option<u64> {
        if self.local_vector_table[local::TIMER] & LVT_MASK != 0 {
            return None;
        }
        self.timer.expiry()
    }

    /// Runs the timer up to cycle `now`; true when it interrupted.
    pub fn advance(&mut self, now: u64) -> bool {
        self.timer.advance(now) && self.raise(LocalSource::Timer) == Accepted::Interrupt
    }

    fn software_enabled(&self) -> bool {
        self.spurious & SOFTWARE_ENABLE != 0
    }

    fn request(&mut self, vector: u8, level: bool) -> Accepted {
        if vector < 16 {
            self.error(error::RECEIVED_ILLEGAL_VECTOR);
            return Accepted::Ignored;
        }
        self.requests.insert(vector);
        // SDM 11.8.4 "Interrupt Acceptance for Fixed Interrupts": acceptance sets the TMR bit for a level, and clears it for an edge.
        if level {
            self.trigger_mode.insert(vector);
        } else {
            self.trigger_mode.remove(vector);
        }
        Accepted::Interrupt
    }

    /// Notes an error. The first since the last write of ESR interrupts; that write arms the interrupt again.
    fn error(&mut self, bits: u32) {
        let first = self.errors == 0;
        self.errors |= bits;
        if first {
            self.raise(LocalSource::Error);
        }
    }

    fn x2apic_register(&self, msr: u32) -> Result<(&'static Register, u32), GeneralProtection> {
        if self.mode() != Mode::X2apic {
            return Err(GeneralProtection);
        }
        let offset = msr.wrapping_sub(0x800).checked_mul(0x10).ok_or(GeneralProtection)?;
        let register = register::at(offset).filter(|register| register.x2apic != Access::None);
        Ok((register.ok_or(GeneralProtection)?, offset))
    }

    fn get(&self, register: &Register, offset: u32, now: u64) -> u32 {
        let index = (offset - register.offset) >> 4;
        match register.offset {
            register::ID if self.mode() == Mode::X2apic => self.id,
            register::ID => self.id << 24,
            register::VERSION => VERSION_VALUE,
            register::TPR => u32::from(self.task_priority),
            register::PPR => u32::from(self.processor_priority()),
            register::LDR => self.logical_destination,
            register::DFR => self.destination_format,
            register::SVR => self.spurious,
            register::ISR => self.in_service.word(index),
            register::TMR => self.trigger_mode.word(index),
            register::IRR => self.requests.word(index),
            register::ESR => self.error_status,
            register::ICR_LOW => self.interrupt_command as u32,
            register::ICR_HIGH => (self.interrupt_command >> 32) as u32,
            register::LVT_TIMER..=register::LVT_ERROR => self.local_vector_table[((register.offset - register::LVT_TIMER) >> 4) as usize],
            register::TIMER_INITIAL_COUNT => self.timer.initial_count(),
            register::TIMER_CURRENT_COUNT => self.timer.current_count(now),
            register::TIMER_DIVIDE => self.timer.divide(),
            // The write-only registers.
            _ => 0,
        }
    }

    /// Writes `value`, of which the reserved bits are clear.
    fn set(&mut self, register: &Register, value: u32, now: u64) -> Effects {
        let mut effects = Effects::default();
        match register.offset {
            register::TPR => self.task_priority = value as u8,
            register::EOI => effects.end_of_interrupt = self.end_of_interrupt(),
            register::LDR => self.logical_destination = value,
            register::DFR => self.destination_format = value | 0x0fff_ffff,
            register::SVR => {
                self.spurious = value;
                if !self.software_enabled() {
                    // SDM 11.4.7.2: all LVT entries become masked.
                    for entry in &mut self.local_vector_table {
                        *entry |= LVT_MASK;
                    }
                }
            }
            register::ESR => self.error_status = std::mem::take(&mut self.errors),
            register::ICR_LOW => {
                self.interrupt_command = self.interrupt_command & !0xffff_ffff | u64::from(value);
                effects = self.send();
            }
            register::ICR_HIGH => {
                self.interrupt_command = self.interrupt_command & 0xffff_ffff | u64::from(value) << 32;
            }
            register::LVT_TIMER..=register::LVT_ERROR => self.set_local_vector(register, value),
            register::TIMER_INITIAL_COUNT => self.timer.start(value, now),
            register::TIMER_DIVIDE => self.timer.set_divide(value, now),
            register::SELF_IPI => effects.message = self.self_ipi(value as u8),
            _ => {}
        }
        effects
    }
}

/// SDM 11.12.10.2 "Deriving Logical x2APIC ID from the Local x2APIC ID".
fn x2apic_logical_destination(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}
