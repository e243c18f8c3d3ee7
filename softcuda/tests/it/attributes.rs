//! Attributes of streams, contexts as a whole, settings of tools, what is not shared.

use std::ffi::c_void;
use std::ptr;

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUipcMemHandle_v1, CUlaunchAttributeID as Id, CUresult, CUstream, CUstreamAttrValue_v1,
    CUsynchronizationPolicy, PFN_cuCtxAttach_v2000, PFN_cuCtxDetach_v2000,
    PFN_cuCtxRecordEvent_v12050, PFN_cuCtxWaitEvent_v12050, PFN_cuIpcGetMemHandle_v4010,
    PFN_cuStreamCopyAttributes_v11000, PFN_cuStreamGetAttribute_v11000,
    PFN_cuStreamSetAttribute_v11000,
};

use crate::support::{Rig, code};

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

fn get(stream: CUstream, id: Id) -> Result<CUstreamAttrValue_v1, CUresult> {
    let get = entry!("cuStreamGetAttribute" 11000 PFN_cuStreamGetAttribute_v11000);
    let mut value = CUstreamAttrValue_v1 { pad: [0; 64] };
    match unsafe { get(stream, id, &raw mut value) } {
        OK => Ok(value),
        error => Err(error),
    }
}

#[test]
fn a_streams_attributes_are_kept_and_copied() {
    let rig = Rig::new(Schedule::Async);
    let set = entry!("cuStreamSetAttribute" 11000 PFN_cuStreamSetAttribute_v11000);
    let copy = entry!("cuStreamCopyAttributes" 11000 PFN_cuStreamCopyAttributes_v11000);
    let (first, second) = (rig.stream(1), rig.stream(1));
    let mut value = CUstreamAttrValue_v1 { pad: [0; 64] };
    value.syncPolicy = CUsynchronizationPolicy::CU_SYNC_POLICY_YIELD;
    let policy = Id::CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY;
    unsafe {
        assert_eq!(set(first, policy, &raw const value), OK);
        assert_eq!(copy(second, first), OK);
        assert_eq!(get(second, policy).unwrap().syncPolicy, value.syncPolicy);
        value.priority = -2;
        assert_eq!(set(first, Id::CU_LAUNCH_ATTRIBUTE_PRIORITY, &raw const value), OK);
        value.priority = 1;
        assert_eq!(set(first, Id::CU_LAUNCH_ATTRIBUTE_PRIORITY, &raw const value), INVALID);
        assert_eq!(set(first, Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &raw const value), INVALID);
        let mut priority = 0;
        rig.api.stream_get_priority.call(first, &raw mut priority).unwrap();
        assert_eq!(priority, -2);
    }
    assert!(get(first, Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION).is_err());
}

#[test]
fn an_event_of_a_context_is_all_its_work_and_a_waiting_context_starts_none_before() {
    let rig = Rig::new(Schedule::Late);
    let record = entry!("cuCtxRecordEvent" 12050 PFN_cuCtxRecordEvent_v12050);
    let wait = entry!("cuCtxWaitEvent" 12050 PFN_cuCtxWaitEvent_v12050);
    let (first, second, event) = (rig.stream(1), rig.stream(1), rig.event(2));
    let (one, two) = (rig.device(4), rig.device(4));
    unsafe {
        rig.api.memset_d32_async.call(one, 1, 1, first).unwrap();
        rig.api.memset_d32_async.call(two, 1, 1, second).unwrap();
        assert_eq!(record(rig.context, event), OK);
        assert_eq!(code(rig.api.event_query.call(event)), CudaError::NOT_READY);
        assert_eq!(wait(ptr::null_mut(), event), OK);
        let third = rig.stream(1);
        rig.api.memset_d32_async.call(one, 2, 1, third).unwrap();
        rig.synchronize(third);
        rig.api.event_query.call(event).unwrap();
        rig.api.stream_query.call(second).unwrap();
        assert_eq!(record(rig.context, ptr::null_mut()), CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
    assert_eq!(rig.read(one, 4), 2_u32.to_ne_bytes());
}

#[test]
fn a_context_goes_with_its_last_attachment() {
    let rig = Rig::new(Schedule::Async);
    let attach = entry!("cuCtxAttach" 2000 PFN_cuCtxAttach_v2000);
    let detach = entry!("cuCtxDetach" 2000 PFN_cuCtxDetach_v2000);
    let (mut context, mut same, mut current) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    unsafe {
        rig.api.ctx_create.call(&raw mut context, 0, 0).unwrap();
        assert_eq!(attach(&raw mut same, 1), INVALID);
        assert_eq!(attach(&raw mut same, 0), OK);
        assert_eq!(same, context);
        assert_eq!(detach(rig.context), CUresult::CUDA_ERROR_INVALID_CONTEXT, "not current");
        assert_eq!(detach(context), OK);
        rig.api.ctx_get_current.call(&raw mut current).unwrap();
        assert_eq!(current, context);
        assert_eq!(detach(context), OK);
        rig.api.ctx_get_current.call(&raw mut current).unwrap();
    }
    assert_eq!(current, rig.context, "the context was popped");
}

#[test]
fn settings_of_core_dumps_are_given_back() {
    type Setting = Option<unsafe extern "C" fn(u32, *mut c_void, *mut usize) -> CUresult>;
    let _rig = Rig::new(Schedule::Async);
    let set = entry!("cuCoredumpSetAttributeGlobal" 12010 Setting);
    let get = entry!("cuCoredumpGetAttributeGlobal" 12010 Setting);
    let (mut name, mut back, mut size) = (*b"a file\0", [0_u8; 1024], 7);
    let (from, to): (*mut c_void, *mut c_void) =
        (name.as_mut_ptr().cast(), back.as_mut_ptr().cast());
    unsafe {
        assert_eq!(set(5, from, &raw mut size), OK);
        size = 3;
        assert_eq!(get(5, to, &raw mut size), INVALID, "no room");
        assert_eq!(get(5, ptr::null_mut(), &raw mut size), OK);
        assert_eq!(size, 7);
        assert_eq!(get(5, to, &raw mut size), OK);
        assert_eq!(get(99, to, &raw mut size), INVALID);
    }
    assert_eq!(&back[..7], b"a file\0");
}

#[test]
fn memory_is_not_shared_with_other_processes() {
    let rig = Rig::new(Schedule::Async);
    let export = entry!("cuIpcGetMemHandle" 4010 PFN_cuIpcGetMemHandle_v4010);
    let mut handle: CUipcMemHandle_v1 = unsafe { std::mem::zeroed() };
    assert_eq!(
        unsafe { export(&raw mut handle, rig.device(8)) },
        CUresult::CUDA_ERROR_NOT_SUPPORTED
    );
    assert_eq!(unsafe { export(&raw mut handle, 0x1000) }, INVALID);
}
