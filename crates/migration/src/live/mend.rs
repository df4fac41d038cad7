//! What a person does about a guest that a move has stranded. The program itself never does any of it.

use super::{Ending, Live, fate};
use crate::link::Side;
use crate::protocol::{destination, source};
use crate::report::Mended;
use serde::{Deserialize, Serialize};

/// How a stranded guest is helped on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mend {
    /// The hosts are connected again, as often as it takes, and say what was not heard.
    Reconnect,
    /// The source is switched off for good, and the destination, which has everything, is told to run the guest.
    SourceIsOff,
    /// The destination is switched off for good, and the source, which has paused the guest, takes the right back.
    DestinationIsOff,
}

impl Mend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reconnect, Self::SourceIsOff, Self::DestinationIsOff];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::SourceIsOff => "source-is-off",
            Self::DestinationIsOff => "destination-is-off",
        }
    }

    /// What was done, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reconnect => "somebody connected the hosts again",
            Self::SourceIsOff => "somebody made sure that the source is off",
            Self::DestinationIsOff => "somebody made sure that the destination is off",
        }
    }
}

impl Live<'_> {
    /// Does it, where there is something to be done: then the move goes on. A host that a person takes for off is switched off here, so that the
    /// promise is true.
    pub(super) fn mend(&mut self, ending: &Ending, mend: Mend) -> bool {
        let (source, destination) = (self.source.state(), self.destination.state());
        let (here, there) = (source != source::State::Dead, destination != destination::State::Dead);
        let possible = match mend {
            Mend::Reconnect => matches!(ending, Ending::Stranded | Ending::MovedInDoubt) && here && there,
            // Without the memory that is only at the source the guest would not come far.
            Mend::SourceIsOff => {
                matches!(ending, Ending::Stranded) && destination == destination::State::Prepared && self.incoming.missing.is_empty()
            }
            Mend::DestinationIsOff => {
                matches!(ending, Ending::Stranded) && matches!(source, source::State::Committed | source::State::Serving)
            }
        };
        if !possible {
            return false;
        }
        // What happened first counts, however often the hosts are connected again.
        self.report.mended.get_or_insert(Mended { how: mend, was: fate(ending) });
        self.why = Some(mend.words().to_owned());
        match mend {
            Mend::Reconnect => {
                self.mark(Side::Source, "somebody connects the hosts again".to_owned());
                self.link.repair();
                self.given_up = [false; 2];
                for end in &mut self.ends {
                    end.reconnect(self.now, &mut self.link);
                }
            }
            Mend::SourceIsOff => {
                self.mark(Side::Destination, "somebody is sure that the source is off".to_owned());
                self.die(Side::Source);
                self.destination_takes(destination::Input::PeerIsOff);
            }
            Mend::DestinationIsOff => {
                self.mark(Side::Source, "somebody is sure that the destination is off".to_owned());
                self.die(Side::Destination);
                self.source_takes(source::Input::PeerIsOff);
            }
        }
        true
    }
}
