//! What comes first when a VMX instruction cannot be executed: mode, exit, privilege level, operands. And what dual-monitor treatment of SMM
//! would need, refused.

mod common;

use common::{Machine, VMCS};
use cpu::extension::{Completion, Extension};
use cpu::state::Cpu;
use cpu::trap::{Exit, Intercept, MemoryOperand, Operand, Trap, VendorInstruction};
use isa::control::{Cr0, Efer};
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::vmx::{VmInstructionError, VmcsField as F};
use models::{MEROM, SKYLAKE_SERVER};
use vmx::{EntryOutcome, Vmx};

/// What makes a processor ready for a row.
type Prepare = fn(&mut Cpu);

const MEMORY: Operand =
    Operand::Memory(MemoryOperand { segment: Segment::Ds, base: None, index: None, scale: 0, displacement: 0x5_0000, offset: 0x5_0000 });

const INSTRUCTIONS: [(Intercept, Operand); 12] = [
    (Intercept::Vmcall, Operand::None),
    (Intercept::Vmclear, MEMORY),
    (Intercept::Vmlaunch, Operand::None),
    (Intercept::Vmptrld, MEMORY),
    (Intercept::Vmptrst, MEMORY),
    (Intercept::Vmread, Operand::Register(0)),
    (Intercept::Vmresume, Operand::None),
    (Intercept::Vmwrite, Operand::Register(0)),
    (Intercept::Vmxoff, Operand::None),
    (Intercept::Vmxon, MEMORY),
    (Intercept::Invept, MEMORY),
    (Intercept::Invvpid, MEMORY),
];

/// What comes of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Undefined,
    Protection,
    Exits,
    Completes,
}

fn execute(vmx: &mut Vmx, cpu: &mut Cpu, operation: Intercept, operand: Operand) -> Ends {
    let instruction = VendorInstruction { operation, length: 3, address_bits: 64, operand_bits: 64, register: 0, operand };
    match Extension::execute(vmx, cpu, &instruction) {
        Ok(Completion::Next) => Ends::Completes,
        Err(Trap::Exit(Exit::Instruction { intercept, .. } | Exit::Operand { intercept, .. })) if intercept == operation => Ends::Exits,
        Err(trap) if trap == Trap::UD => Ends::Undefined,
        Err(trap) if trap == Trap::GP0 => Ends::Protection,
        other => panic!("{operation:?}: {other:?}"),
    }
}

/// Changes the state of a processor in 64-bit mode at privilege level 0.
fn in_state(state: &str, cpu: &mut Cpu) {
    match state {
        "64-bit mode" => {}
        "level 3" => cpu.cpl = 3,
        "compatibility mode" => {
            cpu.segments[Segment::Cs as usize].attributes.set_l(false);
            cpu.segments[Segment::Cs as usize].attributes.set_db(true);
        }
        "virtual-8086 mode" => {
            cpu.efer = Efer::new();
            cpu.set_rflags(Rflags::from_bits(1 << 17));
            cpu.cpl = 3;
        }
        "real-address mode" => {
            cpu.efer = Efer::new();
            cpu.cr0 = Cr0::from_bits(0x30);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn outside_vmx_operation_all_are_undefined() {
    for (operation, operand) in INSTRUCTIONS {
        let mut machine = Machine::new(&SKYLAKE_SERVER);
        let ends = machine.with(|vmx, cpu| {
            vmx.vmxoff(cpu);
            cpu.cr4.set_vmxe(false);
            cpu.cpl = 3;
            execute(vmx, cpu, operation, operand)
        });
        assert_eq!(ends, Ends::Undefined, "{operation:?}");
    }
    // With CR4.VMXE set VMXON is there, but not for everybody; CR0.NE is fixed to 1.
    let rows: [(Prepare, Ends); 3] =
        [(|_| {}, Ends::Completes), (|cpu| cpu.cpl = 3, Ends::Protection), (|cpu| cpu.cr0.set_ne(false), Ends::Protection)];
    for (row, (change, expected)) in rows.into_iter().enumerate() {
        let mut machine = Machine::new(&SKYLAKE_SERVER);
        let ends = machine.with(|vmx, cpu| {
            vmx.vmxoff(cpu);
            change(cpu);
            execute(vmx, cpu, Intercept::Vmxon, MEMORY)
        });
        assert_eq!(ends, expected, "row {row}");
    }
}

#[test]
fn in_root_operation_the_mode_comes_before_the_privilege_level() {
    let rows = [
        ("level 3", Ends::Protection),
        ("compatibility mode", Ends::Undefined),
        ("virtual-8086 mode", Ends::Undefined),
        ("real-address mode", Ends::Undefined),
    ];
    for (operation, operand) in INSTRUCTIONS {
        for (state, expected) in rows {
            let mut machine = Machine::new(&SKYLAKE_SERVER);
            let ends = machine.with(|vmx, cpu| {
                in_state(state, cpu);
                execute(vmx, cpu, operation, operand)
            });
            assert_eq!(ends, expected, "{operation:?} in {state}");
        }
    }
}

#[test]
fn in_a_guest_the_exit_comes_before_the_privilege_level() {
    for (operation, operand) in INSTRUCTIONS {
        for state in ["64-bit mode", "level 3", "compatibility mode"] {
            let mut machine = Machine::new(&SKYLAKE_SERVER);
            let ends = machine.with(|vmx, cpu| {
                assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
                in_state(state, cpu);
                execute(vmx, cpu, operation, operand)
            });
            // VMCALL leaves in any mode.
            let undefined = state == "compatibility mode" && operation != Intercept::Vmcall;
            assert_eq!(ends, if undefined { Ends::Undefined } else { Ends::Exits }, "{operation:?} in {state}");
        }
    }
}

#[test]
fn instructions_that_the_model_lacks_are_undefined() {
    for operation in [Intercept::Invept, Intercept::Invvpid, Intercept::Vmfunc] {
        let mut machine = Machine::new(&MEROM);
        assert_eq!(machine.with(|vmx, cpu| execute(vmx, cpu, operation, MEMORY)), Ends::Undefined, "{operation:?}");
    }
    // VMFUNC without its control, and outside a guest.
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    assert_eq!(machine.with(|vmx, cpu| execute(vmx, cpu, Intercept::Vmfunc, Operand::None)), Ends::Undefined);
    let ends = machine.with(|vmx, cpu| {
        assert_eq!(vmx.vmlaunch(cpu), Ok(EntryOutcome::Entered));
        execute(vmx, cpu, Intercept::Vmfunc, Operand::None)
    });
    assert_eq!(ends, Ends::Undefined);
}

#[test]
fn dual_monitor_treatment_is_refused() {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    assert!(!machine.with(|vmx, _| vmx.capabilities().basic.dual_monitor()));
    machine.with(|vmx, cpu| {
        // VMCALL in root operation has nobody to call.
        assert_eq!(execute(vmx, cpu, Intercept::Vmcall, Operand::None), Ends::Completes);
        assert!(cpu.rflags().zf() && !cpu.rflags().cf());
        assert_eq!(vmx.vmread(cpu, F::VmInstructionError), Ok(VmInstructionError::VmcallInVmxRoot.number().into()));
        assert_eq!(vmx.vmptrst(cpu), VMCS);
    });
    // IA32_SMM_MONITOR_CTL does not exist, and no VM entry leads to SMM.
    assert_eq!(machine.with(|_, cpu| cpu.read_msr(0x9b)), Err(Trap::GP0));
    assert_eq!(machine.with(|_, cpu| cpu.write_msr(0x9b, 0)), Err(Trap::GP0));
    for bit in [10, 11] {
        let entry = machine.read(F::EntryControls);
        machine.set(F::EntryControls, entry | 1 << bit);
        let failed = machine.with(|vmx, cpu| vmx.vmlaunch(cpu));
        assert_eq!(failed, Err(vmx::VmFail::Valid(VmInstructionError::EntryInvalidControlFields)));
        machine.set(F::EntryControls, entry);
    }
}
