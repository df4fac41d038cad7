//! The 8042 keyboard controller at ports 0x60 and 0x64, without a keyboard.
//!
//! What is modelled: the status register, the controller's own commands, its output port with A20 and reset. What is not: keyboard and
//! mouse (bytes sent to them are lost, as on an empty socket), and IRQ1 and IRQ12, which only they would raise.

use serde::{Deserialize, Serialize};

/// What a write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing outside the controller.
    None,
    /// Reset the processors.
    Reset,
    /// Drive the A20 gate.
    A20(bool),
}

/// A command that waits for its data byte on port 0x60.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expected {
    CommandByte,
    OutputPort,
    /// A byte for a device that is not there.
    Nobody,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyboardController {
    command_byte: u8,
    output: Option<u8>,
    expected: Option<Expected>,
    last_was_command: bool,
}

impl Default for KeyboardController {
    fn default() -> Self {
        // Both device ports disabled, and the system flag set as after a self test that passed.
        Self { command_byte: 0x34, output: None, expected: None, last_was_command: false }
    }
}

impl KeyboardController {
    /// Status register, port 0x64: output full (0), system flag (2), last write was a command (3), keyboard not locked (4).
    pub fn status(&self) -> u8 {
        u8::from(self.output.is_some()) | (self.command_byte & 0x04) | u8::from(self.last_was_command) << 3 | 0x10
    }

    /// Data register, port 0x60: the controller's answer, or 0.
    pub fn read_data(&mut self) -> u8 {
        self.output.take().unwrap_or(0)
    }

    /// A command on port 0x64; `a20` is the state of the gate, which the output port shows.
    pub fn write_command(&mut self, command: u8, a20: bool) -> Request {
        self.last_was_command = true;
        self.expected = None;
        match command {
            0x20 => self.output = Some(self.command_byte),
            0x60 => self.expected = Some(Expected::CommandByte),
            0xa7 => self.command_byte |= 0x20,
            0xa8 => self.command_byte &= !0x20,
            // The port tests find no fault; the self test passes and sets the system flag.
            0xa9 | 0xab => self.output = Some(0),
            0xaa => {
                self.command_byte |= 0x04;
                self.output = Some(0x55);
            }
            0xad => self.command_byte |= 0x10,
            0xae => self.command_byte &= !0x10,
            0xd0 => self.output = Some(0x01 | u8::from(a20) << 1 | u8::from(self.output.is_some()) << 4),
            0xd1 => self.expected = Some(Expected::OutputPort),
            0xd2..=0xd4 => self.expected = Some(Expected::Nobody),
            // Pulse the output lines whose bits are clear: line 0 is the reset of the processor.
            0xf0..=0xff if command & 1 == 0 => return Request::Reset,
            _ => {}
        }
        Request::None
    }

    /// A byte on port 0x60.
    pub fn write_data(&mut self, value: u8) -> Request {
        self.last_was_command = false;
        match self.expected.take() {
            Some(Expected::CommandByte) => self.command_byte = value,
            Some(Expected::OutputPort) if value & 1 == 0 => return Request::Reset,
            Some(Expected::OutputPort) => return Request::A20(value & 2 != 0),
            Some(Expected::Nobody) | None => {}
        }
        Request::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_answer_and_reset() {
        let mut controller = KeyboardController::default();
        assert_eq!(controller.status(), 0x14);
        assert_eq!(controller.write_command(0xaa, true), Request::None);
        assert_eq!(controller.status(), 0x1d);
        assert_eq!(controller.read_data(), 0x55);
        assert_eq!(controller.status() & 1, 0);
        assert_eq!(controller.write_command(0x60, true), Request::None);
        assert_eq!(controller.write_data(0x47), Request::None);
        controller.write_command(0x20, true);
        assert_eq!(controller.read_data(), 0x47);
        for (command, data, expected) in [
            (0xfe, None, Request::Reset),
            (0xff, None, Request::None),
            (0xd1, Some(0xfe), Request::Reset),
            (0xd1, Some(0xdd), Request::A20(false)),
            (0xd1, Some(0xdf), Request::A20(true)),
            (0xd4, Some(0x00), Request::None),
        ] {
            let mut request = controller.write_command(command, true);
            if let Some(data) = data {
                assert_eq!(request, Request::None);
                request = controller.write_data(data);
            }
            assert_eq!(request, expected, "{command:#x} {data:x?}");
        }
    }
}
