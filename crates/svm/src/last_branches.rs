//! LBR virtualization: the guest's last-branch records and DebugCtl live in the VMCB.
//!
//! What is modelled: APM vol 2, 15.23 "Last Branch Record Virtualization": with the bit set, VMRUN keeps the host's registers and loads the
//! guest's, #VMEXIT does the reverse. Without it the registers are shared, as everything that no instruction switches.
//! What is not: the stack of records of later processors.

use cpu::last_branches::Branch;
use cpu::state::Cpu;
use isa::svm::SaveArea;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::Svm;
use crate::instructions::SAVE_AREA;

/// Where the five registers lie in the state save area.
const PLACE: std::ops::Range<usize> = 0x270..0x298;

/// DebugCtl, LastBranchFromIP and LastBranchToIP, LastIntFromIP and LastIntToIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    debugctl: u64,
    newest: Branch,
    before_exception: Branch,
}

impl Records {
    fn of(cpu: &Cpu) -> Self {
        Self { debugctl: cpu.msrs.debugctl, newest: cpu.last_branches.newest(), before_exception: cpu.last_branches.before_exception }
    }

    fn load_into(&self, cpu: &mut Cpu) {
        cpu.msrs.debugctl = self.debugctl;
        cpu.last_branches.set_newest(self.newest);
        cpu.last_branches.before_exception = self.before_exception;
    }

    fn from_area(save: &SaveArea, defined: u64) -> Self {
        let branch = |from, to| Branch { from, to, cycles: 0 };
        Self {
            debugctl: save.debug_control & defined,
            newest: branch(save.last_branch_from, save.last_branch_to),
            before_exception: branch(save.last_exception_from, save.last_exception_to),
        }
    }

    fn to_area(self, save: &mut SaveArea) {
        save.debug_control = self.debugctl;
        (save.last_branch_from, save.last_branch_to) = (self.newest.from, self.newest.to);
        (save.last_exception_from, save.last_exception_to) = (self.before_exception.from, self.before_exception.to);
    }
}

impl Svm {
    /// At VMRUN, if the guest has records of its own.
    pub(crate) fn load_last_branches(&mut self, cpu: &mut Cpu) {
        self.host_branches = None;
        let kept = std::mem::take(&mut self.branches_kept) && self.clean.last_branch();
        if !(self.capabilities.features.lbr_virtualization() && self.control.virtual_extensions.lbr_virtualization()) {
            return;
        }
        if !kept {
            cpu.read_physical_bytes(self.vmcb + SAVE_AREA + PLACE.start as u64, &mut self.save.as_mut_bytes()[PLACE]);
        }
        self.branches_kept = true;
        self.host_branches = Some(Records::of(cpu));
        Records::from_area(&self.save, cpu.model.last_branches.debugctl).load_into(cpu);
    }

    /// At #VMEXIT, the reverse.
    pub(crate) fn save_last_branches(&mut self, cpu: &mut Cpu) {
        let Some(host) = self.host_branches.take() else { return };
        Records::of(cpu).to_area(&mut self.save);
        cpu.write_physical_bytes(self.vmcb + SAVE_AREA + PLACE.start as u64, &self.save.as_bytes()[PLACE]);
        host.load_into(cpu);
    }
}
