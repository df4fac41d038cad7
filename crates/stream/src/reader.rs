//! Reading a stream in order, up to its end.

use crate::error::{Error, Place, Problem};
use crate::header::{self, FIXED, Form};
use crate::section::Section;
use crate::writer::{Digest, End};
use std::io::Read;

/// A stream that is read.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    place: Place,
    digest: Digest,
    ended: bool,
    /// Buffers of sections that are done with: new ones would be pages that the host first has to make zero.
    spare: Vec<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Begins with the head.
    ///
    /// # Errors
    /// It is no stream, or one of another version.
    pub fn new(mut from: R) -> Result<Self, Error> {
        let mut place = Place::default();
        header::read_head(&mut from).map_err(|problem| problem.at(&place))?;
        place.offset = header::head().len() as u64;
        place.number = Some(0);
        Ok(Self { from, place, digest: Digest::default(), ended: false, spare: Vec::new() })
    }

    /// The next section; `None` once the end was read, and was right.
    ///
    /// # Errors
    /// See [`Problem`]. Nothing can be read behind an error.
    pub fn next_section(&mut self) -> Result<Option<Section>, Error> {
        if self.ended {
            return Ok(None);
        }
        let section = Section::read_at(&mut self.from, self.place.clone(), self.spare.pop().unwrap_or_default())?;
        if section.form == Form::End {
            let end: End = section.decode(1)?;
            end.check(self.place.number.unwrap_or(0), &self.digest).map_err(|problem| problem.at(&section.place))?;
            self.ended = true;
            return Ok(None);
        }
        self.digest.add(section.checksums);
        let bytes = (FIXED + section.name.len() + 4 + 4) as u64 + section.stored.len() as u64;
        self.place.offset = self.place.offset.saturating_add(bytes);
        self.place.number = self.place.number.and_then(|number| number.checked_add(1));
        self.place.after = Some(section.name.clone());
        Ok(Some(section))
    }

    /// Takes sections back that nobody needs any more: what comes next is read into their buffers.
    pub fn recycle(&mut self, sections: impl IntoIterator<Item = Section>) {
        self.spare.extend(sections.into_iter().map(Section::into_buffer));
    }

    /// Asks that nothing follows the end, as in a file.
    ///
    /// # Errors
    /// Something does, or the end was not read yet and is wrong.
    pub fn finish(mut self) -> Result<(), Error> {
        while self.next_section()?.is_some() {}
        let mut byte = [0];
        match header::fill(&mut self.from, &mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Problem::Trailing.at(&self.place)),
            Err(error) => Err(Problem::Io(error).at(&self.place)),
        }
    }
}
