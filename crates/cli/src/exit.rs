//! The exit codes of the command, each with its name.

use std::process::ExitCode;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything came true; a booted guest stopped itself and reported success.
    Success = 0,
    /// An expectation or a snapshot did not come true; a booted guest reported failure or crashed; a VMCS or VMCB breaks a rule; a moment did
    /// not come, two checkpoints differ, or a guest was not moved.
    Failed = 1,
    /// The command line, a scenario, an image, a checkpoint or what is to be explained cannot be read, or output cannot be written.
    Invalid = 2,
    /// Trapline itself is wrong.
    Internal = 3,
    /// A booted guest reached a limit, or something that is not modelled, or whoever read its output went away.
    Unfinished = 4,
}

/// The same for `--help`.
pub const HELP: &str = "Exit codes:
  0  success: expectations came true, or the booted guest reported success
  1  failed: an expectation or snapshot did not, the guest reported failure or was not moved, an explained VMCS or VMCB breaks a rule, or
     checkpoints differ
  2  invalid: the command line, a scenario, assembly text, an image, a checkpoint or what is to be explained; or output cannot be written
  3  internal: a defect of Trapline
  4  unfinished: a booted guest reached a limit, or something not modelled, or nobody read its output on";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        for exit in [Exit::Success, Exit::Failed, Exit::Invalid, Exit::Internal, Exit::Unfinished] {
            let line = format!("\n  {}  {}", exit as u8, format!("{exit:?}").to_lowercase());
            assert!(HELP.contains(&line), "{line}");
        }
    }
}
