//! Runs the same instructions on the core: a flat user program in 64-bit mode. An extension that intercepts every exception tells which
//! one came; a store to a device behind the instructions ends the run.

use crate::state::{BASE, DATA, DATA_BYTES, Fault, FaultKind, Fpu, Outcome, Registers, SLOT, TOTAL_BYTES};
use cpu::apic::IcrMessage;
use cpu::block::CodeCache;
use cpu::bus::{Bus, Environment};
use cpu::extension::{AfterExit, Completion, Extension, NestedAccess, NestedPage};
use cpu::state::FpuState;
use cpu::trap::{self, ControlAccess, Exit, NestedFault, PortAccess, VendorInstruction};
use cpu::{Cpu, RunExit};
use isa::control::{Cr0, Cr4, Efer};
use isa::exception::Vector;
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector};
use memory::Memory;

/// Where the store goes that ends a run: in the hole where devices are.
const DEVICE: u64 = 0xd000_0000;

/// Notes that the end was reached.
#[derive(Default)]
struct End {
    reached: bool,
}

impl Bus for End {
    fn port_read(&mut self, _: u16, _: u8, _: u64) -> u32 {
        0
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32, _: u64) {}
    fn memory_read(&mut self, _: u64, _: u8, _: u64) -> u64 {
        0
    }
    fn memory_write(&mut self, physical: u64, _: u8, _: u64, _: u64) {
        self.reached |= physical == DEVICE;
    }
    fn send(&mut self, _: u32, _: IcrMessage, _: u64) {}
    fn end_of_interrupt(&mut self, _: u8) {}
    fn acknowledge(&mut self) -> u8 {
        0
    }
    fn attention(&self) -> bool {
        self.reached
    }
}

/// Keeps the exception that left the program.
#[derive(Clone, Debug, Default)]
struct Witness(Option<Exit>);

impl Extension for Witness {
    fn execute(&mut self, _: &mut Cpu, _: &VendorInstruction) -> trap::Outcome<Completion> {
        Err(trap::Trap::UD)
    }
    fn exit(&mut self, _: &mut Cpu, exit: Exit) -> AfterExit {
        self.0 = Some(exit);
        AfterExit::RustHost
    }
    fn read_msr(&mut self, _: &Cpu, _: u32) -> Option<trap::Outcome<u64>> {
        None
    }
    fn write_msr(&mut self, _: &mut Cpu, _: u32, _: u64) -> Option<trap::Outcome> {
        None
    }
    fn intercepts_port(&mut self, _: &Cpu, _: &PortAccess) -> bool {
        false
    }
    fn intercepts_msr(&mut self, _: &Cpu, _: u32, _: bool) -> bool {
        false
    }
    fn control_access(&mut self, _: &Cpu, access: &ControlAccess) -> Result<u64, cpu::extension::Exits> {
        Ok(access.value)
    }
    fn translate(&mut self, _: &mut Cpu, _: u64, _: NestedAccess) -> Result<NestedPage, NestedFault> {
        unreachable!("nested paging is off")
    }
    fn allows_control(&self, _: &Cpu, _: u8, _: u64) -> bool {
        true
    }
    fn blocks_init(&self, _: &Cpu) -> bool {
        false
    }
    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// The simulated machine.
pub struct Simulated {
    cpu: Box<Cpu>,
    memory: Memory,
    code: CodeCache,
}

fn flat(selector: u16, attributes: u16) -> SegmentRegister {
    SegmentRegister {
        selector: Selector::from_bits(selector),
        base: 0,
        limit: u32::MAX,
        attributes: Attributes::from_bits(attributes.into()),
    }
}

/// The core keeps registers by physical number.
fn from_image(fpu: &Fpu) -> FpuState {
    let mut registers = fpu.stack;
    registers.rotate_right(usize::from(fpu.status >> 11 & 7));
    let (control, status, tag, opcode) = (fpu.control, fpu.status, fpu.tag, fpu.opcode);
    FpuState { control, status, tag, opcode, instruction: fpu.instruction, data: fpu.data, registers, ..FpuState::initial() }
}

fn to_image(fpu: &FpuState) -> Fpu {
    let mut stack = fpu.registers;
    stack.rotate_left(fpu.top());
    let (control, status, tag, opcode) = (fpu.control, fpu.status, fpu.tag, fpu.opcode);
    Fpu { control, status, tag, opcode, instruction: fpu.instruction, data: fpu.data, stack }
}

impl Simulated {
    pub fn new() -> Self {
        let model = models::find("skylake-server").expect("the model exists");
        let mut cpu = Cpu::new(model, 0, 1, Some(Box::new(Witness::default())));
        cpu.cr0 = Cr0::from_bits(0x31);
        cpu.cr4 = Cr4::new().with_pae(true).with_osfxsr(true).with_osxmmexcpt(true);
        cpu.efer = Efer::new().with_lme(true).with_lma(true).with_sce(true).with_nxe(true);
        cpu.segments[Segment::Cs.number()] = flat(0x33, 0xa0fb);
        for segment in [Segment::Ds, Segment::Es, Segment::Ss] {
            cpu.segments[segment.number()] = flat(0x2b, 0xc0f3);
        }
        cpu.cpl = 3;
        cpu.guest_mode = true;
        cpu.rust_host = true;
        cpu.interception.exceptions = u32::MAX;
        cpu.flush_tlb();
        Self { cpu, memory: Memory::new(BASE + TOTAL_BYTES as u64), code: CodeCache::new() }
    }

    /// Executes instructions; `Err` with the reason if the core says that it does not model something.
    pub fn execute(&mut self, bytes: &[u8], registers: &Registers, data: &[u8]) -> Result<Outcome, String> {
        let mut all = bytes.to_vec();
        // MOV [DEVICE], AL with a 64-bit offset.
        all.push(0xa2);
        all.extend_from_slice(&DEVICE.to_le_bytes());
        self.memory.write(SLOT, &all).expect("the slot is RAM");
        self.memory.write(DATA, data).expect("the data are in RAM");
        let cpu = &mut *self.cpu;
        cpu.rip = SLOT;
        cpu.regs[..16].copy_from_slice(&registers.gpr);
        cpu.set_rflags(Rflags::from_bits(registers.rflags));
        cpu.xmm = registers.xmm;
        cpu.mxcsr = registers.mxcsr;
        cpu.fpu = from_image(&registers.fpu);
        cpu.context_changed();
        let mut bus = End::default();
        let until = cpu.now() + 1_000_000;
        let exit = cpu.run(&mut Environment { memory: &mut self.memory, code: &mut self.code, bus: &mut bus }, until, u64::MAX);
        let fault = match exit {
            RunExit::Attention => None,
            RunExit::HostEntry => {
                let witness = cpu.with_extension(|extension, _| extension.as_any().downcast_mut::<Witness>().map(std::mem::take));
                let Some(Some(Witness(Some(Exit::Exception(exception))))) = witness else { return Err(format!("the exit {witness:?}")) };
                let kind = match exception.vector {
                    Vector::DivideError | Vector::SimdFloatingPoint | Vector::MathFault => FaultKind::Arithmetic,
                    Vector::InvalidOpcode => FaultKind::Undefined,
                    _ => FaultKind::Memory,
                };
                Some(Fault { kind, offset: cpu.rip.wrapping_sub(SLOT) })
            }
            RunExit::NotModelled(what) => return Err(what.to_string()),
            other => return Err(format!("the run ended with {other:?}")),
        };
        let mut memory = vec![0; DATA_BYTES];
        self.memory.read(DATA, &mut memory).expect("the data are in RAM");
        let registers = Registers {
            gpr: std::array::from_fn(|number| cpu.regs[number]),
            rflags: cpu.rflags().into_bits(),
            mxcsr: cpu.mxcsr,
            xmm: cpu.xmm,
            fpu: to_image(&cpu.fpu),
        };
        Ok(Outcome { registers, memory, fault })
    }
}
