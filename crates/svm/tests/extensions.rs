//! What later processors added: the filter of PAUSE, VMLOAD and VMSAVE by the guest itself, last-branch records of the guest's own.

mod common;

use assembler::{Bits, Options, assemble};
use common::{GUEST_CODE, Machine, VMCB, guest};
use cpu::RunExit;
use isa::svm::{ExitCode, Vmcb};
use models::{K8_REV_F, ZEN3};
use svm::Vmrun;

/// Runs a guest of assembly text to its first exit; VMMCALL is one.
fn first_exit(model: &'static models::CpuModel, source: &str, prepare: impl FnOnce(&mut Machine, &mut Vmcb)) -> (Machine, Vmcb, u64) {
    let mut machine = Machine::of(model);
    machine.cpu.rust_host = true;
    let options = Options { origin: GUEST_CODE, bits: Bits::ThirtyTwo, ..Options::default() };
    let program = assemble(&format!("{source}\nend: vmmcall"), &options).unwrap_or_else(|errors| panic!("{errors:?}"));
    machine.memory.write(GUEST_CODE, &program.bytes).unwrap();
    let mut vmcb = guest();
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    prepare(&mut machine, &mut vmcb);
    machine.set_vmcb(&vmcb);
    assert!(matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)));
    assert_eq!(machine.run(100_000), RunExit::HostEntry);
    let vmcb = machine.vmcb();
    let here = program.symbols.get("here").copied().unwrap_or(program.symbols["end"]);
    (machine, vmcb, here)
}

#[test]
fn the_filter_lets_as_many_pauses_pass_as_the_vmcb_says() {
    // Model, count, threshold, code: the exit is PAUSE at `here`, or else VMMCALL at the end.
    let wait = "mov ecx, 1000\nwait: dec ecx\njnz wait";
    let rows = [
        (&ZEN3, 0, 0, "here: pause\npause".to_owned(), true),
        (&ZEN3, 2, 0, "pause\npause\nhere: pause\npause".to_owned(), true),
        (&ZEN3, 3, 0, "pause\npause\npause".to_owned(), false),
        // A PAUSE long after the one before starts the count anew.
        (&ZEN3, 2, 100, format!("pause\npause\n{wait}\npause\npause\nhere: pause"), true),
        (&ZEN3, 2, 60_000, format!("pause\npause\n{wait}\nhere: pause\npause"), true),
        // A processor of 2006 has no filter.
        (&K8_REV_F, 2, 0, "here: pause\npause".to_owned(), true),
    ];
    for (model, count, threshold, source, exits) in rows {
        let (_, vmcb, here) = first_exit(model, &source, |_, vmcb| {
            vmcb.control.intercepts.set(ExitCode::PAUSE, true);
            vmcb.control.pause_filter_count = count;
            vmcb.control.pause_filter_threshold = threshold;
        });
        let expected = if exits { ExitCode::PAUSE } else { ExitCode::VMMCALL };
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (expected, here), "{} {count} {threshold}: {source}", model.name);
    }
}

#[test]
fn virtual_vmload_and_vmsave_exit_outside_64_bit_mode() {
    for (source, code) in [("vmload", ExitCode::VMLOAD), ("vmsave", ExitCode::VMSAVE)] {
        for (is_virtual, nested, expected) in [(true, true, code), (false, true, ExitCode::VMMCALL), (true, false, ExitCode::VMMCALL)] {
            let (_, vmcb, _) = first_exit(&ZEN3, source, |machine, vmcb| {
                vmcb.control.virtual_extensions = vmcb.control.virtual_extensions.with_virtual_vmload_vmsave(is_virtual);
                vmcb.control.nested_control = vmcb.control.nested_control.with_np_enable(nested);
                vmcb.control.n_cr3 = 0x8_0000;
                vmcb.save.rax = 0x5000;
                // One page of 1 GiB.
                machine.memory.write_u64(0x8_0000, 0x8_1007).unwrap();
                machine.memory.write_u64(0x8_1000, 0x87).unwrap();
            });
            assert_eq!(vmcb.control.exit_code, expected, "{source}: virtual {is_virtual}, nested {nested}");
        }
    }
}

#[test]
fn last_branches_are_the_guests_own_or_shared() {
    for (enabled, model) in [(true, &ZEN3), (false, &ZEN3), (true, &K8_REV_F)] {
        let own = enabled && model.name == "zen3";
        let (machine, vmcb, here) = first_exit(model, "here: jmp there\nnop\nthere:", |machine, vmcb| {
            vmcb.control.virtual_extensions = vmcb.control.virtual_extensions.with_lbr_virtualization(enabled);
            vmcb.save.debug_control = 1;
            machine.cpu.msrs.debugctl = 0;
        });
        let host = machine.cpu.last_branches.newest();
        let found = (vmcb.save.last_branch_from, vmcb.save.last_branch_to);
        if own {
            assert_eq!((found, vmcb.save.debug_control), ((here, vmcb.save.rip), 1));
            assert_eq!((host.from, host.to, machine.cpu.msrs.debugctl), (0, 0, 0), "the host's are untouched");
        } else {
            assert_eq!(found, (0, 0), "{}", model.name);
            assert_eq!((host.from, machine.cpu.msrs.debugctl), (0, 0), "nothing was recorded, and nothing switched");
        }
    }
}

#[test]
fn next_rip_is_behind_a_bound_whatever_its_operand() {
    for (bytes, length) in [
        ("0x62, 0x01", 2),
        ("0x62, 0x41, 0x10", 3),
        ("0x62, 0x84, 0xb1, 0x78, 0x56, 0x00, 0x00", 7),
        ("0x62, 0x05, 0x00, 0x50, 0x00, 0x00", 6),
        ("0x67, 0x62, 0x47, 0x10", 4),
        ("0x67, 0x62, 0x06, 0x00, 0x50", 5),
        ("0x66, 0x67, 0x62, 0x87, 0x00, 0x50", 6),
    ] {
        let (_, vmcb, _) = first_exit(&ZEN3, &format!("mov eax, -1\nhere: db {bytes}"), |_, vmcb| {
            vmcb.control.intercepts.set(ExitCode::EXCP_BR, true);
        });
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (ExitCode::EXCP_BR, GUEST_CODE + 5), "{bytes}");
        assert_eq!(vmcb.control.next_rip - vmcb.save.rip, length, "{bytes}");
    }
}

#[test]
fn rdpmc_reads_the_four_counters_and_faults_before_its_intercept() {
    for (number, code) in [(3, ExitCode::RDPMC), (4, ExitCode::EXCP_GP)] {
        let (_, vmcb, here) = first_exit(&ZEN3, &format!("mov ecx, {number}\nhere: rdpmc"), |_, vmcb| {
            vmcb.control.intercepts.set(ExitCode::RDPMC, true);
            vmcb.control.intercepts.set(ExitCode::EXCP_GP, true);
        });
        assert_eq!((vmcb.control.exit_code, vmcb.save.rip), (code, here));
    }
    let (machine, vmcb, _) = first_exit(&ZEN3, "mov ecx, 2\nrdpmc", |machine, _| machine.cpu.msrs.performance[6] = 0x1234_5678_9abc);
    assert_eq!((vmcb.save.rax, machine.cpu.gpr(isa::register::Gpr::Rdx)), (0x5678_9abc, 0x1234));
}

#[test]
fn int1_has_an_intercept_of_its_own() {
    // With the intercept of #DB alone it goes to the guest, which has no IDT.
    for (intercept, code) in [(ExitCode::EXCP_DB, ExitCode::SHUTDOWN), (ExitCode::ICEBP, ExitCode::ICEBP)] {
        let (_, vmcb, _) = first_exit(&ZEN3, "db 0xf1", |_, vmcb| {
            vmcb.control.intercepts.set(intercept, true);
            vmcb.control.intercepts.set(ExitCode::SHUTDOWN, true);
        });
        assert_eq!(vmcb.control.exit_code, code);
    }
}
