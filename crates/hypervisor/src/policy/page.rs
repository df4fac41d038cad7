//! What 2007 replaced: the guest registers a structure by an MSR, the hypervisor writes a stub with the host's instruction into the
//! guest's memory, and user space answers every call.

use crate::backend::Backend;
use crate::handle::userspace;
use crate::run::Stop;
use crate::vcpu::Completion;
use crate::vm::Vm;
use isa::register::Gpr;
use trace::{ByteString, Event, Sink};

/// MSR_KVM_API_MAGIC of its day.
pub(crate) const HYPERCALL_PAGE_MSR: u32 = 0x8765_5678;
/// The version of the structure that the hypervisor knows.
const VERSION: u32 = 1;
/// -KVM_EINVAL, which was 1 then: what a call returns that nobody answers.
const EINVAL: i64 = -1;
/// RET, the fourth byte of the stub.
const RET: u8 = 0xc3;

impl<B: Backend> Vm<B> {
    /// WRMSR: the guest-physical address of `{ guest_version, host_version, size, ret: u32, hypercall_gpa: u64 }`. False is #GP.
    pub(crate) fn register_hypercall_page(&mut self, vcpu: usize, address: u64, sink: &mut dyn Sink) -> bool {
        if address & 0xfff != 0 || self.common.slots.at(address).is_none() {
            return false;
        }
        if self.must_wait(address, 24) {
            return false;
        }
        let Ok(guest_version) = self.memory.read_u32(address) else { return false };
        if guest_version > VERSION {
            return self.memory.write_u32(address + 12, EINVAL as u32).is_ok();
        }
        let Ok(page) = self.memory.read_u64(address + 16) else { return false };
        if self.must_wait(page, 4) {
            return false;
        }
        let [a, b, c] = B::HYPERCALL;
        let stub = [a, b, c, RET];
        if self.common.slots.at(page).is_none_or(|slot| page.checked_add(4).is_none_or(|end| end > slot.end)) {
            return false;
        }
        let mut old = [0; 4];
        // The stub is written through a mapping of the host's: neither the guest's paging nor its rights are asked.
        if self.memory.read(page, &mut old).is_err() || self.memory.write(page, &stub).is_err() {
            return false;
        }
        self.common.statistics.patches += 1;
        self.emit(vcpu, sink, Event::Patch { gpa: page, old: ByteString::from(old), new: ByteString::from(stub) });
        self.vcpus[vcpu].software.hypercall_area = Some(address);
        self.memory.write_u32(address + 4, VERSION).is_ok() && self.memory.write_u32(address + 12, 0).is_ok()
    }

    /// A call. In long mode the number is RAX and the arguments RDI, RSI, RDX, RCX, R8, R9; else EBX, and EAX, ECX, EDX, ESI, EDI, EBP.
    pub(crate) fn page_call(&mut self, vcpu: usize, length: u8, sink: &mut dyn Sink) -> Result<(), Stop> {
        let costs = self.model.costs;
        self.charge(vcpu, &costs.hypercall_handler);
        self.common.statistics.hypercalls += 1;
        let wide = self.silicon(vcpu, |backend, cpu| backend.long_mode(cpu));
        let order =
            if wide { [Gpr::Rax, Gpr::Rdi, Gpr::Rsi, Gpr::Rdx, Gpr::Rcx] } else { [Gpr::Rbx, Gpr::Rax, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi] };
        let cpu = &self.cpus[vcpu];
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        let [nr, a0, a1, a2, a3] = order.map(|register| cpu.gpr(register) & mask);
        self.emit(vcpu, sink, Event::Hypercall { nr, a0, a1, a2, a3 });
        self.leave_to_userspace(vcpu, userspace::HYPERCALL, sink);
        // User space has no calls of its own and leaves what the kernel put there.
        self.vcpus[vcpu].software.completion = Some(Completion { result: EINVAL as u64, length });
        Ok(())
    }
}
