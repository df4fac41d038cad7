//! The piece of Hyper-V's interface, on both vendors: its registers, its page and its calls.

mod common;

use board::loader::Mode;
use common::{Guest, Side, Story, VENDORS};
use hypervisor::{Options, Stop};

/// Where the guests want the page.
const PAGE: u64 = 0x4_0000;
const NAMED: &str = "mov ecx, 0x40000000\n mov eax, 0x81000000\n xor edx, edx\n wrmsr\n mov ecx, 0x40000001\n";

fn guest(source: &str) -> Guest<'_> {
    Guest { options: Options { hyperv: true, ..Options::default() }, ..Guest::new(source) }
}

fn halted(guest: &Guest<'_>, side: &Side) -> Story {
    let mut story = guest.on(side);
    assert_eq!(story.run(), Stop::Halted, "{}", story.text());
    story
}

/// The instruction and RET.
fn code(side: &Side) -> Vec<u8> {
    side.bytes.into_iter().chain([0xc3]).collect()
}

#[test]
fn the_page_is_written_once_the_system_has_a_name() {
    for side in VENDORS {
        let source = format!(
            "mov ecx, 0x40000001\n mov eax, {enabled}\n xor edx, edx\n wrmsr\n rdmsr\n mov r8, rax\n mov r9, [{PAGE}]
             {NAMED} mov eax, {enabled}\n wrmsr\n rdmsr\n mov r10, rax\n hlt",
            enabled = PAGE + 1
        );
        let mut story = halted(&guest(&source), &side);
        let registers = story.vm().registers(0).gprs;
        assert_eq!((registers[8], registers[9], registers[10]), (0, 0, PAGE + 1));
        assert_eq!(story.bytes(PAGE, 4), code(&side));
        assert_eq!(story.count("trapline_patch"), 1, "{}", story.text());
    }
}

#[test]
fn a_system_without_a_name_has_no_page_and_calls_are_kvms_again() {
    for side in VENDORS {
        let source = format!(
            "{NAMED} mov eax, {}\n wrmsr\n mov ecx, 0x40000000\n xor eax, eax\n wrmsr\n mov ecx, 0x40000001\n rdmsr\n mov r8, rax
             mov eax, 0x77\n NATIVE\n hlt",
            PAGE + 1
        );
        let mut story = halted(&guest(&source), &side);
        let registers = story.vm().registers(0).gprs;
        assert_eq!((registers[8], registers[0] as i64), (PAGE, -1000), "the page is disabled");
        assert_eq!((story.count("kvm_hypercall"), story.count("kvm_hv_hypercall")), (1, 0));
    }
}

#[test]
fn a_locked_register_stays_as_it_is() {
    for side in VENDORS {
        let source = format!("{NAMED} mov eax, {}\n wrmsr\n mov eax, 0x50001\n wrmsr\n xor eax, eax\n wrmsr\n rdmsr\n hlt", PAGE + 3);
        let mut story = halted(&guest(&source), &side);
        assert_eq!(story.rax(), PAGE + 3);
        assert_eq!(story.bytes(0x5_0000, 4), [0; 4]);
    }
}

/// A page beyond memory, and registers that a guest without the interface does not have.
#[test]
fn what_cannot_be_is_a_protection_fault() {
    let beyond = format!("{NAMED} mov eax, 1\n mov edx, 0x7fffffff\n wrmsr\n hlt");
    let read = "mov ecx, 0x40000000\n rdmsr\n hlt";
    for side in VENDORS {
        for (guest, line) in
            [(guest(&beyond), "msr_write 40000001 = 0x7fffffff00000001 (#GP)"), (Guest::new(read), "msr_read 40000000 = 0x0 (#GP)")]
        {
            let mut story = guest.on(&side);
            // There is no IDT.
            assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 });
            assert!(story.text().contains(line), "{}", story.text());
        }
    }
}

#[test]
fn outside_of_64_bit_mode_values_are_pairs_of_registers() {
    let source = "mov ecx, 0x40000000\n mov eax, 1\n xor edx, edx\n wrmsr
        mov eax, 0x10008\n NATIVE\n mov esi, eax\n mov edi, edx
        mov eax, 0x10008\n mov edx, 1\n NATIVE\n hlt";
    for side in VENDORS {
        let mut story = halted(&Guest { mode: Mode::Protected32, ..guest(source) }, &side);
        let registers = story.vm().registers(0).gprs;
        assert_eq!((registers[6], registers[7]), (0, 0), "HV_STATUS_SUCCESS");
        assert_eq!((registers[0], registers[2]), (3, 0), "repetitions of a call that has none: HV_STATUS_INVALID_HYPERCALL_INPUT");
        assert!(story.text().contains("kvm_hv_hypercall: code 0x8 fast var_cnt 0x0 rep_cnt 0x1 idx 0x0"), "{}", story.text());
    }
}

/// TLFS, "Legal Hypercall Environments".
#[test]
fn only_protected_mode_at_level_0_may_call() {
    let real = "mov word [0x18], handler\n mov word [0x1a], 0\n mov ecx, 0x40000000\n mov eax, 1\n xor edx, edx\n wrmsr\n NATIVE
        handler: hlt";
    let user = "mov ecx, 0xc0000080\n rdmsr\n or eax, 1\n wrmsr\n mov ecx, 0xc0000081\n xor eax, eax\n mov edx, 0x100000\n wrmsr
        mov ecx, 0x40000000\n mov eax, 1\n xor edx, edx\n wrmsr\n mov rcx, program\n mov r11d, 2\n o64 sysret\n program: NATIVE\n hlt";
    for side in VENDORS {
        for (mode, source) in [(Mode::Real16, real), (Mode::Long64, user)] {
            let mut story = Guest { mode, ..guest(source) }.on(&side);
            story.run();
            assert!(story.text().contains("kvm_inj_exception: #UD"), "{}", story.text());
            assert_eq!(story.count("kvm_hv_hypercall"), 0);
        }
    }
}

#[test]
fn a_move_writes_the_page_anew() {
    for (side, other) in [(VENDORS[0], VENDORS[1]), (VENDORS[1], VENDORS[0])] {
        let source = format!("{NAMED} mov eax, {}\n wrmsr\n hlt", PAGE + 1);
        let mut story = halted(&guest(&source), &side);
        let (vm, _) = story.vm.take().unwrap().migrate(other.model, None, &mut story.trace).unwrap();
        story.vm = Some(vm);
        assert_eq!(story.bytes(PAGE, 4), code(&other));
        assert_eq!(story.count("trapline_patch"), 2);
    }
}
