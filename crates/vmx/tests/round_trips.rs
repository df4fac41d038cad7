//! A thousand round trips of a guest with a VPID: every VMREAD, VMWRITE and VMRESUME on the way succeeds.

mod common;

use common::{GUEST_CODE, Machine};
use cpu::RunExit;
use isa::vmx::VmcsField as F;

#[test]
fn a_thousand_round_trips_end_in_the_host() {
    let mut machine = Machine::new(&models::SKYLAKE_SERVER);
    machine.load(GUEST_CODE, &[0x0f, 0x01, 0xc1, 0x48, 0xff, 0xc3, 0xeb, 0xf8]);
    // With a VPID, as any hypervisor of today: without it every transition empties the TLB.
    let primary = machine.read(F::PrimaryProcessorBasedControls);
    machine.set(F::PrimaryProcessorBasedControls, primary | 1 << 31);
    machine.set(F::SecondaryProcessorBasedControls, 1 << 5);
    machine.set(F::VirtualProcessorIdentifier, 1);
    machine.with(|vmx, cpu| vmx.vmlaunch(cpu)).expect("VMLAUNCH");
    for _ in 0..1_000 {
        assert_eq!(machine.run(1000), RunExit::HostEntry);
        machine.with(|vmx, cpu| {
            for field in [F::ExitReason, F::ExitQualification, F::ExitInterruptionInformation, F::IdtVectoringInformation] {
                vmx.vmread(cpu, field).expect("VMREAD");
            }
            let rip = vmx.vmread(cpu, F::GuestRip).expect("VMREAD");
            vmx.vmwrite(cpu, F::GuestRip, rip + 3).expect("VMWRITE");
            vmx.vmresume(cpu).expect("VMRESUME");
        });
    }
}
