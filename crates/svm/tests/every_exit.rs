//! For every exit code a guest that makes exactly it happen: with its intercept the guest leaves there, without it does not.
//!
//! The tests are named after the codes. A code without a row must be one that cannot happen, for a reason that is told.

mod common;

use assembler::{Bits, Options, assemble};
use common::{GUEST_CODE, Machine, VMCB, flat, guest};
use cpu::extension::Extension as _;
use isa::apic::{ApicMessage, DeliveryMode};
use isa::svm::{ExitCode, Vmcb};
use svm::Vmrun;
use svm::intercept::{Realised, realised};

const GDT: u64 = 0x9000;

/// What a row changes in the machine and in the guest of [`guest`].
type Prepare = fn(&mut Machine, &mut Vmcb);

/// Runs a guest to its first exit. It is in 32-bit protected mode without paging, with a GDT at [`GDT`], no IDT, and VMMCALL and shutdown
/// intercepted so that it ends.
fn first_exit(code: ExitCode, intercepted: bool, source: &str, prepare: Prepare) -> (Vmcb, Option<u64>) {
    let mut machine = Machine::new();
    machine.cpu.rust_host = true;
    let options = Options { origin: GUEST_CODE, bits: Bits::ThirtyTwo, ..Options::default() };
    let program = assemble(&format!("{source}\nvmmcall"), &options).unwrap_or_else(|errors| panic!("{errors:?}"));
    machine.memory.write(GUEST_CODE, &program.bytes).unwrap();
    let mut vmcb = guest();
    (vmcb.save.gdtr.base, vmcb.save.gdtr.limit) = (GDT, 0x1f);
    vmcb.control.intercepts.set(ExitCode::VMMCALL, true);
    vmcb.control.intercepts.set(ExitCode::SHUTDOWN, true);
    if code.0 < 0xc0 {
        vmcb.control.intercepts.set(code, intercepted);
    }
    prepare(&mut machine, &mut vmcb);
    machine.set_vmcb(&vmcb);
    if matches!(machine.with(|svm, cpu| svm.vmrun(cpu, VMCB)), Ok(Vmrun::Entered)) {
        machine.run(100);
    }
    (machine.vmcb(), program.symbols.get("here").copied())
}

fn exits(code: ExitCode, source: &str, prepare: Prepare) {
    let (vmcb, here) = first_exit(code, true, source, prepare);
    assert_eq!(vmcb.control.exit_code, code);
    assert_eq!(vmcb.save.rip, here.unwrap_or(GUEST_CODE), "where {code:?} leaves the guest");
    // What is always there is not asked for: VMRUN, and what has no bit.
    let always = code.0 >= 0xc0 || matches!(code, ExitCode::VMRUN | ExitCode::SHUTDOWN | ExitCode::VMMCALL);
    if !always {
        let (vmcb, _) = first_exit(code, false, source, prepare);
        assert_ne!(vmcb.control.exit_code, code, "without its bit");
    }
}

macro_rules! exits {
    ($($name:ident $code:ident $source:literal $(, $prepare:expr)?;)*) => {
        $(
            #[test]
            fn $name() {
                let prepare: &[Prepare] = &[$($prepare)?];
                exits(ExitCode::$code, $source, prepare.first().copied().unwrap_or(|_, _| {}));
            }
        )*

        /// The codes that have a test.
        const TESTED: &[ExitCode] = &[$(ExitCode::$code),*];
    };
}

/// Descriptors: 8 a segment that is not present, 16 a TSS that is too small, 24 an LDT, each of its kind.
fn descriptors(machine: &mut Machine, _: &mut Vmcb) {
    for (selector, descriptor) in [(8, 0x00cf_1300_0000_ffff_u64), (16, 0x0000_8900_9100_0010), (24, 0x0000_8200_9200_00ff)] {
        machine.memory.write_u64(GDT + selector, descriptor).unwrap();
    }
}

fn sse(_: &mut Machine, vmcb: &mut Vmcb) {
    vmcb.save.cr4 |= 0x600;
}

exits! {
    cr0_read CR0_READ "mov eax, cr0";
    cr2_read CR2_READ "mov eax, cr2";
    cr3_read CR3_READ "mov eax, cr3";
    cr4_read CR4_READ "mov eax, cr4";
    cr8_read CR8_READ "db 0xf0, 0x0f, 0x20, 0xc0";
    cr0_write CR0_WRITE "clts";
    cr2_write CR2_WRITE "mov cr2, eax";
    cr3_write CR3_WRITE "mov cr3, eax";
    cr4_write CR4_WRITE "xor eax, eax\nhere: mov cr4, eax";
    cr8_write CR8_WRITE "xor eax, eax\nhere: db 0xf0, 0x0f, 0x22, 0xc0";
    dr0_read DR0_READ "db 0x0f, 0x21, 0xc0";
    dr1_read DR1_READ "db 0x0f, 0x21, 0xc8";
    dr2_read DR2_READ "db 0x0f, 0x21, 0xd0";
    dr3_read DR3_READ "db 0x0f, 0x21, 0xd8";
    dr4_read DR4_READ "db 0x0f, 0x21, 0xe0";
    dr5_read DR5_READ "db 0x0f, 0x21, 0xe8";
    dr6_read DR6_READ "db 0x0f, 0x21, 0xf0";
    dr7_read DR7_READ "db 0x0f, 0x21, 0xf8";
    dr0_write DR0_WRITE "db 0x0f, 0x23, 0xc0";
    dr1_write DR1_WRITE "db 0x0f, 0x23, 0xc8";
    dr2_write DR2_WRITE "db 0x0f, 0x23, 0xd0";
    dr3_write DR3_WRITE "db 0x0f, 0x23, 0xd8";
    dr4_write DR4_WRITE "db 0x0f, 0x23, 0xe0";
    dr5_write DR5_WRITE "db 0x0f, 0x23, 0xe8";
    dr6_write DR6_WRITE "db 0x0f, 0x23, 0xf0";
    dr7_write DR7_WRITE "xor eax, eax\nhere: db 0x0f, 0x23, 0xf8";
    excp_de EXCP_DE "xor ecx, ecx\nhere: div ecx";
    excp_db EXCP_DB "nop\nhere:", |_, vmcb| vmcb.save.rflags = 0x102;
    excp_bp EXCP_BP "int3";
    excp_of EXCP_OF "into", |_, vmcb| vmcb.save.rflags = 0x802;
    excp_br EXCP_BR "bound eax, [0x5000]";
    excp_ud EXCP_UD "ud2";
    excp_nm EXCP_NM "movaps xmm0, xmm1", |_, vmcb| {
        vmcb.save.cr4 |= 0x600;
        vmcb.save.cr0 |= 8;
    };
    excp_df EXCP_DF "ud2";
    excp_ts EXCP_TS "jmp 16:0", descriptors;
    excp_np EXCP_NP "mov eax, 8\nhere: mov ds, eax", descriptors;
    excp_ss EXCP_SS "mov eax, 8\nhere: mov ss, eax", descriptors;
    excp_gp EXCP_GP "mov ecx, 0x12345678\nhere: wrmsr";
    // An empty page directory: the first fetch faults.
    excp_pf EXCP_PF "nop", |_, vmcb| {
        vmcb.save.cr0 = 0x8000_0011;
        vmcb.save.cr3 = 0x7_0000;
    };
    // Zero divided by zero, nothing masked; the next instruction that waits tells of it.
    excp_mf EXCP_MF "fninit\nfldcw [0x5000]\nfldz\nfldz\nfdivp\nhere: fwait", |_, vmcb| vmcb.save.cr0 |= 0x20;
    excp_ac EXCP_AC "mov eax, [0x5001]", |_, vmcb| {
        vmcb.save.cr0 |= 1 << 18;
        vmcb.save.rflags = 1 << 18 | 2;
        vmcb.save.cpl = 3;
        vmcb.save.cs = flat(0xc0fb).into();
        vmcb.save.ss = flat(0xc0f3).into();
        vmcb.save.ds = flat(0xc0f3).into();
    };
    // Zero divided by zero, nothing masked.
    excp_xf EXCP_XF "ldmxcsr [0x5000]\nhere: divps xmm0, xmm0", sse;
    excp_sx EXCP_SX "nop", |machine, _| {
        machine.with(|svm, cpu| svm.write_msr(cpu, isa::msr::VM_CR, 2)).unwrap().unwrap();
        machine.cpu.init_pending = true;
    };
    intr INTR "nop", |machine, vmcb| {
        vmcb.save.rflags = 0x202;
        machine.cpu.apic.set_base(0xfee0_0900).unwrap();
        let now = machine.cpu.cycles();
        machine.cpu.apic.write(0xf0, 0x1ff, now);
        let message = ApicMessage { destination: 0, logical: false, mode: DeliveryMode::Fixed, vector: 0x41, level: false };
        machine.cpu.apic.accept(&message);
    };
    nmi NMI "nop", |machine, _| machine.cpu.nmi_pending = true;
    smi SMI "nop", |machine, _| machine.cpu.smi_pending = true;
    init INIT "nop", |machine, _| machine.cpu.init_pending = true;
    vintr VINTR "nop", |_, vmcb| {
        vmcb.save.rflags = 0x202;
        let word = vmcb.control.virtual_interrupt;
        vmcb.control.virtual_interrupt = word.with_v_irq(true).with_v_intr_vector(0x41).with_v_ign_tpr(true).with_v_intr_masking(true);
    };
    cr0_sel_write CR0_SEL_WRITE "mov eax, 0x40000011\nhere: mov cr0, eax";
    idtr_read IDTR_READ "sidt [0x5000]";
    gdtr_read GDTR_READ "sgdt [0x5000]";
    ldtr_read LDTR_READ "sldt eax";
    tr_read TR_READ "str eax";
    idtr_write IDTR_WRITE "lidt [0x5000]";
    gdtr_write GDTR_WRITE "lgdt [0x5000]";
    ldtr_write LDTR_WRITE "mov eax, 24\nhere: lldt ax", descriptors;
    tr_write TR_WRITE "mov eax, 16\nhere: ltr ax", descriptors;
    rdtsc RDTSC "rdtsc";
    rdpmc RDPMC "rdpmc";
    rdpru RDPRU "db 0x0f, 0x01, 0xfd";
    pushf PUSHF "pushfd";
    popf POPF "popfd";
    cpuid CPUID "cpuid";
    rsm RSM "rsm";
    iret IRET "iretd";
    swint SWINT "int 0x80";
    invd INVD "invd";
    pause PAUSE "pause";
    hlt HLT "hlt";
    invlpg INVLPG "invlpg [0x5000]";
    invlpga INVLPGA "invlpga";
    ioio IOIO "in al, 0x60", |machine, _| machine.memory.write(common::IOPM, &[0xff; 0x2001]).unwrap();
    msr MSR "mov ecx, 0xc0000080\nhere: rdmsr", |machine, _| machine.memory.write(common::MSRPM, &[0xff; 0x2000]).unwrap();
    task_switch TASK_SWITCH "jmp 16:0", |machine, _| {
        machine.memory.write_u64(GDT + 16, 0x0000_8900_9100_0067).unwrap();
    };
    // Zero divided by zero, nothing masked, and no way to report it.
    ferr_freeze FERR_FREEZE "fninit\nfldcw [0x5000]\nfldz\nfldz\nfdivp\nhere: fwait", |_, vmcb| vmcb.save.cr0 &= !0x20;
    shutdown SHUTDOWN "ud2";
    vmrun VMRUN "vmrun";
    vmmcall VMMCALL "vmmcall";
    vmload VMLOAD "vmload";
    vmsave VMSAVE "vmsave";
    stgi STGI "stgi";
    clgi CLGI "clgi";
    skinit SKINIT "db 0x0f, 0x01, 0xde";
    monitor MONITOR "db 0x0f, 0x01, 0xc8";
    mwait MWAIT "db 0x0f, 0x01, 0xc9";
    rdtscp RDTSCP "rdtscp";
    icebp ICEBP "db 0xf1";
    wbinvd WBINVD "wbinvd";
    xsetbv XSETBV "xor ecx, ecx\nxor edx, edx\nmov eax, 1\nhere: xsetbv", |_, vmcb| vmcb.save.cr4 |= 1 << 18;
    invpcid INVPCID "xor eax, eax\nhere: invpcid eax, [0x5000]";
    // Empty nested tables.
    npf NPF "nop", |_, vmcb| {
        vmcb.control.nested_control = vmcb.control.nested_control.with_np_enable(true);
        vmcb.control.n_cr3 = 0x7_0000;
    };
    invalid INVALID "nop", |_, vmcb| vmcb.control.guest_asid = 0;
}

/// Codes that cannot happen and are no intercept that the silicon's own table speaks of.
const NEVER: &[(ExitCode, &str)] = &[
    (ExitCode::EXCP_NMI, "vector 2 is the NMI intercept's"),
    (ExitCode::EXCP_9, "reserved"),
    (ExitCode::EXCP_15, "reserved"),
    (ExitCode::EXCP_MC, "nothing goes wrong in this machine"),
    (ExitCode::EXCP_20, "reserved"),
    (ExitCode::EXCP_CP, "shadow stacks are not offered"),
    (ExitCode::EXCP_22, "reserved"),
    (ExitCode::EXCP_23, "reserved"),
    (ExitCode::EXCP_24, "reserved"),
    (ExitCode::EXCP_25, "reserved"),
    (ExitCode::EXCP_26, "reserved"),
    (ExitCode::EXCP_27, "reserved"),
    (ExitCode::EXCP_HV, "SEV-SNP is not offered"),
    (ExitCode::EXCP_VC, "SEV-ES is not offered"),
    (ExitCode::EXCP_31, "reserved"),
    (ExitCode::AVIC_INCOMPLETE_IPI, "AVIC is not offered"),
    (ExitCode::AVIC_NOACCEL, "AVIC is not offered"),
    (ExitCode::VMGEXIT, "SEV-ES is not offered"),
    (ExitCode::INVALID_PMC, "PMC virtualization is not offered"),
    (ExitCode::IDLE_REQUIRED, "SEV-SNP is not offered"),
    (ExitCode::BUSY, "SEV-SNP is not offered"),
];

#[test]
fn every_exit_code_has_a_test_or_a_reason() {
    for (code, row) in ExitCode::ALL {
        let tested = TESTED.contains(code);
        let refused = NEVER.iter().any(|(never, _)| never == code) || code.0 < 0xc0 && matches!(realised(*code), Realised::Never(_));
        assert_eq!(tested, !refused, "{}: tested {tested}, cannot happen {refused}", row.name);
    }
}
