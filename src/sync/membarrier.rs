//! A fence of which one side costs nothing: the other makes the processors of all threads of the
//! process fence for it.
//!
//! A thread that stores one word and then loads another, and a thread that does so the other way
//! round, each need a full fence between, or both may miss the other's store. Where one of them
//! does it all the time and the other hardly ever, the first only keeps the compiler from changing
//! the order ([`light`]), and the second calls `membarrier` ([`heavy`]).
//!
//! # References
//!
//! [membarrier(2)](https://man7.org/linux/man-pages/man2/membarrier.2.html), "pairing" of
//! `MEMBARRIER_CMD_PRIVATE_EXPEDITED` with `barrier()`.

#![expect(unsafe_code, reason = "a system call without a name in libc")]

use std::sync::OnceLock;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// The cheap side.
#[inline]
pub(crate) fn light() {
    compiler_fence(SeqCst);
}

/// The dear side. Returns whether there was a fence: the system may have no such call, or not let
/// the process make it.
pub(crate) fn heavy() -> bool {
    static IS_REGISTERED: OnceLock<bool> = OnceLock::new();
    *IS_REGISTERED.get_or_init(|| membarrier(REGISTER_PRIVATE_EXPEDITED))
        && membarrier(PRIVATE_EXPEDITED)
}

fn membarrier(command: i32) -> bool {
    // SAFETY: the call reads and writes no memory of the process, and unknown commands are refused.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Of `linux/membarrier.h`.
const PRIVATE_EXPEDITED: i32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
