//! Registers into the state save area of the VMCB, and out of it.

use crate::state::Registers;
use isa::control::{Cr0, Cr4, Efer};
use isa::debug::{Dr6, Dr7};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::svm::SaveArea;

pub(super) fn fill_save_area(save: &mut SaveArea, registers: &Registers) {
    let [es, cs, ss, ds, fs, gs] = registers.segments;
    (save.es, save.cs, save.ss, save.ds) = (es.into(), cs.into(), ss.into(), ds.into());
    (save.fs, save.gs) = (fs.into(), gs.into());
    save.gdtr = registers.gdtr.into();
    save.idtr = registers.idtr.into();
    save.ldtr = registers.ldtr.into();
    save.tr = registers.tr.into();
    save.cpl = registers.cpl;
    save.efer = registers.efer.with_svme(true).into_bits();
    save.cr0 = registers.cr0.into_bits();
    save.cr2 = registers.cr2;
    save.cr3 = registers.cr3;
    save.cr4 = registers.cr4.into_bits();
    save.dr6 = registers.dr6.into_bits();
    save.dr7 = registers.dr7.into_bits() & 0xffff_ffff;
    save.rflags = registers.rflags.normalized().into_bits();
    save.rip = registers.rip;
    save.rsp = registers.gprs[Gpr::Rsp.number()];
    save.rax = registers.gprs[Gpr::Rax.number()];
    save.star = registers.msrs.star;
    save.lstar = registers.msrs.lstar;
    save.cstar = registers.msrs.cstar;
    save.sfmask = registers.msrs.fmask;
    save.kernel_gs_base = registers.msrs.kernel_gs_base;
    save.sysenter_cs = registers.msrs.sysenter_cs;
    save.sysenter_esp = registers.msrs.sysenter_esp & 0xffff_ffff;
    save.sysenter_eip = registers.msrs.sysenter_eip & 0xffff_ffff;
    save.g_pat = registers.msrs.pat;
}

pub(super) fn read_save_area(save: &SaveArea, registers: &mut Registers) {
    registers.segments = [save.es.into(), save.cs.into(), save.ss.into(), save.ds.into(), save.fs.into(), save.gs.into()];
    // APM table B-2: the privilege level has its own place, and SS need not agree with it.
    if registers.segments[Segment::Ss as usize].attributes.unusable() {
        let ss = &mut registers.segments[Segment::Ss as usize].attributes;
        *ss = ss.with_db(false).with_dpl(save.cpl);
    }
    registers.gdtr = save.gdtr.into();
    registers.idtr = save.idtr.into();
    registers.ldtr = save.ldtr.into();
    registers.tr = save.tr.into();
    registers.cpl = save.cpl;
    registers.efer = Efer::from_bits(save.efer).with_svme(false);
    registers.cr0 = Cr0::from_bits(save.cr0);
    registers.cr2 = save.cr2;
    registers.cr3 = save.cr3;
    registers.cr4 = Cr4::from_bits(save.cr4);
    registers.dr6 = Dr6::from_bits(save.dr6);
    registers.dr7 = Dr7::from_bits(save.dr7);
    registers.rflags = Rflags::from_bits(save.rflags);
    registers.rip = save.rip;
    // RAX and RSP are in the processor's registers since the last exit, and were perhaps changed there.
    registers.msrs.star = save.star;
    registers.msrs.lstar = save.lstar;
    registers.msrs.cstar = save.cstar;
    registers.msrs.fmask = save.sfmask;
    registers.msrs.kernel_gs_base = save.kernel_gs_base;
    registers.msrs.sysenter_cs = save.sysenter_cs;
    registers.msrs.sysenter_esp = save.sysenter_esp;
    registers.msrs.sysenter_eip = save.sysenter_eip;
    registers.msrs.pat = save.g_pat;
}
