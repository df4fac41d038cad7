//! FXSAVE, XSAVE and x87 control.

use super::{Bench, DATA, GP0};
use crate::state::FpuState;
use crate::trap::{Exception, Exit, Intercept, Trap};
use isa::cpuid::Feature;
use isa::exception::Vector;
use isa::register::{Gpr, Segment};

const FXSAVE: &[u8] = &[0x0f, 0xae, 0x06];
const FXSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x06];
const FXRSTOR: &[u8] = &[0x0f, 0xae, 0x0e];
const FXRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x0e];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x26];
const XSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x26];
const XRSTOR: &[u8] = &[0x0f, 0xae, 0x2e];
const XRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x2e];
const XSAVEOPT: &[u8] = &[0x0f, 0xae, 0x36];

/// State with a different value everywhere.
fn distinct(bench: &mut Bench) {
    for number in 0..16u64 {
        bench.cpu.xmm[number as usize] = [0x1000 + number, 0x2000 + number];
    }
    bench.cpu.mxcsr = 0x1fa3;
    bench.cpu.fpu = FpuState {
        control: 0x27f,
        status: 0x3841,
        tag: 0x81,
        opcode: 0x5a5,
        instruction: 0x1111_2222_3333_4444,
        data: 0x5555_6666_7777_8888,
        instruction_segment: 0,
        data_segment: 0,
        registers: std::array::from_fn(|at| 0x4000_8000_0000_0000_0000 + at as u128),
    };
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    distinct(&mut bench);
    bench.write(DATA, &[0xcc; 1024]);
    bench.cpu.set_gpr(Gpr::Rax, 3);
    bench.cpu.set_gpr(Gpr::Rdx, 0);
    bench
}

fn clear(bench: &mut Bench) {
    bench.cpu.xmm = [[9; 2]; 16];
    bench.cpu.mxcsr = 0x1f80;
    bench.cpu.fpu = FpuState::initial();
}

#[test]
fn the_area_has_the_layout_of_the_manual() {
    let mut bench = bench();
    assert_eq!(bench.run(FXSAVE64), Ok(()));
    let area: [u8; 512] = bench.read(DATA);
    let at =
        |offset: usize, bytes: usize| area[offset..offset + bytes].iter().rev().fold(0u128, |value, byte| value << 8 | u128::from(*byte));
    let table: [(usize, usize, u128, &str); 14] = [
        (0, 2, 0x27f, "FCW"),
        (2, 2, 0x3841, "FSW"),
        (4, 1, 0x81, "FTW"),
        (5, 1, 0, "reserved"),
        (6, 2, 0x5a5, "FOP"),
        (8, 8, 0x1111_2222_3333_4444, "FIP"),
        (16, 8, 0x5555_6666_7777_8888, "FDP"),
        (24, 4, 0x1fa3, "MXCSR"),
        (28, 4, 0xffff, "MXCSR_MASK"),
        (32, 10, 0x4000_8000_0000_0000_0007, "ST0 is R7, for TOP is 7"),
        (144, 10, 0x4000_8000_0000_0000_0006, "ST7"),
        (160, 16, 0x2000 << 64 | 0x1000, "XMM0"),
        (400, 16, 0x200f << 64 | 0x100f, "XMM15"),
        (464, 8, 0xcccc_cccc_cccc_cccc, "available to software"),
    ];
    for (offset, bytes, expected, name) in table {
        assert_eq!(at(offset, bytes), expected, "{name}");
    }
    assert_eq!(bench.run(FXSAVE), Ok(()));
    assert_eq!(bench.read(DATA + 8), 0x3333_4444u64.to_le_bytes(), "without REX.W, FIP has 32 bits and FCS is zero");
}

#[test]
fn what_was_saved_is_restored() {
    for (save, restore, wide) in [(FXSAVE64, FXRSTOR64, true), (FXSAVE, FXRSTOR, false), (XSAVE64, XRSTOR64, true), (XSAVE, XRSTOR, false)]
    {
        let mut bench = bench();
        bench.write(DATA + 512, &[0; 64]);
        let (xmm, mxcsr, mut fpu) = (bench.cpu.xmm, bench.cpu.mxcsr, bench.cpu.fpu.clone());
        assert_eq!(bench.run(save), Ok(()));
        clear(&mut bench);
        assert_eq!(bench.run(restore), Ok(()));
        if !wide {
            (fpu.instruction, fpu.data) = (fpu.instruction & 0xffff_ffff, fpu.data & 0xffff_ffff);
        }
        assert_eq!((bench.cpu.xmm, bench.cpu.mxcsr, &bench.cpu.fpu), (xmm, mxcsr, &fpu), "{save:02x?}");
    }
}

#[test]
fn outside_64_bit_mode_there_are_eight_registers() {
    let mut bench = bench();
    bench.cpu.segments[Segment::Cs as usize].attributes.set_l(false);
    assert_eq!(bench.run(FXSAVE), Ok(()));
    assert_eq!(bench.read(DATA + 160 + 7 * 16), 0x1007u64.to_le_bytes());
    assert_eq!(bench.read(DATA + 160 + 8 * 16), [0xcc; 128], "XMM8 to XMM15 are not touched");
    clear(&mut bench);
    assert_eq!(bench.run(FXRSTOR), Ok(()));
    assert_eq!((bench.cpu.xmm[7], bench.cpu.xmm[8]), ([0x1007, 0x2007], [9; 2]));
}

#[test]
fn fast_fxsave_leaves_out_xmm_registers_at_privilege_level_0() {
    for (ffxsr, cpl, left_out) in [(false, 0, false), (true, 3, false), (true, 0, true)] {
        let mut bench = bench();
        bench.cpu.efer.set_ffxsr(ffxsr);
        bench.cpu.cpl = cpl;
        assert_eq!(bench.run(FXSAVE), Ok(()));
        let expected = if left_out { [0xcc; 8] } else { 0x1000u64.to_le_bytes() };
        assert_eq!(bench.read(DATA + 160), expected, "FFXSR {ffxsr}, CPL {cpl}");
        assert_eq!(bench.read(DATA + 24), 0x1fa3u32.to_le_bytes(), "MXCSR is saved always");
        clear(&mut bench);
        assert_eq!(bench.run(FXRSTOR), Ok(()));
        assert_eq!(bench.cpu.xmm[0], if left_out { [9; 2] } else { [0x1000, 0x2000] });
        assert_eq!(bench.cpu.mxcsr, 0x1fa3);
    }
}

#[test]
fn without_osfxsr_only_x87_state_moves() {
    let mut bench = bench();
    bench.cpu.cr4.set_osfxsr(false);
    assert_eq!(bench.run(FXSAVE), Ok(()));
    assert_eq!(bench.read(DATA), 0x27fu16.to_le_bytes());
    assert_eq!(bench.read(DATA + 24), [0xcc; 4]);
    assert_eq!(bench.read(DATA + 160), [0xcc; 256]);
}

#[test]
fn faults_come_before_any_change() {
    let em = |bench: &mut Bench| bench.cpu.cr0.set_em(true);
    let ts = |bench: &mut Bench| bench.cpu.cr0.set_ts(true);
    let osxsave = |bench: &mut Bench| bench.cpu.cr4.set_osxsave(false);
    let misaligned = |bench: &mut Bench| bench.cpu.set_gpr(Gpr::Rsi, DATA + 8);
    let half_aligned = |bench: &mut Bench| bench.cpu.set_gpr(Gpr::Rsi, DATA + 32);
    let mxcsr = |bench: &mut Bench| bench.write(DATA + 24, &0x1_0000u32.to_le_bytes());
    let zero_header = |bench: &mut Bench| bench.write(DATA + 512, &[0; 64]);
    let bad_component = |bench: &mut Bench| bench.write(DATA + 512, &[7, 0, 0, 0]);
    let compacted = |bench: &mut Bench| bench.write(DATA + 520, &[1]);
    type Change<'a> = &'a dyn Fn(&mut Bench);
    let table: Vec<(&[u8], Change<'_>, Trap, &str)> = vec![
        (FXSAVE, &em, Trap::NM, "FXSAVE with EM"),
        (FXSAVE, &ts, Trap::NM, "FXSAVE with TS"),
        (FXRSTOR, &em, Trap::NM, "FXRSTOR with EM"),
        (XSAVE, &ts, Trap::NM, "XSAVE with TS"),
        (XRSTOR, &ts, Trap::NM, "XRSTOR with TS"),
        (XSAVE, &osxsave, Trap::UD, "XSAVE without OSXSAVE"),
        (XRSTOR, &osxsave, Trap::UD, "XRSTOR without OSXSAVE"),
        (XSAVEOPT, &osxsave, Trap::UD, "XSAVEOPT without OSXSAVE"),
        (FXSAVE, &misaligned, Trap::GP0, "FXSAVE misaligned"),
        (FXRSTOR, &misaligned, Trap::GP0, "FXRSTOR misaligned"),
        (XSAVE, &half_aligned, Trap::GP0, "XSAVE misaligned"),
        (XRSTOR, &half_aligned, Trap::GP0, "XRSTOR misaligned"),
        (FXRSTOR, &mxcsr, Trap::GP0, "FXRSTOR of reserved bits of MXCSR"),
        (XRSTOR, &mxcsr, Trap::GP0, "XRSTOR of reserved bits of MXCSR"),
        (XRSTOR, &bad_component, Trap::GP0, "XRSTOR of a component that XCR0 lacks"),
        (XRSTOR, &compacted, Trap::GP0, "XRSTOR of the compacted format"),
    ];
    for (bytes, change, expected, name) in table {
        let mut bench = bench();
        zero_header(&mut bench);
        bench.write(DATA + 24, &0x1f80u32.to_le_bytes());
        change(&mut bench);
        let before = (bench.cpu.xmm, bench.cpu.mxcsr, bench.cpu.fpu.clone(), bench.read::<576>(DATA));
        assert_eq!(bench.run(bytes), Err(expected), "{name}");
        assert_eq!((bench.cpu.xmm, bench.cpu.mxcsr, bench.cpu.fpu.clone(), bench.read::<576>(DATA)), before, "{name}");
    }
}

#[test]
fn xsave_takes_what_is_requested_and_enabled() {
    // EAX, XCR0; whether x87, XMM and MXCSR are written; XSTATE_BV from 0xf8.
    for (eax, xcr0, x87, sse, present) in
        [(3, 3, true, true, 0xfb), (1, 3, true, false, 0xf9), (2, 3, false, true, 0xfa), (3, 1, true, false, 0xf9)]
    {
        let mut bench = bench();
        bench.write(DATA + 512, &[0xf8, 0, 0, 0, 0, 0, 0, 0]);
        bench.cpu.xcr0 = xcr0;
        bench.cpu.set_gpr(Gpr::Rax, eax | 0xffff_ffff_0000_0000);
        assert_eq!(bench.run(XSAVE), Ok(()));
        assert_eq!(bench.read::<1>(DATA) != [0xcc], x87, "x87 with {eax} of {xcr0}");
        assert_eq!(bench.read::<1>(DATA + 24) != [0xcc], sse, "MXCSR with {eax} of {xcr0}");
        assert_eq!(bench.read::<1>(DATA + 160) != [0xcc], sse, "XMM with {eax} of {xcr0}");
        assert_eq!(bench.read::<1>(DATA + 512), [present], "XSTATE_BV with {eax} of {xcr0}");
    }
}

#[test]
fn initial_configurations_are_known_and_restored() {
    let mut bench = bench();
    bench.write(DATA + 512, &[0; 64]);
    bench.cpu.xmm = [[0; 2]; 16];
    bench.cpu.fpu = FpuState::initial();
    assert_eq!(bench.run(XSAVEOPT), Ok(()));
    assert_eq!(bench.read(DATA + 512), [0u8; 8], "nothing is in use");
    assert_eq!((bench.read(DATA), bench.read(DATA + 160)), ([0xcc; 2], [0xcc; 8]), "and nothing was written");
    assert_eq!(bench.read(DATA + 24), 0x1fa3u32.to_le_bytes(), "but MXCSR");
    distinct(&mut bench);
    assert_eq!(bench.run(XRSTOR), Ok(()));
    assert_eq!((bench.cpu.xmm, &bench.cpu.fpu), ([[0; 2]; 16], &FpuState::initial()));
    // Only what was requested.
    distinct(&mut bench);
    bench.cpu.set_gpr(Gpr::Rax, 1);
    assert_eq!(bench.run(XRSTOR), Ok(()));
    assert_eq!((bench.cpu.xmm[0], bench.cpu.fpu.control), ([0x1000, 0x2000], 0x37f));
}

#[test]
fn x87_control_and_status() {
    let mut bench = bench();
    let registers = bench.cpu.fpu.registers;
    bench.cpu.set_gpr(Gpr::Rax, u64::MAX);
    assert_eq!(bench.run(&[0xdf, 0xe0]), Ok(()));
    assert_eq!(bench.cpu.gpr(Gpr::Rax), 0xffff_ffff_ffff_3841, "FNSTSW AX");
    assert_eq!(bench.run(&[0xdd, 0x3e]), Ok(()));
    assert_eq!(bench.read(DATA), [0x41, 0x38, 0xcc], "FNSTSW [RSI]");
    assert_eq!(bench.run(&[0xd9, 0x3e]), Ok(()));
    assert_eq!(bench.read(DATA), [0x7f, 0x02, 0xcc], "FNSTCW [RSI]");
    bench.write(DATA, &[0x40, 0xe0]);
    assert_eq!(bench.run(&[0xd9, 0x2e]), Ok(()));
    assert_eq!(bench.cpu.fpu.control, 0x40, "FLDCW drops bits that do not exist");
    assert_eq!(bench.cpu.fpu.status, 0xb8c1, "and the exception that it unmasked is pending");
    let math_fault = Trap::Exception(Exception::plain(Vector::MathFault));
    assert_eq!(bench.run(&[0x9b]), Err(math_fault.clone()), "FWAIT");
    assert_eq!(bench.run(&[0xd9, 0x2e]), Err(math_fault), "FLDCW waits");
    assert_eq!(bench.run(&[0xd9, 0x3e]), Ok(()), "FNSTCW does not");
    bench.cpu.cr0.set_ne(false);
    let freeze = Trap::Exit(Exit::Instruction { intercept: Intercept::FerrFreeze, length: 0 });
    assert_eq!(bench.run(&[0x9b]), Err(freeze), "FERR#");
    bench.cpu.ignore_numeric_error = true;
    assert_eq!(bench.run(&[0x9b]), Ok(()), "IGNNE#");
    bench.cpu.msrs.amd[1] = 1 << 8;
    assert!(bench.run(&[0x9b]).is_err(), "HWCR: the MSR counts and not the pin");
    bench.cpu.msrs.ignne = 1;
    assert_eq!(bench.run(&[0x9b]), Ok(()), "IGNNE, the MSR");
    bench.cpu.msrs.amd[1] = 0;
    assert_eq!(bench.run(&[0xdb, 0xe2]), Ok(()));
    assert_eq!(bench.cpu.fpu.status, 0x3800, "FNCLEX");
    assert_eq!(bench.run(&[0x9b]), Ok(()));
    assert_eq!(bench.run(&[0xdb, 0xe3]), Ok(()));
    assert_eq!(bench.cpu.fpu, FpuState { registers, ..FpuState::initial() }, "FNINIT leaves the registers");
}

#[test]
fn x87_is_unavailable_by_em_ts_and_mp() {
    // FLD1, FNSTSW AX, FNINIT: any ESC instruction. FWAIT looks at MP and TS together.
    for (em, mp, ts, escape, wait) in [
        (false, false, false, false, false),
        (true, false, false, true, false),
        (false, false, true, true, false),
        (false, true, true, true, true),
        (true, true, false, true, false),
    ] {
        let mut bench = bench();
        bench.cpu.cr0 = bench.cpu.cr0.with_em(em).with_mp(mp).with_ts(ts);
        for bytes in [[0xd9, 0xe8], [0xdf, 0xe0], [0xdb, 0xe3]] {
            assert_eq!(bench.run(&bytes) == Err(Trap::NM), escape, "{bytes:02x?} with EM {em}, MP {mp}, TS {ts}");
        }
        assert_eq!(bench.run(&[0x9b]) == Err(Trap::NM), wait, "FWAIT with EM {em}, MP {mp}, TS {ts}");
    }
    assert_eq!(bench().run(&[0xd9, 0xd0]), Ok(()), "FNOP");
    assert_ne!(bench().run(FXSAVE), GP0);
}

#[test]
fn what_is_restored_is_as_the_processor_keeps_it() {
    let mut bench = bench();
    assert_eq!(bench.run(FXSAVE64), Ok(()));
    // Control and status words, and what becomes of them.
    for (control, status, expected) in [
        (0xffffu16, 0x8080u16, (0x1f7fu16, 0u16)),
        (0x0000, 0x0001, (0x0040, 0x8081)),
        (0x037f, 0x8081, (0x037f, 0x0001)),
        (0x037e, 0x3841, (0x037e, 0xb8c1)),
    ] {
        bench.write(DATA, &control.to_le_bytes());
        bench.write(DATA + 2, &status.to_le_bytes());
        assert_eq!(bench.run(FXRSTOR64), Ok(()));
        assert_eq!((bench.cpu.fpu.control, bench.cpu.fpu.status), expected, "FCW {control:#x}, FSW {status:#x}");
    }
}

#[test]
fn old_amd_processors_leave_the_pointers_alone_without_a_pending_exception() {
    for pending in [false, true] {
        let mut bench = bench();
        bench.cpu.features &= !Feature::XsaveErrorPointers.bit();
        if pending {
            bench.cpu.fpu.control = 0x37e;
            bench.cpu.fpu.status = 0xb8c1;
        }
        assert_eq!(bench.run(FXSAVE64), Ok(()));
        let saved: [u8; 8] = bench.read(DATA + 8);
        let expected = if pending { 0x1111_2222_3333_4444u64.to_le_bytes() } else { [0xcc; 8] };
        assert_eq!(saved, expected, "FIP with an exception pending: {pending}");
        bench.cpu.fpu.data = 1;
        assert_eq!(bench.run(FXRSTOR64), Ok(()));
        assert_eq!(bench.cpu.fpu.data, if pending { 0x5555_6666_7777_8888 } else { 1 }, "FDP");
    }
}
