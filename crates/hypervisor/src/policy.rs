//! What happens to hypercalls, and to the #UD that a foreign one raises.
//!
//! | policy | foreign instruction | native instruction |
//! |---|---|---|
//! | `hypercall-page` | #UD: the guest calls a stub that the hypervisor wrote | user space answers each call |
//! | `classic-2007` | emulated, as all that can be decoded: every mapping dropped, patched, and the call made in the same exit | answered |
//! | `skip-first-call` | on AMD as today; on Intel patched, and RIP goes on behind it: the call is lost | answered |
//! | `trap-and-patch` | patched with the guest's own rights, then executed again | answered |
//! | `patch-or-ud` | the same; where the patch fails, #UD | answered |
//! | `quirk-off` | #UD | answered |
//! | `direct` | answered in place, nothing is patched | answered |

mod classic;
mod decoder_2007;
mod page;
pub(crate) mod patch;
mod undefined;

pub(crate) use page::HYPERCALL_PAGE_MSR;
pub(crate) use undefined::checked;

use serde::{Deserialize, Serialize};

/// What a hypervisor does about hypercalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// What 2007 replaced: a page with the host's instruction, written when the guest asks for it.
    HypercallPage,
    /// The commit of 2007, to the letter.
    #[serde(rename = "classic-2007")]
    Classic2007,
    /// KVM up to 2015, which on Intel patched a VMMCALL and then skipped it.
    SkipFirstCall,
    /// KVM of today.
    #[default]
    TrapAndPatch,
    /// As proposed in 2021.
    PatchOrUd,
    /// KVM of today without KVM_X86_QUIRK_FIX_HYPERCALL_INSN.
    QuirkOff,
    /// Execute the foreign call, patch nothing.
    Direct,
}

impl Policy {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::HypercallPage, Self::Classic2007, Self::SkipFirstCall, Self::TrapAndPatch, Self::PatchOrUd, Self::QuirkOff, Self::Direct];

    /// Its name, as in scenarios.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HypercallPage => "hypercall-page",
            Self::Classic2007 => "classic-2007",
            Self::SkipFirstCall => "skip-first-call",
            Self::TrapAndPatch => "trap-and-patch",
            Self::PatchOrUd => "patch-or-ud",
            Self::QuirkOff => "quirk-off",
            Self::Direct => "direct",
        }
    }

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|policy| policy.name() == name)
    }

    /// Which exceptions exit. Before the commit #UD was the guest's own affair.
    pub const fn intercepted_exceptions(self) -> u32 {
        match self {
            Self::HypercallPage => 0,
            _ => 1 << isa::exception::Vector::InvalidOpcode as u32,
        }
    }

    /// Whether hypercalls follow the convention that the commit of 2007 introduced.
    pub const fn has_calls(self) -> bool {
        !self.is_of_2007()
    }

    /// Whether it is of the year of the commit, with what else the hypervisor did then.
    pub const fn is_of_2007(self) -> bool {
        matches!(self, Self::HypercallPage | Self::Classic2007)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_are_those_of_files() {
        for &policy in Policy::ALL {
            assert_eq!(Policy::from_name(policy.name()), Some(policy));
        }
        assert_eq!(Policy::from_name("none"), None);
    }
}
