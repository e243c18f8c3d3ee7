//! The structures that both crates have lie in memory alike.

use std::mem::offset_of;

use cuda_driver_sys as theirs;
use wharf::sys::bindings as ours;

macro_rules! agree {
    ($($name:ident { $($field:ident)* })+) => {$(
        assert_eq!(size_of::<ours::$name>(), size_of::<theirs::$name>(), stringify!($name));
        assert_eq!(align_of::<ours::$name>(), align_of::<theirs::$name>(), stringify!($name));
        $(assert_eq!(
            offset_of!(ours::$name, $field),
            offset_of!(theirs::$name, $field),
            concat!(stringify!($name), "::", stringify!($field))
        );)*
    )+};
}

#[test]
fn copies_and_arrays() {
    agree! {
        CUDA_MEMCPY2D_st {
            srcXInBytes srcY srcMemoryType srcHost srcDevice srcArray srcPitch dstXInBytes dstY
            dstMemoryType
            dstHost dstDevice dstArray dstPitch WidthInBytes Height
        }
        CUDA_MEMCPY3D_st {
            srcXInBytes srcY srcZ srcLOD srcMemoryType srcHost srcDevice srcArray reserved0
            srcPitch srcHeight
            dstXInBytes dstY dstZ dstLOD dstMemoryType dstHost dstDevice dstArray reserved1
            dstPitch dstHeight
            WidthInBytes Height Depth
        }
        CUDA_MEMCPY3D_PEER_st {
            srcXInBytes srcY srcZ srcLOD srcMemoryType srcHost srcDevice srcArray srcContext
            srcPitch srcHeight
            dstXInBytes dstY dstZ dstLOD dstMemoryType dstHost dstDevice dstArray dstContext
            dstPitch dstHeight
            WidthInBytes Height Depth
        }
        CUDA_ARRAY_DESCRIPTOR_st { Width Height Format NumChannels }
        CUDA_ARRAY3D_DESCRIPTOR_st { Width Height Depth Format NumChannels Flags }
    }
}

#[test]
fn nodes_and_launches() {
    agree! {
        CUDA_MEMSET_NODE_PARAMS_st { dst pitch value elementSize width height }
        CUDA_HOST_NODE_PARAMS_st { fn_ userData }
        CUDA_KERNEL_NODE_PARAMS_st {
            func gridDimX gridDimY gridDimZ blockDimX blockDimY blockDimZ sharedMemBytes
            kernelParams extra
        }
        CUDA_LAUNCH_PARAMS_st {
            function gridDimX gridDimY gridDimZ blockDimX blockDimY blockDimZ sharedMemBytes
            hStream kernelParams
        }
        CUstreamBatchMemOpParams_union { operation waitValue writeValue flushRemoteWrites pad }
        CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st {
            operation address __bindgen_anon_1 flags alias
        }
        CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st {
            operation address __bindgen_anon_1 flags alias
        }
        CUstreamBatchMemOpParams_union_CUstreamMemOpFlushRemoteWritesParams_st { operation flags }
        CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS_st { params flags reserved }
        CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS_st { params flags reserved }
    }
}

#[test]
fn devices_and_memory() {
    agree! {
        CUdevprop_st {
            maxThreadsPerBlock maxThreadsDim maxGridSize sharedMemPerBlock totalConstantMemory
            SIMDWidth memPitch
            regsPerBlock clockRate textureAlign
        }
        CUuuid_st { bytes }
        CUipcEventHandle_st { reserved }
        CUipcMemHandle_st { reserved }
        CUmemLocation_st { type_ }
        CUmemAccessDesc_st { location flags }
        CUmemAllocationProp_st { type_ requestedHandleTypes location win32HandleMetaData }
    }
    // Later headers gave these fields new names, in the same places.
    assert_eq!(
        offset_of!(ours::CUmemLocation_st, __bindgen_anon_1),
        offset_of!(theirs::CUmemLocation_st, id)
    );
    let flags = offset_of!(ours::CUmemAllocationProp_st, allocFlags);
    assert_eq!(flags, offset_of!(theirs::CUmemAllocationProp_st, reserved));
}
