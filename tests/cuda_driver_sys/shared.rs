#![expect(unsafe_code, reason = "calls the driver through the other crate")]
//! Objects made through one crate and used through the other.

use std::ptr;

use cuda_driver_sys as theirs;
use wharf::driver::compat::Raw;
use wharf::driver::{EventKind, Uuid};
use wharf::sys::bindings as ours;
use wharf::{Context, CudaError, Driver, Event, Stream};

/// Panics unless the call of the other crate succeeds.
macro_rules! check {
    ($call:expr) => {{
        // SAFETY: handles are alive and pointers are to locals that outlive the call.
        let result = unsafe { $call };
        assert_eq!(result, theirs::cudaError_enum::CUDA_SUCCESS);
    }};
}

fn driver() -> Driver {
    Driver::load().expect("the libcuda that is linked has a device")
}

#[test]
fn their_stream_and_memory_are_used_here() {
    let driver = driver();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _scope = context.enter().unwrap();
    let (mut stream, mut address) = (ptr::null_mut(), 0);
    check!(theirs::cuStreamCreate(&raw mut stream, 1));
    check!(theirs::cuMemAlloc_v2(&raw mut address, 64));

    // SAFETY: the stream is of this context and is destroyed below, after its last use.
    let borrowed = unsafe { Stream::borrow_raw(Raw::from(stream).0, &context) };
    let mut result = [0_u8; 64];
    // SAFETY: the memory is 64 bytes and is freed after the stream has been waited for.
    unsafe { borrowed.fill_d8(address, 7, 64) }.unwrap();
    // SAFETY: both are 64 bytes and live until the stream has been waited for.
    unsafe { borrowed.copy_dtoh(result.as_mut_ptr().cast(), address, 64) }.unwrap();
    borrowed.synchronize().unwrap();
    assert_eq!(result, [7; 64]);
    drop(borrowed);

    check!(theirs::cuStreamDestroy_v2(stream));
    check!(theirs::cuMemFree_v2(address));
}

#[test]
fn our_objects_are_used_there() {
    let driver = driver();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let event = Event::new(&context, EventKind::Ordering).unwrap();
    let mut before = ptr::null_mut();
    check!(theirs::cuCtxGetCurrent(&raw mut before));
    check!(theirs::cuCtxSetCurrent((&context).into()));
    check!(theirs::cuEventRecord((&event).into(), (&stream).into()));
    check!(theirs::cuStreamSynchronize((&stream).into()));
    check!(theirs::cuCtxSetCurrent(before));
    assert!(event.query().unwrap());
}

#[test]
fn their_current_context_is_borrowed_here() {
    let driver = driver();
    let device = driver.device(0).unwrap();
    let mut raw = ptr::null_mut();
    check!(theirs::cuDevicePrimaryCtxRetain(&raw mut raw, (&device).into()));
    check!(theirs::cuCtxSetCurrent(raw));
    let context = Context::current(&driver).unwrap().unwrap();
    assert_eq!(theirs::CUcontext::from(&context), raw);
    assert_eq!(context.device(), &device);
    drop(context);
    check!(theirs::cuCtxSetCurrent(ptr::null_mut()));
    check!(theirs::cuDevicePrimaryCtxRelease((&device).into()));
}

#[test]
fn identifiers_and_codes_convert() {
    let device = driver().device(0).unwrap();
    let uuid = device.uuid().unwrap();
    let mut raw = theirs::CUuuid { bytes: [0; 16] };
    check!(theirs::cuDeviceGetUuid(&raw mut raw, (&device).into()));
    assert_eq!(Uuid::from(raw), uuid);
    assert_eq!(theirs::CUuuid::from(uuid).bytes, raw.bytes);
    let code = Raw::from(theirs::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY).0;
    assert_eq!(CudaError::new(code), Some(CudaError::OUT_OF_MEMORY));
}

/// There and back, every handle is the same pointer.
#[test]
fn handles_survive_the_round_trip() {
    macro_rules! round_trip {
        ($($name:ident)+) => {$(
            let handle: ours::$name = ptr::without_provenance_mut(0x1230);
            let there: theirs::$name = Raw(handle).into();
            assert_eq!(there.addr(), 0x1230);
            assert_eq!(Raw::<ours::$name>::from(there).0, handle);
        )+};
    }
    round_trip! {
        CUcontext CUmodule CUfunction CUarray CUmipmappedArray CUtexref CUsurfref CUevent CUstream
        CUgraphicsResource CUexternalSemaphore CUgraph CUgraphNode CUgraphExec CUlinkState
    }
    let reserved = [9; 64];
    let there: theirs::CUipcMemHandle = Raw(ours::CUipcMemHandle_v1 { reserved }).into();
    assert_eq!(there.reserved, reserved);
    assert_eq!(Raw::<ours::CUipcMemHandle_v1>::from(there).0.reserved, reserved);
    let there: theirs::CUipcEventHandle = Raw(ours::CUipcEventHandle_v1 { reserved }).into();
    assert_eq!(Raw::<ours::CUipcEventHandle_v1>::from(there).0.reserved, reserved);
    // The same integers in both: no conversion is needed.
    let _device: ours::CUdevice = theirs::CUdevice::default();
    let _address: ours::CUdeviceptr = theirs::CUdeviceptr::default();
    let _allocation: ours::CUmemGenericAllocationHandle =
        theirs::CUmemGenericAllocationHandle::default();
}
