#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Copies and memory sets.

use core::ffi::c_void;

use wharf::sys::bindings::{CUdeviceptr, CUmemcpyAttributes_v1, CUmemcpySrcAccessOrder};
use wharf::{Error, Stream};

use super::{Exercise, Guard, Outcome, World, call, zeroed};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuMemcpy", 4000, |w| with_two(w, |to, from| call!(w, memcpy(to, from, 64)))),
    ("cuMemcpyAsync", 4000, |w| {
        on_stream(w, |to, from, stream| call!(w, memcpy_async(to, from, 64, stream.as_raw())))
    }),
    ("cuMemcpyHtoD", 3020, |w| {
        let (device, host) = device_and_host(w)?;
        call!(w, memcpy_htod(device.get(), host.get(), 64))
    }),
    ("cuMemcpyDtoH", 3020, |w| {
        let (device, host) = device_and_host(w)?;
        call!(w, memcpy_dtoh(host.get(), device.get(), 64))
    }),
    ("cuMemcpyDtoD", 3020, |w| with_two(w, |to, from| call!(w, memcpy_dtod(to, from, 64)))),
    ("cuMemcpyHtoDAsync", 3020, |w| {
        let (device, host) = device_and_host(w)?;
        let stream = w.stream()?;
        // SAFETY: both are 64 bytes and live until the stream has been waited for.
        unsafe { stream.copy_htod(device.get(), host.get(), 64) }?;
        stream.synchronize()
    }),
    ("cuMemcpyDtoHAsync", 3020, |w| {
        let (device, host) = device_and_host(w)?;
        let stream = w.stream()?;
        // SAFETY: both are 64 bytes and live until the stream has been waited for.
        unsafe { stream.copy_dtoh(host.get(), device.get(), 64) }?;
        stream.synchronize()
    }),
    ("cuMemcpyDtoDAsync", 3020, |w| {
        // SAFETY: both are 64 bytes and live until the stream has been waited for.
        on_stream(w, |to, from, stream| unsafe { stream.copy_dtod(to, from, 64) })
    }),
    ("cuMemcpyPeer", 4000, |w| {
        let context = w.context.as_raw();
        with_two(w, |to, from| call!(w, memcpy_peer(to, context, from, context, 64)))
    }),
    ("cuMemcpyPeerAsync", 4000, |w| {
        let context = w.context.as_raw();
        on_stream(w, |to, from, stream| {
            call!(w, memcpy_peer_async(to, context, from, context, 64, stream.as_raw()))
        })
    }),
    ("cuMemcpyBatchAsync", 12080, |w| {
        on_stream(w, |to, from, stream| {
            let mut batch = Batch::new(to, from);
            let (to, from, size) = (&raw mut batch.to, &raw mut batch.from, &raw mut batch.size);
            let (attributes, index) = (&raw mut batch.attributes, &raw mut batch.index);
            let failed = &raw mut batch.failed;
            call!(
                w,
                memcpy_batch_async(
                    to,
                    from,
                    size,
                    1,
                    attributes,
                    index,
                    1,
                    failed,
                    stream.as_raw()
                )
            )
        })
    }),
    ("cuMemcpyBatchAsync", 13000, |w| {
        on_stream(w, |to, from, stream| {
            let mut batch = Batch::new(to, from);
            let (to, from, size) = (&raw mut batch.to, &raw mut batch.from, &raw mut batch.size);
            let (attributes, index) = (&raw mut batch.attributes, &raw mut batch.index);
            call!(
                w,
                memcpy_batch_async_v13000(to, from, size, 1, attributes, index, 1, stream.as_raw())
            )
        })
    }),
    ("cuMemsetD8", 3020, |w| {
        let memory = w.device_memory(64)?;
        call!(w, memset_d8(memory.get(), 1, 64))
    }),
    ("cuMemsetD16", 3020, |w| {
        let memory = w.device_memory(64)?;
        call!(w, memset_d16(memory.get(), 1, 32))
    }),
    ("cuMemsetD32", 3020, |w| {
        let memory = w.device_memory(64)?;
        call!(w, memset_d32(memory.get(), 1, 16))
    }),
    ("cuMemsetD8Async", 3020, |w| {
        // SAFETY: the memory is 64 bytes and lives until the stream has been waited for.
        on_stream(w, |to, _, stream| unsafe { stream.fill_d8(to, 1, 64) })
    }),
    ("cuMemsetD16Async", 3020, |w| {
        // SAFETY: the memory is 64 bytes and lives until the stream has been waited for.
        on_stream(w, |to, _, stream| unsafe { stream.fill_d16(to, 1, 32) })
    }),
    ("cuMemsetD32Async", 3020, |w| {
        // SAFETY: the memory is 64 bytes and lives until the stream has been waited for.
        on_stream(w, |to, _, stream| unsafe { stream.fill_d32(to, 1, 16) })
    }),
];

/// Runs `body` with two blocks of 64 bytes on the device.
fn with_two(w: &World, body: impl FnOnce(CUdeviceptr, CUdeviceptr) -> Outcome) -> Outcome {
    let (to, from) = (w.device_memory(64)?, w.device_memory(64)?);
    body(to.get(), from.get())
}

/// Runs `body` with two blocks of 64 bytes on the device and a stream, then waits for it.
fn on_stream(
    w: &World,
    body: impl FnOnce(CUdeviceptr, CUdeviceptr, &Stream) -> Outcome,
) -> Outcome {
    with_two(w, |to, from| {
        let stream = w.stream()?;
        body(to, from, &stream)?;
        stream.synchronize()
    })
}

fn device_and_host(w: &World) -> Result<(Guard<'_, CUdeviceptr>, Guard<'_, *mut c_void>), Error> {
    Ok((w.device_memory(64)?, w.pinned(64)?))
}

/// One copy of 64 bytes, as the batch entries take it.
struct Batch {
    to: CUdeviceptr,
    from: CUdeviceptr,
    size: usize,
    attributes: CUmemcpyAttributes_v1,
    index: usize,
    failed: usize,
}

impl Batch {
    fn new(to: CUdeviceptr, from: CUdeviceptr) -> Self {
        let mut attributes = zeroed!(CUmemcpyAttributes_v1);
        attributes.srcAccessOrder = CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
        Self { to, from, size: 64, attributes, index: 0, failed: 0 }
    }
}
