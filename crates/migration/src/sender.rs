//! The host that has the guest: which pages are still to be sent, and what a frame of them is.

use hypervisor::AnyVm;
use std::collections::{BTreeSet, VecDeque};
use stream::{Duplicates, PAGE_BYTES, Section};

/// Pages in one frame. What the guest writes after a frame was made is for the next round.
pub(crate) const BATCH: usize = 64;
/// Pages in one frame that is pushed after the hand-over: what a guest waits for goes in front, but not into the middle of a frame.
const PUSH: usize = 16;

/// The pages that are still to be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    /// In this order.
    pages: VecDeque<u64>,
    /// Those that the guest waits for.
    urgent: VecDeque<u64>,
    /// After the hand-over: what was not sent yet.
    missing: BTreeSet<u64>,
    /// The page behind the last that was pushed.
    cursor: u64,
}

impl Outgoing {
    /// All of these.
    pub fn of(pages: impl IntoIterator<Item = u64>) -> Self {
        Self { pages: pages.into_iter().collect(), ..Self::default() }
    }

    /// These as well; pages that wait already are sent once.
    pub fn extend(&mut self, pages: impl IntoIterator<Item = u64>) {
        let all: BTreeSet<u64> = self.pages.drain(..).chain(pages).collect();
        self.pages = all.into_iter().collect();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pages.len() + self.missing.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The guest is handed over without them: the pages that it will lack.
    pub fn hold_back(&mut self) -> BTreeSet<u64> {
        self.missing = self.pages.drain(..).collect();
        self.missing.clone()
    }

    /// The guest waits for a page.
    pub fn urge(&mut self, frame: u64) {
        if self.missing.contains(&frame) && !self.urgent.contains(&frame) {
            self.urgent.push_back(frame);
        }
    }

    /// The pages of the next frame, in ascending order.
    pub fn next_batch(&mut self) -> Vec<u64> {
        while let Some(frame) = self.urgent.pop_front() {
            if self.missing.remove(&frame) {
                // What a guest touches next is often behind it.
                self.cursor = frame + 1;
                return vec![frame];
            }
        }
        if !self.missing.is_empty() {
            let mut batch: Vec<u64> = self.missing.range(self.cursor..).take(PUSH).copied().collect();
            if batch.is_empty() {
                batch = self.missing.iter().take(PUSH).copied().collect();
            }
            for frame in &batch {
                self.missing.remove(frame);
            }
            self.cursor = batch.last().map_or(0, |last| last + 1);
            return batch;
        }
        let count = self.pages.len().min(BATCH);
        self.pages.drain(..count).collect()
    }
}

/// A frame of pages as they are now, and how many of them are not zero.
pub(crate) fn pages_section(vm: &AnyVm, session: u64, frames: &[u64]) -> Result<(Section, u64), stream::Error> {
    let mut contents: Vec<[u8; PAGE_BYTES]> = Vec::with_capacity(frames.len());
    for frame in frames {
        let mut page = [0; PAGE_BYTES];
        // The frames are those of RAM.
        let _ = vm.read_memory(frame << 12, &mut page);
        contents.push(page);
    }
    let full = contents.iter().filter(|page| page.iter().any(|byte| *byte != 0)).count() as u64;
    let mut section = None;
    let page = |frame: u64| frames.binary_search(&frame).ok().and_then(|at| contents.get(at));
    stream::pages::encode(&format!("{session}/ram"), 1, frames, Duplicates::OfSection, page, |made| {
        section = Some(made);
        Ok::<_, stream::Error>(None)
    })?;
    match section {
        Some(section) => Ok((section, full)),
        // No frames, no section: the caller has some.
        None => Section::value(&format!("{session}/ram"), 1, &()).map(|section| (section, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_once_and_in_order() {
        let mut out = Outgoing::of(0..100);
        out.extend([5, 200]);
        assert_eq!(out.len(), 101);
        assert_eq!(out.next_batch(), (0..64).collect::<Vec<_>>());
        assert_eq!(out.next_batch().last(), Some(&200));
        assert!(out.is_empty() && out.next_batch().is_empty());
    }

    #[test]
    fn what_the_guest_waits_for_goes_first_and_its_neighbours_next() {
        let mut out = Outgoing::of(0..100);
        assert_eq!(out.hold_back().len(), 100);
        assert_eq!(out.next_batch(), (0..16).collect::<Vec<_>>());
        out.urge(50);
        out.urge(50);
        out.urge(3);
        assert_eq!(out.next_batch(), [50]);
        assert_eq!(out.next_batch(), (51..67).collect::<Vec<_>>(), "3 was sent already");
        let mut rest = Vec::new();
        while !out.is_empty() {
            rest.extend(out.next_batch());
        }
        rest.sort_unstable();
        assert_eq!(rest, (16..50).chain(67..100).collect::<Vec<_>>());
    }
}
