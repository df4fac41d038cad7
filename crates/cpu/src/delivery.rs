//! Where an exception or an intercepted event goes: to the program's handler, to the silicon, or to shutdown.
//!
//! What is modelled: interception of exceptions, the double- and triple-fault ladder (SDM vol 3, Table 6-5 "Conditions for Generating a
//! Double Fault"), delivery through the IDT of all modes (`delivery/gate.rs`), and what is looked at between instructions
//! (`delivery/boundary.rs`). Task switches are in `delivery/task.rs`.

mod boundary;
mod gate;
pub(crate) mod log;
pub(crate) mod task;

pub(crate) use gate::KnownGates;

use crate::engine::RunExit;
use crate::last_branches::{BTF, LBR};
use crate::operand::segment_of;
use crate::state::{Activity, Cpu, Shadow};
use crate::trap::{Event, EventKind, Exception, Exit, Intercept, Trap};
use iced_x86::{Instruction, OpKind};
use isa::debug::Dr6;
use isa::exception::{Class, Vector};
use isa::paging::is_canonical;
use isa::register::{Gpr, Segment};

/// What becomes of an exception that arises while an earlier event is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Combined {
    /// The second is delivered; the first happens again when its cause is executed again.
    Serial,
    /// Both become a double fault.
    DoubleFault,
    /// The processor shuts down.
    Shutdown,
}

/// The class of an event under delivery: interrupts and software events are benign, whatever their vector.
fn class_of(event: &Event) -> Class {
    match event.kind {
        EventKind::Exception => Vector::from_number(event.vector).map_or(Class::Benign, Vector::class),
        _ => Class::Benign,
    }
}

/// SDM vol 3, Table 6-5 "Conditions for Generating a Double Fault", and the text on #DF behind it.
const fn combine(first: Class, second: Class) -> Combined {
    match (first, second) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => Combined::Shutdown,
        (Class::Contributory, Class::Contributory) | (Class::PageFault, Class::Contributory | Class::PageFault) => Combined::DoubleFault,
        _ => Combined::Serial,
    }
}

impl Event {
    /// The EXT bit of error codes of faults during this event's delivery. SDM vol 3, 6.13 "Error Code".
    pub(crate) const fn external(&self) -> u32 {
        match self.kind {
            EventKind::SoftwareInterrupt | EventKind::SoftwareException => 0,
            _ => 1,
        }
    }
}

impl Cpu {
    /// Takes a trap of `instruction` (none when it could not be fetched) to the program's handler or to the silicon.
    pub(crate) fn raise(&mut self, trap: Trap, instruction: Option<&Instruction>) -> Result<(), RunExit> {
        self.leave = true;
        let mut exception = match trap {
            Trap::Exit(Exit::ApicAccess { offset, access, table_walk, .. }) => {
                let length = instruction.filter(|_| self.delivering.is_none()).map_or(0, |instruction| instruction.len() as u8);
                return self.leave_guest(Exit::ApicAccess { offset, access, table_walk, length });
            }
            Trap::Exit(Exit::Instruction { intercept: Intercept::FerrFreeze, .. })
                if !(self.guest_mode && self.interception.has(Intercept::FerrFreeze)) =>
            {
                // In front of the instruction: whatever wakes it comes back to it.
                self.drive_numeric_error();
                self.shadow = Shadow::None;
                self.drain_stores();
                self.activity = Activity::Halted;
                return Ok(());
            }
            Trap::Exit(exit) => return self.leave_guest(exit),
            Trap::NotModelled(what) => return Err(RunExit::NotModelled(what)),
            Trap::Exception(exception) => self.with_stack_fault(exception, instruction),
        };
        // Each turn either delivers, exits, or makes a worse exception: at most three.
        loop {
            let first = self.delivering;
            if let Some(first) = first {
                let has_selector = matches!(
                    exception.vector,
                    Vector::InvalidTss | Vector::SegmentNotPresent | Vector::StackFault | Vector::GeneralProtection
                );
                if has_selector {
                    exception.error_code = exception.error_code.map(|code| code | first.external());
                }
            }
            // An intercept looks at the second exception, before the two are combined. SDM vol 3, 26.2 "Other Causes of VM Exits"; APM vol
            // 2, 15.12 "Exception Intercepts".
            if self.intercepts_exception(&exception) {
                return self.leave_guest(Exit::Exception(exception));
            }
            match first.map_or(Combined::Serial, |first| combine(class_of(&first), exception.vector.class())) {
                Combined::Serial => {}
                Combined::DoubleFault => {
                    exception = Exception::with_code(Vector::DoubleFault, 0);
                    if self.intercepts_exception(&exception) {
                        self.delivering = None;
                        return self.leave_guest(Exit::Exception(exception));
                    }
                }
                Combined::Shutdown => return self.shut_down(),
            }
            match self.deliver_exception(&exception) {
                Ok(()) => return Ok(()),
                Err(Trap::Exception(next)) => exception = next,
                Err(Trap::Exit(exit)) => return self.leave_guest(exit),
                Err(Trap::NotModelled(what)) => return Err(RunExit::NotModelled(what)),
            }
        }
    }

    fn intercepts_exception(&self, exception: &Exception) -> bool {
        self.guest_mode && self.interception.exception(exception.vector, exception.error_code)
    }

    /// A triple fault.
    fn shut_down(&mut self) -> Result<(), RunExit> {
        self.delivering = None;
        if self.guest_mode && self.interception.has(Intercept::Shutdown) {
            return self.leave_guest(Exit::TripleFault);
        }
        self.log_triple_fault();
        self.drain_stores();
        self.activity = Activity::Shutdown;
        Err(RunExit::Shutdown)
    }

    /// Side effects of an exception on CR2 and the debug registers, then its delivery.
    fn deliver_exception(&mut self, exception: &Exception) -> Result<(), Trap> {
        match exception.vector {
            Vector::PageFault => self.cr2 = exception.address,
            Vector::Debug => {
                // SDM vol 3, 18.2.3 "Debug Status Register (DR6)": B0 to B3 tell of this exception, the rest accumulates.
                self.dr6 = Dr6::from_bits(self.dr6.into_bits() & !0xf | exception.debug);
                self.dr7.set_gd(false);
                // SDM vol 3, 18.4.1 "IA32_DEBUGCTL MSR": #DB clears LBR and BTF in front of its handler.
                self.msrs.debugctl &= !(LBR | BTF);
            }
            _ => {}
        }
        self.charge(self.model.costs.exception_delivery.ticks());
        self.deliver(Event { kind: EventKind::Exception, vector: exception.vector as u8, error_code: exception.error_code, length: 0 })
    }

    /// A non-canonical address of the stack segment is #SS(0), not #GP(0). SDM vol 3, 6.15, "Interrupt 12 - Stack Fault Exception (#SS)".
    fn with_stack_fault(&self, exception: Exception, instruction: Option<&Instruction>) -> Exception {
        let Some(instruction) = instruction else { return exception };
        if exception.vector != Vector::GeneralProtection || exception.error_code != Some(0) || !self.is_64bit() {
            return exception;
        }
        let outside = |address: u64, bytes: u64| !is_canonical(address) || !is_canonical(address.wrapping_add(bytes.max(1) - 1));
        let operand = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory)
            && segment_of(instruction.memory_segment()) == Some(Segment::Ss)
            && outside(self.effective_offset(instruction), instruction.memory_size().size() as u64);
        let change = i64::from(instruction.stack_pointer_increment());
        let rsp = self.gpr(if instruction.mnemonic() == iced_x86::Mnemonic::Leave { Gpr::Rbp } else { Gpr::Rsp });
        let stack = instruction.is_stack_instruction()
            && if change < 0 { outside(rsp.wrapping_add_signed(change), change.unsigned_abs()) } else { outside(rsp, 1) };
        if operand || stack { Exception::with_code(Vector::StackFault, 0) } else { exception }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_combine_as_the_manual_says() {
        use Class::{Benign, Contributory, DoubleFault, PageFault};
        let rows = [
            (Benign, PageFault, Combined::Serial),
            (Contributory, Benign, Combined::Serial),
            (Contributory, Contributory, Combined::DoubleFault),
            (Contributory, PageFault, Combined::Serial),
            (PageFault, Benign, Combined::Serial),
            (PageFault, Contributory, Combined::DoubleFault),
            (PageFault, PageFault, Combined::DoubleFault),
            (DoubleFault, Benign, Combined::Serial),
            (DoubleFault, Contributory, Combined::Shutdown),
            (DoubleFault, PageFault, Combined::Shutdown),
        ];
        for (first, second, expected) in rows {
            assert_eq!(combine(first, second), expected, "{first:?} then {second:?}");
        }
    }
}
