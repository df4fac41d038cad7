//! A processor with VMX, some memory and nothing else; its host is Rust unless a test makes it machine code.
#![allow(dead_code, reason = "each test file uses a part of it")]

use cpu::RunExit;
use cpu::block::CodeCache;
use cpu::bus::Environment;
pub use cpu::bus::NoDevices;
use cpu::state::Cpu;
use isa::vmx::{ControlBit, SecondaryControls, VmcsField as F};
use memory::Memory;
use vmx::{EntryOutcome, Vmx};

pub const VMXON: u64 = 0x1000;
pub const VMCS: u64 = 0x2000;

/// Top of the page tables that map the first GiB to itself.
pub const PAGE_TABLES: u64 = 0x9000;
/// Where a guest's code begins.
pub const GUEST_CODE: u64 = 0x10_0000;

/// Top of the EPT that [`Machine::enable_ept`] makes.
pub const EPT: u64 = 0x40_0000;
/// Accessed and dirty flags, in an EPT pointer.
pub const EPT_FLAGS: u64 = 1 << 6;
/// Execution at user-mode addresses, in an entry of EPT.
pub const USER_EXECUTE: u64 = 1 << 10;

/// The machine.
pub struct Machine {
    pub cpu: Box<Cpu>,
    pub memory: Memory,
    pub code: CodeCache,
}

impl Machine {
    /// A processor with a host in Rust in VMX root operation, its VMCS current and filled with a flat 64-bit guest.
    pub fn new(model: &'static models::CpuModel) -> Machine {
        let extension = Vmx::new(model.vmx.as_ref().expect("the model has VMX"));
        let cpu = Cpu::new(model, 0, 1, Some(Box::new(extension)));
        let mut machine = Machine { cpu, memory: Memory::new(1 << 24), code: CodeCache::new() };
        let table = |machine: &mut Machine, at: u64, entry: u64| machine.memory.write_u64(at, entry).expect("RAM");
        table(&mut machine, PAGE_TABLES, PAGE_TABLES + 0x1003);
        table(&mut machine, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2003);
        for page in 0..512 {
            table(&mut machine, PAGE_TABLES + 0x2000 + page * 8, page << 21 | 0x83);
        }
        machine.with(|vmx, cpu| {
            vmx.prepare_rust_host(cpu);
            cpu.cr3 = PAGE_TABLES;
            cpu.context_changed();
            let revision = u64::from(vmx.capabilities().basic.revision());
            cpu.write_physical(VMXON, 4, revision);
            cpu.write_physical(VMCS, 4, revision);
            vmx.vmxon(cpu, VMXON).expect("VMXON");
            vmx.vmclear(cpu, VMCS).expect("VMCLEAR");
            vmx.vmptrld(cpu, VMCS).expect("VMPTRLD");
            fill(vmx, cpu);
        });
        machine
    }

    /// Runs a closure with silicon and processor in their environment.
    pub fn with<T>(&mut self, call: impl FnOnce(&mut Vmx, &mut Cpu) -> T) -> T {
        let mut bus = NoDevices;
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus };
        self.cpu.with_environment(&mut environment, |cpu| Vmx::with(cpu, call).expect("the processor has VMX"))
    }

    /// Runs at most this many instructions.
    pub fn run(&mut self, instructions: u64) -> RunExit {
        let mut bus = NoDevices;
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus };
        let limit = self.cpu.instructions() + instructions;
        self.cpu.run(&mut environment, u64::MAX, limit)
    }

    /// Puts code into memory.
    pub fn load(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes).expect("RAM");
    }

    /// Assembles the guest's code. Returns where its labels are.
    pub fn guest(&mut self, source: &str) -> std::collections::BTreeMap<String, u64> {
        let options = assembler::Options { origin: GUEST_CODE, bits: assembler::Bits::SixtyFour, ..Default::default() };
        let program = assembler::assemble(source, &options).unwrap_or_else(|errors| panic!("{errors:?}"));
        self.load(GUEST_CODE, &program.bytes);
        program.symbols
    }

    /// Adds controls to the secondary processor-based ones, and activates these.
    pub fn add_secondary(&mut self, controls: &[ControlBit]) {
        let bits = controls.iter().fold(0, |bits, control| bits | 1 << control.bit);
        let primary = self.read(F::PrimaryProcessorBasedControls);
        self.set(F::PrimaryProcessorBasedControls, primary | 1 << 31);
        let secondary = self.read(F::SecondaryProcessorBasedControls);
        self.set(F::SecondaryProcessorBasedControls, secondary | bits);
    }

    /// Puts the guest behind EPT that maps all of memory to itself: the first 2 MiB by pages of 4 KiB, the rest by pages of 2 MiB.
    pub fn enable_ept(&mut self, flags: u64) {
        let mut put = |at: u64, entry: u64| self.memory.write_u64(at, entry).expect("RAM");
        put(EPT, (EPT + 0x1007) | USER_EXECUTE);
        put(EPT + 0x1000, (EPT + 0x2007) | USER_EXECUTE);
        put(EPT + 0x2000, (EPT + 0x3007) | USER_EXECUTE);
        for page in 0..512 {
            put(EPT + 0x3000 + page * 8, page << 12 | 0x37 | USER_EXECUTE);
            if page > 0 {
                put(EPT + 0x2000 + page * 8, page << 21 | 0xb7 | USER_EXECUTE);
            }
        }
        self.add_secondary(&[SecondaryControls::ENABLE_EPT]);
        self.set(F::EptPointer, EPT | 0x1e | flags);
    }

    /// Changes the entry of EPT that maps a page of the first 2 MiB. Returns what it was.
    pub fn map(&mut self, page: u64, entry: u64) -> u64 {
        let at = EPT + 0x3000 + (page >> 12) * 8;
        let old = self.memory.read_u64(at).expect("RAM");
        self.memory.write_u64(at, entry).expect("RAM");
        self.with(|_, cpu| cpu.flush_tlb());
        old
    }

    /// Enters the guest and lets it run to its next exit to the host in Rust: the exit's reason.
    pub fn enter(&mut self, launch: bool) -> u64 {
        let outcome = self.with(|vmx, cpu| if launch { vmx.vmlaunch(cpu) } else { vmx.vmresume(cpu) });
        match outcome {
            Ok(EntryOutcome::Entered) => assert_eq!(self.run(10_000), RunExit::HostEntry),
            Ok(EntryOutcome::Exited(_)) => {}
            Err(fail) => panic!("{fail}: {:x?}", self.with(|vmx, cpu| vmx.explain(cpu))),
        }
        self.read(F::ExitReason)
    }

    /// VMREAD.
    pub fn read(&mut self, field: F) -> u64 {
        self.with(|vmx, cpu| read(vmx, cpu, field))
    }

    /// VMWRITE.
    pub fn set(&mut self, field: F, value: u64) {
        self.with(|vmx, cpu| set(vmx, cpu, field, value));
    }
}

/// Runs a story on a Skylake.
pub fn story(tell: impl FnOnce(&mut Vmx, &mut Cpu)) {
    Machine::new(&models::SKYLAKE_SERVER).with(tell);
}

fn fill(vmx: &mut Vmx, cpu: &mut Cpu) {
    vmx.write_host_state(cpu).expect("host state");
    let capabilities = vmx.capabilities().clone();
    let values = [
        (F::PinBasedControls, capabilities.pin_based.adjust(0)),
        (F::PrimaryProcessorBasedControls, capabilities.primary.adjust(1 << 7)),
        (F::PrimaryExitControls, capabilities.exit.adjust(1 << 9)),
        (F::EntryControls, capabilities.entry.adjust(1 << 9)),
    ];
    for (field, value) in values {
        vmx.vmwrite(cpu, field, value.into()).expect("control");
    }
    let rows = [
        (F::VmcsLinkPointer, u64::MAX),
        (F::GuestCr0, cpu.cr0.into_bits()),
        (F::GuestCr3, PAGE_TABLES),
        (F::GuestCr4, cpu.cr4.into_bits()),
        (F::GuestRip, GUEST_CODE),
        (F::GuestRsp, 0x20_0000),
        (F::GuestRflags, 0x202),
        (F::GuestDr7, 0x400),
        (F::GuestCsSelector, 8),
        (F::GuestSsSelector, 16),
        (F::GuestDsSelector, 16),
        (F::GuestEsSelector, 16),
        (F::GuestFsSelector, 16),
        (F::GuestGsSelector, 16),
        (F::GuestTrSelector, 24),
        (F::GuestCsAccessRights, 0xa09b),
        (F::GuestSsAccessRights, 0xc093),
        (F::GuestDsAccessRights, 0xc093),
        (F::GuestEsAccessRights, 0xc093),
        (F::GuestFsAccessRights, 0xc093),
        (F::GuestGsAccessRights, 0xc093),
        (F::GuestLdtrAccessRights, 0x1_0000),
        (F::GuestTrAccessRights, 0x8b),
        (F::GuestCsLimit, 0xffff_ffff),
        (F::GuestSsLimit, 0xffff_ffff),
        (F::GuestDsLimit, 0xffff_ffff),
        (F::GuestEsLimit, 0xffff_ffff),
        (F::GuestFsLimit, 0xffff_ffff),
        (F::GuestGsLimit, 0xffff_ffff),
        (F::GuestTrLimit, 0x67),
        (F::GuestGsBase, 0x7777_0000),
    ];
    for (field, value) in rows {
        vmx.vmwrite(cpu, field, value).expect("guest state");
    }
}

pub fn set(vmx: &mut Vmx, cpu: &mut Cpu, field: F, value: u64) {
    vmx.vmwrite(cpu, field, value).unwrap_or_else(|fail| panic!("VMWRITE {field}: {fail}"));
}

pub fn read(vmx: &mut Vmx, cpu: &mut Cpu, field: F) -> u64 {
    vmx.vmread(cpu, field).unwrap_or_else(|fail| panic!("VMREAD {field}: {fail}"))
}
