//! A processor with SVM, some memory and nothing else.
#![allow(dead_code, reason = "each test file uses a part of it")]

use cpu::block::CodeCache;
use cpu::bus::{Environment, NoDevices};
use cpu::state::Cpu;
use isa::control::{Cr0, Cr4, Efer};
use isa::register::Segment;
use isa::segment::{Attributes, SegmentRegister, Selector};
use isa::svm::{ExitCode, Intercepts, Vmcb};
use memory::Memory;
use svm::Svm;
use zerocopy::{FromBytes, IntoBytes};

/// Where the tests keep things.
pub const VMCB: u64 = 0x1_0000;
pub const IOPM: u64 = 0x1_4000;
pub const MSRPM: u64 = 0x1_8000;
pub const HOST_CODE: u64 = 0x2_0000;
pub const GUEST_CODE: u64 = 0x3_0000;

/// The machine.
pub struct Machine {
    pub cpu: Box<Cpu>,
    pub memory: Memory,
    pub code: CodeCache,
}

impl Machine {
    /// A Zen 3 in 32-bit protected mode without paging, SVM enabled, flat segments, at [`HOST_CODE`].
    pub fn new() -> Self {
        Self::of(&models::ZEN3)
    }

    pub fn of(model: &'static models::CpuModel) -> Self {
        let svm = Svm::new(model.svm.expect("the model has SVM"));
        let mut cpu = Cpu::new(model, 0, 1, Some(Box::new(svm)));
        cpu.cr0 = Cr0::from_bits(0x11);
        cpu.cr4 = Cr4::new();
        cpu.efer = Efer::new().with_svme(true);
        for segment in Segment::ALL {
            cpu.segments[*segment as usize] = flat(if *segment == Segment::Cs { 0xc09b } else { 0xc093 });
        }
        cpu.rip = HOST_CODE;
        cpu.context_changed();
        Self { cpu, memory: Memory::new(1 << 20), code: CodeCache::new() }
    }

    /// Runs a closure with silicon and processor in their environment.
    pub fn with<T>(&mut self, call: impl FnOnce(&mut Svm, &mut Cpu) -> T) -> T {
        let mut devices = NoDevices;
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut devices };
        self.cpu.with_environment(&mut environment, |cpu| {
            cpu.with_extension(|extension, cpu| {
                let svm = extension.as_any().downcast_mut::<Svm>().expect("the extension is SVM");
                call(svm, cpu)
            })
            .expect("there is an extension")
        })
    }

    /// Runs until `instructions` more are begun, or something else ends the run.
    pub fn run(&mut self, instructions: u64) -> cpu::RunExit {
        let mut devices = NoDevices;
        let mut environment = Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut devices };
        let limit = self.cpu.instructions() + instructions;
        self.cpu.run(&mut environment, u64::MAX / 2, limit)
    }

    pub fn vmcb(&self) -> Vmcb {
        let mut bytes = vec![0; isa::svm::vmcb::VMCB_SIZE];
        self.memory.read(VMCB, &mut bytes).unwrap();
        Vmcb::read_from_bytes(&bytes).unwrap()
    }

    pub fn set_vmcb(&mut self, vmcb: &Vmcb) {
        self.memory.write(VMCB, vmcb.as_bytes()).unwrap();
    }
}

/// A flat segment with selector 8.
pub fn flat(attributes: u32) -> SegmentRegister {
    SegmentRegister { selector: Selector::from_bits(8), base: 0, limit: u32::MAX, attributes: Attributes::from_bits(attributes) }
}

/// A guest in 32-bit protected mode without paging at [`GUEST_CODE`], VMRUN intercepted.
pub fn guest() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    vmcb.control.intercepts = Intercepts::default().with(ExitCode::VMRUN);
    vmcb.control.iopm_base_pa = IOPM;
    vmcb.control.msrpm_base_pa = MSRPM;
    vmcb.control.guest_asid = 1;
    let save = &mut vmcb.save;
    save.efer = 0x1000;
    save.cr0 = 0x11;
    save.dr6 = 0xffff_0ff0;
    save.dr7 = 0x400;
    save.rflags = 2;
    save.rip = GUEST_CODE;
    save.rsp = 0x8000;
    save.rax = 0x1234;
    save.g_pat = 0x0007_0406_0007_0406;
    save.cs = flat(0xc09b).into();
    for segment in [&mut save.es, &mut save.ss, &mut save.ds] {
        *segment = flat(0xc093).into();
    }
    vmcb
}
