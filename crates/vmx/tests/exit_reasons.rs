//! Every basic exit reason: a guest of machine code that makes exactly it happen, in a test of its name; and why the others cannot.

mod common;

use common::{EPT_FLAGS, GUEST_CODE, Machine};
use isa::apic::{ApicMessage, DeliveryMode};
use isa::vmx::{
    ControlWord, ExitReason, PinBasedControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField as F,
};
use models::SKYLAKE_SERVER;

/// A page of the first 2 MiB with nothing in it.
const PAGE: u64 = 0x5_0000;
const VIRTUAL_APIC: u64 = 0x6_0000;
const APIC_ACCESS: u64 = 0x7_0000;

/// Turns controls on, whichever words they belong to.
fn enable(machine: &mut Machine, controls: &[isa::vmx::ControlBit]) {
    for control in controls {
        let field = match control.word {
            ControlWord::PinBased => F::PinBasedControls,
            ControlWord::Primary => F::PrimaryProcessorBasedControls,
            _ => {
                machine.add_secondary(&[*control]);
                continue;
            }
        };
        let bits = machine.read(field);
        machine.set(field, bits | 1 << control.bit);
    }
}

/// Tests from a table: the exit reason, the name of its test, the guest's code, the exit qualification, and what is to be set up.
macro_rules! reasons {
    ($($reason:ident $test:ident $source:literal, $qualification:expr $(, $setup:expr)?;)*) => {
        /// The reasons that have a test.
        const TESTED: &[ExitReason] = &[$(ExitReason::$reason),*];

        $(#[test]
        fn $test() {
            let mut machine = Machine::new(&SKYLAKE_SERVER);
            machine.guest($source);
            $(let setup: fn(&mut Machine) = $setup; setup(&mut machine);)?
            let reason = machine.enter(true);
            assert_eq!(ExitReason::try_from(reason as u16), Ok(ExitReason::$reason));
            assert_eq!(reason >> 31 != 0, matches!(ExitReason::$reason, ExitReason::EntryFailureInvalidGuestState | ExitReason::EntryFailureMsrLoading));
            assert_eq!(machine.read(F::ExitQualification), $qualification);
        })*
    };
}

reasons! {
    ExceptionOrNmi exception_or_nmi "ud2", 0, |machine| machine.set(F::ExceptionBitmap, 1 << 6);
    ExternalInterrupt external_interrupt "again: jmp again", 0, |machine| {
        enable(machine, &[Pin::EXTERNAL_INTERRUPT_EXITING]);
        machine.cpu.apic.write(0xf0, 0x1ff, 0);
        machine.cpu.accept(&ApicMessage { destination: 0, logical: false, mode: DeliveryMode::Fixed, vector: 0x31, level: false });
    };
    TripleFault triple_fault "ud2", 0, |machine| machine.set(F::GuestIdtrLimit, 0);
    InitSignal init_signal "again: jmp again", 0, |machine| machine.cpu.init_pending = true;
    StartUpIpi start_up_ipi "hlt", 0x9a, |machine| {
        machine.set(F::GuestActivityState, 3);
        machine.cpu.sipi_pending = Some(0x9a);
    };
    InterruptWindow interrupt_window "sti\nnop\nnop", 0, |machine| enable(machine, &[Primary::INTERRUPT_WINDOW_EXITING]);
    NmiWindow nmi_window "nop", 0, |machine| enable(machine, &[Pin::NMI_EXITING, Pin::VIRTUAL_NMIS, Primary::NMI_WINDOW_EXITING]);
    TaskSwitch task_switch "nop", 2 << 30 | 0x28, task_switch_setup;
    Cpuid cpuid "cpuid", 0;
    Hlt hlt "hlt", 0;
    Invd invd "invd", 0;
    Invlpg invlpg "invlpg [0x12345678]", 0x1234_5678, |machine| enable(machine, &[Primary::INVLPG_EXITING]);
    Rdpmc rdpmc "xor ecx, ecx\nrdpmc", 0, |machine| enable(machine, &[Primary::RDPMC_EXITING]);
    Rdtsc rdtsc "rdtsc", 0, |machine| enable(machine, &[Primary::RDTSC_EXITING]);
    Vmcall vmcall "vmcall", 0;
    Vmclear vmclear "vmclear qword [rbx + 0x10]", 0x10;
    Vmlaunch vmlaunch "vmlaunch", 0;
    Vmptrld vmptrld "vmptrld qword [rbx + 0x20]", 0x20;
    Vmptrst vmptrst "vmptrst qword [rbx + 0x30]", 0x30;
    Vmread vmread "vmread rax, rbx", 0;
    Vmresume vmresume "vmresume", 0;
    Vmwrite vmwrite "vmwrite rax, rbx", 0;
    Vmxoff vmxoff "vmxoff", 0;
    Vmxon vmxon "vmxon qword [rbx + 0x40]", 0x40;
    ControlRegisterAccess control_register_access "mov rdx, cr3", 3 | 1 << 4 | 2 << 8, |machine| enable(machine, &[Primary::CR3_STORE_EXITING]);
    MovDr mov_dr "mov dr7, rcx", 7 | 1 << 8, |machine| enable(machine, &[Primary::MOV_DR_EXITING]);
    IoInstruction io_instruction "in al, 0x61", 0x61_0048, |machine| enable(machine, &[Primary::UNCONDITIONAL_IO_EXITING]);
    Rdmsr rdmsr "rdmsr", 0;
    Wrmsr wrmsr "wrmsr", 0;
    EntryFailureInvalidGuestState entry_failure_invalid_guest_state "nop", 4, |machine| machine.set(F::VmcsLinkPointer, 1);
    EntryFailureMsrLoading entry_failure_msr_loading "nop", 2, |machine| {
        // The second of the list is IA32_FS_BASE, which no list may load.
        let words = [u64::from(isa::msr::IA32_SYSENTER_CS), 0, u64::from(isa::msr::IA32_FS_BASE), 0];
        for (at, word) in words.into_iter().enumerate() {
            machine.memory.write_u64(PAGE + 8 * at as u64, word).unwrap();
        }
        machine.set(F::EntryMsrLoadAddress, PAGE);
        machine.set(F::EntryMsrLoadCount, 2);
    };
    MonitorTrapFlag monitor_trap_flag "nop", 0, |machine| enable(machine, &[Primary::MONITOR_TRAP_FLAG]);
    Mwait mwait "db 0x0f, 0x01, 0xc9", 0, |machine| enable(machine, &[Primary::MWAIT_EXITING]);
    Monitor monitor "db 0x0f, 0x01, 0xc8", 0, |machine| enable(machine, &[Primary::MONITOR_EXITING]);
    Pause pause "pause", 0, |machine| enable(machine, &[Primary::PAUSE_EXITING]);
    TprBelowThreshold tpr_below_threshold "xor eax, eax\nmov cr8, rax", 0, |machine| {
        enable(machine, &[Primary::USE_TPR_SHADOW]);
        machine.set(F::VirtualApicAddress, VIRTUAL_APIC);
        machine.load(VIRTUAL_APIC + 0x80, &[0x80]);
        machine.set(F::TprThreshold, 5);
    };
    ApicAccess apic_access "mov [0x70300], eax", 0x1300, |machine| {
        enable(machine, &[Secondary::VIRTUALIZE_APIC_ACCESSES]);
        machine.set(F::ApicAccessAddress, APIC_ACCESS);
    };
    VirtualizedEoi virtualized_eoi "mov dword [0x700b0], 0", 0x51, |machine| {
        enable(machine, &[Primary::USE_TPR_SHADOW, Secondary::VIRTUALIZE_APIC_ACCESSES, Secondary::VIRTUAL_INTERRUPT_DELIVERY]);
        enable(machine, &[Pin::EXTERNAL_INTERRUPT_EXITING]);
        machine.set(F::VirtualApicAddress, VIRTUAL_APIC);
        machine.set(F::ApicAccessAddress, APIC_ACCESS);
        machine.set(F::GuestInterruptStatus, 0x5100);
        machine.set(F::EoiExitBitmap1, u64::MAX);
    };
    GdtrOrIdtrAccess gdtr_or_idtr_access "sgdt [rbx + 0x50]", 0x50, |machine| enable(machine, &[Secondary::DESCRIPTOR_TABLE_EXITING]);
    LdtrOrTrAccess ldtr_or_tr_access "str eax", 0, |machine| enable(machine, &[Secondary::DESCRIPTOR_TABLE_EXITING]);
    EptViolation ept_violation "mov eax, [0x50000]", 0x581, |machine| {
        machine.enable_ept(0);
        machine.map(PAGE, 0);
    };
    EptMisconfiguration ept_misconfiguration "mov eax, [0x50000]", 0, |machine| {
        machine.enable_ept(0);
        // Writes without reads.
        machine.map(PAGE, PAGE | 2);
    };
    Invept invept "invept rax, [rbx + 0x60]", 0x60;
    Rdtscp rdtscp "rdtscp", 0, |machine| enable(machine, &[Primary::RDTSC_EXITING, Secondary::ENABLE_RDTSCP]);
    PreemptionTimerExpired preemption_timer_expired "again: jmp again", 0, |machine| enable(machine, &[Pin::ACTIVATE_VMX_PREEMPTION_TIMER]);
    Invvpid invvpid "invvpid rax, [rbx + 0x70]", 0x70;
    WbinvdOrWbnoinvd wbinvd "wbinvd", 0, |machine| enable(machine, &[Secondary::WBINVD_EXITING]);
    Xsetbv xsetbv "xsetbv", 0, |machine| {
        let cr4 = machine.read(F::GuestCr4);
        machine.set(F::GuestCr4, cr4 | 1 << 18);
    };
    ApicWrite apic_write "mov [0x70320], eax", 0x320, |machine| {
        enable(machine, &[Primary::USE_TPR_SHADOW, Secondary::VIRTUALIZE_APIC_ACCESSES, Secondary::APIC_REGISTER_VIRTUALIZATION]);
        machine.set(F::VirtualApicAddress, VIRTUAL_APIC);
        machine.set(F::ApicAccessAddress, APIC_ACCESS);
    };
    Rdrand rdrand "rdrand eax", 0, |machine| enable(machine, &[Secondary::RDRAND_EXITING]);
    Invpcid invpcid "invpcid rax, [rbx + 0x8]", 8, |machine| enable(machine, &[Primary::INVLPG_EXITING, Secondary::ENABLE_INVPCID]);
    Vmfunc vmfunc "xor eax, eax\nvmfunc", 0, |machine| enable(machine, &[Secondary::ENABLE_VM_FUNCTIONS]);
    Rdseed rdseed "rdseed eax", 0, |machine| enable(machine, &[Secondary::RDSEED_EXITING]);
    PageModificationLogFull page_modification_log_full "mov [0x50000], eax", 0, |machine| {
        machine.enable_ept(EPT_FLAGS);
        enable(machine, &[Secondary::ENABLE_PML]);
        machine.set(F::PmlIndex, 512);
    };
}

/// The reasons that no model makes happen, and why.
const WITHOUT: &[(ExitReason, &str)] = &[
    (ExitReason::IoSmi, "system-management mode is not modelled"),
    (ExitReason::OtherSmi, "system-management mode is not modelled"),
    (ExitReason::Rsm, "outside system-management mode it is #UD"),
    (ExitReason::Getsec, "no model has SMX: it is #UD"),
    (ExitReason::EntryFailureMachineCheck, "nothing checks the machine"),
    (ExitReason::Encls, "no model has SGX: it is #UD"),
    (ExitReason::Xsaves, "no model has XSAVES: it is #UD"),
    (ExitReason::Xrstors, "no model has XSAVES: it is #UD"),
    (ExitReason::Pconfig, "no model has PCONFIG: it is #UD"),
    (ExitReason::SppRelatedEvent, "no model has sub-page write permissions"),
    (ExitReason::Umwait, "no model has WAITPKG: it is #UD"),
    (ExitReason::Tpause, "no model has WAITPKG: it is #UD"),
    (ExitReason::Loadiwkey, "no model has Key Locker: it is #UD"),
    (ExitReason::Enclv, "no model has SGX: it is #UD"),
    (ExitReason::EnqcmdPasidTranslationFailure, "no model has ENQCMD"),
    (ExitReason::EnqcmdsPasidTranslationFailure, "no model has ENQCMDS"),
    (ExitReason::BusLock, "no model has bus-lock detection"),
    (ExitReason::InstructionTimeout, "no model has the instruction timeout"),
    (ExitReason::Seamcall, "no model has TDX"),
    (ExitReason::Tdcall, "no model has TDX"),
    (ExitReason::Rdmsrlist, "no model has MSR-list instructions"),
    (ExitReason::Wrmsrlist, "no model has MSR-list instructions"),
];

#[test]
fn every_exit_reason_has_a_test_or_cannot_happen() {
    for &reason in ExitReason::ALL {
        let tested = TESTED.contains(&reason);
        let without = WITHOUT.iter().any(|(other, _)| *other == reason);
        assert!(tested != without, "{}", reason.name());
    }
}

/// Instructions of what no model has are #UD, and so no exits of their own.
#[test]
fn instructions_that_no_model_has_are_undefined() {
    let rows: [(&str, &[u8]); 8] = [
        ("getsec", &[0x0f, 0x37]),
        ("umonitor", &[0xf3, 0x0f, 0xae, 0xf0]),
        ("umwait", &[0xf2, 0x0f, 0xae, 0xf0]),
        ("tpause", &[0x66, 0x0f, 0xae, 0xf0]),
        ("encls", &[0x0f, 0x01, 0xcf]),
        ("xsaves [rax]", &[0x0f, 0xc7, 0x28]),
        ("xrstors [rax]", &[0x0f, 0xc7, 0x18]),
        ("rsm", &[0x0f, 0xaa]),
    ];
    for (name, bytes) in rows {
        let mut machine = Machine::new(&SKYLAKE_SERVER);
        machine.load(GUEST_CODE, bytes);
        machine.set(F::ExceptionBitmap, 1 << 6);
        assert_eq!((machine.enter(true), machine.read(F::ExitInterruptionInformation)), (0, 0x8000_0306), "{name}");
    }
}

/// Puts the guest into 32-bit mode, where a far jump to a TSS switches tasks.
fn task_switch_setup(machine: &mut Machine) {
    const GDT: u64 = 0xa_0000;
    const PAGES: u64 = 0xb_0000;
    machine.load(GUEST_CODE, &[0xea, 0, 0, 0, 0, 0x28, 0]);
    // One page of 4 MiB.
    machine.memory.write_u64(PAGES, 0x87).unwrap();
    machine.memory.write_u64(GDT + 0x28, 0x0000_8900_0000_0067 | 0xc_0000 << 16).unwrap();
    let entry = machine.read(F::EntryControls);
    machine.set(F::EntryControls, entry & !(1 << 9));
    for (field, value) in
        [(F::GuestCr3, PAGES), (F::GuestCr4, 0x2010), (F::GuestCsAccessRights, 0xc09b), (F::GuestGdtrBase, GDT), (F::GuestGdtrLimit, 0x2f)]
    {
        machine.set(field, value);
    }
}
