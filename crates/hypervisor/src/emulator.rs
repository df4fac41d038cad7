//! One instruction of the guest executed by software: the core again, on a processor that is not there.
//!
//! Modelled: whatever the core executes, with the guest's own paging, privilege and features. The spare processor sees guest-physical
//! memory through the memory slots: what no slot holds, and what a slot refuses to be written, is a device access. An exception does not
//! go through the guest's IDT but comes back, so that the hypervisor can inject it.
//! Not modelled: emulation of more than one instruction at a time.

use crate::guest_cpu::GuestCpu;
use crate::mmu::nested::Slots;
use crate::state::Registers;
use cpu::access::Privilege;
use cpu::apic::IcrMessage;
use cpu::block::CodeCache;
use cpu::bus::{Bus, Environment};
use cpu::extension::{AfterExit, Completion, Extension, Interception, NestedAccess, NestedPage};
use cpu::state::TscScale;
use cpu::trap::{
    Access, ControlAccess, Event, Exception, Exit, Intercept, NestedFault, NotModelled, Outcome, PortAccess, Trap, VendorInstruction,
};
use cpu::{Cpu, RunExit, TaskSwitch};
use isa::exception::Vector;
use memory::Memory;
use models::Vendor;
use std::collections::BTreeSet;

/// Bit of a physical address of the spare processor that marks a device access: above all RAM, and above every address of a guest.
const DEVICE: u64 = 1 << 56;

/// The silicon of the spare processor: guest-physical memory as the slots say, exceptions to Rust.
#[derive(Clone, Debug)]
struct SlotView {
    slots: Slots,
    ended: Option<Exit>,
    /// Pages that are still on another host, by number.
    absent: BTreeSet<u64>,
    /// The first of them that was met.
    met: Option<u64>,
}

impl Extension for SlotView {
    fn execute(&mut self, _: &mut Cpu, _: &VendorInstruction) -> Outcome<Completion> {
        Err(Trap::UD)
    }

    fn exit(&mut self, _: &mut Cpu, exit: Exit) -> AfterExit {
        self.ended = Some(exit);
        AfterExit::RustHost
    }

    fn read_msr(&mut self, _: &Cpu, _: u32) -> Option<Outcome<u64>> {
        None
    }

    fn write_msr(&mut self, _: &mut Cpu, _: u32, _: u64) -> Option<Outcome> {
        None
    }

    fn intercepts_port(&mut self, _: &Cpu, _: &PortAccess) -> bool {
        false
    }

    fn intercepts_msr(&mut self, _: &Cpu, _: u32, _: bool) -> bool {
        false
    }

    fn control_access(&mut self, _: &Cpu, access: &ControlAccess) -> Result<u64, cpu::extension::Exits> {
        Ok(access.value)
    }

    fn translate(&mut self, _: &mut Cpu, guest_physical: u64, access: NestedAccess) -> Result<NestedPage, NestedFault> {
        if !self.absent.is_empty() && self.absent.contains(&(guest_physical >> 12)) {
            self.met.get_or_insert(guest_physical >> 12);
            return Err(NestedFault {
                guest_physical,
                linear: access.linear,
                access: access.access,
                table_walk: access.table_walk,
                user: access.user,
                misconfiguration: false,
                reserved: false,
                present: false,
                rights: 0,
                guest: access.guest,
                log_full: false,
                nmi_unblocking: false,
            });
        }
        let slot = self.slots.at(guest_physical);
        let write = access.access == Access::Write;
        let ram = slot.is_some_and(|slot| !(write && slot.read_only));
        Ok(NestedPage {
            physical: if ram { guest_physical } else { guest_physical | DEVICE },
            bytes: 4096,
            readable: true,
            // A device page may be written wherever it was found by a read; a page of a read-only slot is another one then.
            writable: slot.is_none_or(|slot| !slot.read_only) || write,
            executable: true,
        })
    }

    fn allows_control(&self, _: &Cpu, _: u8, _: u64) -> bool {
        true
    }

    fn blocks_init(&self, _: &Cpu) -> bool {
        true
    }

    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// What the spare processor reaches of the guest's devices. Addresses are guest-physical.
pub(crate) trait Devices {
    /// A read outside RAM.
    fn read(&mut self, guest_physical: u64, width: u8) -> u64;
    /// A write outside RAM.
    fn write(&mut self, guest_physical: u64, width: u8, value: u64);
    /// IN.
    fn port_read(&mut self, port: u16, width: u8) -> u32;
    /// OUT.
    fn port_write(&mut self, port: u16, width: u8, value: u32);
}

/// No devices.
pub(crate) struct NoDevices;

impl Devices for NoDevices {
    fn read(&mut self, _: u64, width: u8) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(width.clamp(1, 8)))
    }
    fn write(&mut self, _: u64, _: u8, _: u64) {}
    fn port_read(&mut self, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32) {}
}

/// The bus of the spare processor, and of the physical ones: those reach no device at all.
pub(crate) struct DeviceBus<'a>(pub &'a mut dyn Devices);

impl Bus for DeviceBus<'_> {
    fn port_read(&mut self, port: u16, width: u8, _now: u64) -> u32 {
        self.0.port_read(port, width)
    }
    fn port_write(&mut self, port: u16, width: u8, value: u32, _now: u64) {
        self.0.port_write(port, width, value);
    }
    fn memory_read(&mut self, physical: u64, width: u8, _now: u64) -> u64 {
        self.0.read(physical & !DEVICE, width)
    }
    fn memory_write(&mut self, physical: u64, width: u8, value: u64, _now: u64) {
        self.0.write(physical & !DEVICE, width, value);
    }
    // Its own local APIC is disabled, and so silent.
    fn send(&mut self, _: u32, _: IcrMessage, _: u64) {}
    fn end_of_interrupt(&mut self, _: u8) {}
    fn acknowledge(&mut self) -> u8 {
        0
    }
    fn attention(&self) -> bool {
        false
    }
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Memory that can be accessed so.
    Ram(u64),
    /// A device, or memory that refuses the access: the guest-physical address.
    Device(u64),
}

/// What came of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// It was executed; the registers are those behind it. `debug` holds the bits of DR6 of a #DB that follows it.
    Done {
        /// The #DB, if any.
        debug: Option<Exception>,
    },
    /// It raised an exception and did nothing.
    Fault(Exception),
    /// It is not modelled.
    NotModelled(Box<NotModelled>),
    /// Something that cannot be emulated.
    Failed,
}

/// The spare processor.
#[derive(Debug)]
pub(crate) struct Emulator {
    cpu: Box<Cpu>,
    /// Whose rules the guest expects.
    vendor: Vendor,
}

impl Emulator {
    /// A spare processor that behaves as the one the guest was told of, but for the entries of PAE paging: `walks_pdptes` as for
    /// [`Cpu::walks_pdptes`], since that is the affair of the processors that the guest runs on.
    pub fn new(guest: &GuestCpu, walks_pdptes: bool, slots: &Slots) -> Self {
        let view = SlotView { slots: slots.clone(), ended: None, absent: BTreeSet::new(), met: None };
        let mut cpu = Cpu::new(guest.model, 0, 1, Some(Box::new(view)));
        cpu.vendor = guest.vendor();
        cpu.walks_pdptes = walks_pdptes;
        cpu.rust_host = true;
        // Globally disabled: every address of the guest's APIC is a device access.
        let disabled = cpu.apic.set_base(0);
        debug_assert!(disabled.is_ok(), "a local APIC can be disabled");
        Self { cpu, vendor: guest.vendor() }
    }

    /// The same for a fork of the guest. What the last emulation left in the spare processor is void at the next.
    pub fn fork(&self) -> Self {
        Self { cpu: self.cpu.fork(), vendor: self.vendor }
    }

    /// The spare processor itself, for checkpoints: the generator behind RDRAND goes on in it.
    pub fn processor(&mut self) -> &mut Cpu {
        &mut self.cpu
    }

    /// The slots have changed.
    pub fn set_slots(&mut self, slots: &Slots) {
        self.with_view(|view| view.slots = slots.clone());
    }

    /// Which pages are absent, by number.
    pub fn set_absent(&mut self, frames: &BTreeSet<u64>) {
        self.with_view(|view| view.absent.clone_from(frames));
    }

    /// A page is absent no more.
    pub fn set_present(&mut self, frame: u64) {
        self.with_view(|view| {
            view.absent.remove(&frame);
        });
    }

    /// Somebody else met an absent page.
    pub fn note_absent(&mut self, frame: u64) {
        self.with_view(|view| {
            view.met.get_or_insert(frame);
        });
    }

    /// The absent page that was met since the last call.
    pub fn take_absent(&mut self) -> Option<u64> {
        self.with_view(|view| view.met.take())
    }

    fn with_view<T: Default>(&mut self, call: impl FnOnce(&mut SlotView) -> T) -> T {
        self.cpu.with_extension(|extension, _| extension.as_any().downcast_mut::<SlotView>().map(call)).flatten().unwrap_or_default()
    }

    /// Puts the guest's registers into the spare processor. `now` is the time in ticks, `tsc` the guest's view of the time-stamp counter.
    pub fn begin(&mut self, registers: &Registers, features: u128, now: u64, tsc: TscScale) {
        let cpu = &mut self.cpu;
        registers.put(cpu);
        cpu.vendor = self.vendor;
        cpu.features = features;
        cpu.set_now(now);
        cpu.guest_tsc = tsc;
        cpu.guest_mode = true;
        cpu.nested_paging = true;
        cpu.interception = Interception { exceptions: u32::MAX, ..Interception::default() };
        cpu.interception.add(Intercept::FerrFreeze);
        cpu.delivering = None;
        cpu.inject = None;
        // An NMI or interrupt is never pending here.
        cpu.events_held = true;
        cpu.flush_tlb();
    }

    /// Follows a vendor's rules, whatever the guest expects, until the next [`Self::begin`].
    pub fn follow(&mut self, vendor: Vendor) {
        self.cpu.vendor = vendor;
    }

    /// Where a linear address leads in the name of the program that was put in.
    pub fn translate(&mut self, memory: &mut Memory, code: &mut CodeCache, linear: u64, access: Access) -> Result<Place, Trap> {
        let privilege = if self.cpu.cpl == 3 { Privilege::User } else { Privilege::Supervisor };
        self.translate_as(memory, code, linear, access, privilege)
    }

    /// Where a linear address leads for an access of any privilege.
    pub fn translate_as(
        &mut self,
        memory: &mut Memory,
        code: &mut CodeCache,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<Place, Trap> {
        let mut devices = NoDevices;
        let mut bus = DeviceBus(&mut devices);
        self.cpu.with_environment(&mut Environment { memory, code, bus: &mut bus }, |cpu| {
            if cpu.long_mode() && !isa::paging::is_canonical(linear) {
                return Err(Trap::GP0);
            }
            let page = cpu.translate(linear, access, privilege)?;
            let physical = page.physical + (linear & (page.bytes - 1));
            Ok(if physical & DEVICE != 0 { Place::Device(physical & !DEVICE) } else { Place::Ram(physical) })
        })
    }

    /// Translates for the emulator of 2007: presence counts, rights do not.
    pub fn translate_without_rights(&mut self, memory: &mut Memory, code: &mut CodeCache, linear: u64) -> Result<Place, Trap> {
        let (cpl, cr0, cr4) = (self.cpu.cpl, self.cpu.cr0, self.cpu.cr4);
        self.cpu.cpl = 0;
        self.cpu.cr4 = cr4.with_smap(false);
        let place = self.translate(memory, code, linear, Access::Read);
        (self.cpu.cpl, self.cpu.cr0, self.cpu.cr4) = (cpl, cr0, cr4);
        place
    }

    /// The bytes of the instruction at RIP, as many as can be fetched, at most fifteen.
    pub fn fetch(&mut self, memory: &mut Memory, code: &mut CodeCache) -> Result<([u8; 15], usize), Trap> {
        let base = if self.cpu.is_64bit() { 0 } else { self.cpu.segment(isa::register::Segment::Cs).base };
        let linear = base.wrapping_add(self.cpu.rip);
        let mut bytes = [0; 15];
        let mut count = 0;
        while count < bytes.len() {
            let at = linear.wrapping_add(count as u64);
            let at = if self.cpu.long_mode() { at } else { at & 0xffff_ffff };
            let place = match self.translate(memory, code, at, Access::Fetch) {
                Ok(Place::Ram(physical)) => physical,
                Err(trap) if count == 0 => return Err(trap),
                _ => break,
            };
            let wanted = (0x1000 - (place & 0xfff)).min((bytes.len() - count) as u64) as usize;
            if memory.read(place, &mut bytes[count..count + wanted]).is_err() {
                break;
            }
            count += wanted;
        }
        Ok((bytes, count))
    }

    /// Executes the instruction at RIP.
    pub fn step(&mut self, memory: &mut Memory, code: &mut CodeCache, devices: &mut dyn Devices) -> Step {
        self.with_view(|view| view.ended = None);
        let begun = self.cpu.instructions();
        let rip = self.cpu.rip;
        let mut bus = DeviceBus(devices);
        let mut environment = Environment { memory, code, bus: &mut bus };
        let exit = self.cpu.run(&mut environment, u64::MAX, begun + 1);
        match exit {
            RunExit::Instructions | RunExit::Time | RunExit::Attention | RunExit::Idle => Step::Done { debug: None },
            RunExit::HostEntry => match self.with_view(|view| view.ended.take()) {
                // A trap behind the instruction, which was executed: RIP is no longer its own.
                Some(Exit::Exception(exception)) if exception.debug & 1 << 14 != 0 && self.cpu.rip != rip => {
                    Step::Done { debug: Some(exception) }
                }
                Some(Exit::Exception(exception)) => Step::Fault(exception),
                // As on the processors, whatever CR0.NE says.
                Some(Exit::Instruction { intercept: Intercept::FerrFreeze, .. }) => Step::Fault(Exception::plain(Vector::MathFault)),
                _ => Step::Failed,
            },
            RunExit::NotModelled(what) => Step::NotModelled(what),
            RunExit::Shutdown => Step::Failed,
        }
    }

    /// Switches the guest's task. Beside what came of it the bits of DR6 of a #DB behind it.
    pub fn switch_tasks(&mut self, memory: &mut Memory, code: &mut CodeCache, switch: &TaskSwitch) -> (Result<Option<Trap>, Trap>, u64) {
        let mut devices = NoDevices;
        let mut bus = DeviceBus(&mut devices);
        let outcome = self.cpu.with_environment(&mut Environment { memory, code, bus: &mut bus }, |cpu| cpu.switch_tasks(switch));
        (outcome, std::mem::take(&mut self.cpu.pending_debug))
    }

    /// Delivers an event through the interrupt table of the program that was put in.
    pub fn deliver(&mut self, memory: &mut Memory, code: &mut CodeCache, event: Event) -> Step {
        self.with_view(|view| view.ended = None);
        self.cpu.inject = Some(event);
        let begun = self.cpu.instructions();
        let mut devices = NoDevices;
        let mut bus = DeviceBus(&mut devices);
        match self.cpu.run(&mut Environment { memory, code, bus: &mut bus }, u64::MAX, begun) {
            RunExit::Instructions => Step::Done { debug: None },
            RunExit::HostEntry => match self.with_view(|view| view.ended.take()) {
                Some(Exit::Exception(exception)) => Step::Fault(exception),
                _ => Step::Failed,
            },
            RunExit::NotModelled(what) => Step::NotModelled(what),
            _ => Step::Failed,
        }
    }

    /// The registers after an instruction.
    pub fn end(&self, registers: &mut Registers) {
        let blocked = registers.nmi_blocked;
        *registers = Registers::of(&self.cpu);
        registers.pending_debug = 0;
        registers.nmi_blocked = blocked && self.cpu.nmi_blocked;
    }

    /// The state after an INIT signal.
    pub fn init(&mut self, registers: &mut Registers) {
        registers.put(&mut self.cpu);
        self.cpu.guest_mode = false;
        self.cpu.init();
        *registers = Registers::of(&self.cpu);
    }
}
