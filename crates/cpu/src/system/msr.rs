//! RDMSR and WRMSR, and one table of the MSRs that the core has.
//!
//! What is modelled: the rows of [`TABLES`], each with its reserved bits; the silicon's own MSRs, asked first; MSRs that are constants of the
//! model, read-only. Last-branch records are in [`crate::last_branches`]. Every other number is #GP(0).

use super::{Entry, Flow};
use crate::apic::GeneralProtection;
use crate::state::Cpu;
use crate::trap::{Exit, Intercept, Outcome, Trap};
use iced_x86::{Instruction, Mnemonic as M, Register};
use isa::control::Efer;
use isa::cpuid::Feature;
use isa::msr;
use isa::paging::is_canonical;
use isa::register::Segment;
use models::Vendor;

/// A row of plain storage: number, whose field, when it exists, what it refuses.
macro_rules! plain {
    ($number:ident, ($($place:tt)+), $exists:expr, $rule:ident) => {
        Msr {
            first: msr::$number,
            last: msr::$number,
            exists: $exists,
            read: |cpu, _| Ok(cpu.$($place)+),
            write: |cpu, _, value| {
                cpu.$($place)+ = Rule::$rule.check(value)?;
                Ok(())
            },
        }
    };
}

/// A row with functions of its own.
macro_rules! row {
    ($number:ident, $exists:expr, $read:expr, $write:expr) => {
        Msr { first: msr::$number, last: msr::$number, exists: $exists, read: $read, write: $write }
    };
}

mod machine_check;
mod memory_type;

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Rdmsr => Entry::plain(rdmsr),
        M::Wrmsr => Entry::last(wrmsr),
        _ => None,
    }
}

/// An MSR, or a range of them that behaves alike.
struct Msr {
    first: u32,
    last: u32,
    exists: fn(&Cpu) -> bool,
    read: fn(&mut Cpu, u32) -> Outcome<u64>,
    write: fn(&mut Cpu, u32, u64) -> Outcome,
}

/// What a plain register refuses.
#[derive(Clone, Copy)]
enum Rule {
    /// Nothing.
    Any,
    /// Bits 63:32 must be zero.
    Low32,
    /// The value must be a canonical address.
    Canonical,
}

impl Rule {
    fn check(self, value: u64) -> Outcome<u64> {
        let allowed = match self {
            Self::Any => true,
            Self::Low32 => value >> 32 == 0,
            Self::Canonical => is_canonical(value),
        };
        if allowed { Ok(value) } else { Err(Trap::GP0) }
    }
}

fn always(_: &Cpu) -> bool {
    true
}

fn has_sysenter(cpu: &Cpu) -> bool {
    cpu.has(Feature::Sep)
}

fn has_syscall(cpu: &Cpu) -> bool {
    cpu.model.has(Feature::Syscall)
}

fn has_long_mode(cpu: &Cpu) -> bool {
    cpu.has(Feature::LongMode)
}

fn has_effective_frequency(cpu: &Cpu) -> bool {
    cpu.has(Feature::EffectiveFrequency)
}

fn has_read_only_frequency(cpu: &Cpu) -> bool {
    cpu.has(Feature::EffectiveFrequencyReadOnly)
}

fn is_intel(cpu: &Cpu) -> bool {
    cpu.vendor == Vendor::Intel
}

fn is_amd(cpu: &Cpu) -> bool {
    cpu.vendor == Vendor::Amd
}

/// What SYSENTER_ESP or SYSENTER_EIP takes of a value. SDM vol 3, 5.8.7.1: a canonical address; APM vol 2, 6.1.2 "SYSENTER and SYSEXIT": AMD has
/// these instructions outside of long mode only, and its registers 32 bits, whose upper halves writes ignore.
fn sysenter_address(cpu: &Cpu, value: u64) -> Outcome<u64> {
    if is_amd(cpu) { Ok(value & 0xffff_ffff) } else { Rule::Canonical.check(value) }
}

fn from_apic<T>(result: Result<T, GeneralProtection>) -> Outcome<T> {
    result.map_err(|_| Trap::GP0)
}

/// Writes of a base change what addresses mean in the segment, but no translation.
fn set_base(cpu: &mut Cpu, segment: Segment, value: u64) -> Outcome {
    cpu.segments[segment.number()].base = Rule::Canonical.check(value)?;
    Ok(())
}

/// Every MSR of the core.
static TABLES: [&[Msr]; 3] = [MSRS, machine_check::ROWS, memory_type::ROWS];

/// The row of a number.
fn row(index: u32) -> Option<&'static Msr> {
    TABLES.iter().copied().flatten().find(|row| (row.first..=row.last).contains(&index))
}

/// All but those that have a file of their own.
static MSRS: &[Msr] = &[
    row!(IA32_TIME_STAMP_COUNTER, |cpu| cpu.has(Feature::Tsc), |cpu, _| Ok(cpu.time_stamp()), |cpu, _, value| {
        // SDM vol 3, 18.17.3: what a write adds to the counter is added to IA32_TSC_ADJUST.
        let delta = value.wrapping_sub(cpu.tsc.apply(cpu.cycles()));
        cpu.move_time_stamp(delta);
        Ok(())
    }),
    row!(IA32_TSC_ADJUST, |cpu| cpu.has(Feature::TscAdjust), |cpu, _| Ok(cpu.msrs.tsc_adjust), |cpu, _, value| {
        // SDM vol 3, 18.17.3 "Time-Stamp Counter Adjustment": what is added to the register is added to the counter.
        cpu.move_time_stamp(value.wrapping_sub(cpu.msrs.tsc_adjust));
        Ok(())
    }),
    row!(IA32_APIC_BASE, |cpu| cpu.has(Feature::Apic), |cpu, _| Ok(cpu.apic.base()), |cpu, _, value| {
        from_apic(cpu.apic.set_base(value))?;
        cpu.context_changed();
        Ok(())
    }),
    plain!(IA32_SYSENTER_CS, (msrs.sysenter_cs), has_sysenter, Low32),
    row!(IA32_SYSENTER_ESP, has_sysenter, |cpu, _| Ok(cpu.msrs.sysenter_esp), |cpu, _, value| {
        cpu.msrs.sysenter_esp = sysenter_address(cpu, value)?;
        Ok(())
    }),
    row!(IA32_SYSENTER_EIP, has_sysenter, |cpu, _| Ok(cpu.msrs.sysenter_eip), |cpu, _, value| {
        cpu.msrs.sysenter_eip = sysenter_address(cpu, value)?;
        Ok(())
    }),
    plain!(IA32_MISC_ENABLE, (msrs.misc_enable), is_intel, Any),
    row!(IA32_DEBUGCTL, always, |cpu, _| Ok(cpu.msrs.debugctl), |cpu, _, value| cpu.write_debugctl(value)),
    row!(IA32_PAT, |cpu| cpu.has(Feature::Pat), |cpu, _| Ok(cpu.msrs.pat), |cpu, _, value| {
        // SDM vol 3, 12.12.2 "IA32_PAT MSR": types 2, 3 and 8 to 255 are reserved.
        if value.to_le_bytes().iter().any(|kind| !matches!(kind, 0 | 1 | 4..=7)) {
            return Err(Trap::GP0);
        }
        cpu.msrs.pat = value;
        Ok(())
    }),
    row!(
        IA32_TSC_DEADLINE,
        |cpu| cpu.has(Feature::TscDeadline),
        |cpu, _| {
            let now = cpu.cycles();
            Ok(cpu.apic.tsc_deadline(now))
        },
        |cpu, _, value| {
            let now = cpu.cycles();
            let tsc = cpu.tsc.apply(now);
            cpu.apic.set_tsc_deadline(value, tsc, now);
            cpu.leave = true;
            Ok(())
        }
    ),
    Msr {
        first: msr::IA32_X2APIC_FIRST,
        last: msr::IA32_X2APIC_LAST,
        exists: |cpu| cpu.has(Feature::X2apic),
        read: |cpu, index| {
            let now = cpu.cycles();
            from_apic(cpu.apic.read_msr(index, now))
        },
        write: |cpu, index, value| {
            let now = cpu.cycles();
            let effects = from_apic(cpu.apic.write_msr(index, value, now))?;
            cpu.apic_effects(effects);
            Ok(())
        },
    },
    row!(IA32_XSS, |cpu| cpu.has(Feature::Xsaves), |cpu, _| Ok(cpu.msrs.xss), |_, _, value| {
        // No supervisor state component is supported.
        if value == 0 { Ok(()) } else { Err(Trap::GP0) }
    }),
    row!(
        IA32_EFER,
        |cpu| has_long_mode(cpu) || cpu.has(Feature::Nx) || has_syscall(cpu),
        |cpu, _| Ok(cpu.efer.into_bits()),
        |cpu, _, value| { cpu.write_efer(value) }
    ),
    plain!(IA32_STAR, (msrs.star), has_syscall, Any),
    plain!(IA32_LSTAR, (msrs.lstar), has_long_mode, Canonical),
    plain!(IA32_CSTAR, (msrs.cstar), has_long_mode, Canonical),
    plain!(IA32_FMASK, (msrs.fmask), has_long_mode, Low32),
    row!(IA32_FS_BASE, has_long_mode, |cpu, _| Ok(cpu.segment(Segment::Fs).base), |cpu, _, value| set_base(cpu, Segment::Fs, value)),
    row!(IA32_GS_BASE, has_long_mode, |cpu, _| Ok(cpu.segment(Segment::Gs).base), |cpu, _, value| set_base(cpu, Segment::Gs, value)),
    plain!(IA32_KERNEL_GS_BASE, (msrs.kernel_gs_base), has_long_mode, Canonical),
    row!(IA32_TSC_AUX, |cpu| cpu.has(Feature::Rdtscp) || cpu.has(Feature::Rdpid), |cpu, _| Ok(cpu.msrs.tsc_aux), |cpu, _, value| {
        // SDM vol 3, 18.17.2 "IA32_TSC_AUX Register and RDTSCP Support": bits 63:32 are reserved. AMD's processors ignore them.
        cpu.msrs.tsc_aux = if is_amd(cpu) { value & 0xffff_ffff } else { Rule::Low32.check(value)? };
        Ok(())
    }),
    row!(IA32_MPERF, has_effective_frequency, |cpu, _| Ok(cpu.mperf()), |cpu, _, value| {
        cpu.msrs.mperf = value.wrapping_sub(cpu.unhalted_cycles());
        Ok(())
    }),
    row!(IA32_APERF, has_effective_frequency, |cpu, _| Ok(cpu.aperf()), |cpu, _, value| {
        cpu.msrs.aperf = value.wrapping_sub(cpu.unhalted_cycles());
        Ok(())
    }),
    row!(MPERF_READ_ONLY, has_read_only_frequency, |cpu, _| Ok(cpu.mperf()), |_, _, _| Err(Trap::GP0)),
    row!(APERF_READ_ONLY, has_read_only_frequency, |cpu, _| Ok(cpu.aperf()), |_, _, _| Err(Trap::GP0)),
    row!(IA32_BIOS_SIGN_ID, always, |cpu, _| Ok(cpu.model.msr(msr::IA32_BIOS_SIGN_ID).unwrap_or(0)), |_, _, _| Ok(())),
    Msr {
        // APM vol 2, 13.2.3 "Performance Monitoring Counters" (performance event-select registers).
        first: msr::PERF_CTL0,
        last: msr::PERF_CTL3,
        exists: is_amd,
        read: |cpu, index| Ok(cpu.msrs.performance[(index - msr::PERF_CTL0) as usize]),
        write: |cpu, index, value| {
            if value >> 22 & 1 != 0 {
                return Err(Trap::not_modelled("counting of performance events (PERF_CTL.EN)"));
            }
            cpu.msrs.performance[(index - msr::PERF_CTL0) as usize] = value;
            Ok(())
        },
    },
    Msr {
        first: msr::PERF_CTR0,
        last: msr::PERF_CTR3,
        exists: is_amd,
        read: |cpu, index| Ok(cpu.msrs.performance[(index - msr::PERF_CTL0) as usize]),
        write: |cpu, index, value| {
            // Counters are 48 bits wide.
            cpu.msrs.performance[(index - msr::PERF_CTL0) as usize] = value & 0xffff_ffff_ffff;
            Ok(())
        },
    },
    plain!(SYSCFG, (msrs.amd[0]), is_amd, Any),
    plain!(HWCR, (msrs.amd[1]), is_amd, Any),
    // APM vol 2, 15.30.2 "IGNNE MSR (C001_0115h)": bit 0, all others must be zero.
    row!(IGNNE, |cpu| is_amd(cpu) && cpu.model.svm.is_some(), |cpu, _| Ok(cpu.msrs.ignne), |cpu, _, value| {
        if value > 1 {
            return Err(Trap::GP0);
        }
        cpu.msrs.ignne = value;
        Ok(())
    }),
    plain!(DE_CFG, (msrs.amd[2]), is_amd, Any),
];

impl Cpu {
    /// Reads an MSR as RDMSR does at privilege level 0; the fault is #GP(0).
    pub fn read_msr(&mut self, index: u32) -> Outcome<u64> {
        if let Some(Some(outcome)) = self.with_extension(|extension, cpu| extension.read_msr(cpu, index)) {
            return outcome;
        }
        match row(index) {
            Some(row) if (row.exists)(self) => (row.read)(self, index),
            Some(_) => Err(Trap::GP0),
            None => self.read_record_msr(index).or_else(|| self.model.msr(index)).ok_or(Trap::GP0),
        }
    }

    /// Writes an MSR as WRMSR does at privilege level 0; the fault is #GP(0), and then nothing has changed.
    pub fn write_msr(&mut self, index: u32, value: u64) -> Outcome {
        if let Some(Some(outcome)) = self.with_extension(|extension, cpu| extension.write_msr(cpu, index, value)) {
            return outcome;
        }
        match row(index) {
            Some(row) if (row.exists)(self) => (row.write)(self, index, value),
            Some(_) => Err(Trap::GP0),
            None => self.write_record_msr(index, value).unwrap_or(Err(Trap::GP0)),
        }
    }

    /// Adds to the time-stamp counter, and so to IA32_TSC_ADJUST; an armed deadline of the APIC timer moves.
    fn move_time_stamp(&mut self, delta: u64) {
        self.tsc.offset = self.tsc.offset.wrapping_add(delta);
        self.msrs.tsc_adjust = self.msrs.tsc_adjust.wrapping_add(delta);
        let now = self.cycles();
        self.apic.tsc_changed(self.tsc.apply(now), now);
        self.leave = true;
    }

    /// Writes EFER as WRMSR does. SDM vol 3, 2.2.1 "Extended Feature Enable Register"; APM vol 2, 3.1.7.
    pub fn write_efer(&mut self, value: u64) -> Outcome {
        if value & !models::efer_of(self.features).into_bits() != 0 {
            return Err(Trap::GP0);
        }
        let new = Efer::from_bits(value);
        if new.lme() != self.efer.lme() && self.cr0.pg() {
            return Err(Trap::GP0);
        }
        // LMA is the processor's own.
        self.efer = new.with_lma(self.efer.lma());
        self.context_changed();
        Ok(())
    }

    fn intercept_msr(&mut self, index: u32, write: bool, instruction: &Instruction) -> Outcome {
        if self.interception.has(Intercept::Msrs)
            && self.with_extension(|extension, cpu| extension.intercepts_msr(cpu, index, write)) == Some(true)
        {
            return Err(Trap::Exit(Exit::Msr { index, write, length: instruction.len() as u8 }));
        }
        Ok(())
    }
}

fn rdmsr(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    let index = cpu.read_register(Register::ECX) as u32;
    cpu.intercept_msr(index, false, instruction)?;
    let value = cpu.read_msr(index)?;
    cpu.write_register(Register::EAX, value & 0xffff_ffff);
    cpu.write_register(Register::EDX, value >> 32);
    Ok(Flow::Next)
}

fn wrmsr(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    let index = cpu.read_register(Register::ECX) as u32;
    cpu.intercept_msr(index, true, instruction)?;
    let value = cpu.read_register(Register::EDX) << 32 | cpu.read_register(Register::EAX);
    cpu.write_msr(index, value)?;
    Ok(Flow::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_overlap() {
        let rows: Vec<_> = TABLES.iter().copied().flatten().collect();
        for (at, row) in rows.iter().enumerate() {
            assert!(row.first <= row.last);
            assert!(rows[at + 1..].iter().all(|other| other.last < row.first || other.first > row.last), "{:#x}", row.first);
        }
    }
}
