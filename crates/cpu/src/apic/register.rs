//! The registers of the local APIC as one table: place, access in each mode, and the bits that can be written.
//!
//! Source: SDM vol 3, Table 11-1 "Local APIC Register Address Map", Table 11-6 "Local APIC Register Address Map Supported by x2APIC".
//! The MSR of a register is 0x800 plus its offset divided by 16.

/// How a register can be accessed in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The place is reserved in this mode.
    None,
    /// Read only.
    Read,
    /// Write only.
    Write,
    /// Both.
    Both,
}

impl Access {
    /// Whether the register can be read.
    pub const fn readable(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether the register can be written.
    pub const fn writable(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Offset in the register page.
    pub offset: u32,
    /// How many registers of this name follow each other, 16 bytes apart.
    pub count: u32,
    /// The manual's name.
    pub name: &'static str,
    /// Access in xAPIC mode.
    pub xapic: Access,
    /// Access in x2APIC mode.
    pub x2apic: Access,
    /// The bits that a write changes. The others are ignored in xAPIC mode, and cause #GP in x2APIC mode.
    pub writable: u32,
}

impl Register {
    /// Bits that a write may set without effect: delivery status, and remote IRR of the LINT entries.
    pub const fn read_only_bits(&self) -> u32 {
        match self.offset {
            LVT_LINT0 | LVT_LINT1 => 0x5000,
            LVT_TIMER..=LVT_ERROR => 0x1000,
            _ => 0,
        }
    }
}

macro_rules! registers {
    ($($constant:ident = $offset:literal $count:literal $name:literal $xapic:ident $x2apic:ident $writable:literal;)*) => {
        $(#[doc = concat!("Offset of the ", $name, ".")] pub const $constant: u32 = $offset;)*

        /// Every register, in order of offset.
        pub const REGISTERS: &[Register] = &[$(Register {
            offset: $offset,
            count: $count,
            name: $name,
            xapic: Access::$xapic,
            x2apic: Access::$x2apic,
            writable: $writable,
        }),*];
    };
}

registers! {
    // Whether software can change the identifier is model-specific (SDM 11.4.6); here it cannot.
    ID                  = 0x020 1 "Local APIC ID Register"                 Read  Read 0;
    VERSION             = 0x030 1 "Local APIC Version Register"            Read  Read 0;
    TPR                 = 0x080 1 "Task Priority Register"                 Both  Both 0x0000_00ff;
    PPR                 = 0x0a0 1 "Processor Priority Register"            Read  Read 0;
    EOI                 = 0x0b0 1 "EOI Register"                           Write Write 0;
    LDR                 = 0x0d0 1 "Logical Destination Register"           Both  Read 0xff00_0000;
    DFR                 = 0x0e0 1 "Destination Format Register"            Both  None 0xf000_0000;
    SVR                 = 0x0f0 1 "Spurious Interrupt Vector Register"     Both  Both 0x0000_01ff;
    ISR                 = 0x100 8 "In-Service Register"                    Read  Read 0;
    TMR                 = 0x180 8 "Trigger Mode Register"                  Read  Read 0;
    IRR                 = 0x200 8 "Interrupt Request Register"             Read  Read 0;
    ESR                 = 0x280 1 "Error Status Register"                  Both  Both 0;
    ICR_LOW             = 0x300 1 "Interrupt Command Register"             Both  Both 0x000c_cfff;
    ICR_HIGH            = 0x310 1 "Interrupt Command Register (bits 63:32)" Both None 0xff00_0000;
    LVT_TIMER           = 0x320 1 "LVT Timer Register"                     Both  Both 0x0007_00ff;
    LVT_THERMAL         = 0x330 1 "LVT Thermal Sensor Register"            Both  Both 0x0001_07ff;
    LVT_PERFORMANCE     = 0x340 1 "LVT Performance Monitoring Counters Register" Both Both 0x0001_07ff;
    LVT_LINT0           = 0x350 1 "LVT LINT0 Register"                     Both  Both 0x0001_a7ff;
    LVT_LINT1           = 0x360 1 "LVT LINT1 Register"                     Both  Both 0x0001_a7ff;
    LVT_ERROR           = 0x370 1 "LVT Error Register"                     Both  Both 0x0001_00ff;
    TIMER_INITIAL_COUNT = 0x380 1 "Initial Count Register (for Timer)"     Both  Both 0xffff_ffff;
    TIMER_CURRENT_COUNT = 0x390 1 "Current Count Register (for Timer)"     Read  Read 0;
    TIMER_DIVIDE        = 0x3e0 1 "Divide Configuration Register (for Timer)" Both Both 0x0000_000b;
    SELF_IPI            = 0x3f0 1 "SELF IPI"                               None  Write 0x0000_00ff;
}

/// For each multiple of 16 in the page, the row of the table.
const ROWS: [Option<&'static Register>; 64] = {
    let mut rows = [None; 64];
    let mut row = 0;
    while row < REGISTERS.len() {
        let register = &REGISTERS[row];
        let mut index = 0;
        while index < register.count {
            rows[((register.offset >> 4) + index) as usize] = Some(register);
            index += 1;
        }
        row += 1;
    }
    rows
};

/// The register at `offset` of the page; `None` where the place is reserved in both modes, or not 16-byte aligned.
pub fn at(offset: u32) -> Option<&'static Register> {
    if offset & 0xf != 0 {
        return None;
    }
    ROWS.get((offset >> 4) as usize).copied().flatten()
}
