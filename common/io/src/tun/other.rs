//! Where there is no TUN device yet: opening one says so.

use std::io;

use super::TunOptions;
use super::offload::Frame;
use crate::failure::{Class, Failure};

/// A TUN device, which cannot be made here.
#[derive(Debug)]
pub struct Tun {
    never: std::convert::Infallible,
}

impl Tun {
    /// Says that it is not supported here.
    pub async fn open(_options: &TunOptions) -> Result<Self, Failure> {
        Err(Failure::new(
            Class::Facility,
            "a TUN device is not supported on this system yet",
        ))
    }

    /// Says that it is not supported here.
    pub async fn open_queues(options: &TunOptions, _queues: usize) -> Result<Vec<Self>, Failure> {
        Self::open(options).await.map(|tun| vec![tun])
    }

    /// Cannot be called: there is no device.
    pub fn name(&self) -> &str {
        match self.never {}
    }

    /// Cannot be called: there is no device.
    pub fn index(&self) -> u32 {
        match self.never {}
    }

    /// Cannot be called: there is no device.
    pub fn udp_offload(&self) -> bool {
        match self.never {}
    }

    pub(crate) fn start(self) -> io::Result<ActiveTun> {
        match self.never {}
    }
}

#[derive(Debug)]
pub(crate) struct ActiveTun {
    never: std::convert::Infallible,
}

impl ActiveTun {
    pub(crate) fn poll_readable(&self, _cx: &mut std::task::Context<'_>) -> bool {
        match self.never {}
    }

    pub(crate) fn try_read(&self, _buf: &mut [u8]) -> io::Result<usize> {
        match self.never {}
    }

    pub(crate) fn read_now(&self, _buf: &mut [u8]) -> io::Result<usize> {
        match self.never {}
    }

    pub(crate) fn write(&self, _frame: &Frame<'_>) -> io::Result<()> {
        match self.never {}
    }
}
