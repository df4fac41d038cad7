//! The firmware-configuration device of QEMU at ports 0x510 (selector) and 0x511 (data).
//!
//! Source: QEMU's public specification, "QEMU Firmware Configuration (fw_cfg) Device".
//! What is modelled: the traditional interface with the items of [`ITEMS`] and an empty file directory. What is not: the DMA interface
//! (bit 1 of the identifier is clear, and port 0x514 does not answer), writable items, files.

use serde::{Deserialize, Serialize};

use crate::board::BoardConfig;

/// One item: its selector, its name, and its bytes.
pub struct Item {
    /// The value to write to the selector register.
    pub selector: u16,
    /// The name in the specification.
    pub name: &'static str,
    content: fn(&BoardConfig) -> Vec<u8>,
}

/// Every item that has content. The rest read as zeros, as the specification asks of an unknown item.
pub const ITEMS: &[Item] = &[
    Item { selector: 0x00, name: "SIGNATURE", content: |_| b"QEMU".to_vec() },
    Item { selector: 0x01, name: "ID", content: |_| 1_u32.to_le_bytes().to_vec() },
    Item { selector: 0x02, name: "UUID", content: |_| vec![0; 16] },
    Item { selector: 0x03, name: "RAM_SIZE", content: |config| config.ram_size.to_le_bytes().to_vec() },
    Item { selector: 0x04, name: "NOGRAPHIC", content: |_| 1_u16.to_le_bytes().to_vec() },
    Item { selector: 0x05, name: "NB_CPUS", content: |config| cpus(config).to_le_bytes().to_vec() },
    Item { selector: 0x0e, name: "BOOT_MENU", content: |_| vec![0; 2] },
    Item { selector: 0x0f, name: "MAX_CPUS", content: |config| cpus(config).to_le_bytes().to_vec() },
    Item { selector: 0x19, name: "FILE_DIR", content: |_| 0_u32.to_be_bytes().to_vec() },
];

fn cpus(config: &BoardConfig) -> u16 {
    u16::try_from(config.cpu_count).unwrap_or(u16::MAX)
}

/// The device: which item is selected, and how far it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfg {
    selector: u16,
    content: Vec<u8>,
    offset: usize,
}

impl FwCfg {
    /// A device on which the signature is selected.
    pub fn new(config: &BoardConfig) -> Self {
        let mut device = Self::default();
        device.select(0, config);
        device
    }

    /// A 16-bit write to the selector register.
    pub fn select(&mut self, selector: u16, config: &BoardConfig) {
        self.selector = selector;
        self.offset = 0;
        self.content = ITEMS.iter().find(|item| item.selector == selector).map_or_else(Vec::new, |item| (item.content)(config));
    }

    /// A read of the data register: the next byte of the item, 0 beyond its end.
    pub fn read(&mut self) -> u8 {
        let byte = self.content.get(self.offset).copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_byte_by_byte_and_end_in_zeros() {
        let config = BoardConfig { cpu_count: 3, ram_size: 0x1_2345_6789, ..BoardConfig::default() };
        let mut device = FwCfg::new(&config);
        for (selector, expected) in [
            (0x00, b"QEMU\0\0".as_slice()),
            (0x01, &[1, 0, 0, 0, 0]),
            (0x03, &[0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0, 0]),
            (0x05, &[3, 0, 0]),
            (0x0f, &[3, 0, 0]),
            (0x19, &[0, 0, 0, 0]),
            (0xabc, &[0, 0]),
        ] {
            device.select(selector, &config);
            let read: Vec<u8> = expected.iter().map(|_| device.read()).collect();
            assert_eq!(read, expected, "selector {selector:#x}");
        }
    }
}
