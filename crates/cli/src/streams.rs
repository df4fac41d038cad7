//! Where the serial output of a booted guest goes, and its events: to files, or both to the standard output.

use crate::input::is_standard;
use crate::output::{Output, Standard};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::rc::Rc;
use trace::{Format, Writer};

/// Who writes to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Guest,
    Trace,
}

/// Something to write to.
enum Channel {
    /// The standard output, on which both may write. An event begins a line, whatever the guest wrote before it.
    Console {
        to: BufWriter<Standard>,
        last: Speaker,
        in_line: bool,
    },
    File(BufWriter<File>, String),
    Nowhere,
}

impl Channel {
    fn console() -> Self {
        Self::Console { to: BufWriter::new(Standard), last: Speaker::Trace, in_line: false }
    }

    fn file(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        File::create(path)
            .map(|file| Self::File(BufWriter::new(file), name.clone()))
            .map_err(|error| format!("cannot write {name}: {error}"))
    }

    fn write(&mut self, speaker: Speaker, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Console { to, last, in_line } => {
                if *in_line && speaker == Speaker::Trace && *last == Speaker::Guest {
                    to.write_all(b"\n")?;
                }
                if let Some(end) = bytes.last() {
                    (*last, *in_line) = (speaker, *end != b'\n');
                }
                to.write_all(bytes)
            }
            Self::File(to, _) => to.write_all(bytes),
            Self::Nowhere => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Console { to, .. } => to.flush(),
            Self::File(to, _) => to.flush(),
            Self::Nowhere => Ok(()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Console { .. } => "the standard output",
            Self::File(_, name) => name,
            Self::Nowhere => "nowhere",
        }
    }
}

/// A channel of one speaker.
struct Lane {
    channel: Rc<RefCell<Channel>>,
    speaker: Speaker,
    /// A reader that goes away is no reason to stop.
    alone: bool,
}

impl Lane {
    fn settle(&self, result: io::Result<()>) -> io::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if self.alone && error.kind() == ErrorKind::BrokenPipe {
            *self.channel.borrow_mut() = Channel::Nowhere;
            return Ok(());
        }
        Err(io::Error::new(error.kind(), format!("cannot write {}: {error}", self.channel.borrow().name())))
    }
}

impl Write for Lane {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.channel.borrow_mut().write(self.speaker, bytes);
        self.settle(result).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.channel.borrow_mut().flush();
        self.settle(result)
    }
}

/// The serial output. To flush it flushes the events as well: what an interrupted command leaves is nearly whole, and an event that cannot be
/// written stops the guest.
pub struct Serial {
    lane: Lane,
    events: Option<Lane>,
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lane.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lane.flush()?;
        self.events.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Where the output of a guest goes, and its events.
pub struct Streams {
    /// The serial output.
    pub serial: Serial,
    /// The events, where somebody wants them.
    pub trace: Option<Writer<Box<dyn Write>>>,
    /// Both go to the standard output.
    pub together: bool,
}

impl Streams {
    /// As the options say. With `alone` a reader of the standard output that goes away is no reason to stop: there is something else to be done.
    ///
    /// # Errors
    /// A file cannot be made, or two things would go to the standard output that nobody could tell apart.
    pub fn new(serial: Option<&Path>, trace: Option<&Path>, alone: bool, output: &Output) -> Result<Self, String> {
        if output.json() && [serial, trace].into_iter().flatten().any(is_standard) {
            return Err("with --format json the standard output has the report alone: name a file instead of `-`".to_owned());
        }
        let console = Rc::new(RefCell::new(Channel::console()));
        let lane = |path: &Path, speaker| {
            let channel = if is_standard(path) { console.clone() } else { Rc::new(RefCell::new(Channel::file(path)?)) };
            Ok::<Lane, String>(Lane { channel, speaker, alone })
        };
        let output_of_guest = match serial {
            Some(path) => lane(path, Speaker::Guest)?,
            None if output.json() => Lane { channel: Rc::new(RefCell::new(Channel::Nowhere)), speaker: Speaker::Guest, alone },
            None => lane("-".as_ref(), Speaker::Guest)?,
        };
        let Some(path) = trace else {
            return Ok(Self { serial: Serial { lane: output_of_guest, events: None }, trace: None, together: false });
        };
        let events = lane(path, Speaker::Trace)?;
        let format = if is_standard(path) { Format::Text } else { Format::Ndjson };
        let writer = Lane { channel: events.channel.clone(), ..events };
        Ok(Self {
            together: Rc::ptr_eq(&output_of_guest.channel, &events.channel),
            serial: Serial { lane: output_of_guest, events: Some(events) },
            trace: Some(Writer::new(Box::new(writer) as Box<dyn Write>, format)),
        })
    }
}
