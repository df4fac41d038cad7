//! The side that will have the guest.

use super::{Order, Reply, Session};

/// Where a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing was heard yet.
    Idle,
    /// Memory arrives.
    Receiving,
    /// Everything is here; whether to run is not known.
    Prepared,
    /// The guest runs here; memory may be missing (post-copy).
    Running,
    /// What had arrived was thrown away.
    Discarded,
    /// The host died.
    Dead,
}

/// What happens to the destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input<P> {
    /// The source said something.
    Order(Session, Order<P>),
    /// The offer that was shown is wanted, or not.
    Judged(bool),
    /// A piece could not be stored.
    Full,
    /// Somebody gives up on what has arrived.
    GiveUp,
    /// No word for some time: say it again.
    Repeat,
    /// The guest touched a page that is missing (post-copy).
    Missing {
        /// Its number.
        frame: u64,
    },
    /// A person made sure that the source is off for good, and will never run this guest.
    PeerIsOff,
    /// The host dies.
    Die,
}

/// What the destination has to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action<P> {
    /// Say something.
    Say(Reply),
    /// Look at the offer and answer with [`Input::Judged`].
    Judge,
    /// Keep a piece.
    Store(P),
    /// Run the guest.
    Run,
    /// Throw away what has arrived.
    Discard,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    name: u64,
    session: Option<Session>,
    state: State,
    /// Pieces stored: the place of the one that is stored next.
    next: u64,
    /// All memory is here.
    complete: bool,
    /// A piece that came behind the hand-over could not be stored: memory is never complete.
    lacking: bool,
}

impl Destination {
    /// A destination of a name.
    pub const fn new(name: u64) -> Self {
        Self { name, session: None, state: State::Idle, next: 0, complete: false, lacking: false }
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The session that it takes part in.
    pub const fn session(&self) -> Option<Session> {
        self.session
    }

    /// Pieces stored.
    pub const fn stored(&self) -> u64 {
        self.next
    }

    /// Whether it may run the guest.
    pub const fn may_run(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Takes an input.
    pub fn take<P>(&mut self, input: Input<P>) -> Vec<Action<P>> {
        use State as S;
        match (self.state, input) {
            (S::Dead, _) => Vec::new(),
            (_, Input::Die) => {
                self.state = S::Dead;
                Vec::new()
            }
            (_, Input::Order(session, _)) if session.destination != self.name => Vec::new(),
            (_, Input::Order(session, Order::Offer)) => self.offered(session),
            (_, Input::Order(session, _)) if self.session != Some(session) => Vec::new(),
            (S::Idle, Input::Judged(true)) if self.session.is_some() => {
                self.state = S::Receiving;
                vec![Action::Say(Reply::Accept)]
            }
            (S::Idle, Input::Judged(false)) if self.session.is_some() => {
                self.state = S::Discarded;
                vec![Action::Say(Reply::Refuse)]
            }
            (S::Receiving | S::Running, Input::Order(_, Order::Piece { index, piece })) if index == self.next && !self.complete => {
                self.next += 1;
                vec![Action::Store(piece)]
            }
            (S::Receiving, Input::Order(_, Order::Round { round, pieces })) if pieces <= self.next => {
                vec![Action::Say(Reply::Received { round })]
            }
            (S::Receiving, Input::Order(_, Order::Stop { pieces })) if pieces == self.next => {
                self.state = S::Prepared;
                vec![Action::Say(Reply::Ready)]
            }
            (S::Prepared, Input::Order(_, Order::Stop { .. }) | Input::Repeat) => vec![Action::Say(Reply::Ready)],
            (S::Prepared, Input::Order(_, Order::Commit)) => {
                self.state = S::Running;
                vec![Action::Run, Action::Say(Reply::Running)]
            }
            (S::Running, Input::Order(_, Order::Commit)) => vec![Action::Say(Reply::Running)],
            (S::Running, Input::Order(_, Order::Finish { pieces })) if pieces <= self.next && !self.lacking => {
                self.complete = true;
                vec![Action::Say(Reply::Complete)]
            }
            (S::Running, Input::Missing { frame }) => vec![Action::Say(Reply::Want { frame })],
            (S::Running, Input::Repeat) => vec![Action::Say(if self.complete { Reply::Complete } else { Reply::Running })],
            (S::Receiving | S::Prepared, Input::Order(_, Order::Abort)) => self.discard(false),
            (S::Receiving, Input::Full | Input::GiveUp) => self.discard(true),
            // The guest runs here already, and the source must not free what is nowhere else.
            (S::Running, Input::Full) => {
                self.lacking = true;
                Vec::new()
            }
            // The source does not wait for what was thrown away.
            (S::Discarded, Input::Order(_, Order::Piece { .. } | Order::Round { .. } | Order::Stop { .. })) => {
                vec![Action::Say(Reply::Abort)]
            }
            // In doubt, and a person knows better.
            (S::Prepared, Input::PeerIsOff) => {
                self.state = S::Running;
                vec![Action::Run]
            }
            _ => Vec::new(),
        }
    }

    /// An offer: a newer one says that an older session came to nothing, because a source that has committed never offers again.
    fn offered<P>(&mut self, session: Session) -> Vec<Action<P>> {
        let newer = self.session.is_none_or(|known| session.number > known.number);
        match self.state {
            State::Running => Vec::new(),
            _ if newer => {
                let had = matches!(self.state, State::Receiving | State::Prepared);
                *self = Self { session: Some(session), ..Self::new(self.name) };
                let mut actions = Vec::new();
                actions.extend(had.then_some(Action::Discard));
                actions.push(Action::Judge);
                actions
            }
            State::Receiving if self.session == Some(session) => vec![Action::Say(Reply::Accept)],
            State::Discarded if self.session == Some(session) => vec![Action::Say(Reply::Refuse)],
            _ => Vec::new(),
        }
    }

    fn discard<P>(&mut self, tell: bool) -> Vec<Action<P>> {
        self.state = State::Discarded;
        let mut actions = vec![Action::Discard];
        actions.extend(tell.then_some(Action::Say(Reply::Abort)));
        actions
    }
}
