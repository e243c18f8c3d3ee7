#![expect(unsafe_code, reason = "addresses become functions here, row by row")]
//! Every entry point that wharf calls: the one list of names, types and versions.
//!
//! A row reads
//!
//! ```text
//! required mem_alloc: PFN_cuMemAlloc_v3020 "cuMemAlloc_v2";
//!    |         |               |                  |
//!    |         |               |                  symbol for dlsym
//!    |         |               signature in NVIDIA's cudaTypedefs.h; its name holds the name and
//!    |         |               the version that cuGetProcAddress is asked for: see `signature`
//!    |         field of `Api`
//!    a driver without it does not load; an `optional` one is an error when called
//! ```
//!
//! Entry points of CUDA 11.4 are required; later ones are optional.

use crate::entry::Entry;
use crate::error::Error;
use crate::load_error::LoadError;
use crate::process::Home;
use crate::signature;

macro_rules! table {
    ($($need:ident $field:ident: $pfn:ident $symbol:literal;)+) => {
        /// The function table of one loaded driver.
        ///
        /// A field is one entry point at one ABI version; its `call` has the signature of the
        /// driver API reference and checks the result. The number at the end of a signature's
        /// name is the CUDA version that introduced it, as 1000 * major + 10 * minor.
        #[derive(Debug)]
        pub struct Api {
            $(#[doc = concat!("`", $symbol, "`, with the signature `", stringify!($pfn), "`.")]
            #[doc(alias = $symbol)]
            pub $field: Entry<crate::bindings::$pfn>,)+
            home: Home,
        }

        impl Api {
            /// Fills the table from `resolve`, which maps a row to an address or null.
            ///
            /// # Safety
            ///
            /// What `resolve` returns for a row is null or the function that the row names,
            /// callable as long as the table.
            pub(crate) unsafe fn resolve(
                mut resolve: impl FnMut(&Row) -> *mut core::ffi::c_void,
            ) -> Result<Self, LoadError> {
                let home = Home::here();
                Ok(Self {
                    $($field: {
                        const ROW: Row = row!($need $pfn $symbol);
                        let address = resolved(&ROW, resolve(&ROW))?;
                        // SAFETY: `resolve` returns null or what the row names, whose
                        // signature at this version is `$pfn` (NVIDIA's cudaTypedefs.h).
                        unsafe { Entry::new(ROW.name, ROW.version, address, home.clone()) }
                    },)+
                    home,
                })
            }
        }

        /// The rows of the table, in its order.
        pub const ROWS: &[Row] = &[$(row!($need $pfn $symbol),)+];
    };
}

macro_rules! row {
    ($need:ident $pfn:ident $symbol:literal) => {
        Row {
            name: signature::name(stringify!($pfn)),
            version: signature::version(stringify!($pfn)),
            symbol: $symbol,
            required: matches!(stringify!($need).as_bytes(), b"required"),
        }
    };
}

impl Api {
    /// Whether this is the process in which the table was made. One load, no system call.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]: it is a fork of that one, where the driver is of no use.
    #[inline]
    pub fn check_fork(&self) -> Result<(), Error> {
        self.home.check()
    }

    /// Whether this process is a fork of the one in which the table was made. One load, no system
    /// call.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.home.is_forked()
    }

    /// The process in which the table was made, for what asks without the table.
    pub fn home(&self) -> &Home {
        &self.home
    }
}

/// One row of the table: what is asked of a driver, and what it is called when exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name that `cuGetProcAddress` knows.
    pub name: &'static str,
    /// The CUDA version whose signature is wanted, as 1000 * major + 10 * minor.
    pub version: u32,
    /// The exported symbol with that signature.
    pub symbol: &'static str,
    /// Whether a driver without it is refused.
    pub required: bool,
}

/// An absent required row is an error; an absent optional one stays null.
fn resolved(
    row: &Row,
    address: *mut core::ffi::c_void,
) -> Result<*mut core::ffi::c_void, LoadError> {
    if address.is_null() && row.required {
        return Err(LoadError::Missing { call: row.name, introduced: row.version });
    }
    Ok(address)
}

table! {
    // Driver and errors
    required init: PFN_cuInit_v2000 "cuInit";
    required driver_get_version: PFN_cuDriverGetVersion_v2020 "cuDriverGetVersion";
    required get_error_name: PFN_cuGetErrorName_v6000 "cuGetErrorName";
    required get_error_string: PFN_cuGetErrorString_v6000 "cuGetErrorString";
    // Devices
    required device_get: PFN_cuDeviceGet_v2000 "cuDeviceGet";
    required device_get_count: PFN_cuDeviceGetCount_v2000 "cuDeviceGetCount";
    required device_get_name: PFN_cuDeviceGetName_v2000 "cuDeviceGetName";
    required device_get_uuid: PFN_cuDeviceGetUuid_v11040 "cuDeviceGetUuid_v2";
    required device_total_mem: PFN_cuDeviceTotalMem_v3020 "cuDeviceTotalMem_v2";
    required device_get_attribute: PFN_cuDeviceGetAttribute_v2000 "cuDeviceGetAttribute";
    required device_get_pci_bus_id: PFN_cuDeviceGetPCIBusId_v4010 "cuDeviceGetPCIBusId";
    required device_can_access_peer: PFN_cuDeviceCanAccessPeer_v4000 "cuDeviceCanAccessPeer";
    // Primary contexts
    required device_primary_ctx_retain:
        PFN_cuDevicePrimaryCtxRetain_v7000 "cuDevicePrimaryCtxRetain";
    required device_primary_ctx_release:
        PFN_cuDevicePrimaryCtxRelease_v11000 "cuDevicePrimaryCtxRelease_v2";
    required device_primary_ctx_get_state:
        PFN_cuDevicePrimaryCtxGetState_v7000 "cuDevicePrimaryCtxGetState";
    required device_primary_ctx_set_flags:
        PFN_cuDevicePrimaryCtxSetFlags_v11000 "cuDevicePrimaryCtxSetFlags_v2";
    required device_primary_ctx_reset:
        PFN_cuDevicePrimaryCtxReset_v11000 "cuDevicePrimaryCtxReset_v2";
    // Contexts
    required ctx_create: PFN_cuCtxCreate_v3020 "cuCtxCreate_v2";
    required ctx_destroy: PFN_cuCtxDestroy_v4000 "cuCtxDestroy_v2";
    required ctx_push_current: PFN_cuCtxPushCurrent_v4000 "cuCtxPushCurrent_v2";
    required ctx_pop_current: PFN_cuCtxPopCurrent_v4000 "cuCtxPopCurrent_v2";
    required ctx_set_current: PFN_cuCtxSetCurrent_v4000 "cuCtxSetCurrent";
    required ctx_get_current: PFN_cuCtxGetCurrent_v4000 "cuCtxGetCurrent";
    required ctx_get_device: PFN_cuCtxGetDevice_v2000 "cuCtxGetDevice";
    required ctx_get_api_version: PFN_cuCtxGetApiVersion_v3020 "cuCtxGetApiVersion";
    required ctx_get_stream_priority_range:
        PFN_cuCtxGetStreamPriorityRange_v5050 "cuCtxGetStreamPriorityRange";
    required ctx_synchronize: PFN_cuCtxSynchronize_v2000 "cuCtxSynchronize";
    required ctx_enable_peer_access: PFN_cuCtxEnablePeerAccess_v4000 "cuCtxEnablePeerAccess";
    // Contexts, later
    optional ctx_get_id: PFN_cuCtxGetId_v12000 "cuCtxGetId";
    // Memory: device, pinned, registered
    required mem_get_info: PFN_cuMemGetInfo_v3020 "cuMemGetInfo_v2";
    required mem_alloc: PFN_cuMemAlloc_v3020 "cuMemAlloc_v2";
    required mem_free: PFN_cuMemFree_v3020 "cuMemFree_v2";
    required mem_get_address_range: PFN_cuMemGetAddressRange_v3020 "cuMemGetAddressRange_v2";
    required mem_host_alloc: PFN_cuMemHostAlloc_v2020 "cuMemHostAlloc";
    required mem_free_host: PFN_cuMemFreeHost_v2000 "cuMemFreeHost";
    required mem_host_get_device_pointer:
        PFN_cuMemHostGetDevicePointer_v3020 "cuMemHostGetDevicePointer_v2";
    required mem_host_get_flags: PFN_cuMemHostGetFlags_v2030 "cuMemHostGetFlags";
    required mem_host_register: PFN_cuMemHostRegister_v6050 "cuMemHostRegister_v2";
    required mem_host_unregister: PFN_cuMemHostUnregister_v4000 "cuMemHostUnregister";
    // Memory: managed
    required mem_alloc_managed: PFN_cuMemAllocManaged_v6000 "cuMemAllocManaged";
    required mem_advise: PFN_cuMemAdvise_v8000 "cuMemAdvise";
    required mem_prefetch_async: PFN_cuMemPrefetchAsync_v8000 "cuMemPrefetchAsync";
    required mem_range_get_attribute: PFN_cuMemRangeGetAttribute_v8000 "cuMemRangeGetAttribute";
    // Memory: managed, with locations
    optional mem_advise_v12020: PFN_cuMemAdvise_v12020 "cuMemAdvise_v2";
    optional mem_prefetch_async_v12020: PFN_cuMemPrefetchAsync_v12020 "cuMemPrefetchAsync_v2";
    // Memory: virtual address management
    required mem_address_reserve: PFN_cuMemAddressReserve_v10020 "cuMemAddressReserve";
    required mem_address_free: PFN_cuMemAddressFree_v10020 "cuMemAddressFree";
    required mem_create: PFN_cuMemCreate_v10020 "cuMemCreate";
    required mem_release: PFN_cuMemRelease_v10020 "cuMemRelease";
    required mem_map: PFN_cuMemMap_v10020 "cuMemMap";
    required mem_unmap: PFN_cuMemUnmap_v10020 "cuMemUnmap";
    required mem_set_access: PFN_cuMemSetAccess_v10020 "cuMemSetAccess";
    required mem_get_access: PFN_cuMemGetAccess_v10020 "cuMemGetAccess";
    required mem_get_allocation_granularity:
        PFN_cuMemGetAllocationGranularity_v10020 "cuMemGetAllocationGranularity";
    required mem_get_allocation_properties_from_handle:
        PFN_cuMemGetAllocationPropertiesFromHandle_v10020 "cuMemGetAllocationPropertiesFromHandle";
    required mem_retain_allocation_handle:
        PFN_cuMemRetainAllocationHandle_v11000 "cuMemRetainAllocationHandle";
    // Memory: shared with other processes and devices
    optional mem_export_to_shareable_handle:
        PFN_cuMemExportToShareableHandle_v10020 "cuMemExportToShareableHandle";
    optional mem_import_from_shareable_handle:
        PFN_cuMemImportFromShareableHandle_v10020 "cuMemImportFromShareableHandle";
    optional mem_get_handle_for_address_range:
        PFN_cuMemGetHandleForAddressRange_v11070 "cuMemGetHandleForAddressRange";
    // Memory: pools and stream-ordered allocation
    required mem_alloc_async: PFN_cuMemAllocAsync_v11020 "cuMemAllocAsync";
    required mem_free_async: PFN_cuMemFreeAsync_v11020 "cuMemFreeAsync";
    required mem_alloc_from_pool_async:
        PFN_cuMemAllocFromPoolAsync_v11020 "cuMemAllocFromPoolAsync";
    required mem_pool_create: PFN_cuMemPoolCreate_v11020 "cuMemPoolCreate";
    required mem_pool_destroy: PFN_cuMemPoolDestroy_v11020 "cuMemPoolDestroy";
    required mem_pool_trim_to: PFN_cuMemPoolTrimTo_v11020 "cuMemPoolTrimTo";
    required mem_pool_set_attribute: PFN_cuMemPoolSetAttribute_v11020 "cuMemPoolSetAttribute";
    required mem_pool_get_attribute: PFN_cuMemPoolGetAttribute_v11020 "cuMemPoolGetAttribute";
    required mem_pool_set_access: PFN_cuMemPoolSetAccess_v11020 "cuMemPoolSetAccess";
    required device_get_default_mem_pool:
        PFN_cuDeviceGetDefaultMemPool_v11020 "cuDeviceGetDefaultMemPool";
    required device_get_mem_pool: PFN_cuDeviceGetMemPool_v11020 "cuDeviceGetMemPool";
    required device_set_mem_pool: PFN_cuDeviceSetMemPool_v11020 "cuDeviceSetMemPool";
    // Pointer attributes
    required pointer_get_attribute: PFN_cuPointerGetAttribute_v4000 "cuPointerGetAttribute";
    required pointer_get_attributes: PFN_cuPointerGetAttributes_v7000 "cuPointerGetAttributes";
    required pointer_set_attribute: PFN_cuPointerSetAttribute_v6000 "cuPointerSetAttribute";
    // Copies
    required memcpy: PFN_cuMemcpy_v4000 "cuMemcpy";
    required memcpy_async: PFN_cuMemcpyAsync_v4000 "cuMemcpyAsync";
    required memcpy_htod: PFN_cuMemcpyHtoD_v3020 "cuMemcpyHtoD";
    required memcpy_dtoh: PFN_cuMemcpyDtoH_v3020 "cuMemcpyDtoH";
    required memcpy_dtod: PFN_cuMemcpyDtoD_v3020 "cuMemcpyDtoD";
    required memcpy_htod_async: PFN_cuMemcpyHtoDAsync_v3020 "cuMemcpyHtoDAsync";
    required memcpy_dtoh_async: PFN_cuMemcpyDtoHAsync_v3020 "cuMemcpyDtoHAsync";
    required memcpy_dtod_async: PFN_cuMemcpyDtoDAsync_v3020 "cuMemcpyDtoDAsync";
    required memcpy_peer: PFN_cuMemcpyPeer_v4000 "cuMemcpyPeer";
    required memcpy_peer_async: PFN_cuMemcpyPeerAsync_v4000 "cuMemcpyPeerAsync";
    // Copies in batches
    optional memcpy_batch_async: PFN_cuMemcpyBatchAsync_v12080 "cuMemcpyBatchAsync";
    optional memcpy_batch_async_v13000: PFN_cuMemcpyBatchAsync_v13000 "cuMemcpyBatchAsync_v2";
    // Memory sets
    required memset_d8: PFN_cuMemsetD8_v3020 "cuMemsetD8";
    required memset_d16: PFN_cuMemsetD16_v3020 "cuMemsetD16";
    required memset_d32: PFN_cuMemsetD32_v3020 "cuMemsetD32";
    required memset_d8_async: PFN_cuMemsetD8Async_v3020 "cuMemsetD8Async";
    required memset_d16_async: PFN_cuMemsetD16Async_v3020 "cuMemsetD16Async";
    required memset_d32_async: PFN_cuMemsetD32Async_v3020 "cuMemsetD32Async";
    // Streams
    required stream_create: PFN_cuStreamCreate_v2000 "cuStreamCreate";
    required stream_create_with_priority:
        PFN_cuStreamCreateWithPriority_v5050 "cuStreamCreateWithPriority";
    required stream_destroy: PFN_cuStreamDestroy_v4000 "cuStreamDestroy_v2";
    required stream_get_priority: PFN_cuStreamGetPriority_v5050 "cuStreamGetPriority";
    required stream_get_flags: PFN_cuStreamGetFlags_v5050 "cuStreamGetFlags";
    required stream_get_ctx: PFN_cuStreamGetCtx_v9020 "cuStreamGetCtx";
    required stream_wait_event: PFN_cuStreamWaitEvent_v3020 "cuStreamWaitEvent";
    required stream_query: PFN_cuStreamQuery_v2000 "cuStreamQuery";
    required stream_synchronize: PFN_cuStreamSynchronize_v2000 "cuStreamSynchronize";
    required stream_add_callback: PFN_cuStreamAddCallback_v5000 "cuStreamAddCallback";
    required launch_host_func: PFN_cuLaunchHostFunc_v10000 "cuLaunchHostFunc";
    // Streams, later
    optional stream_get_id: PFN_cuStreamGetId_v12000 "cuStreamGetId";
    // Events
    required event_create: PFN_cuEventCreate_v2000 "cuEventCreate";
    required event_destroy: PFN_cuEventDestroy_v4000 "cuEventDestroy_v2";
    required event_record: PFN_cuEventRecord_v2000 "cuEventRecord";
    required event_record_with_flags: PFN_cuEventRecordWithFlags_v11010 "cuEventRecordWithFlags";
    required event_query: PFN_cuEventQuery_v2000 "cuEventQuery";
    required event_synchronize: PFN_cuEventSynchronize_v2000 "cuEventSynchronize";
    required event_elapsed_time: PFN_cuEventElapsedTime_v2000 "cuEventElapsedTime";
    // Stream memory operations
    optional stream_write_value_32: PFN_cuStreamWriteValue32_v11070 "cuStreamWriteValue32_v2";
    optional stream_write_value_64: PFN_cuStreamWriteValue64_v11070 "cuStreamWriteValue64_v2";
    optional stream_wait_value_32: PFN_cuStreamWaitValue32_v11070 "cuStreamWaitValue32_v2";
    optional stream_wait_value_64: PFN_cuStreamWaitValue64_v11070 "cuStreamWaitValue64_v2";
    optional stream_batch_mem_op: PFN_cuStreamBatchMemOp_v11070 "cuStreamBatchMemOp_v2";
    // Stream capture
    required stream_begin_capture: PFN_cuStreamBeginCapture_v10010 "cuStreamBeginCapture_v2";
    required stream_end_capture: PFN_cuStreamEndCapture_v10000 "cuStreamEndCapture";
    required stream_is_capturing: PFN_cuStreamIsCapturing_v10000 "cuStreamIsCapturing";
    required stream_get_capture_info: PFN_cuStreamGetCaptureInfo_v11030 "cuStreamGetCaptureInfo_v2";
    required stream_update_capture_dependencies:
        PFN_cuStreamUpdateCaptureDependencies_v11030 "cuStreamUpdateCaptureDependencies";
    required thread_exchange_stream_capture_mode:
        PFN_cuThreadExchangeStreamCaptureMode_v10010 "cuThreadExchangeStreamCaptureMode";
    // Stream capture, later
    optional stream_begin_capture_to_graph:
        PFN_cuStreamBeginCaptureToGraph_v12030 "cuStreamBeginCaptureToGraph";
    optional stream_get_capture_info_v12030:
        PFN_cuStreamGetCaptureInfo_v12030 "cuStreamGetCaptureInfo_v3";
    optional stream_update_capture_dependencies_v12030:
        PFN_cuStreamUpdateCaptureDependencies_v12030 "cuStreamUpdateCaptureDependencies_v2";
    // Graphs
    required graph_create: PFN_cuGraphCreate_v10000 "cuGraphCreate";
    required graph_destroy: PFN_cuGraphDestroy_v10000 "cuGraphDestroy";
    required graph_clone: PFN_cuGraphClone_v10000 "cuGraphClone";
    required graph_node_find_in_clone: PFN_cuGraphNodeFindInClone_v10000 "cuGraphNodeFindInClone";
    required graph_node_get_type: PFN_cuGraphNodeGetType_v10000 "cuGraphNodeGetType";
    required graph_get_nodes: PFN_cuGraphGetNodes_v10000 "cuGraphGetNodes";
    required graph_get_root_nodes: PFN_cuGraphGetRootNodes_v10000 "cuGraphGetRootNodes";
    required graph_get_edges: PFN_cuGraphGetEdges_v10000 "cuGraphGetEdges";
    required graph_node_get_dependencies:
        PFN_cuGraphNodeGetDependencies_v10000 "cuGraphNodeGetDependencies";
    required graph_node_get_dependent_nodes:
        PFN_cuGraphNodeGetDependentNodes_v10000 "cuGraphNodeGetDependentNodes";
    required graph_add_dependencies: PFN_cuGraphAddDependencies_v10000 "cuGraphAddDependencies";
    required graph_remove_dependencies:
        PFN_cuGraphRemoveDependencies_v10000 "cuGraphRemoveDependencies";
    required graph_destroy_node: PFN_cuGraphDestroyNode_v10000 "cuGraphDestroyNode";
    required graph_debug_dot_print: PFN_cuGraphDebugDotPrint_v11030 "cuGraphDebugDotPrint";
    // Graph nodes
    required graph_add_empty_node: PFN_cuGraphAddEmptyNode_v10000 "cuGraphAddEmptyNode";
    required graph_add_memcpy_node: PFN_cuGraphAddMemcpyNode_v10000 "cuGraphAddMemcpyNode";
    required graph_memcpy_node_get_params:
        PFN_cuGraphMemcpyNodeGetParams_v10000 "cuGraphMemcpyNodeGetParams";
    required graph_memcpy_node_set_params:
        PFN_cuGraphMemcpyNodeSetParams_v10000 "cuGraphMemcpyNodeSetParams";
    required graph_add_memset_node: PFN_cuGraphAddMemsetNode_v10000 "cuGraphAddMemsetNode";
    required graph_memset_node_get_params:
        PFN_cuGraphMemsetNodeGetParams_v10000 "cuGraphMemsetNodeGetParams";
    required graph_memset_node_set_params:
        PFN_cuGraphMemsetNodeSetParams_v10000 "cuGraphMemsetNodeSetParams";
    required graph_add_host_node: PFN_cuGraphAddHostNode_v10000 "cuGraphAddHostNode";
    required graph_host_node_get_params:
        PFN_cuGraphHostNodeGetParams_v10000 "cuGraphHostNodeGetParams";
    required graph_host_node_set_params:
        PFN_cuGraphHostNodeSetParams_v10000 "cuGraphHostNodeSetParams";
    required graph_add_child_graph_node:
        PFN_cuGraphAddChildGraphNode_v10000 "cuGraphAddChildGraphNode";
    required graph_child_graph_node_get_graph:
        PFN_cuGraphChildGraphNodeGetGraph_v10000 "cuGraphChildGraphNodeGetGraph";
    required graph_add_event_record_node:
        PFN_cuGraphAddEventRecordNode_v11010 "cuGraphAddEventRecordNode";
    required graph_event_record_node_get_event:
        PFN_cuGraphEventRecordNodeGetEvent_v11010 "cuGraphEventRecordNodeGetEvent";
    required graph_event_record_node_set_event:
        PFN_cuGraphEventRecordNodeSetEvent_v11010 "cuGraphEventRecordNodeSetEvent";
    required graph_add_event_wait_node:
        PFN_cuGraphAddEventWaitNode_v11010 "cuGraphAddEventWaitNode";
    required graph_event_wait_node_get_event:
        PFN_cuGraphEventWaitNodeGetEvent_v11010 "cuGraphEventWaitNodeGetEvent";
    required graph_event_wait_node_set_event:
        PFN_cuGraphEventWaitNodeSetEvent_v11010 "cuGraphEventWaitNodeSetEvent";
    // Graph nodes, later
    optional graph_add_batch_mem_op_node:
        PFN_cuGraphAddBatchMemOpNode_v11070 "cuGraphAddBatchMemOpNode";
    optional graph_batch_mem_op_node_get_params:
        PFN_cuGraphBatchMemOpNodeGetParams_v11070 "cuGraphBatchMemOpNodeGetParams";
    optional graph_batch_mem_op_node_set_params:
        PFN_cuGraphBatchMemOpNodeSetParams_v11070 "cuGraphBatchMemOpNodeSetParams";
    optional graph_add_node: PFN_cuGraphAddNode_v12020 "cuGraphAddNode";
    optional graph_add_node_v12030: PFN_cuGraphAddNode_v12030 "cuGraphAddNode_v2";
    optional graph_node_set_params: PFN_cuGraphNodeSetParams_v12020 "cuGraphNodeSetParams";
    // Executable graphs
    required graph_instantiate_with_flags:
        PFN_cuGraphInstantiateWithFlags_v11040 "cuGraphInstantiateWithFlags";
    required graph_exec_destroy: PFN_cuGraphExecDestroy_v10000 "cuGraphExecDestroy";
    required graph_upload: PFN_cuGraphUpload_v11010 "cuGraphUpload";
    required graph_launch: PFN_cuGraphLaunch_v10000 "cuGraphLaunch";
    required graph_exec_update: PFN_cuGraphExecUpdate_v10020 "cuGraphExecUpdate";
    required graph_exec_memcpy_node_set_params:
        PFN_cuGraphExecMemcpyNodeSetParams_v10020 "cuGraphExecMemcpyNodeSetParams";
    required graph_exec_memset_node_set_params:
        PFN_cuGraphExecMemsetNodeSetParams_v10020 "cuGraphExecMemsetNodeSetParams";
    required graph_exec_host_node_set_params:
        PFN_cuGraphExecHostNodeSetParams_v10020 "cuGraphExecHostNodeSetParams";
    required graph_exec_child_graph_node_set_params:
        PFN_cuGraphExecChildGraphNodeSetParams_v11010 "cuGraphExecChildGraphNodeSetParams";
    required graph_exec_event_record_node_set_event:
        PFN_cuGraphExecEventRecordNodeSetEvent_v11010 "cuGraphExecEventRecordNodeSetEvent";
    required graph_exec_event_wait_node_set_event:
        PFN_cuGraphExecEventWaitNodeSetEvent_v11010 "cuGraphExecEventWaitNodeSetEvent";
    // Executable graphs, later
    optional graph_instantiate_with_params:
        PFN_cuGraphInstantiateWithParams_v12000 "cuGraphInstantiateWithParams";
    optional graph_exec_get_flags: PFN_cuGraphExecGetFlags_v12000 "cuGraphExecGetFlags";
    optional graph_exec_update_v12000: PFN_cuGraphExecUpdate_v12000 "cuGraphExecUpdate_v2";
    optional graph_exec_batch_mem_op_node_set_params:
        PFN_cuGraphExecBatchMemOpNodeSetParams_v11070 "cuGraphExecBatchMemOpNodeSetParams";
    optional graph_exec_node_set_params:
        PFN_cuGraphExecNodeSetParams_v12020 "cuGraphExecNodeSetParams";
    optional graph_node_set_enabled: PFN_cuGraphNodeSetEnabled_v11060 "cuGraphNodeSetEnabled";
    optional graph_node_get_enabled: PFN_cuGraphNodeGetEnabled_v11060 "cuGraphNodeGetEnabled";
    // User objects
    required user_object_create: PFN_cuUserObjectCreate_v11030 "cuUserObjectCreate";
    required user_object_retain: PFN_cuUserObjectRetain_v11030 "cuUserObjectRetain";
    required user_object_release: PFN_cuUserObjectRelease_v11030 "cuUserObjectRelease";
    required graph_retain_user_object: PFN_cuGraphRetainUserObject_v11030 "cuGraphRetainUserObject";
    required graph_release_user_object:
        PFN_cuGraphReleaseUserObject_v11030 "cuGraphReleaseUserObject";
}
