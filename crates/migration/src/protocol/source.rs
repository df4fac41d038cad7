//! The side that has the guest.

use super::{Order, Reply, Session};

/// Where a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing was said yet.
    Idle,
    /// The offer was made.
    Offered,
    /// Memory is sent while the guest runs.
    Copying,
    /// The guest is paused, and everything was sent.
    Stopped,
    /// The commit was sent: the guest will never run here again.
    Committed,
    /// The destination runs it, and lacks memory that is only here (post-copy).
    Serving,
    /// The destination runs it and has everything.
    Done,
    /// It is off: the guest goes on here.
    Failed,
    /// A person made sure that the destination is off, and gave the right back.
    Reclaimed,
    /// The host died.
    Dead,
}

/// What happens to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Begin.
    Begin,
    /// The destination said something.
    Reply(Session, Reply),
    /// A round is over.
    EndRound,
    /// The rest is so small that the guest is to be paused. All pieces must have been sent before [`Input::Stopped`].
    Stop,
    /// The guest is paused, and its last pieces were sent.
    Stopped,
    /// All memory was sent (post-copy).
    Pushed,
    /// Somebody gives up, or waited long enough.
    GiveUp,
    /// No answer for some time: say it again.
    Repeat,
    /// The link is gone for good.
    LinkDown,
    /// A person made sure that the destination is off for good and will never run this guest.
    PeerIsOff,
    /// The host dies.
    Die,
}

/// What the source has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Say something; [`Order::Piece`] is never among it.
    Say(Order<()>),
    /// Begin to send memory.
    Copy,
    /// Pause the guest and send the rest.
    Pause,
    /// Let the guest go on.
    Resume,
    /// Send this page first (post-copy).
    Send {
        /// Its number.
        frame: u64,
    },
    /// Send the memory that is missing there (post-copy).
    Push,
    /// Forget the guest.
    Free,
}

/// The source of one session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    session: Session,
    post_copy: bool,
    state: State,
    pieces: u64,
    round: u32,
    /// The guest is being paused: nothing but its last pieces is sent any more.
    stopping: bool,
    /// All memory was sent after the hand-over.
    pushed: bool,
}

impl Source {
    /// A source that will offer its guest to one destination.
    pub const fn new(session: Session, post_copy: bool) -> Self {
        Self { session, post_copy, state: State::Idle, pieces: 0, round: 0, stopping: false, pushed: false }
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The session.
    pub const fn session(&self) -> Session {
        self.session
    }

    /// Rounds that were ended.
    pub const fn round(&self) -> u32 {
        self.round
    }

    /// Whether it has the right to run the guest.
    pub const fn has_right(&self) -> bool {
        matches!(self.state, State::Idle | State::Offered | State::Copying | State::Stopped | State::Failed | State::Reclaimed)
    }

    /// Whether the guest may execute here now.
    pub const fn may_run(&self) -> bool {
        self.has_right() && !matches!(self.state, State::Stopped) && !self.stopping
    }

    /// The place of the next piece in the order of all, if one may be sent now.
    pub const fn next_piece(&mut self) -> Option<u64> {
        match self.state {
            State::Copying | State::Serving | State::Committed
                if !self.pushed && (self.post_copy || matches!(self.state, State::Copying)) =>
            {
                self.pieces += 1;
                Some(self.pieces - 1)
            }
            _ => None,
        }
    }

    /// Takes an input.
    pub fn take(&mut self, input: Input) -> Vec<Action> {
        use State as S;
        match (self.state, input) {
            (S::Dead, _) => Vec::new(),
            (_, Input::Die) => {
                self.state = S::Dead;
                Vec::new()
            }
            (_, Input::Reply(session, _)) if session != self.session => Vec::new(),
            (S::Idle, Input::Begin) => self.go(S::Offered, [Action::Say(Order::Offer)]),
            (S::Offered, Input::Repeat) => vec![Action::Say(Order::Offer)],
            (S::Offered, Input::Reply(_, Reply::Accept)) => self.go(S::Copying, [Action::Copy]),
            (S::Copying, Input::EndRound) => {
                self.round += 1;
                vec![Action::Say(self.end_of_round())]
            }
            (S::Copying, Input::Repeat) if self.round > 0 && !self.stopping => vec![Action::Say(self.end_of_round())],
            (S::Copying, Input::Stop) if !self.stopping => {
                self.stopping = true;
                vec![Action::Pause]
            }
            (S::Copying, Input::Stopped) if self.stopping => self.go(S::Stopped, [Action::Say(Order::Stop { pieces: self.pieces })]),
            (S::Stopped, Input::Repeat) => vec![Action::Say(Order::Stop { pieces: self.pieces })],
            // The point of no return: whoever carries this out records it before the commit leaves.
            (S::Stopped, Input::Reply(_, Reply::Ready)) => self.go(S::Committed, [Action::Say(Order::Commit)]),
            (S::Committed, Input::Repeat) => vec![Action::Say(Order::Commit)],
            (S::Committed, Input::Reply(_, Reply::Running | Reply::Want { .. } | Reply::Complete)) if self.post_copy => {
                self.state = S::Serving;
                let mut actions = vec![Action::Push];
                actions.extend(self.serve(input));
                actions
            }
            (S::Committed, Input::Reply(_, Reply::Running)) => self.go(S::Done, [Action::Free]),
            (S::Serving, Input::Reply(..) | Input::Pushed | Input::Repeat) => self.serve(input),
            // Before the commit the source may always go on by itself.
            (S::Offered | S::Copying | S::Stopped, Input::Reply(_, Reply::Refuse | Reply::Abort) | Input::LinkDown) => self.fail(false),
            (S::Offered | S::Copying | S::Stopped, Input::GiveUp) => self.fail(true),
            // After it only a person can tell.
            (S::Committed | S::Serving, Input::PeerIsOff) => self.go(S::Reclaimed, [Action::Resume]),
            _ => Vec::new(),
        }
    }

    fn end_of_round(&self) -> Order<()> {
        Order::Round { round: self.round, pieces: self.pieces }
    }

    fn go<const N: usize>(&mut self, state: State, actions: [Action; N]) -> Vec<Action> {
        self.state = state;
        actions.into()
    }

    fn fail(&mut self, tell: bool) -> Vec<Action> {
        let paused = self.stopping || self.state == State::Stopped;
        self.state = State::Failed;
        self.stopping = false;
        let mut actions = Vec::new();
        actions.extend(tell.then_some(Action::Say(Order::Abort)));
        actions.extend(paused.then_some(Action::Resume));
        actions
    }

    fn serve(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Reply(_, Reply::Want { frame }) => vec![Action::Send { frame }],
            Input::Reply(_, Reply::Complete) => self.go(State::Done, [Action::Free]),
            Input::Pushed => {
                self.pushed = true;
                vec![Action::Say(Order::Finish { pieces: self.pieces })]
            }
            Input::Repeat if self.pushed => vec![Action::Say(Order::Finish { pieces: self.pieces })],
            _ => Vec::new(),
        }
    }
}
