#![expect(unsafe_code, reason = "exports C functions")]
//! Functions: their attributes and how many of their blocks fit a device.

use core::ffi::{c_char, c_int, c_uint};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::{exports, out, valid};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::module::REGISTERS;

exports! {
    Normal PFN_cuFuncGetAttribute_v2020: cuFuncGetAttribute(
        value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction,
    ) => get_attribute;
    Normal PFN_cuFuncSetAttribute_v9000: cuFuncSetAttribute(
        function: CUfunction, attribute: CUfunction_attribute, value: c_int,
    ) => set_attribute;
    Normal PFN_cuFuncSetCacheConfig_v3000: cuFuncSetCacheConfig(
        function: CUfunction, config: CUfunc_cache,
    ) => set_cache_config;
    Normal PFN_cuFuncSetSharedMemConfig_v4020: cuFuncSetSharedMemConfig(
        function: CUfunction, config: CUsharedconfig,
    ) => set_shared_mem_config;
    Normal PFN_cuFuncGetModule_v11000: cuFuncGetModule(
        module: *mut CUmodule, function: CUfunction,
    ) => get_module;
    Normal PFN_cuFuncGetName_v12030: cuFuncGetName(
        name: *mut *const c_char, function: CUfunction,
    ) => get_name;
    Normal PFN_cuFuncIsLoaded_v12040: cuFuncIsLoaded(
        state: *mut CUfunctionLoadingState, function: CUfunction,
    ) => is_loaded;
    Normal PFN_cuFuncLoad_v12040: cuFuncLoad(function: CUfunction) => load;
    Normal PFN_cuOccupancyMaxActiveBlocksPerMultiprocessor_v6050:
        cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: CUfunction, threads: c_int, shared: usize,
    ) => max_active_blocks;
    Normal PFN_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags_v7000:
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int, function: CUfunction, threads: c_int, shared: usize, flags: c_uint,
    ) => max_active_blocks_with_flags;
    Normal PFN_cuOccupancyMaxPotentialBlockSize_v6050: cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int, threads: *mut c_int, function: CUfunction, shared_of: CUoccupancyB2DSize,
        shared: usize, limit: c_int,
    ) => max_potential_block_size;
    Normal PFN_cuOccupancyMaxPotentialBlockSizeWithFlags_v7000:
        cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int, threads: *mut c_int, function: CUfunction, shared_of: CUoccupancyB2DSize,
        shared: usize, limit: c_int, flags: c_uint,
    ) => max_potential_block_size_with_flags;
    Normal PFN_cuOccupancyAvailableDynamicSMemPerBlock_v10020:
        cuOccupancyAvailableDynamicSMemPerBlock(
        shared: *mut usize, function: CUfunction, blocks: c_int, threads: c_int,
    ) => available_shared;
    Normal PFN_cuOccupancyMaxPotentialClusterSize_v11070: cuOccupancyMaxPotentialClusterSize(
        size: *mut c_int, function: CUfunction, config: *const CUlaunchConfig,
    ) => max_potential_cluster_size;
    Normal PFN_cuOccupancyMaxActiveClusters_v11070: cuOccupancyMaxActiveClusters(
        clusters: *mut c_int, function: CUfunction, config: *const CUlaunchConfig,
    ) => max_active_clusters;
}

/// Threads that start together.
const WARP: usize = 32;
/// Shared memory that every block takes beside its own, in bytes.
const RESERVED: usize = 1024;
/// `CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE`
const FLAGS: c_uint = 1;
/// Blocks of a cluster, at most, where nothing else is allowed.
const CLUSTER: c_int = 8;

pub(super) fn get_attribute(
    call: Call,
    value: *mut c_int,
    attribute: CUfunction_attribute,
    function: CUfunction,
) -> Status {
    let state = call.lock();
    let known = state.modules.functions.get(number(function)).ok_or(CudaError::INVALID_HANDLE)?;
    out(value, known.attribute(attribute)?)
}

pub(super) fn set_attribute(
    call: Call,
    function: CUfunction,
    attribute: CUfunction_attribute,
    value: c_int,
) -> Status {
    let mut state = call.lock();
    let known =
        state.modules.functions.get_mut(number(function)).ok_or(CudaError::INVALID_HANDLE)?;
    known.set_attribute(attribute, value)
}

impl Call<'_> {
    fn function(self, function: CUfunction) -> Status {
        let state = self.lock();
        self.context(&state)?;
        if state.modules.functions.contains(number(function)) {
            Ok(())
        } else {
            Err(CudaError::INVALID_HANDLE)
        }
    }

    /// A device attribute as a size.
    fn device_limit(self, attribute: CUdevice_attribute) -> usize {
        let value = attributes::of(&self.machine.config, attribute, 0).unwrap_or(0);
        usize::try_from(value).unwrap_or(0)
    }
}

/// A preference, which this device ignores as the reference allows.
pub(super) fn set_cache_config(call: Call, function: CUfunction, config: CUfunc_cache) -> Status {
    call.function(function)?;
    if config.0 > CUfunc_cache::CU_FUNC_CACHE_PREFER_EQUAL.0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(())
}

fn set_shared_mem_config(call: Call, function: CUfunction, config: CUsharedconfig) -> Status {
    call.function(function)?;
    if config.0 > CUsharedconfig::CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE.0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(())
}

fn get_module(call: Call, module: *mut CUmodule, function: CUfunction) -> Status {
    let mut state = call.lock();
    let known = state.modules.functions.get(number(function)).ok_or(CudaError::INVALID_HANDLE)?;
    let owner = known.owner;
    if state.modules.modules.contains(owner) {
        return out(module, to_pointer(owner));
    }
    let context = call.context(&state)?;
    out(module, to_pointer(state.modules.instance(owner, context)?))
}

/// The name lives as long as the function's module.
pub(super) fn get_name(call: Call, name: *mut *const c_char, function: CUfunction) -> Status {
    // "If either **name or hfunc is NULL, CUDA_ERROR_INVALID_VALUE is returned."
    if name.is_null() || function.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    let known = state.modules.functions.get(number(function)).ok_or(CudaError::INVALID_HANDLE)?;
    out(name, known.name.as_ptr())
}

fn is_loaded(call: Call, state: *mut CUfunctionLoadingState, function: CUfunction) -> Status {
    call.function(function)?;
    out(state, CUfunctionLoadingState::CU_FUNCTION_LOADING_STATE_LOADED)
}

fn load(call: Call, function: CUfunction) -> Status {
    call.function(function)
}

/// The number of blocks of `threads` threads and `shared` bytes that fit a multiprocessor.
fn blocks_of(call: Call, threads: usize, shared: usize) -> usize {
    let threads = threads.max(1).next_multiple_of(WARP);
    let registers = usize::try_from(REGISTERS).unwrap_or(1) * threads;
    let room = |attribute, need: usize| call.device_limit(attribute) / need.max(1);
    if threads > call.device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK) {
        return 0;
    }
    // The scarcest resource decides.
    room(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, threads)
        .min(room(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR,
            registers,
        ))
        .min(room(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            shared.saturating_add(RESERVED),
        ))
        .min(
            call.device_limit(
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR,
            ),
        )
}

/// A count as the driver API has it.
fn count(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn positive(value: c_int) -> Status<usize> {
    usize::try_from(value).ok().filter(|value| *value > 0).ok_or(CudaError::INVALID_VALUE)
}

fn max_active_blocks(
    call: Call,
    blocks: *mut c_int,
    function: CUfunction,
    threads: c_int,
    shared: usize,
) -> Status {
    max_active_blocks_with_flags(call, blocks, function, threads, shared, 0)
}

fn max_active_blocks_with_flags(
    call: Call,
    blocks: *mut c_int,
    function: CUfunction,
    threads: c_int,
    shared: usize,
    flags: c_uint,
) -> Status {
    let threads = positive(threads)?;
    if flags & !FLAGS != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    call.function(function)?;
    out(blocks, count(blocks_of(call, threads, shared)))
}

fn max_potential_block_size(
    call: Call,
    grid: *mut c_int,
    threads: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
) -> Status {
    max_potential_block_size_with_flags(call, grid, threads, function, shared_of, shared, limit, 0)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn max_potential_block_size_with_flags(
    call: Call,
    grid: *mut c_int,
    threads: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
    flags: c_uint,
) -> Status {
    if !valid(grid) || !valid(threads) || limit < 0 || flags & !FLAGS != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    call.function(function)?;
    let most = call.device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    let most = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .map_or(most, |limit| limit.min(most));
    let mut best = (0, 0, 0);
    for size in (1..=most).rev().filter(|size| *size == most || size.is_multiple_of(WARP)) {
        // SAFETY: the program promised a function of this type.
        let shared = shared_of.map_or(shared, |shared_of| unsafe { shared_of(count(size)) });
        let blocks = blocks_of(call, size, shared);
        best = best.max((blocks * size, size, blocks));
    }
    let (_, size, blocks) = best;
    let all =
        blocks * call.device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    out(grid, count(all))?;
    out(threads, count(size))
}

fn available_shared(
    call: Call,
    shared: *mut usize,
    function: CUfunction,
    blocks: c_int,
    threads: c_int,
) -> Status {
    let (blocks, threads) = (positive(blocks)?, positive(threads)?);
    call.function(function)?;
    if blocks > blocks_of(call, threads, 0) {
        return Err(CudaError::INVALID_VALUE);
    }
    let all = call
        .device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    let most =
        call.device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
    out(shared, (all / blocks).saturating_sub(RESERVED).min(most))
}

fn max_potential_cluster_size(
    call: Call,
    size: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> Status {
    input(config)?;
    call.function(function)?;
    out(size, CLUSTER)
}

fn max_active_clusters(
    call: Call,
    clusters: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> Status {
    let config = input(config)?;
    call.function(function)?;
    let threads = [config.blockDimX, config.blockDimY, config.blockDimZ];
    let threads = threads.into_iter().try_fold(1_usize, |all, one| all.checked_mul(one as usize));
    let blocks =
        blocks_of(call, threads.ok_or(CudaError::INVALID_VALUE)?, config.sharedMemBytes as usize);
    out(
        clusters,
        count(
            blocks
                * call.device_limit(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        ),
    )
}
