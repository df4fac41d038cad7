//! The MSRs of the machine-check architecture, as state: nothing here ever goes wrong, so no #MC is raised.
//!
//! What is modelled: SDM vol 3, 16.3 "Machine-Check MSRs"; APM vol 2, 9.3 "Machine Check Architecture MSRs": capability, status, control, and
//! four registers a bank, as many banks as the model has. What is not: CMCI, AMD's scalable MSRs from C000_2000H on, machine checks.

use super::{Msr, Rule, is_amd};
use crate::state::Cpu;
use crate::trap::{Outcome, Trap};
use isa::cpuid::Feature;
use isa::msr;

/// IA32_MCG_CAP: number of banks.
const COUNT: u64 = 0xff;
/// IA32_MCG_CAP: IA32_MCG_CTL is there.
const CONTROL_PRESENT: u64 = 1 << 8;
/// IA32_MCG_STATUS: RIPV, EIPV, MCIP.
const STATUS: u64 = 0x7;
/// HWCR: MCi_STATUS can be written (AMD).
const STATUS_WRITE_ENABLE: u64 = 1 << 18;

/// IA32_MCG_CAP of the model.
fn capability(cpu: &Cpu) -> u64 {
    if cpu.has(Feature::Mca) { cpu.model.msr(msr::IA32_MCG_CAP).unwrap_or(0) } else { 0 }
}

/// The register of a bank that a number means; nothing for a bank that the model does not have.
fn bank(cpu: &mut Cpu, number: u32) -> Outcome<(&mut u64, u32)> {
    let (index, register) = ((number - msr::IA32_MC0_CTL) / 4, (number - msr::IA32_MC0_CTL) % 4);
    if u64::from(index) >= capability(cpu) & COUNT {
        return Err(Trap::GP0);
    }
    let bank = cpu.msrs.machine_check.get_mut(index as usize).ok_or(Trap::GP0)?;
    Ok((&mut bank[register as usize], register))
}

fn write_bank(cpu: &mut Cpu, number: u32, value: u64) -> Outcome {
    let (is_amd, hardware) = (is_amd(cpu), cpu.msrs.amd[1]);
    let (place, register) = bank(cpu, number)?;
    let allowed = match register {
        // MCi_CTL. Where Intel says that bits are not implemented, processors take all ones or zero.
        0 => is_amd || matches!(value, 0 | u64::MAX),
        // MCi_STATUS: software can only clear it.
        1 => value == 0 || is_amd && hardware & STATUS_WRITE_ENABLE != 0,
        _ => true,
    };
    if !allowed {
        return Err(Trap::GP0);
    }
    *place = value;
    Ok(())
}

/// The rows.
pub(super) static ROWS: &[Msr] = &[
    row!(IA32_MCG_CAP, |cpu| cpu.has(Feature::Mca), |cpu, _| Ok(capability(cpu)), |_, _, _| Err(Trap::GP0)),
    row!(IA32_MCG_STATUS, |cpu| cpu.has(Feature::Mca), |cpu, _| Ok(cpu.msrs.machine_check_status), |cpu, _, value| {
        if value & !STATUS != 0 {
            return Err(Trap::GP0);
        }
        cpu.msrs.machine_check_status = value;
        Ok(())
    }),
    plain!(IA32_MCG_CTL, (msrs.machine_check_control), |cpu| capability(cpu) & CONTROL_PRESENT != 0, Any),
    Msr {
        first: msr::IA32_MC0_CTL,
        last: msr::IA32_MC31_MISC,
        exists: |cpu| cpu.has(Feature::Mca),
        read: |cpu, number| Ok(*bank(cpu, number)?.0),
        write: write_bank,
    },
];
