//! SKINIT: the processor starts anew, in a secure loader.
//!
//! What is modelled: APM vol 2, 15.27.6 "SKINIT Operation": the processor as after INIT, in flat 32-bit protected mode without paging; GIF clear;
//! VM_CR with DPD, R_INIT and DIS_A20M set; the entry point from the first word of the secure loader block. No board here has a TPM, which SKINIT
//! does not wait for, nor a device that reads or writes memory by itself, from which the block would be protected.
//!
//! What is not: the handshake with other processors (15.27.8 "Secure Multiprocessor Initialization"), and SKINIT in a guest that nobody intercepts;
//! both end the run.

use cpu::state::Cpu;
use cpu::trap::{Outcome, Trap};
use isa::control::Cr0;
use isa::register::{Gpr, Segment};
use isa::segment::{Attributes, SegmentRegister, Selector};

use crate::Svm;

/// Bytes of the secure loader block, and its alignment.
const BLOCK: u64 = 0x1_0000;

impl Svm {
    /// SKINIT, all of whose checks have been made.
    pub(crate) fn skinit(&mut self, cpu: &mut Cpu) -> Outcome {
        if cpu.cpu_count > 1 {
            return Err(Trap::not_modelled("SKINIT with more than one processor"));
        }
        if cpu.guest_mode {
            return Err(Trap::not_modelled("SKINIT by a guest that is not intercepted"));
        }
        cpu.charge(cpu.model.costs.skinit.ticks());
        let base = cpu.gpr(Gpr::Rax) & 0xffff_ffff & !(BLOCK - 1);
        // What GIF held before is held on.
        let held = (cpu.nmi_pending, cpu.smi_pending, cpu.init_pending);
        cpu.init();
        (cpu.nmi_pending, cpu.smi_pending, cpu.init_pending) = held;
        cpu.cr0 = Cr0::from_bits(cpu.cr0.into_bits()).with_pe(true);
        let flat = |selector, attributes| SegmentRegister {
            selector: Selector::from_bits(selector),
            base: 0,
            limit: u32::MAX,
            attributes: Attributes::from_bits(attributes),
        };
        // "CS is read only", "SS is read/write and expand-up".
        cpu.segments[Segment::Cs as usize] = flat(8, 0xc09b);
        cpu.segments[Segment::Ss as usize] = flat(0x10, 0xc093);
        cpu.set_gpr(Gpr::Rax, base);
        cpu.set_gpr(Gpr::Rsp, (base + BLOCK) & 0xffff_ffff);
        cpu.rip = base + cpu.read_physical(base, 2);
        self.vm_cr = self.vm_cr.with_dpd(true).with_r_init(true).with_dis_a20m(true);
        self.clgi(cpu);
        self.contexts.forget();
        cpu.context_changed();
        Ok(())
    }
}
