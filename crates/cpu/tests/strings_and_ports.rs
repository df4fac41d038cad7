//! String instructions and port input and output: against a model that does one element after the other, and at their edges.

use cpu::apic::IcrMessage;
use cpu::block::CodeCache;
use cpu::bus::{Bus, Environment};
use cpu::random::split_mix_64;
use cpu::{Cpu, RunExit};
use isa::control::{Cr0, Cr4, Efer};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::Attributes;
use memory::Memory;
use models::Vendor;

const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x30_0000;
/// End of RAM, behind which nothing is mapped.
const END: u64 = 16 << 20;

/// Ports that answer with their number, and a list of what was done.
#[derive(Default)]
struct Ports {
    log: Vec<String>,
}

impl Bus for Ports {
    fn port_read(&mut self, port: u16, width: u8, _: u64) -> u32 {
        self.log.push(format!("in{width} {port:#x}"));
        0x0101_0101 * u32::from(port & 0xff)
    }
    fn port_write(&mut self, port: u16, width: u8, value: u32, _: u64) {
        self.log.push(format!("out{width} {port:#x} {value:#x}"));
    }
    fn memory_read(&mut self, _: u64, _: u8, _: u64) -> u64 {
        0
    }
    fn memory_write(&mut self, _: u64, _: u8, _: u64, _: u64) {}
    fn send(&mut self, _: u32, _: IcrMessage, _: u64) {}
    fn end_of_interrupt(&mut self, _: u8) {}
    fn acknowledge(&mut self) -> u8 {
        0
    }
    fn attention(&self) -> bool {
        false
    }
}

/// A processor in 64-bit mode with RAM mapped to itself, at the first byte of a program.
struct Machine {
    cpu: Box<Cpu>,
    memory: Memory,
    code: CodeCache,
    ports: Ports,
}

impl Machine {
    fn new(program: &str) -> Self {
        let options = assembler::Options { origin: CODE, ..assembler::Options::default() };
        let program = assembler::assemble(program, &options).expect("the program assembles");
        let mut memory = Memory::new(END);
        memory.write(CODE, &program.bytes).unwrap();
        memory.write_u64(0x1000, 0x2007).unwrap();
        memory.write_u64(0x2000, 0x3007).unwrap();
        for page in 0..END >> 21 {
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
        cpu.segments[Segment::Cs.number()].attributes = Attributes::from_bits(0xa09b);
        // No handler for anything: an exception shuts the processor down where it arose.
        cpu.idtr.limit = 0;
        cpu.flush_tlb();
        cpu.rip = CODE;
        cpu.regs[4] = 0x20_0000;
        Self { cpu, memory, code: CodeCache::new(), ports: Ports::default() }
    }

    fn run(&mut self, ticks: u64) -> RunExit {
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut self.ports };
        self.cpu.run(&mut environment, ticks, u64::MAX)
    }

    /// Runs until the HLT at the end, in slices.
    fn run_to_halt(&mut self, slice: u64) {
        for _ in 0..10_000_000 {
            match self.run(self.cpu.now() + slice) {
                RunExit::Time => {}
                RunExit::Idle => return,
                other => panic!("{other:?} at {:#x}", self.cpu.rip),
            }
        }
        panic!("no end");
    }

    fn user(mut self) -> Self {
        self.cpu.cpl = 3;
        self.cpu.segments[Segment::Cs.number()].attributes = Attributes::from_bits(0xa0fb);
        self.cpu.segments[Segment::Ss.number()].attributes = Attributes::from_bits(0xc0f3);
        self.cpu.flush_tlb();
        self
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        split_mix_64(&mut self.0) % limit
    }
}

const LENGTH: usize = 0x8000;

/// What REP MOVS or, with a value, REP STOS does, one element after the other; `step` is the signed distance of elements.
fn model(data: &mut [u8], value: Option<u64>, step: i64, count: usize, source: i64, target: i64) {
    let bytes = step.unsigned_abs() as usize;
    for element in 0..count as i64 {
        let at = |start: i64| usize::try_from(start + step * element).unwrap();
        let element = match value {
            Some(value) => value.to_le_bytes()[..bytes].to_vec(),
            None => data[at(source)..at(source) + bytes].to_vec(),
        };
        data[at(target)..at(target) + bytes].copy_from_slice(&element);
    }
}

#[test]
fn repeated_moves_and_stores_equal_one_element_after_the_other() {
    let mut random = Random(1);
    for round in 0..400 {
        let letter = ["b", "w", "d", "q"][random.below(4) as usize];
        let bytes = 1usize << "bwdq".find(letter).unwrap();
        let stos = random.below(3) == 0;
        let down = random.below(4) == 0;
        let count = if random.below(2) == 0 { random.below(40) } else { random.below(0x2800 / bytes as u64) } as usize;
        // Near each other half of the time, so that they overlap.
        let source = 0x2800 + random.below(0x2800) as i64;
        let near = source + random.below(64) as i64 - 32;
        let target = if random.below(2) == 0 { near } else { 0x2800 + random.below(0x2800) as i64 };
        let direction = if down { "std" } else { "cld" };
        let name = if stos { "stos" } else { "movs" };
        let mut machine = Machine::new(&format!("{direction}\nrep {name}{letter}\nhlt"));
        let mut data: Vec<u8> = (0..LENGTH).map(|_| random.below(256) as u8).collect();
        machine.memory.write(DATA, &data).unwrap();
        let value = 0x8877_6655_4433_2211;
        machine.cpu.set_gpr(Gpr::Rax, value);
        machine.cpu.set_gpr(Gpr::Rcx, count as u64);
        machine.cpu.set_gpr(Gpr::Rsi, DATA + source as u64);
        machine.cpu.set_gpr(Gpr::Rdi, DATA + target as u64);
        machine.run_to_halt([50, 777, 1_000_000][random.below(3) as usize]);
        let step = if down { -(bytes as i64) } else { bytes as i64 };
        model(&mut data, stos.then_some(value), step, count, source, target);
        let mut after = vec![0; LENGTH];
        machine.memory.read(DATA, &mut after).unwrap();
        let what = format!("round {round}: {direction} rep {name}{letter}, {count} from {source:#x} to {target:#x}");
        assert!(after == data, "{what}: first difference at {:?}", after.iter().zip(&data).position(|(a, b)| a != b));
        let moved = (count * bytes) as u64;
        let end = |start: i64| if down { (DATA + start as u64).wrapping_sub(moved) } else { DATA + start as u64 + moved };
        assert_eq!(machine.cpu.gpr(Gpr::Rcx), 0, "{what}");
        assert_eq!(machine.cpu.gpr(Gpr::Rdi), end(target), "{what}");
        assert_eq!(machine.cpu.gpr(Gpr::Rsi), if stos { DATA + source as u64 } else { end(source) }, "{what}");
    }
}

#[test]
fn time_does_not_depend_on_how_often_a_repetition_is_interrupted() {
    let time = |slice: u64| {
        let mut machine = Machine::new("mov edi, 0x300123\nmov ecx, 20000\nrep stosb\nhlt");
        machine.run_to_halt(slice);
        machine.cpu.now()
    };
    let whole = time(u64::MAX / 2);
    let costs = &models::default_for(Vendor::Intel).costs;
    assert!(whole >= costs.string_setup.ticks() + 20_000 * costs.string_element.ticks());
    for slice in [1, 7, 100, 4096, 50_000] {
        assert_eq!(time(slice), whole, "slices of {slice}");
    }
}

#[test]
fn a_repetition_stops_at_the_first_element_at_or_after_the_time() {
    let mut machine = Machine::new("mov edi, 0x300000\nmov ecx, 1000000\nrep stosb\nhlt");
    let element = models::default_for(Vendor::Intel).costs.string_element.ticks();
    assert_eq!(machine.run(10_000), RunExit::Time);
    let overshoot = machine.cpu.now() - 10_000;
    assert!(overshoot < element, "{overshoot} ticks late");
    assert_eq!(machine.cpu.rip, CODE + 10, "still at the instruction");
    let (left, at) = (machine.cpu.gpr(Gpr::Rcx), machine.cpu.gpr(Gpr::Rdi));
    assert!(left < 1_000_000 && left > 0);
    assert_eq!(at - DATA, 1_000_000 - left);
}

#[test]
fn where_a_repetition_stops_does_not_depend_on_where_it_stopped_before() {
    let element = models::default_for(Vendor::Intel).costs.string_element.ticks();
    for end in 10_000..10_100 {
        // What is left of the time may pay for the instruction's beginning, for that of the block behind it, or for neither.
        let stops = [0, 1, 3, 8, 20, 39, 41, 70].map(|before| {
            let mut machine = Machine::new("mov edi, 0x300000\nmov ecx, 1000000\nrepne scasb\nmov eax, 1\nhlt");
            machine.cpu.set_gpr(Gpr::Rax, 1);
            for time in [end - before, end] {
                machine.run(time);
            }
            (machine.cpu.now(), machine.cpu.gpr(Gpr::Rcx), machine.cpu.rflags().into_bits())
        });
        assert!(stops[0].0 - end < element, "{} ticks late", stops[0].0 - end);
        assert!(stops.iter().all(|stop| *stop == stops[0]), "until {end}: {stops:x?}");
    }
}

#[test]
fn a_fault_in_the_middle_keeps_what_was_done() {
    for (letter, bytes) in [("b", 1u64), ("q", 8)] {
        let mut machine = Machine::new(&format!("rep stos{letter}"));
        let start = END - 10 * bytes;
        machine.cpu.set_gpr(Gpr::Rdi, start);
        machine.cpu.set_gpr(Gpr::Rcx, 100);
        machine.cpu.set_gpr(Gpr::Rax, u64::MAX);
        assert_eq!(machine.run(1_000_000), RunExit::Shutdown);
        assert_eq!((machine.cpu.gpr(Gpr::Rdi), machine.cpu.gpr(Gpr::Rcx)), (END, 90), "stos{letter}");
        let mut last = [0; 8];
        machine.memory.read(END - 8, &mut last).unwrap();
        assert_eq!(last, [0xff; 8]);
    }
}

#[test]
fn repetitions_that_compare_end_where_the_comparison_is_decided() {
    let rows = [("repne scasb", 0x2eu64, 5, 4), ("repe scasb", 0x61, 3, 1), ("repne scasb", 0x00, 9, 9)];
    for (text, al, count, done) in rows {
        let mut machine = Machine::new(&format!("{text}\nhlt"));
        machine.memory.write(DATA, b"abc.defghi").unwrap();
        machine.cpu.set_gpr(Gpr::Rax, al);
        machine.cpu.set_gpr(Gpr::Rcx, count);
        machine.cpu.set_gpr(Gpr::Rdi, DATA);
        machine.run_to_halt(1_000_000);
        let expected = if text == "repe scasb" { done + 1 } else { done };
        assert_eq!(machine.cpu.gpr(Gpr::Rdi) - DATA, expected, "{text} {al:#x}");
        assert_eq!(machine.cpu.gpr(Gpr::Rcx), count - expected, "{text} {al:#x}");
    }
}

#[test]
fn a_repetition_may_overwrite_its_own_code_page() {
    // The NOPs behind REP STOSB become INC EAX's first byte... of `ff c0`: a word is stored many times.
    let mut machine =
        Machine::new("mov edi, target\nmov ecx, 3\nmov eax, 0xc0ff\nrep stosw\nxor eax, eax\ntarget: nop\nnop\nnop\nnop\nnop\nnop\nhlt");
    machine.run_to_halt(1_000_000);
    assert_eq!(machine.cpu.gpr(Gpr::Rax), 3);
}

#[test]
fn ports_are_read_and_written_in_every_width() {
    let program = "in al, 0x60
        out 0x61, ax
        mov dx, 0x3f8
        in eax, dx
        out dx, eax
        mov edi, 0x300000
        mov ecx, 2
        rep insw
        mov esi, 0x300001
        outsb
        xor ecx, ecx
        rep outsb
        hlt";
    let mut machine = Machine::new(program);
    machine.run_to_halt(10_000_000);
    let expected = ["in1 0x60", "out2 0x61 0x60", "in4 0x3f8", "out4 0x3f8 0xf8f8f8f8", "in2 0x3f8", "in2 0x3f8", "out1 0x3f8 0xf8"];
    assert_eq!(machine.ports.log, expected);
    assert_eq!(machine.memory.read_u32(DATA).unwrap(), 0xf8f8_f8f8);
    assert_eq!((machine.cpu.gpr(Gpr::Rsi), machine.cpu.gpr(Gpr::Rdi)), (DATA + 2, DATA + 4));
}

#[test]
fn a_user_program_needs_iopl_or_the_bitmap() {
    const TSS: u64 = 0x40_0000;
    // (IOPL, limit of the TSS, ports whose bits are set, whether the access is allowed)
    let rows: [(u8, u32, &[u16], bool); 8] = [
        (3, 0x67, &[], true),
        (0, 0x67, &[], false),
        (0, 0x1000, &[], true),
        (0, 0x1000, &[0x3f9], false),
        (0, 0x1000, &[0x3fc], true),
        (0, 0x1000, &[0x3fb], false),
        // The byte behind the last one must lie inside the limit, too.
        (0, 0x68 + 0x3f8 / 8, &[], false),
        (0, 0x68 + 0x3f8 / 8 + 1, &[], true),
    ];
    for (iopl, limit, ports, allowed) in rows {
        let mut machine = Machine::new("mov dx, 0x3f8\nin eax, dx\nhlt").user();
        machine.cpu.set_rflags(Rflags::new().with_iopl(iopl));
        machine.cpu.tr.base = TSS;
        machine.cpu.tr.limit = limit;
        machine.cpu.tr.attributes = Attributes::from_bits(0x8b);
        machine.memory.write(TSS + 0x66, &0x68u16.to_le_bytes()).unwrap();
        for port in ports {
            let address = TSS + 0x68 + u64::from(port / 8);
            let bits = machine.memory.read_u8(address).unwrap() | 1 << (port % 8);
            machine.memory.write(address, &[bits]).unwrap();
        }
        // Either the port or HLT at CPL 3 raises #GP.
        assert_eq!(machine.run(10_000_000), RunExit::Shutdown);
        let log = if allowed { vec!["in4 0x3f8".to_string()] } else { vec![] };
        assert_eq!(machine.ports.log, log, "IOPL {iopl}, limit {limit:#x}, bits {ports:x?}");
    }
}
