//! The direction of a copy.

use core::fmt;

/// The kinds of memory that a copy reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the host to the device.
    Htod,
    /// From the device to the host.
    Dtoh,
    /// On the device, or between devices.
    Dtod,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Htod => "htod",
            Self::Dtoh => "dtoh",
            Self::Dtod => "dtod",
        })
    }
}
