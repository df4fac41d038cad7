//! Help for a hypervisor in Rust: the processor state of its host, and the host-state area that brings it back.
//!
//! Modelled: a 64-bit host at privilege level 0 with flat segments, as any 64-bit hypervisor has. The host's code is Rust, so RIP, RSP, CR3
//! and the descriptor tables lead nowhere; they still have to pass the checks of VM entry, as the real ones would.

use crate::silicon::{VmFail, Vmx};
use cpu::state::Cpu;
use isa::control::{Cr0, Cr4, Efer};
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector};
use isa::vmx::VmcsField;

/// Selector of the host's code segment.
const CODE: u16 = 8;
/// Selector of the host's data segments.
const DATA: u16 = 16;
/// Selector of the host's task.
const TASK: u16 = 24;

impl Vmx {
    /// Puts a processor into the state in which a 64-bit hypervisor executes VMXON, and makes VM exits return to Rust.
    pub fn prepare_rust_host(&mut self, cpu: &mut Cpu) {
        self.enable_by_firmware();
        cpu.rust_host = true;
        cpu.cr0 = Cr0::from_bits(self.capabilities.cr0_fixed0 | Cr0::new().with_et(true).with_mp(true).with_wp(true).into_bits());
        cpu.cr4 = Cr4::from_bits(self.capabilities.cr4_fixed0).with_pae(true).with_vmxe(true);
        cpu.efer = Efer::new().with_lme(true).with_lma(true);
        let flat = |selector: u16, rights: u32| SegmentRegister {
            selector: Selector::from_bits(selector),
            base: 0,
            limit: u32::MAX,
            attributes: Attributes::from_bits(rights),
        };
        cpu.segments = [flat(DATA, 0xc093); 6];
        cpu.segments[Segment::Cs as usize] = flat(CODE, 0xa09b);
        cpu.tr = SegmentRegister { limit: 0x67, ..flat(TASK, 0x8b) };
        cpu.ldtr = SegmentRegister::null(Selector::new());
        cpu.cpl = 0;
        cpu.context_changed();
    }

    /// Writes the processor's present state into the host-state area of the current VMCS, by VMWRITE. RIP and RSP become 0.
    ///
    /// # Errors
    /// [`VmFail::Invalid`] where no VMCS is current.
    pub fn write_host_state(&mut self, cpu: &mut Cpu) -> Result<(), VmFail> {
        let selector = |cpu: &Cpu, segment: Segment| u64::from(cpu.segment(segment).selector.into_bits() & !7);
        let values = [
            (VmcsField::HostCr0, cpu.cr0.into_bits()),
            (VmcsField::HostCr3, cpu.cr3),
            (VmcsField::HostCr4, cpu.cr4.into_bits()),
            (VmcsField::HostEsSelector, selector(cpu, Segment::Es)),
            (VmcsField::HostCsSelector, selector(cpu, Segment::Cs)),
            (VmcsField::HostSsSelector, selector(cpu, Segment::Ss)),
            (VmcsField::HostDsSelector, selector(cpu, Segment::Ds)),
            (VmcsField::HostFsSelector, selector(cpu, Segment::Fs)),
            (VmcsField::HostGsSelector, selector(cpu, Segment::Gs)),
            (VmcsField::HostTrSelector, u64::from(cpu.tr.selector.into_bits())),
            (VmcsField::HostFsBase, cpu.segment(Segment::Fs).base),
            (VmcsField::HostGsBase, cpu.segment(Segment::Gs).base),
            (VmcsField::HostTrBase, cpu.tr.base),
            (VmcsField::HostGdtrBase, cpu.gdtr.base),
            (VmcsField::HostIdtrBase, cpu.idtr.base),
            (VmcsField::HostSysenterCs, cpu.msrs.sysenter_cs),
            (VmcsField::HostSysenterEsp, cpu.msrs.sysenter_esp),
            (VmcsField::HostSysenterEip, cpu.msrs.sysenter_eip),
            (VmcsField::HostRsp, 0),
            (VmcsField::HostRip, 0),
        ];
        for (field, value) in values {
            self.vmwrite(cpu, field, value)?;
        }
        let exists = |vmx: &Vmx, field: VmcsField| vmx.supported[field.index()];
        if exists(self, VmcsField::HostEfer) {
            self.vmwrite(cpu, VmcsField::HostEfer, cpu.efer.into_bits())?;
        }
        if exists(self, VmcsField::HostPat) {
            self.vmwrite(cpu, VmcsField::HostPat, cpu.msrs.pat)?;
        }
        Ok(())
    }
}
