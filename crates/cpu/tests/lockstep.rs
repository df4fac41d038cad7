//! However a program is executed (whole blocks, slices of any length, one instruction at a time), every state it passes through is the same.

use cpu::block::{CodeCache, Compile};
use cpu::bus::{Environment, NoDevices};
use cpu::{Cpu, RunExit};
use isa::control::{Cr0, Cr4, Efer};
use isa::segment::Attributes;
use memory::Memory;
use models::Vendor;

const CODE: u64 = 0x10_0000;
const STACK: u64 = 0x20_0000;

/// A processor in 64-bit mode with 16 MiB mapped to themselves, at the first byte of a program.
struct Machine {
    cpu: Box<Cpu>,
    memory: Memory,
    code: CodeCache,
}

impl Machine {
    fn new(program: &str) -> Self {
        let options = assembler::Options { origin: CODE, ..assembler::Options::default() };
        let program = assembler::assemble(program, &options).expect("the program assembles");
        let mut memory = Memory::new(16 << 20);
        memory.write(CODE, &program.bytes).unwrap();
        memory.write_u64(0x1000, 0x2007).unwrap();
        memory.write_u64(0x2000, 0x3007).unwrap();
        for page in 0..8 {
            memory.write_u64(0x3000 + page * 8, page << 21 | 0x87).unwrap();
        }
        let mut cpu = Cpu::new(models::default_for(Vendor::Intel), 0, 1, None);
        cpu.cr0 = Cr0::from_bits(0x8001_0033);
        cpu.cr4 = Cr4::from_bits(0x6a0);
        cpu.cr3 = 0x1000;
        cpu.efer = Efer::from_bits(0x500);
        for segment in &mut cpu.segments {
            segment.base = 0;
            segment.limit = u32::MAX;
            segment.attributes = Attributes::from_bits(0xc093);
        }
        cpu.segments[1].attributes = Attributes::from_bits(0xa09b);
        cpu.flush_tlb();
        cpu.rip = CODE;
        cpu.regs[4] = STACK;
        Self { cpu, memory, code: CodeCache::new() }
    }

    /// The same, with code compiled that is entered this often.
    fn compiling(program: &str, after: u32) -> Self {
        let mut machine = Self::new(program);
        machine.code.compile(Compile::After(after));
        machine
    }

    fn run(&mut self, ticks: u64, instructions: u64) -> RunExit {
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut NoDevices };
        self.cpu.run(&mut environment, ticks, instructions)
    }

    /// Everything that must agree.
    fn state(&self) -> (Vec<u64>, u64, u64, u64, u64) {
        let cpu = &self.cpu;
        let data = (0..64).fold(0u64, |sum, at| sum.wrapping_mul(31).wrapping_add(self.memory.read_u64(0x30_0000 + 8 * at).unwrap()));
        (cpu.regs[..16].to_vec(), cpu.rip, cpu.rflags().into_bits(), cpu.now(), cpu.instructions().wrapping_add(data))
    }
}

/// Programs that end in an endless loop at `done`.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "recursion and loops",
        "mov edi, 12
         call fib
         mov [0x300000], rax
         mov ecx, 100
     sum: add rax, rcx
         adc rbx, rax
         dec ecx
         jnz sum
         mov [0x300008], rbx
    done: jmp done
     fib: cmp rdi, 2
         jae more
         mov rax, rdi
         ret
    more: push rdi
         dec rdi
         call fib
         pop rdi
         push rax
         sub rdi, 2
         call fib
         pop rdx
         add rax, rdx
         ret",
    ),
    (
        "memory of every width over a page boundary",
        "mov rsi, 0x300ff9
         mov ecx, 200
    next: mov [rsi], rcx
         add [rsi+1], cx
         xor byte [rsi+rcx*2-5], cl
         movzx eax, word [rsi+3]
         movsx rdx, byte [rsi+2]
         imul rax, rdx
         rol rax, cl
         sub [rsi+6], eax
         setc bl
         cmovs rdi, rax
         inc rsi
         loop next
         mov [0x300000], rdi
    done: jmp done",
    ),
    (
        "code that rewrites itself ahead, behind and in its own block",
        "mov ecx, 50
    next: mov [patch+1], ecx
         add rax, rcx
   patch: mov ebx, 0
         add rax, rbx
         mov byte [back], 0x90
         call back
         mov byte [back], 0xc3
         call back
         loop next
         mov [0x300000], rax
    done: jmp done
         align 64
    back: ret
         inc rax
         ret",
    ),
    (
        "an indirect jump and a far page",
        "mov ecx, 300
    next: mov eax, ecx
         and eax, 3
         mov rax, [table+rax*8]
         jmp rax
       a: add rbx, 1
         jmp join
       b: shl rbx, 1
         jmp join
       c: call far_away
         jmp join
       d: neg rbx
    join: dec ecx
         jnz next
         mov [0x300000], rbx
    done: jmp done
         align 8
   table: dq a, b, c, d
         times 5000 nop
far_away: xor rbx, 0x5a5a
         ret",
    ),
];

#[test]
fn slices_of_any_length_pass_through_the_same_states() {
    for (name, program) in PROGRAMS {
        let mut whole = Machine::new(program);
        assert_eq!(whole.run(u64::MAX >> 1, 6000), RunExit::Instructions, "{name}");
        let end = whole.state();
        for slice in [1, 2, 3, 7, 61, 500] {
            let mut sliced = Machine::new(program);
            for limit in (slice..6000).step_by(slice as usize) {
                sliced.run(u64::MAX >> 1, limit);
            }
            sliced.run(u64::MAX >> 1, 6000);
            assert_eq!(sliced.state(), end, "{name} in slices of {slice} instructions");
        }
    }
}

#[test]
fn a_run_ends_at_the_first_boundary_at_or_after_its_time() {
    for (name, program) in PROGRAMS {
        // The times of all boundaries, one instruction at a time.
        let mut stepped = Machine::new(program);
        let mut boundaries = vec![stepped.state()];
        for limit in 1..=2000 {
            stepped.run(u64::MAX >> 1, limit);
            boundaries.push(stepped.state());
        }
        let last = boundaries.last().expect("many").3;
        for time in (1..last).step_by(17) {
            let mut timed = Machine::new(program);
            timed.run(time, u64::MAX);
            let expected = boundaries.iter().find(|state| state.3 >= time).expect("a boundary behind every time before the last");
            assert_eq!(&timed.state(), expected, "{name} until {time}");
        }
    }
}

/// Without the compiler there is nothing to compare, but everything still runs.
#[test]
fn compiled_code_passes_through_the_same_states() {
    for (name, program) in PROGRAMS {
        let mut interpreted = Machine::new(program);
        interpreted.code.compile(Compile::Never);
        let mut boundaries = vec![interpreted.state()];
        for limit in 1..=6000 {
            interpreted.run(u64::MAX >> 1, limit);
            boundaries.push(interpreted.state());
        }
        for after in [1, 2, 7, 30] {
            for slice in [6000usize, 977, 129, 23, 5] {
                let mut compiled = Machine::compiling(program, after);
                for limit in (slice..=6000).step_by(slice) {
                    compiled.run(u64::MAX >> 1, limit as u64);
                    assert_eq!(compiled.state(), boundaries[limit], "{name}, hot after {after}, in slices of {slice}, at {limit}");
                }
                let (made, refused) = compiled.code.compiled_regions();
                assert_eq!(refused, 0, "{name}");
                let expected = cfg!(feature = "compiler") && slice == 6000 && !name.contains("rewrites itself");
                assert!(made > 0 || !expected, "{name}, hot after {after}");
            }
        }
    }
}
