//! A guest's stores in the store buffer, by steps: what a VM exit does to them, and what the hypervisor and other virtual CPUs see.

mod common;

use common::{Guest, Side, Story, VENDORS};
use hypervisor::{Freedom, Limits, Schedule, StepKind};

const X: u64 = 0x9_0000;

/// A guest whose store waits, in front of what comes behind it.
fn begun(behind: &str, side: &Side) -> Story {
    let source = format!("mov dword [{X:#x}], 1\n behind: {behind}\n nop\n nop");
    let mut story = Guest::new(&source).on(side);
    story.vm().follow(Schedule::default());
    let behind = story.symbols["behind"];
    // Faults of nested paging come between.
    let arrives = (0..100).any(|_| {
        story.step(0, &Freedom { buffer: true, ..Freedom::default() });
        story.vm().guest_place(0) == Some(behind)
    });
    assert!(arrives && story.vm().buffers_stores(0), "{}", side.model.name);
    story
}

impl Story {
    fn step(&mut self, vcpu: u32, freedom: &Freedom) -> hypervisor::Step {
        let limits = Limits { instructions: 1_000_000, exits: 100_000, ..Limits::NONE };
        self.vm.as_mut().unwrap().step(vcpu, freedom, &limits, &mut self.trace).unwrap()
    }

    fn seen(&mut self) -> u64 {
        self.vm().memory().read_u64(X).unwrap()
    }
}

#[test]
fn a_vm_exit_empties_the_buffer_and_an_instruction_without_one_does_not() {
    for side in &VENDORS {
        for (what, exits) in [("cpuid", true), ("NATIVE", true), ("FOREIGN", true), ("hlt", true), ("out 0x80, al", true), ("pause", false)]
        {
            let mut story = begun(what, side);
            assert_eq!(story.seen(), 0);
            let step = story.step(0, &Freedom::default());
            let name = format!("{what} on {}", side.model.name);
            assert_eq!((story.seen() == 1, story.vm().buffers_stores(0)), (exits, !exits), "{name}");
            assert_eq!((story.vm().is_in_host(0), step.emptied.is_some()), (exits, exits), "{name}");
        }
    }
}

#[test]
fn a_drain_is_a_step_of_its_own_and_one_of_nothing_does_nothing() {
    for side in &VENDORS {
        let mut story = begun("nop", side);
        let place = story.vm().guest_place(0);
        for seen in [1, 1] {
            let step = story.step(0, &Freedom::drain());
            assert_eq!((step.kind, story.seen(), story.vm().guest_place(0)), (StepKind::Drain, seen, place));
        }
        assert!(!story.vm().buffers_stores(0));
    }
}

/// A host that takes a mapping away fetches every processor out of its guest first: what one had put in its buffer is in memory then.
#[test]
fn a_flush_of_all_processors_empties_the_buffers() {
    for side in &VENDORS {
        let mut story = begun("nop", side);
        let Story { vm, trace, .. } = &mut story;
        vm.as_mut().unwrap().start_dirty_log(trace).unwrap();
        assert_eq!((story.seen(), story.vm().buffers_stores(0)), (1, false));
    }
}
