//! Modules, libraries and launches.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUfunction, CUfunction_attribute, CUjitInputType, CUkernel, CUlaunchConfig, CUlibrary,
    CUmodule, CUresult, CUstream, PFN_cuFuncGetAttribute_v2020, PFN_cuFuncGetName_v12030,
    PFN_cuFuncSetAttribute_v9000, PFN_cuKernelGetFunction_v12000, PFN_cuKernelGetName_v12030,
    PFN_cuLaunchKernel_v4000, PFN_cuLaunchKernelEx_v11060, PFN_cuLibraryGetKernel_v12000,
    PFN_cuLibraryLoadData_v12000, PFN_cuLibraryUnload_v12000, PFN_cuLinkAddData_v6050,
    PFN_cuLinkComplete_v5050, PFN_cuLinkCreate_v6050, PFN_cuModuleGetFunction_v2000,
    PFN_cuModuleGetGlobal_v3020, PFN_cuModuleLoad_v2000, PFN_cuModuleLoadData_v2000,
    PFN_cuModuleUnload_v2000, PFN_cuOccupancyMaxActiveBlocksPerMultiprocessor_v6050,
};

use crate::graph_rig::{GLOBAL, SCHEDULES};
use crate::support::Rig;

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const BAD_HANDLE: CUresult = CUresult::CUDA_ERROR_INVALID_HANDLE;
const NOT_FOUND: CUresult = CUresult::CUDA_ERROR_NOT_FOUND;

pub(crate) const TEXT: &CStr = c".version 8.0\n.target sm_90\n.address_size 64\n\
    .visible .const .align 4 .u32 answer = 42;\n.visible .entry add(.param .u64 a)\n{\n ret;\n}\n";

pub(crate) fn load(image: *const c_void) -> Result<CUmodule, CUresult> {
    let load = entry!("cuModuleLoadData" 2000 PFN_cuModuleLoadData_v2000);
    let mut module = ptr::null_mut();
    match unsafe { load(&raw mut module, image) } {
        OK => Ok(module),
        error => Err(error),
    }
}

pub(crate) fn function(module: CUmodule, name: &CStr) -> Result<CUfunction, CUresult> {
    let get = entry!("cuModuleGetFunction" 2000 PFN_cuModuleGetFunction_v2000);
    let mut function = ptr::null_mut();
    match unsafe { get(&raw mut function, module, name.as_ptr()) } {
        OK => Ok(function),
        error => Err(error),
    }
}

pub(crate) fn launch(
    function: CUfunction,
    block: u32,
    stream: CUstream,
    params: &mut [*mut c_void],
) -> CUresult {
    let launch = entry!("cuLaunchKernel" 4000 PFN_cuLaunchKernel_v4000);
    let params = if params.is_empty() { ptr::null_mut() } else { params.as_mut_ptr() };
    unsafe { launch(function, 3, 1, 1, block, 1, 1, 0, stream, params, ptr::null_mut()) }
}

#[test]
fn a_text_has_the_names_it_says_and_machine_code_any() {
    let rig = Rig::new(Schedule::Async);
    let module = load(TEXT.as_ptr().cast()).unwrap();
    let add = function(module, c"add").unwrap();
    assert_eq!(function(module, c"add"), Ok(add), "the same function again");
    assert_eq!(function(module, c"subtract"), Err(NOT_FOUND));
    let get_global = entry!("cuModuleGetGlobal" 3020 PFN_cuModuleGetGlobal_v3020);
    let (mut pointer, mut size) = (0, 0);
    assert_eq!(
        unsafe { get_global(&raw mut pointer, &raw mut size, module, c"answer".as_ptr()) },
        OK
    );
    assert_eq!((size, rig.read(pointer, 4)), (4, vec![42, 0, 0, 0]));
    let missing =
        unsafe { get_global(&raw mut pointer, &raw mut size, module, c"question".as_ptr()) };
    assert_eq!(missing, NOT_FOUND);
    let opaque = load(c"\x7fELF".as_ptr().cast()).unwrap();
    function(opaque, c"whatever").unwrap();
    assert_eq!(load(ptr::null()), Err(INVALID));
}

#[test]
fn what_is_unloaded_or_missing_is_an_error() {
    let _rig = Rig::new(Schedule::Async);
    let unload = entry!("cuModuleUnload" 2000 PFN_cuModuleUnload_v2000);
    let load_file = entry!("cuModuleLoad" 2000 PFN_cuModuleLoad_v2000);
    let module = load(TEXT.as_ptr().cast()).unwrap();
    let add = function(module, c"add").unwrap();
    let mut other = ptr::null_mut();
    unsafe {
        assert_eq!(unload(module), OK);
        assert_eq!(unload(module), BAD_HANDLE);
        assert_eq!(
            load_file(&raw mut other, c"/no/such/file".as_ptr()),
            CUresult::CUDA_ERROR_FILE_NOT_FOUND
        );
    }
    assert_eq!(function(module, c"add"), Err(BAD_HANDLE));
    assert_eq!(launch(add, 1, ptr::null_mut(), &mut []), BAD_HANDLE);
}

#[test]
fn a_launch_is_checked_against_the_device_and_the_function() {
    let rig = Rig::new(Schedule::Late);
    let stream = rig.stream(1);
    let add = function(load(TEXT.as_ptr().cast()).unwrap(), c"add").unwrap();
    assert_eq!(launch(add, 1024, stream, &mut []), OK);
    assert_eq!(launch(add, 1025, stream, &mut []), INVALID);
    assert_eq!(launch(add, 0, stream, &mut []), INVALID);
    assert_eq!(launch(ptr::null_mut(), 1, stream, &mut []), BAD_HANDLE);
    let mut config: CUlaunchConfig = unsafe { std::mem::zeroed() };
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (1, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (1, 1, 1);
    config.sharedMemBytes = 100 << 10;
    config.hStream = stream;
    let launch_ex = entry!("cuLaunchKernelEx" 11060 PFN_cuLaunchKernelEx_v11060);
    let nothing = ptr::null_mut();
    assert_eq!(unsafe { launch_ex(&raw const config, add, nothing, nothing) }, INVALID);
    let set = entry!("cuFuncSetAttribute" 9000 PFN_cuFuncSetAttribute_v9000);
    let get = entry!("cuFuncGetAttribute" 2020 PFN_cuFuncGetAttribute_v2020);
    let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let mut value = 0;
    unsafe {
        assert_eq!(set(add, shared, 100 << 10), OK);
        assert_eq!(get(&raw mut value, shared, add), OK);
        assert_eq!(launch_ex(&raw const config, add, nothing, nothing), OK);
        assert_eq!(set(add, CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS, 1), INVALID);
        assert_eq!(get(&raw mut value, CUfunction_attribute(99), add), INVALID);
    }
    assert_eq!(value, 100 << 10);
}

#[test]
fn native_code_runs_in_stream_order_with_the_parameters_of_the_launch() {
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(2)] {
        let rig = Rig::new(schedule);
        rig.simulator.register_kernel("add", &[8, 4], |arguments| {
            let address = usize::try_from(arguments.number(0)).unwrap();
            let word: *mut u32 = ptr::with_exposed_provenance_mut(address);
            unsafe {
                *word = *word * arguments.grid()[0] + u32::try_from(arguments.number(1)).unwrap();
            };
        });
        let (stream, device) = (rig.stream(1), rig.device(4));
        let add = function(load(TEXT.as_ptr().cast()).unwrap(), c"add").unwrap();
        unsafe { rig.api.memset_d32_async.call(device, 5, 1, stream) }.unwrap();
        let (mut pointer, mut number) = (device, 7_u32);
        let mut params: [*mut c_void; 2] = [(&raw mut pointer).cast(), (&raw mut number).cast()];
        assert_eq!(launch(add, 1, stream, &mut params), OK);
        (pointer, number) = (0, 0);
        rig.synchronize(stream);
        assert_eq!(rig.read(device, 4), 22_u32.to_ne_bytes(), "{schedule:?}");
        assert_eq!((pointer, number), (0, 0));
        assert_eq!(launch(add, 1, stream, &mut []), INVALID, "it has parameters");
    }
}

#[test]
fn parameters_may_come_in_one_buffer() {
    let rig = Rig::new(Schedule::Late);
    let sum = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sum);
    rig.simulator.register_kernel("add", &[4, 8], move |arguments| {
        seen.store(arguments.number(0) + arguments.number(1), Ordering::Release);
    });
    let add = function(load(TEXT.as_ptr().cast()).unwrap(), c"add").unwrap();
    let launch = entry!("cuLaunchKernel" 4000 PFN_cuLaunchKernel_v4000);
    let (mut buffer, mut size) = ([3_u64, 4], 16_usize);
    let mut extra: [*mut c_void; 5] = [
        ptr::without_provenance_mut(1),
        buffer.as_mut_ptr().cast(),
        ptr::without_provenance_mut(2),
        (&raw mut size).cast(),
        ptr::null_mut(),
    ];
    let stream = rig.stream(1);
    let (none, extra) = (ptr::null_mut(), extra.as_mut_ptr());
    assert_eq!(unsafe { launch(add, 1, 1, 1, 1, 1, 1, 0, stream, none, extra) }, OK);
    rig.synchronize(stream);
    assert_eq!(sum.load(Ordering::Acquire), 7);
}

fn library() -> (CUlibrary, CUkernel) {
    let load = entry!("cuLibraryLoadData" 12000 PFN_cuLibraryLoadData_v12000);
    let get_kernel = entry!("cuLibraryGetKernel" 12000 PFN_cuLibraryGetKernel_v12000);
    let (mut library, mut kernel, none) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let (options, values) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        assert_eq!(
            load(&raw mut library, TEXT.as_ptr().cast(), none, values, 0, options, values, 0),
            OK
        );
        assert_eq!(get_kernel(&raw mut kernel, library, c"add".as_ptr()), OK);
        assert_eq!(get_kernel(&raw mut kernel, library, c"none".as_ptr()), NOT_FOUND);
    }
    (library, kernel)
}

#[test]
fn a_librarys_kernel_is_launched_as_a_function() {
    let rig = Rig::new(Schedule::Async);
    let (library, kernel) = library();
    let get_function = entry!("cuKernelGetFunction" 12000 PFN_cuKernelGetFunction_v12000);
    let unload = entry!("cuLibraryUnload" 12000 PFN_cuLibraryUnload_v12000);
    let mut function = ptr::null_mut();
    assert_eq!(unsafe { get_function(&raw mut function, kernel) }, OK);
    assert_eq!(launch(function, 1, rig.stream(1), &mut []), OK);
    assert_eq!(launch(kernel.cast(), 1, rig.stream(1), &mut []), OK);
    assert_eq!(unsafe { unload(library) }, OK);
    assert_eq!(unsafe { unload(library) }, BAD_HANDLE);
    assert_eq!(unsafe { get_function(&raw mut function, kernel) }, BAD_HANDLE);
}

#[test]
fn a_link_makes_an_image_that_loads() {
    let _rig = Rig::new(Schedule::Async);
    let create = entry!("cuLinkCreate" 6050 PFN_cuLinkCreate_v6050);
    let add = entry!("cuLinkAddData" 6050 PFN_cuLinkAddData_v6050);
    let complete = entry!("cuLinkComplete" 5050 PFN_cuLinkComplete_v5050);
    let (mut link, mut image, mut size) = (ptr::null_mut(), ptr::null_mut(), 0);
    let (options, values) = (ptr::null_mut(), ptr::null_mut());
    let (data, name) = (TEXT.as_ptr().cast_mut().cast(), c"".as_ptr());
    unsafe {
        assert_eq!(create(0, options, values, &raw mut link), OK);
        assert_eq!(
            add(link, CUjitInputType::CU_JIT_INPUT_PTX, data, 10, name, 0, options, values),
            OK
        );
        assert_eq!(add(link, CUjitInputType(99), data, 10, name, 0, options, values), INVALID);
        assert_eq!(complete(link, &raw mut image, &raw mut size), OK);
        assert!(size > 0);
        assert_eq!(
            add(link, CUjitInputType::CU_JIT_INPUT_PTX, data, 10, name, 0, options, values),
            INVALID
        );
    }
    function(load(image).unwrap(), c"add").unwrap();
}

#[test]
fn occupancy_falls_with_threads_and_shared_memory() {
    let _rig = Rig::new(Schedule::Async);
    let add = function(load(TEXT.as_ptr().cast()).unwrap(), c"add").unwrap();
    let blocks = entry!(
        "cuOccupancyMaxActiveBlocksPerMultiprocessor" 6050
        PFN_cuOccupancyMaxActiveBlocksPerMultiprocessor_v6050
    );
    let of = |threads, shared| {
        let mut count = -1;
        assert_eq!(unsafe { blocks(&raw mut count, add, threads, shared) }, OK);
        count
    };
    assert_eq!((of(32, 0), of(1024, 0), of(32, 100 << 10), of(2048, 0)), (32, 2, 2, 0));
    let mut count = 0;
    assert_eq!(unsafe { blocks(&raw mut count, add, 0, 0) }, INVALID);
}

#[test]
fn the_name_of_no_function_and_of_no_kernel_is_an_invalid_value() {
    let _rig = Rig::new(Schedule::Async);
    let of_function = entry!("cuFuncGetName" 12030 PFN_cuFuncGetName_v12030);
    let of_kernel = entry!("cuKernelGetName" 12030 PFN_cuKernelGetName_v12030);
    let mut name = ptr::null();
    assert_eq!(unsafe { of_function(&raw mut name, ptr::null_mut()) }, INVALID);
    assert_eq!(unsafe { of_kernel(&raw mut name, ptr::null_mut()) }, INVALID);
}

/// What the loaders of ffmpeg 5.1 and baracuda ask for by name and do not start without.
#[test]
fn loaders_find_the_names_that_are_not_built_and_calls_say_so() {
    let _rig = Rig::new(Schedule::Async);
    for (name, version) in [
        ("cuTexObjectCreate", 5000),
        ("cuTexObjectDestroy", 5000),
        ("cuSurfObjectCreate", 5000),
        ("cuMipmappedArrayCreate", 5000),
        ("cuMipmappedArrayGetLevel", 5000),
        ("cuMipmappedArrayDestroy", 5000),
        ("cuGLGetDevices", 6050),
        ("cuGraphicsGLRegisterImage", 3000),
        ("cuGraphicsMapResources", 3000),
        ("cuGraphicsResourceGetMappedPointer", 3020),
        ("cuGraphicsSubResourceGetMappedArray", 3000),
        ("cuGraphicsUnregisterResource", 3000),
        ("cuImportExternalMemory", 10000),
        ("cuDestroyExternalMemory", 10000),
        ("cuExternalMemoryGetMappedBuffer", 10000),
        ("cuExternalMemoryGetMappedMipmappedArray", 10000),
        ("cuImportExternalSemaphore", 10000),
        ("cuSignalExternalSemaphoresAsync", 10000),
        ("cuWaitExternalSemaphoresAsync", 10000),
        ("cuDestroyExternalSemaphore", 10000),
        ("cuEGLStreamProducerConnect", 7000),
        ("cuEGLStreamConsumerDisconnect", 7000),
        ("cuFuncGetParamInfo", 12040),
        ("cuModuleGetGlobal", 2000),
    ] {
        let address = softcuda::entry_point(name, version);
        assert!(!address.is_null(), "{name}");
        let call: extern "C" fn() -> CUresult = unsafe { std::mem::transmute(address) };
        assert_eq!(call(), CUresult::CUDA_ERROR_NOT_SUPPORTED, "{name}");
    }
    for name in ["cuLinkCreate", "cuLinkAddData", "cuLinkAddFile"] {
        assert!(!softcuda::entry_point(name, 5050).is_null(), "{name}");
    }
    let address = softcuda::entry_point("cuDeviceGetExecAffinitySupport", 11_040);
    let affinity: extern "C" fn(*mut i32, u32, i32) -> CUresult =
        unsafe { std::mem::transmute(address) };
    let mut supported = 9;
    assert_eq!((affinity(&raw mut supported, 0, 0), supported), (OK, 0));
}

#[test]
fn a_native_kernel_is_launched_by_name_in_a_stream_and_in_a_graph() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, word) = (rig.stream(1), rig.device(4));
        rig.simulator.register_kernel("add", &[8, 4], |arguments| {
            let at = usize::try_from(arguments.number(0)).unwrap();
            let word: *mut u32 = ptr::with_exposed_provenance_mut(at);
            arguments.writes(arguments.number(0), 4);
            unsafe { *word += u32::try_from(arguments.number(1)).unwrap() * arguments.grid()[0] };
        });
        let launch =
            |name, grid, arguments: &[u64]| rig.simulator.launch(name, grid, arguments, stream);
        rig.fill(word, 1, stream);
        launch("add", [3, 1, 1], &[word, 2]).unwrap();
        rig.synchronize(stream);
        assert_eq!(rig.word(word), 7, "{schedule:?}");
        rig.begin(stream, GLOBAL);
        launch("add", [1, 1, 1], &[word, 10]).unwrap();
        let exec = rig.instantiate(rig.end(stream).unwrap());
        assert_eq!(rig.word(word), 7);
        for _ in 0..2 {
            rig.launch(exec, stream);
        }
        rig.synchronize(stream);
        assert_eq!(rig.word(word), 27, "{schedule:?}");
        assert_eq!(rig.simulator.violations(), []);
        assert_eq!(rig.simulator.calls("cuLaunchKernel"), 2);
        assert_eq!(launch("sub", [1, 1, 1], &[word, 2]), Err(CudaError::NOT_FOUND));
        assert_eq!(launch("add", [1, 1, 1], &[word]), Err(CudaError::INVALID_VALUE));
        assert_eq!(launch("add", [0, 1, 1], &[word, 2]), Err(CudaError::INVALID_VALUE));
        rig.simulator.fail("cuLaunchKernel", 1, CudaError::LAUNCH_FAILED);
        assert_eq!(launch("add", [1, 1, 1], &[word, 2]), Err(CudaError::LAUNCH_FAILED));
    }
}
