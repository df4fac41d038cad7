//! Flat binaries: bytes at an address, entered in a chosen mode.

use super::error::{LoadError, Part};
use super::layout::{Layout, entry_below_4g};
use super::{Entry, Image, LoadOptions, Mode, long_mode};

/// Real mode without A20 tricks ends here.
const REAL_MODE_LIMIT: u64 = 1 << 20;

pub(super) fn load(file: &[u8], options: &LoadOptions) -> Result<Image, LoadError> {
    let mut layout = Layout::new(options.memory_size);
    layout.place(Part::FlatBinary, options.flat.base, file.len() as u64, file)?;
    let at = options.flat.entry.unwrap_or(options.flat.base);
    layout.check_entry(at)?;
    let entry = match options.flat.mode {
        Mode::Real16 if at < REAL_MODE_LIMIT => {
            // As a boot sector is entered: segment 0 where that reaches.
            Entry::Real16 { cs: ((at >> 16) << 12) as u16, ip: at as u16 }
        }
        Mode::Real16 => {
            return Err(LoadError::EntryOutOfReach { entry: at, mode: "real mode", limit: REAL_MODE_LIMIT });
        }
        Mode::Protected32 => Entry::Protected32 { eip: entry_below_4g(at)?, eax: 0, ebx: 0 },
        Mode::Long64 => long_mode::enter(&mut layout, at)?,
    };
    Ok(Image { segments: layout.into_segments(), entry })
}
