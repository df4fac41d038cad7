//! Decoded code and the bytes under it: whoever rewrites them, in whatever way, the next execution is of the new bytes, and costs the same as
//! if nothing had been decoded before.

mod common;

use common::{CODE, Machine, STACK};
use cpu::RunExit;
use cpu::block::CodeCache;
use isa::register::Gpr;
use models::CpuModel;

/// Where the tests put what they rewrite: the last bytes of a page, so that it goes on in the next.
const PLACE: u64 = CODE + 0x2fe8;
/// Bytes that are rewritten.
const WINDOW: u64 = 48;

/// A user program at [`PLACE`] with something in its registers.
fn at_place(model: &'static CpuModel) -> Machine {
    let mut machine = Machine::long_on(model, "hlt").into_user();
    for (number, register) in machine.cpu.regs[..16].iter_mut().enumerate() {
        *register = 0x20_0000 + 0x1111 * number as u64;
    }
    machine.cpu.set_gpr(Gpr::Rsp, STACK - 0x100);
    machine.cpu.rip = PLACE;
    machine
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What must agree: why the run ended, registers, RIP, flags, time, instructions, and what lies around code and stack.
type State = (RunExit, Vec<u64>, u64, u64, u64, u64, Vec<u8>);

fn state(machine: &mut Machine, instructions: u64) -> State {
    let exit = machine.run_for(instructions);
    let mut bytes = vec![0; 0x200];
    machine.memory.read(STACK - 0x200, &mut bytes).unwrap();
    let cpu = &machine.cpu;
    // How often a store into decoded code was paid for depends on what was decoded.
    let time = cpu.now() % cpu.model.costs.self_modifying_code.ticks();
    (exit, cpu.regs[..16].to_vec(), cpu.rip, cpu.rflags().into_bits(), time, cpu.instructions(), bytes)
}

/// Instructions of many lengths, alike and unlike in form: immediates, flags made and read, branches, pushes, string and SSE instructions.
const SNIPPETS: &[&str] = &[
    "mov eax, 1",
    "mov eax, 0x12345678",
    "mov ecx, 0x12345678",
    "mov rax, 0x123456789abcdef0",
    "add eax, 5",
    "sub eax, 5",
    "adc eax, 0",
    "cmp eax, 5",
    "test eax, 5",
    "xor edx, edx",
    "shl ecx, 1",
    "shl ecx, 3",
    "rol ecx, 9",
    "sar edx, cl",
    "setc bl",
    "cmovz esi, edi",
    "lea rdi, [rsi+8]",
    "mov [rsp-64], rax",
    "mov rdx, [rsp-64]",
    "add qword [rsp-64], 3",
    "push rax",
    "pop rbx",
    "nop",
    "inc eax",
    "ud2",
    "int3",
    "imul eax, ecx, 77",
    "movaps xmm0, xmm1",
    "addsd xmm0, xmm1",
    "stosb",
    "pushfq",
    "cpuid",
    "cld",
    "jmp $+2",
    "jmp $+7",
    "jz $+5",
    "jnz $+9",
    "jc $-3",
    "call $+5",
    "ret",
    "bswap eax",
    "mov bl, 7",
    "add cx, 0x1234",
    "and rdx, -5",
    "test rsi, 0x70000",
    "mov word [rsp-48], 0x1234",
    "cmp byte [rsp-48], 3",
    "mov ah, 5",
    "hlt",
];

#[test]
fn what_was_decoded_before_never_shows() {
    let options = assembler::Options { origin: 0, ..assembler::Options::default() };
    let snippets: Vec<Vec<u8>> = SNIPPETS
        .iter()
        .map(|text| assembler::assemble(text, &options).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).bytes)
        .collect();
    for model in [&models::SKYLAKE_SERVER, &models::ZEN3] {
        rewrite_at_random(model, &snippets);
    }
}

fn rewrite_at_random(model: &'static CpuModel, snippets: &[Vec<u8>]) {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut warm = at_place(model);
    warm.memory.write(PLACE, &[0x90; WINDOW as usize]).unwrap();
    for round in 0..6000 {
        // Long enough that many states of the code are met again, and that neighbours change in turn.
        for _ in 0..=numbers.below(3) {
            let at = PLACE + numbers.below(WINDOW);
            match numbers.below(4) {
                0 => {
                    let byte = if numbers.below(4) == 0 { 0x66 } else { numbers.below(256) as u8 };
                    warm.memory.write(at, &[byte]).unwrap();
                }
                // The same length with another value: mostly an immediate, a displacement or a ModR/M byte.
                1 => {
                    let byte = warm.memory.read_u8(at).unwrap();
                    warm.memory.write(at, &[byte ^ 1 << numbers.below(8)]).unwrap();
                }
                2 => warm.memory.write(at, &snippets[numbers.below(snippets.len() as u64) as usize]).unwrap(),
                _ => {
                    // The very bytes that are there.
                    let mut bytes = [0; 5];
                    warm.memory.read(at, &mut bytes).unwrap();
                    warm.memory.write(at, &bytes).unwrap();
                }
            }
        }
        let Machine { memory, .. } = &mut warm;
        let mut cold = Machine { memory: memory.snapshot(), code: CodeCache::new(), ..at_place(model) };
        warm.cpu = at_place(model).cpu;
        let instructions = 1 + numbers.below(24);
        let (expected, found) = (state(&mut cold, instructions), state(&mut warm, instructions));
        assert!(found == expected, "round {round}: {:x?} for {:x?}", &found, &expected);
        if numbers.below(40) == 0 {
            warm.memory.write(PLACE, &[0x90; WINDOW as usize]).unwrap();
        }
    }
}

/// Who rewrites.
#[derive(Clone, Copy, Debug)]
enum Writer {
    /// The program itself, by a store.
    Program,
    /// Another processor.
    Other,
    /// A device, or the hypervisor.
    Device,
}

/// A function that returns in EAX, before and after it was rewritten; how it begins, its bytes afterwards, and what it returns then.
type Rewriting = (&'static str, &'static str, u64);

const REWRITINGS: &[Rewriting] = &[
    ("mov eax, 1\n ret", "mov eax, 2\n ret", 2),
    ("mov eax, 1\n ret", "mov eax, 1\n ret", 1),
    ("mov eax, 1\n ret", "add eax, 1\n ret\n nop", 8),
    ("mov eax, 1\n add eax, 2\n ret", "mov eax, 1\n sub eax, 2\n ret", 0xffff_ffff),
    // Another length, and another number of instructions.
    ("mov eax, 1\n ret", "inc eax\n inc eax\n ret", 9),
    ("inc eax\n inc eax\n ret", "mov eax, 77\n ret", 77),
    // A flag that nobody read is read now.
    ("xor ecx, ecx\n sub ecx, 1\n mov ebx, 5\n adc eax, 0\n ret", "xor ecx, ecx\n sub ecx, 1\n adc ebx, 5\n adc eax, 0\n ret", 7),
    ("xor ecx, ecx\n sub ecx, 1\n xor ebx, ebx\n adc eax, 0\n ret", "xor ecx, ecx\n sub ecx, 1\n mov ebx, edx\n adc eax, 0\n ret", 8),
    ("cmp eax, 7\n xor ebx, ebx\n setz al\n ret", "cmp eax, 7\n mov ebx, edx\n setz al\n ret", 1),
    // A comparison and the branch that share a handler.
    ("cmp eax, 7\n jz $+7\n mov eax, 1\n ret", "cmp eax, 8\n jz $+7\n mov eax, 1\n ret", 1),
    ("cmp eax, 7\n jz $+7\n mov eax, 1\n ret", "cmp eax, 7\n jnz $+7\n mov eax, 1\n ret", 1),
    ("cmp eax, 7\n jz $+4\n inc eax\n ret", "cmp eax, 7\n jz $+5\n inc eax\n ret\n dec eax\n ret", 6),
    ("test eax, eax\n jz $+4\n inc eax\n ret", "xor eax, eax\n jz $+4\n inc eax\n ret", 0),
    // The branch at the end.
    ("jmp $+3\n ret\n inc eax\n ret", "jmp $+6\n ret\n inc eax\n ret\n dec eax\n ret", 6),
    // What leaves to the engine.
    ("inc eax\n pushfq\n pop rbx\n ret", "inc eax\n cpuid\n mov eax, 4\n ret", 4),
    // Addresses and registers instead of immediates.
    ("mov rbx, [rsp]\n mov eax, 3\n ret", "mov rbx, [rsp-8]\n mov eax, 4\n ret", 4),
    ("mov eax, 3\n ret", "mov ecx, 3\n ret", 7),
];

#[test]
fn a_function_is_rewritten_between_two_calls() {
    for &(before, after, expected) in REWRITINGS {
        let assemble = |text: &str| {
            let options = assembler::Options { origin: 0, ..assembler::Options::default() };
            assembler::assemble(text, &options).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).bytes
        };
        let (old, new) = (assemble(before), assemble(after));
        // In a page, and with each instruction in turn over the end of one.
        for place in [0x2800].into_iter().chain((1..=old.len() as u64).map(|bytes| 0x3000 - bytes)) {
            for writer in [Writer::Program, Writer::Other, Writer::Device] {
                let stores: String =
                    new.iter().enumerate().map(|(at, byte)| format!("mov byte [{:#x}], {byte:#x}\n", CODE + place + at as u64)).collect();
                let call = format!("mov eax, 7\n call {:#x}\n", CODE + place);
                // Three calls, so that the function's block is linked to; then it is rewritten, and called once more the same way.
                let source = format!(
                    "mov ebp, 3
                     again: {call}
                     dec ebp
                     jnz again
                     cmp r12, 1
                     jz out
                     mov r12, 1
                     mov ebp, 1
                     {}
                     jmp again
                     out: hlt
                     other: {stores}
                     hlt",
                    if matches!(writer, Writer::Program) { stores.as_str() } else { "cpuid\n wait_: hlt" }
                );
                let mut machine = Machine::long(&source);
                machine.memory.write(CODE + place, &old).unwrap();
                if !matches!(writer, Writer::Program) {
                    assert_eq!(machine.run(), RunExit::Idle);
                    assert_eq!(machine.cpu.rip, machine.symbol("wait_") + 1);
                }
                match writer {
                    Writer::Program => {}
                    Writer::Other => {
                        let mut second = Machine::long(&source).cpu;
                        second.rip = machine.symbol("other");
                        std::mem::swap(&mut machine.cpu, &mut second);
                        assert_eq!(machine.run(), RunExit::Idle);
                        std::mem::swap(&mut machine.cpu, &mut second);
                    }
                    Writer::Device => machine.memory.write(CODE + place, &new).unwrap(),
                }
                machine.cpu.activity = cpu::state::Activity::Active;
                assert_eq!(machine.run(), RunExit::Idle, "{before:?} becomes {after:?} at {place:#x} by {writer:?}");
                assert_eq!(machine.cpu.gpr(Gpr::Rax), expected, "{before:?} becomes {after:?} at {place:#x} by {writer:?}");
            }
        }
    }
}

#[test]
fn a_store_beside_code_leaves_it_alone_and_one_into_it_is_paid_for() {
    // A counter on the page of the code that counts; then the same on a line of the code, ten times each.
    let run = |target: &str| {
        let source = format!(
            "mov ecx, 10
             again: inc qword [{target}]
             dec ecx
             jnz again
             hlt
             align 64
             beside: dq 0"
        );
        let mut machine = Machine::long(&source);
        assert_eq!(machine.run(), RunExit::Idle);
        let place = if target == "beside" { machine.symbol("beside") } else { 0x9000 };
        assert_eq!(machine.memory.read_u64(place), Ok(10));
        machine.cpu.now()
    };
    assert_eq!(run("beside"), run("0x9000"), "only bytes of instructions count");
}

#[test]
fn a_page_becomes_code_while_a_program_writes_to_it() {
    // Twice around: the counter's line is data in the first turn; then code is written behind it, run, and overwritten through the same
    // known page.
    let source = "
        mov rdi, 0x9000
        inc qword [rdi]
        mov dword [rdi+0x10], 0x000001b8
        mov word [rdi+0x14], 0xc300
        lea rbx, [rdi+0x10]
        call rbx
        mov r8, rax
        inc qword [rdi]
        mov byte [rdi+0x11], 2
        call rbx
        mov r9, rax
        inc qword [rdi]
        mov byte [rdi+0x10], 0x05
        call rbx
        mov r10, rax
        lea rbx, [rdi+0x40]
        mov byte [rbx], 0xc3
        call rbx
        mov word [rbx], 0xc0ff
        mov byte [rbx+2], 0xc3
        call rbx
        mov r11, rax
        hlt";
    let mut machine = Machine::long(source);
    assert_eq!(machine.run(), RunExit::Idle);
    let results = [Gpr::R8, Gpr::R9, Gpr::R10, Gpr::R11].map(|register| machine.cpu.gpr(register));
    assert_eq!(results, [1, 2, 4, 5]);
    assert_eq!(machine.memory.read_u64(0x9000), Ok(3));
}

#[test]
fn stores_beside_code_reach_the_dirty_log() {
    let mut machine = Machine::long("again: inc qword [beside]\n jmp again\n align 64\n beside: dq 0");
    machine.run_for(10);
    machine.memory.start_dirty_log();
    machine.run_for(2);
    assert_eq!(machine.memory.take_dirty_log(), [CODE >> 12]);
    assert!(machine.memory.take_dirty_log().is_empty());
    machine.run_for(2);
    assert!(machine.memory.is_dirty(CODE >> 12));
    // And a snapshot does not see what comes behind it.
    let before = machine.memory.read_u64(machine.symbol("beside")).unwrap();
    let snapshot = machine.memory.snapshot();
    machine.run_for(20);
    assert_eq!(snapshot.read_u64(machine.symbol("beside")), Ok(before));
    assert!(machine.memory.read_u64(machine.symbol("beside")).unwrap() > before);
}
