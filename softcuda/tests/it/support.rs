//! A machine for a test, with a current context.

use std::ptr;

use softcuda::{Binding, Checks, Config, Grace, Schedule, Simulator};
use wharf_sys::bindings::{
    CUcontext, CUevent, CUmemLocation, CUmemLocation_st__bindgen_ty_1, CUmemLocationType, CUstream,
};
use wharf_sys::{Api, CudaError, Error};

/// The entry point of a signature's name and version.
macro_rules! entry {
    ($name:literal $version:literal $pfn:ty) => {
        unsafe {
            let address = softcuda::entry_point($name, $version);
            assert!(!address.is_null(), $name);
            std::mem::transmute::<*mut std::ffi::c_void, $pfn>(address).unwrap()
        }
    };
}

/// A machine with a context current on the calling thread.
pub(crate) struct Rig {
    pub(crate) api: Api,
    pub(crate) context: CUcontext,
    _binding: Binding,
    pub(crate) simulator: Simulator,
}

impl Rig {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self::with(Config { schedule, ..Self::config() })
    }

    /// Every check, no printing; what runs is what was asked for, however slow the machine is.
    pub(crate) fn config() -> Config {
        let (checks, grace) = (Checks::ALL, Grace::Never);
        Config { checks, grace, print_violations: false, ..Config::default() }
    }

    /// For a test that polls memory and asks the driver nothing.
    pub(crate) fn polled(schedule: Schedule) -> Self {
        Self::with(Config { schedule, grace: Config::default().grace, ..Self::config() })
    }

    pub(crate) fn with(config: Config) -> Self {
        let simulator = Simulator::new(config);
        let binding = simulator.bind();
        let api = api();
        let mut context = ptr::null_mut();
        unsafe {
            api.init.call(0).unwrap();
            api.device_primary_ctx_retain.call(&raw mut context, 0).unwrap();
            api.ctx_set_current.call(context).unwrap();
        }
        Self { api, context, _binding: binding, simulator }
    }

    pub(crate) fn stream(&self, flags: u32) -> CUstream {
        let mut stream = ptr::null_mut();
        unsafe { self.api.stream_create.call(&raw mut stream, flags) }.unwrap();
        stream
    }

    pub(crate) fn event(&self, flags: u32) -> CUevent {
        let mut event = ptr::null_mut();
        unsafe { self.api.event_create.call(&raw mut event, flags) }.unwrap();
        event
    }

    /// Device memory of `size` bytes.
    pub(crate) fn device(&self, size: usize) -> u64 {
        let mut pointer = 0;
        unsafe { self.api.mem_alloc.call(&raw mut pointer, size) }.unwrap();
        pointer
    }

    /// Pinned memory of `len` bytes.
    pub(crate) fn pinned(&self, len: usize) -> &'static mut [u8] {
        let mut pointer = ptr::null_mut();
        unsafe { self.api.mem_host_alloc.call(&raw mut pointer, len, 0) }.unwrap();
        unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) }
    }

    /// The bytes of device memory, by a synchronous copy.
    pub(crate) fn read(&self, pointer: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        unsafe { self.api.memcpy_dtoh.call(bytes.as_mut_ptr().cast(), pointer, len) }.unwrap();
        bytes
    }

    pub(crate) fn synchronize(&self, stream: CUstream) {
        unsafe { self.api.stream_synchronize.call(stream) }.unwrap();
    }
}

impl Rig {
    /// Runs `body` on another thread with the same context current.
    pub(crate) fn elsewhere<T: Send>(&self, body: impl FnOnce() -> T) -> T {
        // Handles are numbers, and the driver API says that every thread may use them.
        struct Carried<T>(T);
        unsafe impl<T> Send for Carried<T> {}
        let (context, simulator, api) = (self.context.addr(), &self.simulator, &self.api);
        let body = Carried(body);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let body = body;
                let _bound = simulator.bind();
                let context = ptr::without_provenance_mut(context);
                unsafe { api.ctx_set_current.call(context) }.unwrap();
                (body.0)()
            });
            thread.join().unwrap()
        })
    }
}

/// The code that a call failed with.
pub(crate) fn code<T>(result: Result<T, Error>) -> CudaError {
    result.err().unwrap().code().unwrap()
}

/// The software driver's functions, for whichever machine the calling thread talks to.
pub(crate) fn api() -> Api {
    unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap()
}

/// A location of memory.
pub(crate) fn location(kind: CUmemLocationType, id: i32) -> CUmemLocation {
    CUmemLocation { type_: kind, __bindgen_anon_1: CUmemLocation_st__bindgen_ty_1 { id } }
}

/// The first device's memory.
pub(crate) fn device_0() -> CUmemLocation {
    location(CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, 0)
}
