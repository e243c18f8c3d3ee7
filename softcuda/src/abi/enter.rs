//! The common part of every call: faults, guards, and the result code.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wharf_sys::CudaError;
use wharf_sys::bindings::CUresult;

use super::symbols::knows;
use crate::call::Call;
use crate::errors::Status;
use crate::machine::Machine;
use crate::thread::Thread;

/// When an entry point may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Any time, also before `cuInit`.
    Early,
    /// After `cuInit`, also where the current context is lost.
    Always,
    /// After `cuInit`, and not where the current context is lost: then its error is returned.
    Normal,
}

/// Runs `body` as the entry point `name`: counted, guarded, and never unwinding into C.
pub(crate) fn enter(
    name: &'static str,
    guard: Guard,
    per_thread: bool,
    body: impl FnOnce(Call) -> Status,
) -> CUresult {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let machine = Machine::current(knows).ok_or(CudaError::DEINITIALIZED)?;
        let call = Call { name, machine: &machine, thread: Thread::current(), per_thread };
        call.admit(guard)?;
        body(call)
    }));
    match result {
        Ok(Ok(())) => CUresult::CUDA_SUCCESS,
        Ok(Err(code)) => code.as_raw(),
        Err(_) => CUresult::CUDA_ERROR_UNKNOWN,
    }
}

impl Call<'_> {
    fn admit(self, guard: Guard) -> Status {
        if self.machine.is_orphaned() {
            // What needs no machine still answers.
            let needs_machine = guard != Guard::Early || self.name == "cuInit";
            return if needs_machine { Err(CudaError::NOT_INITIALIZED) } else { Ok(()) };
        }
        let injected = self.machine.count(self.name);
        if let Some(code) = injected {
            if code.is_sticky() {
                let mut state = self.lock();
                if let Some(context) = state.contexts.named_mut(self.thread.context()) {
                    context.lost.get_or_insert(code);
                }
            }
            return Err(code);
        }
        if guard == Guard::Early {
            return Ok(());
        }
        if self.thread.in_callback.get() {
            return Err(CudaError::NOT_PERMITTED);
        }
        if !self.machine.is_initialised(self.thread) {
            return Err(CudaError::NOT_INITIALIZED);
        }
        if guard == Guard::Normal {
            let state = self.lock();
            if let Some(code) =
                state.contexts.named(self.thread.context()).and_then(|context| context.lost)
            {
                return Err(code);
            }
        }
        Ok(())
    }
}
