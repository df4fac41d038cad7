//! Whether what a scenario expects came true, each disappointment shown at its place in the file.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::file::{Expect, Invariant, MemoryExpectation, Stop};
use crate::guest::Image;
use crate::load::{Scenario, Variant};
use crate::meaning::hex_bytes;
use crate::observe::{Bounded, Observer};
use crate::quantity::Quantity;
use crate::register::{Place, Register};
use isa::register::{Gpr, Segment};

/// The registers of one CPU at the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX to R15 by encoding.
    pub general: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// CR0, CR2, CR3, CR4.
    pub control: [u64; 4],
    /// IA32_EFER.
    pub efer: u64,
    /// Selectors by encoding.
    pub selectors: [u16; 6],
    /// The current privilege level.
    pub cpl: u8,
}

impl Registers {
    /// The value of a register.
    pub fn get(&self, register: Register) -> u64 {
        match register {
            Register::Gpr(gpr) => self.general[gpr.number()],
            Register::Low(gpr) => self.general[gpr.number()] & 0xffff_ffff,
            Register::Rip => self.rip,
            Register::Rflags => self.rflags,
            Register::Control(0) => self.control[0],
            Register::Control(2) => self.control[1],
            Register::Control(3) => self.control[2],
            Register::Control(_) => self.control[3],
            Register::Efer => self.efer,
            Register::Selector(segment) => u64::from(self.selectors[segment.number()]),
            Register::Cpl => u64::from(self.cpl),
        }
    }

    /// All of them as text, four to a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for row in Gpr::ALL.chunks(4) {
            let cells: Vec<String> = row.iter().map(|gpr| format!("{:>3} {:#018x}", gpr.name(), self.general[gpr.number()])).collect();
            text += &format!("{}\n", cells.join("  "));
        }
        text += &format!("rip {:#018x}  rflags {:#x}  cpl {}\n", self.rip, self.rflags, self.cpl);
        let [cr0, cr2, cr3, cr4] = self.control;
        text += &format!("cr0 {cr0:#x}  cr2 {cr2:#x}  cr3 {cr3:#x}  cr4 {cr4:#x}  efer {:#x}\n", self.efer);
        let cells: Vec<String> =
            Segment::ALL.iter().map(|segment| format!("{} {:#06x}", segment.name(), self.selectors[segment.number()])).collect();
        text += &format!("{}\n", cells.join("  "));
        text
    }
}

/// What a machine looks like when its run is over.
pub trait Final {
    /// Registers of each CPU.
    fn registers(&self) -> &[Registers];
    /// Guest-physical memory; `false` where there is no RAM.
    fn read_memory(&self, address: u64, into: &mut [u8]) -> bool;
    /// Everything the guest wrote to the serial port.
    fn serial(&self) -> &[u8];
    /// What the live moves were like, in order.
    fn moves(&self) -> &[migration::Report];
    /// Why the run stopped.
    fn stop(&self) -> Stop;
    /// What the guest wrote to the debug exit.
    fn exit_code(&self) -> Option<u32>;
    /// The invariants that did not hold; none where nobody looked.
    fn violations(&self) -> Option<&[Invariant]>;
}

/// The name of a stop reason as files write it.
pub fn stop_name(stop: Stop) -> String {
    serde_json::to_value(stop).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The expectations that hold on a machine, each with its path in the file.
pub fn applicable<'s>(scenario: &'s Scenario, variant: &Variant) -> Vec<(Vec<String>, &'s Expect)> {
    let common = std::iter::once((vec!["expect".to_owned()], &scenario.file.expect));
    let cases = scenario
        .file
        .cases
        .iter()
        .enumerate()
        .filter(|(_, case)| variant.fits(&case.when))
        .map(|(index, case)| (vec!["cases".to_owned(), index.to_string(), "expect".to_owned()], &case.expect));
    common.chain(cases).collect()
}

/// Compares; empty when everything came true.
pub fn judge(
    scenario: &Scenario,
    variant: &Variant,
    expectations: &[(Vec<String>, &Expect)],
    observer: &Observer<'_>,
    end: &dyn Final,
) -> Diagnostics {
    let mut judge = Judge { scenario, image: &variant.image, observer, end, failures: Diagnostics::default() };
    for (index, (path, expect)) in expectations.iter().enumerate() {
        judge.expect(index, path, expect);
    }
    judge.violations(expectations);
    judge.failures
}

struct Judge<'j, 's> {
    scenario: &'j Scenario,
    image: &'j Image,
    observer: &'j Observer<'s>,
    end: &'j dyn Final,
    failures: Diagnostics,
}

impl Judge<'_, '_> {
    fn fail(&mut self, path: &[String], keys: &[&str], message: String) {
        let path: Vec<&str> = path.iter().map(String::as_str).chain(keys.iter().copied()).collect();
        let span = self.scenario.node(&path).span.clone();
        self.failures.push(Diagnostic::new(&self.scenario.source, span, message));
    }

    fn value(&self, quantity: &Quantity) -> u64 {
        // Loading has checked that every label exists.
        self.image.resolve(quantity).unwrap_or_default()
    }

    /// A number, with the nearest label before it where the guest has one.
    fn show(&self, value: u64) -> String {
        let label = self
            .image
            .labels()
            .iter()
            .filter(|(_, address)| **address <= value && value - **address < 0x100)
            .max_by_key(|(_, address)| **address);
        match label {
            Some((name, address)) if *address == value => format!("{value:#x} ({name})"),
            Some((name, address)) => format!("{value:#x} ({name}+{:#x})", value - address),
            None => format!("{value:#x}"),
        }
    }

    fn expect(&mut self, index: usize, path: &[String], expect: &Expect) {
        let stop = self.end.stop();
        if let Some(expected) = expect.stop
            && expected != stop
        {
            self.fail(path, &["stop"], format!("the run stopped with `{}`, not `{}`", stop_name(stop), stop_name(expected)));
        }
        if let Some(expected) = expect.exit_code
            && self.end.exit_code() != Some(expected)
        {
            let actual = self.end.exit_code().map_or("nothing".to_owned(), |code| format!("{code:#x}"));
            self.fail(path, &["exit_code"], format!("the guest wrote {actual} to the debug exit, not {expected:#x}"));
        }
        for (name, quantity) in &expect.registers {
            let Some(place) = Place::parse(name) else { continue };
            let Some(registers) = self.end.registers().get(place.vcpu as usize) else { continue };
            let (actual, expected) = (registers.get(place.register), self.value(quantity));
            // A negative number expected of a 32-bit register has 32 bits.
            let expected = if matches!(place.register, Register::Low(_)) { expected & 0xffff_ffff } else { expected };
            if actual != expected {
                let message = format!("{place} is {}, not {}", self.show(actual), self.show(expected));
                self.fail(path, &["registers", name], message);
            }
        }
        for (number, memory) in expect.memory.iter().enumerate() {
            self.memory(path, number, memory);
        }
        let serial = String::from_utf8_lossy(self.end.serial()).into_owned();
        if let Some(expected) = &expect.serial
            && *expected != serial
        {
            self.fail(path, &["serial"], format!("the serial output is {:?}, not {expected:?}", clip(&serial)));
        }
        for (number, text) in expect.serial_contains.iter().enumerate() {
            if !serial.contains(text.as_str()) {
                self.fail(
                    path,
                    &["serial_contains", &number.to_string()],
                    format!("the serial output {:?} has no {text:?}", clip(&serial)),
                );
            }
        }
        if let Some(expected) = &expect.moves {
            for (keys, message) in crate::live::judge(expected, self.end.moves()) {
                let keys: Vec<&str> = std::iter::once("moves").chain(keys.iter().map(String::as_str)).collect();
                self.fail(path, &keys, message);
            }
        }
        for (name, expected) in &expect.exits {
            let actual = self.observer.summary.exits_with(name);
            if actual != *expected {
                self.fail(path, &["exits", name], format!("{actual} VM exits have the reason {name}, not {expected}"));
            }
        }
        for (name, expected) in &expect.events {
            let kind = trace::Kind::ALL.iter().find(|kind| kind.name() == name);
            let actual = kind.map_or(0, |kind| self.observer.summary.count(*kind));
            if actual != *expected {
                self.fail(path, &["events", name], format!("there are {actual} events {name}, not {expected}"));
            }
        }
        let found = self.observer.found(index);
        if let Some(text) = expect.trace.get(found) {
            let after = match found {
                0 => String::new(),
                _ => format!(" after the one with {:?}", expect.trace[found - 1]),
            };
            self.fail(path, &["trace", &found.to_string()], format!("no line of the trace{after} has {text:?}"));
        }
        for (number, (text, line)) in self.observer.forbidden(index).to_vec().iter().enumerate() {
            if let Some(line) = line {
                self.fail(path, &["trace_lacks", &number.to_string()], format!("a line of the trace has {text:?}: {}", line.trim()));
            }
        }
        for (key, list, actual) in
            [("hypercalls", &expect.hypercalls, &self.observer.hypercalls), ("patched", &expect.patched, &self.observer.patched)]
        {
            if let Some(list) = list {
                self.list(path, key, list, actual);
            }
        }
    }

    /// Invariants must hold but for those that are expected not to.
    fn violations(&mut self, expectations: &[(Vec<String>, &Expect)]) {
        let Some(actual) = self.end.violations() else { return };
        let names = |list: &[Invariant]| {
            let names: std::collections::BTreeSet<String> = list.iter().map(|invariant| format!("`{}`", invariant.name())).collect();
            if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
        };
        let mut stated = false;
        for (path, expect) in expectations {
            let Some(expected) = &expect.violations else { continue };
            stated = true;
            let (actual, expected) = (names(actual), names(expected));
            if actual != expected {
                self.fail(path, &["violations"], format!("the invariants that do not hold are {actual}, not {expected}"));
            }
        }
        if !stated && !actual.is_empty() {
            self.fail(&["invariants".to_owned()], &[], format!("the invariants that do not hold are {}", names(actual)));
        }
    }

    fn list(&mut self, path: &[String], key: &str, expected: &[Quantity], actual: &Bounded) {
        let expected: Vec<u64> = expected.iter().map(|quantity| self.value(quantity)).collect();
        if expected != actual.values || actual.total != actual.values.len() as u64 {
            let text = |values: &[u64]| values.iter().take(16).map(|value| self.show(*value)).collect::<Vec<_>>().join(", ");
            let more = if actual.total > 16 { format!(" and {} more", actual.total - 16) } else { String::new() };
            let message = format!("`{key}` is [{}]{more}, not [{}]", text(&actual.values), text(&expected));
            self.fail(path, &[key], message);
        }
    }

    fn memory(&mut self, path: &[String], number: usize, memory: &MemoryExpectation) {
        let address = self.value(&memory.address);
        let expected = match (&memory.bytes, &memory.text, &memory.dword, &memory.qword) {
            (Some(bytes), ..) => hex_bytes(bytes).unwrap_or_default(),
            (_, Some(text), ..) => text.as_bytes().to_vec(),
            (_, _, Some(dword), _) => (self.value(dword) as u32).to_le_bytes().to_vec(),
            (.., Some(qword)) => self.value(qword).to_le_bytes().to_vec(),
            _ => return,
        };
        let mut actual = vec![0; expected.len()];
        let keys = ["memory", &number.to_string()];
        if !self.end.read_memory(address, &mut actual) {
            self.fail(path, &keys, format!("there is no RAM at {address:#x}"));
        } else if actual != expected {
            let hex = |bytes: &[u8]| bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            self.fail(path, &keys, format!("at {} stands {}, not {}", self.show(address), hex(&actual), hex(&expected)));
        }
    }
}

fn clip(text: &str) -> String {
    if text.chars().count() > 200 { text.chars().take(200).chain("...".chars()).collect() } else { text.to_owned() }
}
