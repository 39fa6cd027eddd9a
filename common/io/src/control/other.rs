//! Where there are no Unix sockets: every call says so.

use std::marker::PhantomData;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Answer;
use crate::failure::{Class, Failure};

fn unsupported() -> Failure {
    Failure::new(
        Class::Facility,
        "the control socket is not supported on this system yet",
    )
}

/// The daemon's end.
#[derive(Debug)]
pub struct ControlServer {
    never: std::convert::Infallible,
}

impl ControlServer {
    /// Says that it is not supported here.
    pub fn bind(_path: &Path, _mode: u32) -> Result<Self, Failure> {
        Err(unsupported())
    }

    /// Cannot be called: there is no server.
    pub async fn serve<Req, Rep, F, Fut>(self, _handler: F) -> Result<(), Failure>
    where
        Req: DeserializeOwned + Send + 'static,
        Rep: Serialize + Send + 'static,
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer<Rep>, Failure>> + Send + 'static,
    {
        match self.never {}
    }
}

/// The asker's end.
#[derive(Debug)]
pub struct ControlClient;

impl ControlClient {
    /// Says that it is not supported here.
    pub async fn call<Req: Serialize, Rep: DeserializeOwned>(
        _path: &Path,
        _request: &Req,
    ) -> Result<Rep, Failure> {
        Err(unsupported())
    }

    /// Says that it is not supported here.
    pub async fn stream<Req: Serialize, Rep: DeserializeOwned>(
        _path: &Path,
        _request: &Req,
    ) -> Result<Replies<Rep>, Failure> {
        Err(unsupported())
    }
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies<Rep> {
    never: std::convert::Infallible,
    _reply: PhantomData<fn() -> Rep>,
}

impl<Rep: DeserializeOwned> Replies<Rep> {
    /// Cannot be called: there are no replies.
    pub async fn next(&mut self) -> Option<Result<Rep, Failure>> {
        match self.never {}
    }
}
