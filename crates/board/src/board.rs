//! The board: which device answers where, and how the interrupt lines are wired.
//!
//! What is modelled: the I/O ports and the I/O APIC page of a PC; ISA interrupts wired to the 8259 pair and to the I/O APIC both, IRQ n to
//! pin n, but IRQ0 to pin 2 and the 8259 output to pin 0 (MultiProcessor Specification 1.4, "Interrupt Modes"); the single-register
//! devices: port 0x61, POST code, A20 and reset registers, the latch between FERR# and IRQ13 with port 0xf0, ACPI timer, the empty PCI bus, the ports of QEMU's
//! test device at which software drives an interrupt line that no device has. An access wider than a device is split into
//! bytes at consecutive ports, lowest first, as the ISA bus does. A20 is a state that can be read, and masks no address.
//!
//! Time is handed in with every access and must not go back; an access in the past is taken to happen now. Lines that nobody listens to
//! (masked everywhere) are brought up to date when somebody looks, not by events.

use isa::apic::ApicMessage;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Frequency};
use crate::fw_cfg::FwCfg;
use crate::ioapic::{self, Ioapic};
use crate::keyboard::{KeyboardController, Request};
use crate::outcome::{Outcome, ResetCause};
use crate::pic::Pic;
use crate::pit::Pit;
use crate::rtc::{DateTime, Rtc};
use crate::shutdown::ShutdownPort;
use crate::uart::Uart;

/// RAM up to this size lies below 4 GiB, at 0; what is beyond it lies from 4 GiB upwards. The gap is for devices.
pub const RAM_BELOW_4G: u64 = 0xc000_0000;

/// Bytes of the I/O APIC's register page.
const IOAPIC_SIZE: u64 = 0x1000;
/// Input pulses of counter 1 between two memory refreshes, at which bit 4 of port 0x61 toggles: 15 us.
const REFRESH_PULSES: u64 = 18;

const IRQ_TIMER: u8 = 0;
const IRQ_SERIAL: u8 = 4;
const IRQ_CLOCK: u8 = 8;
const IRQ_NUMERIC_ERROR: u8 = 13;

/// A cycle that no run reaches.
const LATEST: u64 = 1 << 60;

/// First of the sixteen ports, one an ISA line, at which QEMU's test device lets software drive interrupt lines.
const TEST_LINES: u16 = 0x2000;
/// The lines that no device of this board drives, and software may. So may it IRQ13: whoever reports no x87 error by it has it for himself.
const FREE_LINES: u16 = 0xfeea;

/// What a board is built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardConfig {
    /// Number of processors, which fw_cfg and CMOS report.
    pub cpu_count: u32,
    /// Bytes of RAM, which fw_cfg and CMOS report.
    pub ram_size: u64,
    /// CPU cycles in a second of simulated time.
    pub cycles_per_second: u64,
    /// The date and time that the real-time clock shows at cycle 0.
    pub start: DateTime,
}

impl Default for BoardConfig {
    fn default() -> Self {
        Self { cpu_count: 1, ram_size: 128 << 20, cycles_per_second: 2_000_000_000, start: DateTime::default() }
    }
}

/// What a board asks of whoever runs the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands {
    outcome: Option<Outcome>,
    extint: bool,
    next_event: Option<u64>,
}

/// The devices and the wires between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    config: BoardConfig,
    clock: Clock,
    now: u64,
    next: Option<u64>,
    /// The ISA lines as they were last driven.
    lines: u16,
    uart: Uart,
    pic: Pic,
    pit: Pit,
    ioapic: Ioapic,
    rtc: Rtc,
    fw_cfg: FwCfg,
    keyboard: KeyboardController,
    shutdown: ShutdownPort,
    /// Bits 1:0 of port 0x61: gate of counter 2, speaker.
    speaker_control: u8,
    post_code: u8,
    a20: bool,
    fast_reset: bool,
    reset_control: u8,
    pci_address: u32,
    /// FERR# of the first processor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    numeric_error: bool,
    /// Its IGNNE#.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ignores_numeric_error: bool,
    outcome: Option<Outcome>,
}

impl Board {
    /// A board just powered on, at cycle 0.
    pub fn new(config: &BoardConfig) -> Self {
        let low = config.ram_size.min(RAM_BELOW_4G);
        let mut board = Self {
            config: config.clone(),
            clock: Clock::new(config.cycles_per_second),
            now: 0,
            next: None,
            lines: 0,
            uart: Uart::default(),
            pic: Pic::default(),
            pit: Pit::default(),
            ioapic: Ioapic::default(),
            rtc: Rtc::new(config.start, low, config.ram_size - low, config.cpu_count),
            fw_cfg: FwCfg::new(config),
            keyboard: KeyboardController::default(),
            shutdown: ShutdownPort::default(),
            speaker_control: 0,
            post_code: 0,
            a20: true,
            fast_reset: false,
            reset_control: 0,
            pci_address: 0,
            numeric_error: false,
            ignores_numeric_error: false,
            outcome: None,
        };
        board.synchronize();
        board
    }

    /// Whether a board of a machine with so many processors of this speed can be so, which may come from anywhere.
    pub fn is_possible(&self, cpu_count: u32, cycles_per_second: u64) -> bool {
        let made = self.config.cpu_count == cpu_count && self.config.cycles_per_second == cycles_per_second;
        let clocked = self.clock == Clock::new(self.config.cycles_per_second);
        made && clocked && self.config.ram_size <= 1 << 40 && self.now < LATEST && self.rtc.is_possible() && self.pit.is_possible()
    }

    /// Reads `width` (1, 2 or 4) bytes at `port` at cycle `now`. Where nobody answers, all bits are ones; the rest of the word is zero.
    pub fn port_read(&mut self, port: u16, width: u8, now: u64) -> u32 {
        self.advance(now);
        if let (0xcf8, 4) = (port, width) {
            return self.pci_address;
        }
        let mut value = 0;
        for byte in 0..u16::from(width.min(4)) {
            value |= u32::from(self.read_byte(port.wrapping_add(byte))) << (8 * byte);
        }
        value
    }

    /// Writes the low `width` (1, 2 or 4) bytes of `value` at `port` at cycle `now`.
    pub fn port_write(&mut self, port: u16, width: u8, value: u32, now: u64) {
        self.advance(now);
        let bytes = width.min(4);
        match (port, bytes) {
            (0xf4, _) => {
                let code = value & u32::MAX.checked_shr(32 - 8 * u32::from(bytes)).unwrap_or(0);
                self.end(Outcome::DebugExit { code });
            }
            (TEST_LINES..=0x200f, _) => self.drive_test_line((port - TEST_LINES) as u8, value & 0xff != 0),
            (0x510, 2) => self.fw_cfg.select(value as u16, &self.config),
            (0xcf8, 4) => self.pci_address = value & 0x80ff_fffc,
            _ => {
                for byte in 0..u16::from(bytes) {
                    self.write_byte(port.wrapping_add(byte), (value >> (8 * byte)) as u8);
                }
            }
        }
    }

    /// Reads a register of `width` bytes at guest-physical address `gpa`; `None` when no device is there. The I/O APIC's registers are 32
    /// bits wide: a narrower read gets their low part, a wider one zeros above.
    pub fn mmio_read(&mut self, gpa: u64, width: u8, now: u64) -> Option<u64> {
        let offset = ioapic_offset(gpa)?;
        self.advance(now);
        let mask = u64::MAX.checked_shr(64 - 8 * u32::from(width.min(8))).unwrap_or(0);
        Some(u64::from(self.ioapic.read(offset)) & mask)
    }

    /// Writes a register at `gpa`; false when no device is there. Of a write wider than 32 bits the upper part is lost.
    pub fn mmio_write(&mut self, gpa: u64, width: u8, value: u64, now: u64) -> bool {
        let Some(offset) = ioapic_offset(gpa) else {
            return false;
        };
        self.advance(now);
        let mask = u32::MAX.checked_shr(32 - 8 * u32::from(width.min(4))).unwrap_or(0);
        // A timer edge before this write is judged by the redirection entry as it was.
        self.synchronize();
        self.ioapic.write(offset, value as u32 & mask);
        self.schedule();
        true
    }

    /// The earliest cycle at which an interrupt line may change by itself; it may have passed already when [`Self::advance`] is due.
    pub fn next_event(&self) -> Option<u64> {
        self.next
    }

    /// Runs the timers up to cycle `now`.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.next.is_some_and(|next| next <= self.now) {
            self.synchronize();
            self.schedule();
        }
    }

    /// The interrupt messages from the I/O APIC to the local APICs since the last call, in order.
    pub fn take_messages(&mut self) -> impl Iterator<Item = ApicMessage> + use<> {
        self.ioapic.take_messages().into_iter()
    }

    /// Whether [`Self::take_messages`] has something to give.
    pub fn has_messages(&self) -> bool {
        self.ioapic.has_messages()
    }

    /// The INTR output of the 8259 pair, wired to the bootstrap processor's LINT0.
    pub fn extint(&self) -> bool {
        self.pic.output()
    }

    /// What whoever runs the processors has to act on; messages of the I/O APIC apart, which wait to be taken.
    pub fn demands(&self) -> Demands {
        Demands { outcome: self.outcome, extint: self.extint(), next_event: self.next }
    }

    /// The processor's interrupt-acknowledge cycle for an ExtINT: the vector.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = self.pic.acknowledge();
        self.route_pic();
        vector
    }

    /// A local APIC's broadcast end of interrupt for a level-triggered `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }

    /// The first processor drives its FERR# pin. SDM vol 1, D.2.1.2 "Recommended External Hardware to Support the MS-DOS Compatibility
    /// Sub-mode": its rising edge sets the latch that is IRQ13, and its end takes IGNNE# back.
    pub fn set_numeric_error(&mut self, asserted: bool) {
        if asserted && !self.numeric_error {
            self.synchronize();
            self.drive(IRQ_NUMERIC_ERROR, true);
            self.schedule();
        }
        self.numeric_error = asserted;
        self.ignores_numeric_error &= asserted;
    }

    /// The IGNNE# pin of the first processor.
    pub fn ignores_numeric_error(&self) -> bool {
        self.ignores_numeric_error
    }

    /// How the guest ended the run, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// What the guest sent to the serial port since the last call.
    pub fn serial_output(&mut self) -> Vec<u8> {
        self.uart.drain()
    }

    /// Bytes for the guest's serial port.
    pub fn serial_input(&mut self, bytes: &[u8]) {
        self.uart.receive(bytes);
        self.drive(IRQ_SERIAL, self.uart.interrupt());
    }

    /// Bytes lost because nobody called [`Self::serial_output`]; see [`crate::uart::OUTPUT_LIMIT`].
    pub fn serial_lost(&self) -> u64 {
        self.uart.lost()
    }

    /// The last byte written to the POST port 0x80.
    pub fn post_code(&self) -> u8 {
        self.post_code
    }

    /// The state of the A20 gate: true when address line 20 is passed through.
    pub fn a20(&self) -> bool {
        self.a20
    }

    /// What the board was built from.
    pub fn config(&self) -> &BoardConfig {
        &self.config
    }

    fn pit_tick(&self) -> u64 {
        self.clock.ticks(self.now, Frequency::PIT)
    }

    fn read_byte(&mut self, port: u16) -> u8 {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => {
                self.synchronize();
                let value = self.pic.read(port);
                self.route_pic();
                self.schedule();
                value
            }
            0x40..=0x43 => {
                self.synchronize();
                let tick = self.pit_tick();
                let value = self.pit.read((port - 0x40) as u8, tick);
                self.schedule();
                value
            }
            0x60 => self.keyboard.read_data(),
            0x61 => {
                let tick = self.pit_tick();
                let refresh = ((tick / REFRESH_PULSES) & 1) as u8;
                self.speaker_control | refresh << 4 | u8::from(self.pit.speaker(tick)) << 5
            }
            0x64 => self.keyboard.status(),
            0x71 => {
                self.synchronize();
                let value = self.rtc.read();
                self.drive(IRQ_CLOCK, self.rtc.interrupt());
                self.schedule();
                value
            }
            0x80 => self.post_code,
            0x92 => u8::from(self.fast_reset) | u8::from(self.a20) << 1,
            0x3f8..=0x3ff => {
                let value = self.uart.read((port - 0x3f8) as u8);
                self.drive(IRQ_SERIAL, self.uart.interrupt());
                value
            }
            0x511 => self.fw_cfg.read(),
            // A 24-bit counter in a 32-bit register.
            0x608..=0x60b => {
                let timer = self.clock.ticks(self.now, Frequency::PM_TIMER) as u32 & 0x00ff_ffff;
                (timer >> (8 * (port - 0x608))) as u8
            }
            0xcf9 => self.reset_control,
            // 0xcfc to 0xcff: the configuration space of an empty bus reads as ones, like every port without a device.
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => {
                self.synchronize();
                self.pic.write(port, value);
                self.route_pic();
                self.schedule();
            }
            0x40..=0x43 => {
                self.synchronize();
                let tick = self.pit_tick();
                self.pit.write((port - 0x40) as u8, value, tick);
                self.drive(IRQ_TIMER, self.pit.interrupt());
                self.schedule();
            }
            0x60 => {
                let request = self.keyboard.write_data(value);
                self.keyboard_request(request);
            }
            0x61 => {
                self.speaker_control = value & 0x03;
                self.pit.set_speaker_gate(value & 1 != 0, self.pit_tick());
            }
            0x64 => {
                let request = self.keyboard.write_command(value, self.a20);
                self.keyboard_request(request);
            }
            0x70 => self.rtc.select(value),
            // Whatever is written: the latch of IRQ13 is cleared, and the processor may go on with the error.
            0xf0 => {
                self.synchronize();
                self.drive(IRQ_NUMERIC_ERROR, false);
                self.ignores_numeric_error = self.numeric_error;
                self.schedule();
            }
            0x71 => {
                self.synchronize();
                self.rtc.write(value);
                self.drive(IRQ_CLOCK, self.rtc.interrupt());
                self.schedule();
            }
            0x80 => self.post_code = value,
            0x92 => {
                self.a20 = value & 2 != 0;
                if value & 1 != 0 && !self.fast_reset {
                    self.end(Outcome::Reset { cause: ResetCause::SystemControl });
                }
                self.fast_reset = value & 1 != 0;
            }
            0x3f8..=0x3ff => {
                self.uart.write((port - 0x3f8) as u8, value);
                self.drive(IRQ_SERIAL, self.uart.interrupt());
            }
            0xcf9 => {
                // Bit 2 rising resets; bit 1 chooses between a hard and a soft reset, which are the same here.
                if value & !self.reset_control & 0x04 != 0 {
                    self.end(Outcome::Reset { cause: ResetCause::ResetControl });
                }
                self.reset_control = value & 0x0e;
            }
            0x8900 if self.shutdown.write(value) => {
                self.end(Outcome::Shutdown);
            }
            _ => {}
        }
    }

    fn keyboard_request(&mut self, request: Request) {
        match request {
            Request::None => {}
            Request::Reset => self.end(Outcome::Reset { cause: ResetCause::KeyboardController }),
            Request::A20(enabled) => self.a20 = enabled,
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Brings the timers up to now and drives their lines.
    fn synchronize(&mut self) {
        let rose = self.pit.advance(self.pit_tick());
        if rose && self.lines & 1 << IRQ_TIMER != 0 {
            // The line fell and rose in between. Several pulses are one request: nobody could acknowledge between them.
            self.drive(IRQ_TIMER, false);
        }
        if rose {
            self.drive(IRQ_TIMER, true);
        }
        self.drive(IRQ_TIMER, self.pit.interrupt());
        self.rtc.advance(self.clock.ticks(self.now, Frequency::RTC));
        self.drive(IRQ_CLOCK, self.rtc.interrupt());
    }

    /// Recomputes the next event.
    fn schedule(&mut self) {
        let heard = |irq: u8, pin: usize| self.pic.unmasked(irq) || self.ioapic.unmasked(pin);
        let timer = self.pit.next_event().filter(|_| heard(IRQ_TIMER, 2)).and_then(|tick| self.clock.cycle_of(tick, Frequency::PIT));
        let clock = self
            .rtc
            .next_event()
            .filter(|_| heard(IRQ_CLOCK, usize::from(IRQ_CLOCK)))
            .and_then(|tick| self.clock.cycle_of(tick, Frequency::RTC));
        self.next = match (timer, clock) {
            (Some(timer), Some(clock)) => Some(timer.min(clock)),
            (timer, clock) => timer.or(clock),
        };
    }

    /// A line driven by software through the test device's port, of any width.
    fn drive_test_line(&mut self, irq: u8, high: bool) {
        if FREE_LINES >> irq & 1 != 0 {
            self.synchronize();
            self.drive(irq, high);
            self.schedule();
        }
    }

    fn drive(&mut self, irq: u8, high: bool) {
        let bit = 1 << irq;
        if (self.lines & bit != 0) == high {
            return;
        }
        self.lines ^= bit;
        self.pic.set_line(irq, high);
        self.ioapic.set_line(if irq == IRQ_TIMER { 2 } else { usize::from(irq) }, high);
        self.route_pic();
    }

    fn route_pic(&mut self) {
        self.ioapic.set_line(0, self.pic.output());
    }
}

fn ioapic_offset(gpa: u64) -> Option<u64> {
    gpa.checked_sub(ioapic::BASE).filter(|offset| *offset < IOAPIC_SIZE)
}
