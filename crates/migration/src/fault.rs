//! What goes wrong on purpose: on the link, at the destination, with the hosts.
//!
//! A fault is written `KIND@PLACE`, on the command line and in scenarios: `drop@commit`, `corrupt@ram:3`, `cut=2ms@ready`, `duplicate@random:1000`.

use crate::wire;
use isa::cpuid::Feature;

/// What happens to a frame, or to the link because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is lost.
    Drop,
    /// It comes twice.
    Duplicate,
    /// It comes later, and others overtake it.
    Delay {
        /// By so much.
        nanoseconds: u64,
    },
    /// The next one comes first.
    Reorder,
    /// Its end is missing.
    Truncate,
    /// A bit of it is another.
    Corrupt,
    /// The link is cut as it is sent, and what is on the way is lost.
    Cut {
        /// For so long; for good without.
        nanoseconds: Option<u64>,
    },
}

impl FaultKind {
    /// Every kind, with times as for tests.
    pub const ALL: [Self; 8] = [
        Self::Drop,
        Self::Duplicate,
        Self::Delay { nanoseconds: 300_000 },
        Self::Reorder,
        Self::Truncate,
        Self::Corrupt,
        Self::Cut { nanoseconds: None },
        Self::Cut { nanoseconds: Some(2_000_000) },
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Delay { .. } => "delay",
            Self::Reorder => "reorder",
            Self::Truncate => "truncate",
            Self::Corrupt => "corrupt",
            Self::Cut { .. } => "cut",
        }
    }
}

/// Which frames a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The frame that carries a message for the so-manieth time, from one.
    Message {
        /// The message.
        name: String,
        /// The how-manieth.
        nth: u64,
    },
    /// Any, by chance.
    Random {
        /// How many in a million.
        per_million: u32,
    },
}

/// A fault of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To which frames.
    pub strike: Strike,
}

/// A fault of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// The destination has memory for no more than so many pages.
    OutOfMemory {
        /// Pages.
        pages: u64,
    },
    /// The destination refuses a feature of the guest.
    Refuse {
        /// Its name.
        feature: String,
    },
    /// A host dies in front of a message that it is about to send.
    Dies {
        /// The source rather than the destination.
        source: bool,
        /// The message.
        message: String,
    },
    /// A host dies right behind a message that it has sent.
    DiesAfter {
        /// The source rather than the destination.
        source: bool,
        /// The message.
        message: String,
    },
}

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyFault {
    /// Of the link.
    Link(Fault),
    /// Of a host.
    Host(HostFault),
}

/// The forms of a fault, for messages.
pub const FORMS: &str = "`KIND@MESSAGE[:NTH]` or `KIND@random:PER_MILLION` with KIND drop, duplicate, delay[=TIME], reorder, truncate, corrupt or \
     cut[=TIME]; `source-dies@MESSAGE`, `source-dies-after@MESSAGE`, `destination-dies@MESSAGE`, `destination-dies-after@MESSAGE`, \
     `out-of-memory=PAGES`, `refuse=FEATURE`";

/// A time: `50us`, `300ms`, `1s`, `20ns`.
///
/// # Errors
/// Says what a time looks like.
pub fn parse_time(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[split..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(format!("`{text}` is no time: write 20ns, 50us, 300ms or 1s")),
    };
    let number: u64 = text[..split].parse().map_err(|_| format!("`{text}` is no time: write 20ns, 50us, 300ms or 1s"))?;
    number.checked_mul(unit).filter(|time| *time <= 3_600_000_000_000).ok_or_else(|| format!("`{text}` is longer than an hour"))
}

impl Fault {
    /// A fault of the link from its text.
    ///
    /// # Errors
    /// Says what a fault looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        match AnyFault::parse(text)? {
            AnyFault::Link(fault) => Ok(fault),
            AnyFault::Host(_) => Err(format!("`{text}` is no fault of the link")),
        }
    }
}

fn known_message(name: &str) -> Result<String, String> {
    if wire::MESSAGES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("there is no message `{name}`; the messages are {}", wire::MESSAGES.join(", ")))
}

impl AnyFault {
    /// A fault from its text.
    ///
    /// # Errors
    /// Says what a fault looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no fault; write {FORMS}");
        if let Some(pages) = text.strip_prefix("out-of-memory=") {
            let pages = pages.parse().map_err(|_| wrong())?;
            return Ok(Self::Host(HostFault::OutOfMemory { pages }));
        }
        if let Some(feature) = text.strip_prefix("refuse=") {
            let feature = Feature::from_name(feature).ok_or_else(|| format!("`{text}`: there is no feature `{feature}`"))?.name();
            return Ok(Self::Host(HostFault::Refuse { feature }));
        }
        let (kind, place) = text.split_once('@').ok_or_else(wrong)?;
        for (word, source, after) in [
            ("source-dies", true, false),
            ("source-dies-after", true, true),
            ("destination-dies", false, false),
            ("destination-dies-after", false, true),
        ] {
            if kind == word {
                let message = known_message(place)?;
                let of_source = wire::is_of_source(&message);
                if of_source != Some(source) {
                    let side = if source { "source" } else { "destination" };
                    return Err(format!("`{text}`: `{message}` is no message of the {side}"));
                }
                return Ok(Self::Host(if after { HostFault::DiesAfter { source, message } } else { HostFault::Dies { source, message } }));
            }
        }
        let (kind, time) = match kind.split_once('=') {
            Some((kind, time)) => (kind, Some(parse_time(time)?)),
            None => (kind, None),
        };
        let kind = match (kind, time) {
            ("drop", None) => FaultKind::Drop,
            ("duplicate", None) => FaultKind::Duplicate,
            ("delay", time) => FaultKind::Delay { nanoseconds: time.unwrap_or(1_000_000) },
            ("reorder", None) => FaultKind::Reorder,
            ("truncate", None) => FaultKind::Truncate,
            ("corrupt", None) => FaultKind::Corrupt,
            ("cut", nanoseconds) => FaultKind::Cut { nanoseconds },
            _ => return Err(wrong()),
        };
        let (name, count) = match place.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (place, None),
        };
        if name == "random" {
            let per_million = count.and_then(|count| count.parse().ok()).filter(|count| *count <= 1_000_000).ok_or_else(wrong)?;
            return Ok(Self::Link(Fault { kind, strike: Strike::Random { per_million } }));
        }
        let nth = match count {
            Some(count) => count.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?,
            None => 1,
        };
        Ok(Self::Link(Fault { kind, strike: Strike::Message { name: known_message(name)?, nth } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_mistakes_are_told() {
        let link = |kind, name: &str, nth| Ok(AnyFault::Link(Fault { kind, strike: Strike::Message { name: name.to_owned(), nth } }));
        assert_eq!(AnyFault::parse("drop@commit"), link(FaultKind::Drop, "commit", 1));
        assert_eq!(AnyFault::parse("corrupt@ram:3"), link(FaultKind::Corrupt, "ram", 3));
        assert_eq!(AnyFault::parse("cut=2ms@ready"), link(FaultKind::Cut { nanoseconds: Some(2_000_000) }, "ready", 1));
        assert_eq!(AnyFault::parse("cut@ready"), link(FaultKind::Cut { nanoseconds: None }, "ready", 1));
        let random = Fault { kind: FaultKind::Duplicate, strike: Strike::Random { per_million: 1000 } };
        assert_eq!(AnyFault::parse("duplicate@random:1000"), Ok(AnyFault::Link(random)));
        let dies = HostFault::Dies { source: true, message: "commit".to_owned() };
        assert_eq!(AnyFault::parse("source-dies@commit"), Ok(AnyFault::Host(dies)));
        assert_eq!(AnyFault::parse("out-of-memory=12"), Ok(AnyFault::Host(HostFault::OutOfMemory { pages: 12 })));
        for wrong in [
            "",
            "drop",
            "drop@nothing",
            "drop@commit:0",
            "lose@commit",
            "delay=5@commit",
            "source-dies@ready",
            "random:5@drop",
            "drop=1ms@commit",
            "drop@random",
            "drop@random:2000000",
            "out-of-memory=x",
            "refuse=sse9",
            "cut=2h@commit",
        ] {
            assert!(AnyFault::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("300ms"), Ok(300_000_000));
        assert_eq!(parse_time("7ns"), Ok(7));
        for wrong in ["", "5", "ms", "1h", "99999999999999999999s", "9999s", "-1s"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
