//! Runs operations, with the checks `source-stable` and `use-after-free`.

use wharf_sys::CudaError;

use crate::machine::{ALLOCATED, Change, FREED, Machine, Work};
use crate::memory::Block;
use crate::memory::transfer::{Copy, Fill};
use crate::race::Mode;
use crate::report::{Check, Violation};
use crate::sched::Origin;
use crate::sched::work::{MemOp, call_back, call_host};

/// The result of running an operation.
pub(super) enum Outcome {
    Done,
    /// A value in memory has not come: run again later.
    Blocked(Work),
    /// A change of state to make under the machine's lock, after which it is done.
    Apply(Change),
    /// Native code ran: it said that it touched these bytes.
    Ran(Vec<(u64, usize, Mode)>),
    /// The device faulted: the context is lost.
    Fault(CudaError),
}

impl Work {
    /// Runs it. `lost` is the error of a context that is lost: then nothing is done, and only
    /// stream callbacks are still told.
    pub(super) fn run(self, machine: &Machine, origin: Origin, lost: Option<CudaError>) -> Outcome {
        match (self, lost) {
            (Self::Callback(callback, stream, data), _) => call_back(callback, stream, lost, data),
            (Self::Apply(change), _) => return Outcome::Apply(change),
            (Self::Begin(block), _) => {
                machine.poison(&block, ALLOCATED);
                block.begin();
            }
            (Self::End(block, free), _) => {
                machine.poison(&block, FREED);
                return Outcome::Apply(Box::new(move |state| free(state, &block)));
            }
            (Self::Record(record), _) => record.set(),
            // Work of a lost context completes without effect, so that waits for it end.
            (Self::Nothing, _) | (_, Some(_)) => {}
            (Self::Copy(copy), None) => return run_copy(machine, origin, &copy),
            (Self::Fill(fill), None) => run_fill(machine, origin, &fill),
            (Self::MemOps(ops, next), None) => return run_mem_ops(ops, next, |_| ()),
            (Self::Host(function, data), None) => call_host(function, data),
            (Self::Native(launch), None) => return Outcome::Ran(launch.run()),
        }
        Outcome::Done
    }
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
    // The hash was taken at the call: another one now means that the program wrote to the source.
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

/// Does the operations from `next` on. `tell` hears of each: of a wait when its value is there, of
/// a write before it is.
pub(super) fn run_mem_ops(
    ops: Vec<MemOp>,
    mut next: usize,
    mut tell: impl FnMut(&MemOp),
) -> Outcome {
    while let Some(op) = ops.get(next) {
        if !op.is_satisfied() {
            return Outcome::Blocked(Work::MemOps(ops, next));
        }
        // Before the write: a thread that sees the word must find it noted.
        tell(op);
        op.write();
        next += 1;
    }
    Outcome::Done
}
