#![expect(unsafe_code, reason = "exports C functions")]
//! Profiler control: there is no profiler, so switching it on and off succeeds and does nothing.

use wharf_sys::bindings::CUresult;

use super::exports;
use crate::call::Call;
use crate::errors::Status;

/// `cudaProfilerTypedefs.h`, which the bindings leave out.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuProfilerStart_v4000 = Option<unsafe extern "C" fn() -> CUresult>;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuProfilerStop_v4000 = Option<unsafe extern "C" fn() -> CUresult>;

exports! {
    Normal PFN_cuProfilerStart_v4000: cuProfilerStart() => switch;
    Normal PFN_cuProfilerStop_v4000: cuProfilerStop() => switch;
}

fn switch(call: Call) -> Status {
    call.context(&call.lock()).map(|_| ())
}
