//! Two machines that differ in their tiers only, driven side by side.

use crate::choices::Choices;
use crate::place::{DATA, DATA_PAGES};
use cpu::block::Compile;
use machine::{Limits, Machine, Stop};
use vmx::Vmx;

/// What two machines did together.
pub struct Twins {
    pub interpreted: Machine,
    pub compiled: Machine,
    /// After every slice a fork takes the second machine's place, which keeps nothing of what it had to be fast.
    forks: bool,
}

/// Notes what two processors do not have in common.
macro_rules! compare {
    ($into:ident, $one:ident, $other:ident, $($field:ident $(($($argument:tt)*))?),* $(,)?) => {
        $(if $one.$field $(($($argument)*))? != $other.$field $(($($argument)*))? {
            $into.push(format!(
                "cpu {} {}: {:x?} interpreted, {:x?} compiled",
                $one.number, stringify!($field), $one.$field $(($($argument)*))?, $other.$field $(($($argument)*))?,
            ));
        })*
    };
}

impl Twins {
    /// Twice the same machine, the second with code compiled that is entered so often.
    pub fn new(make: impl Fn() -> Machine, after: u32) -> Self {
        let (mut interpreted, mut compiled) = (make(), make());
        interpreted.code.compile(Compile::Never);
        compiled.code.compile(Compile::After(after));
        for cpu in interpreted.cpus.iter_mut().chain(&mut compiled.cpus) {
            cpu.log_deliveries(true);
        }
        Self { interpreted, compiled, forks: false }
    }

    /// Twice the same machine, with code compiled that is entered so often; the second is forked after every slice.
    pub fn forking(make: impl Fn() -> Machine, after: u32) -> Self {
        Self { forks: true, ..Self::new(make, after) }
    }

    /// All that the machines do not have in common.
    pub fn differences(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for (one, other) in self.interpreted.cpus.iter_mut().zip(&mut self.compiled.cpus) {
            compare!(
                found,
                one,
                other,
                rip,
                now(),
                instructions(),
                rflags(),
                cr0,
                cr2,
                cr3,
                cr4,
                efer,
                xcr0,
                dr,
                dr6,
                dr7,
                pdptes,
                cpl,
                mxcsr
            );
            compare!(found, one, other, segments, ldtr, tr, gdtr, idtr, msrs, fpu, apic, activity, shadow, nmi_blocked, nmi_pending);
            compare!(found, one, other, init_pending, sipi_pending, pending_debug, delivering, inject, random, guest_mode, next_event());
            let [fields, other_fields] =
                [&mut *one, &mut *other].map(|cpu| Vmx::with(cpu, |vmx, _| vmx.inspect().map(|vmcs| vmcs.fields().clone())));
            if fields != other_fields {
                found.push(format!("VMCS: {fields:x?} interpreted, {other_fields:x?} compiled"));
            }
            // The first delivery that differs is mostly closest to the cause.
            let (mut logged, mut other_logged) = (one.take_deliveries().into_iter(), other.take_deliveries().into_iter());
            loop {
                let (one, other) = (logged.next(), other_logged.next());
                if one != other {
                    found.push(format!("delivery: {one:x?} interpreted, {other:x?} compiled"));
                    break;
                }
                if one.is_none() {
                    break;
                }
            }
            for number in 0..16 {
                if one.regs[number] != other.regs[number] {
                    found.push(format!("register {number}: {:x} interpreted, {:x} compiled", one.regs[number], other.regs[number]));
                }
                if one.xmm[number] != other.xmm[number] {
                    found.push(format!("XMM{number}: {:x?} interpreted, {:x?} compiled", one.xmm[number], other.xmm[number]));
                }
            }
            let pcid = if one.cr4.pcide() { (one.cr3 & 0xfff) as u16 } else { 0 };
            for page in (0..DATA_PAGES).map(|page| DATA + (page << 12)).chain((0..0x60_0000).step_by(0x1_1000)) {
                for space in 0..3 {
                    let (hit, other_hit) = (one.tlb().lookup(page, space, pcid).copied(), other.tlb().lookup(page, space, pcid).copied());
                    if hit != other_hit {
                        found.push(format!("TLB {space} at {page:x}: {hit:x?} interpreted, {other_hit:x?} compiled"));
                    }
                }
            }
        }
        let frames: Vec<u64> = self.interpreted.memory.touched_frames().collect();
        if !frames.iter().copied().eq(self.compiled.memory.touched_frames()) {
            found.push("the touched pages differ".to_owned());
        }
        for frame in frames {
            let mut pages = [[0; 4096]; 2];
            for (page, machine) in pages.iter_mut().zip([&self.interpreted, &self.compiled]) {
                machine.memory.read(frame << 12, page).expect("a touched page is there");
            }
            if let Some(at) = pages[0].iter().zip(&pages[1]).position(|(one, other)| one != other) {
                let address = (frame << 12) + at as u64;
                found.push(format!("memory at {address:x}: {:x} interpreted, {:x} compiled", pages[0][at], pages[1][at]));
            }
        }
        if self.interpreted.take_serial() != self.compiled.take_serial() {
            found.push("the serial output differs".to_owned());
        }
        found
    }

    /// Runs both in slices of random length, and compares at the end of each. Returns how the run ended, and how many slices there were.
    ///
    /// # Errors
    /// All that differs at the end of the first slice at which something does.
    pub fn run(&mut self, slices: &mut Choices<'_>, instructions: u64) -> Result<(Stop, u64), String> {
        let mut count = 0;
        loop {
            let begun: u64 = self.interpreted.cpus.iter().map(|cpu| cpu.instructions()).sum();
            let places: Vec<u64> = self.interpreted.cpus.iter().map(|cpu| cpu.rip).collect();
            let cycle = self.interpreted.cpus.iter().map(|cpu| cpu.cycles()).max().unwrap_or_default();
            let reach = slices.pick(&[3, 30, 700, 4000, 4000, 20_000, 20_000]);
            let length = slices.below(reach) + 1;
            count += 1;
            let limits = match slices.below(3) {
                0 => Limits { instructions, cycles: cycle + length },
                _ => Limits { instructions: (begun + length).min(instructions), cycles: u64::MAX },
            };
            let (stop, other) = (self.interpreted.run(&limits), self.compiled.run(&limits));
            let mut found = self.differences();
            if stop != other {
                found.push(format!("{stop:?} interpreted, {other:?} compiled"));
            }
            if self.forks {
                self.compiled = self.compiled.fork();
            }
            if !found.is_empty() {
                return Err(format!("slice {count} from instruction {begun} at {places:x?} to {limits:?}:\n{}", found.join("\n")));
            }
            let over = self.interpreted.cpus.iter().map(|cpu| cpu.instructions()).sum::<u64>() >= instructions;
            match stop {
                Stop::InstructionLimit | Stop::CycleLimit | Stop::Deliveries if !over => {}
                stop => return Ok((stop, count)),
            }
        }
    }
}

/// Runs a case in slices that a seed decides.
///
/// # Errors
/// What differs at the end of a slice, of the first that ends differently.
pub fn lockstep(make: impl Fn() -> Machine, after: u32, seed: u64, instructions: u64) -> Result<(Twins, Stop, u64), String> {
    let mut twins = Twins::new(&make, after);
    let (stop, slices) = twins.run(&mut Choices::seeded(seed), instructions)?;
    Ok((twins, stop, slices))
}
