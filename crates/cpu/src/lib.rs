//! The processor core, which knows no vendor: decoding, execution, paging, exceptions, local APIC.
