//! System instructions: modes, control registers, MSRs, segments, transfers between levels.

mod common;

use common::{CODE, CODE_0, CODE_3, CODE32_3, DATA_0, DATA_3, GDT, INNER_STACK, Machine, STACK, TASK, fault};
use isa::msr;
use isa::register::{Gpr, Segment};
use models::{SKYLAKE_SERVER, ZEN3};

#[test]
fn from_real_mode_to_long_mode_and_back_to_compatibility() {
    let source = format!(
        "bits 16
         org {CODE:#x}
         lgdt [cs:(gdtr - {CODE:#x})]
         mov eax, cr0
         or al, 1
         mov cr0, eax
         jmp dword 0x18:protected
         bits 32
         protected: mov eax, 0x10
         mov ds, eax
         mov es, eax
         mov ss, eax
         mov esp, {STACK:#x}
         mov dword [0x1000], 0x2007
         mov dword [0x2000], 0x87
         mov eax, 0x6a0
         mov cr4, eax
         mov eax, 0x1000
         mov cr3, eax
         mov ecx, 0xc0000080
         rdmsr
         or eax, 0x900
         wrmsr
         mov eax, 0x80010011
         mov cr0, eax
         mov ebx, 1
         jmp 8:long
         bits 64
         long: rdmsr
         mov r8, rax
         mov r9, 0x123456789abcdef0
         push 0x18
         push compatible
         rex.w retf
         bits 32
         compatible: inc ebx
         hlt
         align 8
         gdt: dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
         gdtr: dw 31
         dd gdt"
    );
    let mut machine = Machine::real(&source);
    machine.cpu.segments[Segment::Ss.number()].base = 0;
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.gpr(Gpr::R8), 0xd00, "LME, LMA, NXE");
    assert_eq!((machine.cpu.gpr(Gpr::R9), machine.cpu.gpr(Gpr::Rbx)), (0x1234_5678_9abc_def0, 2));
    assert_eq!((machine.cpu.code_bits(), machine.cpu.long_mode()), (32, true));
}

#[test]
fn control_register_values_that_are_refused() {
    let protected = |machine: &mut Machine, register: u8, value: u64| {
        machine.with(|cpu| match register {
            0 => cpu.write_cr0(value),
            3 => cpu.write_cr3(value),
            _ => cpu.write_cr4(value),
        })
    };
    // In 64-bit mode: register, value, refused.
    let rows = [
        (0, 0x8001_0033, false),
        (0, 0x1_8001_0033, true),
        (0, 0xa001_0033, true),
        (0, 0xe001_0033, false),
        (0, 0x8001_0032, true),
        (0, 0x0001_0033, true),
        (0, 0x8001_0033 | 1 << 20, false),
        (3, 0x1000, false),
        (3, 1 << 45, false),
        (3, 1 << 46, true),
        (3, 1 << 63, true),
        (4, 0x6a0, false),
        (4, 0x680, true),
        (4, 0x6a0 | 1 << 15, true),
        (4, 0x6a0 | 1 << 17, false),
        (4, 0x6a0 | 1 << 32, true),
        (4, 0x6a0 | 1 << 12, true),
    ];
    for (register, value, refused) in rows {
        let mut machine = Machine::long("hlt");
        let outcome = protected(&mut machine, register, value);
        assert_eq!(fault(outcome), refused.then_some((13, Some(0))), "CR{register} = {value:#x}");
    }
    // PCIDs can only be enabled while CR3 has none.
    let mut machine = Machine::long("hlt");
    machine.cpu.cr3 |= 0x18;
    assert_eq!(fault(machine.with(|cpu| cpu.write_cr4(0x206a0))), Some((13, Some(0))));
    // Paging with LME needs PAE; outside long mode it does not.
    let mut machine = Machine::protected("hlt");
    machine.cpu.efer = machine.cpu.efer.with_lme(true);
    assert_eq!(fault(machine.with(|cpu| cpu.write_cr0(0x8000_0011))), Some((13, Some(0))));
    machine.cpu.efer = machine.cpu.efer.with_lme(false);
    assert_eq!(fault(machine.with(|cpu| cpu.write_cr0(0x8000_0011))), None);
}

#[test]
fn msr_values_that_are_refused() {
    const NOT_CANONICAL: u64 = 1 << 47;
    // Number, value, refused on the Skylake server, refused on Zen 3.
    let rows = [
        (msr::IA32_EFER, 0xd01, false, false),
        (msr::IA32_EFER, 0x1d01, true, false),
        (msr::IA32_EFER, 0x801, true, true),
        (msr::IA32_EFER, 0xd03, true, true),
        (msr::IA32_STAR, u64::MAX, false, false),
        (msr::IA32_LSTAR, NOT_CANONICAL, true, true),
        (msr::IA32_LSTAR, 0xffff_8000_0000_0000, false, false),
        (msr::IA32_FMASK, 0xffff_ffff, false, false),
        (msr::IA32_FMASK, 1 << 32, true, true),
        (msr::IA32_FS_BASE, NOT_CANONICAL, true, true),
        (msr::IA32_KERNEL_GS_BASE, NOT_CANONICAL, true, true),
        (msr::IA32_SYSENTER_EIP, NOT_CANONICAL, true, false),
        (msr::IA32_PAT, 0x0007_0406_0007_0406, false, false),
        (msr::IA32_PAT, 0x0002_0406_0007_0406, true, true),
        (msr::IA32_PAT, 8, true, true),
        (msr::IA32_TSC_AUX, 1 << 32, true, false),
        (msr::IA32_APIC_BASE, 0xfee0_0900, false, false),
        (msr::IA32_APIC_BASE, 0xfee0_0901, true, true),
        (msr::IA32_MISC_ENABLE, 1, false, true),
        (msr::HWCR, 0, true, false),
        (msr::IA32_MTRRCAP, 0, true, true),
        (msr::IA32_MTRR_DEF_TYPE, 0xc06, false, false),
        (msr::IA32_MTRR_DEF_TYPE, 0x1006, true, true),
        (msr::IA32_MTRR_DEF_TYPE, 2, true, true),
        (msr::IA32_MTRR_FIX16K_A0000, 0x0605_0401_0006_0606, false, false),
        (msr::IA32_MTRR_FIX4K_F8000, 7, true, true),
        (msr::IA32_MTRR_PHYSBASE0, 0xc000_0001, false, false),
        (msr::IA32_MTRR_PHYSBASE0, 0xc000_0101, true, true),
        (msr::IA32_MTRR_PHYSBASE0 + 1, 0x3fff_c000_0800, false, false),
        (msr::IA32_MTRR_PHYSBASE0 + 1, 1 << 47 | 0x800, true, false),
        (msr::IA32_MTRR_PHYSBASE0 + 17, 0x400, true, true),
        (msr::IA32_MTRR_PHYSMASK9, 0x800, false, true),
        (msr::IA32_MCG_CAP, 0, true, true),
        (msr::IA32_MCG_STATUS, 4, false, false),
        (msr::IA32_MCG_STATUS, 8, true, true),
        (msr::IA32_MCG_CTL, u64::MAX, true, false),
        (msr::IA32_MC0_CTL, u64::MAX, false, false),
        (msr::IA32_MC0_CTL, 1, true, false),
        (msr::IA32_MC0_CTL + 1, 0, false, false),
        (msr::IA32_MC0_CTL + 1, 1, true, true),
        (msr::IA32_MC0_CTL + 4 * 19 + 2, u64::MAX, false, false),
        (msr::IA32_MC0_CTL + 4 * 20, 0, true, false),
        (msr::IA32_MC31_MISC, 0, true, true),
        (msr::IA32_TSC_ADJUST, 0x1000, false, true),
        (0x802, 0, true, true),
        (0x1234_5678, 0, true, true),
    ];
    for (number, value, intel, amd) in rows {
        for (model, refused) in [(&SKYLAKE_SERVER, intel), (&ZEN3, amd)] {
            // Without the silicon EFER.SVME is the model's word alone.
            let mut machine = Machine::long_on(model, "hlt");
            let outcome = machine.with(|cpu| cpu.write_msr(number, value));
            assert_eq!(fault(outcome), refused.then_some((13, Some(0))), "{} {number:#x} = {value:#x}", model.name);
            if !refused && number != msr::IA32_EFER {
                // AMD's registers have 32 bits there, and ignore the others.
                let halved = model.name == ZEN3.name && matches!(number, msr::IA32_SYSENTER_EIP | msr::IA32_TSC_AUX);
                let kept = if halved { value & 0xffff_ffff } else { value };
                assert_eq!(machine.with(|cpu| cpu.read_msr(number)).unwrap(), kept, "{number:#x}");
            }
        }
    }
}

#[test]
fn a_written_time_stamp_counts_on() {
    let mut machine = Machine::long("mov ecx, 0x10\n mov edx, 1\n xor eax, eax\n wrmsr\n rdtsc\n hlt");
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.gpr(Gpr::Rdx), 1);
    assert!((1..2000).contains(&machine.cpu.gpr(Gpr::Rax)));
}

#[test]
fn what_is_added_to_the_adjustment_is_added_to_the_time_stamp() {
    let mut machine = Machine::long("hlt");
    let before = machine.cpu.time_stamp();
    machine.with(|cpu| cpu.write_msr(msr::IA32_TSC_ADJUST, 0x10_0000)).unwrap();
    assert_eq!(machine.cpu.time_stamp(), before + 0x10_0000);
    machine.with(|cpu| cpu.write_msr(msr::IA32_TIME_STAMP_COUNTER, before)).unwrap();
    assert_eq!(machine.with(|cpu| cpu.read_msr(msr::IA32_TSC_ADJUST)).unwrap(), 0);
}

#[test]
fn the_status_of_a_bank_can_be_written_where_hwcr_allows_it() {
    let mut machine = Machine::long_on(&ZEN3, "hlt");
    machine.with(|cpu| cpu.write_msr(msr::HWCR, 1 << 18)).unwrap();
    machine.with(|cpu| cpu.write_msr(msr::IA32_MC0_CTL + 1, 5)).unwrap();
    assert_eq!(machine.with(|cpu| cpu.read_msr(msr::IA32_MC0_CTL + 1)).unwrap(), 5);
}

#[test]
fn protection_keys_are_read_written_and_told() {
    // RDPKRU and WRPKRU need CR4.PKE and ECX, and EDX for the write, zero.
    let rows = [
        (false, 0, 0, "rdpkru", Some(6)),
        (true, 0, 7, "rdpkru", None),
        (true, 1, 0, "rdpkru", Some(13)),
        (false, 0, 0, "wrpkru", Some(6)),
        (true, 0, 0, "wrpkru", None),
        (true, 1, 0, "wrpkru", Some(13)),
        (true, 0, 1, "wrpkru", Some(13)),
    ];
    for (enabled, ecx, edx, instruction, vector) in rows {
        let mut machine = Machine::long(&format!("mov eax, 0x54\n{instruction}\nhlt"));
        machine.cpu.cr4 = machine.cpu.cr4.with_pke(enabled);
        machine.cpu.pkru = 0x120;
        machine.cpu.set_gpr(Gpr::Rcx, ecx);
        machine.cpu.set_gpr(Gpr::Rdx, edx);
        assert_eq!(machine.run_to_handler(), vector, "{instruction} {enabled} {ecx} {edx}");
        match (vector, instruction) {
            (None, "rdpkru") => assert_eq!((machine.cpu.gpr(Gpr::Rax), machine.cpu.gpr(Gpr::Rdx)), (0x120, 0)),
            (None, _) => assert_eq!(machine.cpu.pkru, 0x54),
            _ => assert_eq!(machine.cpu.pkru, 0x120),
        }
    }
    let mut machine = Machine::long("mov eax, 7\nxor ecx, ecx\ncpuid\nhlt");
    machine.cpu.cr4 = machine.cpu.cr4.with_pke(true);
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.gpr(Gpr::Rcx) >> 3 & 3, 3, "PKU and OSPKE");
}

#[test]
fn syscall_and_sysret() {
    let source = "mov ecx, 0xc0000081
        mov edx, 0x00180008
        xor eax, eax
        wrmsr
        mov ecx, 0xc0000082
        mov eax, kernel
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000084
        mov eax, 0x400
        wrmsr
        mov ecx, user
        mov r11d, 0x602
        o64 sysret
        user: mov ebx, cs
        syscall
        here: hlt
        kernel: mov esi, ss
        mov edi, cs
        hlt";
    let mut machine = Machine::long(source);
    assert_eq!(machine.run_to_handler(), None);
    let registers = [Gpr::Rbx, Gpr::Rsi, Gpr::Rdi, Gpr::Rcx, Gpr::R11].map(|register| machine.cpu.gpr(register));
    assert_eq!(registers, [u64::from(CODE_3), u64::from(DATA_0), u64::from(CODE_0), machine.symbol("here"), 0x602]);
    assert_eq!((machine.cpu.cpl, machine.cpu.rflags().into_bits()), (0, 0x202), "FMASK took DF");
}

#[test]
fn what_the_vendors_do_differently() {
    // SYSRET to an address that is not canonical: Intel faults in the kernel, AMD at the target in the user program.
    for (model, level) in [(&SKYLAKE_SERVER, 0), (&ZEN3, 3)] {
        let mut machine = Machine::long_on(model, "mov rcx, 1 << 47\n mov r11d, 2\n o64 sysret");
        machine.cpu.msrs.star = 0x0018_0008 << 32;
        assert_eq!(machine.run_to_handler(), Some(13));
        assert_eq!(machine.stack(3)[2] & 3, level, "{}", model.name);
    }
    // SYSCALL in compatibility mode, SYSENTER in long mode.
    for (model, instruction, vector) in
        [(&SKYLAKE_SERVER, "syscall", Some(6)), (&ZEN3, "syscall", None), (&SKYLAKE_SERVER, "sysenter", None), (&ZEN3, "sysenter", Some(6))]
    {
        let source =
            format!("push {DATA_3}\n push {STACK}\n push 2\n push {CODE32_3}\n push user\n iretq\n kernel: hlt\n user: {instruction}");
        let mut machine = Machine::long_on(model, &source);
        machine.cpu.msrs.star = 0x0018_0008 << 32;
        machine.cpu.msrs.cstar = machine.symbol("kernel");
        machine.cpu.msrs.sysenter_cs = 8;
        machine.cpu.msrs.sysenter_eip = machine.symbol("kernel");
        machine.cpu.msrs.sysenter_esp = STACK;
        assert_eq!(machine.run_to_handler(), vector, "{} {instruction}", model.name);
    }
}

#[test]
fn iret_to_a_user_program_nulls_what_it_may_not_use() {
    let source = format!("push {DATA_3}\n push {STACK}\n push 0x202\n push {CODE_3}\n push user\n iretq\n user: mov ebx, ds\n int3");
    let mut machine = Machine::long(&source);
    machine.cpu.segments[Segment::Gs as usize].base = 0x1234_5000;
    assert_eq!(machine.run_to_handler(), Some(3));
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0);
    let gs = machine.cpu.segment(Segment::Gs);
    assert!(gs.selector.is_null() && !gs.is_usable() && gs.base == 0x1234_5000, "the base stays");
    assert_eq!(machine.stack(5)[1..], [u64::from(CODE_3), 0x202, STACK, u64::from(DATA_3)]);
}

#[test]
fn iret_frames_that_are_refused() {
    // CS, SS on the stack at level 0; the error code of #GP.
    let rows =
        [(0, DATA_0, 0), (0x7f8, DATA_0, 0x7f8), (DATA_0, DATA_0, 0x10), (CODE_3, DATA_0, 0x10), (CODE_3, 0, 0), (CODE_0 | 3, DATA_3, 8)];
    for (cs, ss, code) in rows {
        let source = format!("push {ss:#x}\n push {STACK}\n push 2\n push {cs:#x}\n push there\n here: iretq\n there: hlt");
        let mut machine = Machine::long(&source);
        assert_eq!(machine.run_to_handler(), Some(13), "{cs:#x} {ss:#x}");
        assert_eq!(machine.stack(2), [code, machine.symbol("here")], "{cs:#x} {ss:#x}");
    }
}

#[test]
fn far_calls_through_gates_change_the_level() {
    // 32-bit call gate with two parameters.
    let mut machine = Machine::protected("push 0x11\n push 0x22\n call 0x43:0\n here: nop\n gate: hlt").into_user();
    let target = machine.symbol("gate");
    let gate = target & 0xffff | u64::from(CODE_0) << 16 | 2 << 32 | 0xec << 40 | (target >> 16) << 48;
    machine.memory.write_u64(GDT + 0x40, gate).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.stack32(6), [machine.symbol("here"), u64::from(CODE_3), 0x22, 0x11, STACK - 8, u64::from(DATA_3)]);
    assert_eq!((machine.cpu.gpr(Gpr::Rsp), machine.cpu.cpl), (INNER_STACK - 24, 0));
    // And back: RETF releases the parameters on both stacks.
    let mut machine = Machine::protected("push 0x11\n push 0x22\n call 0x43:0\n here: int 0x80\n gate: retf 8").into_user();
    machine
        .memory
        .write_u64(GDT + 0x40, {
            let target = machine.symbol("gate");
            target & 0xffff | u64::from(CODE_0) << 16 | 2 << 32 | 0xec << 40 | (target >> 16) << 48
        })
        .unwrap();
    assert_eq!(machine.run_to_handler(), Some(0x80));
    assert_eq!(machine.stack32(5)[1..], [u64::from(CODE_3), 2, STACK, u64::from(DATA_3)]);
    // 64-bit gate, which is 16 bytes long.
    let mut machine = Machine::long("call far dword [pointer]\n here: nop\n gate: hlt\n pointer: dd 0\n dw 0x43").into_user();
    machine.cpu.gdtr.limit = 0x4f;
    let target = machine.symbol("gate");
    let gate = target & 0xffff | u64::from(CODE_0) << 16 | 0xec << 40 | (target >> 16) << 48;
    machine.memory.write_u64(GDT + 0x40, gate).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.stack(4), [machine.symbol("here"), u64::from(CODE_3), STACK, u64::from(DATA_3)]);
    assert_eq!(machine.cpu.gpr(Gpr::Rsp), INNER_STACK - 32);
}

#[test]
fn far_jumps_that_are_refused() {
    // Selector of a far JMP at level 0 in protected mode, and the fault.
    let rows = [(0, 13, 0), (0x7f8, 13, 0x7f8), (DATA_0, 13, 0x10), (CODE_3, 13, 0x28), (CODE_0 | 3, 13, 8), (0x38, 11, 0x38)];
    for (selector, vector, code) in rows {
        let mut machine = Machine::protected(&format!("here: jmp {selector:#x}:there\n there: hlt"));
        machine.memory.write_u64(GDT + 0x38, 0x00cf_1b00_0000_ffff).unwrap();
        assert_eq!(machine.run_to_handler(), Some(vector), "{selector:#x}");
        assert_eq!(machine.stack32(2), [code, machine.symbol("here")], "{selector:#x}");
    }
    let mut machine = Machine::protected(&format!("jmp {CODE_0}:there\n ud2\n there: hlt"));
    assert_eq!(machine.run_to_handler(), None);
}

#[test]
fn segment_limits_and_types_hold() {
    // A data segment of 16 bytes at 0x20000 in 0x38, expand-down above 0xfff in 0x40, execute-only code in 0x48.
    let rows = [
        ("mov eax, 0x38\n mov ds, eax\n mov al, [15]\n hlt", None),
        ("mov eax, 0x38\n mov ds, eax\n mov eax, [13]", Some(13)),
        ("mov eax, 0x40\n mov ds, eax\n mov eax, [0x1000]\n hlt", None),
        ("mov eax, 0x40\n mov ds, eax\n mov al, [0xfff]", Some(13)),
        ("mov eax, 0x48\n mov ds, eax", Some(13)),
        ("xor eax, eax\n mov ds, eax\n mov al, [0]", Some(13)),
        ("xor eax, eax\n mov ds, eax\n hlt", None),
        ("mov [cs:0x20000], al", Some(13)),
        ("mov eax, 0x38\n mov ss, eax\n mov esp, 8\n push eax\n push eax\n hlt", None),
        ("mov ebx, 0x38\n mov ss, ebx\n mov ebp, 16\n mov al, [ebp]", None),
    ];
    for (at, (source, vector)) in rows.into_iter().enumerate() {
        let mut machine = Machine::protected(source);
        for (selector, descriptor) in [(0x38, 0x0040_9302_0000_000fu64), (0x40, 0x0040_9700_0000_0fff), (0x48, 0x00cf_9900_0000_ffff)] {
            machine.memory.write_u64(GDT + selector, descriptor).unwrap();
        }
        if at == 9 {
            // Beyond the limit of the stack segment #SS comes, whose delivery has the same stack: its pushes fit.
            machine.cpu.set_gpr(Gpr::Rsp, 16);
            assert_eq!(machine.run_to_handler(), Some(12), "{source}");
            continue;
        }
        assert_eq!(machine.run_to_handler(), vector, "{source}");
    }
}

#[test]
fn loads_mark_descriptors_accessed_and_busy() {
    let mut machine = Machine::long(&format!("mov eax, 0x20\n mov ds, eax\n mov eax, {TASK}\n ltr ax\n str ebx\n hlt"));
    machine.memory.write_u64(GDT + 0x20, 0x00cf_9200_0000_ffff).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.memory.read_u8(GDT + 0x25).unwrap(), 0x93);
    assert_eq!(machine.memory.read_u8(GDT + u64::from(TASK) + 5).unwrap(), 0x8b);
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), u64::from(TASK));
    // A busy TSS is refused.
    let mut machine = Machine::long(&format!("mov eax, {TASK}\n ltr ax\n ltr ax"));
    assert_eq!(machine.run_to_handler(), Some(13));
    assert_eq!(machine.stack(1)[0], u64::from(TASK));
}

#[test]
fn lar_lsl_verr_and_verw() {
    // Instruction, selector: ZF, and EBX (which starts as 7).
    let rows = [
        ("lar ebx, eax", CODE_0, true, 0xcf9b00),
        ("lsl ebx, eax", DATA_0, true, 0xffff_ffff),
        ("lsl ebx, eax", TASK, true, 0x67),
        ("lar ebx, eax", 0, false, 7),
        ("lar ebx, eax", 0x7f8, false, 7),
        ("lar ebx, eax", CODE_0 | 3, false, 7),
        ("verr ax", CODE_0, true, 7),
        ("verw ax", CODE_0, false, 7),
        ("verw ax", DATA_0, true, 7),
        ("verw ax", DATA_3, true, 7),
    ];
    for (instruction, selector, zero, result) in rows {
        let mut machine = Machine::protected(&format!("mov ebx, 7\n mov eax, {selector}\n {instruction}\n hlt"));
        assert_eq!(machine.run_to_handler(), None);
        assert_eq!((machine.cpu.rflags().zf(), machine.cpu.gpr(Gpr::Rbx)), (zero, result), "{instruction} {selector:#x}");
    }
}

#[test]
fn pushf_and_popf_respect_the_privilege_level() {
    // At level 3 with IOPL 0 neither IF nor IOPL changes, and nothing faults.
    let source = "push 0x3202\n popfq\n pushfq\n pop rbx\n int3";
    let mut machine = Machine::long(source);
    assert_eq!(machine.run_to_handler(), Some(3));
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0x3202);
    let mut machine = Machine::long(source).into_user();
    assert_eq!(machine.run_to_handler(), Some(3));
    assert_eq!(machine.cpu.gpr(Gpr::Rbx), 0x2);
}

#[test]
fn stack_instructions_of_every_size() {
    // 32-bit code: program, and ESP's change and EAX.
    let rows = [
        ("push 0x12345678\n pop ax\n hlt", 2, 0x5678),
        ("push word 0x1234\n pop ax\n hlt", 0, 0x1234),
        ("mov ebx, 5\n pusha\n mov ebx, 0\n popa\n mov eax, ebx\n hlt", 0, 5),
        ("mov ebp, 0x99\n enter 16, 0\n mov eax, [ebp]\n leave\n hlt", 0, 0x99),
        ("push ds\n pop eax\n hlt", 0, u64::from(DATA_0)),
        ("call there\n hlt\n there: mov eax, [esp]\n ret", 0, CODE + 5),
        ("push 1\n push 2\n call there\n hlt\n there: ret 8", 0, 0),
        ("push 0x55\n pop dword [esp]\n mov eax, [esp]\n hlt", 0, 0x55),
        ("mov ecx, 5\n again: inc eax\n loop again\n hlt", 0, 5),
        ("mov ecx, 0x10000\n jcxz there\n inc eax\n there: jecxz end\n add eax, 2\n end: hlt", 0, 2),
    ];
    for (source, change, eax) in rows {
        let mut machine = Machine::protected(source);
        assert_eq!(machine.run_to_handler(), None, "{source}");
        let esp = machine.cpu.gpr(Gpr::Rsp);
        let expected = if source.contains("pop dword") { STACK } else { STACK - change };
        assert_eq!((esp, machine.cpu.gpr(Gpr::Rax)), (expected, eax), "{source}");
    }
}

#[test]
fn an_operand_size_prefix_narrows_near_branches_of_64_bit_mode_on_amd_only() {
    // The code is at 0x10000, and there is HLT wherever it may lead: a 16-bit target is below. Bytes; change of the stack pointer and RIP
    // behind the HLT on Intel; the same on AMD.
    type Ending = (i64, u64);
    let rows: [(&[u8], Ending, Ending); 6] = [
        // CALL and JMP of rel32 on Intel, of rel16 with two more bytes behind it on AMD.
        (&[0x66, 0xe8, 0x00, 0x80, 0x00, 0x00], (-8, 0x1_8007), (-2, 0x8005)),
        (&[0x66, 0xe9, 0x00, 0x80, 0x00, 0x00], (0, 0x1_8007), (0, 0x8005)),
        // JMP rel8
        (&[0x66, 0xeb, 0x20], (0, 0x1_0024), (0, 0x0024)),
        // JZ rel8
        (&[0x66, 0x74, 0x20], (0, 0x1_0024), (0, 0x0024)),
        // PUSH of 0x18010, then RET
        (&[0x68, 0x10, 0x80, 0x01, 0x00, 0x66, 0xc3], (0, 0x1_8011), (-6, 0x8011)),
        // MOV ECX, 0x18010, then JMP RCX or CX
        (&[0xb9, 0x10, 0x80, 0x01, 0x00, 0x66, 0xff, 0xe1], (0, 0x1_8011), (0, 0x8011)),
    ];
    for (bytes, intel, amd) in rows {
        for (model, (change, rip)) in [(&SKYLAKE_SERVER, intel), (&ZEN3, amd)] {
            let mut machine = Machine::long_on(model, "nop");
            machine.memory.write(0, &[0xf4; 0x1000]).unwrap();
            machine.memory.write(0x8000, &[0xf4; 0x100]).unwrap();
            machine.memory.write(CODE, &[0xf4; 0x100]).unwrap();
            machine.memory.write(CODE + 0x8000, &[0xf4; 0x100]).unwrap();
            machine.memory.write(CODE, bytes).unwrap();
            let flags = machine.cpu.rflags().with_zf(true);
            machine.cpu.set_rflags(flags);
            assert_eq!(machine.run(), cpu::RunExit::Idle, "{} {bytes:x?}", model.name);
            let rsp = machine.cpu.gpr(Gpr::Rsp).wrapping_sub(STACK) as i64;
            assert_eq!((rsp, machine.cpu.rip), (change, rip), "{} {bytes:x?}", model.name);
        }
    }
}

#[test]
fn lock_mov_cr0_is_mov_cr8_on_amd_and_undefined_on_intel() {
    let source = "mov eax, 5\n db 0xf0\n mov cr0, rax\n db 0xf0\n mov rcx, cr0\n hlt";
    let mut machine = Machine::long_on(&ZEN3, source);
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!((machine.cpu.gpr(Gpr::Rcx), machine.cpu.cr0.into_bits()), (5, 0x8001_0011));
    assert_eq!(Machine::long_on(&SKYLAKE_SERVER, source).run_to_handler(), Some(6));
}

#[test]
fn single_step_traps_of_syscall_and_sysret_follow_the_new_flags() {
    for (mask, vector) in [(0x100, None), (0, Some(1))] {
        let mut machine = Machine::long("pushfq\n or dword [rsp], 0x100\n popfq\n syscall\n kernel: hlt");
        machine.cpu.msrs.star = u64::from(CODE_0) << 32;
        (machine.cpu.msrs.lstar, machine.cpu.msrs.fmask) = (machine.symbol("kernel"), mask);
        assert_eq!(machine.run_to_handler(), vector, "{mask:#x}");
        assert_eq!(machine.cpu.gpr(Gpr::R11) & 0x100, 0x100);
    }
    for (flags, behind) in [(0x102, 0), (0x2, 2)] {
        let mut machine = Machine::long("mov ecx, user\n o64 sysret\n user: nop\n nop\n ud2");
        machine.cpu.msrs.star = 0x0018_0008 << 32;
        machine.cpu.set_gpr(Gpr::R11, flags);
        assert_eq!(machine.run_to_handler(), Some(if behind == 0 { 1 } else { 6 }));
        assert_eq!(machine.stack(1)[0], machine.symbol("user") + behind, "{flags:#x}");
    }
}

/// MPERF and APERF stand still in halts, where the time-stamp counter goes on. APM vol 2, 17.3 "Determining Processor Effective Frequency".
#[test]
fn the_effective_frequency_is_counted_out_of_halts() {
    let source = "mov ecx, 0xe7\n mov eax, 5000\n xor edx, edx\n wrmsr\n hlt
         xor ecx, ecx\n db 0x0f, 0x01, 0xfd\n mov r8d, eax\n setc bl
         mov ecx, 0xc00000e7\n rdmsr\n mov r9d, eax
         mov ecx, 1\n db 0x0f, 0x01, 0xfd\n mov r10d, eax
         mov ecx, 0xc00000e8\n rdmsr\n mov r11d, eax
         mov ecx, 2\n db 0x0f, 0x01, 0xfd\n mov r12d, eax\n setc bh
         mov ecx, 0xc00000e7\n wrmsr";
    let mut machine = Machine::long_on(&ZEN3, source);
    machine.run();
    let (now, halted) = (machine.cpu.cycles(), 10_000_000);
    machine.cpu.set_now((now + halted) * timing::TICKS_PER_CYCLE);
    machine.cpu.activity = cpu::state::Activity::Active;
    assert_eq!(machine.run_to_handler(), Some(13), "the second number of MPERF cannot be written");
    let [mperf, same, aperf, again, nothing] = [Gpr::R8, Gpr::R9, Gpr::R10, Gpr::R11, Gpr::R12].map(|register| machine.cpu.gpr(register));
    assert!((5000..7000).contains(&mperf) && (mperf..7000).contains(&same), "{mperf}, {same}");
    assert!((1..now + 2000).contains(&aperf) && (aperf..now + 2000).contains(&again), "{aperf}, {again} of {now}");
    assert_eq!((nothing, machine.cpu.gpr(Gpr::Rbx)), (0, 1), "no third register");
    assert!(machine.cpu.time_stamp() > halted);
}

#[test]
fn rdpru_is_refused_where_it_is_not_there_and_by_tsd() {
    let rdpru = "xor ecx, ecx\n db 0x0f, 0x01, 0xfd\n hlt";
    assert_eq!(Machine::long_on(&SKYLAKE_SERVER, rdpru).run_to_handler(), Some(6));
    for (tsd, vector) in [(false, 13), (true, 6)] {
        let mut machine = Machine::long_on(&ZEN3, rdpru).into_user();
        machine.cpu.cr4.set_tsd(tsd);
        assert_eq!(machine.run_to_handler(), Some(vector), "HLT is reached without TSD only");
    }
    let mut machine = Machine::long_on(&ZEN3, rdpru);
    machine.cpu.cr4.set_tsd(true);
    assert_eq!(machine.run_to_handler(), None, "level 0 has it always");
}
