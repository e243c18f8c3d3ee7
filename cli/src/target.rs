//! The driver that a command works on.

use std::io::{self, Write};

use softcuda::{Binding, Config, ConfigError, Schedule, Simulator};
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
    schedule: Option<Schedule>,
}

/// Why there is no driver to work on.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A variable of the software driver is invalid.
    #[error(transparent)]
    Environment(#[from] ConfigError),
}

/// The behaviour of the software driver, if that is the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Software {
    /// When operations run; by default as the environment says.
    pub schedule: Option<Schedule>,
    /// Whether it looks for sources that change before they are read, and for accesses that nothing
    /// orders, and gives handles and addresses again at once.
    pub verify: bool,
}

impl Target {
    /// The driver that `choice` names.
    ///
    /// # Errors
    ///
    /// [`TargetError`]: there is no such driver, it has no device, or a variable is invalid.
    pub fn new(choice: Choice, software: Software) -> Result<Self, TargetError> {
        match choice {
            Choice::Softcuda => Self::softcuda(software, None),
            Choice::System => Ok(Self::system(Driver::load()?)),
            Choice::Auto => match Driver::load() {
                Ok(driver) => Ok(Self::system(driver)),
                Err(error) => Self::softcuda(software, Some(error)),
            },
        }
    }

    /// Tells a person that this is not the system's driver, where that was tried.
    pub fn tell_instead_of(&self) {
        if let Some(reason) = &self.instead_of {
            let note = "on softcuda, since the system's driver cannot be used";
            // Where nothing can be told, the figures name the driver.
            let _ = writeln!(io::stderr(), "{note}: {reason}");
        }
    }

    /// The software machine, if it is one.
    pub fn software(&self) -> Option<&Simulator> {
        self.software.as_ref().map(|(_, machine)| machine)
    }

    /// The number of driver calls so far, if they can be counted.
    pub fn driver_calls(&self) -> Option<u64> {
        Some(self.software()?.all_calls().iter().map(|(_, count)| count).sum())
    }

    /// Whether the driver notices a source that changes before it is read.
    pub fn checks_sources(&self) -> bool {
        self.checks_sources
    }

    /// When operations run, where that is known.
    pub fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// Its name, `system` or `softcuda`.
    pub fn name(&self) -> &'static str {
        if self.software.is_some() { "softcuda" } else { "system" }
    }

    fn system(driver: Driver) -> Self {
        Self { driver, instead_of: None, software: None, checks_sources: false, schedule: None }
    }

    fn softcuda(software: Software, instead_of: Option<LoadError>) -> Result<Self, TargetError> {
        let mut config = Config::from_environment()?;
        config.schedule = software.schedule.unwrap_or(config.schedule);
        config.checks.source_stable |= software.verify;
        config.checks.race |= software.verify;
        config.recycle = config.recycle.or(software.verify.then_some(true));
        let (checks_sources, schedule) = (config.checks.source_stable, Some(config.schedule));
        let machine = Simulator::new(config);
        let bound = machine.bind();
        let driver = Driver::from_api(machine.api()?)?;
        let software = Some((bound, machine));
        Ok(Self { driver, instead_of, software, checks_sources, schedule })
    }
}
