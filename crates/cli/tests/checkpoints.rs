//! `checkpoint`, `restore`, `inspect`, `diff` and `explain` of a checkpoint, as people and scripts use them; and the files of earlier versions.
//!
//! Files of another format version are made once, by hand, with the command of that version, and never again:
//! `trapline checkpoint crates/cli/tests/golden/story.json --only zen3 --at exit:3 --output crates/cli/tests/golden/format-1-zen3.tlcp`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const STORY: &str = "crates/cli/tests/golden/story.json";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the command at the repository's root.
fn trapline(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).current_dir(root()).output().expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

/// A directory of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    directory
}

fn checkpoint(directory: &Path, machine: &str, at: &str) -> String {
    let file = directory.join(format!("{machine}-{}", at.replace(':', "-"))).display().to_string();
    let (code, _, error) = trapline(&["checkpoint", STORY, "--only", machine, "--at", at, "--output", &file]);
    assert_eq!(code, 0, "{error}");
    file
}

/// A checkpoint that cannot be written whole leaves the one that was there, and nothing beside it; a link leads to where it led.
#[cfg(target_os = "linux")]
#[test]
fn a_whole_checkpoint_is_never_replaced_by_a_part() {
    let directory = scratch("whole");
    let old = checkpoint(&directory, "zen3", "exit:1");
    let before = std::fs::read(&old).expect("it is there");
    let link = directory.join("link").display().to_string();
    std::os::unix::fs::symlink(&old, &link).expect("a link");
    for (limit, code, left) in [("4", 2, true), ("unlimited", 0, false)] {
        // Blocks of 512 bytes; without the signal's default a longer file is an error.
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let arguments = [env!("CARGO_BIN_EXE_trapline"), "checkpoint", STORY, "--only", "zen3", "--at", "exit:3", "--output", &link];
        let output = Command::new("sh").arg("-c").arg(script).args(arguments).current_dir(root()).output().expect("a shell");
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::read(&old).expect("it is there") == before, left);
        let mut names: Vec<_> =
            std::fs::read_dir(&directory).expect("it is there").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["link", "zen3-exit-1"]);
    }
    assert_eq!(std::fs::read_link(&link).expect("a link").display().to_string(), old);
    assert_eq!(trapline(&["restore", &link, "--quiet"]).0, 0);
}

#[test]
fn what_is_restored_is_the_rest_of_the_run() {
    let directory = scratch("restored");
    for machine in ["skylake-server", "zen3"] {
        let (code, whole, _) = trapline(&["run", STORY, "--only", machine]);
        assert_eq!(code, 0);
        for at in ["exit:3", "instruction:11", "cycle:4000", "hypercall:2", "label:again:5"] {
            let file = checkpoint(&directory, machine, at);
            let (code, rest, error) = trapline(&["restore", &file]);
            assert_eq!(code, 0, "{at} on {machine}: {error}");
            let rest = rest.split_once('\n').expect("a heading").1;
            assert!(whole.ends_with(rest), "{at} on {machine}:\n{whole}\n---\n{rest}");
            assert!(rest.lines().count() > 5 && rest.contains("pass: every expectation came true"), "{rest}");
            let (_, json, _) = trapline(&["restore", &file, "--format", "json"]);
            let (_, whole, _) = trapline(&["run", STORY, "--only", machine, "--format", "json"]);
            let runs = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON")["runs"].clone();
            assert_eq!(runs(&json), runs(&whole), "counts, hash of the trace and registers are those of the whole run");
        }
    }
}

#[test]
fn the_same_run_gives_the_same_file() {
    let directory = scratch("same");
    let one = checkpoint(&directory, "zen3", "exit:3");
    let bytes = std::fs::read(&one).expect("it was written");
    let again = checkpoint(&directory, "zen3", "exit:3");
    assert_eq!(bytes, std::fs::read(again).expect("it was written"));
    assert_eq!(trapline(&["diff", &one, &one]), (0, "the same\n".to_owned(), String::new()));
}

#[test]
fn moments_that_do_not_come_or_make_no_sense_are_told() {
    let file = scratch("moments").join("none").display().to_string();
    let at = |moment: &str, machine: &str| trapline(&["checkpoint", STORY, "--only", machine, "--at", moment, "--output", &file]);
    for (moment, machine, code, message) in [
        ("exit:1000", "zen3", 1, "the run was over before exit:1000, and nothing was written"),
        ("exit", "zen3", 2, "write exit:N"),
        ("exit:x", "zen3", 2, "`x` is no number"),
        ("label:nowhere", "zen3", 2, "no label `nowhere`, but again, last"),
        ("exit:1", "", 2, "choose one with --only: skylake-server.trap-and-patch, zen3.trap-and-patch"),
    ] {
        let (told, _, error) = at(moment, machine);
        assert_eq!(told, code, "{moment}: {error}");
        assert!(error.contains(message), "{moment}: {error}");
        assert!(!Path::new(&file).exists());
    }
}

#[test]
fn a_checkpoint_can_be_looked_into() {
    let directory = scratch("inspect");
    let before = checkpoint(&directory, "zen3", "label:again");
    let after = checkpoint(&directory, "zen3", "exit:3");
    let (code, overview, _) = trapline(&["inspect", &after]);
    assert_eq!(code, 0);
    for section in ["scenario", "hypervisor", "vcpu/1/software", "cpu/0/sregs", "cpu/0/svm", "cpu/0/tlb", "board", "memory/pages"] {
        assert!(overview.lines().any(|line| line.starts_with(&format!("{section} "))), "{section}:\n{overview}");
    }
    let (code, registers, _) = trapline(&["inspect", &after, "cpu/1/regs"]);
    assert_eq!(code, 0);
    assert!(registers.contains("rip: 0x") && registers.lines().count() == 18, "{registers}");
    let (_, code_bytes, _) = trapline(&["inspect", &after, "memory/pages.0x10000"]);
    assert!(code_bytes.starts_with("0x00010000  b9 04 00 00 00 "), "{code_bytes}");
    let (_, json, _) = trapline(&["inspect", &after, "hypervisor.policy", "--format", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON")["value"], "trap-and-patch");
    let (code, _, error) = trapline(&["inspect", &after, "cpu/9/regs"]);
    assert!(code == 2 && error.contains("there is no section `cpu/9/regs`"), "{error}");
    let (code, _, error) = trapline(&["inspect", &after, "memory/pages.0x99999999"]);
    assert!(code == 2 && error.contains("there is no memory at 0x99999999"), "{error}");
    let (code, differences, _) = trapline(&["diff", &before, &after, "--verbose"]);
    assert_eq!(code, 1);
    assert!(differences.contains("hypervisor.statistics.exits: 0 -> 3"), "{differences}");
    assert!(differences.contains("memory/pages 0x"), "{differences}");
    let (code, told, error) = trapline(&["explain", &after]);
    assert_eq!(code, 0, "{told}{error}");
    assert!(told.contains("CPU 0, VMCB at 0x") && told.contains("CPU 1, VMCB at 0x"), "{told}");
}

#[test]
fn damage_is_told_with_its_section() {
    let directory = scratch("damaged");
    let file = checkpoint(&directory, "skylake-server", "exit:2");
    let bytes = std::fs::read(&file).expect("it was written");
    let damaged = directory.join("damaged").display().to_string();
    // Inside of what a section holds: behind its name, with which it begins.
    let name = b"memory/pages";
    let inside = bytes.windows(name.len()).position(|window| window == name).expect("there is memory") + name.len() + 8;
    std::fs::write(&damaged, &bytes[..inside]).expect("it can be written");
    for command in ["restore", "inspect", "explain"] {
        let (code, _, error) = trapline(&[command, &damaged]);
        assert_eq!(code, 2, "{command}: {error}");
        assert!(error.contains("section `") && error.contains("it was cut off"), "{command}: {error}");
    }
    let (code, _, error) = trapline(&["restore", STORY]);
    assert!(code == 2 && error.contains("begins with") && error.contains("`trapline checkpoint` writes one"), "{error}");
}

#[test]
fn files_of_earlier_versions_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&golden).expect("there are some").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "tlcp"));
    files.sort();
    assert!(files.len() >= 2);
    for file in files {
        let (code, rest, error) = trapline(&["restore", &file.display().to_string(), "--quiet"]);
        assert_eq!((code, rest.as_str()), (0, ""), "{}: {error}", file.display());
        let (code, json, _) = trapline(&["restore", &file.display().to_string(), "--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let run = &report["runs"][0];
        // What the version that wrote it made of the run; changes of the cost model may change the cycles, and only those.
        assert_eq!((code, &run["stop"], &run["instructions"]), (0, &"halted".into(), &"34".into()), "{}", file.display());
        assert_eq!(run["registers"][1]["rax"], "0xfffffffffffffc18", "{}", file.display());
    }
}
