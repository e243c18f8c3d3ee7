//! The driver that a command works on.
#![expect(unsafe_code, reason = "takes the software driver's functions")]

use softcuda::{Binding, Config, Schedule, Simulator};
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
    checks_sources: bool,
}

/// How the software driver is to behave, where that is the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Software {
    /// When operations run; by default as the environment says.
    pub schedule: Option<Schedule>,
    /// Whether it looks for sources that change before they are read.
    pub check_sources: bool,
}

impl Target {
    /// The driver that `choice` names.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: there is no such driver, or it has no device.
    pub fn new(choice: Choice, software: Software) -> Result<Self, LoadError> {
        match choice {
            Choice::Softcuda => Self::softcuda(software, None),
            Choice::System => Driver::load().map(Self::system),
            Choice::Auto => match Driver::load() {
                Ok(driver) => Ok(Self::system(driver)),
                Err(error) => Self::softcuda(software, Some(error)),
            },
        }
    }

    /// The software machine, if it is one.
    pub fn software(&self) -> Option<&Simulator> {
        self.software.as_ref().map(|(_, machine)| machine)
    }

    /// How many calls the driver got so far, where they can be counted.
    pub fn driver_calls(&self) -> Option<u64> {
        Some(self.software()?.all_calls().iter().map(|(_, count)| count).sum())
    }

    /// Whether the driver notices a source that changes before it is read.
    pub fn checks_sources(&self) -> bool {
        self.checks_sources
    }

    fn system(driver: Driver) -> Self {
        Self { driver, instead_of: None, software: None, checks_sources: false }
    }

    fn softcuda(software: Software, instead_of: Option<LoadError>) -> Result<Self, LoadError> {
        let mut config = Config::from_environment();
        config.schedule = software.schedule.unwrap_or(config.schedule);
        config.checks.source_stable |= software.check_sources;
        let checks_sources = config.checks.source_stable;
        let machine = Simulator::new(config);
        let bound = machine.bind();
        // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
        let driver = unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
        Ok(Self { driver, instead_of, software: Some((bound, machine)), checks_sources })
    }
}
