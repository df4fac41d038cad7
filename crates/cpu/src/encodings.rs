//! Every instruction there is, for tests that hold tables together: all opcodes of all maps with a choice of prefixes and ModRM bytes.

use crate::block::{Mode, decoder_at};
use crate::state::Cpu;
use iced_x86::Instruction;
use models::DecodeRules;

/// ModRM bytes: every reg field with a memory and with a register operand, and the special ones of the groups 0F 01 and 0F AE.
fn modrm() -> impl Iterator<Item = u8> {
    (0..8).map(|reg| reg << 3).chain(0xc0..=0xff)
}

/// Calls `visit` with every decoded instruction that Trapline executes.
pub(crate) fn for_each_modelled(mut visit: impl FnMut(&Instruction)) {
    let model = models::find("skylake-server").expect("the model exists");
    let cpu = Cpu::new(model, 0, 1, None);
    let mut visit_bytes = |bits: u8, bytes: &[u8]| {
        let mut before = None;
        for rules in [DecodeRules::Intel, DecodeRules::Amd] {
            let instruction = decoder_at(bits.into(), bytes, 0, rules).decode();
            let mode = Mode { bits, sse: true, protected: true, rules, ..Mode::default() };
            if !instruction.is_invalid() && before != Some(instruction) && crate::select::is_modelled(&cpu, &instruction, mode) {
                visit(&instruction);
            }
            before = Some(instruction);
        }
    };
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for bits in [16, 32, 64] {
        for prefix in [&[][..], &[0x66], &[0xf2], &[0xf3], &[0x48], &[0xf3, 0x48]] {
            for map in maps {
                for opcode in 0..=255 {
                    for modrm in modrm() {
                        let mut bytes = [prefix, map, &[opcode, modrm]].concat();
                        bytes.resize(15, 0);
                        visit_bytes(bits, &bytes);
                    }
                }
            }
        }
        for map in 1..=3u8 {
            for last in 0..=255u8 {
                for opcode in 0..=255 {
                    let mut bytes = vec![0xc4, 0xe0 | map, last, opcode, 0xc1];
                    bytes.resize(15, 0);
                    visit_bytes(bits, &bytes);
                }
            }
        }
    }
}
