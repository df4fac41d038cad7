//! One harness for both backends: every method of the trait, asked on the silicon itself.

use super::svm::SvmBackend;
use super::vmx::VmxBackend;
use super::{Backend, TscSetting, Window};
use crate::exit::Exit;
use crate::ledger::Move;
use crate::policy::Policy;
use crate::state::Registers;
use crate::vm::{Options, Vm, VmConfig};
use cpu::RunExit;
use cpu::bus::Environment;
use cpu::state::{Cpu, Shadow};
use cpu::trap::{Event, EventKind};
use isa::register::{Gpr, Segment};
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector, TableRegister};
use models::{CpuModel, Vendor};

/// Where the guest's code is.
const CODE: u64 = 0x10_0000;
/// Where its IDT is, whose gates all lead to `HANDLER`.
const IDT: u64 = 0x8000;
const HANDLER: u64 = 0x10_1000;

/// A guest with these bytes at [`CODE`], HLT at [`HANDLER`], flat 32-bit protected mode without paging.
fn guest<B: Backend>(model: &'static CpuModel, code: &[u8]) -> Vm<B> {
    let options = Options::default();
    let mut vm = Vm::<B>::new(&VmConfig { policy: Policy::TrapAndPatch, options, ..VmConfig::new(model) }).unwrap();
    vm.write_memory(CODE, code).unwrap();
    vm.write_memory(HANDLER, &[0xf4]).unwrap();
    vm.write_memory(0x7000, &[0; 8]).unwrap();
    vm.write_memory(0x7008, &0x00cf_9b00_0000_ffff_u64.to_le_bytes()).unwrap();
    for vector in 0..256_u64 {
        let gate = HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48;
        vm.write_memory(IDT + 8 * vector, &gate.to_le_bytes()).unwrap();
    }
    let mut registers = vm.registers(0);
    let flat = |selector: u16, rights: u32| SegmentRegister {
        selector: Selector::from_bits(selector),
        base: 0,
        limit: u32::MAX,
        attributes: Attributes::from_bits(rights),
    };
    registers.segments = [flat(16, 0xc093); 6];
    registers.segments[Segment::Cs as usize] = flat(8, 0xc09b);
    registers.cr0 = registers.cr0.with_pe(true).with_cd(false).with_nw(false);
    registers.gdtr = TableRegister { base: 0x7000, limit: 15 };
    registers.idtr = TableRegister { base: IDT, limit: 0x7ff };
    registers.rip = CODE;
    registers.gprs[Gpr::Rsp.number()] = 0x6ff0;
    vm.set_registers(0, &registers);
    vm
}

/// Enters, runs until the exit, and reports it.
fn exit<B: Backend>(vm: &mut Vm<B>) -> crate::exit::Report {
    assert!(vm.silicon_charged(0, |backend, cpu| backend.enter(cpu)).unwrap(), "{:?}", explain(vm));
    let mut devices = crate::emulator::NoDevices;
    let mut bus = crate::emulator::DeviceBus(&mut devices);
    let mut environment = Environment { memory: &mut vm.memory, code: &mut vm.code, bus: &mut bus };
    assert_eq!(vm.cpus[0].run(&mut environment, u64::MAX, 10_000), RunExit::HostEntry);
    vm.silicon(0, |backend, cpu| backend.report(cpu))
}

fn explain<B: Backend>(vm: &mut Vm<B>) -> Vec<String> {
    vm.silicon(0, |backend, cpu| backend.explain(cpu))
}

/// The backend and the processor of the only virtual CPU.
fn ask<B: Backend, T>(vm: &mut Vm<B>, call: impl FnOnce(&mut B, &mut Cpu) -> T) -> T {
    vm.silicon(0, call)
}

/// What a backend must do, method by method.
fn conforms<B: Backend>(model: &'static CpuModel) {
    life::<B>(model);
    run_and_report::<B>(model);
    events::<B>(model);
    policy::<B>(model);
    state::<B>(model);
}

/// `nested_format`, `create`, `destroy`.
fn life<B: Backend>(model: &'static CpuModel) {
    let format = B::nested_format(model).unwrap();
    assert!(matches!(format.largest, 21 | 30));
    let page = (format.page)(0x20_0000, true, true);
    assert_eq!(page & 0x000f_ffff_ffff_f000, 0x20_0000);
    assert_ne!(page, (format.page)(0x20_0000, true, false), "rights make a difference");
    let Vm { mut cpus, vcpus, mut memory, mut code, .. } = guest::<B>(model, &[0xf4]);
    let mut devices = crate::emulator::NoDevices;
    let mut bus = crate::emulator::DeviceBus(&mut devices);
    let mut environment = Environment { memory: &mut memory, code: &mut code, bus: &mut bus };
    for vcpu in vcpus {
        cpus[0].with_environment(&mut environment, |cpu| vcpu.backend.destroy(cpu));
    }
    assert!(!cpus[0].efer.svme());
}

/// `enter`, `report`, `rip`, `set_rip`, `rflags`, `is_64bit`, `long_mode`, `cpl`, `explain`.
fn run_and_report<B: Backend>(model: &'static CpuModel) {
    // stc; cpuid; native hypercall; hlt
    let mut code = vec![0xf9, 0x0f, 0xa2];
    code.extend(B::HYPERCALL);
    code.push(0xf4);
    let mut vm = guest::<B>(model, &code);
    let report = exit(&mut vm);
    assert_eq!((report.exit, report.rip, report.length), (Exit::Cpuid, CODE + 1, Some(2)));
    assert_eq!(ask(&mut vm, |backend, _| backend.rip()), CODE + 1);
    assert!(ask(&mut vm, |backend, cpu| backend.rflags(cpu)).cf());
    assert!(!ask(&mut vm, |backend, cpu| backend.is_64bit(cpu) || backend.long_mode(cpu)));
    assert_eq!(ask(&mut vm, |backend, cpu| backend.cpl(cpu)), 0);
    ask(&mut vm, |backend, cpu| backend.set_rip(cpu, CODE + 3));
    assert_eq!(exit(&mut vm).exit, Exit::Hypercall);
    ask(&mut vm, |backend, cpu| backend.set_rip(cpu, CODE + 6));
    assert_eq!(exit(&mut vm).exit, Exit::Halt);
    // A state that no processor takes: reserved bits of CR3, say, or an EFER that contradicts CR0.
    let mut registers = vm.registers(0);
    registers.efer = registers.efer.with_lme(true).with_lma(true);
    registers.cr0 = registers.cr0.with_pg(true);
    registers.cr4 = registers.cr4.with_pae(false);
    vm.set_registers(0, &registers);
    assert_eq!(ask(&mut vm, |backend, cpu| backend.enter(cpu)), Ok(false));
    assert_eq!(ask(&mut vm, |backend, cpu| backend.report(cpu)).exit, Exit::EntryFailure);
    assert!(!explain(&mut vm).is_empty());
}

/// `interrupted`, `window`, `request_window`, `inject`, `injected`, `set_exception_state`, `shadow`, `set_shadow`.
fn events<B: Backend>(model: &'static CpuModel) {
    let event = |kind, vector, error_code| Event { kind, vector, error_code, length: 0 };
    // An exception is delivered with its error code, and CR2 is there.
    let mut vm = guest::<B>(model, &[0xf4]);
    ask(&mut vm, |backend, cpu| {
        backend.set_exception_state(cpu, Some(0x1234), 0);
        backend.inject(cpu, &event(EventKind::Exception, 14, Some(2)));
    });
    assert_eq!(ask(&mut vm, |backend, _| backend.injected()), (0x8000_0b0e, 2));
    assert_eq!(exit(&mut vm).rip, HANDLER);
    assert_eq!(ask(&mut vm, |backend, _| backend.injected()), (0, 0));
    let registers = vm.registers(0);
    assert_eq!(registers.cr2, 0x1234);
    let mut pushed = [0; 8];
    vm.read_memory(registers.gprs[Gpr::Rsp.number()], &mut pushed).unwrap();
    assert_eq!((pushed[..4].to_vec(), pushed[4..].to_vec()), (vec![2, 0, 0, 0], (CODE as u32).to_le_bytes().to_vec()));

    // Nothing can be taken with IF clear, or in a shadow; a window is told of when that ends.
    // sti; nop; hlt
    let mut vm = guest::<B>(model, &[0xfb, 0x90, 0xf4]);
    assert_eq!(ask(&mut vm, |backend, cpu| backend.window(cpu)), Window { interrupt: false, nmi: true });
    ask(&mut vm, |backend, cpu| backend.request_window(cpu, Window { interrupt: true, nmi: false }));
    let report = exit(&mut vm);
    assert_eq!((report.exit, report.rip), (Exit::InterruptWindow, CODE + 2));
    assert_eq!(ask(&mut vm, |backend, cpu| backend.window(cpu)), Window { interrupt: true, nmi: true });
    ask(&mut vm, |backend, cpu| backend.set_shadow(cpu, Shadow::Sti));
    // AMD has one bit, which is taken for the stronger kind.
    let kept = if B::VENDOR == Vendor::Intel { Shadow::Sti } else { Shadow::MovSs };
    assert_eq!(ask(&mut vm, |backend, cpu| backend.shadow(cpu)), kept);
    assert!(!ask(&mut vm, |backend, cpu| backend.window(cpu)).interrupt);
    ask(&mut vm, |backend, cpu| {
        backend.set_shadow(cpu, Shadow::None);
        backend.request_window(cpu, Window { interrupt: false, nmi: false });
        backend.inject(cpu, &event(EventKind::External, 0x55, None));
    });
    assert_eq!(exit(&mut vm).rip, HANDLER);

    // An NMI blocks NMIs.
    let mut vm = guest::<B>(model, &[0xf4]);
    ask(&mut vm, |backend, cpu| backend.inject(cpu, &event(EventKind::Nmi, 2, None)));
    assert_eq!(exit(&mut vm).rip, HANDLER);
    assert!(!ask(&mut vm, |backend, cpu| backend.window(cpu)).nmi);

    // A delivery that exits is told of: the IDT lies where no memory is.
    let mut vm = guest::<B>(model, &[0xf4]);
    let mut registers = vm.registers(0);
    registers.idtr.base = 0x900_0000;
    registers.rflags = registers.rflags.with_if(true);
    vm.set_registers(0, &registers);
    let interrupt = event(EventKind::External, 0x55, None);
    ask(&mut vm, |backend, cpu| backend.inject(cpu, &interrupt));
    let report = exit(&mut vm);
    assert!(matches!(report.exit, Exit::NestedFault { guest_physical: 0x900_02a8, .. }), "{report:x?}");
    assert_eq!(ask(&mut vm, |backend, cpu| backend.interrupted(cpu)), Some(interrupt));
}

/// `intercept_exceptions`, `flush`, `set_tsc`, `task_priority`, `set_task_priority`.
fn policy<B: Backend>(model: &'static CpuModel) {
    // ud2; and behind the handler's HLT nothing.
    let mut vm = guest::<B>(model, &[0x0f, 0x0b]);
    assert!(matches!(exit(&mut vm).exit, Exit::Exception { vector: 6, error_code: None, .. }));
    ask(&mut vm, |backend, cpu| backend.intercept_exceptions(cpu, 0));
    assert_eq!(exit(&mut vm).rip, HANDLER);

    // Mappings that are gone are still used until they are flushed. mov eax, [0x200000]; hlt
    let mut vm = guest::<B>(model, &[0xa1, 0, 0, 0x20, 0, 0xf4]);
    assert_eq!(exit(&mut vm).exit, Exit::Halt);
    let mappings = vm.zap();
    assert!(mappings > 0);
    ask(&mut vm, |backend, cpu| {
        backend.set_rip(cpu, CODE);
        backend.flush(cpu);
    });
    assert!(matches!(exit(&mut vm).exit, Exit::NestedFault { .. }));

    // rdtsc; hlt
    let mut vm = guest::<B>(model, &[0x0f, 0x31, 0xf4]);
    assert!(ask(&mut vm, |backend, cpu| backend.set_tsc(cpu, TscSetting { offset: 5 << 32, ratio: 1 << 32 })));
    exit(&mut vm);
    assert_eq!(vm.registers(0).gprs[Gpr::Rdx.number()], 5);

    // mov eax, cr8 needs 64-bit mode; what the silicon was told is what it tells.
    ask(&mut vm, |backend, cpu| backend.set_task_priority(cpu, 7));
    let told = ask(&mut vm, |backend, cpu| backend.task_priority(cpu));
    assert!(told.is_none_or(|class| class == 7));
}

/// `load` and `save`: what goes in comes out, but for what the table says.
fn state<B: Backend>(model: &'static CpuModel) {
    let mut vm = guest::<B>(model, &[0xf4]);
    let mut registers = vm.registers(0);
    for (number, gpr) in registers.gprs.iter_mut().enumerate() {
        *gpr = 0x1111_1111_1111_1111 * number as u64;
    }
    registers.cr3 = 0x5000;
    registers.cr2 = 0x77;
    registers.dr[2] = 0x88;
    registers.msrs.star = 9;
    registers.msrs.lstar = 0xffff_8000_0000_0000;
    registers.msrs.kernel_gs_base = 10;
    registers.msrs.sysenter_eip = 0x4000;
    registers.msrs.pat = 0x0007_0406_0007_0106;
    registers.xmm[15] = [1, 2];
    registers.rflags = Rflags::from_bits(0x246);
    registers.segments[Segment::Fs as usize].base = 0x1_0000;
    registers.shadow = Shadow::Sti;
    registers.nmi_blocked = true;
    ask(&mut vm, |backend, cpu| backend.load(cpu, &registers));
    let saved: Registers = ask(&mut vm, |backend, cpu| backend.save(cpu));
    foretold(&vm, &registers, &saved);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        let registers = shuffled(&registers, &mut random);
        ask(&mut vm, |backend, cpu| backend.load(cpu, &registers));
        let saved: Registers = ask(&mut vm, |backend, cpu| backend.save(cpu));
        foretold(&vm, &registers, &saved);
    }
}

/// Every difference is in the ledger, and what is there differs. The record is that of a guest of the other vendor, which keeps less.
fn foretold<B: Backend>(vm: &Vm<B>, registers: &Registers, saved: &Registers) {
    let guest = vm.common.guest();
    let record = Move {
        registers,
        software: &vm.vcpus[0].software,
        guest: &guest,
        from: vm.model(),
        to: vm.model(),
        to_shadow: false,
        memory: vm.memory(),
    };
    let told: Vec<&str> = record.losses().iter().map(|entry| entry.tag).collect();
    let differ = registers.differences(saved);
    for tag in &differ {
        assert!(told.contains(tag), "{tag} differs and is not told of:\n{registers:x?}\n{saved:x?}");
    }
    for tag in told.iter().filter(|tag| **tag != "pdptes") {
        assert!(differ.contains(tag), "{tag} is told of and does not differ:\n{registers:x?}\n{saved:x?}");
    }
}

/// Registers with one thing or another that some vendor cannot hold.
fn shuffled(base: &Registers, random: &mut u64) -> Registers {
    let mut next = |bound: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        (*random >> 20) % bound
    };
    let mut registers = base.clone();
    registers.cpl = [0, 3][next(2) as usize];
    for segment in &mut registers.segments {
        let attributes = segment.attributes.with_kind(next(16) as u8).with_p(next(6) != 0).with_unusable(next(6) == 0);
        segment.attributes = attributes.with_s(true).with_dpl(next(4) as u8);
        segment.limit = [0xffff, u32::MAX, 0xfff, 0x1234_5fff][next(4) as usize];
        segment.attributes.set_g(next(2) == 0);
    }
    registers.ldtr.attributes = registers.ldtr.attributes.with_unusable(next(2) == 0).with_p(next(2) == 0);
    registers.tr.attributes = registers.tr.attributes.with_kind([9, 11][next(2) as usize]);
    registers.shadow = [Shadow::None, Shadow::Sti, Shadow::MovSs][next(3) as usize];
    registers.nmi_blocked = next(2) == 0;
    registers.pending_debug = [0, 1 << 14, 2][next(3) as usize];
    registers.pkru = next(3) as u32;
    registers.xcr0 = [1, 3, 0x203][next(3) as usize];
    registers.msrs.sysenter_esp = [0x4000, 0xffff_8000_0000_4000][next(2) as usize];
    registers.msrs.sysenter_eip = [0x4000, 0xffff_8000_0000_4000][next(2) as usize];
    registers.msrs.debugctl = [0, 1, 3, 0x3c][next(4) as usize];
    registers.msrs.amd = [next(2), next(2), next(2)];
    registers.msrs.machine_check[3][2] = next(100);
    registers
}

#[test]
fn vmx_conforms() {
    conforms::<VmxBackend>(&models::SKYLAKE_SERVER);
}

#[test]
fn svm_conforms() {
    conforms::<SvmBackend>(&models::ZEN3);
}

/// Without unrestricted guests the hypervisor knows beforehand what VM entry would refuse: the silicon's own checks agree.
#[test]
fn vmx_refuses_what_the_hypervisor_says_it_does() {
    let mut vm = guest::<VmxBackend>(&models::SKYLAKE_SERVER, &[0xf4]);
    let mut restricted = Vm::<VmxBackend>::new(&VmConfig {
        options: Options { unrestricted_guest: false, ..Options::default() },
        ..VmConfig::new(&models::SKYLAKE_SERVER)
    })
    .unwrap();
    let fresh = vm.registers(0);
    let mut random = 0x1234_5678_9abc_def1_u64;
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..4000 {
        let mut bits = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 20
        };
        let mut registers = fresh.clone();
        registers.cpl = if bits() % 3 == 0 { 3 } else { 0 };
        for (index, segment) in registers.segments.iter_mut().enumerate() {
            let code = index == Segment::Cs as usize;
            // Few bits differ from a valid state, or hardly one would be.
            let kind = match bits() % 8 {
                0 => bits() as u8 & 15 | 2,
                _ if code => [11, 15][bits() as usize & 1],
                _ => 3,
            };
            let kind = if index == Segment::Ss as usize { 3 } else { kind };
            let odd = bits() % 6 == 0;
            segment.selector = segment.selector.with_rpl(if odd { bits() as u8 & 3 } else { registers.cpl });
            let level = if bits() % 6 == 0 { bits() as u8 & 3 } else { registers.cpl };
            segment.attributes = segment.attributes.with_kind(kind).with_dpl(level);
        }
        let (refuses, why) = restricted.silicon(0, |backend, cpu| {
            backend.load(cpu, &registers);
            (backend.refuses(cpu), backend.explain(cpu))
        });
        assert_eq!(refuses, !why.is_empty(), "{:?}\n{why:?}", registers.segments);
        if refuses { refused += 1 } else { taken += 1 }
    }
    assert!(refused > 500 && taken > 100, "{refused} refused, {taken} taken");
    // Real mode is refused always, and with unrestricted guests nothing is emulated.
    let mut real = fresh.clone();
    real.cr0 = real.cr0.with_pe(false);
    for (vm, expected) in [(&mut restricted, true), (&mut vm, false)] {
        let refuses = vm.silicon(0, |backend, cpu| {
            backend.load(cpu, &real);
            backend.refuses(cpu)
        });
        assert_eq!(refuses, expected);
    }
}

/// What the processor has instead of the guest's CR3, EFER and CR4 without paging never shows.
#[test]
fn paging_that_the_guest_has_off_is_hidden_from_it() {
    let mut vm = Vm::<VmxBackend>::new(&VmConfig {
        options: Options { unrestricted_guest: false, ..Options::default() },
        ..VmConfig::new(&models::SKYLAKE_SERVER)
    })
    .unwrap();
    let mut registers = guest::<VmxBackend>(&models::SKYLAKE_SERVER, &[]).registers(0);
    registers.cr3 = 0x5000;
    registers.cr4 = registers.cr4.with_pae(true).with_pge(true);
    registers.efer = registers.efer.with_lme(true);
    vm.set_registers(0, &registers);
    // MOV EAX, CR3; MOV EBX, CR4; HLT.
    vm.write_memory(CODE, &[0x0f, 0x20, 0xd8, 0x0f, 0x20, 0xe3, 0xf4]).unwrap();
    vm.run(&mut trace::Ignore, &crate::run::Limits { instructions: 100, cycles: 1_000_000, exits: 100 });
    let seen = vm.registers(0);
    assert_eq!((seen.gprs[0], seen.gprs[3]), (0x5000, registers.cr4.into_bits()));
    assert_eq!((seen.cr3, seen.cr4, seen.efer, seen.cr0), (registers.cr3, registers.cr4, registers.efer, registers.cr0));
}
