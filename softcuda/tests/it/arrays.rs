//! Arrays.

use std::ffi::c_void;
use std::ptr;

use softcuda::Schedule;
use wharf_sys::bindings::{
    CUDA_ARRAY_DESCRIPTOR_v2, CUDA_ARRAY3D_DESCRIPTOR_v2, CUDA_MEMCPY2D_v2, CUarray,
    CUarray_format as Format, CUmemorytype, CUresult, PFN_cuArray3DCreate_v3020,
    PFN_cuArray3DGetDescriptor_v3020, PFN_cuArrayCreate_v3020, PFN_cuArrayDestroy_v2000,
    PFN_cuMemcpy2D_v3020, PFN_cuMemcpyAtoD_v3020, PFN_cuMemcpyAtoH_v3020,
    PFN_cuMemcpyAtoHAsync_v3020, PFN_cuMemcpyHtoA_v3020,
};

use crate::support::Rig;

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const LAYERED: u32 = 1;
const CUBEMAP: u32 = 4;

fn create(
    [width, height, depth]: [usize; 3],
    channels: u32,
    flags: u32,
) -> Result<CUarray, CUresult> {
    let create = entry!("cuArray3DCreate" 3020 PFN_cuArray3DCreate_v3020);
    let descriptor = CUDA_ARRAY3D_DESCRIPTOR_v2 {
        Width: width,
        Height: height,
        Depth: depth,
        Format: Format::CU_AD_FORMAT_UNSIGNED_INT32,
        NumChannels: channels,
        Flags: flags,
    };
    let mut array = ptr::null_mut();
    match unsafe { create(&raw mut array, &raw const descriptor) } {
        OK => Ok(array),
        error => Err(error),
    }
}

#[test]
fn every_shape_is_given_back_as_it_was_asked_for() {
    let _rig = Rig::new(Schedule::Async);
    let get = entry!("cuArray3DGetDescriptor" 3020 PFN_cuArray3DGetDescriptor_v3020);
    let shapes = [
        ([10, 0, 0], 0),
        ([10, 20, 0], 0),
        ([10, 20, 30], 0),
        ([10, 0, 20], LAYERED),
        ([10, 20, 30], LAYERED),
        ([4, 4, 6], CUBEMAP),
        ([4, 4, 24], CUBEMAP | LAYERED),
    ];
    for (shape, flags) in shapes {
        let array = create(shape, 2, flags).unwrap();
        let mut known: CUDA_ARRAY3D_DESCRIPTOR_v2 = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { get(&raw mut known, array) }, OK);
        assert_eq!(
            ([known.Width, known.Height, known.Depth], known.Flags, known.NumChannels),
            (shape, flags, 2)
        );
    }
}

#[test]
fn shapes_that_no_array_has_are_refused() {
    let _rig = Rig::new(Schedule::Async);
    let shapes = [
        ([0, 0, 0], 1, 0),
        ([0, 4, 4], 1, 0),
        ([4, 0, 4], 1, 0),
        ([4, 4, 0], 3, 0),
        ([4, 5, 6], 1, CUBEMAP),
        ([4, 4, 5], 1, CUBEMAP),
        ([4, 4, 10], 1, CUBEMAP | LAYERED),
        ([4, 4, 0], 1, LAYERED),
        ([4, 4, 4], 1, 0x8000),
        ([usize::MAX, 0, 0], 1, 0),
        ([1 << 20, 1 << 20, 0], 1, 0),
    ];
    for (shape, channels, flags) in shapes {
        assert_eq!(create(shape, channels, flags), Err(INVALID), "{shape:?} {channels} {flags:#x}");
    }
}

#[test]
fn bytes_go_into_a_row_and_come_back() {
    for schedule in [Schedule::Async, Schedule::Late] {
        let rig = Rig::new(schedule);
        let create = entry!("cuArrayCreate" 3020 PFN_cuArrayCreate_v3020);
        let descriptor = CUDA_ARRAY_DESCRIPTOR_v2 {
            Width: 16,
            Height: 0,
            Format: Format::CU_AD_FORMAT_SIGNED_INT8,
            NumChannels: 1,
        };
        let mut array = ptr::null_mut();
        assert_eq!(unsafe { create(&raw mut array, &raw const descriptor) }, OK);
        let htoa = entry!("cuMemcpyHtoA" 3020 PFN_cuMemcpyHtoA_v3020);
        let atoh = entry!("cuMemcpyAtoH" 3020 PFN_cuMemcpyAtoH_v3020);
        let atoh_async = entry!("cuMemcpyAtoHAsync" 3020 PFN_cuMemcpyAtoHAsync_v3020);
        let atod = entry!("cuMemcpyAtoD" 3020 PFN_cuMemcpyAtoD_v3020);
        let (source, mut back, device) = ([5_u8; 8], [0_u8; 8], rig.device(8));
        let to: *mut c_void = back.as_mut_ptr().cast();
        unsafe {
            assert_eq!(htoa(array, 4, source.as_ptr().cast(), 8), OK);
            assert_eq!(htoa(array, 9, source.as_ptr().cast(), 8), INVALID, "one byte too far");
            assert_eq!(atoh(to, array, 4, 8), OK);
            assert_eq!(atoh_async(to, array, 4, 8, rig.stream(1)), OK);
            assert_eq!(atod(device, array, 4, 8), OK);
        }
        assert_eq!(back, source);
        assert_eq!(rig.read(device, 8), source);
    }
}

#[test]
fn a_box_is_copied_between_memory_and_an_array() {
    let rig = Rig::new(Schedule::Late);
    let copy_2d = entry!("cuMemcpy2D" 3020 PFN_cuMemcpy2D_v3020);
    let array = create([8, 4, 0], 1, 0).unwrap();
    let source: Vec<u32> = (0..32).collect();
    let mut back = [0_u32; 4];
    let mut copy: CUDA_MEMCPY2D_v2 = unsafe { std::mem::zeroed() };
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
    copy.srcHost = source.as_ptr().cast();
    copy.srcPitch = 32;
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_ARRAY;
    copy.dstArray = array;
    (copy.WidthInBytes, copy.Height) = (32, 4);
    assert_eq!(unsafe { copy_2d(&raw const copy) }, OK);
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_ARRAY;
    copy.srcArray = array;
    (copy.srcXInBytes, copy.srcY) = (8, 1);
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
    copy.dstHost = back.as_mut_ptr().cast();
    copy.dstPitch = 8;
    (copy.WidthInBytes, copy.Height) = (8, 2);
    assert_eq!(unsafe { copy_2d(&raw const copy) }, OK);
    assert_eq!(back, [10, 11, 18, 19]);
    copy.srcXInBytes = 6;
    assert_eq!(unsafe { copy_2d(&raw const copy) }, INVALID, "it cuts an element");
    (copy.srcXInBytes, copy.srcY) = (8, 3);
    assert_eq!(unsafe { copy_2d(&raw const copy) }, INVALID, "it leaves the array");
    drop(rig);
}

#[test]
fn a_destroyed_array_is_unknown() {
    let _rig = Rig::new(Schedule::Async);
    let destroy = entry!("cuArrayDestroy" 2000 PFN_cuArrayDestroy_v2000);
    let array = create([8, 0, 0], 1, 0).unwrap();
    unsafe {
        assert_eq!(destroy(array), OK);
        assert_eq!(destroy(array), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(destroy(ptr::null_mut()), CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
}
