//! #VMEXIT: says why, saves the guest into the VMCB, loads the host.
//!
//! What is modelled: APM vol 2, 15.6 "#VMEXIT"; 15.7 "Intercept Operation" with 15.7.1 "State Saved on Exit" (next RIP) and 15.7.2 "Intercepts
//! During IDT Interrupt Delivery"; 15.9 to 15.14 for EXITINFO1 and EXITINFO2; 15.33 "Decode Assists"; appendix C "SVM Intercept Exit Codes".
//!
//! Decisions of ours: what the manual leaves undefined is zero. Next RIP is zero where an exit has no instruction. The bytes of the
//! instruction at a page fault or nested page fault are those that the core had fetched for it.

use std::ops::Range;

use cpu::extension::{AfterExit, Interception};
use cpu::state::{Activity, Cpu, Shadow, TscScale};
use cpu::trap::{Access, Event, EventKind, Exception, Exit, Intercept, NestedFault, PortAccess, TaskSwitchSource};
use isa::control::{Cr0, Cr4, Efer};
use isa::debug::{Dr6, Dr7};
use isa::exception::Vector;
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::svm::{
    CrInfo, DrInfo, EventInformation, EventType, ExitCode, IoInfo, NestedPageFaultInfo, TaskSwitchInfo, control::InterruptState, exit_info,
};
use zerocopy::IntoBytes;

use crate::entry::{SWITCHED, read_pdptes};
use crate::instructions::SAVE_AREA;
use crate::npt::NestedRoot;
use crate::{Svm, intercept};

/// Ranges of an area of the VMCB as a table, and a function that takes each in turn with lengths that the compiler knows.
macro_rules! written {
    ($(#[$doc:meta])* $table:ident $each:ident { $($range:expr),* $(,)? }) => {
        $(#[$doc])*
        const $table: &[Range<usize>] = &[$($range),*];

        #[inline(always)]
        fn $each(mut write: impl FnMut(Range<usize>)) {
            $(write($range);)*
        }
    };
}

written! {
    /// What #VMEXIT writes of the control area; EXITCODE and its neighbours are one range.
    CONTROL_WRITTEN each_of_control { 0x060..0x090, 0x0a8..0x0b0, 0x0c8..0x0e0 }
}
written! {
    /// What #VMEXIT writes of the state save area.
    SAVE_WRITTEN each_of_save {
        0x000..0x040,
        0x060..0x070,
        0x080..0x090,
        0x0cb..0x0cc,
        0x0d0..0x0d8,
        0x148..0x180,
        0x1d8..0x1e0,
        0x1f8..0x200,
        0x240..0x248,
    }
}
/// What #VMEXIT writes of the state save area with nested paging only: G_PAT.
const NESTED_WRITTEN: Range<usize> = 0x268..0x270;

/// What an exit says: EXITCODE, EXITINFO1, EXITINFO2, and where the next instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    code: ExitCode,
    info_1: u64,
    info_2: u64,
    /// Length of the instruction, for exits that save next RIP.
    length: Option<u8>,
    /// Whether decode assists save the instruction's bytes.
    bytes: bool,
}

impl Report {
    const fn plain(code: ExitCode) -> Self {
        Self { code, info_1: 0, info_2: 0, length: None, bytes: false }
    }

    const fn instruction(code: ExitCode, length: u8) -> Self {
        Self { length: Some(length), ..Self::plain(code) }
    }
}

impl Svm {
    /// Makes the #VMEXIT of an intercepted event.
    pub(crate) fn leave(&mut self, cpu: &mut Cpu, exit: Exit) -> AfterExit {
        let Some(report) = self.report(cpu, exit) else {
            // The core offers only what was asked of it; an event that SVM has no exit for ends the processor, loudly.
            return AfterExit::Shutdown;
        };
        self.exits += 1;
        cpu.charge(cpu.model.costs.vm_exit.ticks());
        if let Exit::Exception(Exception { vector: Vector::Debug, debug, .. }) = exit {
            // APM 15.12.2 "#DB (Debug)": the host finds in DR6 what the guest's handler would have found.
            cpu.dr6 = Dr6::from_bits(cpu.dr6.into_bits() & !0xf | debug);
        }
        self.save_control(cpu, report);
        self.save_guest(cpu);
        self.contexts.leave_guest(cpu, self.nested);
        self.store(cpu);
        self.save_last_branches(cpu);
        self.kept = Some(self.vmcb);
        self.end_guest(cpu);
        if cpu.rust_host {
            cpu.context_changed();
            AfterExit::RustHost
        } else {
            // APM tables 15-12 "INIT Handling", 15-13 "NMI Handling" and 15-14 "SMI Handling in Different Operating Modes": what was intercepted is
            // still pending, the host takes it when it sets GIF. A host in Rust has seen it.
            cpu.nmi_pending |= exit == Exit::Nmi;
            cpu.init_pending |= exit == Exit::Init;
            cpu.smi_pending |= exit == Exit::Smi;
            if self.load_host(cpu) { AfterExit::MachineCode } else { AfterExit::Shutdown }
        }
    }

    /// EXITCODE and what goes with it; nothing for an event that SVM does not know.
    fn report(&self, cpu: &mut Cpu, exit: Exit) -> Option<Report> {
        let assists = self.capabilities.features.decode_assists();
        Some(match exit {
            // The instruction is only what the processor froze in front of.
            Exit::Instruction { intercept: Intercept::FerrFreeze, .. } => Report::plain(ExitCode::FERR_FREEZE),
            Exit::Instruction { intercept, length } => Report::instruction(intercept::exit_code(intercept)?, length),
            Exit::Operand { intercept, instruction } => {
                let mut report = Report::instruction(intercept::exit_code(intercept)?, instruction.length);
                if assists && let (Intercept::Invlpg, cpu::trap::Operand::Memory(memory)) = (intercept, instruction.operand) {
                    let ignores_base = cpu.is_64bit() && !matches!(memory.segment, Segment::Fs | Segment::Gs);
                    let base = if ignores_base { 0 } else { cpu.segment(memory.segment).base };
                    report.info_1 = base.wrapping_add(memory.offset);
                }
                report
            }
            Exit::Exception(exception) => self.exception(cpu, exception),
            Exit::SoftwareInterrupt { vector, length } => {
                // INT1 comes this way, too; INT 1 is longer and needs the other intercept.
                let code = if (vector, length) == (1, 1) { ExitCode::ICEBP } else { ExitCode::SWINT };
                let vector = if assists && code == ExitCode::SWINT { u64::from(vector) } else { 0 };
                Report { info_1: vector, ..Report::instruction(code, length) }
            }
            Exit::ExternalInterrupt { .. } => Report::plain(ExitCode::INTR),
            Exit::Nmi => Report::plain(ExitCode::NMI),
            // APM 15.13.3 "SMI Intercept": bit 0 of EXITINFO1 is one for an SMI from outside, and there are no others.
            Exit::Smi => Report { info_1: 1, ..Report::plain(ExitCode::SMI) },
            Exit::Init => Report::plain(ExitCode::INIT),
            Exit::InterruptWindow => Report::plain(ExitCode::VINTR),
            Exit::TripleFault => Report::plain(ExitCode::SHUTDOWN),
            Exit::Port(access) => port(cpu, &access, assists),
            Exit::Msr { write, length, .. } => Report {
                info_1: if write { exit_info::MSR_WRITE } else { exit_info::MSR_READ },
                ..Report::instruction(ExitCode::MSR, length)
            },
            Exit::Control(access) => {
                let code = intercept::control_access(&self.control.intercepts, cpu.cr0, &access)?;
                let mov = matches!(access.kind, cpu::trap::ControlAccessKind::MovTo | cpu::trap::ControlAccessKind::MovFrom);
                let info = CrInfo::new().with_mov(mov).with_register(if mov { access.gpr & 15 } else { 0 });
                Report { info_1: if assists { info.into_bits() } else { 0 }, ..Report::instruction(code, access.length) }
            }
            Exit::DebugRegister { register, write, gpr, length } => {
                let code = if write { ExitCode::dr_write(register) } else { ExitCode::dr_read(register) };
                let info = DrInfo::new().with_register(gpr & 15);
                Report { info_1: if assists { info.into_bits() } else { 0 }, ..Report::instruction(code, length) }
            }
            Exit::Nested(fault) => nested(&fault, self.nested.as_ref()),
            Exit::TaskSwitch { selector, source, error_code, resume_flag, .. } => {
                let info = TaskSwitchInfo::new()
                    .with_error_code(error_code.unwrap_or(0))
                    .with_has_error_code(error_code.is_some())
                    .with_iret(source == TaskSwitchSource::Iret)
                    .with_jump(source == TaskSwitchSource::Jump)
                    .with_resume_flag(resume_flag);
                Report { info_1: u64::from(selector), info_2: info.into_bits(), ..Report::plain(ExitCode::TASK_SWITCH) }
            }
            Exit::ApicAccess { .. } | Exit::ApicWrite { .. } | Exit::VirtualizedEoi { .. } => return None,
            Exit::Sipi { .. } | Exit::NmiWindow | Exit::PreemptionTimer | Exit::MonitorTrap | Exit::TprBelowThreshold => return None,
        })
    }

    /// APM 15.12 "Exception Intercepts": the error code in EXITINFO1, for #PF the address in EXITINFO2; CR2 is not written.
    fn exception(&self, cpu: &mut Cpu, exception: Exception) -> Report {
        // APM 15.7.1: next RIP is saved for the exceptions of INT3, INTO and BOUND.
        let length = match exception.vector {
            Vector::Breakpoint => trap_length(cpu, 0xcc),
            Vector::Overflow => trap_length(cpu, 0xce),
            Vector::BoundRange => bound_length(cpu),
            _ => None,
        };
        Report {
            info_1: exception.error_code.map_or(0, u64::from),
            info_2: if exception.vector == Vector::PageFault { exception.address } else { 0 },
            length,
            bytes: exception.vector == Vector::PageFault,
            ..Report::plain(ExitCode::exception(exception.vector as u8))
        }
    }

    /// The words that the report and the processor give to the control area.
    fn save_control(&mut self, cpu: &mut Cpu, report: Report) {
        let features = self.capabilities.features;
        let control = &mut self.control;
        control.exit_code = report.code;
        control.exit_info_1 = report.info_1;
        control.exit_info_2 = report.info_2;
        // An exception that came while nothing else was delivered was not being delivered itself: it was intercepted before.
        control.exit_int_info = cpu.delivering.map_or(EventInformation::new(), |event| information(&event));
        // APM 15.20: "the V bit is cleared" once the event is delivered, or reported in EXITINTINFO.
        control.event_injection = control.event_injection.with_valid(false);
        control.next_rip = match report.length {
            Some(length) if features.next_rip_save() => next_rip(cpu, length),
            _ => 0,
        };
        control.bytes_fetched = 0;
        control.instruction_bytes = [0; 15];
        if report.bytes && features.decode_assists() {
            let (bytes, count) = fetched_bytes(cpu);
            control.bytes_fetched = count;
            control.instruction_bytes = bytes;
        }
        control.interrupt_state = InterruptState::new().with_interrupt_shadow(cpu.shadow != Shadow::None);
        let mut virtual_interrupt = control.virtual_interrupt.with_v_irq(cpu.virtual_interrupt.is_some());
        if let Some(tpr) = cpu.virtual_tpr {
            virtual_interrupt = virtual_interrupt.with_v_tpr(tpr >> 4);
        }
        control.virtual_interrupt = virtual_interrupt;
    }

    /// The guest's registers into the state save area.
    fn save_guest(&mut self, cpu: &mut Cpu) {
        let save = &mut self.save;
        save.es.set(cpu.segment(Segment::Es));
        save.cs.set(cpu.segment(Segment::Cs));
        save.ss.set(cpu.segment(Segment::Ss));
        save.ds.set(cpu.segment(Segment::Ds));
        (save.gdtr.base, save.gdtr.limit) = (cpu.gdtr.base, u32::from(cpu.gdtr.limit));
        (save.idtr.base, save.idtr.limit) = (cpu.idtr.base, u32::from(cpu.idtr.limit));
        save.cpl = cpu.cpl;
        save.efer = cpu.efer.into_bits();
        save.cr4 = cpu.cr4.into_bits();
        save.cr3 = cpu.cr3;
        save.cr0 = cpu.cr0.into_bits();
        save.dr7 = cpu.dr7.into_bits();
        save.dr6 = cpu.dr6.into_bits();
        save.rflags = cpu.rflags().into_bits();
        save.rip = cpu.rip;
        save.rsp = cpu.gpr(Gpr::Rsp);
        save.rax = cpu.gpr(Gpr::Rax);
        save.cr2 = cpu.cr2;
        if self.nested.is_some() {
            save.g_pat = std::mem::replace(&mut cpu.msrs.pat, self.host.pat);
        }
    }

    /// Writes to memory what a #VMEXIT writes, and nothing else: the rest of the VMCB is the software's.
    fn store(&self, cpu: &mut Cpu) {
        let (control, save) = (self.control.as_bytes(), self.save.as_bytes());
        let done = cpu.write_physical_page(self.vmcb, |page| {
            each_of_control(|range| page.write(range.start, &control[range]));
            each_of_save(|range| page.write(SAVE_AREA as usize + range.start, &save[range]));
            if self.nested.is_some() {
                page.write(SAVE_AREA as usize + NESTED_WRITTEN.start, &save[NESTED_WRITTEN]);
            }
        });
        if !done {
            self.store_and_tell(cpu);
        }
    }

    /// The same where code was decoded from the page, so that its blocks have to go.
    #[cold]
    fn store_and_tell(&self, cpu: &mut Cpu) {
        let control = CONTROL_WRITTEN.iter().map(|range| (range.start, &self.control.as_bytes()[range.clone()]));
        let nested = self.nested.is_some().then_some(&NESTED_WRITTEN);
        let save = SAVE_WRITTEN.iter().chain(nested);
        let save = save.map(|range| (SAVE_AREA as usize + range.start, &self.save.as_bytes()[range.clone()]));
        let pieces: Vec<_> = control.chain(save).collect();
        cpu.write_physical_pieces(self.vmcb, &pieces);
    }

    /// Ends guest mode: GIF clear, the host's address space, no interception.
    fn end_guest(&mut self, cpu: &mut Cpu) {
        self.gif = false;
        cpu.events_held = true;
        cpu.guest_mode = false;
        cpu.interception = Interception::default();
        cpu.nested_paging = false;
        cpu.address_space = 0;
        cpu.physical_interrupt_flag = None;
        cpu.virtual_interrupt = None;
        cpu.virtual_tpr = None;
        cpu.guest_tsc = TscScale::IDENTITY;
        cpu.shadow = Shadow::None;
        cpu.activity = Activity::Active;
        cpu.delivering = None;
        cpu.inject = None;
        cpu.pending_debug = 0;
        self.nested = None;
    }

    /// Loads the host that VMRUN saved: APM 15.6 "#VMEXIT". PE is forced on, VM off, CPL 0, and DR7 disables all breakpoints. Says whether the host
    /// can go on: "If the PDPEs contain illegal state, the processor causes a shutdown."
    #[must_use]
    pub(crate) fn load_host(&mut self, cpu: &mut Cpu) -> bool {
        let host = &self.host;
        let host_trap = Rflags::from_bits(host.rflags).tf();
        for (segment, from) in SWITCHED.iter().zip(&host.segments) {
            cpu.segments[*segment as usize].clone_from(from);
        }
        cpu.gdtr = host.gdtr;
        cpu.idtr = host.idtr;
        cpu.efer = Efer::from_bits(host.efer);
        cpu.cr0 = Cr0::from_bits(host.cr0).with_pe(true);
        cpu.cr3 = host.cr3;
        cpu.cr4 = Cr4::from_bits(host.cr4);
        cpu.cpl = 0;
        cpu.set_rflags(Rflags::from_bits(host.rflags).with_vm(false));
        cpu.dr7 = Dr7::from_bits(Dr7::RESET);
        cpu.rip = host.rip;
        cpu.set_gpr(Gpr::Rsp, host.rsp);
        cpu.set_gpr(Gpr::Rax, host.rax);
        if cpu.cr0.pg() && cpu.cr4.pae() && !cpu.efer.lma() {
            // APM 15.6: the host's page-directory-pointer entries are read again.
            cpu.pdptes = read_pdptes(cpu, cpu.cr3);
            if cpu.pdptes.iter().any(|entry| entry & 1 != 0 && entry & cpu.pdpte_reserved() != 0) {
                return false;
            }
        }
        if host_trap {
            // A single step over VMRUN ends behind it: on the host's side of the #VMEXIT.
            cpu.pending_debug = Dr6::new().with_bs(true).into_bits();
        }
        self.contexts.enter_host(cpu);
        true
    }
}

/// The bytes at CS:RIP as far as the TLB still translates them, which for an instruction that was just executed it does: APM 15.33,
/// "Nested and intercepted #PF", lets the count be less than 15.
fn fetched_bytes(cpu: &mut Cpu) -> ([u8; 15], u8) {
    let base = if cpu.is_64bit() { 0 } else { cpu.segment(Segment::Cs).base };
    let (address_space, pcid) = (cpu.address_space, cpu.pcid());
    let mut bytes = [0; 15];
    let mut count = 0;
    for byte in &mut bytes {
        let rip = next_rip(cpu, count);
        let linear = base.wrapping_add(rip);
        let linear = if cpu.long_mode() { linear } else { linear & 0xffff_ffff };
        let physical = if cpu.cr0.pg() || cpu.nested_paging {
            match cpu.tlb().lookup(linear, address_space, pcid) {
                Some(page) => page.physical + (linear & (page.bytes - 1)),
                None => break,
            }
        } else {
            linear
        };
        *byte = cpu.read_physical(physical, 1) as u8;
        count += 1;
    }
    (bytes, count)
}

/// Length of the INT3 or INTO at CS:RIP: its opcode and the prefixes before it, which the core does not tell.
fn trap_length(cpu: &mut Cpu, opcode: u8) -> Option<u8> {
    let (bytes, count) = fetched_bytes(cpu);
    let at = bytes.iter().take(usize::from(count)).position(|byte| *byte == opcode)?;
    Some(at as u8 + 1)
}

/// Length of the BOUND at CS:RIP: prefixes, opcode, ModRM byte, SIB byte and displacement of 16-bit or 32-bit addressing.
fn bound_length(cpu: &mut Cpu) -> Option<u8> {
    let opcode = trap_length(cpu, 0x62)?;
    let (bytes, count) = fetched_bytes(cpu);
    let overridden = bytes[..usize::from(opcode) - 1].contains(&0x67);
    let wide = cpu.segment(Segment::Cs).attributes.db() != overridden;
    let modrm = *bytes.get(usize::from(opcode))?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = wide && rm == 4;
    let base = if sib { *bytes.get(usize::from(opcode) + 1)? & 7 } else { rm };
    let displacement = match (mode, wide) {
        (1, _) => 1,
        (2, true) => 4,
        (2, false) => 2,
        (0, true) if base == 5 => 4,
        (0, false) if rm == 6 => 2,
        _ => 0,
    };
    let length = opcode + 1 + u8::from(sib) + displacement;
    (length <= count).then_some(length)
}

/// The address behind an instruction, in the width of the code.
fn next_rip(cpu: &Cpu, length: u8) -> u64 {
    let next = cpu.rip.wrapping_add(u64::from(length));
    if cpu.is_64bit() { next } else { next & 0xffff_ffff }
}

/// An event in the format of EXITINTINFO.
fn information(event: &Event) -> EventInformation {
    let kind = match event.kind {
        EventKind::External => EventType::Interrupt,
        EventKind::Nmi => EventType::Nmi,
        EventKind::SoftwareInterrupt => EventType::SoftwareInterrupt,
        EventKind::Exception | EventKind::PrivilegedSoftware | EventKind::SoftwareException => EventType::Exception,
    };
    let word = EventInformation::event(kind, event.vector);
    match event.error_code {
        Some(code) => word.with_error_code_valid(true).with_error_code(code),
        None => word,
    }
}

/// APM 15.10.2 "IN and OUT Behavior".
fn port(cpu: &Cpu, access: &PortAccess, assists: bool) -> Report {
    let info = IoInfo::new()
        .with_input(access.input)
        .with_string(access.string)
        .with_repeated(access.repeat)
        .with_size(access.width & 7)
        .with_address_size((access.address_bits / 16) & 7)
        .with_segment(if access.string && assists { access.segment as u8 } else { 0 })
        .with_port(access.port);
    Report { info_1: info.into_bits(), info_2: next_rip(cpu, access.length), ..Report::instruction(ExitCode::IOIO, access.length) }
}

/// APM 15.25.6 "Nested versus Guest Page Faults, Fault Ordering".
fn nested(fault: &NestedFault, root: Option<&NestedRoot>) -> Report {
    let tells_fetches = root.is_some_and(|root| root.tells_fetches);
    // With the guest mode execute trap, privilege matters, and so is told (15.25.13).
    let user = fault.user || fault.table_walk || !root.is_some_and(|root| root.execute_trap);
    let info = NestedPageFaultInfo::new()
        .with_present(fault.present)
        .with_write(fault.table_walk || fault.access == Access::Write)
        .with_user(user)
        .with_reserved_bit(fault.reserved)
        .with_instruction_fetch(tells_fetches && !fault.table_walk && fault.access == Access::Fetch)
        .with_final_translation(!fault.table_walk)
        .with_page_table_walk(fault.table_walk);
    Report { info_1: info.into_bits(), info_2: fault.guest_physical, bytes: fault.access != Access::Fetch, ..Report::plain(ExitCode::NPF) }
}
