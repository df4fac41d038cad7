//! A small piece of another hypervisor's interface: Microsoft's Hyper-V, as far as its hypercalls go.
//!
//! Modelled: of the Hypervisor Top-Level Functional Specification (TLFS) the CPUID leaves 4000_0000H to 4000_0005H, the registers
//! HV_X64_MSR_GUEST_OS_ID and HV_X64_MSR_HYPERCALL with the page of code that the second asks for, the form of calls and results, and the call
//! HvCallNotifyLongSpinWait. KVM's own leaves move to 4000_0100H. As in KVM, calls are Hyper-V's once the guest has named its operating system.
//! A move writes the page anew, with the instruction of the processors at hand, as KVM does when it is given the register's value.
//!
//! Not modelled: every other call (HV_STATUS_INVALID_HYPERCALL_CODE), register and enlightenment. The page is KVM's: its first bytes are written
//! into the guest's memory and what was there is lost, where the TLFS has a page of the hypervisor's lie over the guest's.

use crate::backend::Backend;
use crate::handle::UNDEFINED;
use crate::run::Stop;
use crate::vm::Vm;
use isa::cpuid::CpuidResult;
use isa::register::Gpr;
use memory::OutOfRange;
use serde::{Deserialize, Serialize};
use trace::{ByteString, Event, Sink};

/// HV_X64_MSR_GUEST_OS_ID.
pub(crate) const GUEST_OS_ID: u32 = 0x4000_0000;
/// HV_X64_MSR_HYPERCALL.
pub(crate) const HYPERCALL: u32 = 0x4000_0001;

/// HV_X64_MSR_HYPERCALL: the page is there.
const ENABLE: u64 = 1 << 0;
/// HV_X64_MSR_HYPERCALL: no write has an effect until reset.
const LOCKED: u64 = 1 << 1;
/// HV_X64_MSR_HYPERCALL: the page's number, in place.
const PAGE: u64 = !0xfff;
/// RET behind the instruction.
const RET: u8 = 0xc3;

/// HV_STATUS_SUCCESS.
const SUCCESS: u64 = 0;
/// HV_STATUS_INVALID_HYPERCALL_CODE.
const INVALID_HYPERCALL_CODE: u64 = 2;
/// HV_STATUS_INVALID_HYPERCALL_INPUT.
const INVALID_HYPERCALL_INPUT: u64 = 3;
/// HvCallNotifyLongSpinWait.
const NOTIFY_LONG_SPIN_WAIT: u16 = 0x0008;
/// Attempts at a lock before a guest makes that call: KVM's number.
const SPIN_COUNT: u32 = 0xfff;

/// The guest's registers of Hyper-V. They are of the partition, not of a virtual CPU: those of virtual CPU 0 count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HyperV {
    /// HV_X64_MSR_GUEST_OS_ID.
    pub guest_os_id: u64,
    /// HV_X64_MSR_HYPERCALL.
    pub hypercall: u64,
}

impl HyperV {
    /// A guest that does not know of the interface.
    pub(crate) fn is_unused(&self) -> bool {
        *self == Self::default()
    }
}

/// The answers of CPUID from 4000_0000H on. TLFS, "Feature and Interface Discovery".
pub(crate) fn cpuid_leaves() -> [CpuidResult; 6] {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let zero = CpuidResult::default();
    [
        CpuidResult { eax: 0x4000_0005, ebx: word(b"Micr"), ecx: word(b"osof"), edx: word(b"t Hv") },
        CpuidResult { eax: word(b"Hv#1"), ..zero },
        // No version is claimed.
        zero,
        // AccessHypercallMsrs.
        CpuidResult { eax: 1 << 5, ..zero },
        CpuidResult { ebx: SPIN_COUNT, ..zero },
        CpuidResult { eax: machine::MAXIMUM_CPUS, ebx: machine::MAXIMUM_CPUS, ..zero },
    ]
}

/// The input value of a call. TLFS, "Hypercall Inputs".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Input(u64);

impl Input {
    /// Bits that must be zero: 31:27, 47:44, 63:60.
    const RESERVED: u64 = 0xf000_f000_f800_0000;

    const fn code(self) -> u16 {
        self.0 as u16
    }
    /// Arguments are in registers, not in memory.
    const fn fast(self) -> bool {
        self.0 >> 16 & 1 != 0
    }
    /// Words of a header of variable size.
    const fn variable_header(self) -> u16 {
        (self.0 >> 17 & 0x3ff) as u16
    }
    const fn repetitions(self) -> u16 {
        (self.0 >> 32 & 0xfff) as u16
    }
    const fn first_repetition(self) -> u16 {
        (self.0 >> 48 & 0xfff) as u16
    }

    /// What comes of the call.
    const fn status(self) -> u64 {
        if self.code() != NOTIFY_LONG_SPIN_WAIT {
            return INVALID_HYPERCALL_CODE;
        }
        let simple = self.variable_header() == 0 && self.repetitions() == 0 && self.first_repetition() == 0;
        // There is no other work on the host's processors to yield to.
        if simple && self.0 & Self::RESERVED == 0 { SUCCESS } else { INVALID_HYPERCALL_INPUT }
    }
}

impl<B: Backend> Vm<B> {
    fn hyperv(&mut self) -> Option<&mut HyperV> {
        self.vcpus.first_mut().filter(|_| self.common.options.hyperv).map(|vcpu| &mut vcpu.software.hyperv)
    }

    /// The guest-physical address of Hyper-V's hypercall page, if the guest has one: a move writes it anew.
    pub fn hypercall_page(&self) -> Option<u64> {
        let hyperv = self.vcpus.first().filter(|_| self.common.options.hyperv).map(|vcpu| vcpu.software.hyperv)?;
        (hyperv.hypercall & ENABLE != 0).then_some(hyperv.hypercall & PAGE)
    }

    /// Whether calls are Hyper-V's.
    pub(crate) fn hyperv_calls(&mut self) -> bool {
        self.hyperv().is_some_and(|hyperv| hyperv.guest_os_id != 0)
    }

    /// RDMSR; `None` where the register does not exist.
    pub(crate) fn read_hyperv(&mut self, index: u32) -> Option<u64> {
        let hyperv = self.hyperv()?;
        match index {
            GUEST_OS_ID => Some(hyperv.guest_os_id),
            HYPERCALL => Some(hyperv.hypercall),
            _ => None,
        }
    }

    /// WRMSR; false is #GP. TLFS, "Establishing the Hypercall Interface".
    pub(crate) fn write_hyperv(&mut self, vcpu: usize, index: u32, value: u64, sink: &mut dyn Sink) -> bool {
        let Some(hyperv) = self.hyperv() else { return false };
        match index {
            GUEST_OS_ID => {
                hyperv.guest_os_id = value;
                if value == 0 {
                    hyperv.hypercall &= !ENABLE;
                }
                true
            }
            // Without a name of the guest's system the page stays as it is, and a locked register, too.
            HYPERCALL if hyperv.guest_os_id == 0 || hyperv.hypercall & LOCKED != 0 => true,
            HYPERCALL if value & ENABLE == 0 => {
                hyperv.hypercall = value;
                true
            }
            HYPERCALL => {
                let written = self.write_hypercall_page(vcpu, value & PAGE, sink);
                if written && let Some(hyperv) = self.hyperv() {
                    hyperv.hypercall = value;
                }
                written
            }
            _ => false,
        }
    }

    /// Writes the page anew behind a move, if there is one: the processors' instruction may be another.
    pub(crate) fn renew_hypercall_page(&mut self, sink: &mut dyn Sink) {
        if let Some(page) = self.hypercall_page() {
            self.write_hypercall_page(0, page, sink);
        }
    }

    /// The page was written anew behind a move, and now that of the former host has come over it.
    pub(crate) fn renew_arrived_hypercall_page(&mut self, frame: u64) -> Result<(), OutOfRange> {
        if self.hypercall_page() == Some(frame << 12) { self.memory.write(frame << 12, &Self::hypercall_code()) } else { Ok(()) }
    }

    fn hypercall_code() -> [u8; 4] {
        let [a, b, c] = B::HYPERCALL;
        [a, b, c, RET]
    }

    /// The instruction and RET, into the guest's memory. The guest's paging and its rights are not asked, as of any write by a device.
    fn write_hypercall_page(&mut self, vcpu: usize, page: u64, sink: &mut dyn Sink) -> bool {
        let code = Self::hypercall_code();
        if self.must_wait(page, code.len() as u64) {
            return false;
        }
        let mut old = [0; 4];
        let writable = self.common.slots.at(page).is_some_and(|slot| !slot.read_only && page + 0x1000 <= slot.end);
        if !writable || self.memory.read(page, &mut old).is_err() || self.memory.write(page, &code).is_err() {
            return false;
        }
        self.emit(vcpu, sink, Event::Patch { gpa: page, old: ByteString::from(old), new: ByteString::from(code) });
        true
    }

    /// A call of Hyper-V's. RIP moves on by `length`. In 64-bit mode RCX, RDX and R8 hold the input value and the addresses of input and
    /// output, and RAX the result; else the pairs EDX:EAX, EBX:ECX, EDI:ESI and EDX:EAX.
    pub(crate) fn hyperv_call(&mut self, vcpu: usize, length: u8, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.hypercall_handler);
        self.common.statistics.hypercalls += 1;
        let (wide, cpl, registers) = self.silicon(vcpu, |backend, cpu| (backend.is_64bit(cpu), backend.cpl(cpu), backend.save(cpu)));
        // TLFS, "Legal Hypercall Environments": protected mode at level 0, or #UD.
        if cpl != 0 || !registers.cr0.pe() || registers.rflags.vm() {
            self.queue_exception(vcpu, UNDEFINED);
            return Ok(());
        }
        let cpu = &mut self.cpus[vcpu];
        let pair = |high: Gpr, low: Gpr| cpu.gpr(high) << 32 | cpu.gpr(low) & 0xffff_ffff;
        let (input, from, to) = if wide {
            (cpu.gpr(Gpr::Rcx), cpu.gpr(Gpr::Rdx), cpu.gpr(Gpr::R8))
        } else {
            (pair(Gpr::Rdx, Gpr::Rax), pair(Gpr::Rbx, Gpr::Rcx), pair(Gpr::Rdi, Gpr::Rsi))
        };
        let input = Input(input);
        let result = input.status();
        if wide {
            cpu.set_gpr(Gpr::Rax, result);
        } else {
            cpu.set_gpr(Gpr::Rdx, result >> 32);
            cpu.set_gpr(Gpr::Rax, result & 0xffff_ffff);
        }
        self.emit(
            vcpu,
            sink,
            Event::HypervHypercall {
                code: input.code().into(),
                fast: input.fast(),
                var_cnt: input.variable_header().into(),
                rep_cnt: input.repetitions().into(),
                idx: input.first_repetition().into(),
                input: from,
                output: to,
            },
        );
        self.emit(vcpu, sink, Event::HypervHypercallDone { result });
        self.skip(vcpu, Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_code_and_form() {
        for (input, status) in [
            (0x8, SUCCESS),
            (0x1_0008, SUCCESS),
            (0x1_0009, INVALID_HYPERCALL_CODE),
            (0, INVALID_HYPERCALL_CODE),
            (0x2_0008, INVALID_HYPERCALL_INPUT),
            (0x1_0000_0008, INVALID_HYPERCALL_INPUT),
            (0x1_0000_0000_0008, INVALID_HYPERCALL_INPUT),
            (1 << 27 | 8, INVALID_HYPERCALL_INPUT),
            (1 << 63 | 8, INVALID_HYPERCALL_INPUT),
        ] {
            assert_eq!(Input(input).status(), status, "{input:#x}");
        }
    }

    #[test]
    fn the_interface_names_itself() {
        let [first, second, ..] = cpuid_leaves();
        let name: Vec<u8> = [first.ebx, first.ecx, first.edx].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!((name.as_slice(), second.eax), (&b"Microsoft Hv"[..], 0x3123_7648));
    }
}
