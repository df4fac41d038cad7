//! How a guest ends its own run through a device.

use serde::{Deserialize, Serialize};

/// The end of a run that the guest asked for. The first one stands; what the guest does afterwards changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A write to the debug-exit port 0xf4; success is value 0.
    DebugExit {
        /// The value written, zero-extended from the width of the access.
        code: u32,
    },
    /// `Shutdown` was written to port 0x8900.
    Shutdown,
    /// A reset of the whole machine.
    Reset {
        /// The register that asked for it.
        cause: ResetCause,
    },
}

/// Which register reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetCause {
    /// The keyboard controller pulsed its output bit 0 (command 0xfe, or its output port written with bit 0 clear).
    KeyboardController,
    /// The reset control register at port 0xcf9.
    ResetControl,
    /// Bit 0 of system control port A at 0x92.
    SystemControl,
}
