//! The PC around the processor: devices as deterministic state machines in simulated time, and loaders of guest images.
//!
//! What is modelled: the chipset in [`Board`], one device per file, each written from its datasheet, and [`loader`] for flat, ELF and
//! Multiboot images. No firmware runs: a device is in its reset state until the guest programs it. What is not modelled: disks, network,
//! PCI devices (the bus answers, and is empty), DMA, HPET, ACPI tables.

mod board;
pub mod clock;
pub mod fw_cfg;
pub mod ioapic;
pub mod keyboard;
pub mod loader;
pub mod outcome;
pub mod pic;
pub mod pit;
pub mod rtc;
pub mod shutdown;
pub mod uart;

pub use board::{Board, BoardConfig, Demands, RAM_BELOW_4G};
pub use clock::{Clock, Frequency};
pub use isa::apic::{ApicMessage, BROADCAST, DeliveryMode};
pub use outcome::{Outcome, ResetCause};
pub use rtc::DateTime;
