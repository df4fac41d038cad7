//! Costs of a Merom core (Intel Core 2, 65 nm, 2006).
//!
//! The VM transition is measured: 1579 cycles for exit and entry. Simple instruction classes follow Agner Fog's instruction tables for
//! this core, rounded to the nearest tick; where no entry is quoted the row says assumed.

use crate::cost::Why::{Assumed, Manual, Measured};
use crate::cost::{Cost, Why};
use crate::rows::CostModel;

const NO_SVM: Cost = Cost::absent("no SVM on this processor");
const NOT_IN_SET: Cost = Cost::absent("the instruction is not in this processor's set");
const SIMPLE: Why = Manual(
    "Agner Fog, Instruction tables, Core 2 65 nm: one of three ports, reciprocal throughput 0.33",
);
const MEMORY: Why = Manual(
    "Agner Fog, Instruction tables, Core 2 65 nm: one load port and one store port, reciprocal throughput 1",
);
const MICROCODED: Why = Assumed("a short microcoded instruction, taken as 15 to 50 cycles");
const SERIALIZING: Why = Assumed(
    "serializing and microcoded; two thirds more than on Skylake, where CPUID leaf 0 is 100",
);
const DIVIDER: Why = Assumed(
    "radix-16 came with the next core; between the published latencies of short and long quotients",
);
const FP_DIVIDER: Why =
    Assumed("radix-16 came with the next core; near the worst of the published range");

/// Merom.
pub const MEROM: CostModel = CostModel {
    name: "merom",
    title: "Intel Core 2, Merom core, 65 nm, 2006",

    nop: Cost::ticks(1, SIMPLE),
    register_move: Cost::ticks(1, SIMPLE),
    load: Cost::ticks(4, MEMORY),
    store: Cost::ticks(4, MEMORY),
    load_op: Cost::ticks(4, MEMORY),
    read_modify_write: Cost::ticks(4, MEMORY),
    alu: Cost::ticks(1, SIMPLE),
    alu_carry: Cost::ticks(4, Assumed("two micro-operations, latency 2")),
    lea: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: LEA, reciprocal throughput 1"),
    ),
    shift: Cost::ticks(
        2,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: SHL r,i, reciprocal throughput 0.5"),
    ),
    shift_by_cl: Cost::ticks(
        4,
        Assumed("as SHL by an immediate, with the flags' dependency"),
    ),
    double_shift: Cost::ticks(8, Assumed("two micro-operations on one port")),
    rotate_through_carry: Cost::ticks(
        8,
        Assumed("RCL r,1 two micro-operations, two cycles; by a count it is several times slower"),
    ),
    multiply32: Cost::ticks(
        4,
        Manual(
            "Agner Fog, Instruction tables, Core 2 65 nm: IMUL r32,r32, reciprocal throughput 1",
        ),
    ),
    multiply64: Cost::ticks(
        8,
        Manual(
            "Agner Fog, Instruction tables, Core 2 65 nm: IMUL r64,r64, reciprocal throughput 2",
        ),
    ),
    divide8: Cost::ticks(48, DIVIDER),
    divide16: Cost::ticks(72, DIVIDER),
    divide32: Cost::ticks(88, DIVIDER),
    divide64: Cost::ticks(160, DIVIDER),
    branch: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: Jcc, reciprocal throughput 1-2"),
    ),
    branch_indirect: Cost::ticks(8, Assumed("two cycles for a predicted indirect branch")),
    call: Cost::ticks(
        8,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: CALL near, reciprocal throughput 2"),
    ),
    near_return: Cost::ticks(
        8,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: RET near, reciprocal throughput 2"),
    ),
    push: Cost::ticks(4, MEMORY),
    pop: Cost::ticks(4, MEMORY),
    push_flags: Cost::ticks(28, Assumed("seven cycles")),
    pop_flags: Cost::ticks(56, Assumed("fourteen cycles")),
    stack_frame: Cost::ticks(
        8,
        Assumed("LEAVE two micro-operations; ENTER and PUSHA more"),
    ),
    conditional_move: Cost::ticks(4, Assumed("two micro-operations, latency 2")),
    set_condition: Cost::ticks(4, Assumed("one port, merged into the register")),
    bit_test: Cost::ticks(2, Assumed("as a shift")),
    bit_scan: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: BSF, reciprocal throughput 1"),
    ),
    population_count: NOT_IN_SET,
    byte_swap: Cost::ticks(8, Assumed("two micro-operations for 32 bits, more for 64")),
    bit_manipulation: NOT_IN_SET,
    crc: NOT_IN_SET,
    exchange: Cost::ticks(4, Assumed("three micro-operations")),
    compare_exchange: Cost::ticks(20, Assumed("five cycles")),
    atomic: Cost::ticks(
        80,
        Assumed(
            "a locked line in the first-level cache; 23 cycles on Skylake (InstLatx64), near 20 here",
        ),
    ),
    flag_control: Cost::ticks(8, Assumed("CLD and STD several cycles, CLC a third of one")),
    interrupt_flag: Cost::ticks(
        32,
        Assumed("microcoded, does not serialize; taken as 8 cycles"),
    ),
    legacy_arithmetic: Cost::ticks(32, Assumed("microcoded; taken as 8 cycles")),
    string_setup: Cost::ticks(100, Assumed("start of the microcode loop")),
    string_element: Cost::ticks(4, Assumed("one element a cycle")),
    sse_move: Cost::ticks(1, SIMPLE),
    sse_load: Cost::ticks(4, MEMORY),
    sse_store: Cost::ticks(4, MEMORY),
    sse_transfer: Cost::ticks(4, Assumed("one port")),
    sse_integer: Cost::ticks(
        2,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: PADD, reciprocal throughput 0.5"),
    ),
    sse_integer_multiply: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: PMULLW, reciprocal throughput 1"),
    ),
    sse_shuffle: Cost::ticks(
        6,
        Assumed("some of one, some of two micro-operations before the 45 nm shuffle unit"),
    ),
    sse_fp_add: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: ADDPS, reciprocal throughput 1"),
    ),
    sse_fp_multiply: Cost::ticks(
        4,
        Manual("Agner Fog, Instruction tables, Core 2 65 nm: MULPS, reciprocal throughput 1"),
    ),
    sse_fp_divide32: Cost::ticks(68, FP_DIVIDER),
    sse_fp_divide64: Cost::ticks(124, FP_DIVIDER),
    sse_fp_sqrt32: Cost::ticks(116, FP_DIVIDER),
    sse_fp_sqrt64: Cost::ticks(232, FP_DIVIDER),
    sse_compare: Cost::ticks(4, Assumed("one port")),
    sse_convert: Cost::ticks(4, Assumed("one a cycle")),
    fpu_control: Cost::ticks(32, Assumed("eight cycles")),
    save_state: Cost::cycles(
        100,
        Assumed("64 bytes of x87 state and 256 of XMM in a microcoded loop"),
    ),
    restore_state: Cost::cycles(
        150,
        Assumed("as save_state, with the checks of MXCSR and tags"),
    ),
    load_fence: Cost::ticks(32, Assumed("eight cycles")),
    store_fence: Cost::ticks(24, Assumed("six cycles")),
    memory_fence: Cost::ticks(80, Assumed("near the locked instructions")),
    cpuid: Cost::cycles(160, SERIALIZING),
    rdtsc: Cost::cycles(
        64,
        Assumed("slower than the 25 cycles of later cores (InstLatx64)"),
    ),
    rdpmc: Cost::cycles(50, MICROCODED),
    rdmsr: Cost::cycles(120, Assumed("microcoded lookup")),
    wrmsr: Cost::cycles(
        300,
        Assumed("serializing; 250 cycles on Haswell (kvm-unit-tests f2665de7)"),
    ),
    xgetbv: NOT_IN_SET,
    xsetbv: NOT_IN_SET,
    segment_base: Cost::cycles(40, MICROCODED),
    mov_cr: Cost::cycles(150, SERIALIZING),
    cr3_write: Cost::cycles(
        250,
        Assumed("serializing, and the non-global entries are flushed"),
    ),
    mov_dr: Cost::cycles(150, SERIALIZING),
    invlpg: Cost::cycles(250, Assumed("serializing")),
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
    segment_load: Cost::cycles(25, MICROCODED),
    far_transfer: Cost::cycles(80, Assumed("two descriptor loads and their checks")),
    software_interrupt: Cost::cycles(
        10,
        Assumed("recognition only; the gate is exception_delivery"),
    ),
    iret: Cost::cycles(
        240,
        Measured("Torvalds 2014-04-30, Core Duo (Yonah), 32-bit: IRET from #PF, 240 cycles"),
    ),
    syscall: Cost::cycles(80, Assumed("SYSCALL and SYSRET together near 160 cycles")),
    sysret: Cost::cycles(80, Assumed("SYSCALL and SYSRET together near 160 cycles")),
    sysenter: Cost::cycles(80, Assumed("as SYSCALL")),
    sysexit: Cost::cycles(80, Assumed("as SYSRET")),
    port_io: Cost::cycles(
        150,
        Assumed("serializing; the device's time is device_access"),
    ),
    hlt: Cost::cycles(50, Assumed("until no more instructions issue")),
    pause: Cost::cycles(9, Assumed("as measured on Haswell (InstLatx64: 9)")),
    system_other: Cost::cycles(50, MICROCODED),

    tlb_hit: Cost::cycles(0, Assumed("inside the load's own latency")),
    page_walk_level: Cost::cycles(
        6,
        Assumed("a load that hits the first or second cache level: 3 and 14 cycles"),
    ),
    nested_walk_level: Cost::absent("no EPT on this processor"),
    accessed_dirty_update: Cost::ticks(80, Assumed("a locked update: as the atomic row")),
    exception_delivery: Cost::cycles(
        700,
        Measured("Torvalds 2014-04-30, Core Duo (Yonah), 32-bit: #PF delivery, 700 cycles"),
    ),
    interrupt_delivery: Cost::cycles(700, Assumed("as the delivery of #PF, measured on Yonah")),
    task_switch: Cost::cycles(1500, Assumed("two TSS accesses and seven segment loads")),
    self_modifying_code: Cost::cycles(150, Assumed("machine clear: pipeline flush and refetch")),
    apic_access: Cost::cycles(50, Assumed("uncached access inside the core's own agent")),
    device_access: Cost::cycles(
        1000,
        Assumed("a register behind front-side bus and south bridge, about half a microsecond"),
    ),
    ipi_latency: Cost::cycles(
        1000,
        Assumed("about half a microsecond over the front-side bus"),
    ),
    halt_wake: Cost::cycles(200, Assumed("waking from C1, some hundred cycles")),

    vm_exit: Cost::cycles(
        869,
        Measured(
            "Agesen and others, USENIX ATC 2012, table 1, Merom: exit and entry 1579 cycles; the split 869/710 is assumed",
        ),
    ),
    vm_entry: Cost::cycles(
        710,
        Measured(
            "Agesen and others, USENIX ATC 2012, table 1, Merom: exit and entry 1579 cycles; the split 869/710 is assumed",
        ),
    ),
    vm_entry_failed: Cost::cycles(
        180,
        Assumed("a quarter of an entry: the checks on controls and host state only"),
    ),
    event_injection: Cost::cycles(150, Assumed("beyond the gate's own cost")),
    msr_list_entry: Cost::cycles(300, Assumed("as WRMSR")),
    vmread: Cost::cycles(
        50,
        Assumed("microcoded; near half of what early VMX cores are said to take"),
    ),
    vmwrite: Cost::cycles(50, Assumed("as VMREAD")),
    vmptrld: Cost::cycles(
        250,
        Assumed("reads the region's header and switches the on-chip copy"),
    ),
    vmptrst: Cost::cycles(40, Assumed("a store of eight bytes")),
    vmclear: Cost::cycles(500, Assumed("writes the on-chip copy back to the region")),
    vmxon: Cost::cycles(500, Assumed("serializing; once a boot")),
    vmxoff: Cost::cycles(500, Assumed("as VMXON")),
    invept: Cost::absent("no EPT on this processor"),
    invvpid: Cost::absent("no VPID on this processor"),
    vmload: NO_SVM,
    vmsave: NO_SVM,
    stgi: NO_SVM,
    clgi: NO_SVM,
    invlpga: NO_SVM,
    skinit: NO_SVM,
    tlb_flush: Cost::cycles(
        0,
        Assumed("without VPID every transition flushes; the measured 1579 cycles include it"),
    ),

    exit_dispatch: Cost::cycles(
        1200,
        Assumed(
            "three times Skylake's 400: nearly every VMCS field was read and written on every exit in the software of the day",
        ),
    ),
    hypercall_handler: Cost::cycles(150, Assumed("half again the cycles of Skylake")),
    hypercall_kick: Cost::cycles(700, Assumed("one physical IPI's sending side")),
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
    nested_fault_fix: Cost::absent("no EPT on this processor"),
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
        Assumed("553 cycles on a core of 2012 (kvm-unit-tests 00bfecaa)"),
    ),
    io_in_userspace: Cost::cycles(
        16676,
        Assumed(
            "as on a core of 2012: inl_from_qemu 20574 less vmcall 3898 (kvm-unit-tests 00bfecaa)",
        ),
    ),
    inject_event: Cost::cycles(
        200,
        Assumed("two or three VMWRITEs and the choice of the event"),
    ),
    halt_and_wake: Cost::cycles(6000, Assumed("two scheduler switches")),
    host_interrupt: Cost::cycles(1500, Assumed("the host's own handler, light")),
    migrate_save: Cost::cycles(
        25000,
        Assumed("a stop, some hundred VMREADs and as many MSR reads"),
    ),
    migrate_load: Cost::cycles(25000, Assumed("as migrate_save")),
    migrate_page: Cost::cycles(
        4000,
        Assumed("the processor's part of sending 4 KBytes over gigabit Ethernet"),
    ),
    userspace_round_trip: Cost::cycles(
        2500,
        Assumed("an ioctl both ways, with the host's segments and MSRs reloaded"),
    ),
};
