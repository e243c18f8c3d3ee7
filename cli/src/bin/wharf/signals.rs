//! SIGINT and SIGTERM: the first asks to stop, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The signal received.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Whether to stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// The signal that asked; 0 for none.
    pub(crate) which: Arc<AtomicUsize>,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let this = Self { stop: Arc::default(), which: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&this.stop))?;
            flag::register_usize(signal, Arc::clone(&this.which), signal.unsigned_abs() as usize)?;
            flag::register(signal, Arc::clone(&this.stop))?;
        }
        Ok(this)
    }
}
