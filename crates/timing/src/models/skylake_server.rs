//! Costs of a Skylake server core (Intel, 2017).
//!
//! Integer and SSE classes are the reciprocal throughputs of LLVM's scheduling model for the client core of the same family, whose
//! execution ports are the same for what is modelled here; the shapes used, with their numbers, are in `skylake_server.llvm.txt` beside this
//! file, and a test compares them. Divides, locked and system instructions are from InstLatx64 where it measures them. No bare VM-exit figure of this core
//! is published where we looked: the rows say what they were derived from.

use crate::cost::Why::{Assumed, Manual, Measured};
use crate::cost::{Cost, Why};
use crate::rows::CostModel;

const NO_SVM: Cost = Cost::absent("no SVM on this processor");
const MICROCODED: Why = Assumed("a short microcoded instruction, taken as 10 to 30 cycles");
const SERIALIZING: Why = Assumed("serializing and microcoded; as CPUID leaf 0 (InstLatx64: 100)");

/// A class whose cost is the throughput of one shape in LLVM 19.1.7's `skylake` model, rounded to the nearest tick, at least one.
macro_rules! llvm {
    ($ticks:literal, $shape:literal) => {
        Cost::in_ticks($ticks, Manual(concat!("LLVM 19.1.7 model `skylake`, reciprocal throughput of: ", $shape)))
    };
}

/// A class whose cost is a reciprocal throughput that InstLatx64 measured, rounded to the nearest tick, at least one.
macro_rules! instlat {
    ($ticks:literal, $shape:literal) => {
        Cost::in_ticks($ticks, Measured(concat!("InstLatx64, Skylake-X i7-7900X: ", $shape)))
    };
}

/// Skylake server.
pub const SKYLAKE_SERVER: CostModel = CostModel {
    name: "skylake-server",
    title: "Intel Xeon Scalable, Skylake server core, 2017",

    nop: llvm!(1, "nop"),
    register_move: llvm!(1, "movq R,R"),
    load: llvm!(2, "movq m1d,R"),
    store: llvm!(4, "movq R,m1d"),
    load_op: llvm!(2, "addq m1d,R"),
    read_modify_write: llvm!(4, "addq R,m1d"),
    alu: llvm!(1, "addq R,R"),
    alu_carry: llvm!(2, "sbbq R,R"),
    lea: llvm!(2, "leaq m1d,R"),
    shift: llvm!(2, "shlq i,R"),
    shift_by_cl: llvm!(6, "shlq R,R"),
    double_shift: llvm!(4, "shldq i,R,R"),
    rotate_through_carry: instlat!(8, "RCL r64, 1"),
    multiply32: llvm!(4, "imull R,R"),
    multiply64: llvm!(4, "imulq R,R"),
    divide8: instlat!(89, "DIV r8 8/ 8b ax upd"),
    divide16: instlat!(91, "DIV r16 16/16b ax upd"),
    divide32: instlat!(105, "DIV r32 32/32b eax upd"),
    divide64: instlat!(85, "DIV r64 64/64b rax upd"),
    branch: Cost::in_ticks(4, Assumed("a taken, predicted jump a cycle; two if the first is not taken")),
    branch_indirect: Cost::in_ticks(8, Assumed("two cycles for a predicted indirect branch")),
    call: Cost::in_ticks(8, Assumed("a taken jump and a store; two cycles")),
    near_return: Cost::in_ticks(4, Assumed("a jump predicted by the return stack, one a cycle")),
    push: llvm!(4, "pushq R"),
    pop: llvm!(2, "popq R"),
    push_flags: llvm!(4, "pushfq"),
    pop_flags: Cost::in_ticks(93, Measured("InstLatx64, Skylake-X i7-7900X: PUSHFQ + POPFQ 24.17 cycles, less PUSHFQ 1")),
    stack_frame: llvm!(2, "leave"),
    conditional_move: llvm!(2, "cmoveq R,R"),
    set_condition: llvm!(2, "sete R"),
    bit_test: llvm!(2, "btq R,R"),
    bit_scan: llvm!(4, "bsfq R,R"),
    population_count: llvm!(4, "popcntq R,R"),
    byte_swap: llvm!(2, "bswapl R"),
    bit_manipulation: llvm!(2, "andnq R,R,R"),
    crc: instlat!(4, "CRC32 r32, r32"),
    exchange: llvm!(3, "xchgq R,R"),
    compare_exchange: llvm!(4, "cmpxchgq R,m1"),
    atomic: instlat!(93, "LOCK ADD [m64], r64"),
    flag_control: llvm!(4, "cld"),
    interrupt_flag: Cost::in_ticks(16, Assumed("microcoded, does not serialize; taken as 4 cycles")),
    legacy_arithmetic: Cost::in_ticks(16, Assumed("microcoded; taken as 4 cycles")),
    string_setup: Cost::in_ticks(80, Assumed("start of the microcode loop; published figures for REP MOVS run from 15 to 35 cycles")),
    string_element: Cost::in_ticks(4, Assumed("one element a cycle; the fast-string path of large aligned moves is not modelled")),
    sse_move: llvm!(1, "movdqa X,X"),
    sse_load: llvm!(2, "movdqa m1d,X"),
    sse_store: llvm!(4, "movdqa X,m1d"),
    sse_transfer: llvm!(4, "movq X,R"),
    sse_integer: llvm!(1, "paddd X,X"),
    sse_integer_multiply: llvm!(2, "pmullw X,X"),
    sse_shuffle: llvm!(4, "pshufd i,X,X"),
    sse_fp_add: llvm!(2, "addsd X,X"),
    sse_fp_multiply: llvm!(2, "mulsd X,X"),
    sse_fp_divide32: llvm!(12, "divss X,X"),
    sse_fp_divide64: llvm!(16, "divsd X,X"),
    sse_fp_sqrt32: llvm!(12, "sqrtss X,X"),
    sse_fp_sqrt64: llvm!(24, "sqrtsd X,X"),
    sse_compare: llvm!(4, "ucomisd X,X"),
    sse_convert: llvm!(4, "cvttsd2si X,R"),
    sse_horizontal: Cost::in_ticks(8, Assumed("two shuffles and an addition")),
    sse_string: Cost::in_ticks(16, Assumed("microcoded, at least two uses of the string unit")),
    sse_cryptography: Cost::in_ticks(4, Assumed("a pipelined unit of its own")),
    fpu_control: llvm!(4, "ldmxcsr m1d"),
    x87_move: Cost::in_ticks(2, Assumed("a move in the floating-point pipes")),
    x87_load: Cost::in_ticks(2, Assumed("a load and a conversion")),
    x87_store: Cost::in_ticks(4, Assumed("a conversion and a store")),
    x87_add: Cost::in_ticks(4, Assumed("pipelined, as in SSE")),
    x87_multiply: Cost::in_ticks(4, Assumed("pipelined, as in SSE")),
    x87_divide: Cost::in_ticks(18, Assumed("not pipelined; 64 bits of quotient")),
    x87_microcoded: Cost::in_ticks(100, Assumed("microcoded; taken as 15 to 30 cycles")),
    x87_transcendental: Cost::in_ticks(300, Assumed("microcoded; taken as 60 to 100 cycles")),
    x87_environment: Cost::in_ticks(240, Assumed("microcoded; taken as 60 to 80 cycles")),
    save_state: Cost::in_cycles(70, Assumed("64 bytes of x87 state and 256 of XMM in a microcoded loop")),
    restore_state: Cost::in_cycles(70, Assumed("as save_state")),
    load_fence: instlat!(17, "LFENCE"),
    store_fence: llvm!(1, "sfence"),
    memory_fence: instlat!(134, "MFENCE"),
    cpuid: Cost::in_cycles(100, Measured("InstLatx64, Skylake-X i7-7900X: CPUID leaf 0, 100 cycles")),
    rdtsc: instlat!(101, "RDTSC"),
    rdpmc: Cost::in_cycles(30, MICROCODED),
    rdmsr: Cost::in_cycles(100, Assumed("microcoded lookup; less than half of a serializing WRMSR")),
    wrmsr: Cost::in_cycles(250, Measured("kvm-unit-tests commit f2665de7 message, Haswell: WRMSR IA32_SPEC_CTRL, 250 cycles")),
    xgetbv: Cost::in_cycles(10, MICROCODED),
    xsetbv: Cost::in_cycles(100, SERIALIZING),
    segment_base: Cost::in_cycles(20, MICROCODED),
    mov_cr: Cost::in_cycles(100, SERIALIZING),
    cr3_write: Cost::in_cycles(200, Assumed("serializing, and the non-global entries are flushed")),
    mov_dr: Cost::in_cycles(100, SERIALIZING),
    invlpg: Cost::in_cycles(120, Assumed("serializing; a little more than CPUID leaf 0")),
    invpcid: Cost::in_cycles(200, Assumed("as a CR3 write")),
    cache_line: Cost::in_cycles(2, Assumed("clean line; the miss that follows is not modelled")),
    cache_flush: Cost::in_cycles(2000, Assumed("an empty cache: nothing to write back is modelled")),
    descriptor_table: Cost::in_cycles(30, MICROCODED),
    segment_load: Cost::in_cycles(20, MICROCODED),
    far_transfer: Cost::in_cycles(70, Assumed("two descriptor loads and their checks")),
    software_interrupt: Cost::in_cycles(10, Assumed("recognition only; the gate is exception_delivery")),
    iret: Cost::in_cycles(330, Measured("Torvalds 2014-04-30, Haswell: IRET from #PF, 330 cycles")),
    syscall: Cost::in_cycles(50, Assumed("SYSCALL and SYSRET together near 100 cycles without mitigations")),
    sysret: Cost::in_cycles(50, Assumed("SYSCALL and SYSRET together near 100 cycles without mitigations")),
    sysenter: Cost::in_cycles(60, Assumed("as SYSCALL, with one MSR more to read")),
    sysexit: Cost::in_cycles(60, Assumed("as SYSRET")),
    port_io: Cost::in_cycles(100, Assumed("serializing; the device's time is device_access")),
    hlt: Cost::in_cycles(50, Assumed("until no more instructions issue")),
    pause: Cost::in_ticks(565, Measured("InstLatx64, Skylake-X i7-7900X: PAUSE, 141.17 cycles")),
    system_other: Cost::in_cycles(30, MICROCODED),

    tlb_hit: Cost::in_cycles(0, Assumed("inside the load's own latency")),
    page_walk_level: Cost::in_cycles(7, Assumed("a load that hits the first or second cache level: 5 and 14 cycles")),
    nested_walk_level: Cost::in_cycles(7, Assumed("as a level of an ordinary walk")),
    accessed_dirty_update: Cost::in_ticks(93, Assumed("a locked update: as the atomic row")),
    exception_delivery: Cost::in_cycles(715, Measured("Torvalds 2014-04-30, Haswell: #PF delivery to the handler's first instruction")),
    interrupt_delivery: Cost::in_cycles(715, Assumed("as the delivery of #PF, measured on Haswell")),
    task_switch: Cost::in_cycles(1500, Assumed("two TSS accesses and seven segment loads")),
    self_modifying_code: Cost::in_cycles(150, Assumed("machine clear: pipeline flush and refetch")),
    apic_access: Cost::in_cycles(50, Assumed("uncached access inside the core's own agent")),
    device_access: Cost::in_cycles(1000, Assumed("a register behind the PCH, about half a microsecond")),
    ipi_latency: Cost::in_cycles(1000, Assumed("about half a microsecond between cores")),
    halt_wake: Cost::in_cycles(200, Assumed("waking from C1, some hundred cycles")),

    vm_exit: Cost::in_cycles(
        600,
        Assumed(
            "no bare figure of this core; 1000 for both ways, between Sandy Bridge's 784 (Agesen 2012) and Haswell's 1200 with KVM's \
                 lightest handler (kvm-unit-tests cfbd129c), split 600/400",
        ),
    ),
    vm_entry: Cost::in_cycles(400, Assumed("see vm_exit: 1000 for both ways, split 600/400")),
    vm_entry_failed: Cost::in_cycles(100, Assumed("a quarter of an entry: the checks on controls and host state only")),
    event_injection: Cost::in_cycles(100, Assumed("beyond the gate's own cost")),
    msr_list_entry: Cost::in_cycles(250, Assumed("as WRMSR, measured on Haswell")),
    vmread: Cost::in_cycles(25, Assumed("served from the on-chip copy of the VMCS")),
    vmwrite: Cost::in_cycles(25, Assumed("as VMREAD")),
    vmptrld: Cost::in_cycles(150, Assumed("reads the region's header and switches the on-chip copy")),
    vmptrst: Cost::in_cycles(20, Assumed("a store of eight bytes")),
    vmclear: Cost::in_cycles(300, Assumed("writes the on-chip copy back to the region")),
    vmxon: Cost::in_cycles(500, Assumed("serializing; once a boot")),
    vmxoff: Cost::in_cycles(500, Assumed("as VMXON")),
    invept: Cost::in_cycles(
        600,
        Assumed("as a flush of all TLB entries: near 600 cycles by a kernel maintainer's memory (Lutomirski 2020)"),
    ),
    invvpid: Cost::in_cycles(600, Assumed("as INVEPT")),
    vmload: NO_SVM,
    vmsave: NO_SVM,
    stgi: NO_SVM,
    clgi: NO_SVM,
    invlpga: NO_SVM,
    skinit: NO_SVM,
    tlb_flush: Cost::in_cycles(600, Measured("Lutomirski 2020, Skylake, from memory: flush of the TLB for all addresses, near 600 cycles")),

    exit_dispatch: Cost::in_cycles(
        400,
        Assumed("KVM's typical round trip of 1500 cycles (Christopherson 2021), less 1000 for the hardware and 100 for a handler"),
    ),
    hypercall_handler: Cost::in_cycles(100, Assumed("see exit_dispatch: what is left of 1500 cycles")),
    hypercall_kick: Cost::in_cycles(500, Assumed("one physical IPI's sending side")),
    emulate_decode: Cost::in_cycles(
        500,
        Measured("kvm-unit-tests commit b5105e8b message, Sandy Bridge: 887 cycles to emulate an ALU instruction; split 500/387 assumed"),
    ),
    emulate_execute: Cost::in_cycles(
        387,
        Measured("kvm-unit-tests commit b5105e8b message, Sandy Bridge: 887 cycles to emulate an ALU instruction; split 500/387 assumed"),
    ),
    patch_write: Cost::in_cycles(500, Assumed("a guest page walk in software and a write of three bytes")),
    mmu_zap: Cost::in_cycles(5000, Assumed("root tables freed and every CPU told to flush")),
    mutex_hand_over: Cost::in_cycles(6000, Assumed("a thread woken and scheduled: about two microseconds")),
    spin_lock_hand_over: Cost::in_cycles(200, Assumed("the lock's cache line fetched from another core")),
    nested_fault_fix: Cost::in_cycles(2500, Assumed("memory-slot lookup, host page lookup, up to four table entries")),
    dirty_fault_fix: Cost::in_cycles(1000, Assumed("as a nested fault without lock and host-page look-up: one entry changed")),
    large_page_split: Cost::in_cycles(2500, Assumed("a table page allocated and 512 entries written")),
    modification_log_entry: Cost::in_cycles(60, Assumed("a memory-slot look-up and an atomic bit")),
    dirty_log_word: Cost::in_cycles(8, Assumed("an exchange of 64 bits with zero, mostly in the first-level cache")),
    dirty_log_page: Cost::in_cycles(120, Assumed("a walk to one nested entry and its change, under the lock of the tables")),
    shadow_fault_fix: Cost::in_cycles(3500, Assumed("a nested fault's work and a walk of the guest's own tables")),
    cpuid_handler: Cost::in_cycles(80, Assumed("as a hypercall: a table lookup")),
    msr_handler: Cost::in_cycles(150, Assumed("a table lookup and a callback")),
    control_register_handler: Cost::in_cycles(300, Assumed("checks, and the MMU's mode recomputed")),
    io_in_kernel: Cost::in_cycles(
        553,
        Measured("kvm-unit-tests commit 00bfecaa message, 2012: outl_to_kernel 4451 less vmcall 3898; CPU not stated"),
    ),
    io_in_userspace: Cost::in_cycles(
        16676,
        Measured("kvm-unit-tests commit 00bfecaa message, 2012: inl_from_qemu 20574 less vmcall 3898; CPU not stated"),
    ),
    inject_event: Cost::in_cycles(100, Assumed("two or three VMWRITEs and the choice of the event")),
    halt_and_wake: Cost::in_cycles(4000, Assumed("two scheduler switches")),
    host_interrupt: Cost::in_cycles(1000, Assumed("the host's own handler, light")),
    migrate_save: Cost::in_cycles(20000, Assumed("a stop, some hundred VMREADs and as many MSR reads")),
    migrate_load: Cost::in_cycles(20000, Assumed("as migrate_save")),
    migrate_page: Cost::in_cycles(1300, Assumed("4 KBytes at 10 gigabits a second are 3.3 microseconds; the processor's part only")),
    zero_page_check: Cost::in_cycles(256, Assumed("4 KBytes at 16 bytes a cycle")),
    userspace_round_trip: Cost::in_cycles(
        1300,
        Assumed("KVM_RUN's ioctl both ways; 1168 cycles on AMD (Roth 2020), a little more with Intel's host state"),
    ),
};
