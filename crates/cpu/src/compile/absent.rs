//! In place of the compiler, when it is left out: nothing is ever hot.

use crate::block::{Block, Compile, Mode};
use crate::insn::Handler;
use crate::interpretation::{Branch, Operation};

/// What the compiler would make of an instruction.
#[derive(Clone, Copy)]
pub(crate) struct Meaning;

impl Meaning {
    pub(crate) const NONE: Self = Self;

    pub(crate) fn operation<O: Operation>() -> Self {
        Self
    }

    pub(crate) fn branch<B: Branch>() -> Self {
        Self
    }
}

/// What the compiling tier would know of a block.
#[derive(Default)]
pub(crate) struct Tier {}

impl Tier {
    pub(crate) fn succeed(&mut self, _: &Self) {}
}

/// What would be handed between compiled code and the interpreter.
#[derive(Debug)]
pub(crate) struct Handover;

impl Handover {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) fn forget(&mut self) {}
}

/// Makes nothing.
#[derive(Default)]
pub(crate) struct Compiler {
    pub(crate) made: u64,
    pub(crate) refused: u64,
}

impl Compiler {
    pub(crate) fn set(&mut self, _: Compile) {}

    pub(crate) fn when(&self) -> Compile {
        Compile::Never
    }

    pub(crate) fn front(&self, _: &mut Tier, _: Mode) -> Option<Handler> {
        None
    }

    pub(crate) fn forget(&mut self, _: &Block) {}

    pub(crate) fn clear(&mut self) {}

    pub(crate) fn collect(&mut self) {}
}
