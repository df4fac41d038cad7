//! PAUSE exiting and PAUSE-loop exiting.

mod common;

use common::Machine;
use isa::register::Gpr;
use isa::vmx::{SecondaryControls, VmcsField as F};
use models::SKYLAKE_SERVER;

/// How often a guest that pauses for ever came to its PAUSE before it exited; `None` if something else ended it.
fn pauses(gap: u64, window: u64, between: &str) -> Option<u64> {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest(&format!("again: inc rbx\npause\n{between}\ncmp rbx, 1000\njne again\nvmcall"));
    machine.add_secondary(&[SecondaryControls::PAUSE_LOOP_EXITING]);
    machine.set(F::PleGap, gap);
    machine.set(F::PleWindow, window);
    (machine.enter(true) == 40).then(|| machine.cpu.gpr(Gpr::Rbx))
}

#[test]
fn a_loop_of_pauses_exits_when_it_lasts_longer_than_the_window() {
    let cost = u64::from(SKYLAKE_SERVER.costs.pause.ticks) / 4;
    let often = pauses(cost + 20, 10 * cost, "").expect("an exit");
    assert!((8..=12).contains(&often), "{often} PAUSEs of {cost} cycles");
    assert!(pauses(cost + 20, 20 * cost, "").expect("an exit") > often);
    assert_eq!(pauses(cost + 20, u32::MAX.into(), ""), None, "the window is not over");
    // PAUSEs further apart than the gap are no loop.
    assert_eq!(pauses(cost / 2, 10 * cost, ""), None);
    assert_eq!(pauses(cost + 20, 10 * cost, "xor ecx, ecx\nrdtsc\nrdtsc\nrdtsc\nrdtsc"), None);
}

#[test]
fn pause() {
    let mut machine = Machine::new(&SKYLAKE_SERVER);
    machine.guest("pause\nvmcall");
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 30);
    assert_eq!((machine.enter(true), machine.read(F::ExitInstructionLength)), (40, 2));
}
