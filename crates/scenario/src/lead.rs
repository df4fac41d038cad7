//! A machine that somebody leads through its run: who does something in between that the script does not know of, and leaves the rest to it.

use crate::file::{Access, Invariant, Policy};
use crate::host::{Host, Pause, Totals, Until};
use crate::register::Place;
use crate::verdict::Registers;
use cpu::block::Compile;
use machine::checkpoint::{self, Checkpoint};
use memory::Memory;
use migration::Settings;
use models::CpuModel;
use std::io::Write;
use std::ops::Range;
use stream::Writer;
use trace::Sink;

/// Leads a machine.
pub trait Lead {
    /// Runs it as [`Host::run`] does.
    fn run(&mut self, host: &mut Box<dyn Host>, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause;
}

/// A machine and who leads it. A fork of it is led by nobody.
pub struct Led<L> {
    /// The machine.
    pub host: Box<dyn Host>,
    /// Who leads it.
    pub lead: L,
}

impl<L: Lead> Host for Led<L> {
    fn run(&mut self, limits: &Totals, until: Option<Until>, sink: &mut dyn Sink) -> Pause {
        self.lead.run(&mut self.host, limits, until, sink)
    }
    fn checkpoint(&mut self, writer: &mut Writer<&mut dyn Write>) -> Result<(), checkpoint::Error> {
        self.host.checkpoint(writer)
    }
    fn renew(&mut self, from: &mut Checkpoint, compile: Compile, loaded: &dyn Fn() -> Option<Memory>) -> Result<(), checkpoint::Error> {
        self.host.renew(from, compile, loaded)
    }
    fn interrupt_at(&mut self, moment: Option<Until>) {
        self.host.interrupt_at(moment);
    }
    fn totals(&self) -> Totals {
        self.host.totals()
    }
    fn model(&self) -> Option<&'static CpuModel> {
        self.host.model()
    }
    fn vcpus(&self) -> u32 {
        self.host.vcpus()
    }
    fn refused_entries(&mut self) -> Vec<(u32, audit::State)> {
        self.host.refused_entries()
    }
    fn registers(&mut self, vcpu: u32) -> Registers {
        self.host.registers(vcpu)
    }
    fn set_register(&mut self, place: Place, value: u64) {
        self.host.set_register(place, value);
    }
    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.host.read_memory(address, into)
    }
    fn write_memory(&mut self, address: u64, from: &[u8]) -> bool {
        self.host.write_memory(address, from)
    }
    fn protect(&mut self, range: Range<u64>, access: Access) -> Result<(), String> {
        self.host.protect(range, access)
    }
    fn take_serial(&mut self) -> Vec<u8> {
        self.host.take_serial()
    }
    fn serial_input(&mut self, bytes: &[u8]) {
        self.host.serial_input(bytes);
    }
    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        self.host.interrupt(vcpu, vector);
    }
    fn nmi(&mut self, vcpu: u32) {
        self.host.nmi(vcpu);
    }
    fn exception(&mut self, vcpu: u32, vector: u8, error_code: Option<u32>, address: u64) {
        self.host.exception(vcpu, vector, error_code, address);
    }
    fn counter_overflow(&mut self, vcpu: u32) {
        self.host.counter_overflow(vcpu);
    }
    fn hold(&mut self, cycles: u64, sink: &mut dyn Sink) -> Result<(), String> {
        self.host.hold(cycles, sink)
    }
    fn fork(&mut self) -> Box<dyn Host> {
        self.host.fork()
    }
    fn migrate(&mut self, to: &'static CpuModel, policy: Policy, sink: &mut dyn Sink) -> Result<(), String> {
        self.host.migrate(to, policy, sink)
    }
    fn move_live(
        &mut self,
        settings: &Settings,
        limits: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(migration::Report, Option<Pause>), String> {
        self.host.move_live(settings, limits, sink)
    }
    fn check_move(&mut self, settings: &Settings) -> Result<migration::Check, String> {
        self.host.check_move(settings)
    }
    fn follow(&mut self, turns: Vec<hypervisor::Turn>, invariants: &[Invariant]) -> Result<(), String> {
        self.host.follow(turns, invariants)
    }
    fn violations(&self) -> Vec<Invariant> {
        self.host.violations()
    }
}
