//! One call of an entry point: the thread that makes it, its machine, and what its handles name.

use parking_lot::MutexGuard;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUstream;
use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

use crate::errors::Status;
use crate::handle::number;
use crate::machine::{Machine, State};
use crate::thread::Thread;

/// One call: its thread and its machine.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The entry point, as the driver API names it.
    pub(crate) name: &'static str,
    pub(crate) machine: &'a Arc<Machine>,
    pub(crate) thread: &'static Thread,
    /// Whether a null stream stands for the per-thread default stream.
    pub(crate) per_thread: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn lock(self) -> MutexGuard<'a, State> {
        self.machine.lock()
    }

    /// The current context's handle.
    pub(crate) fn context(self, state: &State) -> Status<u64> {
        let context = self.thread.context();
        if context.raw == 0 {
            return Err(CudaError::INVALID_CONTEXT);
        }
        if state.contexts.named(context).is_none() {
            return Err(CudaError::CONTEXT_IS_DESTROYED);
        }
        Ok(context.raw)
    }

    /// The number of the current context's device.
    pub(crate) fn ordinal(self, state: &State) -> Status<i32> {
        let context = self.context(state)?;
        state.contexts.get(context).map(|context| context.ordinal).ok_or(CudaError::INVALID_CONTEXT)
    }

    /// The handle of the stream that `stream` stands for: a default stream's own one where it
    /// is null or one of the two constants.
    pub(crate) fn stream(self, state: &mut State, stream: CUstream) -> Status<u64> {
        let per_thread = stream == STREAM_PER_THREAD || stream.is_null() && self.per_thread;
        if per_thread || stream.is_null() || stream == STREAM_LEGACY {
            let context = self.context(state)?;
            return state.default_stream(context, per_thread.then_some(self.thread.id));
        }
        let handle = number(stream);
        if state.streams.contains(handle) { Ok(handle) } else { Err(CudaError::INVALID_HANDLE) }
    }
}
