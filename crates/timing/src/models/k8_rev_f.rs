//! Costs of a K8 core of revision F (AMD, 90 nm, 2006: the first with SVM).
//!
//! Instruction classes follow Agner Fog's instruction tables for K8, rounded to the nearest tick; where no entry is quoted the row says
//! assumed. Of the transition, two sums are measured under Xen: a null hypercall of near 3300 cycles, and near 650 cycles for two VMSAVE
//! and two VMLOAD.

use crate::cost::Why::{Assumed, Manual, Measured};
use crate::cost::{Cost, Why};
use crate::rows::CostModel;

const NO_VMX: Cost = Cost::absent("no VMX on this processor");
const NOT_IN_SET: Cost = Cost::absent("the instruction is not in this processor's set");
const SIMPLE: Why =
    Manual("Agner Fog, Instruction tables, K8: one of three ALUs, reciprocal throughput 0.33");
const MEMORY: Why = Manual(
    "Agner Fog, Instruction tables, K8: two accesses of the data cache a cycle, reciprocal throughput 0.5",
);
const MICROCODED: Why = Assumed("a short microcoded instruction, taken as 10 to 40 cycles");
const SERIALIZING: Why = Assumed(
    "serializing and microcoded; a little less than Zen's measured 125 cycles of CPUID leaf 0",
);
const HALVES: Why = Assumed("128 bits are done in two halves on 64-bit units");
const SAVE_LOAD: Why = Measured(
    "Xen commit f64b7618e1 message, 2007, Athlon 64 X2: two VMSAVE and two VMLOAD near 650 cycles; a quarter each",
);
const TRANSITION: Why = Assumed(
    "Xen's null hypercall of near 3300 cycles (commit f64b7618e1, 2007) less 1300 for its software leaves 2000 for both ways, split evenly",
);
const HYPERVISOR: Why = Assumed(
    "Xen's null hypercall of near 3300 cycles (commit f64b7618e1, 2007), of which 1300 are taken to be software: 1150 and 150",
);

/// K8 revision F.
pub const K8_REV_F: CostModel = CostModel {
    name: "k8-rev-f",
    title: "AMD Athlon 64 X2, K8 core revision F, 90 nm, 2006",

    nop: Cost::ticks(1, SIMPLE),
    register_move: Cost::ticks(1, SIMPLE),
    load: Cost::ticks(2, MEMORY),
    store: Cost::ticks(2, MEMORY),
    load_op: Cost::ticks(2, MEMORY),
    read_modify_write: Cost::ticks(4, Assumed("a load and a store, one a cycle")),
    alu: Cost::ticks(1, SIMPLE),
    alu_carry: Cost::ticks(1, SIMPLE),
    lea: Cost::ticks(
        1,
        Manual(
            "Agner Fog, Instruction tables, K8: LEA of 32 or 64 bits, reciprocal throughput 0.33",
        ),
    ),
    shift: Cost::ticks(1, SIMPLE),
    shift_by_cl: Cost::ticks(1, SIMPLE),
    double_shift: Cost::ticks(12, Assumed("microcoded, three cycles")),
    rotate_through_carry: Cost::ticks(
        4,
        Assumed("RCL r,1 a cycle; by a count it is several times slower"),
    ),
    multiply32: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, K8: IMUL r32,r32, reciprocal throughput 1"),
    ),
    multiply64: Cost::ticks(
        8,
        Manual("Agner Fog, Instruction tables, K8: IMUL r64,r64, reciprocal throughput 2"),
    ),
    divide8: Cost::ticks(
        60,
        Manual("Agner Fog, Instruction tables, K8: DIV r8, reciprocal throughput 15"),
    ),
    divide16: Cost::ticks(
        92,
        Manual("Agner Fog, Instruction tables, K8: DIV r16, reciprocal throughput 23"),
    ),
    divide32: Cost::ticks(
        156,
        Manual("Agner Fog, Instruction tables, K8: DIV r32, reciprocal throughput 39"),
    ),
    divide64: Cost::ticks(
        284,
        Manual("Agner Fog, Instruction tables, K8: DIV r64, reciprocal throughput 71"),
    ),
    branch: Cost::ticks(
        8,
        Manual("Agner Fog, Instruction tables, K8: a taken jump, reciprocal throughput 2"),
    ),
    branch_indirect: Cost::ticks(8, Assumed("as a taken jump")),
    call: Cost::ticks(8, Assumed("a taken jump and a store")),
    near_return: Cost::ticks(8, Assumed("a taken jump and a load")),
    push: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, K8: PUSH r, reciprocal throughput 1"),
    ),
    pop: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, K8: POP r, reciprocal throughput 1"),
    ),
    push_flags: Cost::ticks(8, Assumed("two cycles")),
    pop_flags: Cost::ticks(32, Assumed("microcoded, eight cycles")),
    stack_frame: Cost::ticks(12, Assumed("LEAVE three cycles; ENTER and PUSHA more")),
    conditional_move: Cost::ticks(1, SIMPLE),
    set_condition: Cost::ticks(1, SIMPLE),
    bit_test: Cost::ticks(1, SIMPLE),
    bit_scan: Cost::ticks(32, Assumed("microcoded, eight cycles and more")),
    population_count: NOT_IN_SET,
    byte_swap: Cost::ticks(1, SIMPLE),
    bit_manipulation: NOT_IN_SET,
    crc: NOT_IN_SET,
    exchange: Cost::ticks(4, Assumed("two operations that depend on each other")),
    compare_exchange: Cost::ticks(20, Assumed("microcoded, five cycles")),
    atomic: Cost::ticks(
        64,
        Assumed(
            "a locked line in the first-level cache; 20 cycles on Zen (InstLatx64), near 16 here",
        ),
    ),
    flag_control: Cost::ticks(
        2,
        Assumed("CLC a third of a cycle, CLD and STD one and more"),
    ),
    interrupt_flag: Cost::ticks(
        16,
        Assumed("microcoded, does not serialize; taken as 4 cycles"),
    ),
    legacy_arithmetic: Cost::ticks(24, Assumed("microcoded; taken as 6 cycles")),
    string_setup: Cost::ticks(60, Assumed("start of the microcode loop, 15 cycles")),
    string_element: Cost::ticks(6, Assumed("one and a half cycles an element")),
    sse_move: Cost::ticks(4, HALVES),
    sse_load: Cost::ticks(4, HALVES),
    sse_store: Cost::ticks(4, HALVES),
    sse_transfer: Cost::ticks(8, Assumed("through the load and store unit")),
    sse_integer: Cost::ticks(4, HALVES),
    sse_integer_multiply: Cost::ticks(8, HALVES),
    sse_shuffle: Cost::ticks(6, HALVES),
    sse_fp_add: Cost::ticks(8, HALVES),
    sse_fp_multiply: Cost::ticks(8, HALVES),
    sse_fp_divide32: Cost::ticks(52, Assumed("scalar; the unit is not pipelined")),
    sse_fp_divide64: Cost::ticks(68, Assumed("scalar; the unit is not pipelined")),
    sse_fp_sqrt32: Cost::ticks(64, Assumed("scalar; the unit is not pipelined")),
    sse_fp_sqrt64: Cost::ticks(96, Assumed("scalar; the unit is not pipelined")),
    sse_compare: Cost::ticks(4, Assumed("one a cycle")),
    sse_convert: Cost::ticks(8, HALVES),
    fpu_control: Cost::ticks(36, Assumed("nine cycles")),
    save_state: Cost::cycles(
        60,
        Assumed("64 bytes of x87 state and 256 of XMM in a microcoded loop"),
    ),
    restore_state: Cost::cycles(
        80,
        Assumed("as save_state, with the checks of MXCSR and tags"),
    ),
    load_fence: Cost::ticks(12, Assumed("three cycles")),
    store_fence: Cost::ticks(12, Assumed("three cycles")),
    memory_fence: Cost::ticks(64, Assumed("near the locked instructions")),
    cpuid: Cost::cycles(100, SERIALIZING),
    rdtsc: Cost::cycles(
        12,
        Assumed("not synchronised with anything outside the core; 36 cycles on Zen 3 (InstLatx64)"),
    ),
    rdpmc: Cost::cycles(12, MICROCODED),
    rdmsr: Cost::cycles(90, Assumed("microcoded lookup")),
    wrmsr: Cost::cycles(
        250,
        Assumed("serializing; as measured on Haswell (kvm-unit-tests f2665de7)"),
    ),
    xgetbv: NOT_IN_SET,
    xsetbv: NOT_IN_SET,
    segment_base: Cost::cycles(25, MICROCODED),
    mov_cr: Cost::cycles(80, SERIALIZING),
    cr3_write: Cost::cycles(
        120,
        Assumed("serializing; the flush filter of this family spares most of the TLB"),
    ),
    mov_dr: Cost::cycles(80, SERIALIZING),
    invlpg: Cost::cycles(100, Assumed("serializing")),
    invpcid: NOT_IN_SET,
    cache_line: Cost::cycles(
        2,
        Assumed("clean line; the miss that follows is not modelled"),
    ),
    cache_flush: Cost::cycles(
        2000,
        Assumed("an empty cache: nothing to write back is modelled"),
    ),
    descriptor_table: Cost::cycles(40, MICROCODED),
    segment_load: Cost::cycles(10, MICROCODED),
    far_transfer: Cost::cycles(40, Assumed("two descriptor loads and their checks")),
    software_interrupt: Cost::cycles(
        10,
        Assumed("recognition only; the gate is exception_delivery"),
    ),
    iret: Cost::cycles(
        100,
        Assumed("a shorter pipeline than Yonah's, which takes 240 cycles (Torvalds 2014)"),
    ),
    syscall: Cost::cycles(
        30,
        Assumed("this family's own instruction, made to be short"),
    ),
    sysret: Cost::cycles(
        40,
        Assumed("this family's own instruction, made to be short"),
    ),
    sysenter: Cost::cycles(60, Assumed("microcoded; legacy mode only")),
    sysexit: Cost::cycles(60, Assumed("microcoded; legacy mode only")),
    port_io: Cost::cycles(
        120,
        Assumed("serializing; the device's time is device_access"),
    ),
    hlt: Cost::cycles(50, Assumed("until no more instructions issue")),
    pause: Cost::cycles(3, Assumed("as measured on Zen (InstLatx64: 3)")),
    system_other: Cost::cycles(40, MICROCODED),

    tlb_hit: Cost::cycles(0, Assumed("inside the load's own latency")),
    page_walk_level: Cost::cycles(
        8,
        Assumed(
            "a load that hits the second cache level: 12 cycles, less what the walk cache spares",
        ),
    ),
    nested_walk_level: Cost::absent("no nested paging on this processor"),
    accessed_dirty_update: Cost::ticks(64, Assumed("a locked update: as the atomic row")),
    exception_delivery: Cost::cycles(
        250,
        Assumed("a shorter pipeline than Yonah's, which takes 700 cycles (Torvalds 2014)"),
    ),
    interrupt_delivery: Cost::cycles(250, Assumed("as exception_delivery")),
    task_switch: Cost::cycles(800, Assumed("two TSS accesses and seven segment loads")),
    self_modifying_code: Cost::cycles(100, Assumed("pipeline flush and refetch")),
    apic_access: Cost::cycles(50, Assumed("uncached access inside the core's own agent")),
    device_access: Cost::cycles(
        1200,
        Assumed("a register behind HyperTransport and the south bridge, about half a microsecond"),
    ),
    ipi_latency: Cost::cycles(800, Assumed("a third of a microsecond")),
    halt_wake: Cost::cycles(200, Assumed("waking from C1, some hundred cycles")),

    vm_exit: Cost::cycles(1000, TRANSITION),
    vm_entry: Cost::cycles(1000, TRANSITION),
    vm_entry_failed: Cost::cycles(
        500,
        Assumed("half of VMRUN: the state is read and checked, then given up"),
    ),
    event_injection: Cost::cycles(100, Assumed("beyond the gate's own cost")),
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
    vmload: Cost::cycles(162, SAVE_LOAD),
    vmsave: Cost::cycles(162, SAVE_LOAD),
    stgi: Cost::cycles(20, Assumed("as measured on a Zen-class core: 18")),
    clgi: Cost::cycles(20, Assumed("as measured on a Zen-class core: 17")),
    invlpga: Cost::cycles(100, Assumed("as INVLPG")),
    skinit: Cost::cycles(
        100_000,
        Assumed("the hash of up to 64 KBytes through the TPM is far slower; once a boot"),
    ),
    tlb_flush: Cost::cycles(200, Assumed("entries invalidated by generation")),

    exit_dispatch: Cost::cycles(1150, HYPERVISOR),
    hypercall_handler: Cost::cycles(150, HYPERVISOR),
    hypercall_kick: Cost::cycles(600, Assumed("one physical IPI's sending side")),
    emulate_decode: Cost::cycles(
        1000,
        Assumed(
            "twice the cycles of the emulator measured on Sandy Bridge (kvm-unit-tests b5105e8b: 887)",
        ),
    ),
    emulate_execute: Cost::cycles(
        800,
        Assumed(
            "twice the cycles of the emulator measured on Sandy Bridge (kvm-unit-tests b5105e8b: 887)",
        ),
    ),
    patch_write: Cost::cycles(
        700,
        Assumed("a guest page walk in software and a write of three bytes"),
    ),
    mmu_zap: Cost::cycles(
        20000,
        Assumed("every shadow page visited and freed, and every CPU told to flush"),
    ),
    nested_fault_fix: Cost::absent("no nested paging on this processor"),
    shadow_fault_fix: Cost::cycles(
        4000,
        Assumed("a walk of the guest's own tables, memory-slot lookup, up to four shadow entries"),
    ),
    cpuid_handler: Cost::cycles(120, Assumed("as a hypercall: a table lookup")),
    msr_handler: Cost::cycles(200, Assumed("a table lookup and a callback")),
    control_register_handler: Cost::cycles(
        500,
        Assumed("checks, and the shadow MMU's mode recomputed"),
    ),
    io_in_kernel: Cost::cycles(
        700,
        Assumed("553 cycles on an Intel core of 2012 (kvm-unit-tests 00bfecaa)"),
    ),
    io_in_userspace: Cost::cycles(
        16676,
        Assumed(
            "as on a core of 2012: inl_from_qemu 20574 less vmcall 3898 (kvm-unit-tests 00bfecaa)",
        ),
    ),
    inject_event: Cost::cycles(
        60,
        Assumed("one store to the VMCB and the choice of the event"),
    ),
    halt_and_wake: Cost::cycles(6000, Assumed("two scheduler switches")),
    host_interrupt: Cost::cycles(1200, Assumed("the host's own handler, light")),
    migrate_save: Cost::cycles(
        20000,
        Assumed("a stop, the VMCB copied and some hundred MSR reads"),
    ),
    migrate_load: Cost::cycles(20000, Assumed("as migrate_save")),
    migrate_page: Cost::cycles(
        4000,
        Assumed("the processor's part of sending 4 KBytes over gigabit Ethernet"),
    ),
    userspace_round_trip: Cost::cycles(
        2000,
        Assumed("an ioctl both ways; 1168 cycles on Zen (Roth 2020)"),
    ),
};
