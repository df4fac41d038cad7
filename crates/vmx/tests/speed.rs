//! Round trips in a second of host time; run by hand with `--release -- --ignored --nocapture`.

mod common;

use common::{GUEST_CODE, Machine};
use cpu::RunExit;
use isa::vmx::VmcsField as F;

#[test]
#[ignore = "measures the host"]
#[expect(clippy::disallowed_types, reason = "it measures the host's time, which reaches no result")]
fn round_trips() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1, 0x48, 0xff, 0xc3, 0xeb, 0xf8]);
    // With a VPID, as any hypervisor of today: without it every transition empties the TLB.
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 31);
    machine.set(F::SecondaryProcessorBasedControls, 1 << 5);
    machine.set(F::VirtualProcessorIdentifier, 1);
    machine.with(|vmx, cpu| vmx.vmlaunch(cpu)).expect("VMLAUNCH");
    let count = 1_000_000;
    let start = std::time::Instant::now();
    for _ in 0..count {
        assert_eq!(machine.run(1000), RunExit::HostEntry);
        machine.with(|vmx, cpu| {
            for field in [F::ExitReason, F::ExitQualification, F::ExitInterruptionInformation, F::IdtVectoringInformation] {
                std::hint::black_box(vmx.vmread(cpu, field)).expect("VMREAD");
            }
            let rip = vmx.vmread(cpu, F::GuestRip).expect("VMREAD");
            vmx.vmwrite(cpu, F::GuestRip, rip + 3).expect("VMWRITE");
            vmx.vmresume(cpu).expect("VMRESUME");
        });
    }
    let took = start.elapsed();
    println!("{count} round trips in {took:?}: {} ns each", took.as_nanos() / count);
}
