//! Which instructions and events of a guest exit: the VM-execution controls in the core's words, and the bitmaps.
//!
//! Modelled: SDM 26.1 "Instructions That Cause VM Exits" and 26.2 "Other Causes of VM Exits". A control is translated once, when the VMCS
//! has changed; accesses to control registers, ports and MSRs are decided here, one function for each.

use crate::ept::EptFeatures;
use crate::silicon::Vmx;
use crate::virtual_apic::VirtualApic;
use crate::vmcs::Fields;
use cpu::extension::Interception;
use cpu::state::Cpu;
use cpu::trap::{ControlAccess, ControlAccessKind, Intercept, PortAccess};
use isa::vmx::VmcsField;
use serde::{Deserialize, Serialize};

/// What follows from the control words of a VMCS, kept for as long as they do not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intercepts {
    /// Physical address of the VMCS.
    pub(crate) owner: u64,
    /// What the core looks at.
    pub(crate) interception: Interception,
    /// What the controls say of EPT.
    pub(crate) ept: EptFeatures,
    /// What they say of the virtual APIC.
    pub(crate) virtual_apic: VirtualApic,
    /// Where the APIC-access page is, with "virtualize APIC accesses".
    pub(crate) apic_access_page: Option<u64>,
}

impl Intercepts {
    pub(crate) fn of(owner: u64, fields: &Fields) -> Intercepts {
        let apic_accesses = fields.secondary().virtualize_apic_accesses();
        Intercepts {
            owner,
            interception: interception(fields),
            ept: EptFeatures::of(fields),
            virtual_apic: VirtualApic::of(fields),
            apic_access_page: apic_accesses.then(|| fields.get(VmcsField::ApicAccessAddress)),
        }
    }
}

/// Instructions that exit whatever the controls say. SDM 26.1.2 "Instructions That Cause VM Exits Unconditionally". VMX instructions are
/// not in the list: [`Vmx::execute_instruction`] decides them, after the checks that come first.
const UNCONDITIONAL: &[Intercept] =
    &[Intercept::Cpuid, Intercept::Getsec, Intercept::Invd, Intercept::Xsetbv, Intercept::Init, Intercept::Shutdown, Intercept::TaskSwitch];

/// The intercepts that a VMCS asks for.
pub fn interception(fields: &Fields) -> Interception {
    let (pin, primary, secondary) = (fields.pin_based(), fields.primary(), fields.secondary());
    let conditional = [
        (pin.external_interrupt_exiting(), Intercept::ExternalInterrupt),
        (pin.nmi_exiting(), Intercept::Nmi),
        (primary.interrupt_window_exiting(), Intercept::InterruptWindow),
        (primary.nmi_window_exiting(), Intercept::NmiWindow),
        (primary.monitor_trap_flag(), Intercept::MonitorTrap),
        (primary.hlt_exiting(), Intercept::Hlt),
        (primary.invlpg_exiting(), Intercept::Invlpg),
        (primary.invlpg_exiting() && secondary.enable_invpcid(), Intercept::Invpcid),
        (primary.mwait_exiting(), Intercept::Mwait),
        (primary.monitor_exiting(), Intercept::Monitor),
        (primary.pause_exiting() || secondary.pause_loop_exiting(), Intercept::Pause),
        (primary.rdpmc_exiting(), Intercept::Rdpmc),
        (primary.rdtsc_exiting(), Intercept::Rdtsc),
        (primary.rdtsc_exiting() && secondary.enable_rdtscp(), Intercept::Rdtscp),
        (primary.cr3_load_exiting(), Intercept::Cr3Write),
        (primary.cr3_store_exiting(), Intercept::Cr3Read),
        (primary.cr8_load_exiting(), Intercept::Cr8Write),
        (primary.cr8_store_exiting(), Intercept::Cr8Read),
        (primary.mov_dr_exiting(), Intercept::DrRead),
        (primary.mov_dr_exiting(), Intercept::DrWrite),
        (primary.unconditional_io_exiting() || primary.use_io_bitmaps(), Intercept::Ports),
        (true, Intercept::Msrs),
        (true, Intercept::Cr0Write),
        (true, Intercept::Cr4Write),
        (secondary.wbinvd_exiting(), Intercept::Wbinvd),
        (secondary.rdrand_exiting(), Intercept::Rdrand),
        (secondary.rdseed_exiting(), Intercept::Rdseed),
        (secondary.descriptor_table_exiting(), Intercept::Sgdt),
        (secondary.descriptor_table_exiting(), Intercept::Sidt),
        (secondary.descriptor_table_exiting(), Intercept::Lgdt),
        (secondary.descriptor_table_exiting(), Intercept::Lidt),
        (secondary.descriptor_table_exiting(), Intercept::Sldt),
        (secondary.descriptor_table_exiting(), Intercept::Str),
        (secondary.descriptor_table_exiting(), Intercept::Lldt),
        (secondary.descriptor_table_exiting(), Intercept::Ltr),
    ];
    let mut interception = Interception {
        exceptions: fields.get(VmcsField::ExceptionBitmap) as u32,
        page_fault: (fields.get(VmcsField::PageFaultErrorCodeMask) as u32, fields.get(VmcsField::PageFaultErrorCodeMatch) as u32),
        cr0_mask: fields.get(VmcsField::Cr0GuestHostMask),
        cr0_shadow: fields.get(VmcsField::Cr0ReadShadow),
        cr4_mask: fields.get(VmcsField::Cr4GuestHostMask),
        cr4_shadow: fields.get(VmcsField::Cr4ReadShadow),
        virtual_nmis: pin.virtual_nmis(),
        // SDM 26.3 "Changes to Instruction Behavior in VMX Non-Root Operation", item IRET.
        keeps_nmi_blocking: pin.nmi_exiting() && !pin.virtual_nmis(),
        posts_interrupts: pin.process_posted_interrupts(),
        follows_task_priority: secondary.virtual_interrupt_delivery(),
        tpr_threshold: if primary.use_tpr_shadow() && !secondary.virtual_interrupt_delivery() {
            (fields.get(VmcsField::TprThreshold) & 0xf) as u8
        } else {
            0
        },
        ..Interception::default()
    };
    for &intercept in UNCONDITIONAL {
        interception.add(intercept);
    }
    for (_, intercept) in conditional.into_iter().filter(|(exits, _)| *exits) {
        interception.add(intercept);
    }
    interception
}

/// The place of an MSR's bit in the MSR bitmaps: offset of the byte in the page, and the bit in it; `None` for MSRs that always exit.
///
/// SDM 25.6.9 "MSR-Bitmap Address": four bitmaps of 1 KiB, for reads and writes of low and high MSRs.
pub const fn msr_bitmap_place(index: u32, write: bool) -> Option<(u64, u8)> {
    let start = match index {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 1024,
        _ => return None,
    };
    let number = index & 0x1fff;
    let half = if write { 2048 } else { 0 };
    Some((start + half + (number >> 3) as u64, (number & 7) as u8))
}

/// The bits of CR0 that LMSW can load: PE, MP, EM and TS.
const LMSW_BITS: u64 = 0xf;
/// CR0.TS.
const TS: u64 = 1 << 3;
/// CR0.PE.
const PE: u64 = 1;

/// The times, in cycles, of the PAUSEs at privilege level 0 that "PAUSE-loop exiting" looks at. SDM 25.6.13 "Controls for PAUSE-Loop
/// Exiting".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseLoop {
    /// The first of the loop, and the last one before now; none since VM entry.
    times: Option<(u64, u64)>,
}

impl Vmx {
    /// Whether PAUSE exits. SDM 26.1.3 "Instructions That Cause VM Exits Conditionally", item PAUSE.
    pub(crate) fn pause_exits(&mut self, cpu: &Cpu) -> bool {
        let fields = self.current.fields();
        if fields.primary().pause_exiting() {
            return true;
        }
        if cpu.cpl > 0 {
            return false;
        }
        let (gap, window) = (fields.get(VmcsField::PleGap), fields.get(VmcsField::PleWindow));
        let now = cpu.cycles();
        let first = match self.pauses.times {
            Some((first, last)) if now - last <= gap => first,
            _ => now,
        };
        self.pauses.times = Some((first, now));
        now - first > window
    }

    /// Whether a port access exits. SDM 26.1.3 "Instructions That Cause VM Exits Conditionally", items IN and OUT.
    pub(crate) fn port_exits(&self, cpu: &Cpu, access: &PortAccess) -> bool {
        let fields = self.current.fields();
        if !fields.primary().use_io_bitmaps() {
            return fields.primary().unconditional_io_exiting();
        }
        let last = u32::from(access.port) + u32::from(access.width) - 1;
        // An access that wraps around the I/O-port space exits, whatever the bitmaps hold.
        if last > 0xffff {
            return true;
        }
        (u32::from(access.port)..=last).any(|port| {
            let bitmap = if port < 0x8000 { VmcsField::IoBitmapAAddress } else { VmcsField::IoBitmapBAddress };
            let byte = cpu.read_physical(fields.get(bitmap) + u64::from(port & 0x7fff) / 8, 1);
            byte >> (port & 7) & 1 != 0
        })
    }

    /// Whether RDMSR or WRMSR exits. SDM 26.1.3 "Instructions That Cause VM Exits Conditionally".
    pub(crate) fn msr_exits(&self, cpu: &Cpu, index: u32, write: bool) -> bool {
        let fields = self.current.fields();
        if !fields.primary().use_msr_bitmaps() {
            return true;
        }
        match msr_bitmap_place(index, write) {
            None => true,
            Some((offset, bit)) => cpu.read_physical(fields.get(VmcsField::MsrBitmapAddress) + offset, 1) >> bit & 1 != 0,
        }
    }

    /// Whether an access to a control register exits; if not, the value that the register gets.
    ///
    /// SDM 26.1.3 "Instructions That Cause VM Exits Conditionally" and 26.3 "Changes to Instruction Behavior in VMX Non-Root Operation".
    pub(crate) fn control_register_access(&self, cpu: &Cpu, access: &ControlAccess) -> Result<u64, cpu::extension::Exits> {
        let interception = &self.intercepts.interception;
        let (cr0, mask, shadow) = (cpu.cr0.into_bits(), interception.cr0_mask, interception.cr0_shadow);
        let owned = |exits: bool, value: u64| if exits { Err(cpu::extension::Exits) } else { Ok(value) };
        match (access.register, access.kind) {
            (0, ControlAccessKind::MovTo) => owned((access.value ^ shadow) & mask != 0, cr0 & mask | access.value & !mask),
            // CLTS exits if the host owns TS and the shadow says it is set; if the host owns it and it is not, nothing changes.
            (0, ControlAccessKind::Clts) => owned(mask & shadow & TS != 0, if mask & TS != 0 { cr0 } else { cr0 & !TS }),
            (0, ControlAccessKind::Lmsw) => {
                // LMSW can set PE but not clear it.
                let settable = LMSW_BITS & !PE | access.value & PE;
                let exits = (access.value ^ shadow) & mask & settable != 0;
                let loaded = settable & !mask;
                owned(exits, cr0 & !loaded | access.value & loaded)
            }
            (3, ControlAccessKind::MovTo) => {
                let count = self.current.get(VmcsField::Cr3TargetCount);
                let targets =
                    [VmcsField::Cr3TargetValue0, VmcsField::Cr3TargetValue1, VmcsField::Cr3TargetValue2, VmcsField::Cr3TargetValue3];
                let is_target = targets.into_iter().take(count as usize).any(|target| self.current.get(target) == access.value);
                owned(!is_target, access.value)
            }
            (4, ControlAccessKind::MovTo) => {
                let (mask, shadow) = (interception.cr4_mask, interception.cr4_shadow);
                owned((access.value ^ shadow) & mask != 0, cpu.cr4.into_bits() & mask | access.value & !mask)
            }
            // SMSW and MOV from CR0 and CR4 read the shadow and never exit; the others exit because their control is 1.
            (0, ControlAccessKind::Smsw) | (0 | 4, ControlAccessKind::MovFrom) => Ok(access.value),
            _ => Err(cpu::extension::Exits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_msr_bitmaps_have_four_parts() {
        let rows = [
            (0x10, false, Some((2, 0))),
            (0x1fff, false, Some((1023, 7))),
            (0xc000_0080, false, Some((1024 + 16, 0))),
            (0x10, true, Some((2048 + 2, 0))),
            (0xc000_0102, true, Some((3072 + 32, 2))),
            (0x2000, false, None),
            (0x4000_0000, true, None),
            (0xc000_2000, false, None),
        ];
        for (index, write, place) in rows {
            assert_eq!(msr_bitmap_place(index, write), place, "{index:#x} {write}");
        }
    }

    #[test]
    fn a_control_becomes_an_intercept() {
        let mut fields = Fields::default();
        assert!(!interception(&fields).has(Intercept::Hlt));
        assert!(interception(&fields).has(Intercept::Cpuid));
        fields.set(VmcsField::PrimaryProcessorBasedControls, 1 << 7);
        fields.set(VmcsField::ExceptionBitmap, 1 << 6);
        let with_hlt = interception(&fields);
        assert!(with_hlt.has(Intercept::Hlt) && !with_hlt.has(Intercept::Rdtsc));
        assert_eq!(with_hlt.exceptions, 0x40);
    }
}
