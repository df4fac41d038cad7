//! Watching a bare machine: an event for every exception and interrupt that a processor delivers, for a triple fault, and, where the guest
//! is a hypervisor, for every VM entry and VM exit.
//!
//! Modelled: of deliveries what the processor notes itself ([`cpu::Delivery`]), in the words that a hypervisor's log uses as well; what Linux shows of an exit of its own guests, read from the VMCS or VMCB right after it. Whoever watches looks after every
//! instruction. An entry whose guest is left before it executes anything shows as its exit alone; on Intel one that fails its checks is
//! not seen, since it is no exit.

use crate::Machine;
use cpu::trap::EventKind;
use cpu::{Cpu, Delivered, Delivery};
use isa::svm::ExitCode;
use isa::vmx::{ExitReason, VmcsField};
use serde::{Deserialize, Serialize};
use svm::Svm;
use trace::{Event, Name, Sink};
use vmx::Vmx;

/// Offsets in a VMCB. APM volume 2, appendix B "Layout of VMCB".
mod vmcb {
    pub const EXIT_CODE: u64 = 0x070;
    pub const EXIT_INFO_1: u64 = 0x078;
    pub const EXIT_INFO_2: u64 = 0x080;
    pub const EXIT_INT_INFO: u64 = 0x088;
    pub const EVENT_INJECTION: u64 = 0x0a8;
    pub const RIP: u64 = 0x578;
}

/// What was seen of each processor when it was looked at last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    seen: Vec<Seen>,
    deliveries: bool,
}

/// The event of a delivery. `all` is false where only a triple fault is of interest.
pub fn delivery(delivery: &Delivery, all: bool) -> Option<Event> {
    let rip = delivery.rip;
    Some(match delivery.what {
        Delivered::TripleFault => Event::TripleFault { rip },
        _ if !all => return None,
        Delivered::Event { event: cpu::trap::Event { kind, vector, error_code, .. }, cr2 } => match kind {
            EventKind::External => Event::Interrupt { source: "IRQ", vector, rip },
            EventKind::Nmi => Event::Interrupt { source: "NMI", vector, rip },
            EventKind::SoftwareInterrupt => Event::Interrupt { source: "Soft/INTn", vector, rip },
            EventKind::Exception | EventKind::PrivilegedSoftware | EventKind::SoftwareException => {
                Event::Exception { vector, error_code, rip, cr2 }
            }
        },
    })
}

/// Whether a processor was in a guest, and how many it had left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    guest: bool,
    exits: u64,
}

impl Watch {
    /// A watch over a machine: of triple faults, VM entries and VM exits, and with `deliveries` of all that goes through an IDT.
    pub fn new(machine: &mut Machine, deliveries: bool) -> Self {
        let mut seen = Vec::new();
        for cpu in &mut machine.cpus {
            cpu.log_deliveries(true);
            seen.push(Seen { guest: cpu.guest_mode, exits: exits(cpu) });
        }
        Self { seen, deliveries }
    }

    /// Tells from now on of all that goes through an IDT, or not.
    pub fn tell_deliveries(&mut self, deliveries: bool) {
        self.deliveries = deliveries;
    }

    /// Looks at every processor, and tells of what happened since the last look.
    pub fn look(&mut self, machine: &mut Machine, sink: &mut dyn Sink) {
        self.seen.resize(machine.cpus.len(), Seen::default());
        for number in 0..machine.cpus.len() {
            let cpu = &mut machine.cpus[number];
            let now = Seen { guest: cpu.guest_mode, exits: exits(cpu) };
            let before = std::mem::replace(&mut self.seen[number], now);
            let deliveries = machine.cpus[number].take_deliveries();
            // What came before an entry or exit was in the mode that it ended.
            let split = if before == now { deliveries.len() } else { deliveries.iter().take_while(|it| it.guest == before.guest).count() };
            let (earlier, later) = deliveries.split_at(split);
            self.tell(number, earlier, sink);
            if before != now {
                let event = if now.guest { entry(machine, number) } else { exit(machine, number) };
                sink.emit(machine.cpus[number].cycles(), number as u32, event);
            }
            self.tell(number, later, sink);
        }
    }
}

impl Watch {
    fn tell(&self, number: usize, deliveries: &[Delivery], sink: &mut dyn Sink) {
        for it in deliveries {
            if let Some(event) = delivery(it, self.deliveries) {
                sink.emit(it.cycle, number as u32, event);
            }
        }
    }
}

/// How many guests a processor has left.
fn exits(cpu: &mut Cpu) -> u64 {
    let count = cpu.with_extension(|extension, _| {
        let silicon = extension.as_any();
        let vmx = silicon.downcast_ref::<Vmx>().map(Vmx::exits);
        vmx.or_else(|| silicon.downcast_ref::<Svm>().map(Svm::exits))
    });
    count.flatten().unwrap_or(0)
}

/// Fields of the current VMCS of a processor; `None` where it has no VMX, or no VMCS is current. Looking costs the guest no time.
fn vmcs<const N: usize>(machine: &mut Machine, number: usize, fields: [VmcsField; N]) -> Option<[u64; N]> {
    Vmx::with(&mut machine.cpus[number], |vmx, _| vmx.inspect().map(|vmcs| fields.map(|field| vmcs.get(field))))?
}

/// Words of the VMCB that a processor's guest has.
fn vmcb<const N: usize>(machine: &mut Machine, number: usize, places: [u64; N]) -> [u64; N] {
    let block = machine.cpus[number].with_extension(|extension, _| extension.as_any().downcast_ref::<Svm>().map(Svm::vmcb)).flatten();
    places.map(|place| block.and_then(|block| machine.memory.read_u64(block.checked_add(place)?).ok()).unwrap_or(0))
}

/// The reason of an exit by the text that traces have for it, of either vendor; nothing if there is none of that name.
pub fn reason(text: &str) -> Option<Name> {
    if let Some(code) = text.strip_prefix("0x") {
        return u64::from_str_radix(code, 16).ok().map(Name::Code);
    }
    let intel = (0..=u8::MAX).filter_map(|number| ExitReason::try_from(u16::from(number)).ok()?.kvm_name());
    let amd = (0..0x410).chain([u64::MAX]).filter_map(|code| ExitCode(code).trace_name());
    intel.chain(amd).find(|name| *name == text).map(Name::Text)
}

fn entry(machine: &mut Machine, number: usize) -> Event {
    let rip = machine.cpus[number].rip;
    let fields = [VmcsField::EntryInterruptionInformation, VmcsField::EntryExceptionErrorCode];
    if let Some([information, error_code]) = vmcs(machine, number, fields) {
        return Event::SiliconEntry { rip, intr_info: information as u32, error_code: error_code as u32 };
    }
    let [injected] = vmcb(machine, number, [vmcb::EVENT_INJECTION]);
    Event::SiliconEntry { rip, intr_info: injected as u32, error_code: (injected >> 32) as u32 }
}

fn exit(machine: &mut Machine, number: usize) -> Event {
    let fields = [
        VmcsField::ExitReason,
        VmcsField::GuestRip,
        VmcsField::ExitQualification,
        VmcsField::IdtVectoringInformation,
        VmcsField::ExitInterruptionInformation,
        VmcsField::ExitInterruptionErrorCode,
    ];
    if let Some([reason, rip, info1, info2, intr_info, error_code]) = vmcs(machine, number, fields) {
        let basic = ExitReason::try_from(reason as u16).ok().and_then(ExitReason::kvm_name);
        return Event::SiliconExit {
            reason: basic.map_or(Name::Code(reason & 0xffff), Name::Text),
            failed_entry: reason >> 31 & 1 != 0,
            rip,
            info1,
            info2,
            intr_info: intr_info as u32,
            error_code: error_code as u32,
        };
    }
    let places = [vmcb::EXIT_CODE, vmcb::RIP, vmcb::EXIT_INFO_1, vmcb::EXIT_INFO_2, vmcb::EXIT_INT_INFO];
    let [code, rip, info1, info2, event] = vmcb(machine, number, places);
    Event::SiliconExit {
        reason: ExitCode(code).trace_name().map_or(Name::Code(code), Name::Text),
        failed_entry: false,
        rip,
        info1,
        info2,
        intr_info: event as u32,
        error_code: (event >> 32) as u32,
    }
}
