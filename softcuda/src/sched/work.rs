#![expect(unsafe_code, reason = "calls the program's callbacks and touches memory by address")]
//! The work of operations.

use core::ffi::c_void;
use core::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUhostFn, CUresult, CUstreamCallback};

use crate::handle;
use crate::memory::Block;
use crate::memory::transfer::{Copy, Fill};
use crate::module::Launch;
use crate::thread::Thread;

/// A change of a machine's state.
pub(crate) type Change<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The work of an operation, on a machine whose state is an `S`.
pub(crate) enum Work<S> {
    /// Nothing: a point that others wait for.
    Nothing,
    Copy(Box<Copy>),
    Fill(Box<Fill>),
    /// Stream memory operations, in order; the index is the next one to do.
    MemOps(Vec<MemOp>, usize),
    /// Notes the time.
    Record(Arc<Record>),
    /// A host function of `cuLaunchHostFunc` or of a graph.
    Host(CUhostFn, UserData),
    /// A callback of `cuStreamAddCallback`, called with the stream that it is given.
    Callback(CUstreamCallback, u64, UserData),
    /// Native code that stands for a kernel.
    Native(Launch),
    /// A stream-ordered allocation comes to life.
    Begin(Arc<Block>),
    /// A stream-ordered allocation ends, as `free` does it.
    End(Arc<Block>, fn(&mut S, &Block)),
    /// A change of the machine's state.
    Apply(Change<S>),
}

impl<S> fmt::Debug for Work<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Copy(_) => "Copy",
            Self::Fill(_) => "Fill",
            Self::MemOps(..) => "MemOps",
            Self::Record(_) => "Record",
            Self::Host(..) => "Host",
            Self::Callback(..) => "Callback",
            Self::Native(_) => "Native",
            Self::Begin(_) => "Begin",
            Self::End(..) => "End",
            Self::Apply(_) => "Apply",
        })
    }
}

/// The program's pointer, handed back to it as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserData(pub(crate) *mut c_void);

// SAFETY: never followed here; the driver API says that callbacks run on other threads, so the
// program that gave it expects it there.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// A structure of the program's with pointers in it that are handed back and never followed.
#[derive(Clone, Copy)]
pub(crate) struct Opaque<T>(pub(crate) T);

impl<T> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opaque")
    }
}

// SAFETY: the pointers inside are never followed here, and the copy is this value's own.
unsafe impl<T> Send for Opaque<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Opaque<T> {}

/// The moment an event record ran.
#[derive(Debug, Default)]
pub(crate) struct Record(OnceLock<Instant>);

impl Record {
    /// Notes that the record runs now.
    pub(crate) fn set(&self) {
        let _ = self.0.set(Instant::now());
    }

    pub(crate) fn time(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// One stream memory operation. Addresses are host addresses inside the block, which is kept.
#[derive(Clone, Debug)]
pub(crate) enum MemOp {
    Write { address: u64, value: u64, wide: bool, block: Arc<Block> },
    Wait { address: u64, value: u64, wide: bool, condition: Condition, block: Arc<Block> },
    Barrier,
}

/// When a wait-value is satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `(signed)(memory - value) >= 0`
    GreaterOrEqual,
    Equal,
    /// `memory & value != 0`
    And,
    /// `~(memory | value) != 0`
    Nor,
}

impl Condition {
    /// Whether `memory` satisfies the wait for `value`.
    pub(crate) fn holds(self, memory: u64, value: u64, wide: bool) -> bool {
        let width = if wide { u64::MAX } else { u64::from(u32::MAX) };
        let difference = memory.wrapping_sub(value);
        let sign = if wide { difference >> 63 } else { difference >> 31 & 1 };
        match self {
            Self::GreaterOrEqual => sign == 0,
            Self::Equal => memory == value & width,
            Self::And => memory & value != 0,
            Self::Nor => !(memory | value) & width != 0,
        }
    }
}

impl<S> Work<S> {
    /// Whether this runs the program's code on the callback thread.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Self::Host(..) | Self::Callback(..))
    }
}

impl MemOp {
    /// Whether the operation can complete now: the value that a wait waits for is there.
    pub(crate) fn is_satisfied(&self) -> bool {
        match self {
            Self::Wait { address, value, wide, condition, .. } => {
                condition.holds(load(*address, *wide), *value, *wide)
            }
            Self::Write { .. } | Self::Barrier => true,
        }
    }

    /// Writes the word of a write.
    pub(crate) fn write(&self) {
        if let Self::Write { address, value, wide, .. } = self {
            store(*address, *value, *wide);
        }
    }
}

pub(crate) fn call_back(
    callback: CUstreamCallback,
    stream: u64,
    lost: Option<CudaError>,
    data: UserData,
) {
    let Some(callback) = callback else { return };
    let status = lost.map_or(CUresult::CUDA_SUCCESS, CudaError::as_raw);
    Thread::current().inside_callback(|| {
        // SAFETY: the program promised cuStreamAddCallback a function of this type.
        unsafe { callback(handle::to_pointer(stream), status, data.0) };
    });
}

pub(crate) fn call_host(function: CUhostFn, data: UserData) {
    let Some(function) = function else { return };
    Thread::current().inside_callback(|| {
        // SAFETY: the program promised cuLaunchHostFunc, or a host node, such a function.
        unsafe { function(data.0) };
    });
}

/// Writes a word as the device does: what the stream did before is visible to who sees it.
#[expect(clippy::cast_possible_truncation, reason = "a narrow write takes the low half")]
fn store(address: u64, value: u64, wide: bool) {
    if wide {
        let word: *const AtomicU64 = crate::address::pointer(address);
        // SAFETY: aligned (checked at the call) and inside the operation's block. Release: pairs
        // with the program's Acquire load of the word (cuStreamWriteValue: a memory barrier
        // precedes the write).
        unsafe { (*word).store(value, Ordering::Release) };
    } else {
        let word: *const AtomicU32 = crate::address::pointer(address);
        // SAFETY: as above. Release: as above.
        unsafe { (*word).store(value as u32, Ordering::Release) };
    }
}

fn load(address: u64, wide: bool) -> u64 {
    if wide {
        let word: *const AtomicU64 = crate::address::pointer(address);
        // SAFETY: aligned (checked at the call) and inside the operation's block. Acquire:
        // pairs with the program's Release store or another stream's `store`.
        unsafe { (*word).load(Ordering::Acquire) }
    } else {
        let word: *const AtomicU32 = crate::address::pointer(address);
        // SAFETY: as above. Acquire: as above.
        u64::from(unsafe { (*word).load(Ordering::Acquire) })
    }
}

#[cfg(test)]
mod tests {
    use super::Condition;

    #[test]
    fn wait_conditions_follow_the_reference() {
        assert!(Condition::GreaterOrEqual.holds(5, 5, true));
        assert!(Condition::GreaterOrEqual.holds(6, 5, false));
        assert!(!Condition::GreaterOrEqual.holds(4, 5, true));
        assert!(
            Condition::GreaterOrEqual.holds(3, u64::from(u32::MAX), false),
            "the comparison wraps"
        );
        assert!(Condition::Equal.holds(7, 7, false));
        assert!(!Condition::And.holds(0b01, 0b10, true));
        assert!(Condition::Nor.holds(0, 1, false));
        assert!(!Condition::Nor.holds(u64::from(u32::MAX), 0, false));
    }
}
