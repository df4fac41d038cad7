//! A generated program as the guest of a small hypervisor in machine code, on either vendor's silicon: VM entries and VM exits in between,
//! with and without VPID, with flushes of the TLB, nested paging, reflected exceptions and a preemption timer.

use crate::choices::Choices;
use crate::place::{Case, MEMORY};
use cpu::Cpu;
use cpu::bus::{Environment, NoDevices};
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector};
use isa::vmx::VmcsField as F;
use machine::Machine;
use models::Vendor;
use std::collections::BTreeMap;
use vmx::{EntryOutcome, Vmx};

/// Where the hypervisor lies, its stack and variables, and its structures: in the supervisor's pages of every address space.
const HOST: u64 = 0x40_4000;
const VARIABLES: u64 = 0x40_5800;
const VMXON: u64 = 0x40_6000;
const CONTROL: u64 = 0x40_7000;
/// Permission maps, of which nothing is refused: ports, MSRs.
const MAPS: u64 = 0x40_8000;
/// Top of the nested tables; two more levels follow, and a page table for each 2 MiB of memory.
const NESTED: u64 = 0x40_c000;

const VMX_HOST: &str = "
    exit:
        push rax
        push rcx
        push rdx
        inc qword [0x405800]
        mov eax, 0x4402
        vmread rcx, rax
        cmp ecx, 0
        je reflect
        cmp ecx, 52
        je timer
        cmp ecx, 10
        je identify
        cmp ecx, 2
        je dead
        cmp ecx, 48
        jae dead
    advance:
        mov eax, 0x440c
        vmread rcx, rax
        mov eax, 0x681e
        vmread rdx, rax
        add rdx, rcx
        vmwrite rax, rdx
    resume:
        pop rdx
        pop rcx
        pop rax
        vmresume
    dead:
        hlt
        jmp dead
    identify:
        pop rdx
        pop rcx
        pop rax
        cpuid
        push rax
        push rcx
        push rdx
        jmp advance
    timer:
        mov rcx, [0x405808]
        mov eax, 0x482e
        vmwrite rax, rcx
        jmp resume
    reflect:
        mov eax, 0x4404
        vmread rcx, rax
        and ecx, 0x80000fff
        mov eax, 0x4016
        vmwrite rax, rcx
        mov eax, 0x4406
        vmread rdx, rax
        mov eax, 0x4018
        vmwrite rax, rdx
        mov eax, 0x6400
        vmread rdx, rax
        cmp cl, 14
        jne resume
        mov cr2, rdx
        jmp resume";

const SVM_HOST: &str = "
    enter:
        mov eax, 0x407000
        vmrun
        push rcx
        push rdx
        inc qword [0x405800]
        mov rcx, [0x407070]
        cmp rcx, 0x40
        jb advance
        cmp rcx, 0x60
        jb reflect
        cmp rcx, 0x72
        je identify
        cmp rcx, 0x7f
        je dead
        cmp rcx, 0x400
        jae dead
    advance:
        mov rdx, [0x4070c8]
        test rdx, rdx
        jnz known
        mov rdx, [0x407578]
        add rdx, 2
    known:
        mov [0x407578], rdx
    resume:
        pop rdx
        pop rcx
        jmp enter
    dead:
        hlt
        jmp dead
    identify:
        pop rdx
        pop rcx
        mov rax, [0x4075f8]
        cpuid
        mov [0x4075f8], rax
        push rcx
        push rdx
        jmp advance
    reflect:
        sub ecx, 0x40
        mov edx, ecx
        or edx, 0x80000300
        cmp ecx, 13
        jb inject
        or edx, 0x800
    inject:
        mov [0x4070a8], edx
        mov rdx, [0x407078]
        mov [0x4070ac], edx
        cmp ecx, 14
        jne resume
        mov rdx, [0x407080]
        mov [0x407640], rdx
        jmp resume";

/// How many exits the hypervisor has seen.
pub fn exits(machine: &Machine) -> u64 {
    machine.memory.read_u64(VARIABLES).expect("it lies in RAM")
}

/// How the guest is run.
struct Controls {
    tagged: bool,
    nested: bool,
    flush: u8,
    reflected: u32,
    time_stamp: bool,
    timer: u64,
}

impl Controls {
    fn new(choices: &mut Choices<'_>) -> Self {
        Self {
            tagged: choices.one_in(2),
            nested: choices.one_in(2),
            flush: choices.pick(&[0, 0, 1, 3]),
            // #DE, #UD, #GP, #PF.
            reflected: choices.pick(&[0, 0, 1 << 6, 1 << 14, 1 << 13 | 1 << 6, 1 << 14 | 1 << 13 | 1 << 6 | 1]),
            time_stamp: choices.one_in(2),
            timer: choices.pick(&[0, 0, 7, 300]),
        }
    }
}

/// The machine of a case, its first processor's program a guest.
pub fn hosted(case: &Case, choices: &mut Choices<'_>) -> Machine {
    let mut machine = case.machine();
    let controls = Controls::new(choices);
    let vendor = machine.cpus[0].model.vendor;
    let text = if vendor == Vendor::Intel { VMX_HOST } else { SVM_HOST };
    let options = assembler::Options { origin: HOST, ..assembler::Options::default() };
    let program = assembler::assemble(text, &options).expect("the hypervisor assembles");
    machine.memory.write(HOST, &program.bytes).expect("it lies in RAM");
    machine.memory.write_u64(VARIABLES + 8, controls.timer).expect("it lies in RAM");
    if controls.nested {
        map_nested(&mut machine, vendor);
    }
    let Machine { cpus, memory, code, .. } = &mut machine;
    let cpu = &mut cpus[0];
    let mut environment = Environment { memory, code, bus: &mut NoDevices };
    cpu.with_environment(&mut environment, |cpu| match vendor {
        Vendor::Intel => Vmx::with(cpu, |vmx, cpu| launch(vmx, cpu, &controls, &program.symbols)).expect("the processor has VMX"),
        Vendor::Amd => prepare_vmcb(cpu, &controls),
    });
    machine
}

/// Maps guest-physical memory to itself.
fn map_nested(machine: &mut Machine, vendor: Vendor) {
    // EPT: read, write, execute, write-back; nested paging: present, writable, user.
    let (table, page) = if vendor == Vendor::Intel { (7, 0x37) } else { (7, 7) };
    let mut put = |address: u64, value: u64| machine.memory.write_u64(address, value).expect("it lies in RAM");
    put(NESTED, (NESTED + 0x1000) | table);
    put(NESTED + 0x1000, (NESTED + 0x2000) | table);
    // The APIC's page.
    put(NESTED + 0x1018, (NESTED + 0x3000) | table);
    put(NESTED + 0x3000 + 8 * 0x1f7, 0xfee0_0000 | page & !0x30 | 0x80);
    for number in 0..MEMORY.div_ceil(1 << 21) {
        // The last lies behind what the guest's own tables use: see `MEMORY`.
        let tables = NESTED_PAGES + 0x1000 * number;
        put(NESTED + 0x2000 + 8 * number, tables | table);
        for entry in 0..512 {
            put(tables + 8 * entry, number << 21 | entry << 12 | page);
        }
    }
}

/// Where the page tables of nested paging lie.
const NESTED_PAGES: u64 = 0x42_8000;

fn segment_fields() -> [(Segment, [F; 4]); 6] {
    [
        (Segment::Es, [F::GuestEsSelector, F::GuestEsBase, F::GuestEsLimit, F::GuestEsAccessRights]),
        (Segment::Cs, [F::GuestCsSelector, F::GuestCsBase, F::GuestCsLimit, F::GuestCsAccessRights]),
        (Segment::Ss, [F::GuestSsSelector, F::GuestSsBase, F::GuestSsLimit, F::GuestSsAccessRights]),
        (Segment::Ds, [F::GuestDsSelector, F::GuestDsBase, F::GuestDsLimit, F::GuestDsAccessRights]),
        (Segment::Fs, [F::GuestFsSelector, F::GuestFsBase, F::GuestFsLimit, F::GuestFsAccessRights]),
        (Segment::Gs, [F::GuestGsSelector, F::GuestGsBase, F::GuestGsLimit, F::GuestGsAccessRights]),
    ]
}

/// What the guest begins with, in the words of the VMCS.
fn guest_state(cpu: &Cpu) -> Vec<(F, u64)> {
    let mut values = vec![
        (F::VmcsLinkPointer, u64::MAX),
        (F::GuestCr0, cpu.cr0.into_bits()),
        (F::GuestCr3, cpu.cr3),
        (F::GuestCr4, cpu.cr4.into_bits() | 1 << 13),
        (F::GuestDr7, 0x400),
        (F::GuestRip, cpu.rip),
        (F::GuestRsp, cpu.regs[4]),
        (F::GuestRflags, cpu.rflags().into_bits()),
        (F::GuestGdtrBase, cpu.gdtr.base),
        (F::GuestGdtrLimit, cpu.gdtr.limit.into()),
        (F::GuestIdtrBase, cpu.idtr.base),
        (F::GuestIdtrLimit, cpu.idtr.limit.into()),
        (F::GuestLdtrAccessRights, 0x1_0000),
    ];
    let tr = (cpu.tr, [F::GuestTrSelector, F::GuestTrBase, F::GuestTrLimit, F::GuestTrAccessRights]);
    for (register, fields) in segment_fields().map(|(segment, fields)| (cpu.segments[segment as usize], fields)).into_iter().chain([tr]) {
        let SegmentRegister { selector, base, limit, attributes } = register;
        values.extend(fields.into_iter().zip([selector.into_bits().into(), base, limit.into(), attributes.into_bits().into()]));
    }
    values
}

/// Enters the guest, whose exits come to the hypervisor.
fn launch(vmx: &mut Vmx, cpu: &mut Cpu, controls: &Controls, labels: &BTreeMap<String, u64>) {
    let guest = guest_state(cpu);
    let (gdtr, idtr, tr, cr3, efer) = (cpu.gdtr, cpu.idtr, cpu.tr, cpu.cr3, cpu.efer);
    vmx.prepare_rust_host(cpu);
    cpu.rust_host = false;
    (cpu.gdtr, cpu.idtr, cpu.tr, cpu.cr3, cpu.efer) = (gdtr, idtr, tr, cr3, efer);
    cpu.flush_tlb();
    let revision = u64::from(vmx.capabilities().basic.revision());
    cpu.write_physical(VMXON, 4, revision);
    cpu.write_physical(CONTROL, 4, revision);
    vmx.vmxon(cpu, VMXON).expect("VMXON");
    vmx.vmclear(cpu, CONTROL).expect("VMCLEAR");
    vmx.vmptrld(cpu, CONTROL).expect("VMPTRLD");
    vmx.write_host_state(cpu).expect("the host's state");
    let capabilities = vmx.capabilities().clone();
    let has_secondary = capabilities.primary.adjust(1 << 31) >> 31 != 0;
    // EPT needs "IA-32e mode guest" only, VPID nothing.
    let wanted = u32::from(controls.nested) << 1 | u32::from(controls.tagged) << 5;
    let secondary = if has_secondary { capabilities.secondary.adjust(wanted) } else { 0 };
    let msr_bitmaps = capabilities.primary.adjust(1 << 28) & 1 << 28;
    let primary = u32::from(has_secondary) << 31 | 1 << 7 | msr_bitmaps | u32::from(controls.time_stamp) << 12;
    let pin = u32::from(controls.timer != 0) << 6;
    let mut values = vec![
        (F::HostRip, labels["exit"]),
        (F::HostRsp, VARIABLES),
        (F::PinBasedControls, capabilities.pin_based.adjust(pin).into()),
        (F::PrimaryProcessorBasedControls, capabilities.primary.adjust(primary).into()),
        (F::PrimaryExitControls, capabilities.exit.adjust(1 << 9).into()),
        (F::EntryControls, capabilities.entry.adjust(1 << 9).into()),
        (F::ExceptionBitmap, controls.reflected.into()),
        (F::PageFaultErrorCodeMask, 0),
        (F::PageFaultErrorCodeMatch, 0),
    ];
    if has_secondary {
        values.push((F::SecondaryProcessorBasedControls, secondary.into()));
    }
    if secondary >> 1 & 1 != 0 {
        values.push((F::EptPointer, NESTED | 0x1e));
    }
    if secondary >> 5 & 1 != 0 {
        values.push((F::VirtualProcessorIdentifier, 3));
    }
    if msr_bitmaps != 0 {
        values.push((F::MsrBitmapAddress, MAPS));
    }
    if capabilities.pin_based.adjust(pin) >> 6 & 1 != 0 {
        values.push((F::VmxPreemptionTimerValue, controls.timer));
    }
    for (field, value) in values.into_iter().chain(guest) {
        vmx.vmwrite(cpu, field, value).unwrap_or_else(|fail| panic!("VMWRITE {field}: {fail}"));
    }
    match vmx.vmlaunch(cpu) {
        Ok(EntryOutcome::Entered) => {}
        other => panic!("{other:?}: {:x?}", vmx.explain(cpu)),
    }
}

/// Fills the VMCB; the hypervisor enters the guest.
fn prepare_vmcb(cpu: &mut Cpu, controls: &Controls) {
    let mut put = |offset: u64, bytes: u8, value: u64| cpu.write_physical(CONTROL + offset, bytes, value);
    put(0x08, 4, controls.reflected.into());
    // CPUID and RDTSC; VMRUN and VMMCALL.
    put(0x0c, 4, 1 << 18 | u64::from(controls.time_stamp) << 14);
    put(0x10, 4, 3);
    put(0x40, 8, MAPS);
    put(0x48, 8, MAPS);
    put(0x58, 4, 1);
    let features = cpu.model.svm.expect("the model has SVM").features;
    let nested = controls.nested && features.nested_paging();
    let mut put = |offset: u64, bytes: u8, value: u64| cpu.write_physical(CONTROL + offset, bytes, value);
    put(0x5c, 1, if controls.flush == 3 && !features.flush_by_asid() { 1 } else { controls.flush.into() });
    put(0x90, 8, nested.into());
    put(0xb0, 8, NESTED);
    let segments =
        [Segment::Es, Segment::Cs, Segment::Ss, Segment::Ds, Segment::Fs, Segment::Gs].map(|segment| cpu.segments[segment as usize]);
    for (number, register) in segments.into_iter().enumerate() {
        let at = CONTROL + 0x400 + 16 * number as u64;
        let attributes = u64::from(register.attributes.into_bits());
        cpu.write_physical(at, 2, register.selector.into_bits().into());
        cpu.write_physical(at + 2, 2, attributes & 0xff | attributes >> 4 & 0xf00);
        cpu.write_physical(at + 4, 4, register.limit.into());
        cpu.write_physical(at + 8, 8, register.base);
    }
    for (offset, table) in [(0x460, cpu.gdtr), (0x480, cpu.idtr)] {
        cpu.write_physical(CONTROL + offset + 4, 4, table.limit.into());
        cpu.write_physical(CONTROL + offset + 8, 8, table.base);
    }
    let values = [
        (0x4d0, cpu.efer.into_bits() | 1 << 12),
        (0x548, cpu.cr4.into_bits()),
        (0x550, cpu.cr3),
        (0x558, cpu.cr0.into_bits()),
        (0x560, 0x400),
        (0x568, 0xffff_0ff0),
        (0x570, cpu.rflags().into_bits()),
        (0x578, cpu.rip),
        (0x5d8, cpu.regs[4]),
        (0x668, 0x0007_0406_0007_0406),
    ];
    for (offset, value) in values {
        cpu.write_physical(CONTROL + offset, 8, value);
    }
    cpu.write_physical(CONTROL + 0x4cb, 1, cpu.cpl.into());
    // The hypervisor runs where a supervisor's program would.
    cpu.efer = cpu.efer.with_svme(true);
    for (number, segment) in cpu.segments.iter_mut().enumerate() {
        let (selector, attributes) = if number == Segment::Cs as usize { (8, 0xa09b) } else { (16, 0xc093) };
        segment.selector = Selector::from_bits(selector);
        segment.attributes = Attributes::from_bits(attributes);
    }
    cpu.cpl = 0;
    cpu.set_rflags(Rflags::from_bits(2));
    cpu.flush_tlb();
    cpu.rip = HOST;
    cpu.regs[4] = VARIABLES;
}
