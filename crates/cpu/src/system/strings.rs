//! MOVS, STOS, LODS, SCAS and CMPS, alone and repeated.
//!
//! What is modelled: SDM vol 1, 7.3.9 "String Operations" and vol 2, "REP/REPE/REPZ/REPNE/REPNZ": all widths and address sizes, segment
//! overrides, DF, faults in the middle with the registers of the last complete iteration. A repeated instruction goes on until the time
//! slice ends and is then begun again at the same RIP, so interrupts are recognised between iterations; with RFLAGS.TF or the monitor trap
//! flag each iteration is an instruction of its own. Elements that lie in pages whose host addresses are known are done in bulk, with the
//! exact result of doing one after the other.
//!
//! What is not: the faster rate of large aligned moves; every element costs the same (see the row `string_element`).

use super::{Entry, Flow};
use crate::direct::set_flags;
use crate::interpretation::FlagRule;
use crate::operand::{mask, segment_of};
use crate::state::Cpu;
use crate::trap::{Access, Intercept, Outcome};
use iced_x86::{Code, Instruction, OpKind};
use isa::register::{Gpr, Segment};

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    Entry::plain(match instruction.code() {
        Code::Movsb_m8_m8 | Code::Movsw_m16_m16 | Code::Movsd_m32_m32 | Code::Movsq_m64_m64 => movs,
        Code::Stosb_m8_AL | Code::Stosw_m16_AX | Code::Stosd_m32_EAX | Code::Stosq_m64_RAX => stos,
        Code::Lodsb_AL_m8 | Code::Lodsw_AX_m16 | Code::Lodsd_EAX_m32 | Code::Lodsq_RAX_m64 => lods,
        Code::Scasb_AL_m8 | Code::Scasw_AX_m16 | Code::Scasd_EAX_m32 | Code::Scasq_RAX_m64 => scas,
        Code::Cmpsb_m8_m8 | Code::Cmpsw_m16_m16 | Code::Cmpsd_m32_m32 | Code::Cmpsq_m64_m64 => cmps,
        _ => return None,
    })
}

/// What is common to all elements of one string instruction.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Bytes of an element.
    pub bytes: u8,
    /// 16, 32 or 64: how much of SI, DI and CX counts.
    pub address_bits: u32,
    /// The segment of the source.
    pub source: Segment,
}

impl Shape {
    /// Reads it off an instruction.
    pub(super) fn of(instruction: &Instruction) -> Self {
        let kinds = (0..instruction.op_count()).map(|operand| instruction.op_kind(operand));
        let address_bits = kinds
            .filter_map(|kind| match kind {
                OpKind::MemorySegSI | OpKind::MemoryESDI => Some(16),
                OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(32),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(64),
                _ => None,
            })
            .next()
            .unwrap_or(64);
        Self {
            bytes: instruction.memory_size().size() as u8,
            address_bits,
            source: segment_of(instruction.memory_segment()).unwrap_or(Segment::Ds),
        }
    }

    /// The part of a register that the address size leaves.
    pub(super) fn register(self, cpu: &Cpu, register: Gpr) -> u64 {
        cpu.gpr(register) & mask(self.address_bits)
    }

    /// Sets that part: 32 bits clear the upper half, 16 keep the rest.
    fn set_register(self, cpu: &mut Cpu, register: Gpr, value: u64) {
        let value = match self.address_bits {
            16 => cpu.gpr(register) & !0xffff | value & 0xffff,
            bits => value & mask(bits),
        };
        cpu.set_gpr(register, value);
    }

    /// Linear address of the source element.
    pub(super) fn source_linear(self, cpu: &Cpu) -> Outcome<u64> {
        cpu.segment_address(self.source, self.register(cpu, Gpr::Rsi), u64::from(self.bytes), Access::Read)
    }

    /// Linear address of the destination element, which no prefix moves out of ES.
    pub(super) fn destination_linear(self, cpu: &Cpu, access: Access) -> Outcome<u64> {
        cpu.segment_address(Segment::Es, self.register(cpu, Gpr::Rdi), u64::from(self.bytes), access)
    }

    /// Moves an index register behind `elements` elements in the direction of DF.
    pub(super) fn advance(self, cpu: &mut Cpu, register: Gpr, elements: u64) {
        let distance = elements.wrapping_mul(u64::from(self.bytes));
        let old = self.register(cpu, register);
        let new = if cpu.system_flags().df() { old.wrapping_sub(distance) } else { old.wrapping_add(distance) };
        self.set_register(cpu, register, new);
    }

    /// Counts iterations down in CX.
    pub(super) fn count_down(self, cpu: &mut Cpu, elements: u64) {
        let left = self.register(cpu, Gpr::Rcx).wrapping_sub(elements);
        self.set_register(cpu, Gpr::Rcx, left);
    }

    /// How many elements from an offset on lie in the same page and do not run over the end of the address size.
    fn run_length(self, cpu: &Cpu, register: Gpr, linear: u64) -> u64 {
        let room = if self.address_bits == 64 { u64::MAX } else { (1 << self.address_bits) - self.register(cpu, register) };
        room.min(4096 - (linear & 0xfff)) / u64::from(self.bytes)
    }
}

/// Whether an instruction has a prefix that repeats it. F2 repeats the instructions that compare nothing, too, as all processors do.
pub(super) fn repeats(instruction: &Instruction) -> bool {
    instruction.has_rep_prefix() || instruction.has_repne_prefix()
}

/// Whether every iteration must end like an instruction.
pub(super) fn one_by_one(cpu: &Cpu) -> bool {
    cpu.stepping || cpu.system_flags().tf() || cpu.interception.has(Intercept::MonitorTrap)
}

/// Executes an instruction whose element is `element`; `bulk` may do several at once and says how many it did; `ends` says after each
/// element whether a repetition is over. A repetition of no element still clears the upper half of RCX, and of the registers in `always`, if
/// the address size is 32 bits: no manual says so, but Intel processors do it.
fn execute(
    cpu: &mut Cpu,
    instruction: &Instruction,
    always: &[Gpr],
    element: impl Fn(&mut Cpu, Shape) -> Outcome,
    bulk: impl Fn(&mut Cpu, Shape, u64) -> Option<u64>,
    ends: impl Fn(&Cpu) -> bool,
) -> Outcome<Flow> {
    let shape = Shape::of(instruction);
    let cost = cpu.model.costs.string_element.ticks();
    if !repeats(instruction) {
        element(cpu, shape)?;
        cpu.charge(cost);
        return Ok(Flow::Next);
    }
    let single = one_by_one(cpu);
    loop {
        let left = shape.register(cpu, Gpr::Rcx);
        if left == 0 {
            shape.count_down(cpu, 0);
            always.iter().for_each(|register| shape.advance(cpu, *register, 0));
            return Ok(Flow::Next);
        }
        // As many elements as it takes to use up the budget, and not one more: where an iteration ends, an interrupt may be recognised.
        let budget = u64::try_from(cpu.budget).unwrap_or(0);
        let affordable = if cost == 0 { left } else { budget.div_ceil(cost).max(1) };
        let wanted = if single { 1 } else { left.min(affordable) };
        // Whatever may fault is done as a single element, in the order that the faults have.
        let several = if wanted > 1 { bulk(cpu, shape, wanted) } else { None };
        let done = match several {
            Some(elements) => elements,
            None => {
                element(cpu, shape)?;
                1
            }
        };
        shape.count_down(cpu, done);
        cpu.charge(cost.saturating_mul(done));
        if done == left || ends(cpu) {
            return Ok(Flow::Next);
        }
        if single || cpu.budget <= 0 || cpu.leave {
            return Ok(Flow::Again);
        }
    }
}

/// For instructions without a faster way.
fn no_bulk(_: &mut Cpu, _: Shape, _: u64) -> Option<u64> {
    None
}

fn movs(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    execute(
        cpu,
        instruction,
        &[Gpr::Rsi, Gpr::Rdi],
        |cpu, shape| {
            let from = shape.source_linear(cpu)?;
            let value = cpu.load(from, shape.bytes)?;
            let to = shape.destination_linear(cpu, Access::Write)?;
            cpu.store(to, shape.bytes, value)?;
            shape.advance(cpu, Gpr::Rsi, 1);
            shape.advance(cpu, Gpr::Rdi, 1);
            Ok(())
        },
        |cpu, shape, wanted| {
            if cpu.system_flags().df() {
                return None;
            }
            let (from, to) = (shape.source_linear(cpu).ok()?, shape.destination_linear(cpu, Access::Write).ok()?);
            let elements = wanted.min(shape.run_length(cpu, Gpr::Rsi, from)).min(shape.run_length(cpu, Gpr::Rdi, to));
            if !within_limits(cpu, shape, elements, true) || !cpu.copy_elements(from, to, shape.bytes, elements) {
                return None;
            }
            shape.advance(cpu, Gpr::Rsi, elements);
            shape.advance(cpu, Gpr::Rdi, elements);
            Some(elements)
        },
        |_| false,
    )
}

/// Whether the segments' limits allow all of a run of elements.
fn within_limits(cpu: &Cpu, shape: Shape, elements: u64, with_source: bool) -> bool {
    let length = elements * u64::from(shape.bytes);
    elements > 0
        && (cpu.is_64bit()
            || (cpu.segment_address(Segment::Es, shape.register(cpu, Gpr::Rdi), length, Access::Write).is_ok()
                && (!with_source || cpu.segment_address(shape.source, shape.register(cpu, Gpr::Rsi), length, Access::Read).is_ok())))
}

fn stos(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    execute(
        cpu,
        instruction,
        &[Gpr::Rdi],
        |cpu, shape| {
            let to = shape.destination_linear(cpu, Access::Write)?;
            cpu.store(to, shape.bytes, cpu.gpr(Gpr::Rax) & mask(u32::from(shape.bytes) * 8))?;
            shape.advance(cpu, Gpr::Rdi, 1);
            Ok(())
        },
        |cpu, shape, wanted| {
            if cpu.system_flags().df() {
                return None;
            }
            let to = shape.destination_linear(cpu, Access::Write).ok()?;
            let elements = wanted.min(shape.run_length(cpu, Gpr::Rdi, to));
            let value = cpu.gpr(Gpr::Rax);
            if !within_limits(cpu, shape, elements, false) || !cpu.fill_elements(to, shape.bytes, elements, value) {
                return None;
            }
            shape.advance(cpu, Gpr::Rdi, elements);
            Some(elements)
        },
        |_| false,
    )
}

fn lods(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    execute(
        cpu,
        instruction,
        &[],
        |cpu, shape| {
            let from = shape.source_linear(cpu)?;
            let value = cpu.load(from, shape.bytes)?;
            let rax = cpu.gpr(Gpr::Rax);
            let rax = match shape.bytes {
                4 => value,
                bytes => rax & !mask(u32::from(bytes) * 8) | value,
            };
            cpu.set_gpr(Gpr::Rax, rax);
            shape.advance(cpu, Gpr::Rsi, 1);
            Ok(())
        },
        no_bulk,
        |_| false,
    )
}

/// The status flags of `a - b`, as CMP sets them.
fn compare(cpu: &mut Cpu, bytes: u8, a: u64, b: u64) {
    let width = u32::from(bytes) * 8;
    let result = a.wrapping_sub(b) & mask(width);
    set_flags(cpu, width, FlagRule::Subtract, a, b, result);
}

/// Whether REPE or REPNE ends on the present ZF.
fn decided(instruction: &Instruction) -> impl Fn(&Cpu) -> bool + use<> {
    let while_equal = !instruction.has_repne_prefix();
    move |cpu| (cpu.flag_result == 0) != while_equal
}

/// Bytes that a comparison looks at in one go.
const CHUNK: usize = 256;

/// The elements from a register's address on, as many as `wanted` and a chunk and the page allow; `None` if they must be done one by one.
fn peek(cpu: &Cpu, shape: Shape, register: Gpr, linear: u64, wanted: u64, into: &mut [u8; CHUNK]) -> Option<u64> {
    let bytes = u64::from(shape.bytes);
    let elements = wanted.min(shape.run_length(cpu, register, linear)).min(CHUNK as u64 / bytes);
    let length = (elements * bytes) as usize;
    let legal = length > 0
        && !cpu.system_flags().df()
        && (cpu.is_64bit() || {
            let segment = if register == Gpr::Rdi { Segment::Es } else { shape.source };
            cpu.segment_address(segment, shape.register(cpu, register), length as u64, Access::Read).is_ok()
        });
    (legal && cpu.peek_elements(linear, &mut into[..length])).then_some(elements)
}

/// The element at a place of a chunk.
fn element_at(chunk: &[u8; CHUNK], shape: Shape, at: u64) -> u64 {
    let bytes = usize::from(shape.bytes);
    let mut value = [0; 8];
    value[..bytes].copy_from_slice(&chunk[at as usize * bytes..][..bytes]);
    u64::from_le_bytes(value)
}

fn scas(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let while_equal = !instruction.has_repne_prefix();
    execute(
        cpu,
        instruction,
        &[],
        |cpu, shape| {
            let at = shape.destination_linear(cpu, Access::Read)?;
            let value = cpu.load(at, shape.bytes)?;
            let accumulator = cpu.gpr(Gpr::Rax) & mask(u32::from(shape.bytes) * 8);
            compare(cpu, shape.bytes, accumulator, value);
            shape.advance(cpu, Gpr::Rdi, 1);
            Ok(())
        },
        |cpu, shape, wanted| {
            let at = shape.destination_linear(cpu, Access::Read).ok()?;
            let mut chunk = [0; CHUNK];
            let elements = peek(cpu, shape, Gpr::Rdi, at, wanted, &mut chunk)?;
            let accumulator = cpu.gpr(Gpr::Rax) & mask(u32::from(shape.bytes) * 8);
            let last = (0..elements).find(|at| (element_at(&chunk, shape, *at) == accumulator) != while_equal).unwrap_or(elements - 1);
            compare(cpu, shape.bytes, accumulator, element_at(&chunk, shape, last));
            shape.advance(cpu, Gpr::Rdi, last + 1);
            Some(last + 1)
        },
        decided(instruction),
    )
}

fn cmps(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let while_equal = !instruction.has_repne_prefix();
    execute(
        cpu,
        instruction,
        &[],
        |cpu, shape| {
            let first = shape.source_linear(cpu)?;
            let a = cpu.load(first, shape.bytes)?;
            let second = shape.destination_linear(cpu, Access::Read)?;
            let b = cpu.load(second, shape.bytes)?;
            compare(cpu, shape.bytes, a, b);
            shape.advance(cpu, Gpr::Rsi, 1);
            shape.advance(cpu, Gpr::Rdi, 1);
            Ok(())
        },
        |cpu, shape, wanted| {
            let (first, second) = (shape.source_linear(cpu).ok()?, shape.destination_linear(cpu, Access::Read).ok()?);
            let (mut a, mut b) = ([0; CHUNK], [0; CHUNK]);
            let elements = peek(cpu, shape, Gpr::Rsi, first, wanted, &mut a)?;
            let elements = peek(cpu, shape, Gpr::Rdi, second, elements, &mut b)?;
            let [a, b] = [a, b].map(|chunk| move |at| element_at(&chunk, shape, at));
            let last = (0..elements).find(|at| (a(*at) == b(*at)) != while_equal).unwrap_or(elements - 1);
            compare(cpu, shape.bytes, a(last), b(last));
            shape.advance(cpu, Gpr::Rsi, last + 1);
            shape.advance(cpu, Gpr::Rdi, last + 1);
            Some(last + 1)
        },
        decided(instruction),
    )
}
