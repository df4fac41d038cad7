//! The same guest on the bare machine, under nested paging and under shadow paging: whatever its page tables say and however it changes them,
//! all must come to the same registers, memory, faults, accessed and dirty flags.
//!
//! Guests are programs made at random ([`program`]) over page tables made at random ([`tables`]): they read, write and execute pages of a window,
//! as supervisor and as user, through the window change the tables that map it, change them by other ways, with the invalidations that the
//! architecture demands, and switch what paging depends on. `TRAPLINE_PAGING_GUESTS` is how many of them each mode and processor runs (default 6).

mod machines;
mod program;
mod tables;

use cpu::random::split_mix_64;
use machines::{End, bare, hypervised};
use models::{CpuModel, K8_REV_F, MEROM, SKYLAKE_SERVER, ZEN3};
use program::Program;

/// Numbers that look random.
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn word(&mut self) -> u64 {
        split_mix_64(&mut self.0)
    }

    /// One below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// Whether a chance in a hundred comes true.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A paging mode of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit paging.
    Bits32,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Level4,
}

fn guests() -> u64 {
    std::env::var("TRAPLINE_PAGING_GUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Two ends of a guest must be one.
fn compare(at: &str, program: &Program, expected: &End, end: &End) {
    let text = &program.text;
    assert_eq!(
        expected.stop, "halted",
        "{at}: a guest that the bare machine does not end: {:x?} {:x?}\n{text}",
        expected.registers, expected.log
    );
    assert_eq!(end.stop, expected.stop, "{at}\n{text}\n{}", end.tail());
    for (index, (one, two)) in expected.log.iter().zip(&end.log).enumerate() {
        assert_eq!(one, two, "{at}: step {index} noted another error code, CR2 or value\n{text}\n{}", end.tail());
    }
    assert_eq!(expected.registers, end.registers, "{at}: registers\n{text}");
    if let Some(byte) = expected.memory.iter().zip(&end.memory).position(|(one, two)| one != two) {
        let word = |memory: &[u8]| u64::from_le_bytes(memory[byte & !7..][..8].try_into().unwrap());
        let (one, two) = (word(&expected.memory), word(&end.memory));
        panic!("{at}: memory at {:#x} is {two:#x} instead of {one:#x}\n{text}\n{}", byte & !7, end.tail());
    }
}

/// Guests of a processor of 2007, moved at random moments between hosts with nested and with shadow paging, of both vendors.
fn moved(mode: Mode) {
    for seed in 0..guests() {
        let mut random = Random(seed << 16 | mode as u64);
        let program = Program::new(&mut random, mode, &MEROM, true);
        let expected = bare(&MEROM, &program);
        let mut hosts = vec![&MEROM];
        for _ in 0..6 {
            hosts.push(random.pick(&[&MEROM, &K8_REV_F, &SKYLAKE_SERVER, &ZEN3]));
        }
        let names: Vec<_> = hosts.iter().map(|host| host.name).collect();
        let end = machines::moved(&hosts, &program, &mut random);
        compare(&format!("{mode:?} seed {seed} moved over {names:?}"), &program, &expected, &end);
    }
}

/// Runs guests of a mode on a model, in every way the model has.
fn same(model: &'static CpuModel, mode: Mode) {
    let nested = model.vmx.as_ref().is_none_or(|vmx| vmx.may_be_one(isa::vmx::SecondaryControls::ENABLE_EPT))
        && model.svm.is_none_or(|svm| svm.features.nested_paging());
    for seed in 0..guests() {
        let program = Program::new(&mut Random(seed << 8 | mode as u64), mode, model, false);
        let expected = bare(model, &program);
        let compare = |what: &str, end: &End| compare(&format!("{} {mode:?} seed {seed} {what}", model.name), &program, &expected, end);
        if nested {
            compare("nested", &hypervised(model, &program, hypervisor::Paging::Nested, 1024));
        }
        compare("shadow", &hypervised(model, &program, hypervisor::Paging::Shadow, 1024));
        // So few pages that they have to be recycled.
        compare("shadow with a small pool", &hypervised(model, &program, hypervisor::Paging::Shadow, 0));
    }
}

macro_rules! each_mode {
    ($($name:ident $model:ident $mode:ident;)*) => {
        $(#[test]
        fn $name() {
            same(&$model, Mode::$mode);
        })*
    };
}

each_mode! {
    skylake_server_32_bit SKYLAKE_SERVER Bits32;
    skylake_server_pae SKYLAKE_SERVER Pae;
    skylake_server_4_level SKYLAKE_SERVER Level4;
    zen3_32_bit ZEN3 Bits32;
    zen3_pae ZEN3 Pae;
    zen3_4_level ZEN3 Level4;
    merom_32_bit MEROM Bits32;
    merom_pae MEROM Pae;
    merom_4_level MEROM Level4;
    k8_rev_f_32_bit K8_REV_F Bits32;
    k8_rev_f_pae K8_REV_F Pae;
    k8_rev_f_4_level K8_REV_F Level4;
}

#[test]
fn moved_32_bit() {
    moved(Mode::Bits32);
}

#[test]
fn moved_pae() {
    moved(Mode::Pae);
}

#[test]
fn moved_4_level() {
    moved(Mode::Level4);
}
