//! Costs of a Zen 3 core (AMD, "Milan", 2021).
//!
//! Integer and SSE classes are the reciprocal throughputs of LLVM's scheduling model of this core; the shapes used, with their numbers,
//! are in `zen3.llvm.txt` beside this file, and a test compares them. Divides, locked and system instructions are from InstLatx64 where it measures them. World
//! switches: two measured sums are met, KVM's VMRUN with VMLOAD and VMSAVE around it (1360 cycles, Zen), and KVM's hypercall as the
//! guest sees it (3388 TSC cycles, Zen 4).

use crate::cost::Why::{Assumed, Manual, Measured};
use crate::cost::{Cost, Why};
use crate::rows::CostModel;

const NO_VMX: Cost = Cost::absent("no VMX on this processor");
const MICROCODED: Why = Assumed("a short microcoded instruction, taken as 10 to 40 cycles");
const SERIALIZING: Why = Assumed("serializing and microcoded; near CPUID leaf 0 (InstLatx64: 128)");

/// A class whose cost is the throughput of one shape in LLVM 19.1.7's `znver3` model, rounded to the nearest tick, at least one.
macro_rules! llvm {
    ($ticks:literal, $shape:literal) => {
        Cost::in_ticks($ticks, Manual(concat!("LLVM 19.1.7 model `znver3`, reciprocal throughput of: ", $shape)))
    };
}

/// A class whose cost is a reciprocal throughput that InstLatx64 measured, rounded to the nearest tick, at least one.
macro_rules! instlat {
    ($ticks:literal, $shape:literal) => {
        Cost::in_ticks($ticks, Measured(concat!("InstLatx64, Zen 3 R9-5950X: ", $shape)))
    };
}

/// Zen 3.
pub const ZEN3: CostModel = CostModel {
    name: "zen3",
    title: "AMD EPYC 7003, Zen 3 core, 2021",

    nop: llvm!(1, "nop"),
    register_move: llvm!(1, "movq R,R"),
    load: llvm!(1, "movq m1d,R"),
    store: llvm!(4, "movq R,m1d"),
    load_op: llvm!(1, "addq m1d,R"),
    read_modify_write: llvm!(3, "addq R,m1d"),
    alu: llvm!(1, "addq R,R"),
    alu_carry: llvm!(4, "sbbq R,R"),
    lea: llvm!(1, "leaq m1d,R"),
    shift: llvm!(2, "shlq i,R"),
    shift_by_cl: llvm!(2, "shlq R,R"),
    double_shift: llvm!(6, "shldq i,R,R"),
    rotate_through_carry: instlat!(4, "RCL r64, 1"),
    multiply32: llvm!(4, "imull R,R"),
    multiply64: llvm!(4, "imulq R,R"),
    divide8: instlat!(44, "DIV r8 8/ 8b ax upd"),
    divide16: instlat!(44, "DIV r16 16/16b ax upd"),
    divide32: instlat!(44, "DIV r32 32/32b eax upd"),
    divide64: instlat!(44, "DIV r64 64/64b rax upd"),
    branch: Cost::in_ticks(4, Assumed("a taken branch a cycle; two if the first is not taken")),
    branch_indirect: Cost::in_ticks(8, Assumed("two cycles for a predicted indirect branch")),
    call: Cost::in_ticks(8, Assumed("a taken branch and a store; two cycles")),
    near_return: Cost::in_ticks(8, Assumed("a taken branch predicted by the return stack; two cycles")),
    push: llvm!(4, "pushq R"),
    pop: llvm!(1, "popq R"),
    push_flags: llvm!(4, "pushfq"),
    pop_flags: Cost::in_ticks(70, Measured("InstLatx64, Zen 3 R9-5950X: PUSHFQ + POPFQ 21.42 cycles, less PUSHFQ 4")),
    stack_frame: llvm!(1, "leave"),
    conditional_move: llvm!(2, "cmoveq R,R"),
    set_condition: llvm!(4, "sete R"),
    bit_test: llvm!(2, "btq R,R"),
    bit_scan: llvm!(12, "bsfq R,R"),
    population_count: llvm!(1, "popcntq R,R"),
    byte_swap: llvm!(1, "bswapl R"),
    bit_manipulation: llvm!(1, "andnq R,R,R"),
    crc: instlat!(4, "CRC32 r32, r32"),
    exchange: llvm!(1, "xchgq R,R"),
    compare_exchange: llvm!(12, "cmpxchgq R,m1"),
    atomic: instlat!(30, "LOCK ADD [m64], r64"),
    flag_control: llvm!(1, "cld"),
    interrupt_flag: Cost::in_ticks(16, Assumed("microcoded, does not serialize; taken as 4 cycles")),
    legacy_arithmetic: Cost::in_ticks(16, Assumed("microcoded; taken as 4 cycles")),
    string_setup: Cost::in_ticks(80, Assumed("start of the microcode loop")),
    string_element: Cost::in_ticks(4, Assumed("one element a cycle; the fast-string path of large aligned moves is not modelled")),
    sse_move: llvm!(1, "movdqa X,X"),
    sse_load: llvm!(2, "movdqa m1d,X"),
    sse_store: llvm!(4, "movdqa X,m1d"),
    sse_transfer: llvm!(4, "movq X,R"),
    sse_integer: llvm!(1, "paddd X,X"),
    sse_integer_multiply: llvm!(2, "pmullw X,X"),
    sse_shuffle: llvm!(2, "pshufd i,X,X"),
    sse_fp_add: llvm!(2, "addsd X,X"),
    sse_fp_multiply: llvm!(2, "mulsd X,X"),
    sse_fp_divide32: llvm!(12, "divss X,X"),
    sse_fp_divide64: llvm!(20, "divsd X,X"),
    sse_fp_sqrt32: llvm!(20, "sqrtss X,X"),
    sse_fp_sqrt64: llvm!(36, "sqrtsd X,X"),
    sse_compare: llvm!(4, "ucomisd X,X"),
    sse_convert: llvm!(4, "cvttsd2si X,R"),
    sse_horizontal: Cost::in_ticks(8, Assumed("two shuffles and an addition")),
    sse_string: Cost::in_ticks(12, Assumed("microcoded, at least two uses of the string unit")),
    sse_cryptography: Cost::in_ticks(2, Assumed("a pipelined unit of its own")),
    fpu_control: llvm!(6, "ldmxcsr m1d"),
    x87_move: Cost::in_ticks(2, Assumed("a move in the floating-point pipes")),
    x87_load: Cost::in_ticks(4, Assumed("a load and a conversion")),
    x87_store: Cost::in_ticks(4, Assumed("a conversion and a store")),
    x87_add: Cost::in_ticks(4, Assumed("pipelined, as in SSE")),
    x87_multiply: Cost::in_ticks(4, Assumed("pipelined, as in SSE")),
    x87_divide: Cost::in_ticks(24, Assumed("not pipelined; 64 bits of quotient")),
    x87_microcoded: Cost::in_ticks(60, Assumed("microcoded; taken as 15 to 30 cycles")),
    x87_transcendental: Cost::in_ticks(240, Assumed("microcoded; taken as 60 to 100 cycles")),
    x87_environment: Cost::in_ticks(240, Assumed("microcoded; taken as 60 to 80 cycles")),
    save_state: Cost::in_cycles(70, Assumed("64 bytes of x87 state and 256 of XMM in a microcoded loop")),
    restore_state: Cost::in_cycles(70, Assumed("as save_state")),
    load_fence: instlat!(40, "LFENCE"),
    store_fence: llvm!(1, "sfence"),
    memory_fence: instlat!(240, "MFENCE"),
    cpuid: Cost::in_cycles(128, Measured("InstLatx64, Zen 3 R9-5900X: CPUID leaf 0, 128 cycles")),
    rdtsc: instlat!(144, "RDTSC"),
    rdpmc: Cost::in_cycles(30, MICROCODED),
    rdmsr: Cost::in_cycles(100, Assumed("microcoded lookup, a little less than CPUID")),
    wrmsr: Cost::in_cycles(250, Assumed("as measured on Haswell (kvm-unit-tests f2665de7)")),
    xgetbv: Cost::in_cycles(10, MICROCODED),
    xsetbv: Cost::in_cycles(100, SERIALIZING),
    segment_base: Cost::in_cycles(20, MICROCODED),
    mov_cr: Cost::in_cycles(100, SERIALIZING),
    cr3_write: Cost::in_cycles(200, Assumed("serializing, and the non-global entries are flushed")),
    mov_dr: Cost::in_cycles(100, SERIALIZING),
    invlpg: Cost::in_cycles(120, Assumed("serializing; near CPUID leaf 0")),
    invpcid: Cost::in_cycles(200, Assumed("as a CR3 write")),
    cache_line: Cost::in_cycles(2, Assumed("clean line; the miss that follows is not modelled")),
    cache_flush: Cost::in_cycles(2000, Assumed("an empty cache: nothing to write back is modelled")),
    descriptor_table: Cost::in_cycles(40, MICROCODED),
    segment_load: Cost::in_cycles(20, MICROCODED),
    far_transfer: Cost::in_cycles(70, Assumed("two descriptor loads and their checks")),
    software_interrupt: Cost::in_cycles(10, Assumed("recognition only; the gate is exception_delivery")),
    iret: Cost::in_cycles(250, Assumed("a little less than Haswell's measured 330")),
    syscall: Cost::in_cycles(50, Assumed("SYSCALL and SYSRET together near 100 cycles without mitigations")),
    sysret: Cost::in_cycles(50, Assumed("SYSCALL and SYSRET together near 100 cycles without mitigations")),
    sysenter: Cost::in_cycles(90, Assumed("microcoded, slower than SYSCALL here; legacy mode only")),
    sysexit: Cost::in_cycles(90, Assumed("as SYSENTER; legacy mode only")),
    port_io: Cost::in_cycles(100, Assumed("serializing; the device's time is device_access")),
    hlt: Cost::in_cycles(50, Assumed("until no more instructions issue")),
    pause: instlat!(260, "PAUSE"),
    system_other: Cost::in_cycles(30, MICROCODED),

    tlb_hit: Cost::in_cycles(0, Assumed("inside the load's own latency")),
    page_walk_level: Cost::in_cycles(7, Assumed("a load that hits the first or second cache level: 4 and 12 cycles")),
    nested_walk_level: Cost::in_cycles(7, Assumed("as a level of an ordinary walk")),
    accessed_dirty_update: Cost::in_ticks(30, Assumed("a locked update: as the atomic row")),
    exception_delivery: Cost::in_cycles(600, Assumed("a little less than Haswell's measured 715")),
    interrupt_delivery: Cost::in_cycles(600, Assumed("as exception_delivery")),
    task_switch: Cost::in_cycles(1500, Assumed("two TSS accesses and seven segment loads")),
    self_modifying_code: Cost::in_cycles(150, Assumed("pipeline flush and refetch")),
    apic_access: Cost::in_cycles(50, Assumed("uncached access inside the core's own agent")),
    device_access: Cost::in_cycles(1200, Assumed("a register behind the I/O die, about half a microsecond")),
    ipi_latency: Cost::in_cycles(1200, Assumed("about half a microsecond between cores")),
    halt_wake: Cost::in_cycles(200, Assumed("waking from C1, some hundred cycles")),

    vm_exit: Cost::in_cycles(
        274,
        Assumed(
            "KVM's VMRUN with VMLOAD, VMSAVE, VMLOAD around it is 1360 cycles on Zen (Roth 2020); less 270+246+270 measured for those \
                 leaves 574 for both ways, split 300/274",
        ),
    ),
    vm_entry: Cost::in_cycles(300, Assumed("VMRUN; see vm_exit: 574 for both ways, split 300/274")),
    vm_entry_failed: Cost::in_cycles(150, Assumed("half of VMRUN: the state is read and checked, then given up")),
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
    vmload: Cost::in_cycles(270, Measured("kvm-unit-tests svm latency test, Avery 2019, Zen class: 306 with a pair of RDTSC, less 36")),
    vmsave: Cost::in_cycles(246, Measured("kvm-unit-tests svm latency test, Avery 2019, Zen class: 282 with a pair of RDTSC, less 36")),
    stgi: Cost::in_cycles(18, Measured("kvm-unit-tests svm latency test, Avery 2019, Zen class: 54 with a pair of RDTSC, less 36")),
    clgi: Cost::in_cycles(17, Measured("kvm-unit-tests svm latency test, Avery 2019, Zen class: 53 with a pair of RDTSC, less 36")),
    invlpga: Cost::in_cycles(120, Assumed("as INVLPG")),
    skinit: Cost::in_cycles(100_000, Assumed("the hash of up to 64 KBytes through the TPM is far slower; once a boot")),
    tlb_flush: Cost::in_cycles(600, Assumed("as a flush of all entries on Skylake, near 600 cycles from memory (Lutomirski 2020)")),

    exit_dispatch: Cost::in_cycles(
        1900,
        Measured(
            "TUM CVM_eval 2024, Zen 4 under KVM: VMMCALL 3388 TSC cycles, less 1360 (Roth 2020) and the handler; split 1900/128 assumed",
        ),
    ),
    hypercall_handler: Cost::in_cycles(
        128,
        Measured(
            "TUM CVM_eval 2024, Zen 4 under KVM: VMMCALL 3388 TSC cycles, less 1360 (Roth 2020) and the dispatch; split 1900/128 assumed",
        ),
    ),
    hypercall_kick: Cost::in_cycles(500, Assumed("one physical IPI's sending side")),
    emulate_decode: Cost::in_cycles(
        500,
        Assumed("KVM's emulator on Sandy Bridge, 887 cycles in all (kvm-unit-tests b5105e8b), split 500/387"),
    ),
    emulate_execute: Cost::in_cycles(
        387,
        Assumed("KVM's emulator on Sandy Bridge, 887 cycles in all (kvm-unit-tests b5105e8b), split 500/387"),
    ),
    patch_write: Cost::in_cycles(500, Assumed("a guest page walk in software and a write of three bytes")),
    mmu_zap: Cost::in_cycles(5000, Assumed("root tables freed and every CPU told to flush")),
    mutex_hand_over: Cost::in_cycles(6000, Assumed("a thread woken and scheduled: about two microseconds")),
    spin_lock_hand_over: Cost::in_cycles(200, Assumed("the lock's cache line fetched from another core")),
    nested_fault_fix: Cost::in_cycles(2500, Assumed("memory-slot lookup, host page lookup, up to four table entries")),
    dirty_fault_fix: Cost::in_cycles(1000, Assumed("as a nested fault without lock and host-page look-up: one entry changed")),
    large_page_split: Cost::in_cycles(2500, Assumed("a table page allocated and 512 entries written")),
    modification_log_entry: Cost::absent("no page-modification log"),
    dirty_log_word: Cost::in_cycles(8, Assumed("an exchange of 64 bits with zero, mostly in the first-level cache")),
    dirty_log_page: Cost::in_cycles(120, Assumed("a walk to one nested entry and its change, under the lock of the tables")),
    shadow_fault_fix: Cost::in_cycles(3500, Assumed("a nested fault's work and a walk of the guest's own tables")),
    cpuid_handler: Cost::in_cycles(50, Measured("TUM CVM_eval 2024, Zen 4 under KVM: CPUID leaf 1 3310 TSC cycles, less 1360 and 1900")),
    msr_handler: Cost::in_cycles(223, Measured("TUM CVM_eval 2024, Zen 4 under KVM: RDMSR 0x1b 3483 TSC cycles, less 1360 and 1900")),
    control_register_handler: Cost::in_cycles(300, Assumed("checks, and the MMU's mode recomputed")),
    io_in_kernel: Cost::in_cycles(
        1154,
        Measured("TUM CVM_eval 2024, Zen 4 under KVM: IN from port 0x40 4414 TSC cycles, less 1360 and 1900"),
    ),
    io_in_userspace: Cost::in_cycles(
        16676,
        Assumed("kvm-unit-tests 00bfecaa, 2012, Intel: inl_from_qemu 20574 less vmcall 3898; most of it is QEMU, not the processor"),
    ),
    inject_event: Cost::in_cycles(50, Assumed("one store to the VMCB and the choice of the event")),
    halt_and_wake: Cost::in_cycles(4000, Assumed("two scheduler switches")),
    host_interrupt: Cost::in_cycles(1000, Assumed("the host's own handler, light")),
    migrate_save: Cost::in_cycles(15000, Assumed("a stop, the VMCB copied and some hundred MSR reads")),
    migrate_load: Cost::in_cycles(15000, Assumed("as migrate_save")),
    migrate_page: Cost::in_cycles(1300, Assumed("4 KBytes at 10 gigabits a second are 3.3 microseconds; the processor's part only")),
    zero_page_check: Cost::in_cycles(256, Assumed("4 KBytes at 16 bytes a cycle")),
    userspace_round_trip: Cost::in_cycles(1168, Measured("Roth 2020, Zen EPYC: KVM_RUN whole 2528 cycles, of which 1360 around VMRUN")),
};
