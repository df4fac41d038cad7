//! Telling hypercall instructions from others, and writing into the guest's text.

use crate::backend::Backend;
use crate::emulator::Place;
use crate::handle::userspace;
use crate::run::Stop;
use crate::vm::Vm;
use cpu::trap::{Access, Exception, Trap};
use isa::exception::PageFaultCode;
use trace::{ByteString, Event, Sink};

/// What an instruction that raised #UD is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsWho {
    /// The guest program's own.
    Guest,
    /// Nobody's: what is mapped can be written, as in 2007.
    Nobody,
}

impl<B: Backend> Vm<B> {
    /// Writes bytes at a linear address, page by page, as the program that the spare processor was readied with.
    pub(crate) fn write_text(
        &mut self,
        vcpu: usize,
        linear: u64,
        bytes: &[u8],
        as_who: AsWho,
        sink: &mut dyn Sink,
    ) -> Result<(), WriteFailure> {
        let mut done = 0;
        while done < bytes.len() {
            let address = linear.wrapping_add(done as u64);
            let fits = (0x1000 - (address & 0xfff)) as usize;
            let piece = &bytes[done..bytes.len().min(done + fits)];
            let place = match as_who {
                AsWho::Guest => self.emulator.translate(&mut self.memory, &mut self.code, address, Access::Write),
                AsWho::Nobody => self
                    .emulator
                    .translate_without_rights(&mut self.memory, &mut self.code, address)
                    .map_err(|_| Trap::Exception(Exception::page_fault(address, PageFaultCode::new().with_write(true)))),
            };
            match place {
                Ok(Place::Ram(gpa)) => self.write_piece(vcpu, gpa, piece, sink),
                Ok(Place::Device(gpa)) => {
                    let value = piece.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
                    self.emit(vcpu, sink, Event::Mmio { write: true, length: piece.len() as u8, gpa, value });
                    self.leave_to_userspace(vcpu, userspace::MMIO, sink);
                    return Err(WriteFailure::Userspace);
                }
                Err(Trap::Exception(exception)) => return Err(WriteFailure::Fault(exception)),
                Err(_) => return Err(WriteFailure::Unwalkable),
            }
            done += piece.len();
        }
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
