//! IN, OUT, INS and OUTS.
//!
//! What is modelled: SDM vol 1, chapter 19 "Input/Output": the privilege level for I/O and the I/O permission bitmap of the TSS, which come
//! before an intercept (SDM vol 3, 26.1.1 "Relative Priority of Faults and VM Exits"); then the intercept; then the access itself, at the
//! time when the processor reaches the device. A repeated INS or OUTS is one iteration at a time.

use super::strings::{Shape, repeats};
use super::virtual_8086::BITMAP_BASE;
use super::{Entry, Flow};
use crate::access::Privilege;
use crate::operand::mask;
use crate::state::Cpu;
use crate::trap::{Access, Exit, Intercept, Outcome, PortAccess, Trap};
use iced_x86::{Code, Instruction, OpKind};
use isa::register::{Gpr, Segment};
use isa::segment::system::{TSS_AVAILABLE, TSS_BUSY};

/// The function of an instruction, if it is one of these.
pub(super) fn find(instruction: &Instruction) -> Option<Entry> {
    Entry::plain(match instruction.code() {
        Code::In_AL_imm8 | Code::In_AX_imm8 | Code::In_EAX_imm8 | Code::In_AL_DX | Code::In_AX_DX | Code::In_EAX_DX => input,
        Code::Out_imm8_AL | Code::Out_imm8_AX | Code::Out_imm8_EAX | Code::Out_DX_AL | Code::Out_DX_AX | Code::Out_DX_EAX => output,
        Code::Insb_m8_DX | Code::Insw_m16_DX | Code::Insd_m32_DX => input_string,
        Code::Outsb_DX_m8 | Code::Outsw_DX_m16 | Code::Outsd_DX_m32 => output_string,
        _ => return None,
    })
}

/// #GP(0) unless the program may use `width` ports from `port` on.
fn check_permission(cpu: &mut Cpu, port: u16, width: u8) -> Outcome {
    if cpu.is_real() || (!cpu.is_v86() && cpu.cpl <= cpu.system_flags().iopl()) {
        return Ok(());
    }
    let tr = cpu.tr;
    let limit = u64::from(tr.limit);
    // A 16-bit TSS has no bitmap. SDM vol 1, 19.5.2 "I/O Permission Bit Map".
    if !tr.is_usable() || !matches!(tr.attributes.kind(), TSS_AVAILABLE | TSS_BUSY) || BITMAP_BASE + 1 > limit {
        return Err(Trap::GP0);
    }
    let bitmap = cpu.load_system(tr.base.wrapping_add(BITMAP_BASE), 2)?;
    let first = bitmap + u64::from(port / 8);
    // Two bytes are read, so that ports on both sides of a byte boundary are covered; both must lie inside the limit.
    if first + 1 > limit {
        return Err(Trap::GP0);
    }
    let bits = cpu.load_system(tr.base.wrapping_add(first), 2)?;
    if bits >> (port % 8) & mask(width.into()) != 0 { Err(Trap::GP0) } else { Ok(()) }
}

/// The exit, if this access has one.
fn check_intercept(cpu: &mut Cpu, access: PortAccess) -> Outcome {
    let intercepted = cpu.interception.has(Intercept::Ports)
        && cpu.with_extension(|extension, cpu| extension.intercepts_port(cpu, &access)) == Some(true);
    if intercepted { Err(Trap::Exit(Exit::Port(access))) } else { Ok(()) }
}

/// Reads a port: the device sees the time at which it is reached.
fn read(cpu: &mut Cpu, port: u16, width: u8) -> u64 {
    cpu.charge(cpu.model.costs.device_access.ticks());
    cpu.leave = true;
    let now = cpu.cycles();
    u64::from(cpu.environment().bus.port_read(port, width, now)) & mask(u32::from(width) * 8)
}

/// Writes a port.
fn write(cpu: &mut Cpu, port: u16, width: u8, value: u64) {
    cpu.charge(cpu.model.costs.device_access.ticks());
    cpu.leave = true;
    let now = cpu.cycles();
    let value = (value & mask(u32::from(width) * 8)) as u32;
    cpu.environment().bus.port_write(port, width, value, now);
}

/// IN and OUT: what they access, with `port` and `data` the numbers of their operands.
fn plain_access(cpu: &Cpu, instruction: &Instruction, port: u32, data: u32, input: bool) -> PortAccess {
    let immediate = instruction.op_kind(port) != OpKind::Register;
    PortAccess {
        port: if immediate { instruction.immediate(port) as u16 & 0xff } else { cpu.gpr(Gpr::Rdx) as u16 },
        width: instruction.op_register(data).size() as u8,
        input,
        string: false,
        repeat: false,
        immediate,
        segment: Segment::Ds,
        address_bits: cpu.code_bits() as u8,
        linear: 0,
        length: instruction.len() as u8,
    }
}

fn input(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let access = plain_access(cpu, instruction, 1, 0, true);
    check_permission(cpu, access.port, access.width)?;
    check_intercept(cpu, access)?;
    let value = read(cpu, access.port, access.width);
    cpu.write_register(instruction.op_register(0), value);
    Ok(Flow::Next)
}

fn output(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let access = plain_access(cpu, instruction, 0, 1, false);
    check_permission(cpu, access.port, access.width)?;
    check_intercept(cpu, access)?;
    let value = cpu.read_register(instruction.op_register(1));
    write(cpu, access.port, access.width, value);
    Ok(Flow::Next)
}

/// INS and OUTS: their shape and what they access. The linear address is that of the element, checked by nobody yet.
fn string_access(cpu: &Cpu, instruction: &Instruction, input: bool) -> (Shape, PortAccess) {
    let shape = Shape::of(instruction);
    let (segment, index) = if input { (Segment::Es, Gpr::Rdi) } else { (shape.source, Gpr::Rsi) };
    let base = if cpu.is_64bit() && !matches!(segment, Segment::Fs | Segment::Gs) { 0 } else { cpu.segment(segment).base };
    let linear = base.wrapping_add(shape.register(cpu, index));
    let access = PortAccess {
        port: cpu.gpr(Gpr::Rdx) as u16,
        width: shape.bytes,
        input,
        string: true,
        repeat: repeats(instruction),
        immediate: false,
        segment,
        address_bits: shape.address_bits as u8,
        linear: if cpu.is_64bit() { linear } else { linear & 0xffff_ffff },
        length: instruction.len() as u8,
    };
    (shape, access)
}

/// One iteration is done: counts it and says whether more follow.
fn iterated(cpu: &mut Cpu, shape: Shape, access: &PortAccess) -> Flow {
    if !access.repeat {
        return Flow::Next;
    }
    shape.count_down(cpu, 1);
    if shape.register(cpu, Gpr::Rcx) == 0 { Flow::Next } else { Flow::Again }
}

fn input_string(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (shape, access) = string_access(cpu, instruction, true);
    if access.repeat && shape.register(cpu, Gpr::Rcx) == 0 {
        return Ok(Flow::Next);
    }
    check_permission(cpu, access.port, access.width)?;
    check_intercept(cpu, access)?;
    let to = shape.destination_linear(cpu, Access::Write)?;
    // The device must not be read if the store would fault.
    let privilege = cpu.privilege();
    check_writable(cpu, to, shape.bytes, privilege)?;
    let value = read(cpu, access.port, access.width);
    cpu.store(to, shape.bytes, value)?;
    shape.advance(cpu, Gpr::Rdi, 1);
    Ok(iterated(cpu, shape, &access))
}

/// The faults that a store would have.
fn check_writable(cpu: &mut Cpu, linear: u64, bytes: u8, privilege: Privilege) -> Outcome {
    cpu.check_linear(linear, bytes, privilege)?;
    cpu.translate(linear, Access::Write, privilege)?;
    let last = linear.wrapping_add(u64::from(bytes) - 1);
    if (linear ^ last) & !0xfff != 0 {
        let last = if cpu.long_mode() { last } else { last & 0xffff_ffff };
        cpu.translate(last & !0xfff, Access::Write, privilege)?;
    }
    Ok(())
}

fn output_string(cpu: &mut Cpu, instruction: &Instruction) -> Outcome<Flow> {
    let (shape, access) = string_access(cpu, instruction, false);
    if access.repeat && shape.register(cpu, Gpr::Rcx) == 0 {
        return Ok(Flow::Next);
    }
    check_permission(cpu, access.port, access.width)?;
    check_intercept(cpu, access)?;
    let from = shape.source_linear(cpu)?;
    let value = cpu.load(from, shape.bytes)?;
    write(cpu, access.port, access.width, value);
    shape.advance(cpu, Gpr::Rsi, 1);
    Ok(iterated(cpu, shape, &access))
}
