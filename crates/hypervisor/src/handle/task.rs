//! Hardware task switches of a guest, which no silicon lets happen under a hypervisor.
//!
//! Modelled: the switch is made by the core's own rules on the spare processor, as KVM's emulator makes it by its; an event that was being
//! delivered through a task gate is over with it. Faults of either task go to the guest, those of the new task with its registers.
//! Not modelled: a TSS in memory that is no RAM reads as ones.

use crate::backend::Backend;
use crate::exit::{Report, TaskSwitch};
use crate::handle::userspace;
use crate::run::Stop;
use crate::vm::Vm;
use cpu::trap::{EventKind, Exception, TaskSwitchSource, Trap};
use isa::exception::Vector;
use isa::segment::Selector;
use trace::Sink;

impl<B: Backend> Vm<B> {
    /// A task switch.
    pub(super) fn task_switch(&mut self, vcpu: usize, report: &Report, switch: TaskSwitch, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        let event = self.vcpus[vcpu].software.requeued.take();
        // Through a gate by what is no instruction, RIP is where the old task goes on already.
        let length = match report.length {
            _ if !switch.by_instruction => 0,
            Some(length) => length,
            None => self.decode_length(vcpu)?,
        };
        let mut registers = self.silicon(vcpu, |backend, cpu| backend.save(cpu));
        self.begin_emulation(vcpu, &registers);
        self.charge(vcpu, &costs.emulate_execute);
        let request = cpu::TaskSwitch {
            selector: Selector::from_bits(switch.selector),
            source: switch.source,
            back: registers.rip.wrapping_add(length.into()) & 0xffff_ffff,
            flags: registers.rflags.with_rf(switch.resume_flag),
            length,
            error_code: switch.error_code,
        };
        let (outcome, debug) = self.emulator.switch_tasks(&mut self.memory, &mut self.code, &request);
        let fault = match outcome {
            Ok(fault) => {
                self.emulator.end(&mut registers);
                registers.nmi_blocked |= event.is_some_and(|event| event.kind == EventKind::Nmi);
                self.silicon(vcpu, |backend, cpu| backend.load(cpu, &registers));
                fault
            }
            Err(fault) => Some(fault),
        };
        match fault {
            None if debug != 0 => self.queue_exception(vcpu, Exception::debug(debug)),
            None => {}
            Some(Trap::Exception(exception)) => {
                // A fault on the way of another makes a double fault, and one on the way of an outside event says so.
                self.vcpus[vcpu].software.requeued = event;
                let from_outside = switch.source == TaskSwitchSource::Gate && !switch.by_instruction;
                self.queue_exception(vcpu, if from_outside { external(exception) } else { exception });
                self.vcpus[vcpu].software.requeued = None;
            }
            Some(Trap::NotModelled(what)) => return Err(Stop::NotModelled { vcpu: vcpu as u32, what }),
            Some(Trap::Exit(_)) => {
                self.leave_to_userspace(vcpu, userspace::INTERNAL_ERROR, sink);
                return Err(Stop::Userspace { vcpu: vcpu as u32, reason: userspace::INTERNAL_ERROR.0 });
            }
        }
        Ok(())
    }
}

/// An exception whose error code tells that an outside event is behind it. SDM vol 3, 6.13 "Error Code".
fn external(exception: Exception) -> Exception {
    let selectors = [Vector::InvalidTss, Vector::SegmentNotPresent, Vector::StackFault, Vector::GeneralProtection];
    let error_code = exception.error_code.map(|code| if selectors.contains(&exception.vector) { code | 1 } else { code });
    Exception { error_code, ..exception }
}
