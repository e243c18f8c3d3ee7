//! Deadlines of waits: tests depend on what happens first, never on how fast the machine is.

use std::time::Duration;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// Too short for what is held up, and long for a device that has only to catch up.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
