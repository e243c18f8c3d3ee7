#![expect(unsafe_code, reason = "calls the program's callbacks and touches memory by address")]
//! What an operation does.

use core::ffi::c_void;
use core::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUhostFn, CUresult, CUstreamCallback};

use super::queue::Origin;
use crate::handle;
use crate::machine::{Machine, State};
use crate::memory::Block;
use crate::memory::transfer::{Copy, Fill};
use crate::report::{Check, Violation};
use crate::thread::Thread;

/// What an operation does when it runs.
pub(crate) enum Work {
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
    Native(Box<dyn FnOnce() + Send>),
    /// A change of the machine's state.
    Apply(Box<dyn FnOnce(&mut State) + Send>),
}

impl fmt::Debug for Work {
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

// SAFETY: nobody here follows the pointers inside, and the copy is this value's own.
unsafe impl<T> Send for Opaque<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Opaque<T> {}

/// The moment an event record ran.
#[derive(Debug, Default)]
pub(crate) struct Record(OnceLock<Instant>);

impl Record {
    pub(crate) fn time(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// One stream memory operation. Addresses are host addresses inside the block, which is kept.
#[derive(Clone, Debug)]
pub(crate) enum MemOp {
    Write { address: u64, value: u64, wide: bool, _block: Arc<Block> },
    Wait { address: u64, value: u64, wide: bool, condition: Condition, _block: Arc<Block> },
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

/// How running an operation ended.
pub(crate) enum Outcome {
    Done,
    /// A value in memory has not come: run again later.
    Blocked(Work),
    /// A change of state to make under the machine's lock, after which it is done.
    Apply(Box<dyn FnOnce(&mut State) + Send>),
    /// The device faulted: the context is lost.
    Fault(CudaError),
}

impl Work {
    /// Whether this runs the program's code on the callback thread.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Self::Host(..) | Self::Callback(..))
    }

    /// Runs it. `lost` is the error of a context that is lost: then nothing is done, and only
    /// stream callbacks are still told.
    pub(crate) fn run(self, machine: &Machine, origin: Origin, lost: Option<CudaError>) -> Outcome {
        match (self, lost) {
            (Self::Callback(callback, stream, data), _) => call_back(callback, stream, lost, data),
            (Self::Apply(change), _) => return Outcome::Apply(change),
            (Self::Record(record), _) => {
                let _ = record.0.set(Instant::now());
            }
            (Self::Nothing, _) | (_, Some(_)) => {}
            (Self::Copy(copy), None) => return run_copy(machine, origin, &copy),
            (Self::Fill(fill), None) => run_fill(machine, origin, &fill),
            (Self::MemOps(ops, next), None) => return run_mem_ops(ops, next),
            (Self::Host(function, data), None) => call_host(function, data),
            (Self::Native(kernel), None) => kernel(),
        }
        Outcome::Done
    }
}

fn call_back(callback: CUstreamCallback, stream: u64, lost: Option<CudaError>, data: UserData) {
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

fn run_copy(machine: &Machine, origin: Origin, copy: &Copy) -> Outcome {
    let range = |address: u64| format!("[{:#x}, {:#x})", address, address + copy.bytes() as u64);
    if let Some(block) = copy.freed() {
        machine.violate(Check::UseAfterFree, || Violation {
            check: Check::UseAfterFree,
            call: origin.call,
            what: format!(
                "copy from {} to {} uses allocation {:#x} of {} bytes, which {}",
                range(copy.src.shown),
                range(copy.dst.shown),
                block.device,
                block.size,
                fate(block)
            ),
            stream: origin.stream,
        });
    }
    if copy.hash.is_some() && copy.hash != copy.hash_source() {
        machine.violate(Check::SourceStable, || Violation {
            check: Check::SourceStable,
            call: origin.call,
            what: format!(
                "source {} changed between the call and its copy to {}",
                range(copy.src.shown),
                range(copy.dst.shown)
            ),
            stream: origin.stream,
        });
    }
    machine.counters.add_bytes(copy);
    match copy.run() {
        Ok(()) => Outcome::Done,
        Err(_) => Outcome::Fault(CudaError::ILLEGAL_ADDRESS),
    }
}

fn run_fill(machine: &Machine, origin: Origin, fill: &Fill) {
    if let Some(block) = fill.freed() {
        machine.violate(Check::UseAfterFree, || Violation {
            check: Check::UseAfterFree,
            call: origin.call,
            what: format!(
                "fill of {} bytes at {:#x} uses allocation {:#x} of {} bytes, which {}",
                fill.bytes(),
                fill.dst.shown,
                block.device,
                block.size,
                fate(block)
            ),
            stream: origin.stream,
        });
    }
    fill.run();
}

/// Why an operation may not use `block`.
fn fate(block: &Block) -> &'static str {
    if block.is_pending() {
        "its stream-ordered allocation does not precede"
    } else {
        "was freed before it ran"
    }
}

fn run_mem_ops(ops: Vec<MemOp>, mut next: usize) -> Outcome {
    while let Some(op) = ops.get(next) {
        match op {
            MemOp::Write { address, value, wide, .. } => store(*address, *value, *wide),
            MemOp::Wait { address, value, wide, condition, .. } => {
                if !condition.holds(load(*address, *wide), *value, *wide) {
                    return Outcome::Blocked(Work::MemOps(ops, next));
                }
            }
            MemOp::Barrier => {}
        }
        next += 1;
    }
    Outcome::Done
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
        assert!(Condition::GreaterOrEqual.holds(3, u64::from(u32::MAX), false), "the comparison wraps");
        assert!(Condition::Equal.holds(7, 7, false));
        assert!(!Condition::And.holds(0b01, 0b10, true));
        assert!(Condition::Nor.holds(0, 1, false));
        assert!(!Condition::Nor.holds(u64::from(u32::MAX), 0, false));
    }
}
