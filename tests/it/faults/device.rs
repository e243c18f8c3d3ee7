#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! The driver, devices and contexts.

use core::ffi::c_char;
use core::ptr;

use wharf::sys::bindings::{CUcontext, CUresult};
use wharf::{Context, DeviceAttribute, Error};

use super::{Exercise, Guard, World, call};

pub(super) const EXERCISES: &[Exercise] = &[
    // What every world calls before its exercise.
    ("cuInit", 2000, |_| Ok(())),
    ("cuDeviceGetCount", 2000, |_| Ok(())),
    ("cuDeviceGet", 2000, |_| Ok(())),
    ("cuDevicePrimaryCtxRetain", 7000, |_| Ok(())),
    ("cuCtxGetCurrent", 4000, |_| Ok(())),
    ("cuCtxSetCurrent", 4000, |_| Ok(())),
    ("cuDriverGetVersion", 2020, |w| w.driver.version().map(drop)),
    ("cuGetErrorName", 6000, |w| {
        let mut text = ptr::null();
        call!(w, get_error_name(CUresult::CUDA_ERROR_UNKNOWN, &raw mut text))
    }),
    ("cuGetErrorString", 6000, |w| {
        let mut text = ptr::null();
        call!(w, get_error_string(CUresult::CUDA_ERROR_UNKNOWN, &raw mut text))
    }),
    ("cuDeviceGetName", 2000, |w| w.context.device().name().map(drop)),
    ("cuDeviceGetUuid", 11040, |w| w.context.device().uuid().map(drop)),
    ("cuDeviceTotalMem", 3020, |w| w.context.device().total_memory().map(drop)),
    ("cuDeviceGetAttribute", 2000, |w| {
        w.context.device().attribute(DeviceAttribute::MULTIPROCESSOR_COUNT).map(drop)
    }),
    ("cuDeviceGetPCIBusId", 4010, |w| {
        let mut text: [c_char; 16] = [0; 16];
        call!(w, device_get_pci_bus_id(text.as_mut_ptr(), 16, w.ordinal()))
    }),
    ("cuDeviceCanAccessPeer", 4000, |w| {
        let mut can = 0;
        call!(w, device_can_access_peer(&raw mut can, w.ordinal(), w.driver.device(1)?.as_raw()))
    }),
    ("cuDevicePrimaryCtxRelease", 11000, |w| {
        let outcome = Context::retain(w.context.device())?.close();
        if outcome.is_err() {
            call!(w, device_primary_ctx_release(w.ordinal()))?;
        }
        outcome
    }),
    ("cuDevicePrimaryCtxGetState", 7000, |w| {
        let (mut flags, mut active) = (0, 0);
        call!(w, device_primary_ctx_get_state(w.ordinal(), &raw mut flags, &raw mut active))
    }),
    ("cuDevicePrimaryCtxSetFlags", 11000, |w| {
        call!(w, device_primary_ctx_set_flags(w.ordinal(), 0))
    }),
    ("cuDevicePrimaryCtxReset", 11000, |w| {
        call!(w, device_primary_ctx_reset(w.driver.device(1)?.as_raw()))
    }),
    ("cuCtxCreate", 3020, |w| created(w).map(drop)),
    ("cuCtxDestroy", 4000, |w| created(w)?.close()),
    ("cuCtxPushCurrent", 4000, |w| pushed(w).map(drop)),
    ("cuCtxPopCurrent", 4000, |w| pushed(w)?.close()),
    ("cuCtxGetDevice", 2000, |w| Context::current(&w.driver).map(drop)),
    ("cuCtxGetApiVersion", 3020, |w| {
        let mut version = 0;
        call!(w, ctx_get_api_version(w.context.as_raw(), &raw mut version))
    }),
    ("cuCtxGetStreamPriorityRange", 5050, |w| w.context.stream_priorities().map(drop)),
    ("cuCtxSynchronize", 2000, |w| w.context.synchronize()),
    ("cuCtxEnablePeerAccess", 4000, |w| {
        let peer = Context::retain(&w.driver.device(1)?)?;
        call!(w, ctx_enable_peer_access(peer.as_raw(), 0))
    }),
    ("cuCtxGetId", 12000, |w| {
        let mut id = 0;
        call!(w, ctx_get_id(w.context.as_raw(), &raw mut id))
    }),
];

/// A context of its own, which the call also makes current: taken off again at once.
fn created(w: &World) -> Result<Guard<'_, CUcontext>, Error> {
    let mut context = ptr::null_mut();
    call!(w, ctx_create(&raw mut context, 0, w.ordinal()))?;
    let guard = w.guard(context, |w, context| call!(w, ctx_destroy(context)));
    let mut popped = ptr::null_mut();
    call!(w, ctx_pop_current(&raw mut popped))?;
    Ok(guard)
}

/// The world's context, pushed once more.
fn pushed(w: &World) -> Result<Guard<'_, CUcontext>, Error> {
    call!(w, ctx_push_current(w.context.as_raw()))?;
    Ok(w.guard(w.context.as_raw(), |w, _| {
        let mut popped = ptr::null_mut();
        call!(w, ctx_pop_current(&raw mut popped))
    }))
}
