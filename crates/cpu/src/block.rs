//! Decoded code: basic blocks, the cache of them by physical page (`cache.rs`), how they are made (`decode.rs`), and their invalidation.
//!
//! A block is a run of instructions at one RIP in one [`Mode`], within one page. It ends at a branch, at an instruction after which the
//! engine must look around, at the page's end, or after [`MAXIMUM`] instructions. An instruction that crosses a page is a block of its own,
//! registered on both pages.
//!
//! **Invalidation.** A write to a page with blocks reports the bytes written (`Memory::take_code_writes`). The header of blocks that hold
//! any of them gets a handler that leads back to the engine, so links and jump caches need no search; the engine then brings the block up
//! to date (`block/refresh.rs`) or decodes it again, in place if it has as many instructions as before. A block that was replaced is freed
//! when there are many, together with everything else, while no handler runs ([`CodeCache::tidy`]).
//!
//! Whoever makes something of blocks has two functions to listen to: [`Block::set_stale`], the only one through which a block that stands
//! ceases to be what its bytes say, and [`CodeCache::tidy`], the only one that frees blocks. A stale block comes back through
//! [`Block::set_fresh`] alone, with its old bytes or with others.
//!
//! This is one of the modules that `docs/architecture.md` allows `unsafe`: a block's slots are a union.
#![expect(unsafe_code, reason = "the slots of a block are a union of header, instructions and links")]

use crate::compile::{Compiler, Meaning, Tier};
use crate::direct::{fall_through, stale};
use crate::insn::{Header, Insn, Links};
use crate::state::ZERO_REGISTER;
use crate::system::Function;
use iced_x86::{Decoder, DecoderOptions, Instruction};
#[cfg(feature = "compiler")]
use memory::PAGE_BYTES;
use models::DecodeRules;
use std::cell::UnsafeCell;

mod cache;
mod decode;
mod footprint;
mod refresh;

pub use cache::CodeCache;
pub(crate) use cache::lines_of;
use footprint::Footprint;
pub use footprint::Footprints;

/// The largest number of instructions in a block.
pub(crate) const MAXIMUM: usize = 64;

/// When code is compiled. Nothing but the speed of a run depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compile {
    /// When it is hot, while the guest runs on.
    #[default]
    Hot,
    /// When it was entered so often, while the guest waits: what is compiled is then the same on every host.
    After(u32),
    /// Never: everything is left to the interpreter.
    Never,
}

/// What decoding depends on beside the bytes and RIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Mode {
    /// 16, 32 or 64.
    pub bits: u8,
    /// Blocks of one instruction, all flags computed.
    pub single: bool,
    /// SSE instructions are usable: CR0.EM and TS clear, CR4.OSFXSR set.
    pub sse: bool,
    /// Neither real-address nor virtual-8086 mode: there are VEX prefixes and the instructions that look at descriptors.
    pub protected: bool,
    /// By whose rules.
    pub rules: DecodeRules,
    /// Base of CS outside 64-bit mode.
    pub base: u32,
    /// `Cpu::view`: which bytes a processor sees instead of those that memory holds. No checkpoint has any but those of memory.
    #[serde(skip)]
    pub view: u32,
}

/// A decoder of code of 16, 32 or 64 bits by a vendor's rules.
pub fn decoder_at(bits: u32, bytes: &[u8], rip: u64, rules: DecodeRules) -> Decoder<'_> {
    let options = match rules {
        DecodeRules::Intel => DecoderOptions::NONE,
        DecodeRules::Amd => DecoderOptions::AMD,
    };
    Decoder::with_ip(bits, bytes, rip, options)
}

/// A slot before it is filled.
pub(crate) const BLANK: Insn = Insn {
    handler: fall_through,
    a: 0,
    b: 0,
    base: ZERO_REGISTER,
    index: ZERO_REGISTER,
    displacement: 0,
    immediate: 0,
    scale: 0,
    c: 0,
    number: 0,
    cost_through: 0,
};

/// A slot holds a header, an instruction or links, by its place in the block.
#[derive(Clone, Copy)]
#[repr(C)]
union Slot {
    header: Header,
    insn: Insn,
    links: Links,
}

/// What is known of an instruction beside its slot.
#[derive(Clone, Copy)]
pub(crate) struct Detail {
    pub instruction: Instruction,
    pub function: Function,
    /// What the compiler makes of it.
    pub meaning: Meaning,
}

/// A basic block.
pub struct Block {
    /// Cells, because handlers write links through pointers while the block is shared.
    slots: Box<[UnsafeCell<Slot>]>,
    details: Box<[Detail]>,
    /// RIP behind the last instruction.
    end: u64,
    /// The bytes it was decoded from, and whether some were overwritten: then it waits to be brought up to date.
    print: Footprint,
    rip: u64,
    mode: Mode,
    /// The bytes it was decoded from, for [`Cpu::refresh`]; of a block over two pages none.
    bytes: Vec<u8>,
    /// One bit for each instruction whose flags somebody may look at.
    live: u64,
    /// The last instruction is a terminator, which uses the links.
    terminated: bool,
    pub(crate) tier: Tier,
}

impl Block {
    /// A block with room for `count` instructions.
    fn blank(count: usize) -> Box<Self> {
        let detail = Detail { instruction: Instruction::new(), function: crate::select::undefined, meaning: Meaning::NONE };
        Box::new(Self {
            slots: (0..count + 3).map(|_| UnsafeCell::new(Slot { insn: BLANK })).collect(),
            details: vec![detail; count].into(),
            end: 0,
            print: Footprint::default(),
            rip: 0,
            mode: Mode::default(),
            bytes: Vec::new(),
            live: 0,
            terminated: false,
            tier: Tier::default(),
        })
    }

    /// Slot 1: where control enters.
    pub(crate) fn entry(&self) -> *const Insn {
        // SAFETY: every block has a header, at least one instruction and links.
        unsafe { UnsafeCell::raw_get(self.slots.as_ptr()).add(1).cast::<Insn>() }
    }

    /// Ticks of the whole block.
    #[cfg(feature = "compiler")]
    pub(crate) fn cost(&self) -> u32 {
        // SAFETY: slot 0 is the header.
        unsafe { (*self.slots[0].get()).header.cost }
    }

    /// How many instructions it has.
    #[cfg(feature = "compiler")]
    pub(crate) fn count(&self) -> usize {
        self.details.len()
    }

    /// Whether the last instruction is a terminator, which uses the links; else the next address follows.
    #[cfg(feature = "compiler")]
    pub(crate) fn terminated(&self) -> bool {
        self.terminated
    }

    #[cfg(feature = "compiler")]
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether another block lies on the same page, by its linear and by its physical address: while this one runs, nothing can lead elsewhere.
    #[cfg(feature = "compiler")]
    pub(crate) fn shares_page(&self, other: &Self) -> bool {
        let same = |one: u64, other: u64| one / PAGE_BYTES == other / PAGE_BYTES;
        let within = self.print.second.is_none() && other.print.second.is_none();
        within && same(self.rip, other.rip) && same(self.print.physical, other.print.physical)
    }

    #[cfg(feature = "compiler")]
    pub(crate) fn is_stale(&self) -> bool {
        self.print.stale
    }

    /// The slot of an instruction.
    #[cfg(feature = "compiler")]
    pub(crate) fn slot(&self, number: usize) -> &Insn {
        // SAFETY: behind the header are as many instructions as details; only handlers change them, while they run.
        unsafe { &(*self.slots[number + 1].get()).insn }
    }

    /// What the compiler makes of an instruction.
    #[cfg(feature = "compiler")]
    pub(crate) fn meaning(&self, number: usize) -> Meaning {
        self.details[number].meaning
    }

    /// Where control goes from its end.
    #[cfg(feature = "compiler")]
    pub(crate) fn links(&self) -> Links {
        let at = self.details.len() + if self.terminated { 1 } else { 2 };
        // SAFETY: `assemble` put the links there, and only handlers change them, while they run.
        unsafe { (*self.slots[at].get()).links }
    }

    /// A block that the cache of this machine owns.
    pub(crate) fn at<'a>(block: *const Self) -> &'a Self {
        // SAFETY: the compiler asks for blocks that links, the jump cache or regions lead to, while a handler runs: none is freed then.
        unsafe { &*block }
    }

    /// The block whose entry a link or the jump cache holds.
    pub(crate) fn of_entry(entry: *const Insn) -> *const Self {
        // SAFETY: as in `at`; the header precedes the entry.
        unsafe { (*entry.sub(1).cast::<Header>()).block }
    }

    /// Physical address of the first byte, and of the first one on a second page.
    pub(crate) fn place(&self) -> (u64, Option<u64>) {
        (self.print.physical, self.print.second)
    }

    pub(crate) fn instruction(&self, number: u16) -> &Instruction {
        &self.details[usize::from(number)].instruction
    }

    /// The function of an instruction that is one, and the instruction.
    #[inline]
    pub(crate) fn function_of(&self, number: u16) -> (Function, &Instruction) {
        let detail = &self.details[usize::from(number)];
        (detail.function, &detail.instruction)
    }

    /// RIP of an instruction, or behind the last one.
    pub(crate) fn rip_of(&self, number: u16) -> u64 {
        self.details.get(usize::from(number)).map_or(self.end, |detail| detail.instruction.ip())
    }

    /// Whether links may lead to it: not if the mapping of a second page could change behind their back.
    pub(crate) fn may_be_linked(&self) -> bool {
        self.print.second.is_none()
    }

    /// Some of its bytes were overwritten: whoever enters it is led back to the engine. The one place where that happens.
    fn set_stale(&mut self) {
        self.print.stale = true;
        self.slots[0].get_mut().header.handler = stale;
    }

    /// It is again what its bytes say.
    fn set_fresh(&mut self, compiler: &Compiler) {
        self.print.stale = false;
        let front = compiler.front(&mut self.tier, self.mode);
        // SAFETY: slot 1 is an instruction.
        let first = unsafe { self.slots[1].get_mut().insn.handler };
        self.slots[0].get_mut().header.handler = front.unwrap_or(first);
    }
}
