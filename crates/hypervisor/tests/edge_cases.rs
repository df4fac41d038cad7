//! Edge cases of patching: what happens where the text cannot be written, where RIP is no linear address, where flags and prefixes get in
//! the way. Each row is a guest, and what must be seen.

mod common;

use board::loader::Mode;
use common::{BASE, Guest, Side, Story, VENDORS};
use hypervisor::{Options, Policy, Rights, Stop};
use models::{SKYLAKE_SERVER, Vendor, ZEN3};

/// 64-bit exception handlers that store vector, error code, CR2 and RIP of the first exception at 0x9000 and stop. The page of the
/// text that holds `site` can be made read-only; `user` enters CPL 3.
const PRELUDE: &str = r"
    idt equ 0x8000
    seen equ 0x9000
    jmp start
    %define_handlers
    stop: mov [seen], rax
    mov rax, cr2
    mov [seen+16], rax
    mov qword [seen+32], 1
    cli
    hlt
    start: mov rsp, 0x7ff0
";

/// Handlers of the vectors that matter, and a loop that fills the IDT.
fn with_handlers(body: &str) -> String {
    let mut handlers = String::new();
    let mut fill = String::new();
    for vector in [1_u32, 3, 6, 8, 13, 14, 32] {
        let has_code = matches!(vector, 8 | 13 | 14);
        let code = if has_code { "pop qword [seen+8]\n" } else { "mov qword [seen+8], 0xffff\n" };
        handlers += &format!("handler{vector}: mov r15, rax\n {code} pop qword [seen+24]\n mov eax, {vector}\n jmp stop\n");
        fill += &format!(
            "mov rax, handler{vector}\n mov [idt+{at}], ax\n mov word [idt+{at}+2], 8\n mov word [idt+{at}+4], 0x8e00\n shr rax, 16\n mov [idt+{at}+6], ax\n shr rax, 16\n mov [idt+{at}+8], eax\n",
            at = vector * 16
        );
    }
    let prelude = PRELUDE.replace("%define_handlers", &handlers);
    format!("{prelude}{fill} lidt [idtr]\n jmp body\n idtr: dw 0xfff\n dq idt\n body:\n{body}\n cli\n hlt\n")
}

/// The exception that the guest's handler saw: vector, error code, CR2, RIP.
fn seen(story: &mut Story) -> Option<(u64, u64, u64, u64)> {
    let words: Vec<u64> = story.bytes(0x9000, 40).chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
    (words[4] == 1).then(|| (words[0], words[1], words[2], words[3]))
}

const NO_CODE: u64 = 0xffff;

fn run(body: &str, side: &Side, policy: Policy) -> Story {
    let text = with_handlers(body);
    let mut story = Guest::new(&text).policy(policy).on(side);
    let stop = story.run();
    assert_eq!(stop, Stop::Halted, "{}", story.text());
    story
}

/// Makes the page of `site` read-only in the guest's own tables: a 2-MiB page is split into a page table at 0xa000.
const PROTECT: &str = r"
    mov rdi, 0xa000
    mov rax, 0x000003
    mov ecx, 512
    .fill: mov [rdi], rax
    add rax, 0x1000
    add rdi, 8
    dec ecx
    jnz .fill
    mov rax, text
    shr rax, 12
    and qword [0xa000+rax*8], -3
    mov qword [0x3000], 0xa003
    mov rax, cr3
    mov cr3, rax
    jmp text
    align 4096
    text: mov eax, 1
    site: FOREIGN
    cli
    hlt
    align 4096
";

#[test]
fn e3_and_e14_are_undefined_opcodes_and_touch_nothing() {
    for side in VENDORS {
        for (body, policy) in
            [("mov eax, 1\n site: FOREIGN", Policy::QuirkOff), ("mov eax, 1\n site: db 0xf0\n FOREIGN", Policy::TrapAndPatch)]
        {
            let mut story = run(body, &side, policy);
            let site = story.label("site");
            assert_eq!(seen(&mut story), Some((6, NO_CODE, 0, site)), "{}", story.text());
            assert_eq!(story.count("trapline_patch"), 0);
        }
    }
}

#[test]
fn e7_and_e8_read_only_text_follows_cr0_wp() {
    for side in VENDORS {
        let mut story = run(PROTECT, &side, Policy::TrapAndPatch);
        let site = story.label("site");
        assert_eq!(seen(&mut story), Some((14, 3, site, site)), "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 0);
        assert!(story.lines().contains(&"kvm_inj_exception: #PF (0x3)".to_owned()), "{}", story.text());

        let without = format!("mov rax, cr0\n btr rax, 16\n mov cr0, rax\n{PROTECT}");
        let mut story = run(&without, &side, Policy::TrapAndPatch);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 1);

        let mut story = run(PROTECT, &side, Policy::PatchOrUd);
        let site = story.label("site");
        assert_eq!(seen(&mut story), Some((6, NO_CODE, 0, site)), "{}", story.text());
    }
}

/// E10 to E12: a call over a page boundary; which of the two pages cannot be written.
#[test]
fn e10_to_e12_a_call_over_two_pages() {
    let text = |protect: &str| {
        PROTECT
            .replace("mov rax, text\n    shr rax, 12\n    and qword [0xa000+rax*8], -3", protect)
            .replace("text: mov eax, 1\n    site: FOREIGN", "text: mov eax, 1\n jmp site\n times 4096-2-($-text) nop\n site: FOREIGN")
    };
    let first = "mov rax, text\n shr rax, 12\n and qword [0xa000+rax*8], -3";
    let second = "mov rax, text+4096\n shr rax, 12\n and qword [0xa000+rax*8], -3";
    for side in VENDORS {
        let mut story = run(&text(""), &side, Policy::TrapAndPatch);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 2);

        let mut story = run(&text(second), &side, Policy::TrapAndPatch);
        let site = story.label("site");
        assert_eq!(seen(&mut story), Some((14, 3, site + 2, site)), "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 1);
        assert_ne!(story.bytes(site, 3), side.bytes);

        let mut story = run(&text(first), &side, Policy::TrapAndPatch);
        let site = story.label("site");
        assert_eq!(seen(&mut story), Some((14, 3, site, site)), "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 0);
    }
}

/// Enters CPL 3 at `user`: the text is user-accessible in the loader's tables.
const TO_USER: &str = r"
    lgdt [gdtr]
    mov rax, tss
    mov [gdt+48+2], ax
    shr rax, 16
    mov [gdt+48+4], al
    mov [gdt+48+7], ah
    mov qword [tss+4], 0x7f00
    mov ax, 48
    ltr ax
    push 0x23
    push 0x7800
    push 2
    push 0x2b
    mov rax, user
    push rax
    iretq
    align 16
    gdtr: dw 63
    dq gdt
    gdt: dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
    dq 0x0000890000000067, 0
    tss: times 104 db 0
    user: mov eax, 1
    site: %s
    int3
";

#[test]
fn e4_to_e6_calls_of_user_programs() {
    for side in VENDORS {
        // E6: native; the exit is taken and refused.
        let mut story = run(&TO_USER.replace("%s", "NATIVE"), &side, Policy::TrapAndPatch);
        assert_eq!(seen(&mut story).map(|seen| seen.0), Some(13), "INT3 from CPL 3 through a gate of DPL 0: {}", story.text());
        assert_eq!(story.vm().registers(0).gprs[15], u64::MAX, "-EPERM");
        assert_eq!(story.count("kvm_hypercall"), 1);

        let mut story = run(&TO_USER.replace("%s", "FOREIGN"), &side, Policy::TrapAndPatch);
        let site = story.label("site");
        if side.model.vendor == Vendor::Amd {
            // E4: VMCALL is privileged to the emulator.
            assert_eq!(seen(&mut story), Some((13, 0, 0, site)), "{}", story.text());
            assert_eq!(story.count("trapline_patch"), 0);
        } else {
            // E5: VMMCALL is patched, as the page is the user's own, and then refused.
            assert_eq!(story.count("trapline_patch"), 1, "{}", story.text());
            assert_eq!(story.vm().registers(0).gprs[15], u64::MAX, "-EPERM");
        }
        // E4 with the quirk off: the check of privilege comes first.
        let mut story = run(&TO_USER.replace("%s", "FOREIGN"), &side, Policy::QuirkOff);
        let expected = if side.model.vendor == Vendor::Amd { 13 } else { 6 };
        assert_eq!(seen(&mut story).map(|seen| seen.0), Some(expected));
    }
}

#[test]
fn e13_the_last_canonical_bytes() {
    // Page tables at 0xb000: the last page below the hole leads to the page of `page`.
    let body = r"
        mov qword [0x1000+255*8], 0xb003
        mov qword [0xb000+511*8], 0xc003
        mov qword [0xc000+511*8], 0xd003
        mov rax, page
        or rax, 3
        mov [0xd000+511*8], rax
        mov eax, 1
        mov rbx, 0x7ffffffffffd
        jmp rbx
        align 4096
        page: times 4093 nop
        FOREIGN
    ";
    for side in VENDORS {
        let mut story = run(body, &side, Policy::TrapAndPatch);
        assert_eq!(seen(&mut story), Some((13, 0, 0, 0x8000_0000_0000)), "{}", story.text());
        assert_eq!(story.count("kvm_hypercall"), 1);
        assert_eq!(story.vm().registers(0).gprs[15], 0);
    }
}

#[test]
fn e15_a_prefix_is_overwritten_and_the_stream_corrupt() {
    for side in VENDORS {
        let mut story = Guest::new("mov eax, 1\n site: db 0x48\n FOREIGN\n hlt").on(&side);
        // What follows the native call is its old last byte, and then HLT: c1 f4 .. or d9 f4 ...
        let _ = story.run();
        let site = story.label("site");
        let mut expected = side.bytes.to_vec();
        expected.push(if side.model.vendor == Vendor::Amd { 0xc1 } else { 0xd9 });
        assert_eq!(story.bytes(site, 4), expected, "{}", story.text());
    }
}

#[test]
fn e16_a_base_of_cs_makes_the_patch_miss_for_ever() {
    // Real mode with CS = 0x100: RIP as a linear address is 0x1000 lower than the text.
    let text = "jmp 0x700:there-0x7000\n there: mov eax, 1\n site: vmcall\n hlt";
    let side = VENDORS[1];
    let mut story = Guest { mode: Mode::Real16, options: Options { livelock: 50, ..Options::default() }, ..Guest::new(text) }.on(&side);
    let stop = story.run();
    let rip = story.label("site") - 0x7000;
    assert!(matches!(&stop, Stop::Livelock { rip: at, reason, .. } if *at == rip && reason == "UD excp"), "{stop:?} {}", story.text());
    assert_eq!(story.bytes(rip, 3), [0x0f, 0x01, 0xd9], "the wrong bytes are overwritten");
}

#[test]
fn e17_and_e18_real_mode() {
    let text = "mov eax, 1\n mov ebx, 7\n site: FOREIGN\n hlt";
    for side in VENDORS {
        let mut story = Guest { mode: Mode::Real16, ..Guest::new(text) }.on(&side);
        let stop = story.run();
        if side.model.vendor == Vendor::Amd {
            assert_eq!(stop, Stop::Halted, "{}", story.text());
            assert_eq!(story.count("kvm_hypercall"), 1);
        } else {
            // #UD goes through the real-mode vector 6, which is zero and leads into zeros.
            assert_eq!(story.count("trapline_patch"), 0, "{}", story.text());
            assert!(story.lines().iter().any(|line| line == "kvm_inj_exception: #UD"), "{}", story.text());
        }
    }
}

#[test]
fn e19_text_in_a_read_only_slot_loops() {
    for side in VENDORS {
        let text = "jmp site\n align 4096\n site: FOREIGN\n hlt";
        let mut story = Guest { options: Options { livelock: 20, ..Options::default() }, ..Guest::new(text) }.on(&side);
        let site = story.label("site");
        story.vm().protect(site..site + 0x1000, Rights::ReadOnly).unwrap();
        let stop = story.run();
        assert!(matches!(stop, Stop::Livelock { rip, .. } if rip == site), "{stop:?} {}", story.text());
        let value = u64::from_le_bytes([side.bytes[0], side.bytes[1], side.bytes[2], 0, 0, 0, 0, 0]);
        assert!(story.lines().contains(&format!("kvm_mmio: mmio write len 3 gpa {site:#x} val {value:#x}")), "{}", story.text());
        assert!(story.lines().contains(&"kvm_userspace_exit: reason KVM_EXIT_MMIO (6)".to_owned()));
        assert_eq!(story.count("trapline_patch"), 0);
    }
}

#[test]
fn e23_a_single_step_stops_at_the_call() {
    let body = "mov eax, 1\n pushfq\n or qword [rsp], 0x100\n popfq\n site: FOREIGN";
    for side in VENDORS {
        let mut story = run(body, &side, Policy::TrapAndPatch);
        let site = story.label("site");
        let seen = seen(&mut story).unwrap();
        assert_eq!((seen.0, seen.3), (1, site), "{}", story.text());
        assert_eq!((story.count("trapline_patch"), story.count("kvm_hypercall")), (1, 0));
    }
}

#[test]
fn e24_the_shadow_of_sti_is_consumed() {
    let body = "mov edi, 0xfee00000\n mov dword [rdi+0xf0], 0x1ff\n mov dword [rdi+0x300], 0x44020\n mov eax, 1\n sti\n site: %s\n after: nop\n nop";
    for side in VENDORS {
        // The interrupt waits; with the native call it is taken behind it, with the foreign one before it.
        let mut native = run(&body.replace("%s", "NATIVE"), &side, Policy::TrapAndPatch);
        let after = native.label("after");
        assert_eq!(seen(&mut native).map(|seen| (seen.0, seen.3)), Some((32, after)), "{}", native.text());
        let mut foreign = run(&body.replace("%s", "FOREIGN"), &side, Policy::TrapAndPatch);
        let site = foreign.label("site");
        assert_eq!(seen(&mut foreign).map(|seen| (seen.0, seen.3)), Some((32, site)), "{}", foreign.text());
    }
}

#[test]
fn e25_forced_emulation_rewrites_the_native_call_with_itself() {
    for side in VENDORS {
        let text = with_handlers("mov eax, 1\n db 0x0f, 0x0b, 'kvm'\n site: NATIVE");
        let options = Options { force_emulation_prefix: true, ..Options::default() };
        let mut story = Guest { options, ..Guest::new(&text) }.on(&side);
        assert_eq!(story.run(), Stop::Halted);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        let site = story.label("site");
        let bytes: Vec<String> = side.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("trapline_patch: gpa {site:#x} {0} -> {0}", bytes.join(" "));
        assert!(story.lines().contains(&line), "{}", story.text());
        assert_eq!(story.count("kvm_hypercall"), 1);
    }
}

#[test]
fn e31_is_no_story_on_processors_with_unrestricted_guests() {
    // Real mode is valid guest state on both; nothing loops.
    for side in VENDORS {
        let mut story = Guest { mode: Mode::Real16, ..Guest::new("mov eax, 1\n NATIVE\n hlt") }.on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
    }
}

#[test]
fn e32_an_unknown_number_in_either_width() {
    for side in VENDORS {
        let mut story = Guest::new("mov eax, 99\n NATIVE\n hlt").on(&side);
        story.run();
        assert_eq!(story.rax(), 0xffff_ffff_ffff_fc18);
        let mut story = Guest { mode: Mode::Protected32, ..Guest::new("mov eax, 99\n NATIVE\n hlt") }.on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.rax(), 0xffff_fc18);
    }
}

#[test]
fn e34_a_hidden_feature_is_enforced_only_when_asked() {
    for side in VENDORS {
        for (enforce_features, expected) in [(false, 0), (true, -1000_i64 as u64)] {
            let options = Options { hidden_features: 1 << 13, enforce_features, ..Options::default() };
            let mut story = Guest { options, ..Guest::new("mov eax, 11\n xor ebx, ebx\n NATIVE\n hlt") }.on(&side);
            story.run();
            assert_eq!(story.rax(), expected);
        }
    }
}

#[test]
fn e35_the_first_result_of_2007_is_lost() {
    for side in VENDORS {
        let text = "mov eax, 5\n FOREIGN\n mov r8, rax\n mov eax, 5\n NATIVE\n mov r9, rax\n hlt";
        let mut story = Guest::new(text).policy(Policy::Classic2007).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let registers = story.vm().registers(0);
        assert_eq!((registers.gprs[8], registers.gprs[9]), (5, -1000_i64 as u64), "{}", story.text());
        assert_eq!((story.count("trapline_zap"), story.count("trapline_patch"), story.count("kvm_hypercall")), (1, 1, 2));
        assert_eq!(story.exits()[..2], [side.ud_reason, if side.model.vendor == Vendor::Amd { "npf" } else { "EPT_VIOLATION" }]);
    }
}

/// VMMCALL on Intel is patched, and RIP goes on: RAX still holds the number, and nobody was called. VMCALL on AMD is executed again.
#[test]
fn e35_the_first_call_is_skipped_on_intel_until_2015() {
    for side in VENDORS {
        let skips = side.model.vendor == Vendor::Intel;
        let text = "mov ecx, 2\n again: mov eax, 1\n site: FOREIGN\n push rax\n dec ecx\n jnz again\n hlt";
        let mut story = Guest::new(text).policy(Policy::SkipFirstCall).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let rsp = story.vm().registers(0).gprs[4];
        let results = [rsp + 8, rsp].map(|at| u64::from_le_bytes(story.bytes(at, 8).try_into().unwrap()));
        assert_eq!(results, [u64::from(skips), 0], "{}", story.text());
        assert_eq!((story.count("trapline_patch"), story.count("kvm_hypercall")), (1, 2 - usize::from(skips)), "{}", story.text());
    }
}

/// The patch goes by the rights of the guest there too, and a trap of a single step comes behind the skipped call.
#[test]
fn the_skipped_call_faults_and_traps_as_an_instruction_that_was_executed() {
    for side in VENDORS {
        let skips = side.model.vendor == Vendor::Intel;
        let mut story = run(PROTECT, &side, Policy::SkipFirstCall);
        let site = story.label("site");
        assert_eq!(seen(&mut story), Some((14, 3, site, site)), "{}", story.text());

        let mut story = run("pushfq\n or qword [rsp], 0x100\n popfq\n site: FOREIGN\n after: nop", &side, Policy::SkipFirstCall);
        let (site, after) = (story.label("site"), story.label("after"));
        // POPF sets TF, and the first trap is that of the instruction behind it.
        assert_eq!(seen(&mut story).map(|seen| (seen.0, seen.3)), Some((1, if skips { after } else { site })), "{}", story.text());
    }
}

#[test]
fn the_commit_of_2007_asks_for_no_rights() {
    for side in VENDORS {
        let mut story = run(PROTECT, &side, Policy::Classic2007);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        assert_eq!(story.count("trapline_patch"), 1);
    }
}

#[test]
fn direct_patches_nothing_and_answers() {
    for side in VENDORS {
        let mut story = run(PROTECT, &side, Policy::Direct);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        assert_eq!((story.count("trapline_patch"), story.count("kvm_hypercall")), (0, 1));
        assert_eq!(story.rax(), 0);
    }
}

#[test]
fn a_real_undefined_opcode_stays_one() {
    for side in VENDORS {
        for &policy in Policy::ALL {
            let mut story = run("site: ud2", &side, policy);
            let site = story.label("site");
            assert_eq!(seen(&mut story), Some((6, NO_CODE, 0, site)), "{} {}", policy.name(), story.text());
        }
    }
}

#[test]
fn the_hypercall_page_of_before_2007() {
    let body = r"
        mov dword [0xb000], 1
        mov dword [0xb004], 0
        mov dword [0xb00c], 0x55
        mov qword [0xb010], 0xc000
        mov ecx, 0x87655678
        mov eax, 0xb000
        xor edx, edx
        wrmsr
        mov eax, 3
        mov edi, 9
        mov rbx, 0xc000
        call rbx
        mov r9, rax
    ";
    for side in VENDORS {
        let mut story = run(body, &side, Policy::HypercallPage);
        assert_eq!(seen(&mut story), None, "{}", story.text());
        let mut stub = side.bytes.to_vec();
        stub.push(0xc3);
        assert_eq!(story.bytes(0xc000, 4), stub);
        assert_eq!(story.bytes(0xb000, 16)[4..], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(story.vm().registers(0).gprs[9], u64::MAX, "-EINVAL of its day");
        assert!(story.lines().contains(&"kvm_hypercall: nr 0x3 a0 0x9 a1 0x0 a2 0x0 a3 0x87655678".to_owned()), "{}", story.text());
        assert!(story.lines().contains(&"kvm_userspace_exit: reason KVM_EXIT_HYPERCALL (3)".to_owned()));
        // Its foreign call is simply undefined, and so is a move to the other vendor.
        let mut story = run("site: FOREIGN", &side, Policy::HypercallPage);
        assert_eq!(seen(&mut story).map(|seen| seen.0), Some(6));
    }
}

#[test]
fn a_guest_text_page_is_dirty_after_a_patch() {
    for side in VENDORS {
        let mut story = Guest::new("mov eax, 1\n site: FOREIGN\n hlt").on(&side);
        story.vm().memory_mut().start_dirty_log();
        story.run();
        let frame = BASE >> 12;
        assert!(story.vm().memory().is_dirty(frame));
    }
    assert_ne!(SKYLAKE_SERVER.name, ZEN3.name);
}
