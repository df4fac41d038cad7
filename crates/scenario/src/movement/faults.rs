//! Live moves of a guest over a link with faults: everything about one is drawn from a seed, and what came of it is judged.
//!
//! Whatever goes wrong, a guest that runs on somewhere must come to the end at home. One that runs nowhere is helped on as a person would, by
//! all that there is to do; what is lost then must be what docs/migration.md says.
//! The end of some guests depends on time. Such a one must come to an end that it comes to at home, too, when it is held there for no longer than
//! the move took: at its moment, or at others, which are drawn until one is found. Not compared are those that a script does something to at a moment
//! that came during the move: it comes behind it, as docs/migration.md says.

use super::{Effort, Finding, Journey};
use crate::file::{Converge, Link, Mend, MigrateAction, MoveMode};
use crate::load::{Scenario, Variant};
use migration::link::Dice;
use migration::{At, Fate, FaultKind, HOST_DIES, Report, wire};
use models::CpuModel;
use std::collections::BTreeSet;

/// The most faults of one move.
const MOST_FAULTS: u64 = 3;

/// In how many pieces a guest is held at home at most.
const PIECES: u64 = 8;

/// How many ways to hold a guest at home are drawn in search of an end.
const HELD: u64 = 256;

/// A live move of a guest at an instruction.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// In front of which instruction.
    pub at: u64,
    /// The move.
    pub action: MigrateAction,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The command that makes the same move.
    pub command: String,
    /// How memory was to travel.
    pub mode: MoveMode,
    /// What the move was like.
    pub report: Report,
    /// Instructions that the guest executed behind it.
    pub behind: u64,
    /// What came of the guest.
    pub end: End,
}

/// What came of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The same as at home.
    Same,
    /// Something else.
    Other(Vec<String>),
    /// Something else, and held at home for no longer it comes to that end as well.
    Held,
    /// Something else, and a moment of its script came during the move.
    Late,
    /// It was lost with a host.
    Lost,
}

/// Moves a guest live, so many times as asked for; `run` runs it on a processor model, on a journey.
pub(super) fn moves(
    scenario: &Scenario,
    variant: &Variant,
    to: &'static CpuModel,
    effort: Effort,
    home: &super::End,
    run: &dyn Fn(&'static CpuModel, Journey) -> super::End,
) -> Vec<Live> {
    let text = scenario.source.name.rsplit('/').next().unwrap_or_default().to_owned() + &variant.name();
    let seed = text.bytes().fold(effort.seed, |seed, byte| Dice::new(seed ^ u64::from(byte)).next());
    let pages = home.log.memory.len() as u64 >> 12;
    let mut made = Vec::new();
    for number in 0..effort.faults {
        let mut dice = Dice::new(seed.wrapping_add(number));
        let mut drawn = Drawn::new(&mut dice, home.report.instructions, pages, to.name);
        let travel = |drawn: &Drawn| run(variant.cpu, Journey::Live(Box::new(drawn.clone())));
        let mut end = travel(&drawn);
        // Whatever a person can do about a stranded guest.
        let first = drawn.action.mend;
        for mend in [Mend::Reconnect, Mend::SourceIsOff, Mend::DestinationIsOff] {
            if Some(mend) == first || end.log.live.as_ref().is_none_or(|(report, _)| report.outcome != Fate::Stranded) {
                continue;
            }
            let other = drawn.mended_by(mend);
            let helped = travel(&other);
            if helped.log.live.as_ref().is_some_and(|(report, _)| report.outcome != Fate::Stranded) {
                (drawn, end) = (other, helped);
            }
        }
        let Some((report, executed)) = end.log.live.clone() else { continue };
        let command = drawn.command(scenario, variant);
        let went_back = report.mended.is_some_and(|mended| mended.how == migration::Mend::DestinationIsOff);
        let from = |other: &super::End| {
            let mut differences = super::compare(other, &end);
            if went_back {
                // The guest went back in time, and may have called before.
                differences.retain(|it| !it.contains(" hypercalls instead of "));
            }
            differences
        };
        let differences = from(home);
        let again = travel(&drawn);
        let repeats = again.report.transcript.hash() == end.report.transcript.hash() && again.log.live.as_ref() == end.log.live.as_ref();
        let cycles = report.end.saturating_sub(report.start);
        let comes_there_when_held = |dice: &mut Dice| {
            let ways = (0..HELD).map(|way| holds(dice, way, drawn.at, home.report.instructions, cycles));
            ways.map(|holds| run(variant.cpu, Journey::Held(holds))).any(|held| from(&held).is_empty())
        };
        let end = if !repeats {
            End::Other(vec!["the same move once more is another".to_owned()])
        } else if report.outcome == Fate::Stranded {
            if drawn.may_be_lost(&report) { End::Lost } else { End::Other(vec!["nobody could help it on".to_owned()]) }
        } else if differences.is_empty() {
            End::Same
        } else if end.log.late {
            End::Late
        } else if comes_there_when_held(&mut dice) {
            End::Held
        } else {
            End::Other(differences)
        };
        let mode = drawn.action.mode.unwrap_or_default();
        let behind = home.report.instructions.saturating_sub(executed);
        made.push(Live { command, mode, behind, end, report });
    }
    made
}

/// A way to hold a guest that executes so many instructions for at most so many cycles, from an instruction on: in front of which instructions, and
/// for how long. First at once; then in pieces, an instruction apart, because a timer that has come to an end interrupts once, however long ago
/// that is; then anyhow.
fn holds(dice: &mut Dice, way: u64, at: u64, instructions: u64, cycles: u64) -> Vec<(u64, u64)> {
    let pieces = |count: u64| (0..count).map(|piece| (at + piece, cycles / count)).collect();
    match way {
        0 => pieces(1),
        1 => pieces(PIECES),
        _ => {
            let mut moments: Vec<u64> = (0..=dice.below(PIECES)).map(|_| at + dice.below(instructions.saturating_sub(at) + 1)).collect();
            moments.sort_unstable();
            moments.dedup();
            let mut left = cycles;
            let mut piece = || {
                let piece = dice.below(left + 1);
                left -= piece;
                piece
            };
            moments.into_iter().map(|moment| (moment, piece())).collect()
        }
    }
}

/// What goes wrong in a move, by name: kinds of faults of the link, then those of hosts.
pub const KINDS: [&str; 12] = [
    "drop",
    "duplicate",
    "delay",
    "reorder",
    "truncate",
    "corrupt",
    "cut for a time",
    "cut for good",
    "source dies",
    "destination dies",
    "destination out of memory",
    "destination refuses",
];

fn one_of<'w, T: ?Sized>(dice: &mut Dice, words: &[&'w T]) -> &'w T {
    words[dice.below(words.len() as u64) as usize]
}

impl Drawn {
    /// A move of a guest that executes so many instructions and has so many pages of memory.
    pub fn new(dice: &mut Dice, instructions: u64, pages: u64, to: &str) -> Self {
        let at = dice.below(instructions);
        let faults = (0..dice.below(MOST_FAULTS + 1)).map(|_| fault(dice, pages)).collect();
        let text = |text: &str| Some(text.to_owned());
        let action = MigrateAction {
            to: to.to_owned(),
            mode: Some(if dice.below(2) == 0 { MoveMode::PreCopy } else { MoveMode::PostCopy }),
            link: Some(Link {
                bandwidth: text(one_of(dice, &["1G", "10G", "40G", "100G"])),
                latency: text(one_of(dice, &["200ns", "1us", "5us", "20us"])),
                jitter: text(one_of(dice, &["0ns", "0ns", "500ns", "10us"])),
                seed: Some(dice.below(1 << 32)),
            }),
            downtime: text(one_of(dice, &["30us", "100us", "1ms", "300ms"])),
            rounds: Some(1 + dice.below(6) as u32),
            converge: Some(*one_of(dice, &[&Converge::Throttle, &Converge::GiveUp, &Converge::Pause, &Converge::PostCopy])),
            // Most guests are short.
            throttle: Some(*one_of(dice, &[&0, &90, &99, &99])),
            faults,
            mend: Some(*one_of(dice, &[&Mend::Reconnect, &Mend::SourceIsOff, &Mend::DestinationIsOff])),
            ..MigrateAction::default()
        };
        Self { at, action }
    }

    /// The same with another word of a person.
    pub fn mended_by(&self, mend: Mend) -> Self {
        Self { at: self.at, action: MigrateAction { mend: Some(mend), ..self.action.clone() } }
    }

    /// Whether memory may follow the hand-over.
    fn may_follow(&self) -> bool {
        self.action.mode == Some(MoveMode::PostCopy) || self.action.converge == Some(Converge::PostCopy)
    }

    /// The command that makes the move.
    pub fn command(&self, scenario: &Scenario, variant: &Variant) -> String {
        let action = &self.action;
        let link = action.link.clone().unwrap_or_default();
        let mut text = format!(
            "trapline migrate {} --only {} --level --to {} --at instruction:{} --mode {}",
            scenario.source.name,
            variant.name(),
            action.to,
            self.at,
            action.mode.map(word).unwrap_or_default()
        );
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                text += &format!(" --{name} {value}");
            }
        };
        option("bandwidth", link.bandwidth);
        option("latency", link.latency);
        option("jitter", link.jitter);
        option("seed", link.seed.map(|seed| seed.to_string()));
        option("downtime", action.downtime.clone());
        option("rounds", action.rounds.map(|rounds| rounds.to_string()));
        option("converge", action.converge.map(word));
        option("throttle", action.throttle.map(|throttle| throttle.to_string()));
        for fault in &action.faults {
            option("fault", Some(fault.clone()));
        }
        option("mend", action.mend.map(word));
        text
    }

    /// Whether a guest that nobody could help on is one that is lost with a host: with the source before the destination had everything, with
    /// the source while memory follows, or with both.
    pub fn may_be_lost(&self, report: &Report) -> bool {
        let happened = |at: At, what: &str| report.marks.iter().any(|mark| mark.at == at && mark.what == what);
        let ready = happened(At::Destination, "says ready");
        happened(At::Source, HOST_DIES) && (happened(At::Destination, HOST_DIES) || !ready || self.may_follow())
    }
}

/// The word of a scenario file for a value.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Something that goes wrong.
fn fault(dice: &mut Dice, pages: u64) -> String {
    // Half of all messages are those of the hand-over, where it matters.
    let handing_over = dice.below(2) == 0;
    match dice.below(20) {
        0 => format!("out-of-memory={}", dice.below(pages)),
        1 => format!("refuse={}", one_of(dice, &["sse2", "fxsr", "cx8", "tsc"])),
        2..=3 => {
            let after = one_of(dice, &["", "-after"]);
            let (side, message) = match (dice.below(2), handing_over) {
                (0, true) => ("source", one_of(dice, &["stop", "commit", "state"])),
                (0, false) => ("source", one_of(dice, &["offer", "ram", "round", "finish"])),
                (_, true) => ("destination", one_of(dice, &["ready", "running"])),
                (_, false) => ("destination", one_of(dice, &["accept", "received", "want", "complete"])),
            };
            format!("{side}-dies{after}@{message}")
        }
        4..=6 => {
            let (kind, rate) = match *one_of(dice, &FaultKind::ALL.each_ref()) {
                FaultKind::Delay { .. } => ("delay=20us".to_owned(), 50_000),
                FaultKind::Cut { nanoseconds: None } => ("cut".to_owned(), 5_000),
                FaultKind::Cut { .. } => ("cut=300us".to_owned(), 10_000),
                kind => (kind.name().to_owned(), 50_000),
            };
            format!("{kind}@random:{}", 1 + dice.below(rate))
        }
        _ => {
            let kind = one_of(
                dice,
                &["drop", "duplicate", "delay=3us", "delay=300us", "reorder", "truncate", "corrupt", "cut=50us", "cut=2ms", "cut", "cut"],
            );
            let all: Vec<&str> = wire::MESSAGES.into_iter().filter(|message| !matches!(*message, "refuse" | "abort")).collect();
            let message = if handing_over { one_of(dice, &["state", "stop", "ready", "commit", "running"]) } else { one_of(dice, &all) };
            let most = match message {
                "ram" | "ack" => 64,
                "state" | "want" | "round" | "received" => 4,
                // The second one is a repetition.
                _ => *one_of(dice, &[&1, &1, &2]),
            };
            format!("{kind}@{message}:{}", 1 + dice.below(most))
        }
    }
}

impl Live {
    /// What was wrong, if something was.
    pub fn finding(&self) -> Option<Finding> {
        match &self.end {
            End::Other(differences) => Some(Finding { journey: self.command.clone(), differences: differences.clone() }),
            End::Same | End::Held | End::Late | End::Lost => None,
        }
    }

    /// Where the guest was when nobody had helped yet.
    pub fn fate(&self) -> Fate {
        self.report.mended.map_or(self.report.outcome, |mended| mended.was)
    }

    /// The kinds of faults that struck, as often as they did, and those of hosts once.
    pub fn struck(&self) -> Vec<&'static str> {
        let report = &self.report;
        let mut struck = Vec::new();
        let mut hosts: BTreeSet<&str> = BTreeSet::new();
        // A host that a person switches off dies of no fault.
        for mark in report.marks.iter().take_while(|mark| !mark.what.starts_with("somebody is sure")) {
            let kind = match (mark.at, mark.what.split(' ').next().unwrap_or_default()) {
                (At::Link, "cut") if mark.what.ends_with("for good") => "cut for good",
                (At::Link, "cut") => "cut for a time",
                (At::Link, kind) => kind,
                (At::Source, _) if mark.what == HOST_DIES => "source dies",
                (At::Destination, _) if mark.what == HOST_DIES => "destination dies",
                _ => continue,
            };
            match mark.at {
                At::Link => struck.extend(KINDS.into_iter().filter(|name| *name == kind)),
                _ => drop(hosts.insert(kind)),
            }
        }
        for (kind, words) in [(KINDS[10], "there is no memory for more than"), (KINDS[11], "the destination refuses")] {
            if report.ending.contains(words) {
                hosts.insert(kind);
            }
        }
        struck.extend(KINDS.into_iter().filter(|kind| hosts.contains(kind)));
        struck
    }
}
