//! Intel-syntax assembly text to machine code, over iced-x86's instruction tables.
