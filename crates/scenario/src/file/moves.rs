//! Moves to another CPU model: where to and how, and what must have come of a live one.

use super::Policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where to move, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateAction {
    /// The CPU model to go on with, or `other-vendor`: the modern one of the vendor that the machine does not have now.
    pub to: String,
    /// The hypercall policy there. The default is the one so far.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// How memory travels. The default is `pause`; with the others the move is a live one, and the keys below are for it.
    #[serde(default)]
    pub mode: Option<MoveMode>,
    /// The link between the two hosts.
    #[serde(default)]
    pub link: Option<Link>,
    /// The longest pause that is allowed: `"300us"`. The default is 300ms.
    #[serde(default)]
    pub downtime: Option<String>,
    /// The most rounds of pre-copy. The default is 30.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub rounds: Option<u32>,
    /// What is done about a guest that writes faster than its memory travels. The default is `throttle`.
    #[serde(default)]
    pub converge: Option<Converge>,
    /// Percent of the time for which CPUs are held from the start of the move on, in slices of 2us, so that a guest of few instructions is not over
    /// before its memory has travelled. The default is 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 99))]
    pub throttle: Option<u8>,
    /// What the destination does about features that the guest was told of and its processors lack. The default is `refuse`.
    #[serde(default)]
    pub missing_features: Option<MissingFeatures>,
    /// What goes wrong: `"drop@commit"`, `"cut=2ms@ram:3"`. docs/migration.md has the forms.
    #[serde(default)]
    pub faults: Vec<String>,
    /// What a person does if the guest is stranded. The default is nothing.
    #[serde(default)]
    pub mend: Option<Mend>,
}

/// How memory travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MoveMode {
    /// Not at all: the guest is paused, and everything is there at once.
    #[default]
    Pause,
    /// In rounds, while the guest runs at the source.
    PreCopy,
    /// One pass while it runs at the source, and the rest while it runs at the destination.
    PostCopy,
}

/// What is done about a guest that writes faster than its memory travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Converge {
    /// Its CPUs are held for a growing share of the time; after the last round the move is given up.
    #[default]
    Throttle,
    /// After the last round the move is given up.
    GiveUp,
    /// After the last round it is paused, however long the rest takes.
    Pause,
    /// After the last round it is handed over, and the rest follows.
    PostCopy,
}

/// What a destination does about features that a guest was told of and that its processors lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MissingFeatures {
    /// It refuses the guest, which stays where it is.
    #[default]
    Refuse,
    /// It takes the guest, and the ledger tells what it will miss.
    Accept,
}

/// What a person does about a guest that nobody may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mend {
    /// Connects the hosts again.
    Reconnect,
    /// Makes sure that the source is off for good, and has the destination run the guest if it has everything.
    SourceIsOff,
    /// Makes sure that the destination is off for good, and has the source go on with its paused guest.
    DestinationIsOff,
}

/// The link between two hosts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Bits in a second: `"100M"`, `"10G"`. The default is 10G.
    #[serde(default)]
    pub bandwidth: Option<String>,
    /// From one end to the other: `"1ms"`. The default is 50us.
    #[serde(default)]
    pub latency: Option<String>,
    /// What a frame may take beyond that. The default is 0ns.
    #[serde(default)]
    pub jitter: Option<String>,
    /// Chooses jitter and random faults. The default is 1.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// What must have come of a live move.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveExpectation {
    /// Who runs the guest when it is over.
    #[serde(default)]
    pub outcome: Option<MoveOutcome>,
    /// The longest time for which nobody ran it: `"300us"`.
    #[serde(default)]
    pub downtime_at_most: Option<String>,
    /// How many rounds there were.
    #[serde(default)]
    pub rounds: Option<u32>,
    /// The most rounds.
    #[serde(default)]
    pub rounds_at_most: Option<u32>,
    /// At least so many pages were fetched because the guest waited for them at the destination.
    #[serde(default)]
    pub fetched_at_least: Option<u64>,
}

/// Who runs a guest after a live move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MoveOutcome {
    /// The destination, and the source knows it.
    Moved,
    /// The destination, and the source does not know it: it keeps its paused copy.
    MovedInDoubt,
    /// The source.
    Stayed,
    /// Nobody.
    Stranded,
    /// Nobody: the guest's own run was over before the move was.
    Over,
}
