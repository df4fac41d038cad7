//! `trapline migrate` as people and scripts use it: what it prints, and with which exit code.

use std::path::Path;
use std::process::{Command, Output};

const PRE_COPY: &str = "scenarios/migration/live-pre-copy.json";
const UNLEVELLED: &str = "scenarios/migration/live-refused-model.json";

/// Runs the command at the repository's root.
fn migrate(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arguments = [&["migrate"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).current_dir(root).output().expect("the command runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one document")
}

#[test]
fn a_guest_is_moved_and_the_rounds_are_told() {
    let output = migrate(&[PRE_COPY, "--downtime", "150us", "--latency", "20us", "--verbose"]);
    let printed = text(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}{}", text(&output.stderr));
    for words in [
        "live move from skylake-server to zen3, pre-copy: moved",
        "live move from zen3 to skylake-server, pre-copy: moved",
        "expected downtime",
        "destination |",
        "source: says commit",
        "pass: the guest came to the end that its scenario expects",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    // What a scenario expects of its own moves is not asked of others.
    let own = migrate(&["scenarios/migration/live-cut-at-commit.json", "--only", "zen3"]);
    assert!(code(&own) == 0 && text(&own.stdout).contains("not judged: "), "{}", text(&own.stdout));
    // The same to the byte, whatever of it is compiled.
    let again = migrate(&[PRE_COPY, "--downtime", "150us", "--latency", "20us", "--verbose", "--compile-after", "never"]);
    assert_eq!(printed, text(&again.stdout));
}

#[test]
fn a_guest_that_does_not_converge_stays() {
    let give_up = ["--only", "zen3", "--latency", "20us", "--downtime", "1us", "--rounds", "2", "--converge", "give-up"];
    let output = migrate(&[&[PRE_COPY], &give_up[..]].concat());
    let printed = text(&output.stdout);
    assert_eq!(code(&output), 1, "{printed}");
    assert!(printed.contains("not moved, the guest goes on at the source: after 2 rounds"), "{printed}");
    assert!(printed.contains("pass: the guest came to the end that its scenario expects"), "{printed}");
    // In one line where only what went wrong is wanted.
    let output = migrate(&[&[PRE_COPY, "--quiet"], &give_up[..]].concat());
    assert_eq!((code(&output), output.stdout.len()), (1, 0));
    assert!(text(&output.stderr).starts_with("zen3.trap-and-patch: not moved"), "{}", text(&output.stderr));
}

#[test]
fn a_destination_that_lacks_features_refuses_unless_it_is_told_otherwise() {
    let refused = migrate(&[UNLEVELLED, "--only", "zen3"]);
    let printed = text(&refused.stdout);
    assert_eq!(code(&refused), 1, "{printed}");
    assert!(printed.contains("which skylake-server lacks") && printed.contains("hint: --level"), "{printed}");
    for more in ["--level", "--accept-missing-features"] {
        let output = migrate(&[UNLEVELLED, "--only", "zen3", more]);
        assert_eq!(code(&output), 0, "{more}: {}", text(&output.stdout));
    }
    // `--check` says the same before.
    let output = migrate(&[UNLEVELLED, "--only", "zen3", "--check"]);
    let printed = text(&output.stdout);
    assert_eq!(code(&output), 1, "{printed}");
    assert!(printed.contains("refuse: ") && printed.contains("\"levelling\""), "{printed}");
    let output = migrate(&[UNLEVELLED, "--only", "zen3", "--check", "--level", "--format", "json"]);
    let document = json(&output);
    assert_eq!((code(&output), &document["passed"]), (0, &true.into()));
    let check = &document["checks"][0]["check"];
    assert_eq!((&check["refusal"], &check["offer"]["guest"]), (&serde_json::Value::Null, &"zen3".into()));
    let misses = |check: &serde_json::Value| check["ledger"]["possible"].to_string().contains("\"feature\"");
    assert!(!misses(check), "{check}");
    let unlevelled = json(&migrate(&[UNLEVELLED, "--only", "zen3", "--check", "--format", "json"]));
    assert!(misses(&unlevelled["checks"][0]["check"]), "{unlevelled}");
}

#[test]
fn a_person_helps_a_stranded_guest_on() {
    let stranded = [PRE_COPY, "--only", "zen3", "--fault", "cut@commit"];
    let helped = |more: &[&str]| {
        let output = migrate(&[&stranded, more].concat());
        (code(&output), text(&output.stdout))
    };
    let (code, printed) = helped(&["--mend", "reconnect"]);
    let words = "pre-copy: moved (first stranded, until somebody connected the hosts again)";
    assert!(code == 0 && printed.contains(words) && printed.contains("pass: "), "{printed}");
    let (code, printed) = helped(&["--mend", "destination-is-off"]);
    let words = "the guest goes on at the source: somebody made sure that the destination is off (first stranded, until";
    assert!(code == 1 && printed.contains(words) && printed.contains("pass: "), "{printed}");
    let (code, printed) = helped(&[]);
    assert!(code == 1 && printed.contains("the guest runs nowhere") && !printed.contains("first stranded"), "{printed}");
}

#[test]
fn json_has_the_report_and_exact_numbers() {
    let output = migrate(&[PRE_COPY, "--only", "skylake", "--fault", "source-dies-after@commit", "--format", "json"]);
    let document = json(&output);
    // Moved, and nobody at the source knows it: a person should look.
    assert_eq!((code(&output), &document["schema_version"], &document["passed"]), (1, &1.into(), &false.into()));
    let run = &document["runs"][0];
    assert_eq!((&run["stop"], &run["failures"], &run["judged"]), (&"halted".into(), &serde_json::json!([]), &true.into()));
    let it = &run["moves"][0];
    assert_eq!((&it["outcome"], &it["mode"], &it["to"]), (&"moved-in-doubt".into(), &"pre-copy".into(), &"zen3".into()));
    let number = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number in a string");
    assert_eq!(number(&it["resumed"]) - number(&it["paused"]), number(&it["downtime"]["cycles"]));
    assert!(it["rounds"][0]["pages"].as_u64().is_some_and(|pages| pages == 256), "{it}");
    assert!(it["marks"].as_array().is_some_and(|marks| marks.iter().any(|mark| mark["what"] == "the host dies")), "{it}");
}

#[test]
fn mistakes_are_told_with_their_option() {
    for (arguments, words) in [
        (&["--to", "z80"][..], "invalid value 'z80' for '--to <MODEL>'"),
        (&["--bandwidth", "fast"], "--bandwidth: `fast` is no bandwidth"),
        (&["--downtime", "3"], "--downtime: `3` is no time"),
        (&["--fault", "drop@nothing"], "--fault: there is no message `nothing`"),
        (&["--policy", "banana"], "invalid value 'banana' for '--policy <POLICY>'"),
        (&["--at", "noon"], "exit:N, cycle:N"),
        (&["--at", "label:nowhere"], "no label `nowhere`"),
        (&["--only", "z80"], "no machine of the scenario has a name with `z80`, but "),
        (&["--policy", "none"], "without a hypervisor"),
        (&["--rounds", "0"], "--rounds"),
        (&["--throttle", "100"], "--throttle"),
        // The words of scenario files, but for those that are no live move.
        (&["--mend", "banana"], "[possible values: reconnect, source-is-off, destination-is-off]"),
        (&["--mode", "pause"], "[possible values: pre-copy, post-copy]"),
        (&["--converge", "never"], "[possible values: throttle, give-up, pause, post-copy]"),
    ] {
        let output = migrate(&[&[PRE_COPY], arguments].concat());
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
    let output = migrate(&[PRE_COPY, "--at", "exit:1000000"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stdout).contains("the guest's run was over before exit 1000000"), "{}", text(&output.stdout));
    let output = migrate(&["scenarios/bare/svm.json"]);
    assert_eq!(code(&output), 2, "{}", text(&output.stdout));
}

#[test]
fn the_trace_goes_to_a_file() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrate.ndjson");
    let file = file.display().to_string();
    let output = migrate(&[PRE_COPY, "--only", "zen3", "--trace", &file]);
    assert_eq!(code(&output), 0);
    let trace = std::fs::read_to_string(&file).expect("the trace is there");
    let kinds: Vec<serde_json::Value> = trace.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    for kind in ["trapline_script", "trapline_dirty_log", "trapline_round", "trapline_handover", "trapline_migrate"] {
        assert!(kinds.iter().any(|line| line["event"] == kind), "{kind}");
    }
}
