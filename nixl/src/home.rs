//! A transport as a forked child finds it: its parent's.

use std::process;
use std::sync::Arc;

use crate::error::Error;
use crate::transport::{Plan, Registration, Request, Segment, Transport};

/// A part of a transport, in the process that made it.
///
/// In a forked child its threads are missing, and its sockets and registrations are the parent's.
/// So each call is [`Error::Forked`] there, and the drop does nothing.
#[derive(Debug)]
pub(crate) struct Home<T> {
    /// `None` when it has ended.
    value: Option<T>,
    process: u32,
}

impl<T> Home<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: process::id() }
    }

    fn check(&self) -> Result<(), Error> {
        if process::id() == self.process { Ok(()) } else { Err(Error::Forked) }
    }

    fn get(&self) -> Result<&T, Error> {
        self.check()?;
        self.value.as_ref().ok_or(Error::Forked)
    }

    fn get_mut(&mut self) -> Result<&mut T, Error> {
        self.check()?;
        self.value.as_mut().ok_or(Error::Forked)
    }
}

impl<T> Drop for Home<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            #[expect(clippy::mem_forget, reason = "its end is the parent's to make")]
            std::mem::forget(self.value.take());
        }
    }
}

impl Transport for Home<Arc<dyn Transport>> {
    fn check(&self) -> Result<(), Error> {
        Home::check(self)
    }

    fn register(&self, segment: Segment) -> Result<Box<dyn Registration>, Error> {
        Ok(Box::new(Home::new(self.get()?.register(segment)?)))
    }

    fn metadata(&self) -> Result<Vec<u8>, Error> {
        self.get()?.metadata()
    }

    fn load(&self, metadata: &[u8]) -> Result<String, Error> {
        self.get()?.load(metadata)
    }

    fn unload(&self, peer: &str) -> Result<(), Error> {
        self.get()?.unload(peer)
    }

    fn notify(&self, peer: &str, message: &[u8]) -> Result<(), Error> {
        self.get()?.notify(peer, message)
    }

    fn notifications(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.get()?.notifications()
    }

    fn prepare(&self, plan: &Plan<'_>) -> Result<Box<dyn Request>, Error> {
        Ok(Box::new(Home::new(self.get()?.prepare(plan)?)))
    }
}

impl Registration for Home<Box<dyn Registration>> {
    fn end(mut self: Box<Self>) -> Result<(), Error> {
        Home::check(&self)?;
        self.value.take().map_or(Ok(()), |it| it.end())
    }
}

impl Request for Home<Box<dyn Request>> {
    fn post(&mut self) -> Result<bool, Error> {
        self.get_mut()?.post()
    }

    fn poll(&mut self) -> Result<bool, Error> {
        self.get_mut()?.poll()
    }
}
