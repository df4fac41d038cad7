//! The two state machines of a move under everything that a link and two hosts can do, exhaustively over a small guest.
//!
//! The link is modelled as a set that only grows: whatever was said may arrive at any later time, any number of times, in any order, or
//! never. That covers loss, delay, repetition and another order, and damage, which checksums turn into loss. Timers may fire at any time.
//! Hosts may die. Every state that can be reached so is looked at.

use migration::protocol::destination::{self, Destination};
use migration::protocol::source::{self, Source};
use migration::protocol::{Order, Reply, Session};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// How far the guest may get, and how often the source may try.
#[derive(Clone, Copy)]
struct Bounds {
    steps: u8,
    rounds: u32,
    sessions: u64,
    deaths: u8,
    post_copy: bool,
    /// A source that goes on by itself after it has committed: what the protocol must not do.
    flawed: bool,
}

/// The whole world.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    source: Source,
    destinations: Vec<Destination>,
    orders: BTreeSet<(Session, Order<u8>)>,
    replies: BTreeSet<(Session, Reply)>,
    /// What the guest has done so far at the source.
    guest: u8,
    /// The last piece that was sent.
    sent: Option<u8>,
    /// What each destination has stored last.
    stored: Vec<Option<u8>>,
    /// A flawed source took the right back.
    stolen: bool,
    freed: bool,
    deaths: u8,
    /// Memory may follow the hand-over.
    post_copy: bool,
}

fn first(bounds: &Bounds) -> World {
    World {
        source: Source::new(Session { number: 1, destination: 0 }, bounds.post_copy),
        destinations: vec![Destination::new(0), Destination::new(1)],
        orders: BTreeSet::new(),
        replies: BTreeSet::new(),
        guest: 0,
        sent: None,
        stored: vec![None, None],
        stolen: false,
        freed: false,
        deaths: 0,
        post_copy: bounds.post_copy,
    }
}

impl World {
    fn source_takes(&mut self, input: source::Input) -> Result<(), String> {
        for action in self.source.take(input) {
            match action {
                source::Action::Say(order) => {
                    let order = match order {
                        Order::Offer => Order::Offer,
                        Order::Piece { .. } => return Err("the machine never sends pieces by itself".to_owned()),
                        Order::Round { round, pieces } => Order::Round { round, pieces },
                        Order::Stop { pieces } => Order::Stop { pieces },
                        Order::Commit => Order::Commit,
                        Order::Finish { pieces } => Order::Finish { pieces },
                        Order::Abort => Order::Abort,
                    };
                    self.orders.insert((self.source.session(), order));
                }
                source::Action::Free => {
                    let there = &self.destinations[self.source.session().destination as usize];
                    if !matches!(there.state(), destination::State::Running | destination::State::Dead) {
                        return Err("the guest is freed while nobody has it".to_owned());
                    }
                    self.freed = true;
                }
                source::Action::Copy | source::Action::Pause | source::Action::Resume => {}
                source::Action::Send { .. } | source::Action::Push => {}
            }
        }
        Ok(())
    }

    fn destination_takes(&mut self, number: usize, input: destination::Input<u8>) -> Result<(), String> {
        self.destination_can(number, input, true)
    }

    /// The same where there may be no room for a piece.
    fn destination_can(&mut self, number: usize, input: destination::Input<u8>, store: bool) -> Result<(), String> {
        let by_commit = matches!(input, destination::Input::Order(_, Order::Commit));
        for action in self.destinations[number].take(input) {
            match action {
                destination::Action::Say(reply) => {
                    if reply == Reply::Complete && self.stored[number] != Some(self.guest) {
                        return Err(format!(
                            "destination {number} is complete with {:?}, the source stopped at {}",
                            self.stored[number], self.guest
                        ));
                    }
                    if let Some(session) = self.destinations[number].session() {
                        self.replies.insert((session, reply));
                    }
                }
                destination::Action::Judge => self.destination_takes(number, destination::Input::Judged(true))?,
                destination::Action::Store(_) if !store => self.destination_takes(number, destination::Input::Full)?,
                destination::Action::Store(piece) => self.stored[number] = Some(piece),
                destination::Action::Run => {
                    // With post-copy the last piece may follow.
                    if by_commit && !self.post_copy && self.stored[number] != Some(self.guest) {
                        return Err(format!("destination {number} runs {:?}, the source stopped at {}", self.stored[number], self.guest));
                    }
                }
                destination::Action::Discard => self.stored[number] = None,
            }
        }
        Ok(())
    }

    /// Everything that can happen next.
    fn successors(&self, bounds: &Bounds) -> Vec<Result<(String, World), String>> {
        let mut found = Vec::new();
        let mut add = |what: String, change: &dyn Fn(&mut World) -> Result<(), String>| {
            let mut next = self.clone();
            match change(&mut next) {
                Ok(()) if next != *self => found.push(Ok((what, next))),
                Ok(()) => {}
                Err(broken) => found.push(Err(format!("{what}: {broken}"))),
            }
        };
        use source::Input as I;
        use source::State as S;
        let state = self.source.state();
        if self.source.may_run() && self.guest < bounds.steps {
            add("the guest goes on".to_owned(), &|world| {
                world.guest += 1;
                Ok(())
            });
        }
        // What the link may deliver.
        for (session, order) in self.orders.iter().cloned() {
            for number in 0..2 {
                add(format!("{order:?} of {session:?} at {number}"), &|world| {
                    world.destination_takes(number, destination::Input::Order(session, order))
                });
                if matches!(order, Order::Piece { .. }) {
                    add(format!("{order:?} of {session:?} at {number}, which has no room for it"), &|world| {
                        world.destination_can(number, destination::Input::Order(session, order), false)
                    });
                }
            }
        }
        for (session, reply) in self.replies.iter().copied() {
            add(format!("{reply:?} of {session:?}"), &|world| world.source_takes(I::Reply(session, reply)));
        }
        // What the source does by itself.
        let stopping = state == S::Copying && !self.source.may_run();
        for input in [I::Begin, I::Repeat, I::GiveUp, I::LinkDown] {
            add(format!("{input:?}"), &|world| world.source_takes(input));
        }
        if state == S::Copying && !stopping && self.source.round() < bounds.rounds {
            add("a round ends".to_owned(), &|world| world.source_takes(I::EndRound));
        }
        if state == S::Copying && !stopping {
            add("the source stops".to_owned(), &|world| world.source_takes(I::Stop));
        }
        let late = bounds.post_copy && matches!(state, S::Committed | S::Serving);
        if (state == S::Copying || late) && self.sent != Some(self.guest) {
            add("a piece".to_owned(), &|world| {
                if let Some(index) = world.source.next_piece() {
                    world.sent = Some(world.guest);
                    world.orders.insert((world.source.session(), Order::Piece { index, piece: world.guest }));
                }
                Ok(())
            });
        }
        if stopping && (self.sent == Some(self.guest) || bounds.post_copy) {
            add("paused".to_owned(), &|world| world.source_takes(I::Stopped));
        }
        if state == S::Serving && self.sent == Some(self.guest) {
            add("pushed".to_owned(), &|world| world.source_takes(I::Pushed));
        }
        if bounds.flawed && state == S::Committed {
            add("the flawed source goes on".to_owned(), &|world| {
                world.stolen = true;
                Ok(())
            });
        }
        // Another attempt, at the other destination or the same.
        if matches!(state, S::Failed | S::Reclaimed) && self.source.session().number < bounds.sessions {
            for to in 0..2 {
                add(format!("a new session to {to}"), &|world| {
                    let number = world.source.session().number + 1;
                    world.source = Source::new(Session { number, destination: to }, bounds.post_copy);
                    world.sent = None;
                    Ok(())
                });
            }
        }
        // What destinations do by themselves.
        for number in 0..2 {
            for input in [destination::Input::Repeat, destination::Input::GiveUp, destination::Input::Full] {
                add(format!("{input:?} at {number}"), &|world| world.destination_takes(number, input.clone()));
            }
        }
        // Deaths, and the person who is sure of one.
        if self.deaths < bounds.deaths {
            add("the source dies".to_owned(), &|world| {
                world.deaths += 1;
                world.source_takes(I::Die)
            });
            for number in 0..2 {
                add(format!("destination {number} dies"), &|world| {
                    world.deaths += 1;
                    world.destination_takes(number, destination::Input::Die)
                });
            }
        }
        let there = self.source.session().destination as usize;
        if self.destinations[there].state() == destination::State::Dead {
            add("somebody is sure that the destination is off".to_owned(), &|world| world.source_takes(I::PeerIsOff));
        }
        // Of two destinations only that of the last session is given the right: the other's copy is older.
        if state == S::Dead {
            add("somebody is sure that the source is off".to_owned(), &|world| {
                world.destination_takes(there, destination::Input::PeerIsOff)
            });
        }
        found
    }

    fn check(&self) -> Result<(), String> {
        let here = usize::from(self.source.may_run() || self.stolen);
        let there = self.destinations.iter().filter(|destination| destination.may_run()).count();
        if here + there > 1 {
            return Err(format!("{} sides may run the guest", here + there));
        }
        let right = usize::from(self.source.has_right());
        if right + there > 1 {
            return Err("two sides have the right".to_owned());
        }
        let session = self.source.session();
        if right + there == 0 && self.deaths == 0 {
            // Then it lies in the record of a commit to a destination that can still take it.
            let to = &self.destinations[session.destination as usize];
            let recorded = self.orders.contains(&(session, Order::Commit)) && self.source.state() == source::State::Committed;
            if !recorded || to.state() != destination::State::Prepared || to.session() != Some(session) {
                return Err("nobody has the right, and nobody ever will".to_owned());
            }
        }
        Ok(())
    }

    /// What happens when from now on the link works and nobody dies: the machines must come to an end by themselves.
    fn settle(&self, bounds: &Bounds) -> Result<World, String> {
        let mut world = self.clone();
        let (orders, replies) = (world.orders.clone(), world.replies.clone());
        for _ in 0..40 {
            let before = world.clone();
            world.source_takes(source::Input::Repeat)?;
            for number in 0..2 {
                world.destination_takes(number, destination::Input::Repeat)?;
            }
            if let source::State::Committed | source::State::Serving = world.source.state()
                && bounds.post_copy
            {
                while world.sent != Some(world.guest) {
                    let Some(index) = world.source.next_piece() else { break };
                    world.sent = Some(world.guest);
                    world.orders.insert((world.source.session(), Order::Piece { index, piece: world.guest }));
                }
                if world.sent == Some(world.guest) {
                    world.source_takes(source::Input::Pushed)?;
                }
            }
            // Pieces that were lost are sent again by what carries the messages; so everything arrives, in order.
            for (session, order) in world.orders.clone() {
                world.destination_takes(session.destination as usize, destination::Input::Order(session, order))?;
            }
            for (session, reply) in world.replies.clone() {
                world.source_takes(source::Input::Reply(session, reply))?;
            }
            world.check()?;
            if world == before {
                break;
            }
        }
        if !matches!(world.source.state(), source::State::Done | source::State::Committed | source::State::Serving | source::State::Dead) {
            world.source_takes(source::Input::GiveUp)?;
        }
        world.orders.extend(orders);
        world.replies.extend(replies);
        Ok(world)
    }
}

/// Visits every state that can be reached. How many there are, or the way to the first that breaks a rule.
fn explore(bounds: &Bounds) -> Result<usize, Vec<String>> {
    let start = Rc::new(first(bounds));
    let mut known: BTreeSet<Rc<World>> = BTreeSet::from([start.clone()]);
    let mut order: Vec<Rc<World>> = vec![start];
    let mut ways: Vec<(Option<usize>, String)> = vec![(None, "start".to_owned())];
    let mut queue: VecDeque<usize> = VecDeque::from([0]);
    let way = |ways: &[(Option<usize>, String)], mut at: usize, last: String| {
        let mut steps = vec![last];
        loop {
            steps.push(ways[at].1.clone());
            match ways[at].0 {
                Some(before) => at = before,
                None => break,
            }
        }
        steps.reverse();
        steps
    };
    while let Some(at) = queue.pop_front() {
        let world = order[at].clone();
        if world.deaths == 0 && !world.stolen {
            let settled = world.settle(bounds).map_err(|broken| way(&ways, at, broken))?;
            let runs = usize::from(settled.source.may_run()) + settled.destinations.iter().filter(|it| it.may_run()).count();
            let idle = settled.source.state() == source::State::Idle;
            if runs != 1 && !idle {
                let doubt = format!("a working link leaves {runs} running: {:?} {:?}", settled.source, settled.destinations);
                return Err(way(&ways, at, doubt));
            }
        }
        for successor in world.successors(bounds) {
            let (what, next) = successor.map_err(|broken| way(&ways, at, broken))?;
            if let Err(broken) = next.check() {
                return Err(way(&ways, at, format!("{what}: {broken}")));
            }
            let next = Rc::new(next);
            if known.insert(next.clone()) {
                order.push(next);
                ways.push((Some(at), what));
                queue.push_back(order.len() - 1);
            }
        }
    }
    Ok(order.len())
}

const SMALL: Bounds = Bounds { steps: 1, rounds: 1, sessions: 1, deaths: 0, post_copy: false, flawed: false };

/// The whole of it is a bigger sweep: `TRAPLINE_PROTOCOL=full cargo test -p trapline-migration --test protocol`.
fn full() -> bool {
    std::env::var("TRAPLINE_PROTOCOL").is_ok_and(|size| size == "full")
}

fn holds(bounds: Bounds) -> usize {
    match explore(&bounds) {
        Ok(states) => states,
        Err(way) => panic!("{}", way.join("\n")),
    }
}

#[test]
fn never_do_two_sides_run_and_nothing_is_lost() {
    let states = holds(Bounds { steps: 2, ..SMALL });
    println!("{states} states");
    assert!(states > 300, "{states}");
}

#[test]
fn it_holds_when_hosts_die() {
    let states = holds(Bounds { deaths: if full() { 2 } else { 1 }, ..SMALL });
    println!("{states} states");
    assert!(states > 500, "{states}");
}

#[test]
fn it_holds_with_two_attempts_at_two_destinations() {
    let small = Bounds { sessions: 2, rounds: 0, ..SMALL };
    let states = holds(small);
    println!("{states} states");
    assert!(states > 1000, "{states}");
    if full() {
        // Both together are more than ten gigabytes of states.
        println!("{} states when hosts die", holds(Bounds { deaths: 1, ..small }));
        println!("{} states with a round", holds(Bounds { rounds: 1, ..small }));
    }
}

#[test]
fn it_holds_for_post_copy() {
    let states = holds(Bounds { post_copy: true, deaths: u8::from(full()), ..SMALL });
    println!("{states} states");
    assert!(states > 300, "{states}");
}

#[test]
fn a_source_that_goes_on_after_its_commit_is_found_out() {
    let way = explore(&Bounds { flawed: true, ..SMALL }).unwrap_err();
    assert!(way.last().unwrap().contains("2 sides may run the guest"), "{way:#?}");
    assert!(way.iter().any(|step| step.contains("Commit")), "{way:#?}");
}
