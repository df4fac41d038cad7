//! Telling hypercall instructions from others, and writing into the guest's text.

use crate::backend::Backend;
use crate::emulator::Place;
use crate::handle::userspace;
use crate::run::Stop;
use crate::state::Registers;
use crate::steps::Stage;
use crate::vm::Vm;
use cpu::freedom::{MemoryAccess, Touch};
use cpu::trap::{Access, Exception, Trap};
use isa::exception::PageFaultCode;
use serde::{Deserialize, Serialize};
use trace::{ByteString, Event, Sink};

/// What an instruction that raised #UD is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// VMCALL.
    Vmcall,
    /// VMMCALL.
    Vmmcall,
    /// SYSENTER.
    Sysenter,
    /// SYSEXIT.
    Sysexit,
    /// Another that KVM emulates on #UD because the other vendor has it, or some processor: SYSCALL, RSM, RDPID, MOVBE.
    Other,
    /// None that would be emulated.
    Unknown,
}

/// An instruction as far as prefixes and opcode go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub kind: Kind,
    /// Bytes of prefixes and opcode.
    pub length: usize,
    /// There is a LOCK prefix.
    pub lock: bool,
}

/// Decodes prefixes and opcode.
pub(crate) fn decode(bytes: &[u8], is_64bit: bool) -> Decoded {
    let mut lock = false;
    let mut repeat = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            0xf0 => lock = true,
            0xf3 => repeat = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 => {}
            0x40..=0x4f if is_64bit => {}
            _ => break,
        }
        at += 1;
    }
    let kind = match &bytes[at..] {
        [0x0f, 0x01, 0xc1, ..] => Kind::Vmcall,
        [0x0f, 0x01, 0xd9, ..] => Kind::Vmmcall,
        [0x0f, 0x34, ..] => Kind::Sysenter,
        [0x0f, 0x35, ..] => Kind::Sysexit,
        [0x0f, 0x05 | 0xaa, ..] | [0x0f, 0x38, 0xf0 | 0xf1, ..] => Kind::Other,
        [0x0f, 0xc7, form, ..] if repeat && form >> 3 & 7 == 7 && form >> 6 == 3 => Kind::Other,
        _ => Kind::Unknown,
    };
    Decoded { kind, length: (at + 3).min(bytes.len()), lock }
}

/// Why a write into the guest's text failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum WriteFailure {
    /// The guest gets this exception.
    Fault(Exception),
    /// There is no memory to write: user space got the write.
    Userspace,
    /// The guest's tables cannot be walked.
    Unwalkable,
}

/// With which rights the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AsWho {
    /// The guest program's own.
    Guest,
    /// Nobody's: what is mapped can be written, as in 2007.
    Nobody,
}

/// A write of the native instruction into the guest's text, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TextWrite {
    /// The guest's registers at the exit. RIP itself is taken for a linear address, without the base of CS.
    pub registers: Registers,
    pub bytes: [u8; 3],
    pub done: usize,
    pub as_who: AsWho,
    pub then: Then,
}

/// What follows a write into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Then {
    /// As KVM of today: see `undefined`.
    Retry { kind: Kind, length: u8, forced: bool },
    /// As the commit of 2007: see `classic`.
    Call { length: usize },
}

/// The number that bytes are in memory.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl TextWrite {
    fn address(&self) -> u64 {
        self.registers.rip.wrapping_add(self.done as u64)
    }

    /// The bytes of the next piece: what is left, up to the end of the page.
    pub fn piece(&self) -> &[u8] {
        let fits = (0x1000 - (self.address() & 0xfff)) as usize;
        &self.bytes[self.done..self.bytes.len().min(self.done + fits)]
    }
}

impl<B: Backend> Vm<B> {
    /// Writes the next piece. What comes behind the last one, or behind one that fails, comes at once.
    pub(crate) fn write_step(&mut self, vcpu: usize, mut write: TextWrite, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.patch_write);
        // Another virtual CPU's emulation may have come between.
        self.begin_emulation(vcpu, &write.registers);
        let outcome = self.write_text(vcpu, &mut write, sink);
        if outcome.is_ok() && write.done < write.bytes.len() {
            self.later(vcpu, Stage::Write(Box::new(write)));
            return Ok(());
        }
        match write.then {
            Then::Retry { kind, length, forced } => self.retry_patched(vcpu, write.registers, outcome, (kind, length, forced)),
            Then::Call { length } => self.call_patched(vcpu, &write.registers, outcome, length, sink),
        }
    }

    /// Writes a piece at a linear address as the program that the spare processor was readied with.
    fn write_text(&mut self, vcpu: usize, write: &mut TextWrite, sink: &mut dyn Sink) -> Result<(), WriteFailure> {
        let address = write.address();
        let piece = write.piece();
        let limit = self.common.write_limit.map_or(piece.len(), |limit| usize::from(limit.max(1)));
        let piece = &piece[..piece.len().min(limit)];
        let length = piece.len();
        let place = match write.as_who {
            AsWho::Guest => self.emulator.translate(&mut self.memory, &mut self.code, address, Access::Write),
            AsWho::Nobody => self
                .emulator
                .translate_without_rights(&mut self.memory, &mut self.code, address)
                .map_err(|_| Trap::Exception(Exception::page_fault(address, PageFaultCode::new().with_write(true)))),
        };
        match place {
            Ok(Place::Ram(gpa)) => self.write_piece(vcpu, gpa, piece, sink),
            Ok(Place::Device(gpa)) => {
                let value = number(piece);
                self.emit(vcpu, sink, Event::Mmio { write: true, length: piece.len() as u8, gpa, value });
                self.leave_to_userspace(vcpu, userspace::MMIO, sink);
                return Err(WriteFailure::Userspace);
            }
            Err(Trap::Exception(exception)) => return Err(WriteFailure::Fault(exception)),
            Err(_) => return Err(WriteFailure::Unwalkable),
        }
        write.done += length;
        Ok(())
    }

    /// Writes within a page of RAM, where dirty log and code caches see it.
    fn write_piece(&mut self, vcpu: usize, gpa: u64, bytes: &[u8], sink: &mut dyn Sink) {
        let mut old = [0; 15];
        let old = &mut old[..bytes.len().min(15)];
        if self.memory.read(gpa, old).is_err() || self.memory.write(gpa, bytes).is_err() {
            return;
        }
        self.common.statistics.patches += 1;
        if self.common.schedule.is_some() {
            let touch = Touch::Write { old: number(old) };
            self.common.writes.push(MemoryAccess { physical: gpa, length: bytes.len() as u64, touch });
        }
        let (old, new) = (ByteString::new(old), ByteString::new(bytes));
        self.emit(vcpu, sink, Event::Patch { gpa, old, new });
    }

    /// The stop for guest tables that cannot be walked by software.
    pub(crate) fn unwalkable(&self, vcpu: usize) -> Stop {
        self.not_modelled(vcpu, "guest page tables outside of RAM, walked by the hypervisor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_belong_to_the_instruction() {
        let rows: [(&[u8], bool, Kind, usize, bool); 10] = [
            (&[0x0f, 0x01, 0xc1], true, Kind::Vmcall, 3, false),
            (&[0x48, 0x0f, 0x01, 0xd9], true, Kind::Vmmcall, 4, false),
            (&[0x48, 0x0f, 0x01, 0xd9], false, Kind::Unknown, 3, false),
            (&[0xf0, 0x0f, 0x01, 0xd9], true, Kind::Vmmcall, 4, true),
            (&[0xf3, 0x0f, 0xc7, 0xf8], true, Kind::Other, 4, false),
            (&[0x0f, 0x05], true, Kind::Other, 2, false),
            (&[0x0f, 0x34], false, Kind::Sysenter, 2, false),
            (&[0x48, 0x0f, 0x35], true, Kind::Sysexit, 3, false),
            (&[0x0f, 0x0b], true, Kind::Unknown, 2, false),
            (&[0x0f, 0x01], true, Kind::Unknown, 2, false),
        ];
        for (bytes, wide, kind, length, lock) in rows {
            assert_eq!(decode(bytes, wide), Decoded { kind, length, lock }, "{bytes:x?}");
        }
    }
}
