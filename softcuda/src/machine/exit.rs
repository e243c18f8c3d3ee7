#![expect(unsafe_code, reason = "registers a function with the C library")]
//! Reports when a machine or the process ends.

use std::sync::Once;

use super::{Bytes, Machine};
use crate::report;

/// Lets the machines that are there when the process ends report.
pub(crate) fn report_at_exit() {
    extern "C" fn print() {
        for machine in Machine::all() {
            machine.report_end();
        }
    }
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the function lives as long as the program; the shared object that holds it is
        // never unloaded before exit, since its own threads run in it.
        unsafe { libc::atexit(print) };
    });
}

impl Machine {
    /// Reports the machine's counters and leaks, as it is configured to, when it ends.
    pub(crate) fn report_end(&self) {
        // A child of `fork` has no right to the machine's locks.
        if self.is_orphaned() {
            return;
        }
        if self.config.print_counters {
            for (call, count) in self.counters.all_calls() {
                report::line(&format!("{call} {count}"));
            }
            let Bytes { htod, dtoh, dtod, htoh } = self.counters.bytes();
            report::line(&format!("bytes htod {htod} dtoh {dtoh} dtod {dtod} htoh {htoh}"));
        }
        if self.config.checks.leaks {
            self.report_leaks();
        }
    }
}
