//! The MSRs of SVM as RDMSR and WRMSR see them.

mod common;

use common::{Machine, VMCB, guest};
use cpu::extension::Extension;
use cpu::trap::Trap;
use isa::msr;

/// Writes an MSR; `None` where it is not one of SVM's.
fn write(machine: &mut Machine, index: u32, value: u64) -> Option<Result<(), Trap>> {
    machine.with(|svm, cpu| svm.write_msr(cpu, index, value))
}

fn read(machine: &mut Machine, index: u32) -> Option<Result<u64, Trap>> {
    machine.with(|svm, cpu| svm.read_msr(cpu, index))
}

const DONE: Option<Result<(), Trap>> = Some(Ok(()));
const REFUSED: Option<Result<(), Trap>> = Some(Err(Trap::GP0));

#[test]
fn reserved_bits_are_refused() {
    let cases = [
        (msr::VM_HSAVE_PA, 0x5000, DONE),
        (msr::VM_HSAVE_PA, 0x5008, REFUSED),
        (msr::VM_HSAVE_PA, 1 << 48, REFUSED),
        (msr::TSC_RATIO, 2 << 32 | 1, DONE),
        (msr::TSC_RATIO, 1 << 40, REFUSED),
        (msr::VM_CR, 0x8, DONE),
        (msr::VM_CR, 0x20, REFUSED),
        (msr::IA32_STAR, 0, None),
    ];
    for (index, value, expected) in cases {
        let mut machine = Machine::new();
        assert_eq!(write(&mut machine, index, value), expected, "{index:#x} {value:#x}");
        let left = if expected == DONE { Some(Ok(value)) } else { None };
        if left.is_some() {
            assert_eq!(read(&mut machine, index), left);
        }
    }
}

#[test]
fn svm_can_be_disabled_and_locked() {
    let mut machine = Machine::new();
    assert_eq!(write(&mut machine, msr::VM_CR, 0x10), REFUSED, "not while EFER.SVME is set");
    machine.cpu.efer = machine.cpu.efer.with_svme(false);
    assert_eq!(write(&mut machine, msr::VM_CR, 0x18), DONE);
    assert_eq!(write(&mut machine, msr::IA32_EFER, 0x1000), REFUSED);
    assert_eq!(write(&mut machine, msr::IA32_EFER, 0x500), None, "the rest of EFER is the core's");
    assert_eq!(write(&mut machine, msr::VM_CR, 0), DONE);
    assert_eq!(read(&mut machine, msr::VM_CR), Some(Ok(0x18)), "locked");
}

#[test]
fn a_processor_of_2006_has_no_tsc_ratio() {
    let mut machine = Machine::of(&models::K8_REV_F);
    assert_eq!(write(&mut machine, msr::TSC_RATIO, 1 << 32), None);
    assert_eq!(read(&mut machine, msr::TSC_RATIO), None);
}

#[test]
fn the_guest_counts_time_by_ratio_and_offset() {
    let mut machine = Machine::new();
    let mut vmcb = guest();
    vmcb.control.tsc_offset = 1_000_000;
    machine.set_vmcb(&vmcb);
    assert_eq!(write(&mut machine, msr::TSC_RATIO, 3 << 31), DONE);
    machine.cpu.set_now(4000 * 4);
    machine.with(|svm, cpu| {
        assert_eq!(cpu.time_stamp(), 4000);
        svm.vmrun(cpu, VMCB).unwrap();
        let own = cpu.cycles();
        assert_eq!(cpu.time_stamp(), own * 3 / 2 + 1_000_000);
        svm.exit(cpu, cpu::trap::Exit::Nmi);
        assert_eq!(cpu.time_stamp(), cpu.cycles());
    });
}
