//! The end of a value that belongs to a machine.

#![expect(unsafe_code, reason = "a value is dropped at a chosen place")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

use pyo3::Python;
use softcuda::{Binding, Simulator};

/// The machine that calls go to: a simulator, or the system's driver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine(Option<Arc<Simulator>>);

impl Machine {
    pub(crate) fn simulated(simulator: Arc<Simulator>) -> Self {
        Self(Some(simulator))
    }

    /// Sends the thread's calls to the machine until the result is dropped.
    ///
    /// The library makes its context current for each call, which names the machine. This is for
    /// the calls before there is a context and after, and lets what the thread had be.
    pub(crate) fn bind(&self) -> Option<Binding> {
        self.0.as_ref().map(|simulator| simulator.bind())
    }

    /// Runs `call` without the GIL, on the machine.
    pub(crate) fn run<T: Send>(&self, py: Python<'_>, call: impl FnOnce() -> T + Send) -> T {
        py.detach(|| {
            let _bound = self.bind();
            call()
        })
    }
}

/// A value whose drop may wait for the device: it is dropped without the GIL, on its machine.
pub(crate) struct Held<T: Send> {
    value: ManuallyDrop<T>,
    machine: Machine,
}

impl<T: Send> Held<T> {
    pub(crate) fn new(value: T, machine: &Machine) -> Self {
        Self { value: ManuallyDrop::new(value), machine: machine.clone() }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
}

impl<T: Send> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Send> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: taken once, here; the value is not used again.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        let mut value = Some(value);
        let machine = &self.machine;
        let mut end = || {
            let _bound = machine.bind();
            drop(value.take());
        };
        // While the interpreter ends there is nothing to release.
        if Python::try_attach(|py| py.detach(&mut end)).is_none() {
            end();
        }
    }
}

impl<T: Send + fmt::Debug> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
