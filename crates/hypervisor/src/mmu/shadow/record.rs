//! Shadow tables in a checkpoint: names and ages of the pages, and who walks from which. What refers to what, and which frames are mapped, the
//! pages themselves say, which are memory. And what tells two states of the tables apart.

use super::pool::{Place, Role, ShadowPage};
use super::roots::Roots;
use super::{ShadowTables, pool};
use isa::paging::ADDRESS;
use memory::Memory;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};

/// What a checkpoint keeps of the tables, beside the pages they lie in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShadowRecord {
    /// Number in the pool, name, writes since the last use, age.
    pages: Vec<(u32, Role, u32, u64)>,
    free: Vec<u32>,
    age: u64,
    roots: Vec<Roots>,
    stale: bool,
    logs: bool,
}

impl ShadowTables {
    /// What a checkpoint keeps.
    pub(crate) fn record(&self) -> ShadowRecord {
        let used = self.pages.iter().zip(0..).filter_map(|(page, number)| Some((number, page.as_ref()?)));
        ShadowRecord {
            pages: used.map(|(number, page)| (number, page.role, page.writes, page.age)).collect(),
            free: self.free.clone(),
            age: self.age,
            roots: self.roots.clone(),
            stale: self.stale,
            logs: self.logs,
        }
    }

    /// Feeds into a hasher what the tables will do. Pages go by their names: which place in the pool one has makes no difference.
    pub(crate) fn fingerprint<H: Hasher>(&self, memory: &Memory, into: &mut H) {
        let named = |number: u32| self.pages[number as usize].as_ref();
        for (role, &number) in &self.by_role {
            (role, named(number).map(|page| page.writes)).hash(into);
            for index in 0..pool::ENTRIES {
                let entry = self.entry(memory, Place::new(number, index));
                match self.child(entry).filter(|_| role.level > 1) {
                    Some(child) => (index, named(child).map(|page| page.role)).hash(into),
                    None if entry != 0 => (index, entry).hash(into),
                    None => {}
                }
            }
        }
        for &number in self.by_age.values() {
            named(number).map(|page| page.role).hash(into);
        }
        (&self.roots.iter().map(|roots| roots.roles).collect::<Vec<_>>(), self.stale, self.logs).hash(into);
    }

    /// Takes that up, on tables that were just made for the same guest, whose memory is there.
    pub(crate) fn restore(&mut self, memory: &mut Memory, record: ShadowRecord) -> Result<(), &'static str> {
        let count = self.pages.len();
        let numbers = record.pages.iter().map(|(number, ..)| *number).chain(record.free.iter().copied());
        let mut seen = vec![false; count];
        for number in numbers {
            match seen.get_mut(number as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err("a page of the pool that there is not, or twice"),
            }
        }
        if seen.contains(&false) || record.roots.len() != self.roots.len() {
            return Err("a pool or a number of virtual CPUs that is another guest's");
        }
        for (number, role, writes, age) in record.pages {
            let twice = self.by_role.insert(role, number).is_some() | self.by_age.insert(age, number).is_some();
            if twice || !(1..=4).contains(&role.level) || role.frame >> 40 != 0 || age > record.age {
                return Err("two pages of one name or age, or one that cannot be");
            }
            self.pages[number as usize] = Some(ShadowPage { role, parents: Vec::new(), roots: 0, writes, age });
            if !role.direct {
                self.by_frame.entry(role.frame).or_default().insert(number);
                memory.watch(role.frame);
            }
        }
        for roots in &record.roots {
            for number in roots.pages.into_iter().flatten() {
                match self.pages.get_mut(number as usize) {
                    Some(Some(page)) => page.roots += 1,
                    _ => return Err("a virtual CPU that walks from a page that there is not"),
                }
            }
        }
        (self.free, self.age, self.roots, self.stale, self.logs) = (record.free, record.age, record.roots, record.stale, record.logs);
        for number in 0..count as u32 {
            let Some(level) = self.pages[number as usize].as_ref().map(|page| page.role.level) else { continue };
            for index in 0..pool::ENTRIES {
                let place = Place::new(number, index);
                let entry = self.entry(memory, place);
                if entry == 0 {
                    continue;
                }
                if level == 1 {
                    self.maps.entry((entry & ADDRESS) >> 12).or_default().insert(place);
                    self.mappings += 1;
                } else if let Some(page) = self.child(entry).and_then(|child| self.pages[child as usize].as_mut()) {
                    page.parents.push(place);
                }
            }
        }
        Ok(())
    }
}
