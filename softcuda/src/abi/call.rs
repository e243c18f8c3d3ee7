#![expect(unsafe_code, reason = "reads and writes through the program's pointers")]
//! What every call does before and after its own work.

use parking_lot::MutexGuard;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUresult, CUstream};
use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

use crate::handle::number;
use crate::machine::{Machine, State};
use crate::thread::Thread;

/// What a call returns before it becomes a `CUresult`.
pub(crate) type Status<T = ()> = Result<T, CudaError>;

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

/// One call: who makes it, and on which machine.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The entry point, as the driver API names it.
    pub(crate) name: &'static str,
    pub(crate) machine: &'static Machine,
    pub(crate) thread: &'static Thread,
    /// Whether a null stream stands for the per-thread default stream.
    pub(crate) per_thread: bool,
}

/// Runs `body` as the entry point `name`: counted, guarded, and never unwinding into C.
pub(crate) fn enter(
    name: &'static str,
    guard: Guard,
    per_thread: bool,
    body: impl FnOnce(Call) -> Status,
) -> CUresult {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let call = Call { name, machine: Machine::current(), thread: Thread::current(), per_thread };
        call.admit(guard)?;
        body(call)
    }));
    match result {
        Ok(Ok(())) => CUresult::CUDA_SUCCESS,
        Ok(Err(code)) => code.as_raw(),
        Err(_) => CUresult::CUDA_ERROR_UNKNOWN,
    }
}

impl Call {
    fn admit(self, guard: Guard) -> Status {
        let injected = self.machine.count(self.name);
        if let Some(code) = injected {
            if code.is_sticky() {
                self.lock().lose(self.thread.context(), code);
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
            if let Some(code) = state.contexts.get(self.thread.context()).and_then(|context| context.lost) {
                return Err(code);
            }
        }
        Ok(())
    }

    pub(crate) fn lock(self) -> MutexGuard<'static, State> {
        self.machine.lock()
    }

    /// The current context's handle.
    pub(crate) fn context(self, state: &State) -> Status<u64> {
        let context = self.thread.context();
        if context == 0 {
            return Err(CudaError::INVALID_CONTEXT);
        }
        if !state.contexts.contains(context) {
            return Err(CudaError::CONTEXT_IS_DESTROYED);
        }
        Ok(context)
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

/// Whether `pointer` can be an address of `T` in a program: not null, aligned, in user space.
pub(crate) fn valid<T>(pointer: *const T) -> bool {
    let address = pointer.addr();
    (4096..(1 << 47) - size_of::<T>()).contains(&address) && address.is_multiple_of(align_of::<T>())
}

/// Writes a result through the program's pointer.
pub(crate) fn out<T>(pointer: *mut T, value: T) -> Status {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that it may be written is the program's promise to
    // the driver API.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Writes a result through a pointer that may be null.
pub(crate) fn out_if_any<T>(pointer: *mut T, value: T) -> Status {
    if pointer.is_null() { Ok(()) } else { out(pointer, value) }
}

/// Reads an argument structure.
pub(crate) fn input<T: Copy>(pointer: *const T) -> Status<T> {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that it holds a `T` is the program's promise.
    Ok(unsafe { pointer.read() })
}

/// Arrays of more bytes than this are looked at before they are read.
const LONG: usize = 64 << 10;

/// Reads `count` arguments; a null pointer is no arguments where `count` is zero.
pub(crate) fn inputs<T: Copy>(pointer: *const T, count: usize) -> Status<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(CudaError::INVALID_VALUE)?;
    if !valid(pointer) || bytes > 1 << 40 || !valid(pointer.wrapping_byte_add(bytes - size_of::<T>())) {
        return Err(CudaError::INVALID_VALUE);
    }
    // A count that is nonsense is told by the end of the program's memory.
    if bytes > LONG && !crate::memory::transfer::is_mapped(pointer.expose_provenance() as u64, bytes) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that there are `count` of them is the program's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) }.to_vec())
}

/// Writes results through the program's pointer to the first of several.
pub(crate) fn out_array<T: Copy>(pointer: *mut T, values: &[T]) -> Status {
    let Some(last) = values.len().checked_sub(1) else { return Ok(()) };
    if !valid(pointer) || !valid(pointer.wrapping_add(last)) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that so many may be written is the program's promise.
    unsafe { pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}
