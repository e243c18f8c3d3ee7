//! The driver that a command works on.
#![expect(unsafe_code, reason = "takes the software driver's functions")]

use core::ptr;

use softcuda::{Binding, Config, Simulator};
use wharf::sys::Row;
use wharf::{Driver, LoadError};

/// Which driver a person asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The system's driver if it has a device, else softcuda.
    #[default]
    Auto,
    /// The system's driver.
    System,
    /// The software driver; variables SOFTCUDA_* shape it.
    Softcuda,
}

/// A driver, and the machine behind it where that is software.
///
/// The thread that made it is bound to that machine, so it stays there.
#[derive(Debug)]
pub struct Target {
    /// The driver.
    pub driver: Driver,
    /// Why this is not the system's driver, where that was tried.
    pub instead_of: Option<LoadError>,
    software: Option<(Binding, Simulator)>,
}

impl Target {
    /// The driver that `choice` names.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: there is no such driver, or it has no device.
    pub fn new(choice: Choice) -> Result<Self, LoadError> {
        match choice {
            Choice::Softcuda => Self::softcuda(None),
            Choice::System => Ok(Self { driver: Driver::load()?, instead_of: None, software: None }),
            Choice::Auto => match Driver::load() {
                Ok(driver) => Ok(Self { driver, instead_of: None, software: None }),
                Err(error) => Self::softcuda(Some(error)),
            },
        }
    }

    /// The software machine, if it is one.
    pub fn software(&self) -> Option<&Simulator> {
        self.software.as_ref().map(|(_, machine)| machine)
    }

    fn softcuda(instead_of: Option<LoadError>) -> Result<Self, LoadError> {
        let config = Config::from_environment();
        let version = config.version;
        let machine = Simulator::new(config);
        let bound = machine.bind();
        let resolve = |row: &Row| match row.version {
            newer if newer > version => ptr::null_mut(),
            known => softcuda::entry_point(row.name, known),
        };
        // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
        let driver = unsafe { Driver::from_fns(resolve) }?;
        Ok(Self { driver, instead_of, software: Some((bound, machine)) })
    }
}
