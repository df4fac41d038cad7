//! A guest under the hypervisor.

use crate::file::Policy;
use crate::host::{Bounds, Host, HostConfig, Loaded, Pause};
use crate::register::Place;
use crate::verdict::Registers;
use models::CpuModel;
use trace::Sink;

/// A hypervisor with its guest.
#[derive(Debug)]
pub enum VirtualHost {}

impl VirtualHost {
    /// A hypervisor with its guest loaded.
    ///
    /// # Errors
    /// Always: the hypervisor is not part of this build yet.
    pub fn new(_: &HostConfig, _: Policy, _: &Loaded) -> Result<Self, String> {
        Err("the hypervisor is not part of this build yet; use the policy `none`".to_owned())
    }
}

impl Host for VirtualHost {
    fn run(&mut self, _: &Bounds, _: &mut dyn Sink) -> Pause {
        match *self {}
    }
    fn totals(&self) -> Bounds {
        match *self {}
    }
    fn vcpus(&self) -> u32 {
        match *self {}
    }
    fn registers(&self, _: u32) -> Registers {
        match *self {}
    }
    fn place(&self, _: u32) -> Option<(u64, u64)> {
        match *self {}
    }
    fn set_register(&mut self, _: Place, _: u64) {
        match *self {}
    }
    fn read_memory(&self, _: u64, _: &mut [u8]) -> bool {
        match *self {}
    }
    fn write_memory(&mut self, _: u64, _: &[u8]) -> bool {
        match *self {}
    }
    fn take_serial(&mut self) -> Vec<u8> {
        match *self {}
    }
    fn serial_input(&mut self, _: &[u8]) {
        match *self {}
    }
    fn interrupt(&mut self, _: u32, _: u8) {
        match *self {}
    }
    fn nmi(&mut self, _: u32) {
        match *self {}
    }
    fn migrate(&mut self, _: &'static CpuModel, _: Policy, _: &mut dyn Sink) -> Result<(), String> {
        match *self {}
    }
}
