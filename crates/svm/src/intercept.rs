//! From the VMCB's intercept words to the core's neutral intercepts, and back from an intercepted event to its exit code.
//!
//! What is modelled: APM vol 2, 15.8 "Instruction Intercepts" to 15.14 "Miscellaneous Intercepts". One table says of every intercept bit what
//! in the core it is; the decisions that need operands (ports, MSRs, selective CR0 writes, debug registers) are a function each.
//!
//! What is not: the intercepts listed as [`Realised::Never`], each with its reason. Their bits are ignored.

use cpu::extension::Interception;
use cpu::trap::{ControlAccess, ControlAccessKind, Intercept};
use isa::control::Cr0;
use isa::svm::{ExitCode, Intercepts};

/// What stands behind one bit of the intercept words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realised {
    /// An intercept of the core.
    Core(Intercept),
    /// An exception vector.
    Exception,
    /// Part of another decision: the bit refines the intercept that is named.
    Refines(Intercept),
    /// The event cannot happen in this processor, for the reason given.
    Never(&'static str),
}

const NO_SUCH_REGISTER: &str = "there is no such control register: the access is #UD";
const RESERVED: &str = "reserved";

/// What stands behind the bit of an exit code below C0h.
#[must_use]
pub const fn realised(code: ExitCode) -> Realised {
    match code {
        ExitCode::CR0_READ => Realised::Core(Intercept::Cr0Read),
        ExitCode::CR2_READ => Realised::Core(Intercept::Cr2Read),
        ExitCode::CR3_READ => Realised::Core(Intercept::Cr3Read),
        ExitCode::CR4_READ => Realised::Core(Intercept::Cr4Read),
        ExitCode::CR8_READ => Realised::Core(Intercept::Cr8Read),
        ExitCode::CR0_WRITE => Realised::Core(Intercept::Cr0Write),
        ExitCode::CR2_WRITE => Realised::Core(Intercept::Cr2Write),
        ExitCode::CR3_WRITE => Realised::Core(Intercept::Cr3Write),
        ExitCode::CR4_WRITE => Realised::Core(Intercept::Cr4Write),
        ExitCode::CR8_WRITE => Realised::Core(Intercept::Cr8Write),
        ExitCode(0x00..=0x1f) => Realised::Never(NO_SUCH_REGISTER),
        ExitCode(0x20..=0x27) => Realised::Refines(Intercept::DrRead),
        ExitCode(0x30..=0x37) => Realised::Refines(Intercept::DrWrite),
        ExitCode(0x28..=0x2f | 0x38..=0x3f) => Realised::Never(NO_SUCH_REGISTER),
        ExitCode(0x40..=0x5f) => Realised::Exception,
        ExitCode::INTR => Realised::Core(Intercept::ExternalInterrupt),
        ExitCode::NMI => Realised::Core(Intercept::Nmi),
        ExitCode::SMI => Realised::Core(Intercept::Smi),
        ExitCode::INIT => Realised::Core(Intercept::Init),
        ExitCode::VINTR => Realised::Refines(Intercept::InterruptWindow),
        ExitCode::CR0_SEL_WRITE => Realised::Core(Intercept::Cr0SelectiveWrite),
        ExitCode::IDTR_READ => Realised::Core(Intercept::Sidt),
        ExitCode::GDTR_READ => Realised::Core(Intercept::Sgdt),
        ExitCode::LDTR_READ => Realised::Core(Intercept::Sldt),
        ExitCode::TR_READ => Realised::Core(Intercept::Str),
        ExitCode::IDTR_WRITE => Realised::Core(Intercept::Lidt),
        ExitCode::GDTR_WRITE => Realised::Core(Intercept::Lgdt),
        ExitCode::LDTR_WRITE => Realised::Core(Intercept::Lldt),
        ExitCode::TR_WRITE => Realised::Core(Intercept::Ltr),
        ExitCode::RDTSC => Realised::Core(Intercept::Rdtsc),
        ExitCode::RDPMC => Realised::Core(Intercept::Rdpmc),
        ExitCode::PUSHF => Realised::Core(Intercept::Pushf),
        ExitCode::POPF => Realised::Core(Intercept::Popf),
        ExitCode::CPUID => Realised::Core(Intercept::Cpuid),
        ExitCode::RSM => Realised::Core(Intercept::Rsm),
        ExitCode::IRET => Realised::Core(Intercept::Iret),
        ExitCode::SWINT => Realised::Core(Intercept::IntN),
        ExitCode::INVD => Realised::Core(Intercept::Invd),
        ExitCode::PAUSE => Realised::Core(Intercept::Pause),
        ExitCode::HLT => Realised::Core(Intercept::Hlt),
        ExitCode::INVLPG => Realised::Core(Intercept::Invlpg),
        ExitCode::INVLPGA => Realised::Core(Intercept::Invlpga),
        ExitCode::IOIO => Realised::Core(Intercept::Ports),
        ExitCode::MSR => Realised::Core(Intercept::Msrs),
        ExitCode::TASK_SWITCH => Realised::Core(Intercept::TaskSwitch),
        ExitCode::FERR_FREEZE => Realised::Core(Intercept::FerrFreeze),
        ExitCode::SHUTDOWN => Realised::Core(Intercept::Shutdown),
        ExitCode::VMRUN => Realised::Core(Intercept::Vmrun),
        ExitCode::VMMCALL => Realised::Core(Intercept::Vmmcall),
        ExitCode::VMLOAD => Realised::Core(Intercept::Vmload),
        ExitCode::VMSAVE => Realised::Core(Intercept::Vmsave),
        ExitCode::STGI => Realised::Core(Intercept::Stgi),
        ExitCode::CLGI => Realised::Core(Intercept::Clgi),
        ExitCode::SKINIT => Realised::Core(Intercept::Skinit),
        ExitCode::RDTSCP => Realised::Core(Intercept::Rdtscp),
        ExitCode::ICEBP => Realised::Core(Intercept::Icebp),
        ExitCode::WBINVD => Realised::Core(Intercept::Wbinvd),
        ExitCode::MONITOR => Realised::Core(Intercept::Monitor),
        ExitCode::MWAIT => Realised::Core(Intercept::Mwait),
        ExitCode::MWAIT_CONDITIONAL => Realised::Never("MONITOR arms nothing, so no MWAIT would wait"),
        ExitCode::XSETBV => Realised::Core(Intercept::Xsetbv),
        ExitCode::RDPRU => Realised::Core(Intercept::Rdpru),
        ExitCode::EFER_WRITE_TRAP => Realised::Never("write traps belong to SEV-ES, which is not offered"),
        ExitCode(0x90..=0x9f) => Realised::Never("write traps belong to SEV-ES, which is not offered"),
        ExitCode::INVLPGB | ExitCode::INVLPGB_ILLEGAL => Realised::Never("INVLPGB is not offered: it is #UD"),
        ExitCode::INVPCID => Realised::Core(Intercept::Invpcid),
        ExitCode::MCOMMIT => Realised::Never("MCOMMIT is not offered: it is #UD"),
        ExitCode::TLBSYNC => Realised::Never("TLBSYNC is not offered: it is #UD"),
        ExitCode::BUSLOCK => Realised::Never("the bus lock threshold is not offered"),
        ExitCode::IDLE_HLT => Realised::Never("the idle HLT intercept is not offered"),
        _ => Realised::Never(RESERVED),
    }
}

/// The translation of the words last seen: they change little from entry to entry, and an entry should not walk 192 bits.
#[derive(Clone, Debug)]
pub(crate) struct Translator {
    /// Words that were translated last.
    words: Intercepts,
    /// What they came to.
    set: u128,
}

impl Translator {
    pub(crate) fn new() -> Self {
        Self { words: Intercepts::default(), set: 0 }
    }

    /// The core's intercepts for these words. A VINTR intercept counts only while a virtual interrupt is pending.
    pub(crate) fn translate(&mut self, words: &Intercepts, virtual_interrupt_pending: bool) -> Interception {
        if *words != self.words {
            let mut interception = Interception::default();
            for code in words.iter() {
                match realised(code) {
                    Realised::Core(intercept) | Realised::Refines(intercept) => interception.add(intercept),
                    Realised::Exception | Realised::Never(_) => {}
                }
            }
            self.set = interception.set;
            self.words = *words;
        }
        let mut set = self.set;
        if !virtual_interrupt_pending {
            set &= !(1 << Intercept::InterruptWindow as u8);
        }
        // Bit 14 needs no refinement by error code: mask and match zero compare equal always.
        Interception {
            set,
            exceptions: words.exceptions(),
            debug_reads_exempt: !words.dr_reads(),
            debug_writes_exempt: !words.dr_writes(),
            ..Interception::default()
        }
    }
}

/// Exit code by intercept, made by the compiler from [`realised`].
const EXIT_CODES: [Option<ExitCode>; 128] = {
    let mut codes = [None; 128];
    let mut number = 0;
    while number < 192 {
        if let Realised::Core(intercept) = realised(ExitCode(number)) {
            codes[intercept as usize] = Some(ExitCode(number));
        }
        number += 1;
    }
    codes
};

/// The exit code of an intercept of the core that stands for exactly one.
#[must_use]
pub const fn exit_code(intercept: Intercept) -> Option<ExitCode> {
    EXIT_CODES[intercept as usize]
}

/// The exit code of an access to a control register, if the words intercept it.
///
/// APM 15.9: a write of CR0 that changes only TS and MP escapes the selective intercept; the plain one comes first.
#[must_use]
pub fn control_access(words: &Intercepts, cr0: Cr0, access: &ControlAccess) -> Option<ExitCode> {
    let write = matches!(access.kind, ControlAccessKind::MovTo | ControlAccessKind::Clts | ControlAccessKind::Lmsw);
    let plain = if write { ExitCode::cr_write(access.register) } else { ExitCode::cr_read(access.register) };
    if words.contains(plain) {
        return Some(plain);
    }
    if write && access.register == 0 && words.contains(ExitCode::CR0_SEL_WRITE) {
        let spared = Cr0::new().with_ts(true).with_mp(true).into_bits();
        let exits = match access.kind {
            // LMSW is intercepted whatever it changes, as processors do; CLTS changes TS alone.
            ControlAccessKind::Lmsw => true,
            ControlAccessKind::Clts => false,
            _ => (access.value ^ cr0.into_bits()) & !spared != 0,
        };
        if exits {
            return Some(ExitCode::CR0_SEL_WRITE);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_intercept_has_one_bit_and_every_bit_an_answer() {
        let mut seen = Vec::new();
        for number in 0..192 {
            if let Realised::Core(intercept) = realised(ExitCode(number)) {
                assert!(!seen.contains(&intercept), "{intercept:?} stands for two bits");
                seen.push(intercept);
                assert_eq!(exit_code(intercept), Some(ExitCode(number)));
            } else if ExitCode(number).row().is_none() {
                assert_eq!(realised(ExitCode(number)), Realised::Never(RESERVED));
            }
        }
        assert_eq!(exit_code(Intercept::Vmcall), None);
    }

    #[test]
    fn each_bit_alone_becomes_its_own_intercept() {
        let mut translator = Translator::new();
        for number in 0..192 {
            let words = Intercepts::default().with(ExitCode(number));
            let interception = translator.translate(&words, true);
            let (set, exceptions) = match realised(ExitCode(number)) {
                Realised::Core(intercept) | Realised::Refines(intercept) => (1_u128 << intercept as u8, 0),
                Realised::Exception => (0, 1_u32 << (number - 0x40)),
                Realised::Never(_) => (0, 0),
            };
            assert_eq!((interception.set, interception.exceptions), (set, exceptions), "{number:#x}");
        }
        let words = Intercepts::default().with(ExitCode::VINTR);
        assert_eq!(translator.translate(&words, false).set, 0, "no virtual interrupt, no window");
    }

    #[test]
    fn selective_writes_of_cr0() {
        let words = Intercepts::default().with(ExitCode::CR0_SEL_WRITE);
        let cr0 = Cr0::from_bits(0x8000_0011);
        let cases = [
            (ControlAccessKind::MovTo, 0x8000_0011, false),
            (ControlAccessKind::MovTo, 0x8000_001b, false),
            (ControlAccessKind::MovTo, 0xc000_0011, true),
            (ControlAccessKind::Clts, 0, false),
            (ControlAccessKind::Lmsw, 0xb, true),
            (ControlAccessKind::Lmsw, 0x4, true),
            (ControlAccessKind::Smsw, 0, false),
        ];
        for (kind, value, exits) in cases {
            let access = ControlAccess { register: 0, kind, gpr: 0, value, memory: None, length: 3 };
            let expected = exits.then_some(ExitCode::CR0_SEL_WRITE);
            assert_eq!(control_access(&words, cr0, &access), expected, "{kind:?} {value:#x}");
            if kind != ControlAccessKind::Smsw {
                let both = words.with(ExitCode::CR0_WRITE);
                assert_eq!(control_access(&both, cr0, &access), Some(ExitCode::CR0_WRITE));
            }
        }
    }
}
