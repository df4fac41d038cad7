//! The book's reference pages are what the tables say. `UPDATE_DOCS=1 cargo test --package trapline-audit --test reference` writes them anew.

use std::fs;
use std::path::Path;

#[test]
fn the_reference_pages_are_the_tables() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let pages =
        [("exits.md", audit::reference::exits()), ("fields.md", audit::reference::fields()), ("checks.md", audit::reference::checks())];
    for (name, page) in pages {
        let file = folder.join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(&folder).expect("the folder can be made");
            fs::write(&file, &page).expect("the page can be written");
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(written == page, "{name} is not what the tables say; UPDATE_DOCS=1 writes it anew");
    }
}
