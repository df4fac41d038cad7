//! Whether a scenario that has the right form makes sense: registers, addresses, labels, moments, expectations.

use crate::diagnostic::nearest;
use crate::file::{Action, Expect, Levelling, MemoryExpectation, Moment, Policy, Vendor};
use crate::guest::Image;
use crate::host::{IMMOVABLE, NOBODY};
use crate::load::{Loader, Variant, vendor_of};
use crate::quantity::Quantity;
use crate::register::{Place, Register};
use crate::run::OTHER_VENDOR;
use isa::cpuid::Feature;

/// The least RAM a machine can have: what a PC's loaders and this crate's environments need.
pub const MIN_MEMORY: u64 = 1 << 20;
/// The most RAM a machine can have: above it begin the devices of a PC.
pub const MAX_MEMORY: u64 = 3 << 30;
/// RAM of a machine whose scenario does not say.
pub const DEFAULT_MEMORY: u64 = 16 << 20;

/// The bytes of `0f 01 c1`, or `None` when the text is something else.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in text.split_ascii_whitespace() {
        if !word.len().is_multiple_of(2) || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for at in (0..word.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&word[at..at + 2], 16).ok()?);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Names of the exit reasons of one vendor, as the kernel and the trace write them.
fn exit_names(vendor: Vendor) -> Vec<&'static str> {
    match vendor {
        Vendor::Intel => isa::vmx::ExitReason::ALL.iter().filter_map(|reason| reason.kvm_name()).collect(),
        Vendor::Amd => isa::svm::ExitCode::ALL.iter().filter_map(|(_, row)| row.trace_name).collect(),
    }
}

pub(crate) fn check(loader: &mut Loader<'_>, variants: &[Variant]) {
    let file = loader.file.clone();
    for (key, text) in [("title", &file.title), ("teaches", &file.teaches)] {
        if text.trim().is_empty() {
            let diagnostic = loader.at(&[key], format!("`{key}` is empty"));
            loader.report(diagnostic);
        }
    }
    let memory = file.machine.memory.map_or(DEFAULT_MEMORY, |size| size.0);
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&memory) || !memory.is_multiple_of(4096) {
        let diagnostic = loader.at(&["machine", "memory"], "RAM is from 1M to 3G, in whole pages of 4K");
        loader.report(diagnostic);
        return;
    }
    let vcpus = file.machine.vcpus.unwrap_or(1);
    if let Some(name) = &file.hypervisor.guest_cpu {
        loader.model(name, &["hypervisor", "guest_cpu"]);
    }
    levelling(loader, &file.hypervisor.levelling);
    let moves = file.script.iter().flat_map(|step| &step.actions).any(|action| matches!(action, Action::Migrate(_)));
    let mut checker = Checker { loader, variants, memory, vcpus, moves };
    checker.image();
    if let Some(hidden) = &file.hypervisor.hidden_features
        && checker.quantity(hidden, &["hypervisor", "hidden_features"]).is_some_and(|bits| bits > u64::from(u32::MAX))
    {
        checker.report(&["hypervisor", "hidden_features"], "the feature leaf has 32 bits".to_owned(), None);
    }
    for (index, step) in file.script.iter().enumerate() {
        let index = index.to_string();
        checker.moment(&step.at, &["script", &index, "at"]);
        for (number, action) in step.actions.iter().enumerate() {
            checker.action(action, &["script", &index, "do", &number.to_string()]);
        }
    }
    for (index, turn) in file.schedule.iter().enumerate() {
        let index = index.to_string();
        checker.vcpu(turn.cpu, &["schedule", &index, "cpu"]);
        for (number, vcpu) in turn.stale.iter().enumerate() {
            checker.vcpu(*vcpu, &["schedule", &index, "stale", &number.to_string()]);
        }
    }
    for (key, stated) in [("schedule", !file.schedule.is_empty()), ("invariants", file.invariants.is_some())] {
        if stated && variants.iter().any(|variant| variant.policy == Policy::None) {
            checker.report(&[key], format!("`{key}` is about steps, which only machines with a hypervisor have"), None);
        }
        if stated && moves {
            checker.report(&[key], format!("`{key}` is about the steps of one machine, and the script moves the guest to another"), None);
        }
    }
    let old = |policy| matches!(policy, Policy::None | Policy::HypercallPage | Policy::Classic2007);
    if file.hypervisor.hyperv == Some(true) && variants.iter().any(|variant| old(variant.policy)) {
        let what = "`hyperv` is an interface of today's KVM: the policies `none`, `hypercall-page` and `classic-2007` have none".to_owned();
        checker.report(&["hypervisor", "hyperv"], what, None);
    }
    let all: Vec<&Variant> = variants.iter().collect();
    checker.expect(&file.expect, &["expect"], &all);
    for (index, case) in file.cases.iter().enumerate() {
        let index = index.to_string();
        let fitting: Vec<&Variant> = variants.iter().filter(|variant| variant.fits(&case.when)).collect();
        if fitting.is_empty() {
            let names: Vec<String> = variants.iter().take(8).map(Variant::name).collect();
            let diagnostic = checker
                .loader
                .at(&["cases", &index, "when"], "no machine of the scenario fits this case")
                .hint(format!("the machines are {}", names.join(", ")));
            checker.loader.report(diagnostic);
        }
        checker.expect(&case.expect, &["cases", &index, "expect"], &fitting);
    }
}

/// The models and features of a levelling.
fn levelling(loader: &mut Loader<'_>, levelling: &Levelling) {
    const PATH: [&str; 2] = ["hypervisor", "levelling"];
    for (index, name) in levelling.common.iter().enumerate() {
        loader.model(name, &[&PATH[..], &["common", &index.to_string()]].concat());
    }
    for (index, name) in levelling.remove.iter().enumerate() {
        if Feature::from_name(name).is_none() {
            let names: Vec<String> = Feature::ALL.iter().map(|feature| feature.name()).collect();
            let hint = nearest(name, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let shown: String = name.chars().take(60).collect();
            let index = index.to_string();
            let diagnostic = loader.at(&[PATH[0], PATH[1], "remove", &index], format!("unknown feature `{shown}`")).maybe_hint(hint);
            loader.report(diagnostic);
        }
    }
    if levelling.vendor.as_ref().is_some_and(|name| name.len() != 12 || !name.is_ascii()) {
        let diagnostic = loader.at(&[&PATH[..], &["vendor"]].concat(), "a vendor's name has twelve characters of ASCII");
        loader.report(diagnostic);
    }
}

struct Checker<'l, 'f> {
    loader: &'l mut Loader<'f>,
    variants: &'l [Variant],
    memory: u64,
    vcpus: u32,
    /// The script moves the machine, so that the other vendor's exits may happen as well.
    moves: bool,
}

impl Checker<'_, '_> {
    fn report(&mut self, path: &[&str], message: String, hint: Option<String>) {
        let diagnostic = self.loader.at(path, message).maybe_hint(hint);
        self.loader.report(diagnostic);
    }

    /// The loaded pieces lie in RAM and not over each other.
    fn image(&mut self) {
        let Some(image) = self.variants.first().map(|variant| variant.image.clone()) else { return };
        let Image::Program(program) = &*image else { return };
        for (start, bytes) in &program.pieces {
            let end = start.saturating_add(bytes.len() as u64);
            if end > self.memory {
                self.report(
                    &["guest"],
                    format!("the guest's bytes at {start:#x}..{end:#x} lie beyond the end of RAM at {:#x}", self.memory),
                    Some("give the machine more `memory`, or load the guest lower".to_owned()),
                );
                return;
            }
            if let Some(reserved) = program.reserved().into_iter().find(|reserved| *start < reserved.end && reserved.start < end) {
                self.report(
                    &["guest"],
                    format!(
                        "the guest's bytes at {start:#x}..{end:#x} lie over the environment's own at {:#x}..{:#x}",
                        reserved.start, reserved.end
                    ),
                    Some("load the guest at 0x10000 or above, or start it in `real16`, which needs no tables".to_owned()),
                );
                return;
            }
        }
    }

    /// A quantity's value on every machine: a label must exist.
    fn quantity(&mut self, quantity: &Quantity, path: &[&str]) -> Option<u64> {
        let image = self.variants.first().map(|variant| variant.image.clone())?;
        let value = image.resolve(quantity);
        if value.is_none() {
            let Quantity::Label { name, .. } = quantity else { return None };
            let hint = match nearest(name, image.labels().keys().map(String::as_str)) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if image.labels().is_empty() => Some("this guest has no labels".to_owned()),
                None => None,
            };
            self.report(path, format!("the guest has no label `{name}`"), hint);
        }
        value
    }

    /// A piece of guest-physical memory that has to lie in RAM.
    fn ram(&mut self, address: &Quantity, length: u64, path: &[&str]) {
        if let Some(start) = self.quantity(address, path)
            && start.checked_add(length).is_none_or(|end| end > self.memory)
        {
            let end = self.memory;
            self.report(path, format!("{start:#x} and the {length} bytes from there are not all in RAM, which ends at {end:#x}"), None);
        }
    }

    fn vcpu(&mut self, vcpu: u32, path: &[&str]) {
        if vcpu >= self.vcpus {
            let hint = Some("the number of CPUs is `machine.vcpus`; the first is 0".to_owned());
            self.report(path, format!("there is no CPU {vcpu}; the machine has {}", self.vcpus), hint);
        }
    }

    fn register(&mut self, name: &str, path: &[&str]) -> Option<Place> {
        match Place::parse(name) {
            Some(place) => {
                if place.vcpu >= self.vcpus {
                    let diagnostic = self.loader.at_key(path, format!("there is no CPU {}; the machine has {}", place.vcpu, self.vcpus));
                    self.loader.report(diagnostic);
                }
                Some(place)
            }
            None => {
                let bare = name.rsplit('.').next().unwrap_or(name);
                let names: Vec<&str> = Register::all().map(Register::name).collect();
                let hint = match nearest(bare, names) {
                    Some(near) if near != bare => format!("did you mean `{near}`?"),
                    _ => "a register is written `rax`, or `cpu1.rax` for the second CPU".to_owned(),
                };
                let shown: String = name.chars().take(60).collect();
                let diagnostic = self.loader.at_key(path, format!("unknown register `{shown}`")).hint(hint);
                self.loader.report(diagnostic);
                None
            }
        }
    }

    fn moment(&mut self, moment: &Moment, path: &[&str]) {
        let keys = [
            ("exit", moment.exit.is_some()),
            ("cycle", moment.cycle.is_some()),
            ("instruction", moment.instruction.is_some()),
            ("hypercall", moment.hypercall.is_some()),
            ("label", moment.label.is_some()),
        ];
        let present: Vec<&str> = keys.iter().filter(|(_, present)| *present).map(|(key, _)| *key).collect();
        if present.len() != 1 {
            self.report(
                path,
                "a moment has exactly one of `exit`, `cycle`, `instruction`, `hypercall` and `label`".to_owned(),
                (!present.is_empty()).then(|| format!("this one has {}", present.join(" and "))),
            );
            return;
        }
        if moment.pass.is_some() && moment.label.is_none() {
            self.report(&[path, &["pass"]].concat(), "`pass` counts how often a CPU comes by a `label`".to_owned(), None);
        }
        if let Some(label) = &moment.label {
            self.quantity(label, &[path, &["label"]].concat());
        }
        if (moment.exit.is_some() || moment.hypercall.is_some()) && self.variants.iter().any(|variant| variant.policy == Policy::None) {
            self.report(path, format!("without a hypervisor there is no `{}` to wait for", present[0]), None);
        }
    }

    fn action(&mut self, action: &Action, path: &[&str]) {
        match action {
            Action::Migrate(migrate) => {
                let path = [path, &["migrate"]].concat();
                if migrate.to != OTHER_VENDOR {
                    self.loader.model(&migrate.to, &[&path[..], &["to"]].concat());
                }
                if self.variants.iter().any(|variant| variant.policy == Policy::None) || migrate.policy == Some(Policy::None) {
                    self.report(&path, IMMOVABLE.to_owned(), None);
                }
                for (keys, message) in crate::live::mistakes(migrate) {
                    let path: Vec<&str> = path.iter().copied().chain(keys.iter().map(String::as_str)).collect();
                    self.report(&path, message, None);
                }
            }
            Action::Interrupt(interrupt) => self.vcpu(interrupt.vcpu, &[path, &["interrupt", "vcpu"]].concat()),
            Action::Nmi(nmi) => self.vcpu(nmi.vcpu, &[path, &["nmi", "vcpu"]].concat()),
            Action::CounterOverflow(counter) => self.vcpu(counter.vcpu, &[path, &["counter-overflow", "vcpu"]].concat()),
            Action::Exception(exception) => {
                let path = [path, &["exception"]].concat();
                self.vcpu(exception.vcpu, &[&path[..], &["vcpu"]].concat());
                if self.variants.iter().any(|variant| variant.policy == Policy::None) {
                    self.report(&path, NOBODY.to_owned(), None);
                }
                if isa::exception::Vector::from_number(exception.vector).is_none() {
                    let message = format!("{} is no vector of an exception", exception.vector);
                    self.report(&[&path[..], &["vector"]].concat(), message, None);
                }
                for (key, quantity) in [("error_code", &exception.error_code), ("address", &exception.address)] {
                    if let Some(quantity) = quantity {
                        self.quantity(quantity, &[&path[..], &[key]].concat());
                    }
                }
            }
            Action::Write(write) => {
                let path = [path, &["write"]].concat();
                match hex_bytes(&write.bytes) {
                    Some(bytes) => self.ram(&write.address, bytes.len() as u64, &[&path[..], &["address"]].concat()),
                    None => self.hexadecimal(&[&path[..], &["bytes"]].concat()),
                }
            }
            Action::Register(register) => {
                let path = [path, &["register"]].concat();
                let name_path = [&path[..], &["name"]].concat();
                match Place::parse(&register.name) {
                    Some(Place { register: Register::Low(_) | Register::Cpl | Register::Selector(_), .. }) => {
                        self.report(&name_path, format!("`{}` cannot be changed alone", register.name), None);
                    }
                    Some(place) => self.vcpu(place.vcpu, &name_path),
                    None => {
                        let shown: String = register.name.chars().take(60).collect();
                        let hint =
                            nearest(&register.name, Register::all().map(Register::name)).map(|near| format!("did you mean `{near}`?"));
                        self.report(&name_path, format!("unknown register `{shown}`"), hint);
                    }
                }
                self.quantity(&register.value, &[&path[..], &["value"]].concat());
            }
            Action::Protect(protect) => {
                let path = [path, &["protect"]].concat();
                if self.variants.iter().any(|variant| variant.policy == Policy::None) {
                    self.report(&path, NOBODY.to_owned(), None);
                }
                let address_path = [&path[..], &["address"]].concat();
                self.ram(&protect.address, protect.size.0, &address_path);
                let address = self.quantity(&protect.address, &address_path).unwrap_or_default();
                if address & 0xfff != 0 || protect.size.0 == 0 || protect.size.0 & 0xfff != 0 {
                    self.report(&path, "only whole pages of 4K can be protected".to_owned(), None);
                }
            }
            Action::Pause(_) => {
                if self.variants.iter().any(|variant| variant.policy == Policy::None) {
                    self.report(&[path, &["pause"]].concat(), NOBODY.to_owned(), None);
                }
            }
            Action::SerialInput(_) | Action::Checkpoint(_) | Action::Stop(_) => {}
        }
    }

    fn hexadecimal(&mut self, path: &[&str]) {
        self.report(path, "these are no bytes in hexadecimal".to_owned(), Some("write pairs of digits: \"0f 01 c1\"".to_owned()));
    }

    fn expect(&mut self, expect: &Expect, path: &[&str], machines: &[&Variant]) {
        let below =
            |keys: &[&'static str]| -> Vec<String> { path.iter().copied().chain(keys.iter().copied()).map(str::to_owned).collect() };
        for (name, value) in &expect.registers {
            let mut path = below(&["registers"]);
            path.push(name.clone());
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.register(name, &path);
            self.quantity(value, &path);
        }
        for (index, memory) in expect.memory.iter().enumerate() {
            let mut path = below(&["memory"]);
            path.push(index.to_string());
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.memory(memory, &path);
        }
        for name in expect.exits.keys() {
            let mut known: Vec<&str> = if self.moves {
                [Vendor::Intel, Vendor::Amd].into_iter().flat_map(exit_names).collect()
            } else {
                machines.iter().flat_map(|variant| exit_names(vendor_of(variant.cpu))).collect()
            };
            known.dedup();
            if !known.is_empty() && !known.contains(&name.as_str()) && !is_code(name) {
                let other = [Vendor::Intel, Vendor::Amd].into_iter().find(|vendor| exit_names(*vendor).contains(&name.as_str()));
                let hint = match (other, nearest(name, known)) {
                    (Some(vendor), _) => {
                        let name = if vendor == Vendor::Intel { "intel" } else { "amd" };
                        format!("only machines of the vendor `{name}` have it; put it into a case with `when.vendor`")
                    }
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => "reasons have the kernel's names: `VMCALL` on Intel, `hypercall` on AMD".to_owned(),
                };
                self.unknown_key(&below(&["exits"]), name, "exit reason", hint);
            }
        }
        for name in expect.events.keys() {
            if !trace::Kind::ALL.iter().any(|kind| kind.name() == name) {
                let hint = match nearest(name, trace::Kind::ALL.iter().map(|kind| kind.name())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "events are named as in the trace: `kvm_exit`, `kvm_hypercall`, `trapline_patch`".to_owned(),
                };
                self.unknown_key(&below(&["events"]), name, "event", hint);
            }
        }
        for (index, expected) in expect.moves.iter().flatten().enumerate() {
            if let Some(Err(message)) = expected.downtime_at_most.as_deref().map(migration::parse_time) {
                let mut path = below(&["moves"]);
                path.extend([index.to_string(), "downtime_at_most".to_owned()]);
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.report(&path, message, None);
            }
        }
        for (key, list) in [("hypercalls", &expect.hypercalls), ("patched", &expect.patched)] {
            for (index, quantity) in list.iter().flatten().enumerate() {
                let mut path = below(&[key]);
                path.push(index.to_string());
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.quantity(quantity, &path);
            }
        }
    }

    fn unknown_key(&mut self, parents: &[String], key: &str, what: &str, hint: String) {
        let path: Vec<&str> = parents.iter().map(String::as_str).chain([key]).collect();
        let shown: String = key.chars().take(60).collect();
        let diagnostic = self.loader.at_key(&path, format!("unknown {what} `{shown}`")).hint(hint);
        self.loader.report(diagnostic);
    }

    fn memory(&mut self, memory: &MemoryExpectation, path: &[&str]) {
        let present = [memory.bytes.is_some(), memory.text.is_some(), memory.dword.is_some(), memory.qword.is_some()]
            .iter()
            .filter(|set| **set)
            .count();
        if present != 1 {
            self.report(path, "a piece of memory has exactly one of `bytes`, `text`, `dword` and `qword`".to_owned(), None);
            return;
        }
        let length = match (&memory.bytes, &memory.text, &memory.dword) {
            (Some(bytes), ..) => match hex_bytes(bytes) {
                Some(bytes) => bytes.len() as u64,
                None => return self.hexadecimal(&[path, &["bytes"]].concat()),
            },
            (None, Some(text), _) => text.len() as u64,
            (None, None, Some(_)) => 4,
            (None, None, None) => 8,
        };
        self.ram(&memory.address, length, &[path, &["address"]].concat());
        for (key, value) in [("dword", &memory.dword), ("qword", &memory.qword)] {
            if let Some(value) = value {
                self.quantity(value, &[path, &[key]].concat());
            }
        }
    }
}

/// Whether the name is a number, as exits without a name are written.
fn is_code(name: &str) -> bool {
    name.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_hexadecimal() {
        assert_eq!(hex_bytes("0f 01 c1"), Some(vec![0x0f, 1, 0xc1]));
        assert_eq!(hex_bytes("0f01c1"), Some(vec![0x0f, 1, 0xc1]));
        for text in ["", "0", "0x0f", "0g", "\u{e9}\u{e9}"] {
            assert_eq!(hex_bytes(text), None, "{text}");
        }
    }
}
