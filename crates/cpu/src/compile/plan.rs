//! What a region consists of: its blocks in reverse postorder, the edges between them, and what each of them needs.

use super::Meaning;
use super::recipes::Recipe;
use crate::block::Block;
use crate::insn::{Insn, Links, UNLINKABLE};
use crate::liveness::{StatusFlags, touches_memory};
use crate::state::Cpu;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use std::collections::BTreeMap;

/// From what holds of registers on one side of an instruction, as a bit set, what holds on its other side.
type Step = fn(u32, &Instruction, &mut InstructionInfoFactory) -> u32;

/// The most blocks of a region.
const MAXIMUM_BLOCKS: usize = 200;
/// Instructions of a region that is worth its doors without a loop. Leaving and entering take about as long as interpreting ten.
const ENOUGH: usize = 24;
/// How often a block may have been overwritten that is taken into the region of another.
const MAXIMUM_CHANGES: u32 = 2;
/// The most ticks of a block: costs are packed with counts.
const MAXIMUM_COST: u32 = 1 << 20;

/// How a block wants to find the status flags when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    /// It sets all of them before anybody can look.
    Nothing,
    /// Only the interpreter may ask for them: left in whatever form.
    Left,
    /// Its own code reads them: the two flag words.
    Words,
}

/// A way from one block of the region to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// Number of the node.
    pub to: usize,
    /// Where it begins.
    pub rip: u64,
    /// Only the jump cache leads there: the way is open while the cache says so.
    pub guarded: bool,
}

/// A block of the region.
pub(super) struct Node {
    pub block: *const Block,
    /// Instructions that are compiled.
    pub count: usize,
    /// The instruction behind those is for the interpreter; the ways on begin behind it.
    pub cut: bool,
    pub shape: Shape,
    /// The ways on: one; not taken and taken; or one for each known target of a computed address.
    pub ways: Vec<Option<Edge>>,
    /// Ways into it, within the region and, for an entry, from its door.
    pub ways_in: usize,
    /// It has a door.
    pub entry: bool,
    pub needs: Needs,
    /// How the flags at its end follow from registers, if they do.
    pub leaves: Option<Recipe>,
    /// How those at its beginning do, if all ways back to it agree.
    pub finds: Option<Recipe>,
    /// XMM registers whose low halves are no denormals at its beginning, as a bit set.
    pub plain: u32,
    /// General registers whose upper halves are zero at its beginning, as a bit set.
    pub narrow: u32,
    /// Ticks that the longest way from its beginning to the next check of the budget takes.
    pub bound: i64,
}

impl Node {
    /// Whether it can be entered whatever its registers hold.
    pub(super) fn expects_nothing(&self) -> bool {
        self.plain == 0 && self.narrow == 0
    }

    /// The ways that are compiled.
    pub(super) fn compiled_ways(&self) -> impl Iterator<Item = Edge> {
        self.ways.iter().flatten().copied().filter(|_| !self.cut)
    }
}

/// A region before it is compiled.
pub(super) struct Plan {
    pub nodes: Vec<Node>,
    /// General registers that are read or written, and those written, as bit sets.
    pub used: u32,
    pub written: u32,
    /// The same for the low halves of XMM registers.
    pub used_low: u32,
    pub written_low: u32,
    /// Double-precision arithmetic occurs.
    pub doubles: bool,
}

/// What is known of a block while the region grows.
struct Draft {
    block: *const Block,
    count: usize,
    cut: bool,
    /// By link: the block there, if known.
    ways: Vec<Way>,
}

/// A RIP that control may go to, with the block there, if known, and whether only the jump cache knows.
type Way = (u64, Option<(*const Block, bool)>);

/// Of what shape the end of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One way on: a jump, a call, or the next address.
    Goes,
    /// Two: not taken and taken.
    Branches,
    /// To a computed address.
    Computed,
}

fn shape(last: &Instruction) -> Shape {
    match last.flow_control() {
        FlowControl::ConditionalBranch => Shape::Branches,
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => Shape::Computed,
        _ => Shape::Goes,
    }
}

impl Block {
    /// Whether it ends with a branch to a computed address.
    pub(super) fn ends_indirectly(&self) -> bool {
        matches!(shape(self.instruction(self.count() as u16 - 1)), Shape::Computed)
    }
}

/// Where the jump cache leads to from an address, if it knows.
fn known(cpu: &Cpu, rip: u64) -> Option<*const Block> {
    cpu.jumps.find(rip, cpu.context).map(Block::of_entry)
}

/// Looks at a block that might belong to the region. `None` if none of it can be compiled.
fn draft(cpu: &Cpu, block: *const Block, head: &Block) -> Option<Draft> {
    let here = Block::at(block);
    if here.is_stale() || here.mode() != head.mode() || here.cost() > MAXIMUM_COST {
        return None;
    }
    // A region dies with any of its blocks: what keeps changing has to become hot by itself, which takes it ever longer.
    if !std::ptr::eq(block, head) && here.tier.changes.get() > MAXIMUM_CHANGES {
        return None;
    }
    let total = here.count();
    let count = (0..total).position(|number| matches!(here.meaning(number), Meaning::None)).unwrap_or(total);
    if count == 0 {
        return None;
    }
    let last = here.instruction(total as u16 - 1);
    let Links { entry, target } = here.links();
    let resolve = |which: usize| {
        let (entry, rip): (*const Insn, u64) = (entry[which], target[which]);
        let way = if entry.is_null() {
            None
        } else if entry == UNLINKABLE {
            known(cpu, rip).map(|block| (block, true))
        } else {
            Some((Block::of_entry(entry), false))
        };
        (rip, way)
    };
    let ways = match shape(last) {
        Shape::Branches => vec![resolve(0), resolve(1)],
        Shape::Goes if here.terminated() => vec![resolve(1)],
        Shape::Goes => vec![resolve(0)],
        Shape::Computed => here
            .tier
            .seen
            .borrow()
            .iter()
            .map(|rip| (*rip, known(cpu, *rip).map(|block| (block, !here.shares_page(Block::at(block))))))
            .filter(|way| way.1.is_some())
            .collect(),
    };
    Some(Draft { block, count, cut: count < total, ways })
}

/// All blocks that the region reaches from its head, in reverse postorder.
fn closure(cpu: &Cpu, head: &Block) -> Option<(BTreeMap<*const Block, Draft>, Vec<*const Block>)> {
    let first: *const Block = head;
    let mut drafts = BTreeMap::from([(first, draft(cpu, first, head)?)]);
    let mut order = Vec::new();
    // Blocks on the way down, each with how many of its ways were followed.
    let mut path = vec![(first, 0)];
    while let Some((block, followed)) = path.last_mut() {
        let way = drafts[block].ways.get(*followed).map(|way| way.1);
        *followed += 1;
        match way {
            None => {
                order.push(*block);
                path.pop();
            }
            Some(Some((next, _))) if !drafts.contains_key(&next) && drafts.len() < MAXIMUM_BLOCKS => {
                if let Some(drafted) = draft(cpu, next, head) {
                    drafts.insert(next, drafted);
                    path.push((next, 0));
                }
            }
            Some(_) => {}
        }
    }
    order.reverse();
    Some((drafts, order))
}

impl Plan {
    /// The region around a block that was entered often, as far as it is known. `None` if the block cannot be compiled.
    pub(super) fn new(cpu: &Cpu, head: &Block) -> Option<Self> {
        let (mut drafts, order) = closure(cpu, head)?;
        let number: BTreeMap<*const Block, usize> = order.iter().enumerate().map(|(number, block)| (*block, number)).collect();
        let node = |block: &*const Block| {
            let Draft { block, count, cut, ways } = drafts.remove(block).expect("every block of the order was drafted");
            let here = Block::at(block);
            let edge = |(rip, way): Way| {
                let (block, guarded) = way?;
                Some(Edge { to: *number.get(&block)?, rip, guarded })
            };
            let ways = ways.into_iter().map(edge).collect();
            let shape = shape(here.instruction(here.count() as u16 - 1));
            Node {
                block,
                count,
                cut,
                shape,
                ways,
                ways_in: 0,
                entry: false,
                needs: Needs::Nothing,
                leaves: None,
                finds: None,
                plain: 0,
                narrow: 0,
                bound: 0,
            }
        };
        let nodes = order.iter().map(node).collect();
        let mut plan = Self { nodes, used: 0, written: 0, used_low: 0, written_low: 0, doubles: false };
        plan.find_entries();
        plan.find_bounds();
        plan.find_needs();
        plan.find_recipes();
        plan.find_registers();
        plan.find_plain();
        plan.find_narrow();
        Some(plan)
    }

    /// Whether what is saved within the region is more than the way in and out of it costs: there is a loop, or enough to do without one.
    pub(super) fn pays(&self) -> bool {
        let loops = (0..self.nodes.len()).any(|from| self.nodes[from].compiled_ways().any(|edge| edge.to <= from));
        loops || self.nodes.iter().map(|node| node.count).sum::<usize>() >= ENOUGH
    }

    /// The blocks with doors, in the order of their numbers.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.entry)
    }

    /// The head, the beginnings of loops, and whatever follows an instruction that the interpreter executes get doors.
    fn find_entries(&mut self) {
        self.nodes[0].entry = true;
        for from in 0..self.nodes.len() {
            let cut = self.nodes[from].cut;
            for Edge { to, .. } in self.nodes[from].ways.clone().into_iter().flatten() {
                self.nodes[to].entry |= cut || to <= from;
                self.nodes[to].ways_in += usize::from(!cut);
            }
        }
        for node in &mut self.nodes {
            node.ways_in += usize::from(node.entry);
        }
    }

    /// The budget is checked in front of every way back, so that the longest way forward bounds what is spent between checks.
    fn find_bounds(&mut self) {
        for from in (0..self.nodes.len()).rev() {
            let forward = self.nodes[from].compiled_ways().filter(|edge| edge.to > from);
            let longest = forward.map(|edge| self.nodes[edge.to].bound).max().unwrap_or(0);
            self.nodes[from].bound = i64::from(Block::at(self.nodes[from].block).cost()) + longest;
        }
    }

    fn find_needs(&mut self) {
        loop {
            let mut changed = false;
            for from in (0..self.nodes.len()).rev() {
                let node = &self.nodes[from];
                let own = own_needs(Block::at(node.block), node.count);
                let needs = match own {
                    (needs, true) => needs,
                    // At the end somebody may always look: the interpreter takes over, or another block.
                    (needs, false) => node.compiled_ways().map(|edge| self.nodes[edge.to].needs).fold(needs.max(Needs::Left), Needs::max),
                };
                changed |= node.needs != needs;
                self.nodes[from].needs = needs;
            }
            if !changed {
                return;
            }
        }
    }

    /// What is true of registers, as a bit set, at the beginning of each node: the most that all ways there agree on, and only what somebody
    /// wants, here or further on, because it is what a door has to look at. At first `all` is taken for true everywhere; it leaves out what
    /// is never written, of which nothing is known but what a door finds, and which nobody has to hand on. `behind` tells from what is true in
    /// front of an instruction what is behind it, `before` from what is wanted behind one what is wanted in front of it.
    pub(super) fn agreed(&self, all: u32, behind: Step, before: Step) -> Vec<u32> {
        let mut factory = InstructionInfoFactory::new();
        let (mut agreed, mut wanted) = (vec![all; self.nodes.len()], vec![0; self.nodes.len()]);
        let instructions = |node: &Node| {
            let block = Block::at(node.block);
            (0..node.count).map(move |number| block.instruction(number as u16))
        };
        loop {
            let mut changed = false;
            for (from, node) in self.nodes.iter().enumerate() {
                let end = instructions(node).fold(agreed[from], |bits, instruction| behind(bits, instruction, &mut factory));
                for Edge { to, .. } in node.compiled_ways() {
                    changed |= agreed[to] & !end != 0;
                    agreed[to] &= end;
                }
            }
            if !changed {
                break;
            }
        }
        loop {
            let mut changed = false;
            for (from, node) in self.nodes.iter().enumerate().rev() {
                let end = node.compiled_ways().fold(0, |bits, edge| bits | wanted[edge.to]);
                let start = instructions(node).rev().fold(end, |bits, instruction| before(bits, instruction, &mut factory));
                changed |= std::mem::replace(&mut wanted[from], start) != start;
            }
            if !changed {
                break;
            }
        }
        agreed.into_iter().zip(wanted).map(|(agreed, wanted)| agreed & wanted).collect()
    }

    fn find_registers(&mut self) {
        let mut factory = InstructionInfoFactory::new();
        for node in &self.nodes {
            let block = Block::at(node.block);
            for number in 0..node.count {
                let instruction = block.instruction(number as u16);
                self.doubles |= is_double_arithmetic(instruction);
                for used in factory.info(instruction).used_registers() {
                    let register = used.register().full_register();
                    let (all, written, bit) = if register.is_gpr64() {
                        (&mut self.used, &mut self.written, register as u32 - Register::RAX as u32)
                    } else if register.is_vector_register() && register.number() < 16 {
                        (&mut self.used_low, &mut self.written_low, register.number() as u32)
                    } else {
                        continue;
                    };
                    *all |= 1 << bit;
                    if writes(used.access()) {
                        *written |= 1 << bit;
                    }
                }
            }
        }
    }
}

/// Whether an access may write.
pub(super) fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

/// The numbers of the registers in a bit set.
pub(super) fn members(bits: u32) -> impl Iterator<Item = usize> {
    (0..16).filter(move |number| bits >> number & 1 != 0)
}

pub(super) fn is_double_arithmetic(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Addsd | Mnemonic::Subsd | Mnemonic::Mulsd | Mnemonic::Divsd)
}

/// What the first `count` instructions of a block need of the flags before it, and whether they set all flags.
fn own_needs(block: &Block, count: usize) -> (Needs, bool) {
    let mut needs = Needs::Nothing;
    // Some flags are the block's own, some are those before it: only words can say so.
    let mut mixed = false;
    for number in 0..count {
        let instruction = block.instruction(number as u16);
        let flags = StatusFlags::of(instruction);
        let may_leave = touches_memory(instruction) || is_double_arithmetic(instruction);
        if flags.reads || may_leave && mixed {
            return (Needs::Words, true);
        }
        if may_leave {
            needs = Needs::Left;
        }
        if flags.sets_all {
            return (needs, true);
        }
        mixed |= flags.mixes;
    }
    if mixed { (Needs::Words, true) } else { (needs, false) }
}
