//! Accesses to memory that cannot be served inline: translation, page crossing, devices, code pages, breakpoints.
//!
//! What is modelled: linear and physical accesses of 1 to 8 bytes and of byte strings, in the order that faults must appear: both pages of
//! a crossing access are translated before a byte is written. RAM ends where `memory` ends, and 0xC0000000 to 0xFFFFFFFF is never RAM.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`: it dereferences the environment of the present run and the host
//! pointers of pages.
#![expect(unsafe_code, reason = "host pointers to guest pages, and the environment of the present run")]

use crate::block::lines_of;
use crate::bus::Environment;
use crate::state::Cpu;
use crate::tlb::{CodePageEntry, EMPTY, FetchPage, SoftwareEntry, SoftwareTlb, Translation};
use crate::trap::{Access, Exception, Exit, Outcome, Trap};
use isa::debug::BreakpointKind;
use isa::exception::Vector;
use isa::paging::{PAGE_BYTES, is_canonical};

/// First address of the hole below 4 GiB in which devices answer.
pub const DEVICE_HOLE_START: u64 = 0xc000_0000;
/// First address behind the hole.
pub const DEVICE_HOLE_END: u64 = 0x1_0000_0000;

/// In whose name an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// A program at CPL 3.
    User,
    /// A program at CPL 0 to 2.
    Supervisor,
    /// The processor itself (descriptor tables, TSS, stacks of inner levels): supervisor, and RFLAGS.AC does not lift SMAP.
    Implicit,
}

/// Reads 1, 2, 4 or 8 bytes, each width by one load.
///
/// # Safety
/// The bytes must lie in one page of guest memory that stands.
#[inline(always)]
unsafe fn read_host(pointer: *const u8, bytes: u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        match bytes {
            1 => u64::from(*pointer),
            2 => u64::from(pointer.cast::<u16>().read_unaligned()),
            4 => u64::from(pointer.cast::<u32>().read_unaligned()),
            _ => pointer.cast::<u64>().read_unaligned(),
        }
    }
}

/// Writes 1, 2, 4 or 8 bytes, each width by one store.
///
/// # Safety
/// As for [`read_host`], and nobody may have borrowed the bytes.
#[inline(always)]
unsafe fn write_host(pointer: *mut u8, bytes: u8, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        match bytes {
            1 => *pointer = value as u8,
            2 => pointer.cast::<u16>().write_unaligned(value as u16),
            4 => pointer.cast::<u32>().write_unaligned(value as u32),
            _ => pointer.cast::<u64>().write_unaligned(value),
        }
    }
}

impl Cpu {
    /// Everything outside, during a run.
    pub(crate) fn environment(&mut self) -> &mut Environment<'static> {
        // SAFETY: `Cpu::run` sets the pointer from a reference that outlives the run and clears it afterwards; every caller of this
        // method is reached from `Cpu::run` or from `Cpu::with_environment`, and holds no other reference into the environment.
        unsafe { self.environment.as_mut().expect("an access to memory outside a run") }
    }

    /// Lets a closure use this processor's memory accesses outside a run, as the software side does.
    pub fn with_environment<T>(&mut self, environment: &mut Environment<'_>, call: impl FnOnce(&mut Self) -> T) -> T {
        // The lifetime is erased for the time of the call only; nested calls keep the outer environment.
        let outer = std::mem::replace(&mut self.environment, std::ptr::from_mut(environment).cast::<Environment<'static>>());
        self.forget_old_pages();
        let result = call(self);
        self.environment = outer;
        result
    }

    /// The privilege of the program that runs.
    #[inline]
    pub fn privilege(&self) -> Privilege {
        if self.cpl == 3 { Privilege::User } else { Privilege::Supervisor }
    }

    /// Whether RAM answers at a physical address.
    pub(crate) fn is_ram(&mut self, physical: u64) -> bool {
        physical < self.environment().memory.size() && !(DEVICE_HOLE_START..DEVICE_HOLE_END).contains(&physical)
    }

    /// Whether alignment checks are in force. SDM vol 3, 6.15, "Interrupt 17 - Alignment Check Exception (#AC)".
    fn checks_alignment(&self) -> bool {
        self.cpl == 3 && self.cr0.am() && self.system_flags().ac()
    }

    /// Reads 1, 2, 4 or 8 bytes at a linear address in the name of the program.
    #[inline]
    pub fn load(&mut self, linear: u64, bytes: u8) -> Outcome<u64> {
        self.load_as(linear, bytes, Access::Read, self.privilege())
    }

    /// Reads what the same instruction will then write: faults as a write does.
    pub fn load_for_update(&mut self, linear: u64, bytes: u8) -> Outcome<u64> {
        self.load_as(linear, bytes, Access::Write, self.privilege())
    }

    /// Writes 1, 2, 4 or 8 bytes at a linear address in the name of the program.
    #[inline]
    pub fn store(&mut self, linear: u64, bytes: u8, value: u64) -> Outcome {
        self.store_as(linear, bytes, value, self.privilege())
    }

    /// Reads in the name of the processor itself.
    pub fn load_system(&mut self, linear: u64, bytes: u8) -> Outcome<u64> {
        self.load_as(linear, bytes, Access::Read, Privilege::Implicit)
    }

    /// Writes in the name of the processor itself.
    pub fn store_system(&mut self, linear: u64, bytes: u8, value: u64) -> Outcome {
        self.store_as(linear, bytes, value, Privilege::Implicit)
    }

    /// Reads 1, 2, 4 or 8 bytes; `access` is `Write` for the read half of a read-modify-write.
    #[inline]
    pub fn load_as(&mut self, linear: u64, bytes: u8, access: Access, privilege: Privilege) -> Outcome<u64> {
        if let Some(pointer) = self.known_page(linear, bytes, access, privilege) {
            // SAFETY: the software TLB has the page for this very access, and its pointers are good while `forget_old_pages` has not run.
            return Ok(unsafe { read_host(pointer, bytes) });
        }
        self.load_translated(linear, bytes, access, privilege)
    }

    /// A read that the software TLB's halves cannot serve.
    #[inline(never)]
    pub(crate) fn load_translated(&mut self, linear: u64, bytes: u8, access: Access, privilege: Privilege) -> Outcome<u64> {
        if access == Access::Write
            && let Some(page) = self.known_code_page(linear, bytes, privilege)
        {
            // SAFETY: as in `load_as`.
            return Ok(unsafe { read_host(page.host(linear), bytes) });
        }
        self.check_linear(linear, bytes, privilege)?;
        let in_page = 4096 - (linear & 0xfff);
        let kind = if access == Access::Write { BreakpointKind::Access } else { BreakpointKind::Io };
        self.watch(linear, bytes, kind);
        if u64::from(bytes) <= in_page {
            let page = self.translate(linear, access, privilege)?;
            return self.load_page(&page, linear, bytes);
        }
        let first = self.translate(linear, access, privilege)?;
        let second_linear = self.wrap(linear.wrapping_add(in_page));
        let second = self.translate(second_linear, access, privilege)?;
        let mut value = 0u64;
        for at in 0..bytes {
            let (page, address) =
                if u64::from(at) < in_page { (&first, linear + u64::from(at)) } else { (&second, second_linear + u64::from(at) - in_page) };
            value |= self.load_page(page, address, 1)? << (8 * at);
        }
        Ok(value)
    }

    /// Writes 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn store_as(&mut self, linear: u64, bytes: u8, value: u64, privilege: Privilege) -> Outcome {
        if let Some(pointer) = self.known_page(linear, bytes, Access::Write, privilege) {
            // SAFETY: as in `load_as`; pages in the half for writes are this memory's own and hold no code.
            unsafe { write_host(pointer, bytes, value) };
            return Ok(());
        }
        self.store_translated(linear, bytes, value, privilege)
    }

    /// A write that the software TLB's half for writes cannot serve.
    #[inline(never)]
    pub(crate) fn store_translated(&mut self, linear: u64, bytes: u8, value: u64, privilege: Privilege) -> Outcome {
        if self.is_observed() {
            return self.store_observed(linear, bytes, privilege, |cpu| cpu.store_whole(linear, bytes, value, privilege));
        }
        self.store_whole(linear, bytes, value, privilege)
    }

    #[inline]
    fn store_whole(&mut self, linear: u64, bytes: u8, value: u64, privilege: Privilege) -> Outcome {
        if let Some(&page) = self.known_code_page(linear, bytes, privilege) {
            let physical = page.physical | linear & 0xfff;
            if page.lines & lines_of(physical & 0xfff, bytes.into()) != 0 {
                self.store_code(page.host(linear), physical, bytes, value);
            } else {
                // SAFETY: as in `load_as`; no decoded instruction lies in these bytes.
                unsafe { write_host(page.host(linear), bytes, value) };
            }
            return Ok(());
        }
        self.check_linear(linear, bytes, privilege)?;
        let in_page = 4096 - (linear & 0xfff);
        if u64::from(bytes) <= in_page {
            let page = self.translate(linear, Access::Write, privilege)?;
            self.watch(linear, bytes, BreakpointKind::Write);
            return self.store_page(&page, linear, bytes, value);
        }
        let first = self.translate(linear, Access::Write, privilege)?;
        let second_linear = self.wrap(linear.wrapping_add(in_page));
        let second = self.translate(second_linear, Access::Write, privilege)?;
        self.watch(linear, bytes, BreakpointKind::Write);
        for at in 0..bytes {
            let byte = value >> (8 * at) & 0xff;
            if u64::from(at) < in_page {
                self.store_page(&first, linear + u64::from(at), 1, byte)?;
            } else {
                self.store_page(&second, second_linear + u64::from(at) - in_page, 1, byte)?;
            }
        }
        Ok(())
    }

    /// Whether what is cached in the present context is good for accesses of a privilege.
    #[inline]
    fn context_serves(&self, privilege: Privilege) -> bool {
        // RFLAGS.AC lifts SMAP for the program, and so in what is cached for it, but not for the processor itself.
        (self.cpl == 3) == (privilege == Privilege::User)
            && !(privilege == Privilege::Implicit && self.cr4.smap() && self.system_flags().ac())
    }

    /// The host pointer of an access that the software TLB can serve: one within a page, at the privilege that its context stands for.
    #[inline]
    fn known_page(&self, linear: u64, bytes: u8, access: Access, privilege: Privilege) -> Option<*mut u8> {
        if !self.context_serves(privilege) {
            return None;
        }
        self.inline_host(linear, bytes.into(), access == Access::Write)
    }

    /// The page with code that a write goes to, if it is known with what it holds now.
    #[inline]
    fn known_code_page(&self, linear: u64, bytes: u8, privilege: Privilege) -> Option<&CodePageEntry> {
        if !self.context_serves(privilege) {
            return None;
        }
        // SAFETY: as in `environment`, which needs more than a shared borrow of the processor.
        let environment = unsafe { self.environment.as_ref() }?;
        self.software_tlb.code_page(linear, bytes.into(), self.context).filter(|page| page.layout == environment.code.layout())
    }

    /// A linear address that may have run over the end of its address space.
    fn wrap(&self, linear: u64) -> u64 {
        if self.is_64bit() || self.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    pub(crate) fn check_linear(&mut self, linear: u64, bytes: u8, privilege: Privilege) -> Outcome {
        if self.long_mode() && !(is_canonical(linear) && is_canonical(linear.wrapping_add(u64::from(bytes) - 1))) {
            return Err(Trap::GP0);
        }
        if privilege == Privilege::User && self.checks_alignment() && linear & (u64::from(bytes) - 1) != 0 {
            return Err(Trap::Exception(Exception::with_code(Vector::AlignmentCheck, 0)));
        }
        Ok(())
    }

    /// Whether any data breakpoint is enabled.
    fn watches(&self) -> bool {
        self.dr7.enables() != 0
    }

    /// Notes data breakpoints that an access meets. `Io` stands for a plain read, which only R/W breakpoints watch.
    fn watch(&mut self, linear: u64, bytes: u8, kind: BreakpointKind) {
        if !self.watches() {
            return;
        }
        for index in 0..4 {
            let Some((watched, length)) = self.dr7.breakpoint(index) else { continue };
            let hit = match watched {
                BreakpointKind::Write => kind == BreakpointKind::Write,
                BreakpointKind::Access => true,
                BreakpointKind::Execute | BreakpointKind::Io => false,
            };
            let first = self.dr[index as usize] & !(length - 1);
            if hit && linear < first + length && first < linear + u64::from(bytes) {
                self.pending_debug |= 1 << index;
                self.leave = true;
            }
        }
    }

    fn load_page(&mut self, page: &Translation, linear: u64, bytes: u8) -> Outcome<u64> {
        let physical = page.physical + (linear & (page.bytes - 1));
        if self.is_apic_access(physical) {
            return self.access_apic_page(physical, bytes, None, Access::Read);
        }
        if !self.is_ram(physical) {
            return self.device_load(physical, bytes);
        }
        let Some(pointer) = self.environment().memory.read_pointer(physical >> 12) else { return self.device_load(physical, bytes) };
        self.fill(page, linear, false, pointer);
        // SAFETY: the pointer is good for the 4096 bytes of the page, and the access does not cross it.
        let value = unsafe { read_host(pointer.add((physical & 0xfff) as usize), bytes) };
        if self.is_observed() {
            self.note_read(physical, bytes);
            return Ok(self.forwarded(physical, bytes, value));
        }
        Ok(value)
    }

    fn store_page(&mut self, page: &Translation, linear: u64, bytes: u8, value: u64) -> Outcome {
        let physical = page.physical + (linear & (page.bytes - 1));
        if self.is_apic_access(physical) {
            return self.access_apic_page(physical, bytes, Some(value), Access::Write).map(|_| ());
        }
        if !self.is_ram(physical) {
            return self.device_store(physical, bytes, value);
        }
        if self.is_observed() {
            if self.buffer_piece(physical, bytes, value) {
                return Ok(());
            }
            self.note_write(physical, bytes);
        }
        let environment = self.environment();
        if environment.memory.is_watched(physical >> 12) {
            // Nothing is kept of the page, so that the next write comes this way, too.
            self.write_physical(physical, bytes, value);
            return Ok(());
        }
        let has_code = environment.memory.has_code(physical >> 12);
        let Some(pointer) = environment.memory.write_pointer(physical >> 12) else {
            return self.device_store(physical, bytes, value);
        };
        if has_code {
            let (lines, layout) = (environment.code.lines(physical >> 12), environment.code.layout());
            self.fill_code_page(page, linear, pointer, CodePageEntry { entry: EMPTY, physical: physical & !0xfff, lines, layout });
            if lines & lines_of(physical & 0xfff, bytes.into()) != 0 {
                self.store_code(pointer.wrapping_add((physical & 0xfff) as usize), physical, bytes, value);
                return Ok(());
            }
        } else {
            self.fill(page, linear, true, pointer);
        }
        // SAFETY: as in `load_as`; `write_pointer` made the page this memory's own.
        unsafe { write_host(pointer.add((physical & 0xfff) as usize), bytes, value) };
        Ok(())
    }

    /// A store to a line with decoded code: blocks that hold the bytes are void, and the running block is left behind this instruction.
    fn store_code(&mut self, pointer: *mut u8, physical: u64, bytes: u8, value: u64) {
        // SAFETY: the callers have the pointer of this memory's own page for the bytes, which lie in it.
        unsafe { write_host(pointer, bytes, value) };
        let environment = self.environment();
        let mut found = environment.code.invalidate(physical, bytes.into());
        if environment.memory.has_code_writes() {
            found |= environment.drop_written_code();
        }
        if found {
            self.charge(self.model.costs.self_modifying_code.ticks.into());
            self.leave = true;
        }
    }

    /// Puts a page of RAM into the software TLB if nothing needs to see its accesses.
    fn fill(&mut self, page: &Translation, linear: u64, write: bool, pointer: *const u8) {
        self.forget_old_pages();
        if !self.may_keep(page) {
            return;
        }
        let entry = self.entry(linear, pointer);
        let writable = write && self.may_rewrite(page);
        self.software_tlb.set(linear, entry, writable);
    }

    /// Keeps a page with code for further writes, on the same conditions.
    fn fill_code_page(&mut self, page: &Translation, linear: u64, pointer: *const u8, found: CodePageEntry) {
        self.forget_old_pages();
        if self.may_keep(page) && self.may_rewrite(page) {
            let entry = self.entry(linear, pointer);
            self.software_tlb.set_code_page(linear, CodePageEntry { entry, ..found });
        }
    }

    fn entry(&self, linear: u64, pointer: *const u8) -> SoftwareEntry {
        SoftwareEntry { tag: linear & !0xfff | self.context, addend: (pointer as u64).wrapping_sub(linear & !0xfff) }
    }

    fn may_keep(&self, page: &Translation) -> bool {
        !self.watches() && !self.checks_alignment() && !self.is_observed() && self.may_reuse(page)
    }

    /// The processor itself, with CR0.WP clear, may write in a user program's name what the program may not.
    fn may_rewrite(&self, page: &Translation) -> bool {
        (page.writable && (self.cr0.wp() || !self.cr4.pke())) || self.cpl != 3
    }

    /// Clears the software TLB if host pointers handed out before are void: a page was copied, or now holds code.
    pub(crate) fn forget_old_pages(&mut self) {
        let generation = self.environment().memory.generation();
        if generation != self.memory_generation {
            self.memory_generation = generation;
            self.software_tlb.clear();
        }
    }

    /// Whether the program itself, at its present privilege, could read the page again without a check: implicit supervisor accesses of a
    /// user program and accesses through SMAP's exception may not be cached under the program's context.
    fn may_reuse(&self, page: &Translation) -> bool {
        if self.cpl == 3 { page.user } else { !page.user || !self.cr4.smap() || self.system_flags().ac() }
    }

    /// Whether an access goes to the silicon instead of memory.
    #[inline]
    pub(crate) fn is_apic_access(&self, physical: u64) -> bool {
        self.apic_access_page == Some(physical & !0xfff)
    }

    #[cold]
    fn access_apic_page(&mut self, physical: u64, bytes: u8, write: Option<u64>, access: Access) -> Outcome<u64> {
        let offset = (physical & 0xfff) as u16;
        self.drain_stores();
        let answer = self.with_extension(|extension, cpu| extension.access_apic_page(cpu, offset, bytes, write, access));
        answer.unwrap_or_else(|| Err(Trap::not_modelled("an access to the APIC-access page by the silicon itself")))
    }

    #[cold]
    fn device_load(&mut self, physical: u64, bytes: u8) -> Outcome<u64> {
        self.drain_stores();
        self.leave = true;
        if let Some(offset) = self.apic_offset(physical) {
            return Ok(self.apic_load(offset, bytes));
        }
        self.charge(self.model.costs.device_access.ticks());
        let now = self.cycles();
        Ok(self.environment().bus.memory_read(physical, bytes, now))
    }

    #[cold]
    fn device_store(&mut self, physical: u64, bytes: u8, value: u64) -> Outcome {
        self.drain_stores();
        self.leave = true;
        if let Some(offset) = self.apic_offset(physical) {
            self.apic_store(offset, bytes, value);
            return Ok(());
        }
        self.charge(self.model.costs.device_access.ticks());
        let now = self.cycles();
        self.environment().bus.memory_write(physical, bytes, value, now);
        Ok(())
    }

    /// The host address of bytes in one page that the program may access without anybody noticing; `None` when the software TLB does not
    /// know the page, which an ordinary access changes.
    #[inline]
    fn inline_host(&self, linear: u64, length: u64, write: bool) -> Option<*mut u8> {
        let half = if write { &self.software_tlb.write } else { &self.software_tlb.read };
        let entry = half[SoftwareTlb::slot(linear)];
        // A run that leaves the page has its last byte under another tag.
        let last = linear.wrapping_add(length - 1);
        (last & !0xfff | self.context == entry.tag)
            .then(|| std::ptr::with_exposed_provenance_mut(linear.wrapping_add(entry.addend) as usize))
    }

    /// Writes words of eight bytes below each other, the last one at `linear`. `false`, with nothing done, if ordinary accesses are needed.
    #[inline]
    pub(crate) fn store_words(&mut self, linear: u64, words: &[u64], privilege: Privilege) -> bool {
        if !self.context_serves(privilege) {
            return false;
        }
        let Some(host) = self.inline_host(linear, words.len() as u64 * 8, true) else { return false };
        for (place, word) in words.iter().rev().enumerate() {
            // SAFETY: all of them lie in the page of `host`; else as in `store_as`.
            unsafe { write_host(host.add(8 * place), 8, *word) };
        }
        true
    }

    /// Reads words of eight bytes above each other. `false`, with nothing done, if ordinary accesses are needed.
    #[inline]
    pub(crate) fn load_words(&self, linear: u64, into: &mut [u64], privilege: Privilege) -> bool {
        if !self.context_serves(privilege) {
            return false;
        }
        let Some(host) = self.inline_host(linear, into.len() as u64 * 8, false) else { return false };
        for (place, word) in into.iter_mut().enumerate() {
            // SAFETY: all of them lie in the page of `host`; else as in `load_as`.
            *word = unsafe { read_host(host.add(8 * place), 8) };
        }
        true
    }

    /// Copies elements of `bytes` bytes upwards, one after the other, each run inside one page. `false`, with nothing done, if an ordinary
    /// access is needed first.
    pub(crate) fn copy_elements(&mut self, from: u64, to: u64, bytes: u8, elements: u64) -> bool {
        let length = elements * u64::from(bytes);
        let (Some(source), Some(target)) = (self.inline_host(from, length, false), self.inline_host(to, length, true)) else {
            return false;
        };
        let distance = (target as u64).wrapping_sub(source as u64);
        // SAFETY: both runs lie inside pages that the memory keeps alive while its generation stands (see `direct`), and nobody else holds
        // a reference into them. Runs that overlap so that later elements read what earlier ones wrote are done one by one.
        unsafe {
            if distance == 0 || distance >= length {
                std::ptr::copy(source, target, length as usize);
            } else {
                for at in 0..elements as usize {
                    let offset = at * usize::from(bytes);
                    let mut value = [0u8; 8];
                    std::ptr::copy_nonoverlapping(source.add(offset), value.as_mut_ptr(), usize::from(bytes));
                    std::ptr::copy_nonoverlapping(value.as_ptr(), target.add(offset), usize::from(bytes));
                }
            }
        }
        true
    }

    /// Copies bytes of one page out. `false` as for [`Cpu::copy_elements`].
    pub(crate) fn peek_elements(&self, from: u64, into: &mut [u8]) -> bool {
        let Some(source) = self.inline_host(from, into.len() as u64, false) else { return false };
        // SAFETY: as for `copy_elements`; `into` is the caller's own.
        unsafe { std::ptr::copy_nonoverlapping(source, into.as_mut_ptr(), into.len()) };
        true
    }

    /// Fills elements of `bytes` bytes with a value, the run inside one page. `false` as for [`Cpu::copy_elements`].
    pub(crate) fn fill_elements(&mut self, to: u64, bytes: u8, elements: u64, value: u64) -> bool {
        let length = elements * u64::from(bytes);
        let Some(target) = self.inline_host(to, length, true) else { return false };
        let count = elements as usize;
        // SAFETY: as for `copy_elements`.
        unsafe {
            match bytes {
                1 => std::ptr::write_bytes(target, value as u8, count),
                2 => (0..count).for_each(|at| target.cast::<u16>().add(at).write_unaligned(value as u16)),
                4 => (0..count).for_each(|at| target.cast::<u32>().add(at).write_unaligned(value as u32)),
                _ => (0..count).for_each(|at| target.cast::<u64>().add(at).write_unaligned(value)),
            }
        }
        true
    }

    /// Reads a byte string in the name of the program.
    pub fn load_bytes(&mut self, linear: u64, into: &mut [u8]) -> Outcome {
        let privilege = self.privilege();
        for (at, byte) in into.iter_mut().enumerate() {
            *byte = self.load_as(linear.wrapping_add(at as u64), 1, Access::Read, privilege)? as u8;
        }
        Ok(())
    }

    /// Physical address of an instruction byte.
    #[inline]
    pub(crate) fn fetch_physical(&mut self, linear: u64) -> Outcome<u64> {
        let known = &self.fetch_page;
        if linear & known.mask | self.context == known.tag && known.version == self.tlb.version() {
            return Ok(known.physical | linear & !known.mask);
        }
        if self.long_mode() && !is_canonical(linear) {
            return Err(Trap::GP0);
        }
        if !self.cr0.pg() && !self.nested_paging {
            return self.fetched(linear);
        }
        let privilege = self.privilege();
        let page = self.translate(linear, Access::Fetch, privilege)?;
        let physical = self.fetched(page.physical + (linear & (page.bytes - 1)))?;
        // Inside a larger page may lie one that nothing is fetched from.
        let bytes = if self.apic_access_page.is_some() { PAGE_BYTES } else { page.bytes };
        let mask = !(bytes - 1);
        // The version behind the walk, which makes another one.
        self.fetch_page = FetchPage { tag: linear & mask | self.context, mask, version: self.tlb.version(), physical: physical & mask };
        Ok(physical)
    }

    /// Where an instruction is fetched from, if the silicon lets it.
    #[inline]
    fn fetched(&self, physical: u64) -> Outcome<u64> {
        if self.is_apic_access(physical) {
            let offset = (physical & 0xfff) as u16;
            return Err(Trap::Exit(Exit::ApicAccess { offset, access: Access::Fetch, table_walk: false, length: 0 }));
        }
        Ok(physical)
    }

    /// Physical address and page of an instruction byte.
    pub(crate) fn translate_fetch(&mut self, linear: u64) -> Outcome<Translation> {
        if self.long_mode() && !is_canonical(linear) {
            return Err(Trap::GP0);
        }
        let page = self.translate(linear, Access::Fetch, self.privilege())?;
        self.fetched(page.physical + (linear & (page.bytes - 1)))?;
        Ok(page)
    }
}
