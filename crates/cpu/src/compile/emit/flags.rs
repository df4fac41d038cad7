//! The status flags in compiled code: symbolic as long as the operation that set them is known, words only where somebody reads them.

use super::{Emitter, handover, integer};
use crate::compile::plan::{Needs, Node};
use crate::compile::recipes::{How, Recipe, Source};
use crate::compile::{DIFFERENCE, Handover, flag_code};
use crate::interpretation::{FlagRule, Interpretation};
use crate::semantics::status;
use crate::state::Cpu;
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use std::mem::offset_of;

/// What is known of the status flags at a point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    /// They are in memory, in whatever form.
    Left,
    /// They are in memory: words, or, as [`Handover::flag_code`] says there, a recipe whose operands are these.
    Recalled(Value, Value),
    /// The two words.
    Words(Value, Value),
    /// An operation set them.
    Set { rule: FlagRule, width: u32, a: Value, b: Value, result: Value, before: usize },
    /// As `then` if the condition is 1, else as `otherwise`.
    Either { condition: Value, then: usize, otherwise: usize },
}

impl Emitter<'_, '_> {
    pub(super) fn new_flags(&mut self, flags: Flags) -> usize {
        self.flags.push(flags);
        self.flags.len() - 1
    }

    /// The two flag words.
    pub(super) fn words(&mut self, flags: usize) -> (Value, Value) {
        match self.flags[flags] {
            Flags::Left | Flags::Recalled(..) => {
                // The plan asks for words wherever somebody reads.
                self.broken = true;
                let zero = self.k(0);
                (zero, zero)
            }
            Flags::Words(result, aux) => (result, aux),
            Flags::Set { rule, width, a, b, result, before } => {
                let old = if flag_code(rule, width).is_none() { self.words(before) } else { (result, result) };
                match width {
                    8 => status::flag_words::<Self, 8>(self, rule, a, b, result, old),
                    16 => status::flag_words::<Self, 16>(self, rule, a, b, result, old),
                    32 => status::flag_words::<Self, 32>(self, rule, a, b, result, old),
                    _ => status::flag_words::<Self, 64>(self, rule, a, b, result, old),
                }
            }
            Flags::Either { condition, then, otherwise } => {
                let (then, otherwise) = (self.words(then), self.words(otherwise));
                let result = self.builder.ins().select(condition, then.0, otherwise.0);
                let aux = self.builder.ins().select(condition, then.1, otherwise.1);
                (result, aux)
            }
        }
    }

    pub(super) fn store_words(&mut self) {
        let (result, aux) = self.words(self.state.flags);
        self.store_own(result, offset_of!(Cpu, flag_result) as i32);
        self.store_own(aux, offset_of!(Cpu, flag_aux) as i32);
        let none = self.k(0);
        self.store_own(none, handover(offset_of!(Handover, flag_code)));
    }

    /// Leaves the flags in memory, in the form that costs least.
    pub(super) fn leave_flags(&mut self) {
        match self.flags[self.state.flags] {
            Flags::Left => {}
            Flags::Recalled(a, b) => {
                self.store_own(a, handover(offset_of!(Handover, flag_a)));
                self.store_own(b, handover(offset_of!(Handover, flag_b)));
            }
            Flags::Set { rule, width, a, b, result, .. } if flag_code(rule, width).is_some() => {
                let difference = rule == FlagRule::Subtract && self.is_difference(integer(width), a, b, result);
                let code = if difference { DIFFERENCE | u64::from(width) } else { flag_code(rule, width).unwrap_or_default() };
                let code = self.k(code);
                self.store_own(code, handover(offset_of!(Handover, flag_code)));
                if !difference {
                    let result = self.fit(result, I64);
                    self.store_own(result, offset_of!(Cpu, flag_result) as i32);
                }
                if rule != FlagRule::Logic {
                    for (value, offset) in [(a, offset_of!(Handover, flag_a)), (b, offset_of!(Handover, flag_b))] {
                        let value = self.fit(value, I64);
                        self.store_own(value, handover(offset));
                    }
                }
            }
            _ => self.store_words(),
        }
    }

    /// What is known of the flags at the head of a loop whose ways back leave nothing but the number of a recipe.
    pub(super) fn recalled(&mut self, recipe: Recipe) -> usize {
        let found = self.register(recipe.register);
        let other = match recipe.other {
            Source::Register(number) => self.register(number),
            Source::Constant(value) => self.k(value),
        };
        let first = match recipe.how {
            How::Compared => found,
            How::Subtracted => self.builder.ins().iadd(found, other),
            How::Added => self.builder.ins().isub(found, other),
            How::Tested => self.builder.ins().band(found, other),
        };
        self.new_flags(Flags::Recalled(first, other))
    }

    /// At the end of a block: hands the flags on to blocks that several ways lead to.
    pub(super) fn hand_on_flags(&mut self, node: &Node) {
        let targets = node.compiled_ways().filter(|edge| !self.inherits(edge.to)).map(|edge| &self.plan.nodes[edge.to]);
        let targets: Vec<&Node> = targets.filter(|target| target.needs != Needs::Nothing).collect();
        let all = |wanted: Option<Recipe>| targets.iter().all(|target| target.finds == wanted);
        let words = targets.iter().any(|target| target.needs == Needs::Words || target.finds.is_some() && target.finds != node.leaves);
        match node.leaves {
            _ if targets.is_empty() => {}
            _ if words => {
                self.store_words();
                // What was stored is also what is known.
                let (result, aux) = self.words(self.state.flags);
                self.state.flags = self.new_flags(Flags::Words(result, aux));
            }
            Some(recipe) if all(Some(recipe)) => {
                let code = self.k(recipe.code());
                self.store_own(code, handover(offset_of!(Handover, flag_code)));
            }
            _ => self.leave_flags(),
        }
    }

    /// A condition as one comparison, where the operation that set the flags allows it.
    pub(super) fn direct_condition(&mut self, code: u8, rule: FlagRule, width: u32, a: Value, b: Value, result: Value) -> Option<Value> {
        let kind = integer(width);
        let (compared, against) = match (rule, code >> 1) {
            // The flags of a subtraction order its operands.
            (FlagRule::Subtract, 1) => (IntCC::UnsignedLessThan, true),
            (FlagRule::Subtract, 2) => (IntCC::Equal, true),
            (FlagRule::Subtract, 3) => (IntCC::UnsignedLessThanOrEqual, true),
            (FlagRule::Subtract, 6) => (IntCC::SignedLessThan, true),
            (FlagRule::Subtract, 7) => (IntCC::SignedLessThanOrEqual, true),
            // Without carry and overflow the result tells all.
            (FlagRule::Logic, 2 | 3) => (IntCC::Equal, false),
            (FlagRule::Logic, 6) => (IntCC::SignedLessThan, false),
            (FlagRule::Logic, 7) => (IntCC::SignedLessThanOrEqual, false),
            (FlagRule::RotateLeft | FlagRule::RotateRight, _) => return None,
            (_, 2) => (IntCC::Equal, false),
            (_, 4) => (IntCC::SignedLessThan, false),
            _ => return None,
        };
        let compared = if code & 1 == 0 { compared } else { compared.complement() };
        if against {
            // With a borrow passed on (SBB) the result is not the difference of the operands, and they tell nothing.
            return self.is_difference(kind, a, b, result).then(|| self.builder.ins().icmp(compared, a, b));
        }
        let result = self.fit(result, kind);
        Some(self.builder.ins().icmp_imm_s(compared, result, 0))
    }

    /// Whether a result is just `a - b`, all of one type.
    fn is_difference(&self, kind: Type, a: Value, b: Value, result: Value) -> bool {
        let values = &self.builder.func.dfg;
        let made_of = values.value_def(result).inst().map(|inst| values.inst_args(inst));
        values.value_type(a) == kind && made_of == Some(&[a, b])
    }
}
