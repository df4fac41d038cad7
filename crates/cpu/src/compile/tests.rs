//! What the lockstep tests cannot see from outside: the bounds on compiled code, and its thread.

use crate::RunExit;
use crate::block::{CodeCache, Compile};
use crate::bus::{Environment, NoDevices};
use crate::state::Cpu;
use isa::control::{Cr0, Cr4, Efer};
use isa::segment::Attributes;
use memory::Memory;

const CODE: u64 = 0x10_0000;

/// A processor in 64-bit mode in front of a program, with 4 MiB mapped to themselves.
fn machine(program: &str) -> (Box<Cpu>, Memory) {
    let options = assembler::Options { origin: CODE, ..assembler::Options::default() };
    let program = assembler::assemble(program, &options).expect("the program assembles");
    let mut memory = Memory::new(4 << 20);
    memory.write(CODE, &program.bytes).unwrap();
    for (address, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x87), (0x3008, 0x20_0087)] {
        memory.write_u64(address, entry).unwrap();
    }
    let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
    cpu.cr0 = Cr0::from_bits(0x8001_0033);
    cpu.cr4 = Cr4::from_bits(0x6a0);
    cpu.cr3 = 0x1000;
    cpu.efer = Efer::from_bits(0x500);
    cpu.segments[1].attributes = Attributes::from_bits(0xa09b);
    cpu.flush_tlb();
    cpu.rip = CODE;
    cpu.regs[4] = 0x20_0000;
    (cpu, memory)
}

/// Runs a number of instructions. Returns registers, RIP and time.
fn run(program: &str, code: &mut CodeCache, instructions: u64) -> (Vec<u64>, u64, u64) {
    let (mut cpu, mut memory) = machine(program);
    let exit = cpu.run(&mut Environment { memory: &mut memory, code, bus: &mut NoDevices }, u64::MAX >> 1, instructions);
    assert_eq!(exit, RunExit::Instructions);
    (cpu.regs[..16].to_vec(), cpu.rip, cpu.now())
}

/// What the interpreter comes to.
fn interpreted(program: &str, instructions: u64) -> (Vec<u64>, u64, u64) {
    let mut code = CodeCache::new();
    code.compile(Compile::Never);
    run(program, &mut code, instructions)
}

/// Holds compiled code to it, however early there is any.
fn comes_to(expected: &(Vec<u64>, u64, u64), program: &str, instructions: u64) {
    for heat in [1, 3, 50] {
        let mut code = CodeCache::new();
        code.compile(Compile::After(heat));
        assert_eq!(run(program, &mut code, instructions), *expected, "hot after {heat}");
        assert!(code.compiled_regions().0 > 0);
    }
}

/// Loops on as many pages, called in turn for ever.
fn many_loops(count: u32) -> String {
    let calls: String = (0..count).map(|number| format!("call f{number}\n")).collect();
    let functions: String = (0..count)
        .map(|number| {
            format!("align 4096\nf{number}: mov ecx, 20\nl{number}: lea rax, [rax+rax*2+{number}]\ndec ecx\njnz l{number}\nret\n")
        })
        .collect();
    format!("again: {calls} jmp again\n{functions}")
}

#[test]
fn compiled_code_is_bounded_and_made_anew() {
    let program = many_loops(60);
    let expected = interpreted(&program, 60_000);
    let mut code = CodeCache::new();
    code.compile(Compile::After(3));
    code.compiler.limit = 6_000;
    assert_eq!(run(&program, &mut code, 60_000), expected);
    let (made, refused) = code.compiled_regions();
    assert!(made > 200 && refused == 0, "{made} made, {refused} refused");
    assert!(code.compiler.bytes <= 6_000, "{} bytes are kept", code.compiler.bytes);
}

#[test]
fn when_code_becomes_ready_changes_nothing() {
    let program = many_loops(5);
    let expected = interpreted(&program, 3_000_000);
    // As users run it: on a second thread, whenever that comes to it.
    for _ in 0..3 {
        assert_eq!(run(&program, &mut CodeCache::new(), 3_000_000), expected);
    }
}

/// Two address spaces that have one page of code in common and the other not: the way from the one to the other depends on the space.
#[test]
fn a_page_that_is_another_in_another_address_space_is_not_taken_for_it() {
    const FAR: u64 = 0x40_0000;
    for call in ["call 0x400000", "call rdi"] {
        let program = format!("again: xor rbx, 0x4000\nmov cr3, rbx\nmov ecx, 40\nl: {call}\ndec ecx\njnz l\njmp again");
        let mut ends = Vec::new();
        for when in [Compile::Never, Compile::After(1), Compile::After(10)] {
            let (mut cpu, small) = machine(&program);
            let mut memory = Memory::new(8 << 20);
            for frame in small.touched_frames() {
                let mut page = [0; 4096];
                small.read(frame << 12, &mut page).unwrap();
                memory.write(frame << 12, &page).unwrap();
            }
            for (address, entry) in
                [(0x5000, 0x6007), (0x6000, 0x7007), (0x7000, 0x87), (0x7008, 0x20_0087), (0x3010, FAR | 0x87), (0x7010, 0x60_0087)]
            {
                memory.write_u64(address, entry).unwrap();
            }
            // ADD RDX, 1 and ADD RDX, 100; RET.
            memory.write(FAR, &[0x48, 0x83, 0xc2, 1, 0xc3]).unwrap();
            memory.write(0x60_0000, &[0x48, 0x83, 0xc2, 100, 0xc3]).unwrap();
            cpu.regs[3] = 0x1000;
            cpu.regs[7] = FAR;
            let mut code = CodeCache::new();
            code.compile(when);
            let mut environment = Environment { memory: &mut memory, code: &mut code, bus: &mut NoDevices };
            assert_eq!(cpu.run(&mut environment, u64::MAX >> 1, 20_000), RunExit::Instructions);
            ends.push((cpu.regs[..16].to_vec(), cpu.rip, cpu.now()));
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{call}: {ends:x?}");
    }
}

/// A number that a loop may take for ordinary, because all ways to it within the region have checked it, but for the one from a door that
/// leads through a block that has nothing to do with it.
#[test]
fn a_denormal_number_that_comes_through_another_blocks_door_is_noticed() {
    let program = "
        mov rax, 0x3ff0000000000000
        movq xmm2, rax
        again: mov rax, 1
        movq xmm1, rax
        push 0x1fa0
        ldmxcsr [rsp]
        pop rax
        jmp a
        a: mov edx, 3
        jmp l
        l: addsd xmm1, xmm2
        dec edx
        jnz l
        inc r10
        stmxcsr [rsp-8]
        mov eax, [rsp-8]
        and eax, 2
        add r9, rax
        jmp again";
    let expected = interpreted(program, 20_000);
    assert!(expected.0[9] >= 2 * expected.0[10] - 2 && expected.0[10] > 500, "MXCSR.DE each time: {expected:?}");
    comes_to(&expected, program, 20_000);
}

/// The same of a register whose upper half a loop takes for zero.
#[test]
fn an_upper_half_that_comes_through_another_blocks_door_is_kept() {
    let program = "
        push 0x1fa0
        again: mov rbx, 0x500000007
        ldmxcsr [rsp]
        jmp a
        a: mov edx, 3
        jmp l
        l: add r9, rbx
        mov esi, ebx
        add r9, rsi
        mov ebx, edx
        dec edx
        jnz l
        inc r10
        jmp again";
    let expected = interpreted(program, 20_000);
    assert!(expected.0[10] > 500);
    comes_to(&expected, program, 20_000);
}

/// A loop that keeps pages from turn to turn, at distances that leave a page in the middle of an access, and its end by a byte.
#[test]
fn a_loop_over_memory_finds_each_page_anew() {
    for (load, store) in [(8, 8), (4093, 1021), (4096, 4095), (1, 509), (2048, 3)] {
        let program = format!(
            "mov r8d, 0x201000
            again: mov esi, 0x200000
            mov edi, 0x280ff9
            mov ecx, 100
            l: mov rax, [rsi]
            add r9, rax
            mov [rdi], r9
            add r9w, [r8+rcx]
            mov [rdi+0x10000], cl
            add rsi, {load}
            add rdi, {store}
            dec ecx
            jnz l
            jmp again"
        );
        let mut ends = Vec::new();
        for when in [Compile::Never, Compile::After(1), Compile::After(200)] {
            let (mut cpu, mut memory) = machine(&program);
            for at in (0x20_0000..0x38_0000_u64).step_by(8) {
                memory.write_u64(at, at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
            }
            let mut code = CodeCache::new();
            code.compile(when);
            let mut environment = Environment { memory: &mut memory, code: &mut code, bus: &mut NoDevices };
            assert_eq!(cpu.run(&mut environment, u64::MAX >> 1, 60_000), RunExit::Instructions);
            let mut bytes = vec![0; 0x18_0000];
            memory.read(0x20_0000, &mut bytes).unwrap();
            assert_eq!(code.compiled_regions().0 > 0, when != Compile::Never);
            ends.push((cpu.regs[..16].to_vec(), cpu.rip, cpu.now(), bytes));
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{load}, {store}");
    }
}
