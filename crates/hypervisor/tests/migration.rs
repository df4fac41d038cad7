//! Guests that move between vendors while they run.

mod common;

use common::{Guest, VENDORS};
use hypervisor::guest_cpu::Levelling;
use hypervisor::ledger::Verdict;
use hypervisor::{AnyVm, CreateError, Moment, Options, Paging, Policy, Stop, VmConfig, check_model};
use isa::cpuid::Feature;
use models::{K8_REV_F, MEROM, SKYLAKE_SERVER, Vendor, ZEN3};

/// Calls at one site for ever, counting in R12; the results add up in R13.
const PING_PONG: &str = "again: mov eax, 1\n site: NATIVE\n add r13, rax\n inc r12\n jmp again";

fn other(model: &'static models::CpuModel) -> &'static models::CpuModel {
    if model.vendor == Vendor::Intel { &ZEN3 } else { &SKYLAKE_SERVER }
}

#[test]
fn m1_ping_pong_patches_once_a_hop() {
    for side in VENDORS {
        let mut story = Guest::new(PING_PONG).on(&side);
        let site = story.label("site");
        let original = story.bytes(site, 3);
        let mut model = side.model;
        for hop in 0..6_u64 {
            let calls = story.vm().statistics().hypercalls + 4;
            let pause = story.vm().pause_at(Moment::Hypercall(calls));
            assert_eq!(story.run(), Stop::Paused(pause), "hop {hop} {}", story.text());
            assert_eq!(story.vm().statistics().patches, hop);
            if hop % 2 == 0 {
                assert_eq!(story.bytes(site, 3), original, "hop {hop}");
            } else {
                assert_ne!(story.bytes(site, 3), original, "hop {hop}");
            }
            model = other(model);
            let ledger = story.migrate(model);
            assert_eq!(story.vm().model().name, model.name);
            assert!(ledger.iter().all(|line| !line.contains("lost") || line.contains("CPUID tells of what")), "{ledger:?}");
        }
        let gprs = story.vm().registers(0).gprs;
        assert_eq!(gprs[13], 0);
        assert!(gprs[12] >= 23, "{gprs:?}");
        assert_eq!(story.count("trapline_migrate"), 6);
    }
}

#[test]
fn m3_without_the_quirk_the_moved_guest_gets_ud() {
    for side in VENDORS {
        let mut story = Guest::new(PING_PONG).policy(Policy::QuirkOff).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(2));
        assert_eq!(story.run(), Stop::Paused(pause));
        story.migrate(other(side.model));
        assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "{}", story.text());
        assert!(story.lines().contains(&"kvm_inj_exception: #UD".to_owned()));
    }
}

#[test]
fn a_guest_that_runs_is_fetched_out() {
    for side in VENDORS {
        let mut story = Guest::new("spin: inc r12\n jmp spin").on(&side);
        let pause = story.vm().pause_at(Moment::Instruction(1000));
        assert_eq!(story.run(), Stop::Paused(pause));
        story.migrate(other(side.model));
        let reason = if side.model.vendor == Vendor::Intel { "EXTERNAL_INTERRUPT" } else { "interrupt" };
        assert_eq!(story.exits(), [reason], "{}", story.text());
        let before = story.vm().instructions();
        let pause = story.vm().pause_at(Moment::Instruction(before + 100));
        assert_eq!(story.run(), Stop::Paused(pause));
        assert!(story.vm().registers(0).gprs[12] > 500);
    }
}

#[test]
fn registers_arrive_and_losses_are_told() {
    let text = r"
        mov rax, cr4
        bts rax, 9
        mov cr4, rax
        mov rbx, 0x1122334455667788
        movq xmm3, rbx
        mov ax, 0x10
        mov ss, ax
        mov ecx, 0xc0000102
        mov eax, 0x1000
        xor edx, edx
        wrmsr
        mov eax, 1
        NATIVE
        stop: hlt
    ";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(1));
        assert_eq!(story.run(), Stop::Paused(pause));
        let before = story.vm().registers(0);
        let ledger = story.migrate(other(side.model));
        let after = story.vm().registers(0);
        for tag in before.differences(&after) {
            assert!(ledger.iter().any(|line| line.starts_with(tag)), "{tag} is not in {ledger:?}: {before:?} {after:?}");
        }
        assert_eq!((after.msrs.kernel_gs_base, after.xmm[3][0], after.gprs[3]), (0x1000, 0x1122_3344_5566_7788, 0x1122_3344_5566_7788));
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let line = story.lines().into_iter().find(|line| line.starts_with("trapline_migrate")).unwrap();
        assert!(line.contains(side.model.name), "{line}");
    }
}

#[test]
fn events_that_wait_move_along() {
    let text = "mov eax, 1\n NATIVE\n hlt\n mov r12d, 7\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(1));
        assert_eq!(story.run(), Stop::Paused(pause));
        story.vm().nmi(0);
        story.migrate(other(side.model));
        // There is no IDT: the NMI that arrived before the move kills the guest behind it.
        assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "{}", story.text());
        assert_eq!(story.vm().registers(0).gprs[12], 0);
    }
}

#[test]
fn the_time_stamp_counter_goes_on() {
    let text = "rdtsc\n mov r8, rax\n mov eax, 1\n NATIVE\n rdtsc\n mov r9, rax\n mov ecx, 0x10\n rdmsr\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(1));
        assert_eq!(story.run(), Stop::Paused(pause));
        story.migrate(other(side.model));
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let gprs = story.vm().registers(0).gprs;
        assert!(gprs[8] < gprs[9] && gprs[9] < gprs[0] && gprs[0] < 10_000_000, "{gprs:x?}");
    }
}

#[test]
fn models_without_nested_paging_have_shadow_paging() {
    let with = |model, paging| VmConfig { options: Options { paging, ..Options::default() }, ..VmConfig::new(model) };
    for model in [&MEROM, &K8_REV_F] {
        let error = AnyVm::new(&with(model, Some(Paging::Nested))).unwrap_err();
        assert!(matches!(error, CreateError::Unfit(_)) && error.to_string().contains("nested paging"), "{error}");
        assert!(check_model(model, Some(Paging::Nested)).is_err() && check_model(model, None).is_ok());
        assert_eq!(AnyVm::new(&with(model, None)).unwrap().paging(), Paging::Shadow);
    }
    for model in [&SKYLAKE_SERVER, &ZEN3] {
        assert_eq!(AnyVm::new(&with(model, None)).unwrap().paging(), Paging::Nested);
        assert_eq!(AnyVm::new(&with(model, Some(Paging::Shadow))).unwrap().paging(), Paging::Shadow);
    }
    let large = VmConfig { memory_size: 3 << 30, ..with(&ZEN3, Some(Paging::Shadow)) };
    let error = AnyVm::new(&large).unwrap_err();
    assert!(error.to_string().contains("4 GiB"), "{error}");
}

#[test]
fn impossible_guests_are_refused() {
    let base = VmConfig::new(&ZEN3);
    assert!(matches!(AnyVm::new(&VmConfig { memory_size: 0, ..base.clone() }), Err(CreateError::MemorySize(0))));
    assert!(matches!(AnyVm::new(&VmConfig { memory_size: u64::MAX, ..base.clone() }), Err(CreateError::MemorySize(_))));
    assert!(matches!(AnyVm::new(&VmConfig { cpu_count: 0, ..base.clone() }), Err(CreateError::CpuCount(0))));
    assert!(matches!(AnyVm::new(&VmConfig { cpu_count: 1000, ..base }), Err(CreateError::CpuCount(1000))));
}

/// On either vendor the hypervisor sees XSETBV and writes of CR4, and follows the guest's CPUID.
#[test]
fn what_is_not_told_of_cannot_be_turned_on() {
    const OSXSAVE: &str = "mov rax, cr4\n or eax, 0x40000\n mov cr4, rax\n";
    let xcr0 = format!("{OSXSAVE} xor ecx, ecx\n xor edx, edx\n mov eax, 0x203\n xsetbv\n mov r12d, 7\n hlt");
    let cr4 = format!("{OSXSAVE} or eax, 0x400000\n mov cr4, rax\n mov r12d, 7\n hlt");
    let umip = "mov rax, cr4\n or eax, 0x800\n mov cr4, rax\n mov r12d, 7\n hlt";
    for side in VENDORS {
        for text in [&xcr0, &cr4] {
            let mut story = Guest::new(text).on(&side);
            assert_eq!(story.run(), Stop::Halted, "{}", story.text());
            assert_eq!(story.vm().registers(0).gprs[12], 7);
            let without = Guest { levelling: Levelling::NONE.without(Feature::Pku), ..Guest::new(text) };
            let mut story = without.on(&side);
            assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "{}", story.text());
            assert!(story.lines().contains(&"kvm_inj_exception: #GP (0x0)".to_owned()), "{}", story.text());
        }
        let mut story = Guest::new(umip).on(&side);
        assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "no guest is told of UMIP: {}", story.text());
    }
}

/// Protection keys belong to the guest: another one's do not show, and they move along.
#[test]
fn protection_keys_move_along() {
    let text = "mov rax, cr4\n or eax, 0x400000\n mov cr4, rax\n xor ecx, ecx\n xor edx, edx\n mov eax, 0x30\n wrpkru\n mov eax, 1\n NATIVE\n rdpkru\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(1));
        assert_eq!(story.run(), Stop::Paused(pause));
        assert_eq!(story.vm().registers(0).pkru, 0x30);
        let gprs = story.vm().registers(0).gprs;
        assert_eq!(gprs[2], 0);
        story.migrate(other(side.model));
        let mut registers = story.vm().registers(0);
        registers.gprs[1] = 0;
        story.vm().set_registers(0, &registers);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.rax(), 0x30);
    }
}

/// A check tells what the move then tells, and the guest does not notice.
#[test]
fn a_check_foretells_the_move() {
    for side in VENDORS {
        let mut story = Guest::new(PING_PONG).on(&side);
        let pause = story.vm().pause_at(Moment::Hypercall(3));
        assert_eq!(story.run(), Stop::Paused(pause));
        let (exits, before) = (story.trace.len(), story.vm().registers(0));
        let check = story.vm().check(other(side.model));
        assert_eq!((story.trace.len(), story.vm().registers(0)), (exits, before));
        assert!(!check.is_safe() && check.unfit.is_none(), "{check:?}");
        assert!(!check.levelling.is_empty());
        let ledger = story.migrate(other(side.model));
        for entry in check.now.iter().chain(check.possible.iter().filter(|entry| !matches!(entry.tag, "behaviour" | "feature"))) {
            assert!(ledger.contains(&entry.to_string()), "{entry} is not in {ledger:?}");
        }
        // Told of what both have, the guest misses nothing.
        let levelling = Levelling::NONE.common(side.model).common(other(side.model));
        let mut story = Guest { levelling, ..Guest::new(PING_PONG) }.on(&side);
        let check = story.vm().check(other(side.model));
        assert!(check.possible.iter().all(|entry| entry.tag != "feature" && entry.verdict != Verdict::Lost), "{check:?}");
    }
    let mut story = Guest::new("hlt").on(&VENDORS[0]);
    assert!(story.vm().check(&K8_REV_F).unfit.is_none());
    let options = Options { paging: Some(Paging::Nested), ..Options::default() };
    let mut story = Guest { options, ..Guest::new("hlt") }.on(&VENDORS[0]);
    assert!(story.vm().check(&K8_REV_F).unfit.is_some());
}
