#![expect(unsafe_code, reason = "registers a function with the C library")]
//! Children of `fork`, in which the driver does not work: "the CUDA driver ... does not support
//! `fork()` after initialization". Their calls answer `NOT_INITIALIZED` and touch no lock, which
//! a thread that the child does not have may hold.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of forks between this process and the one that loaded the driver, plus one.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The number of this process among its parents and children; never zero.
pub(crate) fn generation() -> u32 {
    // Relaxed: changed before the child has a second thread.
    GENERATION.load(Ordering::Relaxed)
}

/// Counts forks from now on.
pub(crate) fn watch() {
    extern "C" fn in_child() {
        // Relaxed: as above.
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the function touches one static word, which a child may at any time, and the
        // object that holds it is never unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}
