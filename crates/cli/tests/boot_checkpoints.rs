//! `boot --checkpoint` and `restore` of booted guests, as people and scripts use them; and the files of earlier versions.
//!
//! Files of another format version are made once, by hand, with the command of that version, and never again:
//! `trapline asm docs/examples/ticks.asm --origin 0x10000 --output ticks.flat`, then `trapline boot ticks.flat --flat 0x10000 --memory 1M --cpu zen3 --hypervisor
//! trap-and-patch --checkpoint crates/cli/tests/golden/boot/format-1-zen3.tlcp --at exit:13 --stop`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ON: [&[&str]; 4] = [
    &["--cpu", "skylake-server"],
    &["--cpu", "zen3"],
    &["--cpu", "skylake-server", "--hypervisor", "trap-and-patch"],
    &["--cpu", "zen3", "--hypervisor", "trap-and-patch"],
];

/// Runs the command at the repository's root.
fn trapline(arguments: &[&str]) -> (i32, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).current_dir(root).output().expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

/// A directory of this test's own, empty but for the image that is booted.
fn scratch(name: &str) -> (PathBuf, String) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    let image = directory.join("ticks.flat").display().to_string();
    assert_eq!(trapline(&["asm", "docs/examples/ticks.asm", "--origin", "0x10000", "--output", &image]).0, 0);
    (directory, image)
}

fn boot(image: &str, on: &[&str], more: &[&str]) -> (i32, String, String) {
    trapline(&[&["boot", image, "--flat", "0x10000", "--memory", "1M"], on, more].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_restored_is_the_rest_of_the_run() {
    let (directory, image) = scratch("boot-restored");
    for (number, on) in ON.iter().enumerate() {
        let file = directory.join(format!("{number}.tlcp")).display().to_string();
        let traced = directory.join(format!("{number}.ndjson")).display().to_string();
        let (code, serial, _) = boot(&image, on, &["--trace", &traced, "--deliveries"]);
        assert_eq!((code, serial.as_str()), (0, "1\n2\n3\n4\n5\n"));
        let trace = std::fs::read_to_string(&traced).expect("there is a trace");
        let whole = json(&boot(&image, on, &["--format", "json"]).1);
        for at in ["instruction:30", "cycle:4000000", "address:0x10054:3"] {
            // It goes on behind a checkpoint as if there had been none.
            let (code, through, told) = boot(&image, on, &["--checkpoint", &file, "--at", at]);
            assert_eq!((code, &through), (0, &serial), "{told}");
            assert!(told.contains(" bytes in ") && told.contains("stopped: every CPU sleeps"), "{told}");
            let (code, first, told) = boot(&image, on, &["--checkpoint", &file, "--at", at, "--stop"]);
            assert_eq!(code, 0, "{told}");
            assert!(!told.contains("stopped"), "{told}");
            let (code, rest, _) = trapline(&["restore", &file, "--trace", &traced, "--deliveries"]);
            assert_eq!((code, first + &rest), (0, serial.clone()), "{at} on {on:?}");
            let rest = std::fs::read_to_string(&traced).expect("there is a trace");
            let rest = rest.split_once('\n').expect("a heading").1;
            assert!(trace.ends_with(rest) && rest.len() < trace.len() && !rest.is_empty(), "{at} on {on:?}:\n{rest}");
            assert_eq!(json(&trapline(&["restore", &file, "--format", "json"]).1), whole, "{at} on {on:?}");
            // Once more, from there.
            let again = directory.join("again.tlcp").display().to_string();
            let (code, _, told) = trapline(&["restore", &file, "--checkpoint", &again, "--at", "instruction:40", "--stop"]);
            assert_eq!(code, 0, "{told}");
            assert_eq!(json(&trapline(&["restore", &again, "--format", "json"]).1), whole, "{at} on {on:?}");
        }
    }
}

#[test]
fn what_cannot_be_is_told() {
    let (directory, image) = scratch("boot-refused");
    let file = directory.join("none.tlcp").display().to_string();
    for (at, code, message) in [
        ("exit:3", 2, "a machine without a hypervisor has no exits to wait for"),
        ("label:main", 2, "the guest has no label `main`, but none at all"),
        ("soon", 2, "write exit:N"),
        ("address:main", 2, "`main` is no number"),
        ("instruction:1000000", 1, "the run was over before instruction:1000000, and nothing was written"),
    ] {
        let (told, _, error) = boot(&image, ON[0], &["--checkpoint", &file, "--at", at]);
        assert!(told == code && error.contains(message), "{at}: {told} {error}");
        assert!(!Path::new(&file).exists());
    }
    let (code, _, error) = boot(&image, ON[0], &["--checkpoint", &file]);
    assert!(code == 2 && error.contains("--at"), "{error}");
    let nowhere = directory.join("nowhere/none.tlcp").display().to_string();
    let (code, _, error) = boot(&image, ON[0], &["--checkpoint", &nowhere, "--at", "instruction:5"]);
    assert!(code == 2 && error.contains("cannot write"), "{error}");
    // Options of booted guests, and a checkpoint of a scenario's run.
    let story = "crates/cli/tests/golden/format-1-zen3.tlcp";
    for option in [&["--serial", "out"][..], &["--max-cycles", "1"], &["--max-instructions", "1"]] {
        let (code, _, error) = trapline(&[&["restore", story], option].concat());
        assert!(code == 2 && error.contains("is for guests of `trapline boot`"), "{option:?}: {error}");
    }
    // Another limit than before.
    let (code, _, _) = boot(&image, ON[1], &["--checkpoint", &file, "--at", "instruction:20", "--stop"]);
    assert_eq!(code, 0);
    let (code, _, told) = trapline(&["restore", &file, "--max-instructions", "30"]);
    assert!(code == 4 && told.contains("the limit of 30 instructions is reached"), "{told}");
}

#[test]
fn a_scenario_that_was_restored_is_written_again() {
    let (directory, _) = scratch("boot-again");
    let story = "crates/cli/tests/golden/format-1-zen3.tlcp";
    let again = directory.join("again.tlcp").display().to_string();
    let (_, whole, _) = trapline(&["restore", story, "--format", "json"]);
    let (code, through, told) = trapline(&["restore", story, "--checkpoint", &again, "--at", "exit:5", "--format", "json"]);
    assert_eq!((code, &through), (0, &whole), "{told}");
    let (code, rest, _) = trapline(&["restore", &again, "--format", "json"]);
    assert_eq!((code, json(&rest)["runs"].clone()), (0, json(&whole)["runs"].clone()));
    let (code, first, told) = trapline(&["restore", story, "--checkpoint", &again, "--at", "exit:5", "--stop"]);
    assert!(code == 0 && !first.contains("pass") && told.contains("5 VM exits"), "{first}{told}");
    let (code, stopped, _) = trapline(&["restore", story, "--checkpoint", &again, "--at", "exit:5", "--stop", "--format", "json"]);
    let stopped = json(&stopped);
    assert_eq!((code, &stopped["exits"], &stopped["file"]), (0, &5.into(), &again.clone().into()), "{stopped}");
    let (code, _, told) = trapline(&["restore", story, "--checkpoint", &again, "--at", "exit:500"]);
    assert!(code == 1 && told.contains("the run was over before exit:500"), "{told}");
}

#[test]
fn labels_are_the_symbols_of_an_elf_image() {
    let (directory, _) = scratch("boot-labels");
    // An executable of one segment: three times INC EAX, each with a name, and HLT.
    let code = [0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xf4];
    let names = b"\0first\0second\0third\0";
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    let mut put = |value: u64, size: usize| elf.extend_from_slice(&value.to_le_bytes()[..size]);
    let (code_at, names_at) = (64 + 56, 64 + 56 + 8);
    let symbols_at = names_at + 24;
    let sections_at = symbols_at + 4 * 24;
    for (value, size) in
        [(2, 2), (62, 2), (1, 4), (0x10_0000, 8), (64, 8), (sections_at, 8), (0, 4), (64, 2), (56, 2), (1, 2), (64, 2), (3, 2), (2, 2)]
    {
        put(value, size);
    }
    for (value, size) in [(1, 4), (7, 4), (code_at, 8), (0x10_0000, 8), (0x10_0000, 8), (7, 8), (7, 8), (0x1000, 8)] {
        put(value, size);
    }
    elf.extend(code);
    elf.push(0);
    elf.extend(names);
    elf.resize(symbols_at as usize, 0);
    let mut put = |value: u64, size: usize| elf.extend_from_slice(&value.to_le_bytes()[..size]);
    // Names, kinds (no type), sections, values, sizes: a first one of nothing, then the three.
    for (name, section, value) in [(0, 0, 0), (1, 1, 0x10_0000), (7, 1, 0x10_0002), (14, 1, 0x10_0004)] {
        for (value, size) in [(name, 4), (0x10, 1), (0, 1), (section, 2), (value, 8), (0, 8)] {
            put(value, size);
        }
    }
    let section = |kind: u64, offset: u64, size: u64, link: u64, entry: u64| {
        [(0, 4), (kind, 4), (0, 8), (0, 8), (offset, 8), (size, 8), (link, 4), (1, 4), (1, 8), (entry, 8)]
    };
    for (value, size) in
        [section(0, 0, 0, 0, 0), section(2, symbols_at, 96, 2, 24), section(3, names_at, names.len() as u64, 0, 0)].concat()
    {
        put(value, size);
    }
    let image = directory.join("image.elf").display().to_string();
    std::fs::write(&image, elf).expect("it can be written");
    let file = directory.join("file.tlcp").display().to_string();
    let at = |label: &str| trapline(&["boot", &image, "--memory", "2M", "--checkpoint", &file, "--at", label, "--stop"]);
    let (code, _, told) = at("label:second");
    assert!(code == 0 && told.contains("at 1 instructions"), "{told}");
    // The checkpoint knows them too.
    let again = directory.join("again.tlcp").display().to_string();
    let (code, _, told) = trapline(&["restore", &file, "--checkpoint", &again, "--at", "label:third", "--stop"]);
    assert!(code == 0 && told.contains("at 2 instructions"), "{told}");
    let (code, _, told) = at("label:fourth");
    assert!(code == 2 && told.contains("no label `fourth`, but first, second, third"), "{told}");
}

#[test]
fn files_of_earlier_versions_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/boot");
    let mut count = 0;
    for entry in std::fs::read_dir(&golden).expect("there are some") {
        let file = entry.expect("readable").path().display().to_string();
        let (code, rest, error) = trapline(&["restore", &file]);
        assert_eq!((code, rest.as_str()), (0, "3\n4\n5\n"), "{file}: {error}");
        let report = json(&trapline(&["restore", &file, "--format", "json"]).1);
        assert_eq!((&report["stop"], &report["serial"]), (&"halted".into(), &"1\n2\n3\n4\n5\n".into()), "{file}");
        count += 1;
    }
    assert!(count >= 2);
}
