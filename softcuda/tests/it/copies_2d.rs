//! Copies with rows and layers, and copies in batches.

use std::ptr;

use softcuda::{Config, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_MEMCPY2D_v2, CUDA_MEMCPY3D, CUDA_MEMCPY3D_BATCH_OP_v1, CUDA_MEMCPY3D_PEER_v1,
    CUdevice_attribute, CUmemcpy3DOperandType, CUmemcpyAttributes_v1,
    CUmemcpySrcAccessOrder as Order, CUmemorytype, CUresult, PFN_cuMemcpy2D_v3020,
    PFN_cuMemcpy2DAsync_v3020, PFN_cuMemcpy3D_v3020, PFN_cuMemcpy3DBatchAsync_v13000,
    PFN_cuMemcpy3DPeerAsync_v4000, PFN_cuMemcpyBatchAsync_v12080,
    PFN_cuMemcpyWithAttributesAsync_v13020,
};

use crate::memory_rig::Pair;
use crate::support::{Rig, code};

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const ANY: Order = Order::CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
const STREAM: Order = Order::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
const DURING_CALL: Order = Order::CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;

/// A copy of 2 rows of 3 bytes from pageable memory with rows of 4 to a device's with rows of 8.
fn into_rows(source: &[u8], device: u64) -> CUDA_MEMCPY2D_v2 {
    let mut copy: CUDA_MEMCPY2D_v2 = unsafe { std::mem::zeroed() };
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
    copy.srcHost = source.as_ptr().cast();
    copy.srcPitch = 4;
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = device;
    copy.dstPitch = 8;
    copy.dstXInBytes = 1;
    (copy.WidthInBytes, copy.Height) = (3, 2);
    copy
}

#[test]
fn rows_go_where_the_pitches_say() {
    for schedule in [Schedule::Async, Schedule::Late, Schedule::Random(4)] {
        let rig = Rig::new(schedule);
        let (stream, device) = (rig.stream(1), rig.device(16));
        let copy_2d = entry!("cuMemcpy2D" 3020 PFN_cuMemcpy2D_v3020);
        let copy_2d_async = entry!("cuMemcpy2DAsync" 3020 PFN_cuMemcpy2DAsync_v3020);
        unsafe { rig.api.memset_d8.call(device, 0, 16) }.unwrap();
        let mut source = [1_u8, 2, 3, 9, 4, 5, 6, 9];
        let copy = into_rows(&source, device);
        assert_eq!(unsafe { copy_2d(&raw const copy) }, OK);
        let expected = [0, 1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0, 0];
        assert_eq!(rig.read(device, 16), expected, "{schedule:?}");
        let copy = into_rows(&source, device);
        assert_eq!(unsafe { copy_2d_async(&raw const copy, stream) }, OK);
        source.fill(7);
        rig.synchronize(stream);
        assert_eq!(rig.read(device, 16), expected, "a pageable source may be reused");
        assert_eq!(source, [7; 8]);
    }
}

#[test]
fn layers_go_where_the_heights_say() {
    let rig = Rig::new(Schedule::Async);
    let copy_3d = entry!("cuMemcpy3D" 3020 PFN_cuMemcpy3D_v3020);
    let source: Vec<u8> = (0..24).collect();
    let mut back = [0_u8; 4];
    let mut copy: CUDA_MEMCPY3D = unsafe { std::mem::zeroed() };
    // Two layers of three rows of four bytes: the last two bytes of row 1 of both layers.
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
    copy.srcHost = source.as_ptr().cast();
    (copy.srcPitch, copy.srcHeight, copy.srcXInBytes, copy.srcY) = (4, 3, 2, 1);
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_UNIFIED;
    copy.dstDevice = back.as_mut_ptr().expose_provenance() as u64;
    (copy.WidthInBytes, copy.Height, copy.Depth) = (2, 1, 2);
    assert_eq!(unsafe { copy_3d(&raw const copy) }, OK);
    assert_eq!(back, [6, 7, 18, 19]);
    copy.srcHeight = 1;
    assert_eq!(unsafe { copy_3d(&raw const copy) }, INVALID, "the height is below Y + Height");
    copy.srcHeight = 3;
    copy.srcLOD = 1;
    assert_eq!(unsafe { copy_3d(&raw const copy) }, INVALID);
    drop(rig);
}

#[test]
fn what_no_copy_can_be_is_refused() {
    let rig = Rig::new(Schedule::Async);
    let copy_2d = entry!("cuMemcpy2D" 3020 PFN_cuMemcpy2D_v3020);
    let device = rig.device(16);
    let source = [0_u8; 16];
    let good = into_rows(&source, device);
    let nothing = CUmemorytype(99);
    let bad = [
        CUDA_MEMCPY2D_v2 { srcPitch: 2, ..good },
        CUDA_MEMCPY2D_v2 { dstPitch: 3, ..good },
        CUDA_MEMCPY2D_v2 { dstPitch: 1 << 40, ..good },
        CUDA_MEMCPY2D_v2 { dstDevice: 0, ..good },
        CUDA_MEMCPY2D_v2 { Height: 9, ..good },
        CUDA_MEMCPY2D_v2 { WidthInBytes: usize::MAX, ..good },
        CUDA_MEMCPY2D_v2 { srcMemoryType: nothing, ..good },
    ];
    for (index, copy) in bad.iter().enumerate() {
        assert_eq!(unsafe { copy_2d(copy) }, INVALID, "copy {index}");
    }
    let array = CUDA_MEMCPY2D_v2 { dstMemoryType: CUmemorytype::CU_MEMORYTYPE_ARRAY, ..good };
    assert_eq!(unsafe { copy_2d(&raw const array) }, CUresult::CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(unsafe { copy_2d(ptr::null()) }, INVALID);
    let nothing = CUDA_MEMCPY2D_v2 { Height: 0, ..good };
    assert_eq!(unsafe { copy_2d(&raw const nothing) }, OK);
}

#[test]
fn a_peer_copy_names_live_contexts() {
    let pair = Pair::new(Schedule::Late);
    let (rig, other) = (&pair.rig, pair.other);
    let copy_peer = entry!("cuMemcpy3DPeerAsync" 4000 PFN_cuMemcpy3DPeerAsync_v4000);
    let (stream, to) = (rig.stream(1), rig.device(8));
    let from = pair.on_other(|rig| {
        let from = rig.device(8);
        unsafe { rig.api.memset_d8.call(from, 4, 8) }.unwrap();
        unsafe { rig.api.ctx_synchronize.call() }.unwrap();
        from
    });
    let mut copy: CUDA_MEMCPY3D_PEER_v1 = unsafe { std::mem::zeroed() };
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    (copy.srcDevice, copy.srcContext) = (from, other);
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    (copy.dstDevice, copy.dstContext) = (to, rig.context);
    (copy.WidthInBytes, copy.Height, copy.Depth) = (8, 1, 1);
    assert_eq!(unsafe { copy_peer(&raw const copy, stream) }, OK);
    rig.synchronize(stream);
    assert_eq!(rig.read(to, 8), [4; 8]);
    copy.srcContext = ptr::without_provenance_mut(0x123);
    assert_eq!(unsafe { copy_peer(&raw const copy, stream) }, CUresult::CUDA_ERROR_INVALID_CONTEXT);
}

fn attributes(order: Order) -> CUmemcpyAttributes_v1 {
    let mut attributes: CUmemcpyAttributes_v1 = unsafe { std::mem::zeroed() };
    attributes.srcAccessOrder = order;
    attributes
}

#[test]
fn a_batch_reads_each_source_when_its_attributes_say() {
    let rig = Rig::new(Schedule::Late);
    let (stream, device) = (rig.stream(1), rig.device(8));
    let (now, later) = (rig.pinned(4), rig.pinned(4));
    now.fill(1);
    later.fill(1);
    let address = |bytes: &[u8]| bytes.as_ptr().expose_provenance() as u64;
    let (mut dsts, mut srcs) = ([device, device + 4], [address(now), address(later)]);
    let (mut sizes, mut first) = ([4, 4], [0, 1]);
    let mut all = [attributes(DURING_CALL), attributes(STREAM)];
    let batch = &rig.api.memcpy_batch_async_v13000;
    let (dsts, srcs, sizes) = (dsts.as_mut_ptr(), srcs.as_mut_ptr(), sizes.as_mut_ptr());
    let (all, first) = (all.as_mut_ptr(), first.as_mut_ptr());
    unsafe { batch.call(dsts, srcs, sizes, 2, all, first, 2, stream) }.unwrap();
    now.fill(2);
    later.fill(2);
    rig.synchronize(stream);
    assert_eq!(rig.read(device, 8), [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(rig.simulator.violations().len(), 1, "the second source was reused too early");
    let legacy = unsafe { batch.call(dsts, srcs, sizes, 2, all, first, 2, ptr::null_mut()) };
    assert_eq!(code(legacy), CudaError::INVALID_VALUE);
}

/// What a copy with an order of access moves that comes behind a fill of its source.
fn copied_behind_a_fill(schedule: Schedule, order: Order) -> u8 {
    let rig = Rig::new(schedule);
    let (stream, source, device) = (rig.stream(1), rig.device(4), rig.device(4));
    unsafe { rig.api.memset_d8.call(source, 1, 4) }.unwrap();
    rig.synchronize(ptr::null_mut());
    let (mut dst, mut src, mut size, mut first) = (device, source, 4, 0);
    let mut any = attributes(order);
    unsafe {
        rig.api.memset_d8_async.call(source, 2, 4, stream).unwrap();
        let batch = &rig.api.memcpy_batch_async_v13000;
        let (dst, src, size) = (&raw mut dst, &raw mut src, &raw mut size);
        batch.call(dst, src, size, 1, &raw mut any, &raw mut first, 1, stream).unwrap();
    }
    rig.synchronize(stream);
    rig.read(device, 4)[3]
}

#[test]
fn a_source_that_may_be_read_in_any_order_is_read_before_its_stream_gets_there() {
    assert_eq!(copied_behind_a_fill(Schedule::Eager, ANY), 2);
    assert_eq!(copied_behind_a_fill(Schedule::Late, STREAM), 2);
    assert_eq!(copied_behind_a_fill(Schedule::Late, ANY), 1, "before the fill");
    let seen: Vec<_> =
        (0..30).map(|seed| copied_behind_a_fill(Schedule::Random(seed), ANY)).collect();
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    assert!((0..30).all(|seed| copied_behind_a_fill(Schedule::Random(seed), STREAM) == 2));
}

#[test]
fn a_batch_says_which_copy_failed_and_does_none() {
    let rig = Rig::new(Schedule::Eager);
    let (stream, device) = (rig.stream(1), rig.device(8));
    let batch = entry!("cuMemcpyBatchAsync" 12080 PFN_cuMemcpyBatchAsync_v12080);
    unsafe { rig.api.memset_d8.call(device, 0, 8) }.unwrap();
    let source = [9_u8; 8];
    let from = source.as_ptr().expose_provenance() as u64;
    let (mut dsts, mut srcs, mut sizes) = ([device, device + 4], [from, from], [4, 5]);
    let mut first = [0];
    let mut one = attributes(STREAM);
    let mut call = |order, first: &mut [usize; 1]| {
        one.srcAccessOrder = order;
        let mut failed = 7;
        let (dsts, srcs, sizes) = (dsts.as_mut_ptr(), srcs.as_mut_ptr(), sizes.as_mut_ptr());
        let first = first.as_mut_ptr();
        let one = &raw mut one;
        let result = unsafe { batch(dsts, srcs, sizes, 2, one, first, 1, &raw mut failed, stream) };
        (result, failed)
    };
    assert_eq!(call(STREAM, &mut first), (INVALID, 1));
    assert_eq!(call(Order(0), &mut first), (INVALID, usize::MAX), "no single copy's");
    assert_eq!(call(STREAM, &mut [1]), (INVALID, usize::MAX));
    assert_eq!(rig.read(device, 8), [0; 8]);
}

#[test]
fn copies_with_attributes_of_one_and_three_dimensions() {
    let rig = Rig::new(Schedule::Late);
    let (stream, device) = (rig.stream(1), rig.device(16));
    let with = entry!("cuMemcpyWithAttributesAsync" 13020 PFN_cuMemcpyWithAttributesAsync_v13020);
    let batch = entry!("cuMemcpy3DBatchAsync" 13000 PFN_cuMemcpy3DBatchAsync_v13000);
    let mut source = [1_u8, 2, 3, 4, 5, 6, 7, 8];
    let from = source.as_ptr().expose_provenance() as u64;
    let mut during = attributes(DURING_CALL);
    assert_eq!(unsafe { with(device, from, 8, &raw mut during, stream) }, OK);
    let mut op: CUDA_MEMCPY3D_BATCH_OP_v1 = unsafe { std::mem::zeroed() };
    op.src.type_ = CUmemcpy3DOperandType::CU_MEMCPY_OPERAND_TYPE_POINTER;
    op.dst.type_ = op.src.type_;
    (op.src.op.ptr.ptr, op.src.op.ptr.rowLength) = (from, 4);
    op.dst.op.ptr.ptr = device + 8;
    (op.extent.width, op.extent.height, op.extent.depth) = (2, 2, 1);
    op.srcAccessOrder = DURING_CALL;
    assert_eq!(unsafe { batch(1, &raw mut op, 0, stream) }, OK);
    source.fill(0);
    rig.synchronize(stream);
    assert_eq!(rig.read(device, 12), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 5, 6]);
    op.extent.depth = 0;
    assert_eq!(unsafe { batch(1, &raw mut op, 0, stream) }, INVALID);
    assert_eq!(source, [0; 8]);
}

#[test]
fn a_pitch_beyond_the_devices_limit_is_refused() {
    let limit = (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_PITCH, 7);
    let rig = Rig::with(Config { attributes: vec![limit], ..Rig::config() });
    let copy_2d = entry!("cuMemcpy2D" 3020 PFN_cuMemcpy2D_v3020);
    let copy = into_rows(&[0; 8], rig.device(16));
    assert_eq!(unsafe { copy_2d(&raw const copy) }, INVALID);
}
