//! The host's own processor as an oracle: random user-mode instructions must do to registers, flags, XMM registers and memory what they do
//! on a real x86-64 processor.
//!
//! What is compared: every instruction of the modelled set that has a form in 64-bit mode, alone with any operands, and in short sequences
//! on registers, which run as blocks with the flags nobody reads left out. Faults must be the same, too. Flags that the manual leaves
//! undefined are not compared. The scratch memory lies at the same address on both sides, so even addresses are comparable.
//!
//! `TRAPLINE_ORACLE_CASES` sets the number of cases (20,000 if unset), `TRAPLINE_ORACLE_SEED` the seed, `TRAPLINE_ORACLE_ONLY` a comma-separated
//! list of mnemonics. On a host that is not x86-64 Linux, or that refuses the mapping, the test says so and passes.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod compare;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod core_side;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod generate;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod native;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod state;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn random_instructions_agree_with_the_host() {
    compare::run();
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn random_instructions_agree_with_the_host() {
    println!("skipped: the host is not x86-64 Linux");
}
