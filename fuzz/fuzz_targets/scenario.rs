//! Any text as a scenario file: a scenario, or diagnostics that point into the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scenario::load::{NoFiles, Scenario};

fuzz_target!(|text: &str| {
    if let Err(diagnostics) = Scenario::parse("fuzz.json", text.to_owned(), &NoFiles) {
        assert!(!diagnostics.is_empty());
        let _ = diagnostics.render(false);
    }
});
