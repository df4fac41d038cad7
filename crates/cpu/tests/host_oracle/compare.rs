//! Runs cases on both sides and reports what differs.

use crate::core_side::Simulated;
use crate::generate;
use crate::native::Native;
use crate::state::{Case, DATA, Outcome, Random};
use std::collections::BTreeMap;
use std::fmt::Write;

const NAMES: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
/// Status flags and DF.
const FLAGS: u64 = 0xcd5;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// What differs, in words; empty if nothing does.
fn differences(case: &Case, host: &Outcome, core: &Outcome) -> String {
    let mut text = String::new();
    let mut note = |what: String, host: &dyn std::fmt::Display, core: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {what}: host {host}, core {core}");
    };
    if host.fault != core.fault {
        note("fault".into(), &format!("{:?}", host.fault), &format!("{:?}", core.fault));
        return text;
    }
    for (number, name) in NAMES.iter().enumerate() {
        let (a, b) = (host.registers.gpr[number], core.registers.gpr[number]);
        if a != b {
            note(format!("{name} (was {:#x})", case.registers.gpr[number]), &format!("{a:#x}"), &format!("{b:#x}"));
        }
    }
    // A fault in the middle of a sequence shows what was undefined there.
    let undefined = if host.fault.is_some() { case.once_undefined } else { case.undefined };
    let mask = FLAGS & !undefined;
    let (a, b) = (host.registers.rflags & mask, core.registers.rflags & mask);
    if a != b {
        note(format!("flags (was {:#x})", case.registers.rflags), &format!("{a:#x}"), &format!("{b:#x}"));
    }
    if host.registers.mxcsr != core.registers.mxcsr {
        let was = format!("mxcsr (was {:#x})", case.registers.mxcsr);
        note(was, &format!("{:#x}", host.registers.mxcsr), &format!("{:#x}", core.registers.mxcsr));
    }
    for number in 0..16 {
        let [a, b, was] = [&host.registers, &core.registers, &case.registers].map(|registers| registers.xmm[number]);
        if a != b && !(case.approximate && is_near(a, b)) {
            note(format!("xmm{number} (was {:016x}_{:016x})", was[1], was[0]), &hex(a), &hex(b));
        }
    }
    let (a, b, was) = (&host.registers.fpu, &core.registers.fpu, &case.registers.fpu);
    // C1 of a transcendental function tells which way the last bit was rounded.
    let status = if case.transcendental { !0x200 } else { !0 };
    let words = [
        ("FCW", a.control.into(), b.control.into(), was.control.into()),
        ("FSW", (a.status & status).into(), (b.status & status).into(), was.status.into()),
        ("FTW", a.tag.into(), b.tag.into(), was.tag.into()),
        ("FOP", a.opcode.into(), b.opcode.into(), was.opcode.into()),
        ("FIP", a.instruction, b.instruction, was.instruction),
        ("FDP", a.data, b.data, was.data),
    ];
    for (name, a, b, was) in words {
        if a != b {
            note(format!("{name} (was {was:#x})"), &format!("{a:#x}"), &format!("{b:#x}"));
        }
    }
    for number in 0..8 {
        let (a, b, was) = (a.stack[number], b.stack[number], was.stack[number]);
        if a != b && !(case.transcendental && is_next(a, b)) {
            note(format!("st{number} (was {was:020x})"), &format!("{a:020x}"), &format!("{b:020x}"));
        }
    }
    if host.memory != core.memory {
        let at = host.memory.iter().zip(&core.memory).position(|(a, b)| a != b).expect("they differ");
        let line = at & !15;
        note(
            format!("memory at {:#x}", DATA + line as u64),
            &format!("{:02x?}", &host.memory[line..line + 16]),
            &format!("{:02x?}", &core.memory[line..line + 16]),
        );
    }
    text
}

/// Whether two registers hold single-precision numbers as far apart as two approximations of the same number may be: RCPPS and its kin are
/// within 1.5 * 2^-12 of the exact result, and every processor has its own.
fn is_near(a: [u64; 2], b: [u64; 2]) -> bool {
    let lanes = |value: [u64; 2]| value.into_iter().flat_map(|half| [half as u32, (half >> 32) as u32]);
    lanes(a).zip(lanes(b)).all(|(a, b)| {
        let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
        a == b || (x.is_finite() && y.is_finite() && (x - y).abs() <= x.abs() * 3.0 / 4096.0)
    })
}

/// Whether two numbers of double extended precision follow each other: they are one unit in the last place apart.
fn is_next(a: u128, b: u128) -> bool {
    // Without the integer bit, numbers are in the order of their bits.
    let place = |value: u128| (value >> 64) << 63 | value & (u128::from(u64::MAX) >> 1);
    place(a).abs_diff(place(b)) <= 1
}

fn hex(value: [u64; 2]) -> String {
    format!("{:016x}_{:016x}", value[1], value[0])
}

fn registers(case: &Case) -> String {
    let mut text = String::new();
    for (number, name) in NAMES.iter().enumerate() {
        let _ = write!(text, "{name}={:#x} ", case.registers.gpr[number]);
    }
    let fpu = &case.registers.fpu;
    let _ = write!(text, "\n  FCW={:#x} FSW={:#x} FTW={:#x} ", fpu.control, fpu.status, fpu.tag);
    for (number, value) in fpu.stack.iter().enumerate() {
        let _ = write!(text, "st{number}={value:020x} ");
    }
    text
}

/// The test.
pub fn run() {
    let Some(mut host) = Native::new() else {
        println!("skipped: the host refuses memory that is both writable and executable at the fixed address");
        return;
    };
    let cases = setting("TRAPLINE_ORACLE_CASES", 20_000);
    let mut random = Random(setting("TRAPLINE_ORACLE_SEED", 1));
    let only: Vec<String> =
        std::env::var("TRAPLINE_ORACLE_ONLY").map(|text| text.split(',').map(str::to_lowercase).collect()).unwrap_or_default();
    let codes = generate::codes(&only);
    assert!(!codes.is_empty(), "no instruction to test");
    let mut simulated = Simulated::new();
    let mut failures: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut unmodelled: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut faults = 0u64;
    for _ in 0..cases {
        let case = generate::case(&codes, &mut random);
        let core = match simulated.execute(&case.bytes, &case.registers, &case.memory) {
            Ok(outcome) => outcome,
            Err(reason) => {
                let first = unmodelled.entry(case.name.clone()).or_insert((0, format!("{}: {reason}", case.text)));
                first.0 += 1;
                continue;
            }
        };
        let native = host.execute(&case.bytes, &case.registers, &case.memory);
        faults += u64::from(native.fault.is_some());
        let text = differences(&case, &native, &core);
        if !text.is_empty() {
            let report = || format!("{} [{:02x?}]\n  {}\n{text}", case.text, case.bytes, registers(&case));
            failures.entry(case.name.clone()).or_insert_with(|| (0, report())).0 += 1;
        }
    }
    println!("{cases} cases over {} encodings; {faults} faulted on the host", codes.len());
    let mut report = String::new();
    for (name, (count, first)) in unmodelled.iter().filter(|(name, _)| !name.contains('+')) {
        let _ = writeln!(report, "{name}: {count} times not run by the core: {first}");
    }
    let singles = failures.iter().filter(|(name, _)| !name.contains('+'));
    let sequences = failures.iter().filter(|(name, _)| name.contains('+')).take(5);
    for (name, (count, first)) in singles.chain(sequences) {
        let _ = writeln!(report, "{name}: {count} differences, the first: {first}");
    }
    assert!(failures.is_empty() && unmodelled.is_empty(), "{} encodings differ:\n{report}", failures.len());
}
