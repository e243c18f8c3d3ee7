#![expect(unsafe_code, reason = "forks, makes and destroys contexts")]
//! A device that is lost, or a context that its owner destroys: every wait ends with the driver's
//! error, and nothing is used again. A forked child is refused.

use std::cell::RefCell;
use std::env;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, HostError, Pool};
use wharf::slab::AllocError;
use wharf::timeline::WaitError;
use wharf::{Context, CudaError, DeviceAttribute, Driver, Error, Stream};

use super::{BLOCK, SPAN, builder, context, device_pool, gate, pinned_pool, streams};
use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(a_child_is_refused);

const LOST: CudaError = CudaError::ILLEGAL_ADDRESS;

fn is_lost(error: Error) -> bool {
    error.code() == Some(LOST)
}

/// Threads that wait in every way when the device faults.
fn all_waits_end(attributes: Vec<(wharf::sys::bindings::CUdevice_attribute, i32)>) {
    let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream, other] = streams(&context);
        let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
        let limited: Pool = builder().max_bytes(BLOCK).wait(LONG).build(resource).unwrap();
        let (device, pinned) = (device_pool(&context), pinned_pool(&context));
        let held = gate(&stream);
        let mut host: Buffer<u8> = pinned.alloc(5000, &stream).unwrap();
        let waited: Buffer<u8> = device.alloc(5000, &stream).unwrap();
        host.copy_from(&waited, &stream).unwrap();
        // Used by two streams: the one that has it next waits for the other, on the device.
        let all: Buffer<u8> = limited.alloc(BLOCK, &stream).unwrap();
        all.slice(..BLOCK / 2).unwrap().fill(1, &stream).unwrap();
        all.slice(BLOCK / 2..).unwrap().fill(1, &other).unwrap();
        drop(all);
        let ticket = stream.ticket().unwrap();
        let bind = binder();
        let start = Instant::now();
        let of_wait = |outcome| matches!(outcome, Err(WaitError::Driver(error)) if is_lost(error));
        let of_host =
            |outcome| matches!(outcome, Err(HostError::Busy(WaitError::Driver(e))) if is_lost(e));
        let of_alloc = |error| matches!(error, AllocError::Upstream(error) if is_lost(error));
        let waits: [Box<dyn FnOnce() -> bool + Send + '_>; 4] = [
            Box::new(|| of_wait(waited.wait(LONG))),
            Box::new(|| of_wait(ticket.wait(LONG))),
            Box::new(|| of_host(host.host_mut(LONG).map(drop))),
            // Before the fault there is nothing to wait for here.
            Box::new(|| limited.alloc::<u8>(BLOCK, &other).err().is_none_or(of_alloc)),
        ];
        thread::scope(|scope| {
            let waits = waits.map(|wait| {
                let bind = bind.clone();
                scope.spawn(move || {
                    let _bound = bind();
                    wait()
                })
            });
            machine.fault_devices(LOST);
            drop(held);
            assert!(waits.into_iter().all(|wait| wait.join().unwrap()));
        });
        assert!(start.elapsed() < LONG);
        // No allocation succeeds any more.
        let refused = limited.alloc::<u8>(BLOCK, &stream);
        assert!(matches!(refused, Err(AllocError::Upstream(error)) if is_lost(error)));
        let unmaps = machine.calls("cuMemUnmap") + machine.calls("cuMemHostUnregister");
        let address = waited.info().address;
        drop(waited);
        for pool in [&device, &limited] {
            pool.trim(Duration::ZERO, 0);
            assert!(pool.alloc::<u8>(5000, &other).is_err());
        }
        assert!(device.blocks().iter().any(|block| block.address == address));
        drop((host, device, pinned, limited, stream, other));
        assert!(start.elapsed() < LONG);
        assert_eq!(
            machine.calls("cuMemUnmap") + machine.calls("cuMemHostUnregister"),
            unmaps,
            "leaked"
        );
    });
}

#[test]
fn every_wait_ends_with_the_drivers_error() {
    all_waits_end(Vec::new());
}

#[test]
fn every_wait_ends_where_markers_are_events() {
    all_waits_end(vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)]);
}

/// In a process of its own, this test again: a thread that ends, and then the process, with a pool,
/// a buffer in use and a stream of a lost device.
#[test]
fn a_process_ends_after_a_fault() {
    const CHILD: &str = "WHARF_TEST_LOSES_DEVICE";
    thread_local! {
        static KEPT: RefCell<Option<(Pool, Buffer<u8>, Stream)>> = const { RefCell::new(None) };
    }
    if env::var_os(CHILD).is_none() {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "pool::faults::a_process_ends_after_a_fault"]).env(CHILD, "1");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = device_pool(&context);
        let held = gate(&stream);
        let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
        buffer.fill(1, &stream).unwrap();
        machine.fault_devices(LOST);
        drop(held);
        assert!(matches!(buffer.wait(LONG), Err(WaitError::Driver(error)) if is_lost(error)));
        KEPT.set(Some((pool, buffer, stream)));
    });
}

/// One call of a name after another fails: what is an error is one, and nothing is used too early.
#[test]
fn every_call_may_fail_once() {
    let calls = [
        "cuMemHostRegister",
        "cuMemHostGetDevicePointer",
        "cuStreamWriteValue64",
        "cuStreamIsCapturing",
        "cuEventCreate",
        "cuEventRecord",
        "cuEventQuery",
        "cuStreamWaitEvent",
        "cuThreadExchangeStreamCaptureMode",
        "cuCtxGetCurrent",
        "cuMemcpyAsync",
        "cuMemsetD8Async",
        "cuMemCreate",
    ];
    let without = vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)];
    for (call, attributes) in
        calls.iter().flat_map(|call| [(call, Vec::new()), (call, without.clone())])
    {
        for nth in 1..=6 {
            let machine = Arc::new(Simulator::new(Config {
                attributes: attributes.clone(),
                ..Config::default()
            }));
            on_machine(&machine, |driver| {
                let context = context(driver);
                let [one, two] = streams(&context);
                let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
                let pool = builder().max_bytes(2 * BLOCK).wait(LONG).build(resource).unwrap();
                machine.fail(call, nth, CudaError::OUT_OF_MEMORY);
                for round in 0..6_usize {
                    let (user, other) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
                    let piece = |buffer: Buffer<u8>| buffer.slice(..1000).unwrap();
                    let Ok(a) = pool.alloc(BLOCK, user).map(piece) else { continue };
                    let Ok(b) = pool.alloc(BLOCK, other).map(piece) else { continue };
                    let (head, tail) = (a.slice(..500).unwrap(), a.slice(500..).unwrap());
                    let to = b.slice(..500).unwrap();
                    let _refused = head.fill(1, user).and_then(|()| to.copy_from(&tail, other));
                }
                // What was lost on the way is counted, and the rest comes back.
                let leaked = pool.stats().leaked;
                pool.trim(Duration::ZERO, 0);
                let _drained = (one.synchronize(), two.synchronize());
                let closed = pool.clone().close(LONG);
                assert!(closed.is_ok(), "{call}");
                assert_eq!(pool.slab_stats().live as u64, leaked, "{call} {nth}");
            });
        }
    }
}

/// An engine destroys the context that it lent, under a pool with blocks out, retired and free.
#[test]
fn a_context_destroyed_under_a_pool_is_an_error() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let (api, device) = (driver.api(), driver.device(0).unwrap());
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is valid for writes.
        unsafe { api.ctx_create.call(&raw mut raw, 0, device.as_raw()) }.unwrap();
        // SAFETY: the context is this test's. It is destroyed too early on purpose: the software
        // driver knows its handles.
        let context = unsafe { Context::borrow_raw(raw, driver) }.unwrap();
        let [stream, other] = streams(&context);
        let pool = device_pool(&context);
        let [kept, dropped]: [Buffer<u8>; 2] =
            std::array::from_fn(|_| pool.alloc(5000, &stream).unwrap());
        dropped.fill(1, &stream).unwrap();
        kept.fill(1, &stream).unwrap();
        drop(dropped);
        let unmaps = machine.calls("cuMemUnmap");
        // SAFETY: made above, destroyed once.
        unsafe { api.ctx_destroy.call(raw) }.unwrap();

        let of_wait = kept.wait(LONG);
        assert!(of_wait.is_ok() || matches!(of_wait, Err(WaitError::Driver(_))), "{of_wait:?}");
        let refused = kept.fill(2, &stream).unwrap_err();
        assert!(matches!(refused, Error::Driver { .. }), "{refused}");
        // Whatever is handed out is refused at its first use, and the pool cannot grow.
        for stream in [&stream, &other] {
            let error = pool.alloc::<u8>(5000, stream).map(|buffer| buffer.fill(3, stream));
            assert!(!matches!(error, Ok(Ok(()))), "{error:?}");
        }
        let grown = pool.alloc::<u8>(SPAN / 2, &stream).unwrap_err();
        assert!(matches!(grown, AllocError::Upstream(_)), "{grown}");
        drop(kept);
        pool.trim(Duration::ZERO, 0);
        drop((pool, stream, other, context));
        assert_eq!(machine.calls("cuMemUnmap"), unmaps, "leaked");
    });
}

fn a_child_is_refused(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    buffer.fill(1, &stream).unwrap();
    let ticket = stream.ticket().unwrap();
    ticket.wait(LONG).unwrap();
    let later = stream.ticket().unwrap();
    // SAFETY: the child calls nothing but what finds out that it is one, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let refused =
            matches!(pool.alloc::<u8>(5000, &stream), Err(AllocError::Upstream(Error::Forked)))
                && later.wait(LONG) == Err(WaitError::Driver(Error::Forked))
                && later.poll() == Err(Error::Forked);
        // SAFETY: ends the child without what the parent registered for its own end.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    drop(buffer);
    pool.close(LONG).unwrap();
}
