//! Hardware task switches.
//!
//! What is modelled: SDM vol 3, chapter 8 "Task Management": 8.3 "Task Switching" with the order of its checks (Table 8-1), 8.4 "Task
//! Linking", TSSs of 32 and 16 bits, CR0.TS, the local breakpoints of DR7, the T flag; faults that belong to the new task; APM vol 2,
//! chapter 12 "Task Management". Before a switch begins the silicon may take it away (SDM vol 3, 26.4.2 "Treatment of Task Switches"; APM
//! vol 2, 15.14.1 "Task Switch Intercept"). Nothing is left out.
//!
//! Decisions of ours: the upper halves of registers that a TSS of 16 bits does not hold are zero; a TSS to be left that is too short to
//! take the state is #TS naming it, as is one that no descriptor names; a trap of the task that is left (single step) is lost.

use crate::access::Privilege;
use crate::state::{Cpu, Shadow};
use crate::system::descriptor::Found;
use crate::trap::{Access, Exit, Intercept, Outcome, TaskSwitchSource, Trap};
use isa::debug::{Dr6, Dr7};
use isa::register::Segment;
use isa::rflags::Rflags;
use isa::segment::{Attributes, SegmentRegister, Selector, system};

/// A switch to another task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new task's TSS.
    pub selector: Selector,
    /// What caused it.
    pub source: TaskSwitchSource,
    /// EIP that is saved: where the old task goes on.
    pub back: u64,
    /// EFLAGS that are saved, but for NT, which IRET clears.
    pub flags: Rflags,
    /// Length of the instruction in bytes (0 through a gate by an external event or a fault).
    pub length: u8,
    /// Error code for the new stack, if any.
    pub error_code: Option<u32>,
}

/// Where a TSS holds what a switch saves and loads: words in the order EIP, EFLAGS, general registers, segment registers, LDTR. SDM vol 3,
/// 8.2.1 "Task-State Segment (TSS)" and 8.6 "16-Bit Task-State Segment (TSS)".
struct Format {
    /// Bytes of a word.
    word: u8,
    /// Offset of EIP.
    first: u64,
    /// How many segment registers there are, in the order of their encodings.
    segments: usize,
    /// The lowest limit that will do.
    limit: u32,
}

const TSS32: Format = Format { word: 4, first: 0x20, segments: 6, limit: 0x67 };
const TSS16: Format = Format { word: 2, first: 0x0e, segments: 4, limit: 0x2b };

/// Offset of CR3 in a TSS of 32 bits.
const CR3: u64 = 0x1c;
/// Offset of the word with the T flag, its bit 0, in a TSS of 32 bits.
const TRAP_FLAG: u64 = 0x64;
/// The busy flag in the type of a TSS descriptor.
const BUSY: u8 = 2;
/// The local enables of DR7: L0 to L3 and LE.
const LOCAL_ENABLES: u64 = 0x155;
/// General registers.
const REGISTERS: usize = 8;

impl Format {
    const fn of(kind: u8) -> &'static Self {
        if kind & 8 != 0 { &TSS32 } else { &TSS16 }
    }

    /// Offset of a word.
    const fn offset(&self, index: usize) -> u64 {
        self.first + index as u64 * self.word as u64
    }

    /// How many words are saved: all but LDTR.
    const fn saved(&self) -> usize {
        2 + REGISTERS + self.segments
    }
}

/// The state of a task as its TSS has it.
struct Image {
    cr3: Option<u64>,
    rip: u64,
    flags: Rflags,
    registers: [u64; REGISTERS],
    /// In the order of encodings; those that the TSS does not hold are null.
    segments: [Selector; 6],
    ldtr: Selector,
    traps: bool,
}

impl Cpu {
    /// Switches to another task. `Err` belongs to the old task, nothing of which has changed; a trap inside `Ok` to the new one, which then
    /// waits at its first instruction with as many segment registers as could be loaded.
    pub fn switch_tasks(&mut self, switch: &TaskSwitch) -> Outcome<Option<Trap>> {
        let returns = switch.source == TaskSwitchSource::Iret;
        let releases = matches!(switch.source, TaskSwitchSource::Iret | TaskSwitchSource::Jump);
        let found = self.find_task(switch.selector, returns)?;
        if self.guest_mode && self.interception.has(Intercept::TaskSwitch) {
            return Err(Trap::Exit(Exit::TaskSwitch {
                selector: switch.selector.into_bits(),
                source: switch.source,
                length: switch.length,
                error_code: switch.error_code,
                resume_flag: switch.flags.rf(),
            }));
        }
        let old = self.tr;
        let old_format = Format::of(old.attributes.kind());
        let new = found.descriptor.load(switch.selector);
        let end = old_format.offset(old_format.saved());
        let fault = Trap::ts(old.selector.error_code());
        if !old.is_usable() || end - 1 > u64::from(old.limit) || old.selector.is_null() {
            return Err(fault);
        }
        let released = if releases { Some(self.find_descriptor(old.selector, || fault.clone())?) } else { None };
        // SDM vol 3, 8.3, step 5: everything that will be touched is in memory, so that nothing below fails in the old task.
        self.require_range(old.base.wrapping_add(old_format.first), end - old_format.first, Access::Write)?;
        self.require_range(new.base, u64::from(Format::of(new.attributes.kind()).limit) + 1, Access::Read)?;
        if !releases {
            self.require_range(new.base, 2, Access::Write)?;
        }
        for descriptor in released.iter().chain((!returns).then_some(&found)) {
            self.require_range(descriptor.address.wrapping_add(5), 1, Access::Write)?;
        }

        self.charge(self.model.costs.task_switch.ticks());
        if let Some(released) = released {
            self.set_busy(&released, false)?;
        }
        self.save_task(&old, old_format, switch.back, if returns { switch.flags.with_nt(false) } else { switch.flags })?;
        if !releases {
            self.store_system(self.table_address(new.base), 2, old.selector.into_bits().into())?;
        }
        let mut image = self.read_task(&new)?;
        if !releases {
            image.flags.set_nt(true);
        }
        if !returns {
            self.set_busy(&found, true)?;
        }
        self.tr = new;
        self.tr.attributes.set_kind(new.attributes.kind() | BUSY);
        self.begin_task(&image);
        let fault = self.load_task(&image, switch.error_code).err();
        if fault.is_none() && image.traps {
            self.pending_debug |= Dr6::new().with_bt(true).into_bits();
        }
        self.context_changed();
        Ok(fault)
    }

    /// The descriptor of a TSS that a task switch may go to. SDM vol 3, Table 8-1, rows 1 to 4.
    fn find_task(&mut self, selector: Selector, returns: bool) -> Outcome<Found> {
        let code = selector.error_code();
        let fault = if returns { Trap::ts(code) } else { Trap::gp(code) };
        if selector.ti() || selector.is_null() {
            return Err(fault);
        }
        let found = self.find_descriptor(selector, || fault.clone())?;
        let attributes = found.descriptor.attributes();
        let fits = match attributes.kind() {
            system::TSS_AVAILABLE | system::TSS16_AVAILABLE => !returns,
            system::TSS_BUSY | system::TSS16_BUSY => returns,
            _ => false,
        };
        if attributes.s() || !fits {
            return Err(fault);
        }
        if !attributes.p() {
            return Err(Trap::np(code));
        }
        if found.descriptor.limit() < Format::of(attributes.kind()).limit {
            return Err(Trap::ts(code));
        }
        Ok(found)
    }

    /// The faults that accesses of the processor itself to some bytes would have.
    fn require_range(&mut self, linear: u64, bytes: u64, access: Access) -> Outcome {
        let (first, last) = (self.table_address(linear), self.table_address(linear.wrapping_add(bytes - 1)));
        self.translate(first, access, Privilege::Implicit)?;
        if (first ^ last) >> 12 != 0 {
            self.translate(last, access, Privilege::Implicit)?;
        }
        Ok(())
    }

    fn set_busy(&mut self, found: &Found, busy: bool) -> Outcome {
        let rights = (self.load_system(found.address, 8)? >> 40) as u8;
        let rights = if busy { rights | BUSY } else { rights & !BUSY };
        self.store_system(found.address.wrapping_add(5), 1, rights.into())
    }

    fn save_task(&mut self, task: &SegmentRegister, format: &Format, rip: u64, flags: Rflags) -> Outcome {
        let registers = self.regs;
        let segments = self.segments.map(|segment| u64::from(segment.selector.into_bits()));
        let words = [rip, flags.into_bits()].into_iter().chain(registers.into_iter().take(REGISTERS)).chain(segments);
        for (index, word) in words.take(format.saved()).enumerate() {
            // Only the lower halves of the words of segment registers are written.
            let bytes = if index < 2 + REGISTERS { format.word } else { 2 };
            let at = self.table_address(task.base.wrapping_add(format.offset(index)));
            self.store_system(at, bytes, word & crate::operand::mask(u32::from(bytes) * 8))?;
        }
        Ok(())
    }

    fn read_task(&mut self, task: &SegmentRegister) -> Outcome<Image> {
        let format = Format::of(task.attributes.kind());
        let word = |cpu: &mut Self, index: usize| {
            let at = cpu.table_address(task.base.wrapping_add(format.offset(index)));
            cpu.load_system(at, format.word)
        };
        let selector = |cpu: &mut Self, index: usize| word(cpu, index).map(|word| Selector::from_bits(word as u16));
        let mut image = Image {
            cr3: None,
            rip: word(self, 0)?,
            flags: Rflags::from_bits(word(self, 1)?),
            registers: [0; REGISTERS],
            segments: [Selector::new(); 6],
            ldtr: selector(self, format.saved())?,
            traps: false,
        };
        for (index, register) in image.registers.iter_mut().enumerate() {
            *register = word(self, 2 + index)?;
        }
        for (index, segment) in image.segments.iter_mut().take(format.segments).enumerate() {
            *segment = selector(self, 2 + REGISTERS + index)?;
        }
        if format.word == 4 {
            image.cr3 = Some(self.load_system(self.table_address(task.base.wrapping_add(CR3)), 4)?);
            image.traps = self.load_system(self.table_address(task.base.wrapping_add(TRAP_FLAG)), 2)? & 1 != 0;
        }
        Ok(image)
    }

    /// Loads what cannot fault. Segment registers have their selectors, but nothing can be done with them yet: data segments are unusable, the
    /// code segment is of one byte. The privilege level is told by both CS and SS, as a VMCS wants it.
    fn begin_task(&mut self, image: &Image) {
        self.regs[..REGISTERS].copy_from_slice(&image.registers);
        self.rip = image.rip;
        let v86 = image.flags.vm();
        let load = if v86 { |selector: Selector| SegmentRegister::virtual_8086(selector.into_bits()) } else { SegmentRegister::null };
        self.segments = image.segments.map(load);
        self.ldtr = SegmentRegister::null(image.ldtr);
        let code = image.segments[Segment::Cs.number()];
        self.cpl = if v86 { 3 } else { code.rpl() };
        if !v86 {
            let attributes = Attributes::new().with_kind(11).with_s(true).with_dpl(self.cpl).with_p(true);
            self.segments[Segment::Cs.number()] = SegmentRegister { selector: code, base: 0, limit: 0, attributes };
            self.segments[Segment::Ss.number()].attributes.set_dpl(self.cpl);
        }
        self.set_rflags(image.flags);
        self.cr0.set_ts(true);
        self.dr7 = Dr7::from_bits(self.dr7.into_bits() & !LOCAL_ENABLES);
        self.shadow = Shadow::None;
        self.trace_cancelled = true;
        self.context_changed();
    }

    /// Loads what can fault in the new task. SDM vol 3, Table 8-1, rows 6 to 19.
    fn load_task(&mut self, image: &Image, error_code: Option<u32>) -> Outcome {
        if let Some(cr3) = image.cr3.filter(|cr3| self.cr0.pg() && *cr3 != self.cr3) {
            self.write_cr3(cr3)?;
        }
        if !image.ldtr.is_null() {
            let fault = Trap::ts(image.ldtr.error_code());
            if image.ldtr.ti() {
                return Err(fault);
            }
            let found = self.find_descriptor(image.ldtr, || fault.clone())?;
            let attributes = found.descriptor.attributes();
            if attributes.s() || attributes.kind() != system::LDT || !attributes.p() {
                return Err(fault);
            }
            self.ldtr = found.descriptor.load(image.ldtr);
        }
        if !self.is_v86() {
            let [es, cs, ss, ds, fs, gs] = image.segments;
            self.segments[Segment::Cs.number()] = self.task_code(cs)?;
            self.context_changed();
            self.segments[Segment::Ss.number()] = self.stack_segment(ss, self.cpl, false, Trap::ts)?;
            for (segment, selector) in [(Segment::Es, es), (Segment::Ds, ds), (Segment::Fs, fs), (Segment::Gs, gs)] {
                self.segments[segment.number()] = self.described_segment(segment, selector, Trap::ts)?;
            }
        }
        if let Some(code) = error_code {
            let bytes = Format::of(self.tr.attributes.kind()).word;
            self.push_value(bytes, code.into())?;
        }
        Ok(())
    }

    /// The code segment of a new task, at whose privilege level the processor is already.
    fn task_code(&mut self, selector: Selector) -> Outcome<SegmentRegister> {
        let fault = Trap::ts(selector.error_code());
        if selector.is_null() {
            return Err(fault);
        }
        let found = self.find_descriptor(selector, || fault.clone())?;
        let attributes = found.descriptor.attributes();
        let (dpl, rpl) = (attributes.dpl(), selector.rpl());
        if !attributes.is_code() || if attributes.is_conforming() { dpl > rpl } else { dpl != rpl } {
            return Err(fault);
        }
        if !attributes.p() {
            return Err(Trap::np(selector.error_code()));
        }
        self.access_descriptor(selector, found)
    }
}
