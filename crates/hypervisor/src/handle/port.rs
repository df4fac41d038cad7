//! IN, OUT, INS, OUTS.
//!
//! Modelled: the interrupt controllers and the interval timer in the kernel, every other port in user space, as KVM has them with
//! KVM_CREATE_IRQCHIP and KVM_CREATE_PIT2.

use super::userspace;
use crate::backend::Backend;
use crate::exit::{Port, Report};
use crate::run::Stop;
use crate::vm::Vm;
use isa::register::Gpr;
use trace::{Event, Sink};

/// Whether the kernel answers at a port.
pub(super) const fn in_kernel(port: u16) -> bool {
    matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 | 0x40..=0x43 | 0x61)
}

impl<B: Backend> Vm<B> {
    pub(super) fn port(&mut self, vcpu: usize, report: &Report, access: Port, sink: &mut dyn Sink) -> Result<(), Stop> {
        if access.string {
            return self.emulate(vcpu, sink, true);
        }
        let Port { port, width, input, .. } = access;
        let costs = self.model.costs;
        let kernel = in_kernel(port);
        self.charge(vcpu, if kernel { &costs.io_in_kernel } else { &costs.io_in_userspace });
        let mask = u32::MAX >> (32 - 8 * u32::from(width.clamp(1, 4)));
        let rax = self.cpus[vcpu].gpr(Gpr::Rax);
        let told = |value: u32| Event::PortIo { write: !input, port, size: width, count: 1, value };
        let out = rax as u32 & mask;
        if !input {
            self.emit(vcpu, sink, told(out));
        }
        if !kernel {
            let (name, number) = userspace::IO;
            self.emit(vcpu, sink, Event::UserspaceExit { reason: name.into(), number });
        }
        let now = self.device_time(vcpu);
        let before = self.common.board.demands();
        if input {
            let value = self.common.board.port_read(port, width, now) & mask;
            // Bits 63:32 are cleared by a 32-bit IN, and kept by the narrower ones.
            let rax = if width == 4 { u64::from(value) } else { rax & !u64::from(mask) | u64::from(value) };
            self.cpus[vcpu].set_gpr(Gpr::Rax, rax);
            self.emit(vcpu, sink, told(value));
        } else {
            self.common.board.port_write(port, width, out, now);
        }
        // A device may have set a timer, raised a line or ended the run. Most accesses do nothing of it: whoever polls a status, say.
        self.common.look |= self.common.board.has_messages() || self.common.board.demands() != before;
        self.skip(vcpu, report.length)
    }
}
