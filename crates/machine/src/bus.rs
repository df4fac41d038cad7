//! What a processor of a bare machine reaches: the board, and the other processors through messages.

use board::Board;
use cpu::apic::IcrMessage;
use cpu::bus::Bus;

/// The bus for the time of one processor's turn.
#[derive(Debug)]
pub struct MachineBus<'a> {
    board: &'a mut Board,
    sent: Vec<IcrMessage>,
    attention: bool,
    extint: bool,
}

impl<'a> MachineBus<'a> {
    /// A bus in front of a board.
    pub fn new(board: &'a mut Board) -> Self {
        let extint = board.extint();
        Self { board, sent: Vec::new(), attention: false, extint }
    }

    /// The interprocessor interrupts that were sent.
    pub fn take_sent(self) -> Vec<IcrMessage> {
        self.sent
    }

    /// Notes whether an access changed something that the machine has to pass on.
    fn look(&mut self) {
        self.attention |= self.board.outcome().is_some() || self.board.has_messages() || self.board.extint() != self.extint;
    }
}

impl Bus for MachineBus<'_> {
    fn port_read(&mut self, port: u16, width: u8, now: u64) -> u32 {
        let value = self.board.port_read(port, width, now);
        self.look();
        value
    }

    fn port_write(&mut self, port: u16, width: u8, value: u32, now: u64) {
        self.board.port_write(port, width, value, now);
        // Devices may have set a timer: the turn's end was computed without it.
        self.attention = true;
    }

    fn memory_read(&mut self, physical: u64, width: u8, now: u64) -> u64 {
        let value = self.board.mmio_read(physical, width, now);
        self.look();
        value.unwrap_or(u64::MAX >> (64 - 8 * u32::from(width)))
    }

    fn memory_write(&mut self, physical: u64, width: u8, value: u64, now: u64) {
        self.board.mmio_write(physical, width, value, now);
        self.look();
    }

    fn send(&mut self, _source: u32, message: IcrMessage, _now: u64) {
        self.sent.push(message);
        self.attention = true;
    }

    fn end_of_interrupt(&mut self, vector: u8) {
        self.board.end_of_interrupt(vector);
        self.look();
    }

    fn acknowledge(&mut self) -> u8 {
        let vector = self.board.acknowledge();
        self.attention = true;
        vector
    }

    fn numeric_error(&mut self, processor: u32, asserted: bool) {
        // The pins of the first processor are wired, as in a PC of its time.
        if processor == 0 {
            self.board.set_numeric_error(asserted);
            self.attention = true;
        }
    }

    fn attention(&self) -> bool {
        self.attention
    }
}
