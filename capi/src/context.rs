#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles")]
//! Contexts, and the driver below them.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use wharf::driver::CaptureElsewhere;
use wharf::{Context, Driver};

use crate::args::{millis, out, out_or_none};
use crate::status::{Failure, call, tell_drop, wharf_status};
use crate::table::{get, handle, insert, remove};

/// A CUDA context.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_context {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_context, ContextObject, "context");

/// A context, and the captures that were announced with it.
#[derive(Debug)]
pub struct ContextObject {
    pub(crate) context: Context,
    captures: Mutex<Vec<CaptureElsewhere>>,
}

/// Retains the primary context of a device, which the runtime API and PyTorch use too. Loads the
/// driver at the first call: the library that the environment variable WHARF_LIBCUDA names, or
/// libcuda.so.1.
///
/// Thread-safe.
///
/// # Safety
///
/// `context` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_context_retain(
    ordinal: i32,
    context: *mut wharf_context,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(context, "context") }?;
        let retained = Context::retain(&driver()?.device(ordinal)?)?;
        to.set(insert(ContextObject::new(retained))?);
        Ok(())
    })
}

/// Borrows a context, a CUcontext, which is destroyed after everything that is made with it.
///
/// Thread-safe.
///
/// # Safety
///
/// * `raw` is NULL or a context, and is not destroyed before the handle and all that is made with
///   it are released.
/// * `context` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_context_borrow(
    raw: *mut c_void,
    context: *mut wharf_context,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(context, "context") }?;
        if raw.is_null() {
            return Err(Failure::new(wharf_status::Null, "raw is NULL"));
        }
        let driver = driver()?;
        // SAFETY: the caller's promise.
        let borrowed = unsafe { Context::borrow_raw(raw.cast(), &driver) }?;
        to.set(insert(ContextObject::new(borrowed))?);
        Ok(())
    })
}

/// Releases a context. Streams, pools and sets that were made with it keep it alive.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_context_release(context: wharf_context) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { remove(context) }?;
        // What could be said against it is told to the log.
        _ = object.context.driver().drop_deferred();
        Ok(())
    })
}

/// Drops what destroyed graphs kept alive; writes how many owners were dropped, where `dropped` is
/// not NULL.
///
/// Thread-safe.
///
/// # Safety
///
/// `dropped` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_drop_deferred(
    context: wharf_context,
    dropped: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let count = unsafe { get(context) }?.context.driver().drop_deferred()?;
        // SAFETY: the caller's promise.
        if let Some(to) = unsafe { out_or_none(dropped) } {
            to.set(count);
        }
        Ok(())
    })
}

/// Waits until everything that graphs kept alive is dropped: to be called when all graphs are
/// destroyed, and before the context is.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_wait_deferred(
    context: wharf_context,
    timeout_ms: u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let driver = unsafe { get(context) }?.context.driver();
        Ok(driver.wait_deferred(millis(timeout_ms))?)
    })
}

/// Announces that streams are captured by other means than wharf, until
/// wharf_capture_elsewhere_end: meanwhile steps refuse streams that are being captured. May be
/// called several times; each has its end.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_capture_elsewhere_begin(context: wharf_context) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(context) }?;
        object.captures().push(object.context.driver().capture_elsewhere());
        Ok(())
    })
}

/// Ends an announcement of wharf_capture_elsewhere_begin.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_capture_elsewhere_end(context: wharf_context) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let ended = unsafe { get(context) }?.captures().pop();
        let text = "no capture was announced with this context";
        ended.map(drop).ok_or_else(|| Failure::new(wharf_status::Invalid, text))
    })
}

impl ContextObject {
    fn new(context: Context) -> Self {
        Self { context, captures: Mutex::default() }
    }

    fn captures(&self) -> std::sync::MutexGuard<'_, Vec<CaptureElsewhere>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process's driver, loaded at the first call that succeeds.
pub(crate) fn driver() -> Result<Driver, Failure> {
    static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
    let mut loaded = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(driver) = &*loaded {
        return Ok(driver.clone());
    }
    let driver = Driver::load()?;
    // A new driver has no hook yet.
    _ = driver.on_drop_error(tell_drop);
    Ok(loaded.insert(driver).clone())
}
