//! Putting an image into memory and a processor to its entry.

use board::loader::{Entry, Image};
use cpu::Cpu;
use cpu::state::FpuState;
use isa::control::{Cr0, Cr4, Efer};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use memory::{Memory, OutOfRange};

/// Copies an image into memory at `offset` (where guest-physical zero lies) and sets up the processor that starts.
pub fn load_image(image: &Image, memory: &mut Memory, offset: u64, cpu: &mut Cpu) -> Result<(), OutOfRange> {
    for segment in &image.segments {
        memory.write(offset + segment.physical, &segment.bytes)?;
    }
    enter(cpu, &image.entry);
    Ok(())
}

/// A flat segment of 4 GiB: the hidden part that a loader leaves.
fn flat(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister { selector: Selector::from_bits(selector), base: 0, limit: u32::MAX, attributes: Attributes::from_bits(attributes) }
}

fn enter(cpu: &mut Cpu, entry: &Entry) {
    cpu.regs = [0; 17];
    cpu.set_rflags(Rflags::new().normalized());
    // Firmware has executed FNINIT; after a reset all x87 exceptions are unmasked and no register is free.
    cpu.fpu = FpuState::initial();
    match *entry {
        Entry::Real16 { cs, ip } => {
            cpu.segments = [SegmentRegister::real_mode(0); 6];
            cpu.segments[Segment::Cs.number()] =
                SegmentRegister { attributes: Attributes::from_bits(0x9b), ..SegmentRegister::real_mode(cs) };
            cpu.idtr = TableRegister { base: 0, limit: 0x3ff };
            cpu.rip = u64::from(ip);
        }
        Entry::Protected32 { eip, eax, ebx } => {
            cpu.cr0 = Cr0::from_bits(cpu.cr0.into_bits()).with_pe(true);
            cpu.segments = [flat(0x10, 0xc093); 6];
            cpu.segments[Segment::Cs.number()] = flat(0x08, 0xc09b);
            cpu.rip = u64::from(eip);
            cpu.set_gpr(Gpr::Rax, u64::from(eax));
            cpu.set_gpr(Gpr::Rbx, u64::from(ebx));
        }
        Entry::Long64 { rip, rsp, cr3, gdt_base, gdt_limit, code, data } => {
            cpu.cr4 = Cr4::new().with_pae(true);
            cpu.cr3 = cr3;
            cpu.efer = Efer::new().with_lme(true).with_lma(true);
            cpu.cr0 = Cr0::new().with_pe(true).with_et(true).with_ne(true).with_wp(true).with_pg(true);
            cpu.segments = [flat(data, 0xc093); 6];
            cpu.segments[Segment::Cs.number()] = flat(code, 0xa09b);
            cpu.gdtr = TableRegister { base: gdt_base, limit: gdt_limit };
            cpu.idtr = TableRegister::default();
            cpu.rip = rip;
            cpu.set_gpr(Gpr::Rsp, rsp);
        }
    }
    cpu.cpl = 0;
    // As firmware leaves it: the 8259's interrupts reach the processor although its APIC was never programmed.
    cpu.apic.set_virtual_wire();
    cpu.flush_tlb();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_finds_the_x87_as_firmware_leaves_it() {
        let mut cpu = Cpu::new(&models::ZEN3, 0, 1, None);
        assert_eq!((cpu.fpu.control, cpu.fpu.tag), (0x40, 0xff), "after a reset");
        enter(&mut cpu, &Entry::Real16 { cs: 0, ip: 0x7c00 });
        assert_eq!((cpu.fpu.control, cpu.fpu.tag), (0x37f, 0), "after FNINIT");
    }
}
