//! Shadow tables by themselves: what the property over whole guests (`tests/paging`) does not look into.

use super::path::{Mode, Path, Rights, Table};
use super::{FLOOD, Filled, ShadowTables, Wish, entries_of};
use crate::state::Registers;
use cpu::Cpu;
use isa::paging::{ADDRESS, NO_EXECUTE, USER, WRITABLE};
use memory::Memory;

/// Where the tables are.
const OWN: u64 = 1 << 20;
/// The guest's tables, by level.
const TABLES: [u64; 4] = [0x11, 0x12, 0x13, 0x14];
const LINEAR: u64 = 0x1000;

/// A guest with 4-level paging, CR0.WP set, and its tables at [`TABLES`].
fn guest() -> Registers {
    let mut registers = Registers::of(&Cpu::new(&models::SKYLAKE_SERVER, 0, 1, None));
    registers.cr0 = registers.cr0.with_pe(true).with_pg(true).with_wp(true);
    registers.cr4 = registers.cr4.with_pae(true);
    registers.efer = registers.efer.with_lme(true).with_lma(true).with_nxe(true);
    registers.cr3 = TABLES[3] << 12;
    registers
}

/// A way through them to a frame.
fn way(frame: u64, rights: Rights) -> Path {
    let table = |frame: u64| Some(Table { frame, rights: Rights::ALL });
    Path { tables: TABLES.map(table), leaf: 1, frame, rights, dirty: true, key: 0 }
}

const READ: Wish = Wish { linear: LINEAR, write: false, fetch: false, user: false, writable: true };
const WRITE: Wish = Wish { write: true, ..READ };

struct Fixture {
    memory: Memory,
    tables: ShadowTables,
    root: u64,
}

impl Fixture {
    fn new(pool: u32, registers: &Registers) -> Self {
        let mut memory = Memory::new(8 << 20);
        let pages = ShadowTables::pages(pool, 1) << 12;
        let mut tables = ShadowTables::new(OWN..OWN + pages, 1);
        let root = tables.turn(&mut memory, 0, registers).expect("nothing was walked");
        Self { memory, tables, root }
    }

    fn fill(&mut self, path: &Path, wish: Wish) -> Filled {
        self.tables.fill(&mut self.memory, 0, path, wish)
    }

    /// The lowest entry for an address, as the processor walks to it.
    fn entry(&self, linear: u64) -> u64 {
        let mut table = self.root;
        for shift in [39, 30, 21, 12] {
            let entry = self.memory.read_u64(table + (linear >> shift & 0x1ff) * 8).unwrap();
            if shift == 12 || entry == 0 {
                return entry;
            }
            table = entry & ADDRESS;
        }
        0
    }
}

#[test]
fn a_page_is_mapped_with_the_rights_of_all_levels() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    let rights = Rights { write: true, user: false, execute: false };
    assert_eq!(it.fill(&way(0x20, rights), WRITE), Filled::Changed);
    let entry = it.entry(LINEAR);
    assert_eq!((entry & ADDRESS, entry & WRITABLE, entry & USER, entry & NO_EXECUTE), (0x20 << 12, WRITABLE, 0, NO_EXECUTE));
    assert_eq!(it.fill(&way(0x20, rights), WRITE), Filled::Nothing { sure: true }, "it says so already");
    assert_eq!((it.tables.mappings(), it.tables.used()), (1, 4));
}

#[test]
fn a_page_is_writable_only_when_it_is_dirty_and_no_table() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    it.fill(&Path { dirty: false, ..way(0x20, Rights::ALL) }, READ);
    assert_eq!(it.entry(LINEAR) & WRITABLE, 0);
    assert_eq!(it.fill(&way(TABLES[2], Rights::ALL), READ), Filled::Changed);
    assert_eq!(it.entry(LINEAR) & WRITABLE, 0);
    assert_eq!(it.fill(&way(TABLES[2], Rights::ALL), WRITE), Filled::Emulate);
}

#[test]
fn a_frame_that_becomes_a_table_is_writable_no_more() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    it.fill(&way(0x20, Rights::ALL), WRITE);
    assert_ne!(it.entry(LINEAR) & WRITABLE, 0);
    it.tables.take_stale();
    let mut other = way(0x21, Rights::ALL);
    other.tables[0] = Some(Table { frame: 0x20, rights: Rights::ALL });
    assert_eq!(it.fill(&other, Wish { linear: LINEAR + (1 << 21), ..READ }), Filled::Changed);
    assert_eq!(it.entry(LINEAR) & WRITABLE, 0);
    assert!(it.tables.take_stale() && it.memory.is_watched(0x20));
}

#[test]
fn writes_to_a_table_empty_what_was_made_from_them_until_it_is_none() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    it.fill(&way(0x20, Rights::ALL), READ);
    it.fill(&way(0x30, Rights::ALL), Wish { linear: 0x5000, ..READ });
    it.memory.write_u64((TABLES[0] << 12) + 8, 0).unwrap();
    it.tables.follow_writes(&mut it.memory);
    assert_eq!((it.entry(LINEAR), it.tables.mappings()), (0, 1), "and the other entry stays");
    for count in 1..FLOOD {
        assert!(it.tables.is_table(TABLES[0]), "{count}");
        it.memory.write_u64((TABLES[0] << 12) + 0x100, 0).unwrap();
        it.tables.follow_writes(&mut it.memory);
    }
    assert!(!it.tables.is_table(TABLES[0]) && !it.memory.is_watched(TABLES[0]));
    assert_eq!(it.entry(0x5000), 0);
    // A piece of an entry.
    it.fill(&way(0x20, Rights::ALL), READ);
    it.memory.write((TABLES[0] << 12) + 0xff1, &[0]).unwrap();
    it.tables.follow_writes(&mut it.memory);
    assert!(!it.tables.is_table(TABLES[0]));
    // The root is walked from: it stays whatever is written.
    for _ in 0..10 {
        it.memory.write_u64(TABLES[3] << 12, 0).unwrap();
        it.tables.follow_writes(&mut it.memory);
    }
    assert!(it.tables.is_table(TABLES[3]) && it.entry(LINEAR) == 0);
}

#[test]
fn a_pool_without_room_recycles_the_oldest() {
    let registers = guest();
    let mut it = Fixture::new(8, &registers);
    for number in 0..100_u64 {
        let mut path = way(0x500 + number, Rights::ALL);
        path.tables[0] = Some(Table { frame: 0x600 + number, rights: Rights::ALL });
        let wish = Wish { linear: number << 21, ..READ };
        assert_eq!(it.fill(&path, wish), Filled::Changed);
        assert_eq!(it.entry(wish.linear) & ADDRESS, path.frame << 12);
        assert!(it.tables.used() <= 8);
    }
    assert!(it.tables.mappings() < 8);
    assert!(it.tables.is_table(TABLES[3]) && !it.tables.is_table(0x600));
}

#[test]
fn a_zap_leaves_empty_roots_and_nothing_else() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    it.fill(&way(0x20, Rights::ALL), WRITE);
    it.fill(&way(0x21, Rights::ALL), Wish { linear: 1 << 30, ..WRITE });
    assert_eq!(it.tables.zap(&mut it.memory), 2);
    assert_eq!((it.tables.mappings(), it.tables.used()), (0, 1));
    assert_eq!(it.entry(LINEAR), 0);
    assert!(!it.memory.is_watched(TABLES[0]) && it.memory.is_watched(TABLES[3]));
    assert_eq!(it.fill(&way(0x20, Rights::ALL), WRITE), Filled::Changed);
}

#[test]
fn without_write_protection_a_supervisor_s_write_takes_the_page_from_the_user() {
    let mut registers = guest();
    registers.cr0 = registers.cr0.with_wp(false);
    registers.cr4 = registers.cr4.with_smep(true);
    let mut it = Fixture::new(32, &registers);
    let path = way(0x20, Rights { write: false, ..Rights::ALL });
    it.fill(&path, READ);
    assert_eq!(it.entry(LINEAR) & (USER | WRITABLE | NO_EXECUTE), USER);
    assert_eq!(it.fill(&path, WRITE), Filled::Changed);
    assert_eq!(it.entry(LINEAR) & (USER | WRITABLE | NO_EXECUTE), WRITABLE | NO_EXECUTE);
    assert_eq!(it.fill(&path, Wish { user: true, ..READ }), Filled::Changed);
    assert_eq!(it.entry(LINEAR) & (USER | WRITABLE | NO_EXECUTE), USER);
    // SMAP would not see such a page for what it is.
    registers.cr4 = registers.cr4.with_smap(true);
    let mut it = Fixture::new(32, &registers);
    assert_eq!(it.fill(&path, WRITE), Filled::Emulate);
}

#[test]
fn tables_of_32_bit_paging_fall_into_quadrants() {
    let mode = Mode { levels: 2, large: true, no_execute: false, write_protect: true, smep: false, smap: false, keys: false };
    assert_eq!(entries_of(mode, 1, 0, 5), 5..6);
    assert_eq!(entries_of(mode, 1, 1, 5), 0..0);
    assert_eq!(entries_of(mode, 1, 1, 517), 5..6);
    assert_eq!(entries_of(mode, 2, 3, 769), 2..4);
    assert_eq!(entries_of(Mode { levels: 4, ..mode }, 3, 0, 511), 511..512);
}

#[test]
fn a_large_page_is_divided_and_not_written_before_it_is_dirty() {
    let registers = guest();
    let mut it = Fixture::new(32, &registers);
    let mut path = Path { leaf: 2, dirty: false, ..way(0x3005, Rights::ALL) };
    path.tables[0] = None;
    let wish = Wish { linear: 0x20_5000, ..READ };
    assert_eq!(it.fill(&path, wish), Filled::Changed);
    assert_eq!(it.entry(wish.linear) & (ADDRESS | WRITABLE), 0x3005 << 12);
    path.dirty = true;
    assert_eq!(it.fill(&path, Wish { write: true, ..wish }), Filled::Changed);
    assert_eq!(it.entry(wish.linear) & (ADDRESS | WRITABLE), 0x3005 << 12 | WRITABLE);
    assert!(!it.tables.is_table(0x3000), "a direct page stands for no table");
}
