//! Any text as a VMCS or VMCB, as JSON or as a kernel prints it: an assessment whose reports can be written, or an error that points into the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match audit::read(text, None) {
    Ok(mut state) => {
        let assessment = audit::assess(&mut state);
        let _ = audit::text::report(&assessment, text, usize::MAX, &|_, text| text.to_owned());
        let _ = audit::json_lines::lines(&assessment, text);
        let _ = audit::sarif::document(&assessment, "fuzz", text);
    }
    Err(error) => assert!(error.place.end <= text.len()),
});
