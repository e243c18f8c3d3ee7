//! SIGINT, SIGTERM and SIGHUP: the first asks to stop, the second ends the process.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::{fs, io};

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The signal received.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Whether to stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// The signal that asked; 0 for none.
    pub(crate) which: Arc<AtomicUsize>,
    /// Can be read from once `stop` is set, for those who wait for something else too.
    pub(crate) woken: UnixStream,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        let this = Self { stop: Arc::default(), which: Arc::default(), woken };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Under nohup, the end of the terminal is not to end the command.
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            flag::register_conditional_default(signal, Arc::clone(&this.stop))?;
            flag::register_usize(signal, Arc::clone(&this.which), signal.unsigned_abs() as usize)?;
            flag::register(signal, Arc::clone(&this.stop))?;
            // The actions are taken in this order.
            pipe::register(signal, wake.try_clone()?)?;
        }
        // A limit on the size of files is an error of the write, and not the end of the process.
        flag::register(Signal::XFSZ.as_raw(), Arc::default())?;
        Ok(this)
    }
}

/// Whether the process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored >> (signal - 1) & 1 == 1)
}
