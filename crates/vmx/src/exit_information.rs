//! What a VM exit says about itself: reason, qualification, interruption and IDT-vectoring information, instruction length and information.
//!
//! Modelled: SDM 28.2 "Recording VM-Exit Information and Updating VM-Entry Control Fields", one function for each kind of exit.
//! Not modelled: RTM, bus locks.

use crate::vmcs::Fields;
use cpu::state::Cpu;
use cpu::trap::{
    Access, ControlAccess, ControlAccessKind, Event, EventKind, Exception, Exit, Intercept, MemoryOperand, NestedFault, Operand,
    PortAccess, TaskSwitchSource, VendorInstruction,
};
use isa::exception::Vector;
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::vmx::{
    ApicAccessQualification, ApicAccessType, ControlRegisterAccessType, ControlRegisterQualification, DebugQualification,
    DescriptorTableInstruction, EptPointer, EptViolationQualification, ExitReason, InstructionInformation, InterruptionInformation,
    InterruptionType, IoQualification, LdtrOrTrInstruction, MovDrQualification, TaskSwitchQualification, VmcsField, VmxCapabilities,
};

/// What RFLAGS.RF is in the saved RFLAGS. SDM 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResumeFlag {
    /// As in RFLAGS.
    Kept,
    /// 0: an instruction exits instead of executing.
    Clear,
    /// 1: a fault, which will have the instruction executed again.
    Set,
}

impl ResumeFlag {
    pub(crate) fn apply(self, rflags: Rflags) -> Rflags {
        match self {
            ResumeFlag::Kept => rflags,
            ResumeFlag::Clear => rflags.with_rf(false),
            ResumeFlag::Set => rflags.with_rf(true),
        }
    }
}

/// Contents of the VM-exit information fields.
#[derive(Clone, Debug)]
pub(crate) struct Information {
    pub(crate) reason: ExitReason,
    pub(crate) qualification: u64,
    pub(crate) interruption: InterruptionInformation,
    pub(crate) error_code: u32,
    pub(crate) idt_vectoring: InterruptionInformation,
    pub(crate) idt_vectoring_error_code: u32,
    pub(crate) instruction_length: u8,
    pub(crate) instruction: InstructionInformation,
    pub(crate) guest_linear: Option<u64>,
    pub(crate) guest_physical: Option<u64>,
    pub(crate) resume: ResumeFlag,
}

impl Information {
    const fn new(reason: ExitReason) -> Information {
        Information {
            reason,
            qualification: 0,
            interruption: InterruptionInformation::new(),
            error_code: 0,
            idt_vectoring: InterruptionInformation::new(),
            idt_vectoring_error_code: 0,
            instruction_length: 0,
            instruction: InstructionInformation::new(),
            guest_linear: None,
            guest_physical: None,
            resume: ResumeFlag::Kept,
        }
    }

    const fn instruction(reason: ExitReason, length: u8) -> Information {
        Information { instruction_length: length, resume: ResumeFlag::Clear, ..Information::new(reason) }
    }

    /// All there is to say about an exit.
    pub(crate) fn of(cpu: &Cpu, exit: &Exit, capabilities: &VmxCapabilities, fields: &Fields) -> Information {
        let mut information = match exit {
            Exit::Instruction { intercept, length } => Information::instruction(instruction_reason(*intercept), *length),
            Exit::Operand { intercept, instruction } => operand(cpu, *intercept, instruction),
            Exit::Exception(exception) => self::exception(cpu, exception),
            Exit::SoftwareInterrupt { vector, length } => {
                // VMX takes no INT n from a guest; what comes this way is the #DB of INT1.
                let event = InterruptionInformation::event(InterruptionType::PrivilegedSoftwareException, *vector, false);
                Information {
                    interruption: event,
                    resume: ResumeFlag::Kept,
                    ..Information::instruction(ExitReason::ExceptionOrNmi, *length)
                }
            }
            Exit::ExternalInterrupt { vector } => Information {
                interruption: vector.map_or(InterruptionInformation::new(), |vector| {
                    InterruptionInformation::event(InterruptionType::ExternalInterrupt, vector, false)
                }),
                ..Information::new(ExitReason::ExternalInterrupt)
            },
            Exit::Nmi => Information {
                interruption: InterruptionInformation::event(InterruptionType::Nmi, Vector::Nmi as u8, false),
                ..Information::new(ExitReason::ExceptionOrNmi)
            },
            // Without the dual-monitor treatment an SMI never exits; nothing asks for this one.
            Exit::Smi => Information::new(ExitReason::OtherSmi),
            Exit::Init => Information::new(ExitReason::InitSignal),
            Exit::Sipi { vector } => Information { qualification: u64::from(*vector), ..Information::new(ExitReason::StartUpIpi) },
            Exit::InterruptWindow => Information::new(ExitReason::InterruptWindow),
            Exit::NmiWindow => Information::new(ExitReason::NmiWindow),
            Exit::TripleFault => Information::new(ExitReason::TripleFault),
            Exit::Port(access) => port(access, capabilities),
            Exit::Msr { write, length, .. } => {
                Information::instruction(if *write { ExitReason::Wrmsr } else { ExitReason::Rdmsr }, *length)
            }
            Exit::Control(access) => control(access),
            Exit::DebugRegister { register, write, gpr, length } => {
                let qualification = MovDrQualification::new()
                    .with_register(*register & 7)
                    .with_from_debug_register(!write)
                    .with_general_register(*gpr & 15);
                Information { qualification: qualification.into_bits(), ..Information::instruction(ExitReason::MovDr, *length) }
            }
            Exit::Nested(fault) => nested(fault, capabilities, fields),
            Exit::TaskSwitch { selector, source, length, resume_flag, .. } => {
                let source = match source {
                    TaskSwitchSource::Call => isa::vmx::TaskSwitchSource::Call,
                    TaskSwitchSource::Iret => isa::vmx::TaskSwitchSource::Iret,
                    TaskSwitchSource::Jump => isa::vmx::TaskSwitchSource::Jmp,
                    TaskSwitchSource::Gate => isa::vmx::TaskSwitchSource::TaskGateInIdt,
                };
                let qualification = TaskSwitchQualification::new().with_selector(*selector).with_source(source);
                // SDM 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP": RF as it would be saved in the old TSS.
                let resume = if *resume_flag { ResumeFlag::Set } else { ResumeFlag::Clear };
                Information {
                    qualification: qualification.into_bits(),
                    resume,
                    ..Information::instruction(ExitReason::TaskSwitch, *length)
                }
            }
            Exit::ApicAccess { offset, access, table_walk, length } => {
                let kind = match access {
                    _ if *table_walk && cpu.delivering.is_some() => ApicAccessType::PhysicalEventDelivery,
                    _ if *table_walk => ApicAccessType::PhysicalInstruction,
                    _ if cpu.delivering.is_some() => ApicAccessType::LinearEventDelivery,
                    Access::Read => ApicAccessType::LinearRead,
                    Access::Write => ApicAccessType::LinearWrite,
                    Access::Fetch => ApicAccessType::LinearFetch,
                };
                let qualification =
                    ApicAccessQualification::new().with_offset(if *table_walk { 0 } else { *offset }).with_access_type(kind);
                Information {
                    qualification: qualification.into_bits(),
                    instruction_length: *length,
                    resume: ResumeFlag::Set,
                    ..Information::new(ExitReason::ApicAccess)
                }
            }
            Exit::ApicWrite { offset } => {
                Information { qualification: u64::from(*offset & 0xff0), ..Information::new(ExitReason::ApicWrite) }
            }
            Exit::VirtualizedEoi { vector } => {
                Information { qualification: u64::from(*vector), ..Information::new(ExitReason::VirtualizedEoi) }
            }
            Exit::PreemptionTimer => Information::new(ExitReason::PreemptionTimerExpired),
            Exit::MonitorTrap => Information::new(ExitReason::MonitorTrapFlag),
            Exit::TprBelowThreshold => Information::new(ExitReason::TprBelowThreshold),
        };
        // SDM 28.2.4 "Information for VM Exits During Event Delivery": not when #DF or a triple fault exits directly.
        let double_fault = matches!(exit, Exit::Exception(exception) if exception.vector == Vector::DoubleFault);
        let during_delivery = match exit {
            Exit::Exception(_) | Exit::Nested(_) | Exit::ApicAccess { .. } | Exit::TaskSwitch { .. } => !double_fault,
            _ => false,
        };
        if let Some(event) = cpu.delivering.filter(|_| during_delivery) {
            information.vectoring(&event);
            // SDM 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP": what stands for the event's delivery has RF as the event would have pushed it.
            if matches!(exit, Exit::Nested(_) | Exit::ApicAccess { .. }) {
                information.resume = if cpu.pushes_resume_flag(&event) { ResumeFlag::Set } else { ResumeFlag::Clear };
            }
        }
        information
    }

    fn vectoring(&mut self, event: &Event) {
        let kind = match event.kind {
            EventKind::External => InterruptionType::ExternalInterrupt,
            EventKind::Nmi => InterruptionType::Nmi,
            EventKind::Exception => InterruptionType::HardwareException,
            EventKind::SoftwareInterrupt => InterruptionType::SoftwareInterrupt,
            EventKind::PrivilegedSoftware => InterruptionType::PrivilegedSoftwareException,
            EventKind::SoftwareException => InterruptionType::SoftwareException,
        };
        self.idt_vectoring = InterruptionInformation::event(kind, event.vector, event.error_code.is_some());
        self.idt_vectoring_error_code = event.error_code.unwrap_or(0);
        if kind.is_software() {
            self.instruction_length = event.length;
        }
    }
}

/// The reason of an exit whose instruction says all. SDM Appendix C "VMX Basic Exit Reasons".
fn instruction_reason(intercept: Intercept) -> ExitReason {
    match intercept {
        Intercept::Cpuid => ExitReason::Cpuid,
        Intercept::Hlt => ExitReason::Hlt,
        Intercept::Invd => ExitReason::Invd,
        Intercept::Wbinvd => ExitReason::WbinvdOrWbnoinvd,
        Intercept::Invlpg => ExitReason::Invlpg,
        Intercept::Rdpmc => ExitReason::Rdpmc,
        Intercept::Rdtsc => ExitReason::Rdtsc,
        Intercept::Rdtscp => ExitReason::Rdtscp,
        Intercept::Monitor => ExitReason::Monitor,
        Intercept::Mwait => ExitReason::Mwait,
        Intercept::Pause => ExitReason::Pause,
        Intercept::Rdrand => ExitReason::Rdrand,
        Intercept::Rdseed => ExitReason::Rdseed,
        Intercept::Invpcid => ExitReason::Invpcid,
        Intercept::Xsetbv => ExitReason::Xsetbv,
        Intercept::Xsaves => ExitReason::Xsaves,
        Intercept::Xrstors => ExitReason::Xrstors,
        Intercept::Rsm => ExitReason::Rsm,
        Intercept::Sidt | Intercept::Sgdt | Intercept::Lidt | Intercept::Lgdt => ExitReason::GdtrOrIdtrAccess,
        Intercept::Sldt | Intercept::Str | Intercept::Lldt | Intercept::Ltr => ExitReason::LdtrOrTrAccess,
        Intercept::Ports => ExitReason::IoInstruction,
        Intercept::Msrs => ExitReason::Rdmsr,
        Intercept::Cr0Write
        | Intercept::Cr0SelectiveWrite
        | Intercept::Cr0Read
        | Intercept::Cr2Read
        | Intercept::Cr2Write
        | Intercept::Cr3Read
        | Intercept::Cr3Write
        | Intercept::Cr4Read
        | Intercept::Cr4Write
        | Intercept::Cr8Read
        | Intercept::Cr8Write => ExitReason::ControlRegisterAccess,
        Intercept::DrRead | Intercept::DrWrite => ExitReason::MovDr,
        Intercept::TaskSwitch => ExitReason::TaskSwitch,
        Intercept::ExternalInterrupt => ExitReason::ExternalInterrupt,
        Intercept::Nmi => ExitReason::ExceptionOrNmi,
        Intercept::Smi => ExitReason::OtherSmi,
        Intercept::Init => ExitReason::InitSignal,
        Intercept::Shutdown => ExitReason::TripleFault,
        Intercept::InterruptWindow => ExitReason::InterruptWindow,
        Intercept::NmiWindow => ExitReason::NmiWindow,
        Intercept::MonitorTrap => ExitReason::MonitorTrapFlag,
        Intercept::Vmcall => ExitReason::Vmcall,
        Intercept::Vmclear => ExitReason::Vmclear,
        Intercept::Vmlaunch => ExitReason::Vmlaunch,
        Intercept::Vmptrld => ExitReason::Vmptrld,
        Intercept::Vmptrst => ExitReason::Vmptrst,
        Intercept::Vmread => ExitReason::Vmread,
        Intercept::Vmresume => ExitReason::Vmresume,
        Intercept::Vmwrite => ExitReason::Vmwrite,
        Intercept::Vmxoff => ExitReason::Vmxoff,
        Intercept::Vmxon => ExitReason::Vmxon,
        Intercept::Invept => ExitReason::Invept,
        Intercept::Invvpid => ExitReason::Invvpid,
        Intercept::Vmfunc => ExitReason::Vmfunc,
        Intercept::Umwait => ExitReason::Umwait,
        Intercept::Encls => ExitReason::Encls,
        Intercept::Getsec => ExitReason::Getsec,
        // The silicon sets none of these intercepts: they are the other vendor's instructions, or ones VMX never takes from a guest.
        Intercept::Pushf
        | Intercept::Popf
        | Intercept::Iret
        | Intercept::IntN
        | Intercept::Icebp
        | Intercept::Vmmcall
        | Intercept::Vmrun
        | Intercept::Vmload
        | Intercept::Vmsave
        | Intercept::Stgi
        | Intercept::Clgi
        | Intercept::Skinit
        | Intercept::Invlpga
        | Intercept::Rdpru
        | Intercept::FerrFreeze => ExitReason::ExceptionOrNmi,
    }
}

fn operand(cpu: &Cpu, intercept: Intercept, instruction: &VendorInstruction) -> Information {
    let mut information = Information::instruction(instruction_reason(intercept), instruction.length);
    let identity = match intercept {
        Intercept::Sgdt => Some(DescriptorTableInstruction::Sgdt as u8),
        Intercept::Sidt => Some(DescriptorTableInstruction::Sidt as u8),
        Intercept::Lgdt => Some(DescriptorTableInstruction::Lgdt as u8),
        Intercept::Lidt => Some(DescriptorTableInstruction::Lidt as u8),
        Intercept::Sldt => Some(LdtrOrTrInstruction::Sldt as u8),
        Intercept::Str => Some(LdtrOrTrInstruction::Str as u8),
        Intercept::Lldt => Some(LdtrOrTrInstruction::Lldt as u8),
        Intercept::Ltr => Some(LdtrOrTrInstruction::Ltr as u8),
        _ => None,
    };
    let size = |bits: u8| match bits {
        16 => 0,
        32 => 1,
        _ => 2,
    };
    let mut format = InstructionInformation::new().with_address_size(size(instruction.address_bits));
    format.set_register2(identity.unwrap_or(instruction.register & 15));
    if matches!(intercept, Intercept::Lgdt | Intercept::Lidt | Intercept::Sgdt | Intercept::Sidt) {
        format.set_operand_size(u8::from(instruction.operand_bits != 16));
    }
    match instruction.operand {
        Operand::None => {}
        Operand::Register(number) => {
            format.set_register_operand(true);
            format.set_register1(number & 15);
            if matches!(intercept, Intercept::Rdrand | Intercept::Rdseed) {
                format.set_register_operand(false);
                format.set_register2(0);
                format.set_operand_size(size(instruction.operand_bits));
            }
        }
        Operand::Memory(memory) => {
            describe_memory(&mut format, &memory);
            information.qualification = match intercept {
                // SDM 28.2.1: the qualification of INVLPG is the linear address, that of the others the displacement, to which RIP is
                // added where the operand is RIP-relative. Without base and index that is the offset.
                Intercept::Invlpg => linear_address(cpu, &memory),
                _ if memory.base.is_none() && memory.index.is_none() && instruction.address_bits == 64 => memory.offset,
                _ => memory.displacement,
            };
        }
    }
    if intercept != Intercept::Invlpg {
        information.instruction = format;
    }
    information
}

fn describe_memory(format: &mut InstructionInformation, memory: &MemoryOperand) {
    format.set_scaling(memory.scale & 3);
    format.set_segment(memory.segment as u8);
    format.set_base_invalid(memory.base.is_none());
    format.set_base(memory.base.unwrap_or(0) & 15);
    format.set_index_invalid(memory.index.is_none());
    format.set_index(memory.index.unwrap_or(0) & 15);
}

/// The linear address of a memory operand, without checks.
fn linear_address(cpu: &Cpu, memory: &MemoryOperand) -> u64 {
    if cpu.is_64bit() {
        let base = if matches!(memory.segment, Segment::Fs | Segment::Gs) { cpu.segment(memory.segment).base } else { 0 };
        return base.wrapping_add(memory.offset);
    }
    cpu.segment(memory.segment).base.wrapping_add(memory.offset) & 0xffff_ffff
}

/// An exception that the exception bitmap takes. SDM 28.2.2 "Information for VM Exits Due to Vectored Events".
fn exception(cpu: &Cpu, exception: &Exception) -> Information {
    let kind = match exception.vector {
        // INT3 and INTO are the only sources of these vectors.
        Vector::Breakpoint | Vector::Overflow => InterruptionType::SoftwareException,
        _ => InterruptionType::HardwareException,
    };
    // In real-address mode no exception delivers an error code.
    let error_code = exception.error_code.filter(|_| cpu.cr0.pe());
    let mut information = Information::new(ExitReason::ExceptionOrNmi);
    let unblocked = cpu.iret_unblocked_nmi && exception.vector != Vector::DoubleFault;
    information.interruption =
        InterruptionInformation::event(kind, exception.vector as u8, error_code.is_some()).with_nmi_unblocking_due_to_iret(unblocked);
    information.error_code = error_code.unwrap_or(0);
    if kind == InterruptionType::SoftwareException {
        information.instruction_length = 1;
    }
    match exception.vector {
        Vector::PageFault => information.qualification = exception.address,
        Vector::Debug => {
            let defined = DebugQualification::new()
                .with_breakpoints(0xf)
                .with_bus_lock_detected(true)
                .with_debug_register_access(true)
                .with_single_step(true);
            information.qualification = exception.debug & defined.into_bits();
        }
        _ => {}
    }
    // Faults leave RF 1, so that an instruction breakpoint is not met again; traps and aborts leave it alone.
    let trap = matches!(
        exception.vector,
        Vector::Debug | Vector::Breakpoint | Vector::Overflow | Vector::Nmi | Vector::DoubleFault | Vector::MachineCheck
    );
    if !trap {
        information.resume = ResumeFlag::Set;
    }
    information
}

fn port(access: &PortAccess, capabilities: &VmxCapabilities) -> Information {
    let qualification = IoQualification::new()
        .with_size_minus_one(access.width.wrapping_sub(1) & 7)
        .with_input(access.input)
        .with_string(access.string)
        .with_repeated(access.repeat)
        .with_immediate(access.immediate)
        .with_port(access.port);
    let mut information = Information::instruction(ExitReason::IoInstruction, access.length);
    information.qualification = qualification.into_bits();
    if access.string {
        information.guest_linear = Some(access.linear);
        if capabilities.basic.io_instruction_information() {
            let address_size = match access.address_bits {
                16 => 0,
                32 => 1,
                _ => 2,
            };
            information.instruction = InstructionInformation::new().with_address_size(address_size).with_segment(access.segment as u8);
        }
    }
    information
}

fn control(access: &ControlAccess) -> Information {
    let mut qualification = ControlRegisterQualification::new().with_register(access.register & 15);
    let mut linear = None;
    match access.kind {
        ControlAccessKind::MovTo => qualification.set_general_register(access.gpr & 15),
        ControlAccessKind::MovFrom => {
            qualification.set_access_type(ControlRegisterAccessType::MovFromCr);
            qualification.set_general_register(access.gpr & 15);
        }
        ControlAccessKind::Clts => qualification.set_access_type(ControlRegisterAccessType::Clts),
        ControlAccessKind::Lmsw | ControlAccessKind::Smsw => {
            qualification.set_access_type(ControlRegisterAccessType::Lmsw);
            qualification.set_lmsw_memory_operand(access.memory.is_some());
            qualification.set_lmsw_source(access.value as u16);
            linear = access.memory;
        }
    }
    Information {
        qualification: qualification.into_bits(),
        guest_linear: linear,
        ..Information::instruction(ExitReason::ControlRegisterAccess, access.length)
    }
}

fn nested(fault: &NestedFault, capabilities: &VmxCapabilities, fields: &Fields) -> Information {
    if fault.log_full {
        let qualification = EptViolationQualification::new().with_nmi_unblocking_due_to_iret(fault.nmi_unblocking);
        let information = Information::new(ExitReason::PageModificationLogFull);
        return Information { qualification: qualification.into_bits(), resume: ResumeFlag::Set, ..information };
    }
    let mut information = Information::new(if fault.misconfiguration { ExitReason::EptMisconfiguration } else { ExitReason::EptViolation });
    information.guest_physical = Some(fault.guest_physical);
    information.resume = ResumeFlag::Set;
    if fault.misconfiguration {
        return information;
    }
    let mode_based = fields.secondary().mode_based_execute_control_for_ept();
    let final_access = fault.linear.is_some() && !fault.table_walk;
    let advanced = capabilities.ept_vpid.advanced_violation_information() && final_access;
    let flags = EptPointer::from_bits(fields.get(VmcsField::EptPointer)).accessed_dirty();
    // With accessed and dirty flags for EPT, an access to a guest paging structure counts as a read and a write. SDM 28.2.1 "Basic VM-Exit
    // Information", note under Table 28-7. Without them, what writes an entry is the setting of its own flags, which is one locked access
    // that reads and writes. SDM 4.8 "Accessed and Dirty Flags".
    let both = fault.table_walk && (flags || fault.access == Access::Write);
    let qualification = EptViolationQualification::new()
        .with_read(fault.access == Access::Read || both)
        .with_write(fault.access == Access::Write || both)
        .with_fetch(fault.access == Access::Fetch && !fault.table_walk)
        .with_readable(fault.rights & 1 != 0)
        .with_writable(fault.rights & 2 != 0)
        .with_executable(fault.rights & 4 != 0)
        .with_linear_address_valid(fault.linear.is_some())
        .with_user_executable(mode_based && fault.rights & 8 != 0)
        .with_translation_of_linear_address(final_access)
        .with_user_mode_linear_address(advanced && fault.guest.user)
        .with_read_write_page(advanced && fault.guest.writable)
        .with_execute_disable_page(advanced && !fault.guest.executable)
        .with_nmi_unblocking_due_to_iret(fault.nmi_unblocking);
    information.qualification = qualification.into_bits();
    information.guest_linear = fault.linear;
    information
}
