//! The life of a hypercall under every policy, on both vendors.

mod common;

use common::{Guest, VENDORS};
use hypervisor::Stop;

const NATIVE_CALL: &str = "mov eax, 1\n mov ebx, 2\n site: NATIVE\n hlt";
const FOREIGN_CALLS: &str = "mov r8d, 3\n again: mov eax, 1\n site: FOREIGN\n dec r8d\n jnz again\n hlt";

#[test]
fn a_native_call_is_one_exit() {
    for side in VENDORS {
        let mut story = Guest::new(NATIVE_CALL).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        assert_eq!(story.rax(), 0);
        let site = story.label("site");
        let mut kinds = story.lines();
        kinds.truncate(4);
        assert!(kinds[0].starts_with("kvm_entry"), "{kinds:?}");
        assert!(kinds[1].starts_with(&format!("kvm_exit: vcpu 0 reason {} rip {site:#x}", side.call_reason)), "{kinds:?}");
        assert_eq!(kinds[2], "kvm_hypercall: nr 0x1 a0 0x2 a1 0x0 a2 0x0 a3 0x0");
        assert!(kinds[3].starts_with(&format!("kvm_entry: vcpu 0, rip {:#x}", site + 3)), "{kinds:?}");
    }
}

#[test]
fn a_foreign_call_is_patched_once() {
    for side in VENDORS {
        let mut story = Guest::new(FOREIGN_CALLS).on(&side);
        assert_eq!(story.run(), Stop::Halted, "{}", story.text());
        let exits = story.exits();
        assert_eq!(exits, [side.ud_reason, side.call_reason, side.call_reason, side.call_reason, exits[4].as_str()], "{}", story.text());
        let site = story.label("site");
        assert_eq!(story.bytes(site, 3), side.bytes);
        assert_eq!(story.count("trapline_patch"), 1);
    }
}
