//! INIT and start-up signals that reach a processor before it comes to look at them.

mod common;

use common::Quiet;
use cpu::RunExit;
use cpu::block::CodeCache;
use cpu::bus::Environment;
use cpu::state::{Activity, Cpu};
use isa::register::Segment;
use memory::Memory;

/// Runs the second processor of two for a few instructions of a loop at 0x9a000.
fn start(activity: Activity) -> Box<Cpu> {
    let mut cpu = Cpu::new(&models::SKYLAKE_SERVER, 1, 2, None);
    let mut memory = Memory::new(1 << 20);
    memory.write(0x9_a000, &[0x90, 0xeb, 0xfd]).expect("RAM");
    cpu.activity = activity;
    cpu.init_pending = true;
    cpu.sipi_pending = Some(0x9a);
    let mut environment = Environment { memory: &mut memory, code: &mut CodeCache::new(), bus: &mut Quiet::default() };
    assert_eq!(cpu.run(&mut environment, u64::MAX, 10), RunExit::Instructions);
    cpu
}

#[test]
fn init_and_start_up_signal_at_once_start_the_processor() {
    for activity in [Activity::WaitForSipi, Activity::Active, Activity::Halted] {
        let cpu = start(activity);
        assert_eq!((cpu.activity, cpu.segment(Segment::Cs).base), (Activity::Active, 0x9_a000), "from {activity:?}");
        assert!(!cpu.init_pending && cpu.sipi_pending.is_none());
    }
}
