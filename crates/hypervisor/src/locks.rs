//! The lock of the hypervisor around a guest's memory mappings, as an object that costs simulated time and can be waited for.
//!
//! Modelled: one lock, held alone or together with other readers, granted in order of arrival; a virtual CPU whose thread waits for it does
//! nothing else. What it is called and who takes it how is that of the policy's age: in 2007 everything took the mutex `kvm->lock`; later
//! kernels have `mmu_lock`, and with nested paging their page faults only read under it. Taking a free lock is part of the cost of the work
//! that takes it. Not modelled: locks that are never contended here (of slots, of interrupt controllers), and spinning by turns.

use crate::backend::Backend;
use crate::mmu::Paging;
use crate::policy::Policy;
use crate::steps::Wait;
use crate::vm::Vm;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use trace::{Event, Sink};

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Hold {
    /// Alone.
    Exclusive,
    /// With other readers.
    Shared,
}

/// Who holds a lock, and who waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Lock {
    holders: Vec<usize>,
    exclusive: bool,
    waiters: VecDeque<(usize, Hold)>,
}

impl Lock {
    fn admits(&self, hold: Hold) -> bool {
        self.holders.is_empty() || hold == Hold::Shared && !self.exclusive
    }

    /// Takes it, or waits for it. Whether it was free.
    fn take(&mut self, vcpu: usize, hold: Hold) -> bool {
        // Who comes later waits behind who waits.
        let free = self.waiters.is_empty() && self.admits(hold);
        if free {
            self.grant(vcpu, hold);
        } else {
            self.waiters.push_back((vcpu, hold));
        }
        free
    }

    fn grant(&mut self, vcpu: usize, hold: Hold) {
        self.holders.push(vcpu);
        self.exclusive = hold == Hold::Exclusive;
    }

    /// Gives it back; who has it now that waited.
    fn release(&mut self, vcpu: usize) -> Vec<(usize, Hold)> {
        self.holders.retain(|holder| *holder != vcpu);
        let mut granted = Vec::new();
        while let Some(&(next, hold)) = self.waiters.front()
            && self.admits(hold)
        {
            self.waiters.pop_front();
            self.grant(next, hold);
            granted.push((next, hold));
        }
        granted
    }

    /// Whether it can be that of virtual CPUs of which each says how it waits, and whether what it does next needs the lock.
    pub fn is_possible(&self, vcpus: &[(Option<Hold>, bool)]) -> bool {
        let numbers = self.holders.iter().chain(self.waiters.iter().map(|(waiter, _)| waiter));
        let mut times = vec![0; vcpus.len()];
        for number in numbers {
            match times.get_mut(*number) {
                Some(times) => *times += 1,
                None => return false,
            }
        }
        let holds = |vcpu: usize| self.holders.contains(&vcpu);
        let wait = |vcpu: usize| self.waiters.iter().find(|(waiter, _)| *waiter == vcpu).map(|(_, hold)| *hold);
        let named = vcpus.iter().enumerate().all(|(vcpu, (waits, needs))| {
            times[vcpu] == u32::from(*needs) && *waits == wait(vcpu) && holds(vcpu) == (*needs && waits.is_none())
        });
        named && (self.waiters.is_empty() || !self.holders.is_empty()) && (!self.exclusive || self.holders.len() < 2)
    }

    /// Somebody who holds it.
    pub fn holder(&self) -> Option<usize> {
        self.holders.first().copied()
    }
}

/// The name of the lock under a policy.
const fn name(policy: Policy) -> &'static str {
    if policy.is_of_2007() { "kvm->lock" } else { "mmu_lock" }
}

/// What kind it is, as the kernel's trace points say it.
const fn flags(policy: Policy, hold: Hold) -> &'static str {
    match hold {
        _ if policy.is_of_2007() => "MUTEX",
        Hold::Shared => "SPIN|READ",
        Hold::Exclusive => "SPIN|WRITE",
    }
}

impl<B: Backend> Vm<B> {
    /// How a page fault takes the lock.
    pub(crate) fn fault_hold(&self) -> Hold {
        // KVM's page_fault() of paging_tmpl.h, and its direct_page_fault() with the TDP MMU.
        let alone = self.common.policy.is_of_2007() || self.mmu.paging() == Paging::Shadow;
        if alone { Hold::Exclusive } else { Hold::Shared }
    }

    /// Takes the lock around the mappings for a virtual CPU, or has it wait: what it does next, it does with the lock.
    pub(crate) fn lock_mappings(&mut self, vcpu: usize, hold: Hold, sink: &mut dyn Sink) {
        if !self.common.lock.take(vcpu, hold) {
            self.vcpus[vcpu].waits = Some(Wait::Lock(hold));
            let policy = self.common.policy;
            self.emit(vcpu, sink, Event::ContentionBegin { lock: name(policy), flags: flags(policy, hold) });
        }
    }

    /// Gives it back. Whoever gets it goes on no earlier than now, and later by the time of the hand-over.
    pub(crate) fn unlock_mappings(&mut self, vcpu: usize) {
        let now = self.cpus[vcpu].now();
        let costs = self.model.costs;
        let cost = if self.common.policy.is_of_2007() { &costs.mutex_hand_over } else { &costs.spin_lock_hand_over };
        for (next, _) in self.common.lock.release(vcpu) {
            if self.cpus[next].now() < now {
                self.cpus[next].set_now(now);
            }
            self.charge(next, cost);
            self.vcpus[next].waits = None;
            self.vcpus[next].granted = true;
            self.common.look = true;
        }
    }

    /// Tells that a virtual CPU that goes on has waited.
    pub(crate) fn tell_granted(&mut self, vcpu: usize, sink: &mut dyn Sink) {
        if std::mem::take(&mut self.vcpus[vcpu].granted) {
            self.emit(vcpu, sink, Event::ContentionEnd { lock: name(self.common.policy) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_writers_do_not_and_nobody_overtakes() {
        let mut lock = Lock::default();
        assert!(lock.take(0, Hold::Shared) && lock.take(1, Hold::Shared));
        assert!(!lock.take(2, Hold::Exclusive));
        assert!(!lock.take(3, Hold::Shared), "behind the writer");
        assert_eq!(lock.release(0), []);
        assert_eq!(lock.release(1), [(2, Hold::Exclusive)]);
        assert_eq!(lock.holder(), Some(2));
        assert_eq!(lock.release(2), [(3, Hold::Shared)]);
    }

    #[test]
    fn a_lock_of_a_checkpoint_is_held_and_waited_for_by_who_needs_it() {
        let mut lock = Lock::default();
        assert!(lock.is_possible(&[(None, false); 2]));
        assert!(!lock.is_possible(&[(None, true), (None, false)]), "work without the lock it needs");
        assert!(lock.take(0, Hold::Exclusive) && !lock.take(1, Hold::Shared));
        let (holds, waits) = ((None, true), (Some(Hold::Shared), true));
        assert!(lock.is_possible(&[holds, waits]));
        assert!(!lock.is_possible(&[holds]), "a virtual CPU that there is not");
        assert!(!lock.is_possible(&[(None, false), waits]), "nobody who gives it back");
        assert!(!lock.is_possible(&[holds, (Some(Hold::Exclusive), true)]), "waits for something else");
        lock.waiters.clear();
        lock.holders = vec![0, 0];
        assert!(!lock.is_possible(&[holds, (None, false)]), "twice");
    }
}
