//! The command as people and scripts use it: what it prints where, and with which exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the command at the repository's root.
fn trapline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).current_dir(root()).output().expect("the command runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A directory of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    directory
}

fn write(directory: &Path, name: &str, content: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("the file can be written");
    path.display().to_string()
}

const STORY: &str = r#"{ "title": "t", "teaches": "t.", "machine": { "cpu": "zen3" }, "hypervisor": { "policy": "none" },
  "guest": { "assembly": ["mov eax, 5", "hlt"] }, "expect": { "registers": { "rax": VALUE } } }"#;

#[test]
fn run_tells_whether_expectations_came_true() {
    let directory = scratch("run");
    let good = write(&directory, "good.json", STORY.replace("VALUE", "5").as_bytes());
    let bad = write(&directory, "bad.json", STORY.replace("VALUE", "6").as_bytes());
    let ugly = write(&directory, "ugly.json", STORY.replace("VALUE", "[]").as_bytes());
    let output = trapline(&["run", &good]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stdout).contains("pass: every expectation came true"));
    let output = trapline(&["run", &bad]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stdout).contains("rax is 0x5, not 0x6"), "{}", text(&output.stdout));
    let output = trapline(&["run", &ugly]);
    assert_eq!((code(&output), output.stdout.len()), (2, 0));
    assert!(text(&output.stderr).contains("should be an integer or a string"));
    assert_eq!(code(&trapline(&["run", "no-such-file.json"])), 2);
    assert_eq!(code(&trapline(&["run"])), 2);
    assert_eq!(code(&trapline(&["--help"])), 0);
}

#[test]
fn colours_appear_only_when_asked_for() {
    let directory = scratch("colours");
    let good = write(&directory, "good.json", STORY.replace("VALUE", "5").as_bytes());
    assert!(!text(&trapline(&["run", &good]).stdout).contains('\u{1b}'));
    assert!(text(&trapline(&["run", &good, "--color", "always"]).stdout).contains('\u{1b}'));
}

#[test]
fn json_is_json_and_numbers_survive_it() {
    let directory = scratch("json");
    let good = write(&directory, "good.json", STORY.replace("VALUE", "5").as_bytes());
    let output = trapline(&["run", &good, "--format", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["passed"], true);
    assert_eq!(document["runs"][0]["registers"][0]["rax"], "0x5");
    assert_eq!(document["runs"][0]["stop"], "halted");
}

#[test]
fn a_trace_in_ndjson_has_a_line_for_every_event() {
    let directory = scratch("ndjson");
    let file = directory.join("trace.ndjson").display().to_string();
    let output = trapline(&["run", "scenarios/edge-cases/e02-foreign.json", "--only", "zen3", "--trace", &file]);
    assert_eq!(code(&output), 0);
    let trace = std::fs::read_to_string(&file).expect("the trace is there");
    let lines: Vec<serde_json::Value> = trace.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines[0]["format"], "trapline-trace");
    let printed = text(&output.stdout).lines().filter(|line| line.contains("] ")).count();
    assert_eq!(lines.len() - 1, printed);
    assert!(lines.iter().any(|line| line["event"] == "kvm_exit" && line["reason"] == "UD excp"));
}

/// At every number of jobs the same bytes, and a change of a reviewed trace is found and shown.
#[test]
fn test_is_the_same_at_every_number_of_jobs_and_compares_traces() {
    let one = trapline(&["test", "scenarios/hypercall-life", "-v", "-j", "1"]);
    let two = trapline(&["test", "scenarios/hypercall-life", "-v", "-j", "2"]);
    assert_eq!(text(&one.stdout), text(&two.stdout));
    let json = |jobs| trapline(&["test", "scenarios/smp", "--format", "json", "-j", jobs]).stdout;
    assert_eq!(json("1"), json("3"));

    let directory = scratch("test");
    let snapshots = directory.join("snapshots").display().to_string();
    let story = write(&directory, "story.json", STORY.replace("VALUE", "5").as_bytes());
    let test = |more: &[&str]| trapline(&[&["test", &story, "--snapshots", &snapshots], more].concat());
    let missing = test(&[]);
    assert_eq!(code(&missing), 1);
    assert!(text(&missing.stdout).contains("there is no reviewed trace"));
    assert_eq!(code(&test(&["--accept"])), 0);
    assert_eq!(code(&test(&[])), 0);
    write(&directory, "story.json", STORY.replace("VALUE", "5").replace("\"hlt\"", "\"nop\", \"hlt\"").as_bytes());
    let different = test(&[]);
    assert_eq!(code(&different), 1);
    assert!(text(&different.stdout).contains("\n- stopped: "), "{}", text(&different.stdout));
    assert!(text(&different.stdout).contains("\n+ stopped: "));
    assert_eq!(code(&trapline(&["test", &directory.display().to_string(), "--only", "nothing-has-this-name"])), 2);
}

#[test]
fn boot_reports_what_the_guest_said() {
    let directory = scratch("boot");
    let boot = |name: &str, bytes: &[u8], more: &[&str]| {
        let image = write(&directory, name, bytes);
        trapline(&[&["boot", &image, "--flat", "0x10000", "--max-instructions", "1000"], more].concat())
    };
    // mov al, N; out 0xf4, al
    assert_eq!(code(&boot("good", &[0xb0, 0, 0xe6, 0xf4], &[])), 0);
    assert_eq!(code(&boot("bad", &[0xb0, 7, 0xe6, 0xf4], &["--vendor", "amd"])), 1);
    // hlt with interrupts off; ud2 without an IDT; jmp $
    assert_eq!(code(&boot("halt", &[0xf4], &["--hypervisor", "trap-and-patch"])), 0);
    assert_eq!(code(&boot("crash", &[0x0f, 0x0b], &[])), 1);
    assert_eq!(code(&boot("loop", &[0xeb, 0xfe], &[])), 4);
    // mov ecx, PERF_CTL0; mov eax, EN; xor edx, edx; wrmsr
    let counting = [0xb9, 0, 0, 1, 0xc0, 0xb8, 0, 0, 0x40, 0, 0x31, 0xd2, 0x0f, 0x30];
    let unmodelled = boot("counting", &counting, &["--vendor", "amd"]);
    assert_eq!(code(&unmodelled), 4);
    assert!(text(&unmodelled.stderr).contains("bytes 0f 30"), "{}", text(&unmodelled.stderr));
    // Serial output goes to the standard output, and to it alone.
    let serial = boot("serial", &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xf4], &[]);
    assert_eq!(text(&serial.stdout), "x");
    for wrong in [&["--cpu", "i8080"][..], &["--hypervisor", "banana"], &["--memory", "lots"], &["--vcpus", "0"], &["--memory", "1K"]] {
        assert_eq!(code(&boot("good", &[0xf4], wrong)), 2, "{wrong:?}");
    }
    let neither = write(&directory, "neither", b"neither multiboot nor ELF");
    assert_eq!(code(&trapline(&["boot", &neither])), 2);
}

/// What has no effect is refused and not ignored, and a file that is no image is told by what it is.
#[test]
fn boot_says_what_does_not_go_together() {
    let directory = scratch("boot-refuses");
    let image = write(&directory, "halt.flat", &[0xf4]);
    for (arguments, words) in [
        (&["--paging", "shadow", "--hypervisor", "none"][..], "on the bare machine there are no tables of a hypervisor"),
        (&["--append", "quiet"], "flat code has nowhere to receive a command line"),
        (&["--module", &image], "flat code has nowhere to receive modules"),
        (&["--flat", "0x8fff"], "lies over the environment's own memory at 0x1000..0xc000"),
        (&["--trace", "-", "--format", "json"], "the standard output has the report alone"),
        (&["--cpu", "zen"], "a similar value exists: 'zen3'"),
        (&["--mode", "real"], "[possible values: real16, protected32, long64]"),
        (&["--serial-input", "nowhere"], "cannot read nowhere"),
    ] {
        let mut all = vec!["boot", &image];
        all.extend((arguments[0] != "--flat").then_some(["--flat", "0x10000"]).into_iter().flatten());
        all.extend(arguments);
        let output = trapline(&all);
        assert_eq!((code(&output), output.stdout.len()), (2, 0), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
    let checkpoint = directory.join("halt.tlcp").display().to_string();
    let cut = ["boot", &image, "--flat", "0x10000", "--checkpoint", &checkpoint, "--at", "instruction:0", "--stop"];
    assert_eq!(code(&trapline(&cut)), 0);
    let mut linux = vec![0; 0x400];
    linux[0x202..0x206].copy_from_slice(b"HdrS");
    for (file, words) in [
        (checkpoint, "`trapline restore` goes on from it"),
        (write(&directory, "linux", &linux), "boot protocol is not modelled"),
        (write(&directory, "story.json", b"{}"), "`trapline run` runs scenarios"),
        (write(&directory, "guest.asm", b"hlt"), "`trapline asm --output FILE`"),
        (write(&directory, "bytes", &[0xff, 0]), "`--flat ADDRESS`"),
    ] {
        let output = trapline(&["boot", &file]);
        assert_eq!(code(&output), 2);
        assert!(text(&output.stderr).contains(words), "{file}: {}", text(&output.stderr));
    }
}

/// Serial output and events on one stream: each event begins a line, and what the guest writes comes with the exit in which it was written.
#[test]
fn serial_output_and_trace_share_the_standard_output() {
    let directory = scratch("boot-together");
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; cpuid; hlt
    let image = write(&directory, "x.flat", &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0x0f, 0xa2, 0xf4]);
    let boot = |more: &[&str]| trapline(&[&["boot", &image, "--flat", "0x10000", "--hypervisor", "direct"], more].concat());
    let output = text(&boot(&["--trace", "-"]).stdout);
    let place = |words: &str| output.find(words).unwrap_or_else(|| panic!("{words}: {output}"));
    let [io, x, cpuid] = ["reason IO_INSTRUCTION", "\nx\n", "reason CPUID"].map(place);
    assert!(io < x && x < cpuid, "{output}");
    assert_eq!(text(&boot(&["--serial", "-"]).stdout), "x");
    let report: serde_json::Value = serde_json::from_slice(&boot(&["--format", "json"]).stdout).expect("JSON");
    let events = output.lines().filter(|line| line.contains("] ")).count();
    assert_eq!((&report["schema_version"], &report["events"]), (&1.into(), &events.into()));
    let crash = write(&directory, "crash.flat", &[0x0f, 0x0b]);
    let output = trapline(&["boot", &crash, "--flat", "0x10000"]);
    assert!(text(&output.stderr).contains("hint: --trace - shows the exceptions"), "{}", text(&output.stderr));
}

/// What is typed ahead is there from the start, from a file or the standard input.
#[test]
fn a_booted_guest_reads_what_was_typed() {
    let directory = scratch("boot-typed");
    let echo = "mov dx, 0x3fd\nwait: in al, dx\ntest al, 1\njz wait\nmov dx, 0x3f8\nin al, dx\nout dx, al\ncmp al, 10\njne back\nhlt\nback: mov dx, 0x3fd\njmp wait\n";
    let source = write(&directory, "echo.asm", echo.as_bytes());
    let image = directory.join("echo.flat").display().to_string();
    assert_eq!(code(&trapline(&["asm", &source, "--origin", "0x10000", "-o", &image])), 0);
    let typed = write(&directory, "typed", b"hello, guest\nnot read\n");
    for (model, more) in [("zen3", &[][..]), ("skylake-server", &["--hypervisor", "trap-and-patch"])] {
        let boot = ["boot", &image, "--flat", "0x10000", "--cpu", model, "--serial-input"];
        let output = trapline(&[&boot[..], &[&typed], more].concat());
        assert_eq!((code(&output), &*text(&output.stdout)), (0, "hello, guest\n"), "{}", text(&output.stderr));
        // What was not read is in a checkpoint, wherever the guest was stopped.
        let kept = directory.join("kept").display().to_string();
        let cut = ["--at", "instruction:60", "--stop"];
        let output = trapline(&[&boot[..], &[&typed], more, &["--checkpoint", &kept], &cut].concat());
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let rest = trapline(&["restore", &kept]);
        let told = [text(&output.stdout), text(&rest.stdout)];
        assert!(told.iter().all(|part| part.len() > 1), "{told:?}");
        assert_eq!((code(&rest), &*told.concat()), (0, "hello, guest\n"), "{}", text(&rest.stderr));
        let mut child = Command::new(env!("CARGO_BIN_EXE_trapline"))
            .args([&boot[..], &["-"], more].concat())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the command runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"piped\n").expect("it is read");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((code(&output), &*text(&output.stdout)), (0, "piped\n"));
    }
}

/// A reader that goes away ends a guest that would run for long; a disk that is full is an error of every command.
#[cfg(target_os = "linux")]
#[test]
fn the_standard_output_may_fail() {
    use std::io::Read as _;
    let directory = scratch("output-fails");
    // mov dx, 0x3f8; out dx, al; jmp to the OUT
    let image = write(&directory, "loop.flat", &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfd]);
    for more in [&[][..], &["--trace", "-", "--hypervisor", "direct"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trapline"))
            .args([&["boot", &image, "--flat", "0x10000"], more].concat())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut reader = child.stdout.take().expect("a pipe");
        reader.read_exact(&mut [0; 8]).expect("there is output");
        drop(reader);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((code(&output), &*text(&output.stderr)), (4, ""), "{more:?}");
    }
    let story = write(&directory, "story.json", STORY.replace("VALUE", "5").as_bytes());
    let halt = write(&directory, "x.flat", &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xf4]);
    for arguments in [
        &["run", &story][..],
        &["run", &story, "--format", "json"],
        &["schema"],
        &["explain", "exit"],
        &["boot", &halt, "--flat", "0x10000"],
        &["boot", &halt, "--flat", "0x10000", "--trace", "-"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).stdout(full).current_dir(root()).output();
        let output = output.expect("the command runs");
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert_eq!(text(&output.stderr).matches("cannot write the standard output: No space left").count(), 1, "{arguments:?}");
    }
    assert_eq!(code(&trapline(&["boot", &halt, "--flat", "0x10000", "--serial", "/dev/full"])), 2);
    assert_eq!(code(&trapline(&["boot", &halt, "--flat", "0x10000", "--trace", "/dev/full"])), 2);
}

/// A part of a tree is compared with the traces of the whole, from wherever it is named; what belongs to no run is told, and removed.
#[test]
fn test_finds_the_tree_of_a_part_and_traces_without_a_run() {
    let directory = scratch("test-trees");
    let lesson = directory.join("lesson");
    std::fs::create_dir_all(lesson.join("first part")).expect("a directory");
    std::fs::create_dir_all(directory.join("snapshots")).expect("a directory");
    let story = STORY.replace("VALUE", "5");
    write(&lesson, "first part/a b.json", story.as_bytes());
    let other = write(&lesson, "ünï%#.json", story.as_bytes());
    let test = |from: &Path, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).arg("test").args(arguments).current_dir(from).output();
        let output = output.expect("the command runs");
        (code(&output), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(test(&directory, &["lesson", "--accept"]).0, 0);
    assert!(directory.join("snapshots/first part/a b.zen3.none.snap").is_file());
    for (from, path, passed) in [
        (&*directory, "lesson", 2),
        (&directory, "lesson/first part", 1),
        (&directory, "lesson/first part/a b.json", 1),
        (&lesson, ".", 2),
        (&lesson, "first part/a b.json", 1),
        (&lesson.join("first part"), "../ünï%#.json", 1),
        (Path::new("/"), lesson.to_str().expect("UTF-8"), 2),
    ] {
        let (code, stdout, _) = test(from, &[path]);
        assert_eq!((code, stdout), (0, format!("pass: {passed} passed, 0 failed\n")), "{path} from {}", from.display());
    }
    std::fs::remove_file(other).expect("it is there");
    let (code, stdout, _) = test(&directory, &["lesson"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("snapshots/ünï%#.zen3.none.snap\nthis reviewed trace belongs to no run"), "{stdout}");
    assert!(test(&directory, &["lesson", "--format", "json"]).1.contains(r#""snapshot":"orphaned""#));
    // Who looks at a part knows nothing of the rest.
    for arguments in [&["lesson/first part"][..], &["lesson", "--only", "a b"]] {
        assert_eq!(test(&directory, arguments).0, 0, "{arguments:?}");
    }
    write(&lesson, "broken.json", b"{");
    let (code, stdout, _) = test(&directory, &["lesson", "--format", "json"]);
    assert_eq!(code, 2);
    assert!(stdout.contains(r#""file":"lesson/broken.json""#) && !stdout.contains("orphaned"), "{stdout}");
    std::fs::remove_file(lesson.join("broken.json")).expect("it is there");
    assert_eq!(test(&directory, &["lesson", "--accept"]).0, 0);
    assert_eq!(test(&directory, &["lesson"]).0, 0);
    let (code, stdout, stderr) = test(&directory, &["lesson", "--only", "nothing"]);
    assert_eq!((code, &*stdout, &*stderr), (2, "", "error: no scenario or machine has a name with `nothing`\n"));
}

/// A file of another kind is told by what it is.
#[test]
fn what_is_no_text_is_told_by_what_it_is() {
    let directory = scratch("no-text");
    for (name, bytes, words) in [
        ("utf16.json", &[0xff, 0xfe, b'{', 0][..], "it is UTF-16"),
        ("latin1.json", b"{\n \"title\": \"\xfc\"", "the byte 0xfc in line 2 is no UTF-8"),
        ("image.json", b"\x7fELF\xff", "`trapline boot` boots it"),
        ("run.tlcp", b"\x89TRL\r\n\x1a\n", "`trapline restore` goes on from it"),
    ] {
        let file = write(&directory, name, bytes);
        for command in ["run", "asm", "explore"] {
            let output = trapline(&[command, &file]);
            assert_eq!(code(&output), 2);
            assert!(text(&output.stderr).contains(words), "{command} {name}: {}", text(&output.stderr));
        }
    }
    // The standard output is no file where a report goes there.
    for arguments in [
        &["run", "scenarios/bare/hello.json", "--trace", "-"][..],
        &["explore", "scenarios/smp/lock-naive.json", "-o", "-"],
        &["checkpoint", "scenarios/bare/hello.json", "--only", "zen3", "--at", "instruction:1", "-o", "-"],
    ] {
        let output = trapline(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(text(&output.stderr).contains("the standard output has the report"), "{}", text(&output.stderr));
    }
}

#[test]
fn asm_lists_writes_and_points_at_mistakes() {
    let directory = scratch("asm");
    let source = write(&directory, "good.asm", b"start: mov eax, 1\n vmcall\n");
    let listing = trapline(&["asm", &source]);
    assert!(code(&listing) == 0 && text(&listing.stdout).contains("vmcall"));
    let binary = directory.join("good.bin").display().to_string();
    assert_eq!(code(&trapline(&["asm", &source, "-o", &binary])), 0);
    assert_eq!(std::fs::read(&binary).expect("the code is there"), [0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1]);
    assert_eq!(trapline(&["asm", &source, "-o", "-"]).stdout, [0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1]);
    let wrong = write(&directory, "bad.asm", b"start: mov eax, 1\n vmcal\n");
    let output = trapline(&["asm", &wrong]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("bad.asm:2:2"), "{}", text(&output.stderr));
}

#[test]
fn bench_measures_and_compares() {
    let directory = scratch("bench");
    let story = write(&directory, "story.json", STORY.replace("VALUE", "5").as_bytes());
    let quick = |more: &[&str]| trapline(&[&["bench", "--seconds", "0.001"], more].concat());
    let output = quick(&["--only", "hypercall", "--format", "json"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let before = write(&directory, "before.json", &output.stdout);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| row["column"].as_str().unwrap()).collect::<Vec<_>>(), ["Intel", "AMD"]);
    for row in rows {
        let [lowest, value, highest] = ["lowest", "value", "highest"].map(|key| row[key].as_f64().expect("a number"));
        assert!(0.0 < lowest && lowest <= value && value <= highest, "{row}");
    }
    let output = quick(&["--only", "hypercall", "--against", &before]);
    assert!(text(&output.stdout).contains("VM exits a second") && text(&output.stdout).contains('×'), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("CPUID"));
    let output = quick(&[&story]);
    assert!(
        text(&output.stdout).contains("runs a second instructions a second") && text(&output.stdout).contains("zen3.none"),
        "{}",
        text(&output.stdout)
    );
    let output = quick(&["--only", "start"]);
    assert!(text(&output.stdout).contains("start to exit"), "{}", text(&output.stderr));
    for wrong in [&["--only", "nothing"][..], &["--seconds", "0"], &["--against", &story], &["nowhere.json"]] {
        let output = quick(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(text(&output.stderr).contains("error"), "{wrong:?}");
    }
}

#[test]
fn explore_writes_what_it_found_as_a_scenario_that_replays_it() {
    let directory = scratch("explore");
    let file = directory.join("found.json").display().to_string();
    let story = ["explore", "scenarios/smp/lock-naive.json", "--only", "zen3", "--output", &file];
    let output = trapline(&story);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    let lost = "at 0x10100 (counter) stands 01 00 00 00, not 02 00 00 00";
    assert!(text(&output.stdout).contains(lost), "{}", text(&output.stdout));
    // The guest's text lies beside the story, and the scenario elsewhere.
    let output = trapline(&["run", &file]);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(lost), "{}", text(&output.stdout));
    // An invariant that is broken is expected to be.
    let output = trapline(&["explore", "scenarios/smp/two-pages.json", "--only", "merom.trap", "--format", "json", "-o", &file]);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["passed"], &report["machines"][0]["violation"]["invariant"]), (&false.into(), &"whole-patches".into()));
    let output = trapline(&["run", &file]);
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
    let detail = report["machines"][0]["violation"]["detail"].as_str().expect("words");
    assert!(text(&output.stdout).contains(&format!("trapline_violation: {detail}")), "{}", text(&output.stdout));
    // What passes says how far it was looked.
    let output = trapline(&["explore", "scenarios/smp/two-pages.json", "--only", "zen3.classic", "--preemptions", "1", "--budget", "100"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("every schedule with at most 1 of 1 deviations"), "{}", text(&output.stdout));
    assert_eq!(code(&trapline(&["explore", "scenarios/bare/hello.json"])), 2);
    // A search may take long: that its result cannot be written is known before it.
    let output = trapline(&["explore", "scenarios/smp/lock-naive.json", "-o", "nowhere/found.json"]);
    assert_eq!((code(&output), output.stdout.len()), (2, 0));
    let output = text(&trapline(&["explore", "scenarios/smp/lock-naive.json", "--only", "zen3", "-v"]).stdout);
    assert!(output.contains("\n               {\"cpu\":0,\"steps\":3}\n"), "{output}");
    assert_eq!(code(&trapline(&["explore", "scenarios/smp/whole.json", "--only", "no such"])), 2);
}

#[test]
fn explain_tells_valid_from_invalid_from_unreadable() {
    let directory = scratch("explain");
    let valid = "crates/audit/tests/valid-vmcb.json";
    let output = trapline(&["explain", valid]);
    assert_eq!((code(&output), text(&output.stdout).lines().next()), (0, Some("VALID: no rule of VMCB entry is broken")));
    let output = trapline(&["explain", "docs/examples/dmesg-intel.txt", "--format", "json"]);
    assert_eq!(code(&output), 1);
    let lines: Vec<serde_json::Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (first, summary) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!((&first["id"], &first["type"], &summary["first"]), (&"guest-rflags-if".into(), &"broken".into(), &"guest-rflags-if".into()));
    assert_eq!(first["reads"][0]["wrong"]["mask"], "0x200");
    let output = trapline(&["explain", "docs/examples/dmesg-amd.txt", "--format", "sarif"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((code(&output), &document["runs"][0]["results"][0]["ruleId"]), (1, &"long-mode-needs-pae".into()));
    let ugly = write(&directory, "ugly.json", br#"{ "vmcs": { "GuestCr5": 1 } }"#);
    let output = trapline(&["explain", &ugly]);
    assert_eq!((code(&output), output.stdout.len()), (2, 0));
    let words = text(&output.stderr);
    assert!(words.contains("Did you mean `GuestCr0`") && words.contains(":1:13"), "{words}");
    for wrong in [&["explain"][..], &["explain", "no-such-file"], &["explain", valid, "--cpu", "z80"], &["run", valid, "--format", "sarif"]]
    {
        assert_eq!(code(&trapline(wrong)), 2, "{wrong:?}");
    }
    assert_eq!(code(&trapline(&["explain", valid, "--cpu", "skylake-server"])), 2);
}

#[test]
fn explain_is_a_manual_at_hand() {
    for (query, words) in [
        (&["exit", "48"][..], "EPT violation"),
        (&["exit", "io", "instruction"], "VMEXIT_IOIO"),
        (&["field", "GuestRip"], "0x681e"),
        (&["check", "asid-zero"], "VMEXIT_INVALID"),
        (&["msr", "efer"], "0xc0000080"),
        (&["msr"], "IA32_EFER"),
        (&["exit", "-1"], "VMEXIT_INVALID"),
    ] {
        let output = trapline(&[&["explain"], query].concat());
        assert_eq!(code(&output), 0, "{query:?}");
        assert!(text(&output.stdout).contains(words), "{query:?}: {}", text(&output.stdout));
    }
    let output = trapline(&["explain", "exit", "vmcal"]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("Did you mean `VMCALL`"), "{}", text(&output.stderr));
    assert!(text(&trapline(&["explain", "exit", "-9"]).stderr).contains("there is no exit `-9`"));
    // For programs the rows of a table, and of no other.
    for (table, name, column, value) in [
        ("exit", "-1", "number", "0xffffffffffffffff"),
        ("field", "GuestRip", "encoding", "0x681e"),
        ("check", "asid-zero", "vendor", "SVM"),
        ("msr", "efer", "number", "0xc0000080"),
    ] {
        let output = trapline(&["explain", table, name, "--format", "json"]);
        assert_eq!(code(&output), 0, "{table}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = document[format!("{table}s")].as_array().expect("an array");
        assert_eq!((&document["schema_version"], &rows[0][column]), (&1.into(), &value.into()), "{table}");
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(2), "{table}");
    }
}

/// A feature that is spelled wrongly is answered with what it may have meant, or with all there are.
#[test]
fn ledger_names_the_features_there_are() {
    for (name, words) in [("lzcnnt", "did you mean `lzcnt`?"), ("quantum-foam", "; there are ")] {
        let output = trapline(&["ledger", "zen3", "skylake-server", "--without", name]);
        assert_eq!(code(&output), 2, "{}", text(&output.stderr));
        let error = text(&output.stderr);
        assert!(error.contains(&format!("unknown feature `{name}`")) && error.contains(words), "{error}");
    }
}

/// A hypervisor in the machine whose VMCB or VMCS breaks a rule: the corpus has the good ones.
#[test]
fn a_run_says_which_rule_an_entry_broke() {
    let directory = scratch("refused");
    for (vendor, cpu, good, bad, rule) in [
        ("svm", "zen3", "[vmcb + 0x058], 1 ", "[vmcb + 0x058], 0 ", "asid-zero"),
        ("vmx", "skylake-server", "0x4822, 0x8b", "0x4822, 0x89", "guest-tr-type"),
    ] {
        let source = std::fs::read_to_string(root().join(format!("scenarios/bare/{vendor}.asm"))).expect("the guest's source");
        assert!(source.contains(good), "{vendor}");
        write(&directory, "guest.asm", source.replace(good, bad).as_bytes());
        let scenario = format!(
            r#"{{ "title": "t", "teaches": "t.", "machine": {{ "cpu": "{cpu}" }}, "hypervisor": {{ "policy": "none" }},
              "guest": {{ "file": "guest.asm", "constants": {{ "TURNS": 3 }} }}, "limits": {{ "instructions": 100000 }} }}"#
        );
        let file = write(&directory, "refused.json", scenario.as_bytes());
        for arguments in [["run", &file], ["explain", &file]] {
            let output = text(&trapline(&arguments).stdout);
            assert!(output.contains(&format!("because of {rule}")), "{vendor} {arguments:?}: {output}");
        }
        // As an image it says so, too: the environment's constants are those of every guest.
        let constants = "TURNS equ 3\nPAGE_TABLE equ 0x7000\nCODE64 equ 8\nDATA equ 0x10\n";
        let whole = write(&directory, "whole.asm", format!("{constants}{}", source.replace(good, bad)).as_bytes());
        let image = directory.join("whole.flat").display().to_string();
        let assembled = trapline(&["asm", &whole, "--origin", "0x10000", "-o", &image]);
        assert_eq!(code(&assembled), 0, "{}", text(&assembled.stderr));
        let output = text(&trapline(&["boot", &image, "--flat", "0x10000", "--cpu", cpu]).stderr);
        assert!(output.contains(&format!("because of {rule}")), "{vendor}: {output}");
        assert_eq!(code(&trapline(&["explain", &file])), 1);
    }
}
