//! A software machine and a context on it.

#![expect(unsafe_code, reason = "takes the software driver's functions")]

use softcuda::{Binding, Config, Simulator};
use wharf::{Context, Driver};

use super::Failure;

/// A machine of its own, with its counters.
#[derive(Debug)]
pub struct Machine {
    simulator: Simulator,
    context: Context,
}

impl Machine {
    /// A machine with one device; it runs work as it comes.
    ///
    /// # Errors
    ///
    /// What loading the driver said.
    pub fn new() -> Result<Self, Failure> {
        let simulator = Simulator::new(Config::default());
        let _bound = simulator.bind();
        // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
        let driver =
            unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
        let context = Context::retain(&driver.device(0)?)?;
        Ok(Self { simulator, context })
    }

    /// Lets the calling thread talk to the machine.
    pub fn bind(&self) -> Binding {
        self.simulator.bind()
    }

    /// Its context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Every entry point that was called and how often.
    pub fn calls(&self) -> Vec<(&'static str, u64)> {
        self.simulator.all_calls()
    }
}
