#![expect(unsafe_code, reason = "registers a function with the C library")]
//! What is printed when the process ends.

use crate::machine::Machine;
use crate::report;

/// Reports the first machine's counters and leaks at process exit, as it is configured to.
pub(crate) fn report_at_exit() {
    extern "C" fn print() {
        let machine = Machine::first();
        if machine.config.print_counters {
            for (call, count) in machine.counters.all_calls() {
                report::line(&format!("{call} {count}"));
            }
            let bytes = machine.counters.bytes();
            let crate::Bytes { htod, dtoh, dtod, htoh } = bytes;
            report::line(&format!("bytes htod {htod} dtoh {dtoh} dtod {dtod} htoh {htoh}"));
        }
        if machine.config.checks.leaks {
            machine.report_leaks();
        }
    }
    // SAFETY: the function lives as long as the program; the shared object that holds it is
    // never unloaded before exit, since its own threads run in it.
    unsafe { libc::atexit(print) };
}
