//! Errors of loading a driver.

use core::fmt;
use std::ffi::OsString;

use crate::error::{Error, version};

/// Why a driver cannot be used. Nothing stays loaded.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// No library could be opened under any of the names tried.
    Library {
        /// The path or the last name tried.
        name: OsString,
        /// The error of the dynamic linker.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
    /// The library opened, and is not a CUDA driver.
    NotCuda {
        /// The path or name.
        name: OsString,
        /// The symbol it lacks.
        symbol: &'static str,
    },
    /// The driver works, and there is no device.
    NoDevice,
    /// The driver is older than this crate supports.
    TooOld {
        /// Its version, as 1000 * major + 10 * minor.
        found: u32,
        /// The oldest version supported.
        needed: u32,
    },
    /// The driver lacks an entry point that every supported version has.
    Missing {
        /// The entry point.
        call: &'static str,
        /// The CUDA version that introduced it, as 1000 * major + 10 * minor.
        introduced: u32,
    },
    /// The driver refused to start.
    Init(Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library { name, source } => write!(
                f,
                "no CUDA driver library: {} ({source}); install the NVIDIA driver or set \
                 WHARF_LIBCUDA to its path",
                name.display()
            ),
            Self::NotCuda { name, symbol } => write!(
                f,
                "{} is not a CUDA driver: it has no {symbol}; point WHARF_LIBCUDA at libcuda.so.1",
                name.display()
            ),
            Self::NoDevice => f.write_str(
                "the CUDA driver found no device: check nvidia-smi and CUDA_VISIBLE_DEVICES",
            ),
            Self::TooOld { found, needed } => {
                f.write_str("the CUDA driver supports CUDA ")?;
                version(f, *found)?;
                f.write_str(", and this library needs ")?;
                version(f, *needed)?;
                f.write_str(" or later: update the driver")
            }
            Self::Missing { call, introduced } => {
                write!(f, "the CUDA driver has no {call}, which CUDA ")?;
                version(f, *introduced)?;
                f.write_str(" introduced: reinstall or update the driver")
            }
            Self::Init(error) => write!(f, "the CUDA driver failed to start: {error}"),
        }
    }
}

impl core::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Library { source, .. } => Some(&**source),
            Self::Init(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_is_told_both_versions() {
        let old = LoadError::TooOld { found: 10_010, needed: 11_040 };
        assert!(old.to_string().contains("CUDA 10.1, and this library needs 11.4"), "{old}");
    }
}
