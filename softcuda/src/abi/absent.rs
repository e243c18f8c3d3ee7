#![expect(unsafe_code, reason = "exports C functions")]
//! Entry points that are not built: each answers `NOT_SUPPORTED`.
//!
//! Loaders such as those of nv-codec-headers, which ffmpeg has, refuse a driver that lacks one
//! name, though the program never calls it.

use wharf_sys::CudaError;
use wharf_sys::bindings::CUresult;

use super::{Guard, Symbol, enter, name};
use crate::call::Call;

/// Lists entry points by the name of their signature and their exported symbol. No argument is
/// read, so the functions have none, which C's calling conventions allow.
macro_rules! absent {
    ($($pfn:ident: $symbol:ident;)+) => {
        $(
            #[doc = concat!("See `", stringify!($symbol), "` in the driver API reference.")]
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $symbol() -> CUresult {
                let absent = |_: Call| Err(CudaError::NOT_SUPPORTED);
                enter(name(stringify!($pfn)), Guard::Normal, false, absent)
            }
        )+

        pub(crate) static SYMBOLS: &[Symbol] =
            &[$(Symbol::new(stringify!($pfn), $symbol as *const ()),)+];

        #[cfg(test)]
        pub(crate) static PROBES: &[super::bad_input::Probe] =
            &[$(super::bad_input::Probe { symbol: stringify!($symbol), call: |_| $symbol() },)+];
    };
}

absent! {
    // Textures, by object and by reference.
    PFN_cuModuleGetTexRef_v2000: cuModuleGetTexRef;
    PFN_cuTexObjectCreate_v5000: cuTexObjectCreate;
    PFN_cuTexObjectDestroy_v5000: cuTexObjectDestroy;
    PFN_cuTexObjectGetResourceDesc_v5000: cuTexObjectGetResourceDesc;
    PFN_cuTexObjectGetResourceViewDesc_v5000: cuTexObjectGetResourceViewDesc;
    PFN_cuTexObjectGetTextureDesc_v5000: cuTexObjectGetTextureDesc;
    PFN_cuTexRefCreate_v2000: cuTexRefCreate;
    PFN_cuTexRefDestroy_v2000: cuTexRefDestroy;
    PFN_cuTexRefGetAddress_v3020: cuTexRefGetAddress_v2;
    PFN_cuTexRefGetAddressMode_v2000: cuTexRefGetAddressMode;
    PFN_cuTexRefGetArray_v2000: cuTexRefGetArray;
    PFN_cuTexRefGetBorderColor_v8000: cuTexRefGetBorderColor;
    PFN_cuTexRefGetFilterMode_v2000: cuTexRefGetFilterMode;
    PFN_cuTexRefGetFlags_v2000: cuTexRefGetFlags;
    PFN_cuTexRefGetFormat_v2000: cuTexRefGetFormat;
    PFN_cuTexRefGetMaxAnisotropy_v5000: cuTexRefGetMaxAnisotropy;
    PFN_cuTexRefGetMipmapFilterMode_v5000: cuTexRefGetMipmapFilterMode;
    PFN_cuTexRefGetMipmapLevelBias_v5000: cuTexRefGetMipmapLevelBias;
    PFN_cuTexRefGetMipmapLevelClamp_v5000: cuTexRefGetMipmapLevelClamp;
    PFN_cuTexRefGetMipmappedArray_v5000: cuTexRefGetMipmappedArray;
    PFN_cuTexRefSetAddress_v3020: cuTexRefSetAddress_v2;
    PFN_cuTexRefSetAddress2D_v4010: cuTexRefSetAddress2D_v3;
    PFN_cuTexRefSetAddressMode_v2000: cuTexRefSetAddressMode;
    PFN_cuTexRefSetArray_v2000: cuTexRefSetArray;
    PFN_cuTexRefSetBorderColor_v8000: cuTexRefSetBorderColor;
    PFN_cuTexRefSetFilterMode_v2000: cuTexRefSetFilterMode;
    PFN_cuTexRefSetFlags_v2000: cuTexRefSetFlags;
    PFN_cuTexRefSetFormat_v2000: cuTexRefSetFormat;
    PFN_cuTexRefSetMaxAnisotropy_v5000: cuTexRefSetMaxAnisotropy;
    PFN_cuTexRefSetMipmapFilterMode_v5000: cuTexRefSetMipmapFilterMode;
    PFN_cuTexRefSetMipmapLevelBias_v5000: cuTexRefSetMipmapLevelBias;
    PFN_cuTexRefSetMipmapLevelClamp_v5000: cuTexRefSetMipmapLevelClamp;
    PFN_cuTexRefSetMipmappedArray_v5000: cuTexRefSetMipmappedArray;
    // Surfaces.
    PFN_cuModuleGetSurfRef_v3000: cuModuleGetSurfRef;
    PFN_cuSurfObjectCreate_v5000: cuSurfObjectCreate;
    PFN_cuSurfObjectDestroy_v5000: cuSurfObjectDestroy;
    PFN_cuSurfObjectGetResourceDesc_v5000: cuSurfObjectGetResourceDesc;
    PFN_cuSurfRefGetArray_v3000: cuSurfRefGetArray;
    PFN_cuSurfRefSetArray_v3000: cuSurfRefSetArray;
    // Arrays with mipmaps.
    PFN_cuMipmappedArrayCreate_v5000: cuMipmappedArrayCreate;
    PFN_cuMipmappedArrayDestroy_v5000: cuMipmappedArrayDestroy;
    PFN_cuMipmappedArrayGetLevel_v5000: cuMipmappedArrayGetLevel;
    PFN_cuMipmappedArrayGetMemoryRequirements_v11060: cuMipmappedArrayGetMemoryRequirements;
    PFN_cuMipmappedArrayGetSparseProperties_v11010: cuMipmappedArrayGetSparseProperties;
    // Graphics: resources of OpenGL, EGL and VDPAU.
    PFN_cuEGLStreamConsumerAcquireFrame_v7000: cuEGLStreamConsumerAcquireFrame;
    PFN_cuEGLStreamConsumerConnect_v7000: cuEGLStreamConsumerConnect;
    PFN_cuEGLStreamConsumerConnectWithFlags_v8000: cuEGLStreamConsumerConnectWithFlags;
    PFN_cuEGLStreamConsumerDisconnect_v7000: cuEGLStreamConsumerDisconnect;
    PFN_cuEGLStreamConsumerReleaseFrame_v7000: cuEGLStreamConsumerReleaseFrame;
    PFN_cuEGLStreamProducerConnect_v7000: cuEGLStreamProducerConnect;
    PFN_cuEGLStreamProducerDisconnect_v7000: cuEGLStreamProducerDisconnect;
    PFN_cuEGLStreamProducerPresentFrame_v7000: cuEGLStreamProducerPresentFrame;
    PFN_cuEGLStreamProducerReturnFrame_v7000: cuEGLStreamProducerReturnFrame;
    PFN_cuEventCreateFromEGLSync_v9000: cuEventCreateFromEGLSync;
    PFN_cuGLCtxCreate_v3020: cuGLCtxCreate_v2;
    PFN_cuGLGetDevices_v4010: cuGLGetDevices;
    PFN_cuGLGetDevices_v6050: cuGLGetDevices_v2;
    PFN_cuGLInit_v2000: cuGLInit;
    PFN_cuGLMapBufferObject_v3020: cuGLMapBufferObject;
    PFN_cuGLMapBufferObjectAsync_v3020: cuGLMapBufferObjectAsync;
    PFN_cuGLRegisterBufferObject_v2000: cuGLRegisterBufferObject;
    PFN_cuGLSetBufferObjectMapFlags_v2030: cuGLSetBufferObjectMapFlags;
    PFN_cuGLUnmapBufferObject_v2000: cuGLUnmapBufferObject;
    PFN_cuGLUnmapBufferObjectAsync_v2030: cuGLUnmapBufferObjectAsync;
    PFN_cuGLUnregisterBufferObject_v2000: cuGLUnregisterBufferObject;
    PFN_cuGraphicsEGLRegisterImage_v7000: cuGraphicsEGLRegisterImage;
    PFN_cuGraphicsGLRegisterBuffer_v3000: cuGraphicsGLRegisterBuffer;
    PFN_cuGraphicsGLRegisterImage_v3000: cuGraphicsGLRegisterImage;
    PFN_cuGraphicsMapResources_v3000: cuGraphicsMapResources;
    PFN_cuGraphicsResourceGetMappedEglFrame_v7000: cuGraphicsResourceGetMappedEglFrame;
    PFN_cuGraphicsResourceGetMappedMipmappedArray_v5000: cuGraphicsResourceGetMappedMipmappedArray;
    PFN_cuGraphicsResourceGetMappedPointer_v3020: cuGraphicsResourceGetMappedPointer_v2;
    PFN_cuGraphicsResourceSetMapFlags_v6050: cuGraphicsResourceSetMapFlags_v2;
    PFN_cuGraphicsSubResourceGetMappedArray_v3000: cuGraphicsSubResourceGetMappedArray;
    PFN_cuGraphicsUnmapResources_v3000: cuGraphicsUnmapResources;
    PFN_cuGraphicsUnregisterResource_v3000: cuGraphicsUnregisterResource;
    PFN_cuGraphicsVDPAURegisterOutputSurface_v3010: cuGraphicsVDPAURegisterOutputSurface;
    PFN_cuGraphicsVDPAURegisterVideoSurface_v3010: cuGraphicsVDPAURegisterVideoSurface;
    PFN_cuVDPAUCtxCreate_v3020: cuVDPAUCtxCreate_v2;
    PFN_cuVDPAUGetDevice_v3010: cuVDPAUGetDevice;
    // Memory and semaphores of other interfaces.
    PFN_cuDestroyExternalMemory_v10000: cuDestroyExternalMemory;
    PFN_cuDestroyExternalSemaphore_v10000: cuDestroyExternalSemaphore;
    PFN_cuExternalMemoryGetMappedBuffer_v10000: cuExternalMemoryGetMappedBuffer;
    PFN_cuExternalMemoryGetMappedMipmappedArray_v10000: cuExternalMemoryGetMappedMipmappedArray;
    PFN_cuImportExternalMemory_v10000: cuImportExternalMemory;
    PFN_cuImportExternalSemaphore_v10000: cuImportExternalSemaphore;
    PFN_cuSignalExternalSemaphoresAsync_v10000: cuSignalExternalSemaphoresAsync;
    PFN_cuWaitExternalSemaphoresAsync_v10000: cuWaitExternalSemaphoresAsync;
    // Parameters of kernels, which an opaque image does not tell.
    PFN_cuFuncGetParamInfo_v12040: cuFuncGetParamInfo;
    PFN_cuKernelGetParamInfo_v12040: cuKernelGetParamInfo;
    // The form of CUDA 2.0, with addresses of 32 bits.
    PFN_cuModuleGetGlobal_v2000: cuModuleGetGlobal;
}
