//! The regions of a machine: begun when code is hot, opened when their code is ready, removed with the first block that changes.
//!
//! Code is made on a second thread. When it is ready depends on the host; that nobody can tell follows from what compiled code may do (see
//! [`super`]). While a region is made anew with more edges, the old one serves.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`, by the argument in [`super`].
#![expect(unsafe_code, reason = "regions point to blocks that the code cache owns")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, in the documentation of `compile`, holds for all of them")]

use super::code::Code;
use super::plan::Plan;
use super::workshop::Workshop;
use super::{Tier, door, set_front, warm};
use crate::block::{Block, Compile, Mode};
use crate::direct::header_of;
use crate::insn::Handler;
use crate::state::Cpu;
use std::cell::Cell;

/// How often a block is entered before it is hot.
const DEFAULT_HEAT: u32 = 3000;
/// How often before that the other thread is made ready.
pub(super) const WARM: u32 = DEFAULT_HEAT / 2;
/// How many times as often until a hot block is looked at again that was not worth compiling.
const PATIENCE: u32 = 16;
/// How often it is looked at again.
const MAXIMUM_POSTPONED: u32 = 1;
/// The most bytes of compiled code that one machine keeps.
const MAXIMUM_BYTES: usize = 64 << 20;
/// How often control may leave a region over an edge that it does not know before the region is made anew with what is known by then.
const MAXIMUM_MISSES: u32 = 256;
/// How often a region may be made anew before its misses count no more.
const MAXIMUM_REMAKES: u32 = 5;

/// Where control enters a region.
pub(super) struct Door {
    pub code: extern "C" fn(*mut Cpu, u64),
    /// Which of the region's entries this is.
    pub index: u64,
    /// Ticks that the budget must still cover, the block itself paid.
    pub needed: i64,
    /// Ticks and instructions of the block itself.
    pub cost: i64,
    pub count: u64,
    /// The region computes in double precision, for which MXCSR must be as the inline path wants it.
    pub doubles: bool,
    pub region: usize,
    /// How far compiled code has been worth the way in: instructions that it executed, less [`PASSAGE`] for each time that it was entered.
    pub credit: Cell<i32>,
}

/// Instructions in the interpreter that take as long as entering compiled code and leaving it.
pub(super) const PASSAGE: i32 = 8;
/// What a door begins with, and the most that it has.
pub(super) const CREDIT: i32 = 1 << 15;

/// A door before there is code behind it: its block, and the longest way from the block's beginning to a check of the budget, in ticks.
type Entry = (*const Block, i64);

/// Several blocks that are compiled together.
struct Region {
    /// None while it is being made.
    code: Option<Code>,
    /// Under which the workshop makes it.
    ticket: u64,
    head: *const Block,
    blocks: Vec<*const Block>,
    entries: Vec<Entry>,
    doubles: bool,
    doors: Vec<(*const Block, Box<Door>)>,
    /// The region that this one will replace.
    replaces: Option<u64>,
    misses: u32,
    /// How many regions this one took the place of, one after the other.
    remakes: u32,
    /// Another is being made in its place.
    succeeded: bool,
}

/// The compiler and what it has made.
pub(crate) struct Compiler {
    /// How often a block is entered before it is hot; `None` compiles nothing.
    after: Option<u32>,
    /// Code is made while the guest runs on; else the guest waits.
    background: bool,
    workshop: Option<Box<Workshop>>,
    regions: Vec<Option<Box<Region>>>,
    tickets: u64,
    /// Bytes of code that are kept, and the most that may be.
    pub(super) bytes: usize,
    pub(super) limit: usize,
    /// Regions made, and those that could not be.
    pub(crate) made: u64,
    pub(crate) refused: u64,
}

impl Default for Compiler {
    fn default() -> Self {
        Self {
            after: Some(DEFAULT_HEAT),
            background: true,
            workshop: None,
            regions: Vec::new(),
            tickets: 0,
            bytes: 0,
            limit: MAXIMUM_BYTES,
            made: 0,
            refused: 0,
        }
    }
}

impl Compiler {
    /// Says when. Who names a number of entries also has the code at once, so that what is compiled does not depend on the host.
    pub(crate) fn set(&mut self, when: Compile) {
        (self.after, self.background) = match when {
            Compile::Hot => (Some(DEFAULT_HEAT), true),
            Compile::After(entries) => (Some(entries), false),
            Compile::Never => (None, false),
        };
    }

    /// What [`Self::set`] said.
    pub(crate) fn when(&self) -> Compile {
        match (self.after, self.background) {
            (None, _) => Compile::Never,
            (Some(_), true) => Compile::Hot,
            (Some(entries), false) => Compile::After(entries),
        }
    }

    /// Whoever stands in front of a new block's first instruction, and the block's tier made new.
    pub(crate) fn front(&self, tier: &mut Tier, mode: Mode) -> Option<Handler> {
        debug_assert!(tier.door.get().is_none(), "a block's regions die with it");
        if mode.bits != 64 || mode.single {
            return None;
        }
        tier.heat.set(self.heat(tier)?);
        tier.seen.get_mut().clear();
        Some(warm)
    }

    /// A block was overwritten: the regions that hold it die.
    pub(crate) fn forget(&mut self, block: &Block) {
        block.tier.changes.set(block.tier.changes.get().saturating_add(1));
        let regions = std::mem::take(&mut *block.tier.regions.borrow_mut());
        for region in regions {
            self.remove(region);
        }
    }

    /// Removes all regions.
    pub(crate) fn clear(&mut self) {
        for region in 0..self.regions.len() {
            self.remove(region);
        }
        self.regions.clear();
    }

    fn remove(&mut self, number: usize) {
        let Some(region) = self.regions[number].take() else { return };
        self.bytes -= region.code.as_ref().map_or(0, Code::len);
        for (block, door) in &region.doors {
            let block = Block::at(*block);
            if block.tier.door.get().is_some_and(|here| std::ptr::eq(here.as_ptr(), &raw const **door)) {
                block.tier.door.set(None);
                unsafe { set_front(block.entry(), None) };
            }
        }
        // What stands may become hot again.
        for block in &region.blocks {
            let block = Block::at(*block);
            block.tier.regions.borrow_mut().retain(|other| *other != number);
            if block.tier.regions.borrow().is_empty()
                && let Some(heat) = self.heat(&block.tier)
            {
                block.tier.heat.set(heat);
                unsafe { set_front(block.entry(), Some(warm)) };
            }
        }
    }

    /// How often a block is to be entered before it is hot. What keeps changing is not worth compiling.
    fn heat(&self, tier: &Tier) -> Option<u32> {
        Some(self.after?.max(1).saturating_mul(1 << tier.changes.get().min(16)))
    }

    /// What leads on from a hot block is not worth compiling, or not known yet: looks again much later, and then no more, because counting
    /// costs more than a short block does.
    fn postpone(&self, block: &Block) {
        let times = block.tier.postponed.replace(block.tier.postponed.get() + 1);
        if let Some(heat) = self.heat(&block.tier).filter(|_| times < MAXIMUM_POSTPONED) {
            block.tier.heat.set(heat.saturating_mul(PATIENCE));
            unsafe { set_front(block.entry(), Some(warm)) };
        }
    }

    /// Code will soon be hot.
    #[cold]
    pub(super) fn prepare(&mut self) {
        if self.background
            && let Some(workshop) = self.workshop()
        {
            workshop.prepare();
        }
    }

    /// What makes code. Without one for this host everything runs in the interpreter.
    fn workshop(&mut self) -> Option<&mut Workshop> {
        if self.workshop.is_none() {
            self.workshop = Workshop::new().map(Box::new);
        }
        if self.workshop.is_none() {
            self.after = None;
        }
        self.workshop.as_deref_mut()
    }

    /// A place for a region.
    fn vacancy(&mut self) -> usize {
        self.regions.iter().position(Option::is_none).unwrap_or_else(|| {
            self.regions.push(None);
            self.regions.len() - 1
        })
    }

    /// Control left a region over an edge that it does not know. Returns its head when it is time to make it anew.
    pub(super) fn count_miss(&mut self, number: usize) -> Option<*const Block> {
        let region = self.regions[number].as_mut()?;
        region.misses = region.misses.saturating_add(1);
        let due = region.misses >= MAXIMUM_MISSES << (2 * region.remakes) && region.remakes < MAXIMUM_REMAKES;
        (due && !std::mem::replace(&mut region.succeeded, true)).then_some(region.head)
    }

    /// Opens the regions whose code is ready. Only while no handler runs, or from one at an instruction's end.
    #[inline]
    pub(crate) fn collect(&mut self) {
        if let Some(workshop) = &mut self.workshop
            && workshop.is_busy()
        {
            while let Some((ticket, code)) = self.workshop.as_mut().and_then(|workshop| workshop.take()) {
                self.open(ticket, code);
            }
        }
    }

    /// Puts doors in front of a region's entries.
    fn open(&mut self, ticket: u64, code: Option<Code>) {
        let Some(number) = self.regions.iter().position(|region| region.as_ref().is_some_and(|region| region.ticket == ticket)) else {
            // One of its blocks was overwritten meanwhile.
            return;
        };
        let Some(code) = code else {
            self.refused += 1;
            // Not to be tried again soon.
            if let Some(region) = &self.regions[number] {
                let changes = &Block::at(region.head).tier.changes;
                changes.set(changes.get().saturating_add(8));
            }
            return self.remove(number);
        };
        if self.bytes + code.len() > self.limit {
            return self.clear();
        }
        self.made += 1;
        self.bytes += code.len();
        let Some(region) = self.regions[number].as_mut() else { return };
        let function = code.function();
        region.code = Some(code);
        for (index, (block, bound)) in region.entries.iter().enumerate() {
            let block = Block::at(*block);
            let header = unsafe { &*header_of(block.entry()) };
            let new = Box::new(Door {
                code: function,
                index: index as u64,
                needed: bound - i64::from(header.cost),
                cost: i64::from(header.cost),
                count: u64::from(header.count),
                doubles: region.doubles,
                region: number,
                credit: Cell::new(CREDIT),
            });
            block.tier.door.set(Some(std::ptr::NonNull::from(&*new)));
            unsafe { set_front(block.entry(), Some(door)) };
            region.doors.push((block, new));
        }
        let replaced = region.replaces;
        let old = self.regions.iter().position(|region| region.as_ref().is_some_and(|region| Some(region.ticket) == replaced));
        if let Some(old) = old {
            self.remove(old);
        }
    }
}

/// Begins to make a region around a block, perhaps in place of one that knew less.
pub(super) fn begin(cpu: &mut Cpu, head: &Block, replaces: Option<usize>) {
    let Some(plan) = Plan::new(cpu, head) else { return };
    let compiler = &mut cpu.environment().code.compiler;
    if !plan.pays() {
        if replaces.is_none() {
            compiler.postpone(head);
        }
        return;
    }
    let (background, ticket) = (compiler.background, compiler.tickets + 1);
    let Some(workshop) = compiler.workshop() else { return };
    let Some(function) = workshop.build(&plan) else {
        compiler.refused += 1;
        return;
    };
    let code = if background { workshop.order(ticket, function) } else { Some(workshop.compile(function)) };
    compiler.tickets = ticket;
    let number = compiler.vacancy();
    let replaced = replaces.and_then(|number| compiler.regions[number].as_ref());
    let region = Region {
        code: None,
        ticket,
        head,
        blocks: plan.nodes.iter().map(|node| node.block).collect(),
        entries: plan.entries().map(|node| (node.block, node.bound)).collect(),
        doubles: plan.doubles,
        doors: Vec::new(),
        replaces: replaced.map(|region| region.ticket),
        misses: 0,
        remakes: replaced.map_or(0, |region| region.remakes + 1),
        succeeded: false,
    };
    for block in &region.blocks {
        Block::at(*block).tier.regions.borrow_mut().push(number);
    }
    compiler.regions[number] = Some(Box::new(region));
    if let Some(code) = code {
        compiler.open(ticket, code);
    }
}
