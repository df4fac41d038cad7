//! What a guest finds around it: CPUID, MSRs, control registers, ports, local APIC, timers, other virtual CPUs; and the ends of a run.

mod common;

use board::Outcome;
use board::loader::Mode;
use common::{Guest, VENDORS};
use hypervisor::{Limits, Moment, Options, Policy, Rights, Stop};
use isa::exception::Vector;

#[test]
fn cpuid_shows_the_hypervisor_and_hides_virtualization() {
    let text = r"
        mov eax, 0x40000000
        cpuid
        mov r8d, ebx
        mov r9d, eax
        mov eax, 1
        cpuid
        mov r10d, ecx
        mov eax, 0x80000001
        cpuid
        mov r11d, ecx
        mov eax, 0x40000001
        cpuid
        hlt
    ";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let gprs = story.vm().registers(0).gprs;
        assert_eq!((gprs[8], gprs[9]), (0x4b4d_564b, 0x4000_0001));
        assert_eq!((gprs[10] >> 31 & 1, gprs[10] >> 5 & 1, gprs[11] >> 2 & 1), (1, 0, 0));
        assert_eq!(gprs[0], 1 << 7 | 1 << 11 | 1 << 13 | 1 << 16);
        assert_eq!(story.count("kvm_cpuid"), 4);
    }
}

#[test]
fn the_debug_exit_and_serial_port_are_user_spaces() {
    let text = "mov dx, 0x3f8\n mov al, 'A'\n out dx, al\n mov eax, 5\n out 0xf4, eax\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Outcome(Outcome::DebugExit { code: 5 }), "{}", story.text());
        assert_eq!(story.vm().take_serial(), b"A");
        assert!(story.lines().contains(&"kvm_pio: pio_write at 0x3f8 size 1 count 1 val 0x41".to_owned()));
        assert_eq!(story.count("kvm_userspace_exit"), 2);
    }
}

#[test]
fn strings_of_ports_are_emulated() {
    let text = "mov dx, 0x3f8\n mov esi, message\n mov ecx, 3\n rep outsb\n hlt\n message: db 'abc'";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.vm().take_serial(), b"abc");
        assert_eq!(story.count("kvm_pio"), 3);
    }
}

#[test]
fn msrs_are_read_written_and_refused() {
    let text = r"
        mov ecx, 0x1b
        rdmsr
        mov r8d, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1
        wrmsr
        rdmsr
        mov r9d, eax
        mov ecx, 0x277
        rdmsr
        mov r10d, eax
        mov ecx, 0x3a
        site: rdmsr
        hlt
    ";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        // No IDT: the #GP becomes a triple fault.
        assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "{}", story.text());
        let text = story.text();
        assert!(text.contains("msr_read 1b = 0xfee00900"), "{text}");
        assert!(text.contains("msr_write c0000080 = 0x501"), "{text}");
        assert!(text.contains("msr_read 3a = 0x0 (#GP)"), "{text}");
        assert!(!text.contains("msr_read 277"), "IA32_PAT never exits: {text}");
        assert!(text.contains("kvm_inj_exception: #GP (0x0)") && text.ends_with("KVM_EXIT_SHUTDOWN (8)"), "{text}");
    }
}

#[test]
fn control_registers_are_emulated_by_the_core() {
    let text = "mov rax, cr4\n bts rax, 16\n mov cr4, rax\n mov rbx, cr4\n mov eax, 5\n mov cr8, rax\n mov r8, cr8\n mov rax, cr0\n btc rax, 18\n mov cr0, rax\n mov r9, cr0\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let registers = story.vm().registers(0);
        assert_eq!((registers.gprs[3] >> 16 & 1, registers.gprs[8], registers.gprs[9] >> 18 & 1), (1, 5, 1), "{}", story.text());
        assert!(story.text().contains("kvm_cr: cr_write 8 = 0x5"), "{}", story.text());
        assert!(registers.cr4.fsgsbase() && !registers.cr4.vmxe());
    }
}

#[test]
fn a_guest_goes_from_real_mode_to_long_mode_by_itself() {
    let text = r"
        bits 16
        lgdt [gdtr]
        mov eax, 0x9003
        mov [0x8ff0], eax
        mov dword [0x9000], 0xa003
        mov dword [0xa000], 0x83
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, 0x9000
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000001
        mov cr0, eax
        jmp 8:long
        bits 64
        long: mov rbx, 0x123456789
        mov eax, 1
        FOREIGN
        hlt
        align 8
        gdtr: dw 15
        dd gdt
        gdt: dq 0, 0x00af9b000000ffff
    ";
    for side in VENDORS {
        let mut story = Guest { mode: Mode::Real16, ..Guest::new(text) }.on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let registers = story.vm().registers(0);
        assert!(registers.is_64bit());
        assert_eq!((registers.gprs[0], registers.gprs[3]), (0, 0x1_2345_6789), "{}", story.text());
    }
}

#[test]
fn addresses_beyond_memory_are_devices() {
    let text = "mov rax, 0x2000000\n mov dword [rax], 7\n mov ebx, [rax]\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.vm().registers(0).gprs[3], 0xffff_ffff);
        assert!(story.text().contains("kvm_mmio: mmio write len 4 gpa 0x2000000 val 0x7"), "{}", story.text());
        assert_eq!(story.count("kvm_page_fault"), 2);
    }
}

#[test]
fn pages_are_mapped_when_they_are_touched() {
    for side in VENDORS {
        let options = Options { prefault: false, ..Options::default() };
        let mut story = Guest { options, ..Guest::new("mov eax, [0x900000]\n mov eax, [0x900008]\n hlt") }.on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        // Code, tables and data: each in a large page of its own.
        assert_eq!(story.count("kvm_page_fault"), 2, "{}", story.text());
        assert_eq!(story.count("kvm_mmio"), 0);
    }
}

/// Enables the local APIC, and an IDT in which vector 0x40 counts in R12 and acknowledges.
const APIC: &str = r"
    mov edi, 0xfee00000
    mov dword [rdi+0xf0], 0x1ff
    mov rax, handler
    mov [0x8000+0x400], ax
    mov word [0x8000+0x402], 8
    mov word [0x8000+0x404], 0x8e00
    shr rax, 16
    mov [0x8000+0x406], ax
    mov dword [0x8000+0x408], 0
    lidt [idtr]
    mov rsp, 0x7ff0
    jmp body
    idtr: dw 0xfff
    dq 0x8000
    handler: inc r12
    mov dword [rdi+0xb0], 0
    iretq
    body:
";

#[test]
fn the_apic_timer_wakes_and_interrupts() {
    let waits = "mov dword [rdi+0x320], 0x40\n mov dword [rdi+0x3e0], 0xb\n mov dword [rdi+0x380], 1000\n sti\n hlt\n cli\n hlt";
    let spins = "mov dword [rdi+0x320], 0x40\n mov dword [rdi+0x3e0], 0xb\n mov dword [rdi+0x380], 1000\n sti\n wait: test r12, r12\n jz wait\n cli\n hlt";
    for side in VENDORS {
        for (body, external) in [(waits, false), (spins, true)] {
            let text = format!("{APIC}{body}");
            let mut story = Guest::new(&text).on(&side);
            assert_eq!(story.run(), Stop::Halted, "{}", story.text());
            assert_eq!(story.vm().registers(0).gprs[12], 1, "{}", story.text());
            assert!(story.lines().contains(&"kvm_inj_virq: IRQ 0x40".to_owned()), "{}", story.text());
            assert!(story.text().contains("apic_write APIC_EOI = 0x0"), "{}", story.text());
            let reason = if side.call_reason == "VMCALL" { "EXTERNAL_INTERRUPT" } else { "interrupt" };
            assert_eq!(story.exits().iter().any(|exit| exit == reason), external, "{}", story.text());
        }
    }
}

#[test]
fn an_interrupt_waits_for_its_window() {
    // A self IPI while interrupts are off, then STI: the window exit lets it in.
    let text = format!("{APIC} mov dword [rdi+0x300], 0x44040\n mov ecx, 5\n spin: loop spin\n sti\n nop\n nop\n cli\n hlt");
    for side in VENDORS {
        let mut story = Guest::new(&text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.vm().registers(0).gprs[12], 1, "{}", story.text());
        let reason = if side.call_reason == "VMCALL" { "INTERRUPT_WINDOW" } else { "vintr" };
        assert!(story.exits().iter().any(|exit| exit == reason), "{}", story.text());
    }
}

#[test]
fn scripts_inject_interrupts_exceptions_and_nmis() {
    let handlers = r"
        mov rax, seen
        mov [0x8000+32], ax
        mov word [0x8000+34], 8
        mov word [0x8000+36], 0x8e00
        shr rax, 16
        mov [0x8000+38], ax
        mov rax, [0x8000+32]
        mov [0x8000+14*16], rax
        spin: jmp spin
        seen: mov r13, cr2
        cli
        hlt
    ";
    let text = format!("{APIC}{handlers}");
    for side in VENDORS {
        for what in 0..3 {
            let mut story = Guest::new(&text).on(&side);
            let spin = story.label("spin");
            let pause = story.vm().pause_at(Moment::Address { address: spin, pass: 3 });
            assert_eq!(story.run(), Stop::Paused(pause), "{}", story.text());
            match what {
                0 => story.vm().nmi(0),
                1 => story.vm().exception(0, Vector::PageFault, Some(4), 0x1234),
                _ => {
                    let mut registers = story.vm().registers(0);
                    registers.rflags = registers.rflags.with_if(true);
                    story.vm().set_registers(0, &registers);
                    story.vm().interrupt(0, 0x40);
                    let exits = story.vm().statistics().exits;
                    let done = story.vm().pause_at(Moment::Exit(exits + 1));
                    assert_eq!(story.run(), Stop::Paused(done), "{}", story.text());
                    assert!(story.lines().contains(&"kvm_inj_virq: IRQ 0x40".to_owned()), "{}", story.text());
                    continue;
                }
            }
            assert_eq!(story.run(), Stop::Halted, "{}", story.text());
            assert_eq!(story.vm().registers(0).gprs[13], if what == 1 { 0x1234 } else { 0 });
        }
    }
}

#[test]
fn moments_stop_a_run_exactly() {
    let text = "mov ecx, 4\n again: mov eax, 1\n NATIVE\n loop again\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        let second_exit = story.vm().pause_at(Moment::Exit(2));
        let third_call = story.vm().pause_at(Moment::Hypercall(3));
        assert_eq!(story.run(), Stop::Paused(second_exit));
        assert_eq!(story.vm().statistics().exits, 2);
        assert_eq!(story.run(), Stop::Paused(third_call));
        assert_eq!(story.vm().statistics().hypercalls, 3);
        let later = story.vm().instructions() + 2;
        let count = story.vm().pause_at(Moment::Instruction(later));
        assert_eq!(story.run(), Stop::Paused(count));
        assert_eq!(story.vm().instructions(), later);
        assert_eq!(story.run(), Stop::Halted);
        assert_eq!(story.vm().statistics().hypercalls, 4);
    }
}

#[test]
fn limits_end_a_guest_that_does_not() {
    for side in VENDORS {
        let mut story = Guest::new("spin: jmp spin").on(&side);
        let vm = story.vm.as_mut().unwrap();
        assert_eq!(vm.run(&mut story.trace, &Limits { instructions: 1000, ..Limits::NONE }), Stop::InstructionLimit);
        assert_eq!(vm.instructions(), 1000);
        assert_eq!(vm.run(&mut story.trace, &Limits { cycles: 50_000, ..Limits::NONE }), Stop::CycleLimit);
        let mut story = Guest::new("spin: mov eax, 1\n NATIVE\n jmp spin").on(&side);
        let vm = story.vm.as_mut().unwrap();
        assert_eq!(vm.run(&mut story.trace, &Limits { exits: 7, ..Limits::NONE }), Stop::ExitLimit);
        assert_eq!(vm.statistics().exits, 7);
    }
}

#[test]
fn a_turn_that_was_broken_off_ends_at_an_earlier_limit_too() {
    // Long enough for the longest instruction and the exit behind it.
    const SLACK: u64 = 20_000;
    let text = "mov ecx, 20000\n spin: loop spin\n mov eax, 1\n NATIVE\n mov ecx, 20000\n again: loop again\n hlt";
    for side in VENDORS {
        let mut whole = Guest::new(text).on(&side);
        assert_eq!(whole.run(), Stop::Halted);
        let mut story = Guest::new(text).on(&side);
        let pause = story.vm().pause_at(Moment::Instruction(500));
        // The turn that is broken off here could last until the guest halts.
        assert_eq!(story.run(), Stop::Paused(pause));
        let mut stops = 0;
        loop {
            let now = story.vm().cycles();
            let vm = story.vm.as_mut().unwrap();
            match vm.run(&mut story.trace, &Limits { cycles: now + 1000, ..Limits::NONE }) {
                Stop::CycleLimit => assert!((now + 1000..now + 1000 + SLACK).contains(&vm.cycles()), "{now}: {}", vm.cycles()),
                other => {
                    assert_eq!(other, Stop::Halted);
                    break;
                }
            }
            stops += 1;
        }
        assert!(stops >= 10, "{stops}");
        assert_eq!(story.trace, whole.trace, "limits change nothing");
        assert_eq!(story.vm().registers(0), whole.vm().registers(0));
    }
}

/// Two virtual CPUs: the first starts the second at 0x8000 by INIT and start-up message, both call at one site.
const TWO_CPUS: &str = r"
    mov edi, 0xfee00000
    mov dword [rdi+0xf0], 0x1ff
    mov esi, trampoline
    mov ebx, 0x6000
    mov ecx, trampoline_end-trampoline
    copy: mov al, [rsi]
    mov [rbx], al
    inc rsi
    inc rbx
    loop copy
    mov dword [rdi+0x310], 0x1000000
    mov dword [rdi+0x300], 0x4500
    mov dword [rdi+0x300], 0x4606
    wait: cmp dword [0x9000], 1
    jne wait
    mov dword [0x9004], 1
    mov eax, 1
    call site
    mov dword [0x9008], 1
    done: cmp dword [0x900c], 1
    jne done
    hlt
    site: FOREIGN
    ret
    trampoline:
    bits 16
    lgdt [cs:gdtr-trampoline]
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, 0x1000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    jmp dword 8:second
    align 8
    gdtr: dw 15
    dd 0x6000+gdt-trampoline
    gdt: dq 0, 0x00af9b000000ffff
    trampoline_end:
    bits 64
    second: mov rsp, 0x5ff0
    mov dword [0x9000], 1
    ready: cmp dword [0x9004], 1
    jne ready
    mov eax, 1
    call site
    mov dword [0x900c], 1
    hlt
";

#[test]
fn e26_two_cpus_meet_at_one_call_site() {
    for side in VENDORS {
        let mut story = Guest { cpus: 2, ..Guest::new(TWO_CPUS) }.on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let site = story.label("site");
        assert_eq!(story.bytes(site, 3), side.bytes);
        // The second may come after the patch; each exits once for the #UD at most, and calls once.
        let undefined = story.exits().iter().filter(|exit| *exit == side.ud_reason).count();
        assert!((1..=2).contains(&undefined), "{}", story.text());
        assert_eq!(story.exits().iter().filter(|exit| *exit == side.call_reason).count(), 2);
        assert!(story.text().contains("apic_write APIC_ICR = 0x4500"), "{}", story.text());
    }
}

#[test]
fn every_seed_gives_its_own_order_again() {
    for side in VENDORS {
        let run = |seed| {
            let mut story = Guest { cpus: 2, seed, ..Guest::new(TWO_CPUS) }.on(&side);
            assert_eq!(story.run(), Stop::Halted, "seed {seed}: {}", story.text());
            story.text()
        };
        let texts: Vec<String> = (0..6).map(run).collect();
        assert_eq!(texts, (0..6).map(run).collect::<Vec<_>>(), "a seed gives the same run again");
        let different: std::collections::BTreeSet<&String> = texts.iter().collect();
        assert!(different.len() > 1, "some of six seeds order the two CPUs in another way");
    }
}

#[test]
fn a_kick_wakes_and_ipis_are_counted() {
    // The second CPU halts with interrupts off; the first kicks it. Then IPIs to both.
    let second = "second: mov dword [0x9000], 1\n hlt\n mov dword [0x9000], 2\n hlt";
    let first = r"
        wait: cmp dword [0x9000], 1
        jne wait
        mov ecx, 2000
        spin: loop spin
        mov eax, 5
        xor ebx, ebx
        mov ecx, 1
        NATIVE
        again: cmp dword [0x9000], 2
        jne again
        mov eax, 10
        mov ebx, 3
        xor ecx, ecx
        xor edx, edx
        mov esi, 0x4040
        NATIVE
        hlt
    ";
    let text = format!("{first}{second}");
    for side in VENDORS {
        let mut story = Guest { cpus: 2, ..Guest::new(&text) }.on(&side);
        let mut registers = story.vm().registers(0);
        registers.rip = story.label("second");
        story.vm().set_registers(1, &registers);
        story.vm().start(1);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        // The local APIC of the second is disabled by software and takes no interrupt.
        assert_eq!(story.rax(), 1);
        assert_eq!(story.bytes(0x9000, 1), [2]);
    }
}

#[test]
fn user_space_answers_map_gpa_range() {
    let text =
        "mov eax, 12\n mov ebx, 0x5000\n mov ecx, 2\n mov edx, 0x10\n NATIVE\n mov r8, rax\n mov eax, 12\n mov ebx, 0x5001\n NATIVE\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let gprs = story.vm().registers(0).gprs;
        assert_eq!((gprs[8], gprs[0]), (0, -22_i64 as u64));
        assert_eq!(story.count("kvm_userspace_exit"), 1);
    }
}

#[test]
fn the_clock_is_paired_and_faults_are_told() {
    let text = "mov eax, 9\n mov ebx, 0x9000\n xor ecx, ecx\n NATIVE\n mov r8, rax\n mov eax, 9\n mov ecx, 1\n NATIVE\n mov r9, rax\n mov eax, 9\n mov ebx, 0x7fffffff\n xor ecx, ecx\n NATIVE\n hlt";
    for side in VENDORS {
        let mut story = Guest::new(text).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let gprs = story.vm().registers(0).gprs;
        assert_eq!((gprs[8], gprs[9], gprs[0]), (0, -95_i64 as u64, -14_i64 as u64));
        let tsc = u64::from_le_bytes(story.bytes(0x9010, 8).try_into().unwrap());
        assert!(tsc > 0 && tsc < 1_000_000);
    }
}

#[test]
fn instructions_of_virtualization_are_undefined() {
    for side in VENDORS {
        for word in ["vmxoff", "vmrun", "vmresume", "clgi", "vmsave"] {
            let mut story = Guest::new(word).on(&side);
            assert_eq!(story.run(), Stop::TripleFault { vcpu: 0 }, "{word} {}", story.text());
        }
    }
}

#[test]
fn a_slot_can_be_taken_away_and_given_back() {
    for side in VENDORS {
        let mut story = Guest::new("mov eax, [0x300000]\n mov rbx, rax\n stop: nop\n mov eax, [0x300000]\n hlt").on(&side);
        story.vm().write_memory(0x30_0000, &7_u32.to_le_bytes()).unwrap();
        story.vm().protect(0x30_0000..0x30_1000, Rights::Absent).unwrap();
        let address = story.label("stop");
        let pause = story.vm().pause_at(Moment::Address { address, pass: 1 });
        assert_eq!(story.run(), Stop::Paused(pause), "{}", story.text());
        story.vm().protect(0x30_0000..0x30_1000, Rights::ReadWrite).unwrap();
        assert_eq!(story.run(), Stop::Halted);
        let gprs = story.vm().registers(0).gprs;
        assert_eq!((gprs[3], gprs[0]), (0xffff_ffff, 7), "{}", story.text());
    }
    assert_eq!(Policy::default(), Policy::TrapAndPatch);
}

#[test]
fn a_cycle_comes_even_when_everybody_sleeps() {
    let text = format!("{APIC} sti\n hlt\n cli\n hlt");
    for side in VENDORS {
        let mut story = Guest::new(&text).on(&side);
        let pause = story.vm().pause_at(Moment::Cycle(500_000));
        assert_eq!(story.run(), Stop::Paused(pause), "{}", story.text());
        assert_eq!(story.vm().cycles(), 500_000);
        story.vm().interrupt(0, 0x40);
        assert_eq!(story.run(), Stop::Halted);
        assert_eq!(story.vm().registers(0).gprs[12], 1, "{}", story.text());
    }
}
