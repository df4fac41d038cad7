//! The silicon as the core sees it.
//!
//! What is modelled: the core's questions, each answered in the module that owns the subject. What is not: VMX instructions, which are #UD.

use cpu::extension::{AfterExit, Completion, Extension, NestedAccess, NestedPage};
use cpu::state::Cpu;
use cpu::trap::{ControlAccess, Exit, NestedFault, Outcome, PortAccess, VendorInstruction};
use isa::svm::{IoPermissions, MsrPermissions};

use crate::memory::PhysicalTables;
use crate::npt::Walk;
use crate::{Svm, intercept};

impl Extension for Svm {
    fn execute(&mut self, cpu: &mut Cpu, instruction: &VendorInstruction) -> Outcome<Completion> {
        self.instruction(cpu, instruction)
    }

    fn exit(&mut self, cpu: &mut Cpu, exit: Exit) -> AfterExit {
        self.leave(cpu, exit)
    }

    fn read_msr(&mut self, _: &Cpu, index: u32) -> Option<Outcome<u64>> {
        self.msr_read(index)
    }

    fn write_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Outcome> {
        self.msr_write(cpu, index, value)
    }

    fn intercepts_port(&mut self, cpu: &Cpu, access: &PortAccess) -> bool {
        let permissions = IoPermissions::of(access.port, access.width);
        let mut bytes = [0; 2];
        cpu.read_physical_bytes((self.control.iopm_base_pa & !0xfff) + permissions.offset, &mut bytes);
        permissions.intercepts(bytes)
    }

    fn intercepts_msr(&mut self, cpu: &Cpu, index: u32, write: bool) -> bool {
        let Some(permissions) = MsrPermissions::of(index) else { return true };
        let mut byte = [0; 1];
        cpu.read_physical_bytes((self.control.msrpm_base_pa & !0xfff) + permissions.offset, &mut byte);
        permissions.intercepts(byte[0], write)
    }

    fn control_access(&mut self, cpu: &Cpu, access: &ControlAccess) -> Result<u64, cpu::extension::Exits> {
        match intercept::control_access(&self.control.intercepts, cpu.cr0, access) {
            Some(_) => Err(cpu::extension::Exits),
            None => Ok(access.value),
        }
    }

    fn translate(&mut self, cpu: &mut Cpu, guest_physical: u64, access: NestedAccess) -> Result<NestedPage, NestedFault> {
        let walk = Walk { access: access.access, table_walk: access.table_walk, user: access.user, linear: access.linear };
        match self.nested {
            Some(root) => root.translate(&mut PhysicalTables(cpu), guest_physical, walk),
            // The core asks only while `nested_paging` is set, which is set with `nested`.
            None => Ok(NestedPage { physical: guest_physical, bytes: 4096, readable: true, writable: true, executable: true }),
        }
    }

    fn intercepts_pause(&mut self, cpu: &Cpu) -> bool {
        self.pause_exits(cpu)
    }

    fn allows_control(&self, _: &Cpu, _: u8, _: u64) -> bool {
        true
    }

    fn blocks_init(&self, _: &Cpu) -> bool {
        !self.gif
    }

    fn redirects_init(&self) -> bool {
        self.vm_cr.r_init()
    }

    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
