//! Any file as a guest image: loaded or refused.
#![no_main]

use board::loader::{Kind, LoadOptions, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for kind in [Kind::Auto, Kind::Flat, Kind::Elf, Kind::Multiboot] {
        let options = LoadOptions { kind, memory_size: 16 << 20, image_name: "fuzz".into(), ..LoadOptions::default() };
        if let Ok(image) = load(file, &options) {
            assert!(image.segments.iter().all(|segment| segment.physical + segment.bytes.len() as u64 <= options.memory_size));
        }
    }
});
