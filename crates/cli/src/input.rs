//! What is read from the standard input, and the name that it goes by.

use std::io::{self, Read};
use std::path::Path;

/// Whether a path of the command line stands for the standard input, or where something is written for the standard output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The whole standard input, of so many bytes at most.
pub fn standard(most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {most} bytes"))),
    }
}
