//! What user space asks of a guest: its image, registers and memory, rights to it, the board, pauses of the run, and events.

use super::{KICK_VECTOR, Vm};
use crate::backend::Backend;
use crate::mmu::nested::{Rights, SlotError};
use crate::run::{Moment, PauseId};
use crate::state::Registers;
use crate::vcpu::Activity;
use board::Board;
use board::loader::Image;
use cpu::Cpu;
use cpu::apic::LocalSource;
use cpu::block::Compile;
use cpu::trap::Exception;
use isa::apic::{ApicMessage, DeliveryMode};
use isa::exception::Vector;
use memory::{Memory, OutOfRange};
use std::ops::Range;

impl<B: Backend> Vm<B> {
    /// Loads an image: memory, and the registers of virtual CPU 0.
    ///
    /// # Errors
    /// The image does not fit into RAM. Nothing is written then.
    pub fn load(&mut self, image: &Image) -> Result<(), OutOfRange> {
        let size = self.common.slots.end();
        for segment in &image.segments {
            let length = segment.bytes.len() as u64;
            if segment.physical.checked_add(length).is_none_or(|end| end > size) {
                return Err(OutOfRange { address: segment.physical, length, size });
            }
        }
        let mut spare = Cpu::new(self.common.guest_model, 0, 1, None);
        machine::load_image(image, &mut self.memory, 0, &mut spare)?;
        self.set_registers(0, &Registers::of(&spare));
        Ok(())
    }

    /// The registers of a virtual CPU as the guest would see them now; those of the first where there is no such CPU.
    pub fn registers(&mut self, vcpu: u32) -> Registers {
        let vcpu = self.index(vcpu);
        if self.cpus[vcpu].guest_mode {
            let mut registers = Registers::of(&self.cpus[vcpu]);
            self.vcpus[vcpu].backend.show(&mut registers);
            return self.guest_view(vcpu, registers);
        }
        self.silicon(vcpu, |backend, cpu| backend.save(cpu))
    }

    /// The registers of a processor in guest mode, with the control registers as the guest reads them.
    fn guest_view(&self, vcpu: usize, mut registers: Registers) -> Registers {
        let interception = &self.cpus[vcpu].interception;
        let view = |real: u64, mask: u64, shadow: u64| real & !mask | shadow & mask;
        registers.cr0 = isa::control::Cr0::from_bits(view(registers.cr0.into_bits(), interception.cr0_mask, interception.cr0_shadow));
        registers.cr4 = isa::control::Cr4::from_bits(view(registers.cr4.into_bits(), interception.cr4_mask, interception.cr4_shadow));
        registers.efer = registers.efer.with_svme(false);
        registers
    }

    /// Sets the registers of a virtual CPU. One that is in the guest right now is fetched out first, at the next run, without a trace.
    pub fn set_registers(&mut self, vcpu: u32, registers: &Registers) {
        let vcpu = self.index(vcpu);
        self.fetch_out(vcpu);
        self.silicon(vcpu, |backend, cpu| backend.load(cpu, registers));
    }

    /// Whether the trace tells from now on of what virtual CPUs deliver through the guest's own IDT; see [`super::Options::deliveries`].
    pub fn log_deliveries(&mut self, wanted: bool) {
        self.common.options.deliveries = wanted;
        for cpu in &mut self.cpus {
            cpu.log_deliveries(wanted);
        }
    }

    /// Makes a virtual CPU run that waits for a start-up message.
    pub fn start(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        self.vcpus[vcpu].software.activity = Activity::Running;
    }

    /// Reads guest-physical memory.
    ///
    /// # Errors
    /// There is no RAM.
    pub fn read_memory(&self, guest_physical: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        self.check_ram(guest_physical, into.len())?;
        self.memory.read(guest_physical, into)
    }

    /// Writes guest-physical memory, as a device does: rights of slots do not matter.
    ///
    /// # Errors
    /// There is no RAM.
    pub fn write_memory(&mut self, guest_physical: u64, from: &[u8]) -> Result<(), OutOfRange> {
        self.check_ram(guest_physical, from.len())?;
        self.memory.write(guest_physical, from)
    }

    fn check_ram(&self, address: u64, length: usize) -> Result<(), OutOfRange> {
        let (length, size) = (length as u64, self.common.slots.end());
        let fits = address.checked_add(length).is_some_and(|end| end <= size);
        if fits { Ok(()) } else { Err(OutOfRange { address, length, size }) }
    }

    /// The guest's memory; behind its RAM lie the hypervisor's pages.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The guest's memory, for dirty logs and snapshots.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Changes what the guest may do with a range of its memory; every mapping is dropped for it.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn protect(&mut self, range: Range<u64>, rights: Rights) -> Result<(), SlotError> {
        self.common.slots.protect(range, rights)?;
        self.emulator.set_slots(&self.common.slots);
        self.zap();
        if self.common.options.prefault {
            self.map_everything();
        }
        Ok(())
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.common.board
    }

    /// The board, for input to its devices.
    pub fn board_mut(&mut self) -> &mut Board {
        &mut self.common.board
    }

    /// Serial output since the last call.
    pub fn take_serial(&mut self) -> Vec<u8> {
        self.collect_serial();
        std::mem::take(&mut self.common.serial)
    }

    pub(crate) fn collect_serial(&mut self) {
        let output = self.common.board.serial_output();
        self.common.serial.extend(output);
    }

    /// Asks for a pause of the run at a moment. It happens once.
    pub fn pause_at(&mut self, moment: Moment) -> PauseId {
        self.common.pauses.add(moment)
    }

    /// Waits for a moment no more.
    pub fn forget_pause(&mut self, pause: PauseId) {
        self.common.pauses.forget(pause);
    }

    /// Sets when code is compiled, on which nothing but the speed depends.
    pub fn compile(&mut self, when: Compile) {
        self.common.options.compile = when;
        self.code.compile(when);
    }

    /// Raises an interrupt at the local APIC of a virtual CPU.
    pub fn interrupt(&mut self, vcpu: u32, vector: u8) {
        let vcpu = self.index(vcpu);
        self.accept(vcpu, DeliveryMode::Fixed, vector);
    }

    /// Raises a non-maskable interrupt.
    pub fn nmi(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        self.accept(vcpu, DeliveryMode::Nmi, 2);
    }

    /// Signals an overflow of a performance counter to the local APIC of a virtual CPU, as a counter would.
    pub fn counter_overflow(&mut self, vcpu: u32) {
        let vcpu = self.index(vcpu);
        let accepted = self.vcpus[vcpu].software.apic.raise(LocalSource::Performance);
        self.accepted(vcpu, accepted);
    }

    /// Raises an exception in the guest at its next entry. An address goes to CR2.
    pub fn exception(&mut self, vcpu: u32, vector: Vector, error_code: Option<u32>, address: u64) {
        let vcpu = self.index(vcpu);
        self.queue_exception(vcpu, Exception { vector, error_code, address, debug: 0 });
        self.kick(vcpu, KICK_VECTOR);
    }

    fn accept(&mut self, vcpu: usize, mode: DeliveryMode, vector: u8) {
        let destination = self.vcpus[vcpu].software.apic.id();
        self.deliver(vcpu, &ApicMessage { destination, logical: false, mode, vector, level: false });
    }
}
