//! Last-branch records and single-stepping on branches.

mod common;

use common::{CODE, HANDLERS, Machine};
use cpu::last_branches::Branch;
use isa::msr;
use isa::register::Gpr;
use models::{CpuModel, K8_REV_F, MEROM, SKYLAKE_SERVER, ZEN3};

/// A program that turns on bits of IA32_DEBUGCTL, does something, turns them off and halts.
fn recorded(model: &'static CpuModel, bits: u32, source: &str) -> Machine {
    Machine::long_on(
        model,
        &format!(
            "org {CODE:#x}
             mov ecx, {:#x}
             mov eax, {bits}
             xor edx, edx
             wrmsr
             {source}
             last: mov ecx, {:#x}
             xor eax, eax
             xor edx, edx
             wrmsr
             end: hlt",
            msr::IA32_DEBUGCTL,
            msr::IA32_DEBUGCTL
        ),
    )
}

/// The records, newest first, as symbols of the program or numbers.
fn records(machine: &mut Machine, count: u32) -> Vec<(u64, u64)> {
    let model = machine.cpu.model.last_branches;
    let top = model.top.map_or(0, |top| machine.with(|cpu| cpu.read_msr(top)).unwrap() as u32);
    let number = |back: u32| top.wrapping_sub(back) & (u32::from(model.depth) - 1);
    let mut read = |index: u32| machine.with(|cpu| cpu.read_msr(index)).unwrap();
    (0..count).map(|back| (read(model.from + number(back)), read(model.to + number(back)))).collect()
}

#[test]
fn branches_that_are_taken_are_recorded() {
    let source = "
        j1: jmp t1
        nop
        t1: xor ebx, ebx
        j2: jz t2
        nop
        t2: jnz last
        lea rax, [rel t3]
        j3: jmp rax
        nop
        t3: call t4
        r4: jmp last
        t4: ret";
    for model in [&SKYLAKE_SERVER, &MEROM, &ZEN3, &K8_REV_F] {
        let mut machine = recorded(model, 1, source);
        assert_eq!(machine.run_to_handler(), None);
        let at = |name: &str| machine.symbol(name);
        let mut expected = vec![
            (at("r4"), at("last")),
            (at("t4"), at("r4")),
            (at("t3"), at("t4")),
            (at("j3"), at("t3")),
            (at("j2"), at("t2")),
            (at("j1"), at("t1")),
        ];
        expected.truncate(model.last_branches.depth.into());
        assert_eq!(records(&mut machine, expected.len() as u32), expected, "{}", model.name);
    }
}

#[test]
fn nothing_is_recorded_while_the_flag_is_clear() {
    let mut machine = recorded(&SKYLAKE_SERVER, 0, "jmp last");
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(machine.cpu.last_branches, Default::default());
}

#[test]
fn the_filter_keeps_kinds_and_privilege_levels_out() {
    // (MSR_LBR_SELECT, whether the call, the return and the conditional branch of level 0 are recorded)
    let rows = [
        (0u64, [true, true, true]),
        (1, [false, false, false]),
        (2, [true, true, true]),
        (1 << 2, [true, true, false]),
        (1 << 3, [false, true, true]),
        (1 << 5, [true, false, true]),
        (1 << 8, [true, true, true]),
    ];
    for (select, expected) in rows {
        let mut machine = recorded(&SKYLAKE_SERVER, 1, "call f\nxor ebx, ebx\nj: jz last\nnop\nf: ret");
        machine.with(|cpu| cpu.write_msr(msr::MSR_LBR_SELECT, select)).unwrap();
        assert_eq!(machine.run_to_handler(), None);
        let sources: Vec<u64> = records(&mut machine, 3).iter().map(|record| record.0).collect();
        let call = machine.symbol("f") - 1 - 2 - 2 - 5;
        let found = [call, machine.symbol("f"), machine.symbol("j")].map(|source| sources.contains(&source));
        assert_eq!(found, expected, "{select:#x}");
    }
}

#[test]
fn in_call_stack_mode_a_return_takes_its_call_away() {
    let mut machine = recorded(&SKYLAKE_SERVER, 1, "outer: call f\nf: call g\njmp last\ng: ret");
    // Bit 9 with everything but calls filtered: near returns, jumps and conditional branches.
    machine.with(|cpu| cpu.write_msr(msr::MSR_LBR_SELECT, 0x3c4 & !(1 << 5))).unwrap();
    assert_eq!(machine.run_to_handler(), None);
    assert_eq!(records(&mut machine, 1), [(machine.symbol("outer"), machine.symbol("f"))]);
}

#[test]
fn an_interrupt_is_a_branch_and_saves_the_one_before_it() {
    let mut machine = recorded(&SKYLAKE_SERVER, 1, "before: jmp there\nnop\nthere: int 0x80");
    assert_eq!(machine.run_to_handler(), Some(0x80));
    let (before, there) = (machine.symbol("before"), machine.symbol("there"));
    assert_eq!(records(&mut machine, 2), [(there, HANDLERS + 16 * 0x80), (before, there)]);
    let mut read = |index| machine.with(|cpu| cpu.read_msr(index)).unwrap();
    assert_eq!((read(msr::MSR_LER_FROM_LIP), read(msr::MSR_LER_TO_LIP)), (before, there));
}

#[test]
fn a_debug_exception_clears_both_flags_and_is_not_recorded() {
    let mut machine =
        recorded(&SKYLAKE_SERVER, 3, "push 0x102\nthen: jmp stepped\nstepped: popfq\nmov ebx, 1\nj: jmp target\nnop\ntarget: nop");
    assert_eq!(machine.run_to_handler(), Some(1));
    let (j, target) = (machine.symbol("j"), machine.symbol("target"));
    // With BTF, TF traps behind the branch alone.
    assert_eq!((machine.stack(1)[0], machine.cpu.gpr(Gpr::Rbx)), (target, 1));
    assert_eq!(machine.cpu.dr6.into_bits() >> 14 & 1, 1, "BS");
    assert_eq!(machine.cpu.msrs.debugctl, 0);
    assert_eq!(records(&mut machine, 1), [(j, target)]);
    // Without BTF, behind the first instruction.
    let mut machine = recorded(&SKYLAKE_SERVER, 1, "push 0x102\npopfq\nmov ebx, 1\nthere: jmp last");
    assert_eq!(machine.run_to_handler(), Some(1));
    assert_eq!(machine.stack(1)[0], machine.symbol("there"));
}

#[test]
fn records_tell_how_many_cycles_lie_between_them() {
    let mut machine = recorded(&SKYLAKE_SERVER, 1, "jmp a\na: mov eax, 1\nxor ecx, ecx\ncpuid\njmp last");
    assert_eq!(machine.run_to_handler(), None);
    let Branch { cycles, .. } = machine.cpu.last_branches.newest();
    let info = machine.cpu.model.last_branches.info.unwrap();
    let top = machine.with(|cpu| cpu.read_msr(msr::MSR_LASTBRANCH_TOS)).unwrap() as u32;
    assert_eq!(machine.with(|cpu| cpu.read_msr(info + top)), Ok(cycles.into()));
    assert!(cycles >= 10, "CPUID alone takes longer than {cycles}");
}

#[test]
fn what_the_msrs_refuse() {
    // (model, MSR, value, refused)
    let rows = [
        (&SKYLAKE_SERVER, msr::IA32_DEBUGCTL, 3u64, false),
        (&SKYLAKE_SERVER, msr::IA32_DEBUGCTL, 4, true),
        (&SKYLAKE_SERVER, msr::IA32_DEBUGCTL, 1 << 15, true),
        (&SKYLAKE_SERVER, 0x680, 1 << 47, true),
        (&SKYLAKE_SERVER, 0x69f, 0x1234, false),
        (&SKYLAKE_SERVER, 0x6a0, 0, true),
        (&SKYLAKE_SERVER, 0xddf, 0x1_0000, true),
        (&SKYLAKE_SERVER, msr::MSR_LASTBRANCH_TOS, 32, true),
        (&SKYLAKE_SERVER, msr::MSR_LBR_SELECT, 1 << 10, true),
        (&SKYLAKE_SERVER, msr::LASTBRANCHFROMIP, 0, true),
        (&MEROM, 0x43, 0, false),
        (&MEROM, 0x44, 0, true),
        (&MEROM, msr::MSR_LBR_SELECT, 0, true),
        (&ZEN3, msr::IA32_DEBUGCTL, 0x3f, false),
        (&ZEN3, msr::IA32_DEBUGCTL, 0x40, true),
        (&ZEN3, msr::LASTBRANCHFROMIP, 0, true),
    ];
    for (model, index, value, refused) in rows {
        let mut machine = Machine::long_on(model, "hlt");
        let outcome = machine.with(|cpu| cpu.write_msr(index, value));
        assert_eq!(outcome.is_err(), refused, "{} {index:#x} {value:#x}", model.name);
        if !refused {
            assert_eq!(machine.with(|cpu| cpu.read_msr(index)), Ok(value), "{} {index:#x}", model.name);
        }
    }
}

#[test]
fn recording_changes_neither_time_nor_results() {
    let source = "mov ebx, 200\nagain: dec ebx\njnz again";
    let [plain, recording] = [0, 1].map(|bits| {
        let mut machine = recorded(&SKYLAKE_SERVER, bits, source);
        assert_eq!(machine.run_to_handler(), None);
        (machine.cpu.cycles(), machine.cpu.instructions(), machine.cpu.regs)
    });
    assert_eq!(plain, recording);
}
