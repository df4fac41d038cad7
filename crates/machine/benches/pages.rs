//! How fast memory goes into a file and comes back: `cargo bench -p trapline-machine --bench pages`.
//!
//! A guest of `TRAPLINE_MIB` mebibytes (512), three times: sparse (one page in sixteen was touched), full of what a compressor likes (text and
//! tables), full of what it cannot shorten. Printed are gigabytes of guest memory a second, saved and restored, and the size of the file. With
//! `TRAPLINE_RAW=DIRECTORY` each guest's memory is also left there as a plain file, from which `pages_qemu.py` beside this has QEMU do the same.

#![expect(clippy::disallowed_types, reason = "what is measured here is the host")]

use machine::checkpoint::{Checkpoint, Error, write_memory};
use memory::{Memory, PAGE_BYTES};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// Runs of each; the fastest counts.
const ROUNDS: u32 = 3;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Memory of which one page in `every` was touched.
fn guest(bytes: u64, every: u64, compressible: bool) -> Memory {
    let mut memory = Memory::new(bytes);
    let mut state = 88_172_645_463_325_252;
    let mut page = [0; PAGE_BYTES as usize];
    for frame in (0..bytes / PAGE_BYTES).step_by(every as usize) {
        for word in page.chunks_exact_mut(8) {
            let next = random(&mut state);
            // Words that differ in two bytes, as pointers into one heap do.
            let value = if compressible { 0x0000_7f3a_0000_0000 | next & 0xf0f8 } else { next };
            word.copy_from_slice(&value.to_le_bytes());
        }
        memory.set_page(frame, &page).expect("it is RAM");
    }
    memory
}

fn main() -> Result<(), Error> {
    let mebibytes = std::env::var("TRAPLINE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(512u64);
    let bytes = mebibytes << 20;
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages.tlcp");
    let gigabytes = |seconds: f64| bytes as f64 / 1e9 / seconds;
    println!("{mebibytes} MiB of guest memory, {} threads\n", rayon_threads());
    println!("{:<16} {:>10} {:>10} {:>12}", "", "saved", "restored", "file");
    for (name, every, compressible) in [("sparse", 16, true), ("full", 1, true), ("incompressible", 1, false)] {
        let memory = guest(bytes, every, compressible);
        let (mut saved, mut restored, mut size) = (f64::MAX, f64::MAX, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let file = File::create(&path).map_err(|error| Error::impossible("file", error))?;
            let mut writer = stream::Writer::new(BufWriter::with_capacity(1 << 20, file))?;
            write_memory(&mut writer, &memory)?;
            size = writer.bytes();
            drop(writer.finish()?);
            saved = saved.min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let file = File::open(&path).map_err(|error| Error::impossible("file", error))?;
            let again = Checkpoint::read(BufReader::with_capacity(1 << 20, file))?.take_memory()?;
            restored = restored.min(start.elapsed().as_secs_f64());
            assert!(again.touched_frames().eq(memory.touched_frames()), "the same pages");
        }
        println!("{name:<16} {:>5.2} GB/s {:>5.2} GB/s {:>8} MiB", gigabytes(saved), gigabytes(restored), size >> 20);
        if let Some(directory) = std::env::var_os("TRAPLINE_RAW") {
            write_plainly(&memory, bytes, &std::path::Path::new(&directory).join(format!("{name}.raw")));
        }
    }
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// Memory as it is, in a file with holes where nothing was touched.
fn write_plainly(memory: &Memory, bytes: u64, path: &std::path::Path) {
    let file = File::create(path).expect("the file can be made");
    file.set_len(bytes).expect("the file can be as long");
    let mut page = [0; PAGE_BYTES as usize];
    for frame in memory.touched_frames() {
        memory.read(frame * PAGE_BYTES, &mut page).expect("a touched page is there");
        file.write_all_at(&page, frame * PAGE_BYTES).expect("the file can be written");
    }
}

fn rayon_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
