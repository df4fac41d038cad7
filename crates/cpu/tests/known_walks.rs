//! What is remembered of walks and blocks changes nothing: a processor that remembers does what one does that never ran before.

mod common;

use common::{CODE, Machine, PAGES, ROOT, STACK};
use cpu::access::Privilege::{Implicit, Supervisor, User};
use cpu::trap::Access::{Fetch, Read, Write};
use isa::control::{Cr0, Cr4, Efer};
use isa::register::Gpr;
use isa::rflags::Rflags;

const PAGE: u64 = 0x2_0000;

/// A generator of numbers: xorshift.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[test]
fn a_walk_over_known_entries_is_a_walk() {
    // Entries of all levels are changed by the hypervisor's hand, registers that rights follow from too; in between, the TLB is flushed and
    // the same pages are asked for.
    let tables = [ROOT, 0x2000, 0x3000, PAGES + 8 * (PAGE >> 12), PAGES + 8 * (PAGE >> 12) + 8];
    let flags = [1u64, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 45, 1 << 51, 1 << 63];
    let mut machine = Machine::long("hlt");
    let original = tables.map(|table| machine.memory.read_u64(table).unwrap());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut walked, mut faulted) = (0, 0);
    for turn in 0..20_000 {
        match numbers.below(8) {
            0 => {
                let table = numbers.of(&tables);
                let entry = machine.memory.read_u64(table).unwrap();
                machine.memory.write_u64(table, entry ^ numbers.of(&flags)).unwrap();
            }
            1 => {
                let (table, entry) = numbers.of(&[0, 1, 2, 3, 4].map(|at| (tables[at], original[at])));
                machine.memory.write_u64(table, entry).unwrap();
            }
            2 => {
                // A moved page, and another PDPT behind the same PML4 entry.
                machine.memory.write_u64(tables[3], numbers.of(&[PAGE, PAGE + 0x1000, 1 << 20]) | 0x67).unwrap();
            }
            3 => {
                let cpu = &mut machine.cpu;
                cpu.cr0 = Cr0::from_bits(numbers.of(&[0x8001_0011, 0x8000_0011]));
                cpu.cr4 = Cr4::from_bits(0x620 | numbers.of(&[0, 0x80]) | numbers.of(&[0, 1 << 20]) | numbers.of(&[0, 1 << 21]));
                cpu.efer = Efer::from_bits(numbers.of(&[0xd01, 0x501]));
                cpu.set_rflags(Rflags::new().with_ac(numbers.of(&[false, true])));
                cpu.context_changed();
            }
            _ => {
                for table in tables {
                    let entry = machine.memory.read_u64(table).unwrap();
                    // Most walks find everything in order, or there is nothing to remember.
                    if numbers.below(4) == 0 {
                        machine.memory.write_u64(table, entry | 0x27).unwrap();
                    }
                }
            }
        }
        let linear = numbers.of(&[PAGE, PAGE + 0x123, PAGE + 0x1000]);
        let (access, privilege) = (numbers.of(&[Read, Write, Fetch]), numbers.of(&[User, Supervisor, Implicit]));
        machine.cpu.flush_tlb();

        let mut fresh = Machine::long("hlt");
        fresh.memory = machine.memory.snapshot();
        let cpu = &mut fresh.cpu;
        (cpu.cr0, cpu.cr4, cpu.efer) = (machine.cpu.cr0, machine.cpu.cr4, machine.cpu.efer);
        cpu.set_rflags(machine.cpu.rflags());
        cpu.context_changed();

        let ask = |machine: &mut Machine| {
            let before = machine.cpu.now();
            let outcome = machine.with(|cpu| cpu.translate(linear, access, privilege));
            let entries = tables.map(|table| machine.memory.read_u64(table).unwrap());
            (format!("{outcome:?}"), machine.cpu.now() - before, entries, outcome.is_ok())
        };
        let found = ask(&mut machine);
        assert_eq!(found, ask(&mut fresh), "turn {turn}: {access:?} by {privilege:?} at {linear:#x}");
        if found.3 { walked += 1 } else { faulted += 1 }
    }
    assert!(walked > 2000 && faulted > 2000, "{walked} walks, {faulted} faults: both kinds must be tried");
}

#[test]
fn the_same_address_in_two_address_spaces_is_other_code() {
    // Two roots that differ in where `there` is mapped; each is gone to many times, so that either's block is known when the other is asked for.
    let (second_root, second_pages) = (0x10_0000, 0x10_3000);
    let source = format!(
        "mov ecx, 100
         again: call there
         mov rsi, {second_root:#x}
         mov cr3, rsi
         call there
         mov rsi, {ROOT:#x}
         mov cr3, rsi
         dec ecx
         jnz again
         hlt
         align 4096
         there: inc eax
         ret
         align 4096
         add eax, 0x1000
         ret"
    );
    let mut machine = Machine::long(&source);
    let mut table = [0; 4096];
    machine.memory.read(PAGES, &mut table).unwrap();
    machine.memory.write(second_pages, &table).unwrap();
    for (at, entry) in [(second_root, 0x10_1007), (0x10_1000, 0x10_2007), (0x10_2000, second_pages | 7)] {
        machine.memory.write_u64(at, entry).unwrap();
    }
    let there = (CODE >> 12) + 1;
    machine.memory.write_u64(second_pages + 8 * there, (there + 1) << 12 | 7).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.gpr(Gpr::Rax), 100 * 0x1001);
}

/// The address spaces between which the next test goes to and fro: one of small pages, and one whose first two megabytes, code and data and all,
/// are a large page.
const SPACES: [u64; 2] = [ROOT, 0x10_0000];

#[test]
fn a_context_that_walks_bring_back_does_what_one_does_that_never_was() {
    // As VM entries and exits without VPID do: the address space changes, and all of it is flushed. One processor takes up its old contexts when
    // walks have brought back what they came from; its twin begins new ones. Between the transitions, somebody changes paging structures.
    let source = "
        first: mov rax, [rsi]
        add [rdi], rax
        dec ecx
        jnz first
        call second
        hlt
        align 4096
        second: add rdx, [rsi + 0x1000]
        ret
        third: mov [rdi + 8], rdx
        call first
        hlt";
    let [mut renewed, mut fresh] = [(); 2].map(|()| {
        let mut machine = Machine::long(source);
        for (at, entry) in [(SPACES[1], 0x10_1027), (0x10_1000, 0x10_2027), (0x10_2000, 0xe7), (0x10_2008, 0x20_00e7)] {
            machine.memory.write_u64(at, entry).unwrap();
        }
        machine
    });
    let [first, second, third] = ["first", "second", "third"].map(|name| renewed.symbols[name]);
    let page = |address: u64| PAGES + 8 * (address >> 12);
    // The last two hold all that a delivered fault needs, too: what is done to them is undone at once.
    let tables = [page(PAGE), page(PAGE + 0x1000), page(second), page(CODE), 0x3008, 0x10_2008, 0x3000, 0x10_2000];
    let original = tables.map(|table| renewed.memory.read_u64(table).unwrap());
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let (mut marks, mut space) = ([None; 2], 0);
    let mut ends = std::collections::BTreeMap::new();
    for turn in 0..6000 {
        let transition = numbers.below(3) > 0;
        if transition {
            let old = std::mem::replace(&mut space, numbers.below(2));
            marks[old] = Some(renewed.cpu.mark_context());
            for machine in [&mut renewed, &mut fresh] {
                machine.cpu.cr3 = SPACES[space];
                machine.cpu.tlb().flush_address_space(0);
            }
            match marks[space] {
                Some(mark) => renewed.cpu.renew_context(&mark),
                None => renewed.cpu.context_changed(),
            }
            fresh.cpu.context_changed();
        }
        let change = match numbers.below(6) {
            0 => Some((numbers.of(&tables), numbers.of(&[1u64, 2, 4, 0x20, 0x40, 0x100, 1 << 12, 1 << 63]))),
            _ => None,
        };
        let (entry, registers) =
            (numbers.of(&[first, first, second, third]), [numbers.of(&[PAGE, PAGE + 0xff8, 0x20_0000]), 1 + numbers.below(4) as u64]);
        let target = numbers.of(&[PAGE, PAGE + 0x800, 0x20_0100]);
        let limit = 1 + numbers.below(40) as u64;
        let [one, two] = [&mut renewed, &mut fresh].map(|machine| {
            if let Some((table, flag)) = change {
                let held = machine.memory.read_u64(table).unwrap();
                machine.memory.write_u64(table, held ^ flag).unwrap();
            }
            machine.cpu.activity = cpu::state::Activity::Active;
            machine.cpu.rip = entry;
            for (register, value) in [(Gpr::Rsi, registers[0]), (Gpr::Rcx, registers[1]), (Gpr::Rdi, target), (Gpr::Rsp, STACK)] {
                machine.cpu.set_gpr(register, value);
            }
            let end = machine.run_for(limit);
            machine.with(|cpu| cpu.check_caches()).unwrap();
            if change.is_some_and(|(table, _)| tables[6..].contains(&table)) || end == cpu::RunExit::Shutdown {
                for (table, entry) in tables.into_iter().zip(original) {
                    machine.memory.write_u64(table, entry).unwrap();
                }
            }
            let entries = tables.map(|table| machine.memory.read_u64(table).unwrap());
            (format!("{end:?}"), machine.cpu.now(), entries, machine.cpu.record())
        });
        assert_eq!((&one.0, one.1, one.2), (&two.0, two.1, two.2), "turn {turn}");
        assert!(one.3 == two.3, "turn {turn}: {:?}\n{:?}", one.3, two.3);
        *ends.entry(one.0).or_insert(0) += 1;
    }
    assert!(ends.len() >= 3 && ends.values().all(|count| *count > 20), "runs to the limit, to a HLT and to a shutdown: {ends:?}");
}
