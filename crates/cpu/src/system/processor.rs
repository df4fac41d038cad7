//! The processor talks about itself, waits, or stops: CPUID, time stamps, HLT, caches, undefined opcodes.
//!
//! What is modelled: CPUID, RDTSC, RDTSCP, RDPID, RDPRU, RDPMC (of AMD's four counters; Intel's models have none: #GP), HLT, PAUSE, INVD and WBINVD (there are no caches to
//! flush), UD0, UD1, UD2, RSM outside system management mode; MONITOR, which arms nothing, and MWAIT, which goes on at once, as SDM vol 2, "MWAIT",
//! allows: "If the preceding MONITOR instruction did not successfully arm an address range ... the processor will not enter the
//! implementation-dependent-optimized state."

use super::{Entry, Flow};
use crate::operand::segment_of;
use crate::select::undefined;
use crate::state::{Activity, Cpu};
use crate::trap::{Access, Intercept, Outcome, Trap};
use iced_x86::{Code, Instruction, Mnemonic as M, Register};
use isa::cpuid::Feature;
use isa::register::Segment;
use isa::rflags::Rflags;
use models::{CpuidContext, Vendor};

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    match instruction.mnemonic() {
        M::Cpuid => Entry::plain(cpuid),
        M::Rdtsc => Entry::plain(rdtsc),
        M::Rdtscp => Entry::plain(rdtscp),
        M::Rdpid => Entry::plain(rdpid),
        M::Rdpmc => Entry::plain(rdpmc),
        M::Rdpru => Entry::plain(rdpru),
        M::Hlt => Entry::last(hlt),
        M::Pause => Entry::plain(pause),
        M::Monitor => Entry::plain(monitor),
        M::Mwait => Entry::plain(mwait),
        M::Invd => Entry::plain(invd),
        M::Wbinvd => Entry::plain(wbinvd),
        M::Rsm => Entry::last(rsm),
        M::Ud0 | M::Ud1 | M::Ud2 => Entry::last(undefined),
        _ => None,
    }
}

impl Cpu {
    /// What CPUID depends on beside the model.
    pub fn cpuid_context(&self) -> CpuidContext {
        CpuidContext {
            apic_id: self.apic.id(),
            cpu_count: self.cpu_count,
            osxsave: self.cr4.osxsave(),
            ospke: self.cr4.pke(),
            xcr0: self.xcr0,
            apic_enabled: self.apic.base() & crate::apic::BASE_ENABLE != 0,
            in_64_bit_mode: self.is_64bit(),
        }
    }

    fn set_edx_eax(&mut self, value: u64) {
        self.write_register(Register::EAX, value & 0xffff_ffff);
        self.write_register(Register::EDX, value >> 32);
    }

    /// #UD without a feature that the silicon may take away from a guest.
    pub(crate) const fn require_feature(&self, feature: Feature) -> Outcome {
        if self.has(feature) { Ok(()) } else { Err(Trap::UD) }
    }

    /// Whether MONITOR and MWAIT are not turned off. SDM vol 4, IA32_MISC_ENABLE bit 18, "ENABLE MONITOR FSM".
    const fn monitor_enabled(&self) -> bool {
        !matches!(self.model.vendor, Vendor::Intel) || self.msrs.misc_enable >> 18 & 1 != 0
    }

    /// IA32_MPERF: cycles at the frequency of the time-stamp counter, out of halts. SDM vol 3, 15.5.2; APM vol 2, 17.3 "Determining
    /// Processor Effective Frequency".
    pub(super) fn mperf(&self) -> u64 {
        self.unhalted_cycles().wrapping_add(self.msrs.mperf)
    }

    /// IA32_APERF: cycles of the clock, out of halts. The clock is that of the time-stamp counter, always.
    pub(super) fn aperf(&self) -> u64 {
        self.unhalted_cycles().wrapping_add(self.msrs.aperf)
    }

    /// CR4.TSD.
    fn require_time_stamp(&self) -> Outcome {
        if self.cr4.tsd() && self.cpl != 0 { Err(Trap::GP0) } else { Ok(()) }
    }
}

fn cpuid(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Cpuid, instruction)?;
    let (leaf, subleaf) = (cpu.read_register(Register::EAX) as u32, cpu.read_register(Register::ECX) as u32);
    let mut result = cpu.model.cpuid(leaf, subleaf, &cpu.cpuid_context());
    if leaf == 1 && !cpu.monitor_enabled() {
        result.ecx &= !(1 << Feature::Monitor.place().3);
    }
    for (register, value) in
        [(Register::EAX, result.eax), (Register::EBX, result.ebx), (Register::ECX, result.ecx), (Register::EDX, result.edx)]
    {
        cpu.write_register(register, u64::from(value));
    }
    Ok(Flow::Next)
}

fn rdtsc(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_time_stamp()?;
    cpu.intercept(Intercept::Rdtsc, instruction)?;
    cpu.set_edx_eax(cpu.time_stamp());
    Ok(Flow::Next)
}

fn rdtscp(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_feature(Feature::Rdtscp)?;
    cpu.require_time_stamp()?;
    cpu.intercept(Intercept::Rdtscp, instruction)?;
    cpu.set_edx_eax(cpu.time_stamp());
    cpu.write_register(Register::ECX, cpu.msrs.tsc_aux & 0xffff_ffff);
    Ok(Flow::Next)
}

fn rdpid(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.write_register(instruction.op0_register(), cpu.msrs.tsc_aux);
    Ok(Flow::Next)
}

fn rdpmc(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if cpu.cpl != 0 && !cpu.cr4.pce() && !cpu.is_real() {
        return Err(Trap::GP0);
    }
    let number = cpu.read_register(Register::ECX) as usize;
    if cpu.model.vendor == Vendor::Intel {
        // No counter exists, so every ECX is invalid; a VM exit comes before that is seen.
        cpu.intercept(Intercept::Rdpmc, instruction)?;
        return Err(Trap::GP0);
    }
    // APM vol 2, table 15-7: RDPMC checks all exceptions before the intercept. The four counters of 13.2.3 stand still.
    let counter = cpu.msrs.performance.get(4..).and_then(|counters| counters.get(number)).copied().ok_or(Trap::GP0)?;
    cpu.intercept(Intercept::Rdpmc, instruction)?;
    cpu.set_edx_eax(counter);
    Ok(Flow::Next)
}

/// APM vol 3, "RDPRU": ECX selects MPERF (0) or APERF (1); what is not there reads as zero, and CF tells. With CR4.TSD only level 0 has the
/// instruction: #UD. The intercept comes behind the exceptions, as for every instruction of table 15-7 of vol 2.
fn rdpru(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if cpu.cr4.tsd() && cpu.cpl != 0 {
        return Err(Trap::UD);
    }
    cpu.intercept(Intercept::Rdpru, instruction)?;
    let value = match cpu.read_register(Register::ECX) {
        0 => Some(cpu.mperf()),
        1 => Some(cpu.aperf()),
        _ => None,
    };
    cpu.set_all_status(Rflags::new().with_cf(value.is_some()).into_bits());
    cpu.set_edx_eax(value.unwrap_or(0));
    Ok(Flow::Next)
}

fn hlt(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept(Intercept::Hlt, instruction)?;
    cpu.activity = Activity::Halted;
    Ok(Flow::End)
}

fn pause(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    if cpu.interception.has(Intercept::Pause) && cpu.with_extension(|extension, cpu| extension.intercepts_pause(cpu)) == Some(true) {
        cpu.intercept(Intercept::Pause, instruction)?;
    }
    Ok(Flow::Next)
}

/// What MONITOR and MWAIT refuse first: privilege, and an Intel processor on which IA32_MISC_ENABLE turned them off.
fn require_monitor(cpu: &Cpu) -> Outcome {
    if cpu.cpl != 0 || !cpu.monitor_enabled() { Err(Trap::UD) } else { Ok(()) }
}

/// SDM vol 2 and APM vol 3, "MONITOR". SDM vol 3, 26.1.1: a VM exit comes before faults of operands; APM vol 2, table 15-7: after all exceptions.
fn monitor(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    require_monitor(cpu)?;
    let intel = cpu.model.vendor == Vendor::Intel;
    if intel {
        cpu.intercept(Intercept::Monitor, instruction)?;
    }
    if cpu.read_register(Register::ECX) != 0 {
        return Err(Trap::GP0);
    }
    let address = match instruction.code() {
        Code::Monitorw => Register::AX,
        Code::Monitord => Register::EAX,
        _ => Register::RAX,
    };
    let segment = segment_of(instruction.segment_prefix()).unwrap_or(Segment::Ds);
    let linear = cpu.segment_address(segment, cpu.read_register(address), 1, Access::Read)?;
    cpu.load(linear, 1)?;
    if !intel {
        cpu.intercept(Intercept::Monitor, instruction)?;
    }
    Ok(Flow::Next)
}

/// SDM vol 2 and APM vol 3, "MWAIT": bit 0 of ECX, which CPUID leaf 5 tells of, lets masked interrupts end the wait.
fn mwait(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    require_monitor(cpu)?;
    if cpu.model.vendor == Vendor::Intel {
        cpu.intercept(Intercept::Mwait, instruction)?;
    }
    if cpu.read_register(Register::ECX) > 1 {
        return Err(Trap::GP0);
    }
    cpu.intercept(Intercept::Mwait, instruction)?;
    Ok(Flow::Next)
}

fn invd(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept(Intercept::Invd, instruction)?;
    Ok(Flow::Next)
}

fn wbinvd(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.require_level_0()?;
    cpu.intercept(Intercept::Wbinvd, instruction)?;
    Ok(Flow::Next)
}

/// RSM outside system management mode is #UD; APM vol 2, 15.9 lists its intercept before that.
fn rsm(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    cpu.intercept(Intercept::Rsm, instruction)?;
    Err(Trap::UD)
}
