#![expect(unsafe_code, reason = "exports C functions")]
//! Copies in batches, and copies with attributes.
//!
//! "The batch as a whole executes in stream order but copies within a batch are not guaranteed
//! to execute in any specific order": each copy is an operation behind what the stream has, and
//! a last one waits for all.

use core::ffi::{c_uint, c_ulonglong};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs, out_if_any};
use super::exports;
use super::managed_batch::groups_of;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::number;
use crate::machine::{State, Work};
use crate::prepare::When;
use crate::sched::Origin;
use crate::task::{CopyTask, Operand, Place, Task};

exports! {
    Normal PFN_cuMemcpyBatchAsync_v12080: cuMemcpyBatchAsync(
        dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize,
        attributes: *mut CUmemcpyAttributes_v1, first: *mut usize, groups: usize,
        failed: *mut usize, stream: CUstream,
    ) | cuMemcpyBatchAsync_ptsz => batch_v12080;
    Normal PFN_cuMemcpyBatchAsync_v13000: cuMemcpyBatchAsync_v2(
        dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize,
        attributes: *mut CUmemcpyAttributes_v1, first: *mut usize, groups: usize, stream: CUstream,
    ) | cuMemcpyBatchAsync_v2_ptsz => batch;
    Normal PFN_cuMemcpy3DBatchAsync_v12080: cuMemcpy3DBatchAsync(
        count: usize, ops: *mut CUDA_MEMCPY3D_BATCH_OP_v1, failed: *mut usize, flags: c_ulonglong,
        stream: CUstream,
    ) | cuMemcpy3DBatchAsync_ptsz => batch_3d_v12080;
    Normal PFN_cuMemcpy3DBatchAsync_v13000: cuMemcpy3DBatchAsync_v2(
        count: usize, ops: *mut CUDA_MEMCPY3D_BATCH_OP_v1, flags: c_ulonglong, stream: CUstream,
    ) | cuMemcpy3DBatchAsync_v2_ptsz => batch_3d;
    Normal PFN_cuMemcpyWithAttributesAsync_v13020: cuMemcpyWithAttributesAsync(
        dst: CUdeviceptr, src: CUdeviceptr, size: usize, attributes: *mut CUmemcpyAttributes_v1,
        stream: CUstream,
    ) | cuMemcpyWithAttributesAsync_ptsz => with_attributes;
    Normal PFN_cuMemcpy3DWithAttributesAsync_v13020: cuMemcpy3DWithAttributesAsync(
        op: *mut CUDA_MEMCPY3D_BATCH_OP_v1, flags: c_ulonglong, stream: CUstream,
    ) | cuMemcpy3DWithAttributesAsync_ptsz => with_attributes_3d;
}

/// `CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE`: a hint.
const PREFER_OVERLAP: c_uint = 1;
/// For a failure that is no single copy's: "`SIZE_MAX`".
const ALL: usize = usize::MAX;

/// One copy of a batch.
type Item = (CopyTask, CUmemcpySrcAccessOrder);

/// The index of a copy that failed, and its error.
type Failure = (usize, CudaError);

fn check(order: CUmemcpySrcAccessOrder, flags: c_uint) -> Status {
    let first = CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    let last = CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
    let is_order = (first.0..=last.0).contains(&order.0);
    if is_order && flags & !PREFER_OVERLAP == 0 { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

impl Call<'_> {
    /// Enqueues copies without an order among them.
    fn copy_all(self, items: &[Item], stream: CUstream) -> Result<(), Failure> {
        let all = |code| (ALL, code);
        let mut state = self.lock();
        let handle = self.stream(&mut state, stream).map_err(all)?;
        self.forbid_on_capturing(&mut state, handle).map_err(all)?;
        let context = state.streams.get(handle).map_or(0, |stream| stream.context);
        let mut works = Vec::new();
        for (index, item) in items.iter().enumerate() {
            works.push(self.work(&state, context, item).map_err(|code| (index, code))?);
        }
        // All copies depend on the tail and not on each other: the order within a batch is open.
        let tail = state.stream_tail(handle).map_err(all)?;
        let origin = Origin { call: self.name, context, stream: handle };
        let track = state.track(handle);
        let mut ops = Vec::new();
        for work in works {
            let op = state.queue.add(origin, work, &tail);
            let lane = state.queue.new_lane();
            state
                .queue
                .set_track(op, track.as_ref().zip(lane).map(|(track, lane)| track.beside(&lane)));
            ops.push(op);
        }
        self.enqueue(state, handle, Work::Nothing, &ops).map(|_| ()).map_err(all)
    }

    fn work(self, state: &State, context: u64, (task, order): &Item) -> Status<Work> {
        let during_call =
            *order == CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
        let any = *order == CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
        // The other orders read the source when the stream gets there, pageable or not: the
        // program "synchronize[s] the stream after the API call" before it reuses it.
        let mut work =
            self.machine.prepare(state, self.name, context, &Task::Copy(*task), When::Launch)?;
        if let Work::Copy(copy) = &mut work
            && during_call
        {
            copy.hash = None;
            copy.stage().map_err(|_| CudaError::INVALID_VALUE)?;
        } else if let Work::Copy(copy) = &mut work
            && any
            && state.queue.reads_early()
        {
            // "Access to the source pointer can be out of stream order and the accesses can happen
            // even after the API call returns": the hash still tells a source that changes later.
            // What cannot be read yet is read in the stream's order.
            let _ = copy.stage();
        }
        Ok(work)
    }
}

fn linear(dst: u64, src: u64, size: usize) -> CopyTask {
    let side = |address| Operand::linear(address, Place::Unified);
    CopyTask::linear(side(dst), side(src), size)
}

/// The arguments of a batch of linear copies.
struct Batch {
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attributes: *mut CUmemcpyAttributes_v1,
    first: *mut usize,
    groups: usize,
}

impl Batch {
    fn items(&self) -> Status<Vec<Item>> {
        let Self { count, groups, .. } = *self;
        if count == 0 || groups == 0 || groups > count {
            return Err(CudaError::INVALID_VALUE);
        }
        let (dsts, srcs) = (inputs(self.dsts, count)?, inputs(self.srcs, count)?);
        let sizes = inputs(self.sizes, count)?;
        let (attributes, first) = (inputs(self.attributes, groups)?, inputs(self.first, groups)?);
        for attributes in &attributes {
            check(attributes.srcAccessOrder, attributes.flags)?;
        }
        // A group of copies shares attributes; `first` holds the index of the first copy of each.
        let group_of = groups_of(&first, count)?;
        let item = |index: usize| {
            let order = attributes[group_of[index]].srcAccessOrder;
            (linear(dsts[index], srcs[index], sizes[index]), order)
        };
        Ok((0..count).map(item).collect())
    }
}

/// Writes the index of the copy that failed, for the calls that ask for it.
fn report(result: Result<(), Failure>, failed: *mut usize) -> Status {
    let Err((index, code)) = result else { return Ok(()) };
    out_if_any(failed, index)?;
    Err(code)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn batch_v12080(
    call: Call,
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attributes: *mut CUmemcpyAttributes_v1,
    first: *mut usize,
    groups: usize,
    failed: *mut usize,
    stream: CUstream,
) -> Status {
    let all = |code| (ALL, code);
    let batch = Batch { dsts, srcs, sizes, count, attributes, first, groups };
    // "The stream to enqueue the operations in. Must not be legacy NULL stream."
    let items = call.forbid_legacy(stream).and_then(|()| batch.items());
    report(items.map_err(all).and_then(|items| call.copy_all(&items, stream)), failed)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn batch(
    call: Call,
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attributes: *mut CUmemcpyAttributes_v1,
    first: *mut usize,
    groups: usize,
    stream: CUstream,
) -> Status {
    let none = core::ptr::null_mut();
    batch_v12080(call, dsts, srcs, sizes, count, attributes, first, groups, none, stream)
}

fn with_attributes(
    call: Call,
    dst: CUdeviceptr,
    src: CUdeviceptr,
    size: usize,
    attributes: *mut CUmemcpyAttributes_v1,
    stream: CUstream,
) -> Status {
    let attributes = input(attributes)?;
    check(attributes.srcAccessOrder, attributes.flags)?;
    let item = (linear(dst, src, size), attributes.srcAccessOrder);
    call.copy_all(&[item], stream).map_err(|(_, code)| code)
}

/// The extent in bytes, rows and layers, and the bytes of an element.
fn extent_of(state: &State, op: &CUDA_MEMCPY3D_BATCH_OP_v1) -> Status<([usize; 3], usize)> {
    let elements = [element_of(state, &op.src)?, element_of(state, &op.dst)?];
    let element = match elements {
        [Some(src), Some(dst)] if src != dst => return Err(CudaError::INVALID_VALUE),
        // "For pointer-to-pointer copies, the element size is considered to be 1. For pointer
        // to CUDA array or vice versa copies, the element size is determined by the CUDA array."
        [src, dst] => src.or(dst).unwrap_or(1),
    };
    let CUextent3D { width, height, depth } = op.extent;
    let width = width.checked_mul(element).ok_or(CudaError::INVALID_VALUE)?;
    // "The width, height and depth of a copy are specified in elements and must not be zero."
    if width == 0 || height == 0 || depth == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(([width, height, depth], element))
}

fn element_of(state: &State, side: &CUmemcpy3DOperand) -> Status<Option<usize>> {
    match side.type_ {
        CUmemcpy3DOperandType::CU_MEMCPY_OPERAND_TYPE_POINTER => Ok(None),
        CUmemcpy3DOperandType::CU_MEMCPY_OPERAND_TYPE_ARRAY => {
            // SAFETY: the type says that this is the variant.
            let array = unsafe { side.op.array }.array;
            let array = state.arrays.get(number(array)).ok_or(CudaError::INVALID_HANDLE)?;
            Ok(Some(array.element))
        }
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn operand_of(
    state: &State,
    side: &CUmemcpy3DOperand,
    extent: [usize; 3],
    element: usize,
) -> Status<Operand> {
    if side.type_ == CUmemcpy3DOperandType::CU_MEMCPY_OPERAND_TYPE_ARRAY {
        // SAFETY: the type says that this is the variant.
        let CUmemcpy3DOperand_st__bindgen_ty_1__bindgen_ty_2 { array, offset } =
            unsafe { side.op.array };
        let array = state.arrays.get(number(array)).ok_or(CudaError::INVALID_HANDLE)?;
        let x = offset.x.checked_mul(element).ok_or(CudaError::INVALID_VALUE)?;
        return array.operand([x, offset.y, offset.z], extent).ok_or(CudaError::INVALID_VALUE);
    }
    // SAFETY: the type, which was checked, says that this is the variant.
    let pointer = unsafe { side.op.ptr };
    let row = pointer.rowLength.checked_mul(element).ok_or(CudaError::INVALID_VALUE)?;
    // "When either of these values is zero, that aspect of the operand is considered to be
    // tightly packed according to the copy extent."
    let pitch = if row == 0 { extent[0] } else { row };
    let height = if pointer.layerHeight == 0 { extent[1] } else { pointer.layerHeight };
    if pitch < extent[0] || height < extent[1] {
        return Err(CudaError::INVALID_VALUE);
    }
    let layer = pitch.checked_mul(height).ok_or(CudaError::INVALID_VALUE)?;
    Ok(Operand { address: pointer.ptr, place: Place::Unified, pitch, layer, context: None })
}

fn item_3d(state: &State, op: &CUDA_MEMCPY3D_BATCH_OP_v1) -> Status<Item> {
    check(op.srcAccessOrder, op.flags)?;
    let (extent, element) = extent_of(state, op)?;
    let dst = operand_of(state, &op.dst, extent, element)?;
    let src = operand_of(state, &op.src, extent, element)?;
    let [width, height, depth] = extent;
    Ok((CopyTask { dst, src, width, height, depth }, op.srcAccessOrder))
}

fn copy_all_3d(
    call: Call,
    count: usize,
    ops: *mut CUDA_MEMCPY3D_BATCH_OP_v1,
    flags: c_ulonglong,
    stream: CUstream,
) -> Result<(), Failure> {
    if count == 0 || flags != 0 {
        return Err((ALL, CudaError::INVALID_VALUE));
    }
    let ops = inputs(ops, count).map_err(|code| (ALL, code))?;
    let state = call.lock();
    let item = |(index, op)| item_3d(&state, op).map_err(|code| (index, code));
    let items: Vec<_> = ops.iter().enumerate().map(item).collect::<Result<_, _>>()?;
    drop(state);
    call.copy_all(&items, stream)
}

fn batch_3d_v12080(
    call: Call,
    count: usize,
    ops: *mut CUDA_MEMCPY3D_BATCH_OP_v1,
    failed: *mut usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    let allowed = call.forbid_legacy(stream).map_err(|code| (ALL, code));
    report(allowed.and_then(|()| copy_all_3d(call, count, ops, flags, stream)), failed)
}

fn batch_3d(
    call: Call,
    count: usize,
    ops: *mut CUDA_MEMCPY3D_BATCH_OP_v1,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    batch_3d_v12080(call, count, ops, core::ptr::null_mut(), flags, stream)
}

fn with_attributes_3d(
    call: Call,
    op: *mut CUDA_MEMCPY3D_BATCH_OP_v1,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    copy_all_3d(call, 1, op, flags, stream).map_err(|(_, code)| code)
}
