//! Live moves of a script: from the words of a file to the settings of the crate `migration`, and what must have come of them.

use crate::file::{Converge, MigrateAction, MoveExpectation, MoveMode, MoveOutcome, Policy};
use migration::{AnyFault, Convergence, LinkSettings, Mode, Report, Settings, parse_time};
use models::CpuModel;

/// Bits in a second: `10G`, `100M`, `9600`.
///
/// # Errors
/// Says what a bandwidth looks like.
pub fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no bandwidth: write 100M, 1G or 10G, in bits a second");
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        Some(b'T') => (&text[..text.len() - 1], 1_000_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|bits| (1_000..=100_000_000_000_000).contains(bits)).ok_or_else(wrong)
}

/// Whether a move is one over a link.
pub fn is_live(action: &MigrateAction) -> bool {
    action.mode.unwrap_or_default() != MoveMode::Pause
}

/// What is wrong with the words of a move: the key, the message.
pub fn mistakes(action: &MigrateAction) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut time = |keys: &[&str], text: &Option<String>| {
        if let Some(text) = text
            && let Err(message) = parse_time(text)
        {
            found.push((keys.iter().map(|key| (*key).to_owned()).collect(), message));
        }
    };
    time(&["downtime"], &action.downtime);
    let link = action.link.clone().unwrap_or_default();
    time(&["link", "latency"], &link.latency);
    time(&["link", "jitter"], &link.jitter);
    if let Some(Err(message)) = link.bandwidth.as_deref().map(parse_bandwidth) {
        found.push((vec!["link".to_owned(), "bandwidth".to_owned()], message));
    }
    for (index, fault) in action.faults.iter().enumerate() {
        if let Err(message) = AnyFault::parse(fault) {
            found.push((vec!["faults".to_owned(), index.to_string()], message));
        }
    }
    if !is_live(action) {
        let words = "only a live move has it: `mode` is `pre-copy` or `post-copy` then";
        let keys = [
            ("link", action.link.is_some()),
            ("faults", !action.faults.is_empty()),
            ("downtime", action.downtime.is_some()),
            ("rounds", action.rounds.is_some()),
            ("converge", action.converge.is_some()),
        ];
        found.extend(keys.into_iter().filter(|(_, there)| *there).map(|(key, _)| (vec![key.to_owned()], words.to_owned())));
    }
    found
}

/// The settings of a live move; loading has checked its words. `session` counts the moves of a run.
pub fn settings(action: &MigrateAction, to: &'static CpuModel, policy: Policy, session: u64) -> Settings {
    let default = Settings::new(to);
    let link = action.link.clone().unwrap_or_default();
    let time = |text: &Option<String>, other: u64| text.as_deref().and_then(|text| parse_time(text).ok()).unwrap_or(other);
    Settings {
        policy: hypervisor::Policy::from_name(crate::load::policy_name(policy)),
        mode: if action.mode == Some(MoveMode::PostCopy) { Mode::PostCopy } else { Mode::PreCopy },
        link: LinkSettings {
            bits_per_second: link.bandwidth.as_deref().and_then(|text| parse_bandwidth(text).ok()).unwrap_or(default.link.bits_per_second),
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
        faults: action.faults.iter().filter_map(|fault| AnyFault::parse(fault).ok()).collect(),
        session,
        ..default
    }
}

/// The name of an outcome.
fn name(outcome: MoveOutcome) -> &'static str {
    match outcome {
        MoveOutcome::Moved => "moved",
        MoveOutcome::MovedInDoubt => "moved-in-doubt",
        MoveOutcome::Stayed => "stayed",
        MoveOutcome::Stranded => "stranded",
        MoveOutcome::Over => "over",
    }
}

/// What did not come true of a move: the key, the message.
pub fn judge(expected: &MoveExpectation, report: Option<&Report>) -> Vec<(&'static str, String)> {
    let Some(report) = report else { return vec![("", "there was no such move".to_owned())] };
    let mut failed = Vec::new();
    if let Some(outcome) = expected.outcome
        && name(outcome) != report.outcome
    {
        failed.push(("outcome", format!("the move ended as `{}`: {}", report.outcome, report.ending)));
    }
    if let Some(most) = expected.downtime_at_most.as_deref().and_then(|text| parse_time(text).ok()) {
        match report.downtime().map(|cycles| report.nanoseconds(cycles)) {
            Some(downtime) if downtime <= most => {}
            Some(downtime) => {
                failed.push(("downtime_at_most", format!("the guest was paused for {}", migration::report::time_text(downtime))))
            }
            None => failed.push(("downtime_at_most", "the guest was not paused, or never ran again".to_owned())),
        }
    }
    let rounds = report.rounds.len() as u64;
    if expected.rounds.is_some_and(|expected| u64::from(expected) != rounds) {
        failed.push(("rounds", format!("there were {rounds} rounds")));
    }
    if expected.rounds_at_most.is_some_and(|most| rounds > u64::from(most)) {
        failed.push(("rounds_at_most", format!("there were {rounds} rounds")));
    }
    if expected.fetched_at_least.is_some_and(|least| report.fetched < least) {
        failed.push(("fetched_at_least", format!("{} pages were fetched", report.fetched)));
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_have_units() {
        assert_eq!(parse_bandwidth("10G"), Ok(10_000_000_000));
        assert_eq!(parse_bandwidth("9600"), Ok(9600));
        for wrong in ["", "G", "0", "1e9", "999999999999T", "-1M", "1 G"] {
            assert!(parse_bandwidth(wrong).is_err(), "{wrong}");
        }
    }
}
