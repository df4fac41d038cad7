//! Where results go: standard output and error, with colours or without, tolerant of a reader that goes away.

use crate::arguments::{Arguments, Color, Format};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// The first error of the standard output. A reader that has gone away (`| head`) is none.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// The standard output. What goes wrong is also kept for [`failure`], so that nobody has to look who only prints.
#[derive(Clone, Copy, Debug)]
pub struct Standard;

impl Standard {
    fn note<T>(result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::BrokenPipe
            && error.kind() != io::ErrorKind::Interrupted
        {
            let kept = error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error);
            // Only the first counts.
            let _ = FAILURE.set(kept);
        }
        result
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::note(io::stdout().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::note(io::stdout().lock().flush())
    }
}

/// What went wrong on the standard output, everything that waits included.
pub fn failure() -> Option<&'static io::Error> {
    let _ = Standard.flush();
    FAILURE.get()
}

/// How the command talks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How results are written.
    pub format: Format,
    /// Whether the standard output gets colours.
    pub colours: bool,
    /// Whether the standard error gets colours.
    pub error_colours: bool,
    /// Whether progress may be drawn on the standard error.
    pub progress: bool,
    /// Only what went wrong.
    pub quiet: bool,
    /// More.
    pub verbose: bool,
}

impl Output {
    /// As the arguments and the terminal say.
    pub fn new(arguments: &Arguments) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colours = |terminal: bool| match arguments.color {
            Color::Auto => terminal && wanted,
            Color::Always => true,
            Color::Never => false,
        };
        Self {
            format: arguments.format,
            colours: colours(io::stdout().is_terminal()),
            error_colours: colours(io::stderr().is_terminal()),
            progress: io::stderr().is_terminal() && !arguments.quiet,
            quiet: arguments.quiet,
            verbose: arguments.verbose,
        }
    }

    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes to the standard output. What goes wrong is told at the end of the command.
    pub fn print(&self, text: &str) {
        let _ = Standard.write_all(text.as_bytes());
    }

    /// Writes to the standard error.
    pub fn complain(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// An error in one line.
    pub fn error(&self, message: impl std::fmt::Display) {
        let label = self.paint_error("1;31", "error");
        self.complain(&format!("{label}: {message}\n"));
    }

    /// A word for the standard output in a colour.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A word for the standard error in a colour.
    pub fn paint_error(&self, code: &str, text: &str) -> String {
        if self.error_colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
