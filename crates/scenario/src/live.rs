//! Moves of a run: from the words of a file to the settings of the crate `migration`, the move itself, and what must have come of it.

pub mod journey;

use crate::file::{self, Converge, MigrateAction, MissingFeatures, MoveExpectation, MoveMode, MoveOutcome, Policy, Stop};
use crate::host::{Ending, Pause};
use crate::observe::Observer;
use crate::run::{Director, OTHER_VENDOR, limit};
use migration::{AnyFault, Convergence, LinkSettings, Mode, Settings, parse_time};
pub use migration::{Check, Fate, Mend, Report};
use models::{CpuModel, Vendor};
use serde_json::{Value, json};

/// Bits in a second: `10G`, `100M`, `9600`.
///
/// # Errors
/// Says what a bandwidth looks like.
pub fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no bandwidth: write 100M, 1G or 10G, in bits a second, from 1k to 100T");
    let units = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000), ('T', 1_000_000_000_000)];
    let (digits, unit) =
        units.into_iter().find_map(|(letter, unit)| text.strip_suffix(letter).map(|digits| (digits, unit))).unwrap_or((text, 1));
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(wrong)?;
    number.checked_mul(unit).filter(|bits| (1_000..=100_000_000_000_000).contains(bits)).ok_or_else(wrong)
}

/// Whether a move goes over a link while the guest runs.
pub fn is_live(action: &MigrateAction) -> bool {
    action.mode.unwrap_or_default() != MoveMode::Pause
}

/// A move in words.
pub fn words(action: &MigrateAction) -> String {
    let how = match action.mode.unwrap_or_default() {
        MoveMode::Pause => "",
        MoveMode::PreCopy => ", pre-copy",
        MoveMode::PostCopy => ", post-copy",
    };
    format!("migrate to {}{how}", action.to)
}

/// What is wrong with the words of a move: the keys that lead there, the message.
pub fn mistakes(action: &MigrateAction) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut wrong = |keys: &[&str], message: String| found.push((keys.iter().map(|key| (*key).to_owned()).collect(), message));
    let link = action.link.clone().unwrap_or_default();
    let times = [(&["downtime"][..], &action.downtime), (&["link", "latency"], &link.latency), (&["link", "jitter"], &link.jitter)];
    for (keys, text) in times {
        if let Some(Err(message)) = text.as_deref().map(parse_time) {
            wrong(keys, message);
        }
    }
    if let Some(Err(message)) = link.bandwidth.as_deref().map(parse_bandwidth) {
        wrong(&["link", "bandwidth"], message);
    }
    for (index, fault) in action.faults.iter().enumerate() {
        if let Err(message) = AnyFault::parse(fault) {
            wrong(&["faults", &index.to_string()], message);
        }
    }
    if !is_live(action) {
        let keys = [
            ("link", action.link.is_some()),
            ("downtime", action.downtime.is_some()),
            ("rounds", action.rounds.is_some()),
            ("converge", action.converge.is_some()),
            ("throttle", action.throttle.is_some()),
            ("missing_features", action.missing_features.is_some()),
            ("faults", !action.faults.is_empty()),
            ("mend", action.mend.is_some()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, there)| *there) {
            wrong(&[key], format!("only a live move has `{key}`: give it the `mode` pre-copy or post-copy as well"));
        }
    }
    found
}

/// The model that a move goes to, from where the guest is now.
///
/// # Errors
/// There is no such model; the message names those that there are.
pub fn destination(to: &str, now: Option<&'static CpuModel>) -> Result<&'static CpuModel, String> {
    if to != OTHER_VENDOR {
        return models::find(to).map_err(|error| error.to_string());
    }
    Ok(match now.map(|model| model.vendor) {
        Some(Vendor::Amd) => models::default_for(Vendor::Intel),
        // Where there is no guest any more the move fails all the same.
        Some(Vendor::Intel) | None => models::default_for(Vendor::Amd),
    })
}

/// The settings of a live move whose words [`mistakes`] found right, behind so many others of the run.
pub(crate) fn settings(action: &MigrateAction, to: &'static CpuModel, policy: Policy, moves: usize) -> Settings {
    let default = Settings::new(to);
    let link = action.link.clone().unwrap_or_default();
    let time = |text: &Option<String>, other: u64| text.as_deref().and_then(|text| parse_time(text).ok()).unwrap_or(other);
    let bandwidth = link.bandwidth.as_deref().and_then(|text| parse_bandwidth(text).ok());
    Settings {
        policy: hypervisor::Policy::from_name(crate::load::policy_name(policy)),
        mode: if action.mode == Some(MoveMode::PostCopy) { Mode::PostCopy } else { Mode::PreCopy },
        link: LinkSettings {
            bits_per_second: bandwidth.unwrap_or(default.link.bits_per_second),
            latency: time(&link.latency, default.link.latency),
            jitter: time(&link.jitter, default.link.jitter),
            seed: link.seed.unwrap_or(default.link.seed),
        },
        downtime: time(&action.downtime, default.downtime),
        rounds: action.rounds.unwrap_or(default.rounds),
        convergence: match action.converge.unwrap_or_default() {
            Converge::Throttle => Convergence::Throttle,
            Converge::GiveUp => Convergence::GiveUp,
            Converge::Pause => Convergence::Pause,
            Converge::PostCopy => Convergence::PostCopy,
        },
        throttle: action.throttle.unwrap_or(default.throttle),
        missing_features: match action.missing_features.unwrap_or_default() {
            MissingFeatures::Refuse => migration::MissingFeatures::Refuse,
            MissingFeatures::Accept => migration::MissingFeatures::Accept,
        },
        faults: action.faults.iter().filter_map(|fault| AnyFault::parse(fault).ok()).collect(),
        mend: action.mend.map(|mend| match mend {
            file::Mend::Reconnect => Mend::Reconnect,
            file::Mend::SourceIsOff => Mend::SourceIsOff,
            file::Mend::DestinationIsOff => Mend::DestinationIsOff,
        }),
        session: moves as u64 + 1,
        ..default
    }
}

impl Director<'_> {
    /// Moves the machine. The end of the run, if it does not go on behind that.
    pub(crate) fn migrate(&mut self, action: &MigrateAction, sink: &mut Observer<'_>) -> Option<Ending> {
        let policy = action.policy.unwrap_or(self.policy);
        let moved = destination(&action.to, self.host.model()).and_then(|model| {
            if !is_live(action) {
                self.host.migrate(model, policy, sink)?;
                self.policy = policy;
                return Ok(None);
            }
            let limits = self.limits();
            let (report, pause) = self.host.move_live(&settings(action, model, policy, self.moves.len()), &limits, sink)?;
            self.keep_serial();
            if report.outcome.is_there() {
                self.policy = policy;
            }
            self.moves.push(report);
            Ok(match pause {
                None | Some(Pause::Moment | Pause::Interrupted) => None,
                Some(Pause::Over(ending)) => Some(ending),
                Some(Pause::Limit(stop)) => Some(limit(stop, &limits)),
            })
        });
        moved.unwrap_or_else(|message| Some(Ending::new(Stop::Unsupported, format!("the machine cannot move: {message}"))))
    }
}

/// The outcome in the words of a file.
fn fate(outcome: MoveOutcome) -> Fate {
    match outcome {
        MoveOutcome::Moved => Fate::Moved,
        MoveOutcome::MovedInDoubt => Fate::MovedInDoubt,
        MoveOutcome::Stayed => Fate::Stayed,
        MoveOutcome::Stranded => Fate::Stranded,
        MoveOutcome::Over => Fate::Over,
    }
}

/// What did not come true of the live moves of a run: the keys that lead there, the message.
pub(crate) fn judge(expected: &[MoveExpectation], reports: &[Report]) -> Vec<(Vec<String>, String)> {
    let mut failed = Vec::new();
    if expected.len() != reports.len() {
        let message = format!("there {} live move{}, not {}", was_or_were(reports.len()), plural(reports.len()), expected.len());
        failed.push((Vec::new(), message));
    }
    for (index, (expected, report)) in expected.iter().zip(reports).enumerate() {
        failed.extend(judge_one(expected, report).into_iter().map(|(key, message)| (vec![index.to_string(), key.to_owned()], message)));
    }
    failed
}

fn was_or_were(count: usize) -> String {
    if count == 1 { "was 1".to_owned() } else { format!("were {count}") }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn judge_one(expected: &MoveExpectation, report: &Report) -> Vec<(&'static str, String)> {
    let mut failed = Vec::new();
    if expected.outcome.is_some_and(|outcome| fate(outcome) != report.outcome) {
        failed.push(("outcome", format!("the move ended as `{}`: {}", report.outcome.name(), report.ending)));
    }
    if let Some(most) = expected.downtime_at_most.as_deref().and_then(|text| parse_time(text).ok()) {
        match report.downtime().map(|cycles| report.nanoseconds(cycles)) {
            Some(downtime) if downtime <= most => {}
            Some(downtime) => failed.push(("downtime_at_most", format!("nobody ran the guest for {downtime} ns"))),
            None => failed.push(("downtime_at_most", "the guest was not paused, or never ran again".to_owned())),
        }
    }
    let rounds = report.rounds.len();
    let told = || format!("there {} round{}", was_or_were(rounds), plural(rounds));
    if expected.rounds.is_some_and(|expected| expected as usize != rounds) {
        failed.push(("rounds", told()));
    }
    if expected.rounds_at_most.is_some_and(|most| rounds > most as usize) {
        failed.push(("rounds_at_most", told()));
    }
    if expected.fetched_at_least.is_some_and(|least| report.fetched < least) {
        failed.push(("fetched_at_least", format!("{} pages were fetched", report.fetched)));
    }
    failed
}

/// A report for programs; numbers that can exceed 2^53 are strings.
pub fn report_json(report: &Report) -> Value {
    const LARGE: [&str; 8] = ["start", "end", "paused", "resumed", "waited", "cycle", "dirty_rate", "expected_downtime"];
    fn strings(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    match member {
                        Value::Number(number) if LARGE.contains(&key.as_str()) => *member = number.to_string().into(),
                        other => strings(other),
                    }
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(strings),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(report).unwrap_or_default();
    strings(&mut value);
    let downtime = report.downtime();
    value["downtime"] = json!({
        "cycles": downtime.map(|cycles| cycles.to_string()),
        "nanoseconds": downtime.map(|cycles| report.nanoseconds(cycles).to_string()),
    });
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_have_units() {
        assert_eq!(parse_bandwidth("10G"), Ok(10_000_000_000));
        assert_eq!(parse_bandwidth("9600"), Ok(9600));
        for wrong in ["", "G", "0", "+5M", "1e9", "999999999999T", "-1M", "1 G", "1g", "10Gµ"] {
            assert!(parse_bandwidth(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_did_not_come_true_is_told_with_its_place() {
        let report = Report { outcome: Fate::Stayed, ending: "no".to_owned(), fetched: 3, ..Report::default() };
        let expected = MoveExpectation {
            outcome: Some(MoveOutcome::Moved),
            downtime_at_most: Some("1ms".to_owned()),
            rounds: Some(1),
            rounds_at_most: Some(0),
            fetched_at_least: Some(4),
        };
        let keys = |expected: &[MoveExpectation], reports: &[Report]| -> Vec<String> {
            judge(expected, reports).into_iter().map(|(keys, _)| keys.join(".")).collect()
        };
        assert_eq!(
            keys(std::slice::from_ref(&expected), std::slice::from_ref(&report)),
            ["0.outcome", "0.downtime_at_most", "0.rounds", "0.fetched_at_least"]
        );
        assert_eq!(keys(&[MoveExpectation::default()], std::slice::from_ref(&report)), [""; 0]);
        assert_eq!(keys(&[], &[report]), [""]);
    }

    #[test]
    fn keys_of_live_moves_are_for_live_moves() {
        let action = MigrateAction { rounds: Some(1), faults: vec!["drop@nothing".to_owned()], ..MigrateAction::default() };
        let keys: Vec<String> = mistakes(&action).into_iter().map(|(keys, _)| keys.join(".")).collect();
        assert_eq!(keys, ["faults.0", "rounds", "faults"]);
    }
}
