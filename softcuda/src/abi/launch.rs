#![expect(unsafe_code, reason = "exports C functions and reads parameters of kernels")]
//! Launches: places in the order of a stream, and native code where a test has registered some.

use core::ffi::{c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs};
use super::exports;
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::number;
use crate::machine::State;
use crate::module::{KernelArguments, Launch, Native};
use crate::sched::work::Opaque;
use crate::submit::Return;
use crate::task::{KernelTask, Task};

exports! {
    Normal PFN_cuLaunchKernel_v4000: cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, shared: c_uint, stream: CUstream,
        params: *mut *mut c_void, extra: *mut *mut c_void,
    ) | cuLaunchKernel_ptsz => launch_kernel;
    Normal PFN_cuLaunchCooperativeKernel_v9000: cuLaunchCooperativeKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, shared: c_uint, stream: CUstream,
        params: *mut *mut c_void,
    ) | cuLaunchCooperativeKernel_ptsz => launch_cooperative_kernel;
    Normal PFN_cuLaunchKernelEx_v11060: cuLaunchKernelEx(
        config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) | cuLaunchKernelEx_ptsz => launch_kernel_ex;
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `CU_LAUNCH_PARAM_BUFFER_SIZE`; zero ends the list.
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;
/// "The maximum size of the kernel parameter" area of any device, in bytes.
const MOST_PARAMETERS: usize = 32_764;

/// The grid, the block and the shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
}

impl Shape {
    /// Refuses what the device, or the function, does not allow.
    fn check(self, call: Call, most_shared: i32) -> Status {
        type A = CUdevice_attribute;
        let limits = [
            (self.grid[0], A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
            (self.grid[1], A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
            (self.grid[2], A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z),
            (self.block[0], A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X),
            (self.block[1], A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y),
            (self.block[2], A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z),
        ];
        let limit = |attribute| {
            let limit = attributes::of(&call.machine.config, attribute, 0);
            u64::try_from(limit.unwrap_or(0)).unwrap_or(0)
        };
        let fits = |(size, attribute)| size > 0 && u64::from(size) <= limit(attribute);
        let threads: u64 = self.block.iter().map(|size| u64::from(*size)).product();
        // Dynamic shared memory is limited by an attribute of the function, and not by the device
        // alone.
        let has_room = u64::from(self.shared) <= u64::try_from(most_shared).unwrap_or(0);
        if !limits.into_iter().all(fits)
            || threads > limit(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
            || !has_room
        {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(())
    }
}

impl Call<'_> {
    /// A launch of `function`, or of a kernel of a library, with the parameters as they are now.
    pub(crate) fn kernel_task(
        self,
        state: &State,
        function: u64,
        shape: Shape,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Status<KernelTask> {
        let known = state.modules.functions.get(function).ok_or(CudaError::INVALID_HANDLE)?;
        let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        shape.check(self, known.attribute(shared)?)?;
        if !params.is_null() && !extra.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let Shape { grid, block, shared } = shape;
        // Parameters are read during the call, as the driver does: the program may reuse them.
        let native = known.name.to_str().ok().and_then(|name| state.modules.natives.get(name));
        let native = match native {
            None => None,
            Some(native) => {
                let values = parameters(native, params, extra)?;
                Some(Launch::new(
                    native,
                    KernelArguments { grid, block, shared, values, ..KernelArguments::default() },
                ))
            }
        };
        Ok(KernelTask {
            function,
            kernel: 0,
            context: self.thread.context().raw,
            grid,
            block,
            shared,
            params: Opaque(params),
            extra: Opaque(extra),
            native,
        })
    }

    fn launch_kernel(
        self,
        function: CUfunction,
        shape: Shape,
        stream: CUstream,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Status {
        let state = self.lock();
        let task = self.kernel_task(&state, number(function), shape, params, extra)?;
        drop(state);
        self.submit(stream, &Task::Kernel(task), Return::Enqueued)
    }
}

impl Call<'_> {
    /// A launch of the native kernel `name`: see [`crate::Simulator::launch`].
    pub(crate) fn launch_native(
        self,
        name: &str,
        grid: [u32; 3],
        arguments: &[u64],
        stream: CUstream,
    ) -> Status {
        let state = self.lock();
        let native = state.modules.natives.get(name).ok_or(CudaError::NOT_FOUND)?;
        let shape = Shape { grid, block: [1; 3], shared: 0 };
        shape.check(self, 0)?;
        if native.sizes.len() != arguments.len() {
            return Err(CudaError::INVALID_VALUE);
        }
        // Arguments are words; a smaller parameter takes the low bytes, as in little-endian memory.
        let value = |(argument, size): (&u64, &usize)| {
            argument.to_le_bytes().get(..*size).map(<[u8]>::to_vec).ok_or(CudaError::INVALID_VALUE)
        };
        let values = arguments.iter().zip(&native.sizes).map(value).collect::<Status<_>>()?;
        let Shape { grid, block, shared } = shape;
        let arguments =
            KernelArguments { grid, block, shared, values, ..KernelArguments::default() };
        let none = Opaque(core::ptr::null_mut());
        let task = KernelTask {
            function: 0,
            kernel: 0,
            context: self.thread.context().raw,
            grid,
            block,
            shared,
            params: none,
            extra: none,
            native: Some(Launch::new(native, arguments)),
        };
        drop(state);
        self.submit(stream, &Task::Kernel(task), Return::Enqueued)
    }
}

/// Copies the parameters of a native kernel.
fn parameters(
    native: &Native,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Status<Vec<Vec<u8>>> {
    if native.sizes.is_empty() {
        return Ok(Vec::new());
    }
    if extra.is_null() {
        let pointers = inputs(params.cast_const(), native.sizes.len())?;
        let bytes = |(pointer, size): (*mut c_void, &usize)| {
            inputs(pointer.cast::<u8>().cast_const(), *size)
        };
        return pointers.into_iter().zip(&native.sizes).map(bytes).collect();
    }
    native.cut(&packed(extra)?)
}

/// Reads the buffer that a list of names and values points at.
fn packed(extra: *mut *mut c_void) -> Status<Vec<u8>> {
    let (mut buffer, mut size) = (core::ptr::null::<u8>(), core::ptr::null::<usize>());
    // The list ends at a null name; four pairs are more than the two names that exist, so a list
    // without an end is not read for ever.
    for index in (0..8).step_by(2) {
        let name: *mut c_void = input(extra.wrapping_add(index).cast_const())?;
        let value = || input(extra.wrapping_add(index + 1).cast_const());
        match name.addr() {
            0 => break,
            BUFFER_POINTER => buffer = value()?.cast::<u8>().cast_const(),
            BUFFER_SIZE => size = value()?.cast::<usize>().cast_const(),
            _ => return Err(CudaError::INVALID_VALUE),
        }
    }
    let size = input(size)?;
    if size > MOST_PARAMETERS {
        return Err(CudaError::INVALID_VALUE);
    }
    inputs(buffer, size)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn launch_kernel(
    call: Call,
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Status {
    let shape =
        Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared };
    call.launch_kernel(function, shape, stream, params, extra)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn launch_cooperative_kernel(
    call: Call,
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
) -> Status {
    let shape =
        Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared };
    call.launch_kernel(function, shape, stream, params, core::ptr::null_mut())
}

fn launch_kernel_ex(
    call: Call,
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Status {
    let config = input(config)?;
    for attribute in inputs(config.attrs.cast_const(), config.numAttrs as usize)? {
        check_attribute(attribute.id)?;
    }
    let shape = Shape {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        shared: config.sharedMemBytes,
    };
    call.launch_kernel(function, shape, config.hStream, params, extra)
}

/// Attributes say how a kernel runs, which no kernel does here; but the events that some name
/// would have to be recorded.
fn check_attribute(id: CUlaunchAttributeID) -> Status {
    match id {
        CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT
        | CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT
        | CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE => {
            Err(CudaError::NOT_SUPPORTED)
        }
        known if known.0 <= CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_SHARED_MEMORY_MODE.0 => Ok(()),
        _ => Err(CudaError::INVALID_VALUE),
    }
}
