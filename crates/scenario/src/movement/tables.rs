//! The paging entries of a guest that map some frames, read from its memory.
//!
//! Modelled: 32-bit, PAE and 4-level paging, large pages; SDM volume 3, 4.3 to 4.5. Tables that lead to each other in a circle are read once.

use crate::verdict::Registers;
use isa::control::{Cr0, Cr4, Efer};
use isa::paging::{ADDRESS, PAGE_SIZE, PRESENT};
use std::collections::BTreeSet;

/// The addresses of the entries that map one of these frames, in the tables that a processor with these registers walks.
pub fn entries_of(memory: &[u8], registers: &Registers, frames: &BTreeSet<u64>) -> BTreeSet<u64> {
    let [cr0, _, cr3, cr4] = registers.control;
    let (cr0, cr4, efer) = (Cr0::from_bits(cr0), Cr4::from_bits(cr4), Efer::from_bits(registers.efer));
    let mut found = BTreeSet::new();
    if !cr0.pg() || frames.is_empty() {
        return found;
    }
    // Level, and bits of an index at that level; PAE has two bits at the third.
    let wide = cr4.pae();
    let top = if efer.lma() {
        4
    } else if wide {
        3
    } else {
        2
    };
    let root = if top == 3 { cr3 & 0xffff_ffe0 } else { cr3 & ADDRESS };
    let (bytes, bits) = if wide { (8, 9) } else { (4, 10) };
    let mut known = BTreeSet::new();
    let mut waiting = vec![(root, top)];
    while let Some((table, level)) = waiting.pop() {
        if !known.insert((table, level)) {
            continue;
        }
        let count = if top == 3 && level == 3 { 4 } else { 1 << bits };
        for address in (0..count).map(|index| table + index * bytes) {
            let Some(raw) = memory.get(address as usize..(address + bytes) as usize) else { break };
            let entry = raw.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            if entry & PRESENT == 0 {
                continue;
            }
            let large = (level == 2 && (wide || cr4.pse()) || level == 3 && top == 4) && entry & PAGE_SIZE != 0;
            if level > 1 && !large {
                waiting.push((entry & ADDRESS, level - 1));
                continue;
            }
            let pages = 1_u64 << (bits * (level - 1));
            let first = (entry & ADDRESS) >> 12 & !(pages - 1);
            if frames.range(first..first + pages).next().is_some() {
                found.insert(address);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(cr3: u64, cr4: u64, efer: u64) -> Registers {
        Registers { control: [0x8000_0001, 0, cr3, cr4], efer, ..Registers::default() }
    }

    fn put(memory: &mut [u8], address: usize, entry: u64, bytes: usize) {
        memory[address..address + bytes].copy_from_slice(&entry.to_le_bytes()[..bytes]);
    }

    #[test]
    fn entries_are_found_under_every_mode_of_paging() {
        let frames = BTreeSet::from([0x10]);
        let mut memory = vec![0; 0x8000];
        // 4-level paging; the last entry leads back to the root.
        for (table, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x3008, 0x20_0083)] {
            put(&mut memory, table, entry, 8);
        }
        put(&mut memory, 0x1ff8, 0x1003, 8);
        put(&mut memory, 0x4080, 0x1_0063, 8);
        put(&mut memory, 0x4088, 0x1_1063, 8);
        assert_eq!(entries_of(&memory, &registers(0x1000, 0x20, 0x500), &frames), BTreeSet::from([0x4080]));
        assert_eq!(entries_of(&memory, &registers(0x1000, 0x20, 0x500), &BTreeSet::from([0x2ff])), BTreeSet::from([0x3008]));
        // PAE: its pointers are those of the second level above.
        assert_eq!(entries_of(&memory, &registers(0x2000, 0x20, 0), &frames), BTreeSet::from([0x4080]));
        // 32-bit paging.
        put(&mut memory, 0x5000, 0x6003, 4);
        put(&mut memory, 0x5004, 0x40_0083, 4);
        put(&mut memory, 0x6040, 0x1_0063, 4);
        assert_eq!(entries_of(&memory, &registers(0x5000, 0x10, 0), &frames), BTreeSet::from([0x6040]));
        assert_eq!(entries_of(&memory, &registers(0x5000, 0x10, 0), &BTreeSet::from([0x4ff])), BTreeSet::from([0x5004]));
        // Without paging, and with tables outside of memory.
        assert!(entries_of(&memory, &Registers::default(), &frames).is_empty());
        assert!(entries_of(&memory, &registers(0xffff_f000, 0x20, 0x500), &frames).is_empty());
    }
}
