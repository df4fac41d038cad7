//! Costs of a K8 core of revision F (AMD, 90 nm, 2006: the first with SVM).
//!
//! Instruction classes are reciprocal throughputs that InstLatx64 measured on revision E of the core, which differs from F in memory
//! controller and virtualization; the numbers used are in `k8_rev_f.instlatx64.txt` beside this file, and a test compares them. Of the
//! transition, two sums are measured under Xen: a null hypercall of near 3300 cycles, and near 650 cycles for two VMSAVE and two VMLOAD.

use crate::cost::Why::{Assumed, Measured};
use crate::cost::{Cost, Why};
use crate::rows::CostModel;

const NO_VMX: Cost = Cost::absent("no VMX on this processor");
const NOT_IN_SET: Cost = Cost::absent("the instruction is not in this processor's set");
const MICROCODED: Why = Assumed("a short microcoded instruction, taken as 10 to 40 cycles");
const SERIALIZING: Why = Assumed("serializing and microcoded; near twice CPUID leaf 0 (InstLatx64: 48)");
const SAVE_LOAD: Why =
    Measured("Xen commit f64b7618e1 message, 2007, Athlon 64 X2: two VMSAVE and two VMLOAD near 650 cycles; a quarter each");
const TRANSITION: Why = Assumed(
    "Xen's null hypercall of near 3300 cycles (commit f64b7618e1, 2007) less 1300 for its software leaves 2000 for both ways, split evenly",
);
const HYPERVISOR: Why =
    Assumed("Xen's null hypercall of near 3300 cycles (commit f64b7618e1, 2007), of which 1300 are taken to be software: 1150 and 150");

/// A class whose cost is a reciprocal throughput that InstLatx64 measured, rounded to the nearest tick, at least one.
macro_rules! instlat {
    ($ticks:literal, $shape:literal) => {
        Cost::in_ticks($ticks, Measured(concat!("InstLatx64, Athlon 64 X2 3800+ (K8 revision E): ", $shape)))
    };
}

/// K8 revision F.
pub const K8_REV_F: CostModel = CostModel {
    name: "k8-rev-f",
    title: "AMD Athlon 64 X2, K8 core revision F, 90 nm, 2006",

    nop: instlat!(1, "NOP"),
    register_move: instlat!(1, "MOV r64, r64"),
    load: instlat!(2, "MOV r64, [m64]"),
    store: instlat!(2, "MOV [m64 + 16], r64"),
    load_op: instlat!(2, "ADD r64, [m64]"),
    read_modify_write: instlat!(8, "ADD [m64], r64"),
    alu: instlat!(1, "ADD r64, r64"),
    alu_carry: instlat!(4, "ADC r64, r64"),
    lea: instlat!(1, "LEA r64, [r64 + r64 + disp8]"),
    shift: instlat!(1, "SHL r64, imm8"),
    shift_by_cl: instlat!(1, "SHL r64, cl"),
    double_shift: instlat!(8, "SHLD r1_64, r2_64, imm8"),
    rotate_through_carry: instlat!(4, "RCL r64, 1"),
    multiply32: instlat!(4, "IMUL r32, r32"),
    multiply64: instlat!(8, "IMUL r64, r64"),
    divide8: instlat!(64, "DIV r8 8/ 8b ax upd"),
    divide16: instlat!(96, "DIV r16 16/16b ax upd"),
    divide32: instlat!(160, "DIV r32 32/32b eax upd"),
    divide64: instlat!(288, "DIV r64 64/64b rax upd"),
    branch: Cost::in_ticks(8, Assumed("a taken, predicted jump; two cycles")),
    branch_indirect: Cost::in_ticks(8, Assumed("as a taken jump")),
    call: Cost::in_ticks(8, Assumed("a taken jump and a store")),
    near_return: Cost::in_ticks(8, Assumed("a taken jump and a load")),
    push: instlat!(4, "PUSH r64"),
    pop: instlat!(4, "POP r64"),
    push_flags: instlat!(8, "PUSHFQ"),
    pop_flags: Cost::in_ticks(40, Measured("InstLatx64, Athlon 64 X2 3800+ (K8 revision E): PUSHFQ + POPFQ 12 cycles, less PUSHFQ 2")),
    stack_frame: Cost::in_ticks(12, Assumed("LEAVE three cycles; ENTER and PUSHA more")),
    conditional_move: instlat!(1, "CMOVNZ r64, r64"),
    set_condition: instlat!(1, "SETC r8"),
    bit_test: instlat!(1, "BT r32, r32"),
    bit_scan: instlat!(36, "BSF r64, r64"),
    population_count: NOT_IN_SET,
    byte_swap: instlat!(1, "BSWAP r64"),
    bit_manipulation: NOT_IN_SET,
    crc: NOT_IN_SET,
    exchange: instlat!(4, "XCHG r1_64, r2_64"),
    compare_exchange: instlat!(8, "CMPXCHG r64, r64"),
    atomic: instlat!(72, "LOCK ADD [m64], r64"),
    flag_control: instlat!(4, "CLD"),
    interrupt_flag: Cost::in_ticks(16, Assumed("microcoded, does not serialize; taken as 4 cycles")),
    legacy_arithmetic: Cost::in_ticks(24, Assumed("microcoded; taken as 6 cycles")),
    string_setup: Cost::in_ticks(60, Assumed("start of the microcode loop, 15 cycles")),
    string_element: Cost::in_ticks(6, Assumed("one and a half cycles an element")),
    sse_move: instlat!(4, "MOVDQA xmm, xmm"),
    sse_load: instlat!(8, "MOVDQA xmm, [m128]"),
    sse_store: instlat!(8, "MOVDQA [m128], xmm"),
    sse_transfer: instlat!(10, "MOVD r64, xmm"),
    sse_integer: instlat!(4, "PADDD xmm, xmm"),
    sse_integer_multiply: instlat!(8, "PMULLW xmm, xmm"),
    sse_shuffle: instlat!(6, "PSHUFD xmm, xmm, im8"),
    sse_fp_add: instlat!(8, "ADDPS xmm, xmm"),
    sse_fp_multiply: instlat!(8, "MULPS xmm, xmm"),
    sse_fp_divide32: instlat!(52, "DIVSS xmm, xmm"),
    sse_fp_divide64: instlat!(68, "DIVSD xmm, xmm"),
    sse_fp_sqrt32: instlat!(64, "SQRTSS xmm, xmm"),
    sse_fp_sqrt64: instlat!(96, "SQRTSD xmm, xmm"),
    sse_compare: instlat!(4, "COMISD xmm, xmm"),
    sse_convert: instlat!(10, "CVTTSD2SI r32, xmm"),
    fpu_control: instlat!(36, "LDMXCSR [mem]"),
    save_state: Cost::in_cycles(60, Assumed("64 bytes of x87 state and 256 of XMM in a microcoded loop")),
    restore_state: Cost::in_cycles(80, Assumed("as save_state, with the checks of MXCSR and tags")),
    load_fence: instlat!(20, "LFENCE"),
    store_fence: instlat!(32, "SFENCE"),
    memory_fence: instlat!(64, "MFENCE"),
    cpuid: instlat!(193, "CPUID (EAX = 0)"),
    rdtsc: instlat!(26, "RDTSC"),
    rdpmc: Cost::in_cycles(12, MICROCODED),
    rdmsr: Cost::in_cycles(90, Assumed("microcoded lookup")),
    wrmsr: Cost::in_cycles(250, Assumed("serializing; as measured on Haswell (kvm-unit-tests f2665de7)")),
    xgetbv: NOT_IN_SET,
    xsetbv: NOT_IN_SET,
    segment_base: Cost::in_cycles(25, MICROCODED),
    mov_cr: Cost::in_cycles(80, SERIALIZING),
    cr3_write: Cost::in_cycles(120, Assumed("serializing; the flush filter of this family spares most of the TLB")),
    mov_dr: Cost::in_cycles(80, SERIALIZING),
    invlpg: Cost::in_cycles(100, Assumed("serializing")),
    invpcid: NOT_IN_SET,
    cache_line: Cost::in_cycles(2, Assumed("clean line; the miss that follows is not modelled")),
    cache_flush: Cost::in_cycles(2000, Assumed("an empty cache: nothing to write back is modelled")),
    descriptor_table: Cost::in_cycles(40, MICROCODED),
    segment_load: Cost::in_cycles(10, MICROCODED),
    far_transfer: Cost::in_cycles(40, Assumed("two descriptor loads and their checks")),
    software_interrupt: Cost::in_cycles(10, Assumed("recognition only; the gate is exception_delivery")),
    iret: Cost::in_cycles(100, Assumed("a shorter pipeline than Yonah's, which takes 240 cycles (Torvalds 2014)")),
    syscall: Cost::in_cycles(30, Assumed("this family's own instruction, made to be short")),
    sysret: Cost::in_cycles(40, Assumed("this family's own instruction, made to be short")),
    sysenter: Cost::in_cycles(60, Assumed("microcoded; legacy mode only")),
    sysexit: Cost::in_cycles(60, Assumed("microcoded; legacy mode only")),
    port_io: Cost::in_cycles(120, Assumed("serializing; the device's time is device_access")),
    hlt: Cost::in_cycles(50, Assumed("until no more instructions issue")),
    pause: instlat!(1, "PAUSE"),
    system_other: Cost::in_cycles(40, MICROCODED),

    tlb_hit: Cost::in_cycles(0, Assumed("inside the load's own latency")),
    page_walk_level: Cost::in_cycles(8, Assumed("a load that hits the second cache level: 12 cycles, less what the walk cache spares")),
    nested_walk_level: Cost::absent("no nested paging on this processor"),
    accessed_dirty_update: Cost::in_ticks(64, Assumed("a locked update: as the atomic row")),
    exception_delivery: Cost::in_cycles(250, Assumed("a shorter pipeline than Yonah's, which takes 700 cycles (Torvalds 2014)")),
    interrupt_delivery: Cost::in_cycles(250, Assumed("as exception_delivery")),
    task_switch: Cost::in_cycles(800, Assumed("two TSS accesses and seven segment loads")),
    self_modifying_code: Cost::in_cycles(100, Assumed("pipeline flush and refetch")),
    apic_access: Cost::in_cycles(50, Assumed("uncached access inside the core's own agent")),
    device_access: Cost::in_cycles(1200, Assumed("a register behind HyperTransport and the south bridge, about half a microsecond")),
    ipi_latency: Cost::in_cycles(800, Assumed("a third of a microsecond")),
    halt_wake: Cost::in_cycles(200, Assumed("waking from C1, some hundred cycles")),

    vm_exit: Cost::in_cycles(1000, TRANSITION),
    vm_entry: Cost::in_cycles(1000, TRANSITION),
    vm_entry_failed: Cost::in_cycles(500, Assumed("half of VMRUN: the state is read and checked, then given up")),
    event_injection: Cost::in_cycles(100, Assumed("beyond the gate's own cost")),
    msr_list_entry: Cost::absent("SVM has no MSR lists"),
    vmread: NO_VMX,
    vmwrite: NO_VMX,
    vmptrld: NO_VMX,
    vmptrst: NO_VMX,
    vmclear: NO_VMX,
    vmxon: NO_VMX,
    vmxoff: NO_VMX,
    invept: NO_VMX,
    invvpid: NO_VMX,
    vmload: Cost::in_cycles(162, SAVE_LOAD),
    vmsave: Cost::in_cycles(162, SAVE_LOAD),
    stgi: Cost::in_cycles(20, Assumed("as measured on a Zen-class core: 18")),
    clgi: Cost::in_cycles(20, Assumed("as measured on a Zen-class core: 17")),
    invlpga: Cost::in_cycles(100, Assumed("as INVLPG")),
    skinit: Cost::in_cycles(100_000, Assumed("the hash of up to 64 KBytes through the TPM is far slower; once a boot")),
    tlb_flush: Cost::in_cycles(200, Assumed("entries invalidated by generation")),

    exit_dispatch: Cost::in_cycles(1150, HYPERVISOR),
    hypercall_handler: Cost::in_cycles(150, HYPERVISOR),
    hypercall_kick: Cost::in_cycles(600, Assumed("one physical IPI's sending side")),
    emulate_decode: Cost::in_cycles(
        1000,
        Assumed("twice the cycles of the emulator measured on Sandy Bridge (kvm-unit-tests b5105e8b: 887)"),
    ),
    emulate_execute: Cost::in_cycles(
        800,
        Assumed("twice the cycles of the emulator measured on Sandy Bridge (kvm-unit-tests b5105e8b: 887)"),
    ),
    patch_write: Cost::in_cycles(700, Assumed("a guest page walk in software and a write of three bytes")),
    mmu_zap: Cost::in_cycles(20000, Assumed("every shadow page visited and freed, and every CPU told to flush")),
    nested_fault_fix: Cost::absent("no nested paging on this processor"),
    shadow_fault_fix: Cost::in_cycles(4000, Assumed("a walk of the guest's own tables, memory-slot lookup, up to four shadow entries")),
    cpuid_handler: Cost::in_cycles(120, Assumed("as a hypercall: a table lookup")),
    msr_handler: Cost::in_cycles(200, Assumed("a table lookup and a callback")),
    control_register_handler: Cost::in_cycles(500, Assumed("checks, and the shadow MMU's mode recomputed")),
    io_in_kernel: Cost::in_cycles(700, Assumed("553 cycles on an Intel core of 2012 (kvm-unit-tests 00bfecaa)")),
    io_in_userspace: Cost::in_cycles(
        16676,
        Assumed("as on a core of 2012: inl_from_qemu 20574 less vmcall 3898 (kvm-unit-tests 00bfecaa)"),
    ),
    inject_event: Cost::in_cycles(60, Assumed("one store to the VMCB and the choice of the event")),
    halt_and_wake: Cost::in_cycles(6000, Assumed("two scheduler switches")),
    host_interrupt: Cost::in_cycles(1200, Assumed("the host's own handler, light")),
    migrate_save: Cost::in_cycles(20000, Assumed("a stop, the VMCB copied and some hundred MSR reads")),
    migrate_load: Cost::in_cycles(20000, Assumed("as migrate_save")),
    migrate_page: Cost::in_cycles(4000, Assumed("the processor's part of sending 4 KBytes over gigabit Ethernet")),
    userspace_round_trip: Cost::in_cycles(2000, Assumed("an ioctl both ways; 1168 cycles on Zen (Roth 2020)")),
};
