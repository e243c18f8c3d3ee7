#![expect(unsafe_code, reason = "closures travel through C as pointers")]
//! Host functions in a stream's order.
//!
//! Two ways, because a capturing stream records a host function and replays it any number
//! of times:
//!
//! * [`Stream::add_callback`] takes a closure that runs once. The driver refuses it under
//!   capture, so the box it travels in is freed exactly once.
//! * [`Stream::launch_host_func`] takes a `&'static` function that may run any number of
//!   times, from any thread.
//!
//! Both run on a thread of the driver's, where no CUDA call is allowed. A panic ends there, and
//! never crosses into C. One of a callback is counted, see
//! [`Context::callback_panics`](crate::Context::callback_panics); with a host function the driver
//! is given nothing but the function, so there is nothing to count with.

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wharf_sys::bindings::{CUresult, CUstream};

use super::Stream;
use crate::driver::Release;
use crate::error::{CudaError, Error};

impl Stream {
    /// Calls `callback` once, when the work submitted so far is done, and lets later work wait
    /// for it.
    ///
    /// It hears `Err` when the context has failed by then. It must not call the driver, which
    /// answers [`CudaError::NOT_PERMITTED`], so owners of streams or events dropped in it leak, and
    /// so does all of a [`Pool`](crate::pool::Pool#drop) that ends in it with its last buffer; and
    /// it must not wait for device work.
    ///
    /// The closure is boxed: this is not for a hot path.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused, as it does while the stream is capturing;
    /// `callback` is dropped.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamAddCallback")]
    pub fn add_callback<F>(&self, callback: F) -> Result<(), Error>
    where
        F: FnOnce(Result<(), CudaError>) + Send + 'static,
    {
        let _scope = self.enter()?;
        let release = Arc::clone(self.context.release());
        let boxed = Box::into_raw(Box::new(Callback { callback, release }));
        let api = self.context.driver().api();
        // SAFETY: the stream is alive; `run_once` takes a pointer to a `Callback<F>`, which is
        // sent with it and stays allocated until then.
        let outcome = unsafe {
            api.stream_add_callback.call(self.as_raw(), Some(run_once::<F>), boxed.cast(), 0)
        };
        // Refused, the callback never runs, and its box is still this call's.
        if outcome.is_err() {
            // SAFETY: made by `Box::into_raw` above, and a call that fails has enqueued nothing.
            drop(unsafe { Box::from_raw(boxed) });
        }
        outcome
    }

    /// Calls `function` when the work submitted so far is done, and lets later work wait for it.
    ///
    /// On a capturing stream it becomes a host node of the graph and runs at every launch. It is
    /// not called after an error in the context. It must not call the driver or wait for device
    /// work. A panic in it ends there, and is not counted. Nothing is allocated.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html)
    #[doc(alias = "cuLaunchHostFunc")]
    pub fn launch_host_func<F>(&self, function: &'static F) -> Result<(), Error>
    where
        F: Fn() + Sync,
    {
        let _scope = self.enter()?;
        let data = ptr::from_ref(function).cast_mut().cast();
        let api = self.context.driver().api();
        // SAFETY: the stream is alive; the function takes a pointer to an `F`, which lives for
        // ever.
        unsafe { api.launch_host_func.call(self.as_raw(), Some(run_host_function::<F>), data) }
    }
}

/// A closure on its way through the driver.
struct Callback<F> {
    callback: F,
    release: Arc<Release>,
}

unsafe extern "C" fn run_once<F>(_stream: CUstream, status: CUresult, data: *mut c_void)
where
    F: FnOnce(Result<(), CudaError>),
{
    // SAFETY: `add_callback` sent a boxed `Callback<F>`, and the driver runs a callback exactly
    // once (Driver API, cuStreamAddCallback).
    let boxed = unsafe { Box::from_raw(data.cast::<Callback<F>>()) };
    let Callback { callback, release } = *boxed;
    let status = CudaError::new(status).map_or(Ok(()), Err);
    if contained(|| callback(status)) {
        release.note_panic();
    }
}

/// Calls the `F` behind `data`; a panic in it ends here.
///
/// # Safety
///
/// `data` points to an `F` that lives until the call is over.
pub(crate) unsafe extern "C" fn run_host_function<F>(data: *mut c_void)
where
    F: Fn() + Sync,
{
    // SAFETY: the caller's promise; the type may be used from any thread.
    let function = unsafe { &*data.cast::<F>() };
    contained(function);
}

/// Runs `function` and says whether it panicked.
///
/// The panic has been printed by the panic hook. Its payload is leaked: dropping it is foreign
/// code, which could panic again.
fn contained(function: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(function)) {
        Ok(()) => false,
        Err(payload) => {
            let _payload = ManuallyDrop::new(payload);
            true
        }
    }
}
