//! The end of a block in compiled code: on to other blocks of the region, or out of it.

use super::{Emitter, Inherited, Next, Reason, handover, jump_at};
use crate::block::Block;
use crate::compile::plan::{Edge, Node, Shape, members};
use crate::compile::{COUNT_BITS, Handover};
use crate::state::Cpu;
use crate::tlb::JumpEntry;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{self, BlockArg, InstBuilder, Value};
use std::mem::offset_of;

impl Emitter<'_, '_> {
    /// Behind the last instruction: on to the next nodes, or out.
    pub(super) fn finish(&mut self, node: &Node, next: Next) {
        self.demand_time(node);
        self.hand_on_flags(node);
        self.keep_on();
        match next {
            Next::Goes => match node.ways[..] {
                [Some(edge)] => {
                    let (block, arguments) = self.edge(edge);
                    self.builder.ins().jump(block, &arguments);
                }
                _ => self.leave(Reason::Edge),
            },
            Next::Branches(condition) => {
                debug_assert_eq!(node.shape, Shape::Branches);
                let (other, other_arguments) = self.edge_or_exit(node.ways[0]);
                let (taken, taken_arguments) = self.edge_or_exit(node.ways[1]);
                self.builder.ins().brif(condition, taken, &taken_arguments, other, &other_arguments);
            }
            Next::Computed(target) => {
                let ways: Vec<Edge> = node.compiled_ways().collect();
                self.search(target, &ways);
            }
        }
        self.fill_gates();
    }

    pub(super) fn edge_or_exit(&mut self, edge: Option<Edge>) -> (ir::Block, Vec<BlockArg>) {
        match edge {
            Some(edge) => self.edge(edge),
            None => (self.exit(Reason::Edge), Vec::new()),
        }
    }

    /// Where a way to another node begins.
    pub(super) fn edge(&mut self, edge: Edge) -> (ir::Block, Vec<BlockArg>) {
        let block = self.again.filter(|_| edge.to == self.node).unwrap_or(self.blocks[edge.to]);
        let arguments = if self.inherits(edge.to) {
            let Self { state, plain, pages, .. } = self;
            self.inherited[edge.to] = Some(Inherited { state: state.clone(), plain: plain.clone(), pages: pages.clone() });
            Vec::new()
        } else {
            let mut narrow = members(self.plan.nodes[edge.to].narrow);
            // The plan may not promise what was not emitted.
            self.broken |= !narrow.all(|register| self.is_narrow(self.state.registers[register]));
            self.arguments()
        };
        if !edge.guarded {
            return (block, arguments);
        }
        let gate = self.builder.create_block();
        self.gates.push((gate, edge, block, arguments));
        (gate, Vec::new())
    }

    /// Leaves unless there is time for the longest way round of the loops that the node closes.
    fn demand_time(&mut self, node: &Node) {
        let back = node.compiled_ways().filter(|edge| edge.to <= self.node);
        if let Some(bound) = back.map(|edge| self.plan.nodes[edge.to].bound).max() {
            let enough = self.builder.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, self.state.packed, bound << COUNT_BITS);
            self.demand(enough, Reason::Plain);
        }
    }

    /// Whether the jump cache leads to a way's very block in the present context: in another address space there may be another.
    fn leads_on(&mut self, edge: Edge) -> Value {
        if !edge.guarded {
            return self.builder.ins().iconst(I8, 1);
        }
        let at = jump_at(edge.rip);
        let wanted = Block::at(self.plan.nodes[edge.to].block).entry();
        let entry = self.builder.ins().load(I64, self.tables, self.cpu, at + offset_of!(JumpEntry, entry) as i32);
        let context = self.builder.ins().load(I64, self.tables, self.cpu, at + offset_of!(JumpEntry, context) as i32);
        let own = self.load_own(I64, offset_of!(Cpu, context) as i32);
        let there = self.builder.ins().icmp_imm_s(IntCC::Equal, entry, wanted as i64);
        let valid = self.builder.ins().icmp(IntCC::Equal, context, own);
        self.builder.ins().band(there, valid)
    }

    /// A guarded way is open while the jump cache has the target in the present context.
    pub(super) fn fill_gates(&mut self) {
        for (gate, edge, block, arguments) in std::mem::take(&mut self.gates) {
            self.builder.switch_to_block(gate);
            let open = self.leads_on(edge);
            let exit = self.exit(Reason::Plain);
            self.builder.ins().brif(open, block, &arguments, exit, &[]);
        }
    }

    /// To the node that begins at a computed address, or out.
    pub(super) fn search(&mut self, target: Value, ways: &[Edge]) {
        if ways.len() > 3 {
            let mut ways = ways.to_vec();
            ways.sort_by_key(|edge| edge.rip);
            let (low, high) = ways.split_at(ways.len() / 2);
            let middle = self.k(high[0].rip);
            let below = self.builder.ins().icmp(IntCC::UnsignedLessThan, target, middle);
            let (left, right) = (self.builder.create_block(), self.builder.create_block());
            self.builder.ins().brif(below, left, &[], right, &[]);
            for (block, half) in [(left, low), (right, high)] {
                self.builder.switch_to_block(block);
                self.search(target, half);
            }
            return;
        }
        for edge in ways {
            let here = self.builder.ins().icmp_imm_s(IntCC::Equal, target, edge.rip as i64);
            let (block, arguments) = self.edge(*edge);
            let other = self.builder.create_block();
            self.builder.ins().brif(here, block, &arguments, other, &[]);
            self.builder.switch_to_block(other);
        }
        self.store_own(target, handover(offset_of!(Handover, target)));
        self.leave(Reason::Target);
    }

    /// In front of a store by a branch whose computed target is known: makes sure that control will stay in the region, because a branch that
    /// has stored may not be executed again. (`CALL [RSP-8]` overwrites its own operand.)
    pub(super) fn secure(&mut self, target: Value) {
        let plan = self.plan;
        let node = &plan.nodes[self.node];
        let mut member = self.builder.ins().iconst(I8, 0);
        for edge in node.compiled_ways() {
            let here = self.builder.ins().icmp_imm_s(IntCC::Equal, target, edge.rip as i64);
            let known = self.leads_on(edge);
            let open = self.builder.ins().band(here, known);
            member = self.builder.ins().bor(member, open);
        }
        self.store_own(target, handover(offset_of!(Handover, target)));
        self.demand(member, Reason::Target);
        self.demand_time(node);
    }
}
