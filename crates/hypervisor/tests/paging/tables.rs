//! Page tables: a fixed part that the guest's own code, stacks and tables need, and a window whose tables are made at random.

use crate::{Mode, Random};

/// RAM of the guest.
pub const RAM: u64 = 8 << 20;
/// The fixed part of the tables: the roots first, 64 KiB of them.
pub const SAFE: u64 = 0x18_0000;
/// The frames that the window's tables lie in.
pub const WINDOW_TABLES: u64 = 0x20_0000;
pub const TABLES: u64 = 8;
/// The frames that its pages lie in, at the start of a large page.
pub const DATA: u64 = 0x40_0000;
pub const FRAMES: u64 = 8;
/// User pages of the fixed part: code and stack.
pub const USER_CODE: u64 = 0x12_0000;
pub const USER_STACK: u64 = 0x13_0000;
/// Memory that is none, and no device either.
const NOTHING: u64 = 0x8000_0000;

/// What a program may meet in its window.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// Its own tables, and memory that is none; then nothing is executed there.
    pub anything: bool,
    /// Two entries never refer to one table, and tables are where tables belong.
    pub tree: bool,
    /// Pages of 1 GiB exist.
    pub gigabytes: bool,
    /// The window's entries may be executable or not.
    pub no_execute: bool,
    /// No bit that is an address on one model and reserved on another.
    pub portable: bool,
}

/// The linear address of a page of the window.
pub fn window(mode: Mode, random: &mut Random) -> u64 {
    let (high, middle, page) = (random.below(2), random.below(4), random.below(8));
    match mode {
        Mode::Bits32 => 0x4000_0000 + (high << 24) + (middle << 22) + (random.below(2) << 21) + (page << 12),
        Mode::Pae => ((1 + high) << 30) + (middle << 21) + (page << 12),
        Mode::Level4 => 0x80_0000_0000 + (high << 30) + (middle << 21) + (page << 12),
    }
}

/// A place for an entry of the window: its address, and the level of the table it is in.
pub fn place(mode: Mode, random: &mut Random) -> (u64, u32) {
    match mode {
        // The root of either address space, or a table.
        Mode::Bits32 if random.chance(25) => (root(mode, random.below(2)) + 4 * (256 + random.below(2) * 4 + random.below(4)), 2),
        Mode::Bits32 => (WINDOW_TABLES + (random.below(TABLES) << 12) + 4 * (random.below(2) * 512 + random.below(8)), 1),
        _ => {
            let table = random.below(TABLES);
            let level = level_of(mode, table);
            let entries = if level == 1 {
                8
            } else if level == 2 {
                4
            } else {
                2
            };
            (WINDOW_TABLES + (table << 12) + 8 * random.below(entries), level)
        }
    }
}

/// The level of a table of the window in a tree.
fn level_of(mode: Mode, table: u64) -> u32 {
    match (mode, table) {
        (Mode::Bits32, _) => 1,
        (Mode::Level4, 0) => 3,
        (_, 0..=2) => 2,
        _ => 1,
    }
}

/// The root of an address space.
pub fn root(mode: Mode, number: u64) -> u64 {
    SAFE + (number << 12) + if mode == Mode::Pae { 0x20 } else { 0 }
}

/// A table for an entry of a level to refer to.
fn below(mode: Mode, level: u32, index: u64, content: Content, random: &mut Random) -> u64 {
    let tables: &[u64] = match (mode, level) {
        (Mode::Bits32, _) => &[0, 1, 2, 3, 4, 5, 6, 7],
        (_, 4) => &[0],
        (_, 3) => &[1, 2],
        _ => &[3, 4, 5, 6, 7],
    };
    let table = if content.tree { tables[index as usize % tables.len()] } else { random.pick(tables) };
    if content.anything && !content.tree && random.chance(8) {
        let other = WINDOW_TABLES + (random.below(TABLES) << 12);
        return random.pick(&[other, DATA, NOTHING]);
    }
    WINDOW_TABLES + (table << 12)
}

/// An entry for a table of a level.
pub fn entry(mode: Mode, level: u32, index: u64, content: Content, random: &mut Random) -> u64 {
    if random.chance(12) {
        return random.word() & !1;
    }
    let mut bits = 1;
    for (bit, percent) in [(1, 75), (2, 70), (5, 40), (6, 40), (8, 20), (9, 20)] {
        bits |= u64::from(random.chance(percent)) << bit;
    }
    let wide = mode != Mode::Bits32;
    if wide && content.no_execute && random.chance(15) {
        bits |= 1 << 63;
    }
    if wide && random.chance(3) {
        // A bit that is reserved, or is not.
        bits |= 1 << random.pick(if content.anything && !content.portable { &[51, 45, 52, 58] } else { &[51, 51, 52, 58] });
    }
    let large = level == 2 && random.chance(25) || level == 3 && content.gigabytes && random.chance(25);
    if level > 1 && !large {
        return bits | below(mode, level, index, content, random);
    }
    if large {
        bits |= 1 << 7;
        // Reserved bits, but for 32-bit paging with PSE-36, where they are those of an address.
        if random.chance(5) && (wide || content.anything && !content.portable) {
            bits |= 1 << random.pick(&[13, 17, 20]);
        }
        let base = if level == 3 {
            0
        } else if content.anything && wide && random.chance(30) {
            WINDOW_TABLES
        } else {
            DATA
        };
        return bits | base;
    }
    let frame = match random.below(10) {
        0..3 if content.anything => WINDOW_TABLES + (random.below(TABLES) << 12),
        3 if content.anything => NOTHING + (random.below(4) << 12),
        _ => DATA + (random.below(FRAMES) << 12),
    };
    bits | frame
}

fn put(memory: &mut [u8], address: u64, value: u64, bytes: usize) {
    memory[address as usize..][..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

/// Writes all tables. Everything of RAM is mapped to itself, for the supervisor, but for the user's pages.
pub fn build(memory: &mut [u8], mode: Mode, content: Content, random: &mut Random) {
    let width = if mode == Mode::Bits32 { 4 } else { 8 };
    let per_table = 4096 / width;
    // The lowest tables, from the fourth frame on.
    for page in 0..RAM >> 12 {
        let user = matches!(page << 12, USER_CODE | USER_STACK);
        put(memory, SAFE + 0x6000 + page * width, page << 12 | 3 | u64::from(user) << 2, width as usize);
    }
    let tables = (RAM >> 12) / per_table;
    for number in 0..2 {
        let root = root(mode, number);
        match mode {
            Mode::Bits32 => {
                for table in 0..tables {
                    put(memory, root + 4 * table, (SAFE + 0x6000 + (table << 12)) | 7, 4);
                }
                for index in 0..8 {
                    put(memory, root + 4 * (256 + index), entry(mode, 2, index, content, random), 4);
                }
            }
            _ => {
                let directory = SAFE + 0x4000;
                for table in 0..tables {
                    put(memory, directory + 8 * table, (SAFE + 0x6000 + (table << 12)) | 7, 8);
                }
                if mode == Mode::Pae {
                    put(memory, root, directory | 1, 8);
                    let (one, two) = if number == 0 { (1, 2) } else { (2, 1) };
                    put(memory, root + 8, (WINDOW_TABLES + (one << 12)) | 1, 8);
                    put(memory, root + 16, (WINDOW_TABLES + (two << 12)) | 1, 8);
                } else {
                    let pointers = SAFE + 0x2000;
                    put(memory, root, pointers | 7, 8);
                    put(memory, pointers, directory | 7, 8);
                    put(memory, root + 8, WINDOW_TABLES | if number == 0 { 7 } else { 5 }, 8);
                }
            }
        }
    }
    for table in 0..TABLES {
        let level = level_of(mode, table);
        for index in 0..per_table {
            let used = if mode == Mode::Bits32 { index % 512 < 8 } else { index < 8 };
            if used {
                put(memory, WINDOW_TABLES + (table << 12) + width * index, entry(mode, level, index, content, random), width as usize);
            }
        }
    }
    for frame in 0..FRAMES {
        let start = DATA + (frame << 12);
        for word in 0..512 {
            put(memory, start + 8 * word, random.word() & 0x7f7f_7f7f_7f7f_7f7f, 8);
        }
        // What is executed in a page: RET. A page of 4 MiB has eight more that can be reached.
        memory[start as usize + 0xff0] = 0xc3;
        memory[start as usize + 0x20_0ff0] = 0xc3;
    }
}
