//! Several threads drive one machine: streams, events, copies, memory operations, host
//! functions, allocation. Run under `ThreadSanitizer`, it must report nothing.
//!
//! ```text
//! cargo run --release -p softcuda --example stress -- [THREADS] [ROUNDS]
//! ```
//!
//! Every round checks each byte that it moved, and the exit status says how that went.

#![allow(unsafe_code, reason = "the driver API is a C interface")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every call passes live handles and locals")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a driver call a line")]

use std::error::Error;
use std::ffi::c_void;
use std::io::{Write, stdout};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use softcuda::{Checks, Config, Schedule, Simulator};
use wharf_sys::bindings::CUcontext;
use wharf_sys::{Api, Error as CudaFailure};

const SIZE: usize = 4096;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let rounds: u64 = arguments.next().map_or(Ok(200), |text| text.parse())?;
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(7)] {
        let machine = Simulator::new(Config { schedule, checks: Checks::ALL, ..Config::default() });
        stress(&machine, threads, rounds)?;
        let leaks = machine.leaks();
        let violations = machine.violations();
        if !leaks.is_empty() || !violations.is_empty() {
            return Err(format!("{schedule:?}: {leaks:?} {violations:?}").into());
        }
        writeln!(
            stdout(),
            "{schedule:?}: {threads} threads, {rounds} rounds each, every byte right"
        )?;
    }
    Ok(())
}

fn stress(machine: &Simulator, threads: usize, rounds: u64) -> Result<(), Failure> {
    let _bound = machine.bind();
    let api = unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
    let mut context = ptr::null_mut();
    unsafe {
        api.init.call(0)?;
        api.device_primary_ctx_retain.call(&raw mut context, 0)?;
    }
    let shared = Shared { api: &api, context };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || work(&shared, number as u64, rounds)))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
    })?;
    unsafe { api.device_primary_ctx_release.call(0) }?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Shared<'a> {
    api: &'a Api,
    context: CUcontext,
}

// SAFETY: contexts may be made current on any thread (driver API, context management).
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

/// One thread: two streams, joined by an event, fed from a pinned buffer that is guarded by a
/// word which the device writes.
fn work(shared: &Shared<'_>, number: u64, rounds: u64) -> Result<(), Failure> {
    let api = shared.api;
    let (mut copies, mut checks, mut event) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let (mut source, mut target, mut word) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    unsafe {
        api.ctx_set_current.call(shared.context)?;
        api.stream_create.call(&raw mut copies, 1)?;
        api.stream_create.call(&raw mut checks, 1)?;
        api.event_create.call(&raw mut event, 2)?;
        api.mem_host_alloc.call(&raw mut source, SIZE, 0)?;
        api.mem_host_alloc.call(&raw mut target, SIZE, 0)?;
        api.mem_host_alloc.call(&raw mut word, 8, 0)?;
    }
    let done: &AtomicU64 = unsafe { &*word.cast() };
    // Memory is not zeroed.
    done.store(0, Ordering::Release);
    let called = AtomicU64::new(0);
    for round in 1..=rounds {
        let value = (round ^ number << 4).to_le_bytes()[0];
        while done.load(Ordering::Acquire) != round - 1 {
            std::hint::spin_loop();
        }
        unsafe {
            ptr::write_bytes(source.cast::<u8>(), value, SIZE);
            let mut device = 0;
            api.mem_alloc.call(&raw mut device, SIZE)?;
            api.memcpy_htod_async.call(device, source, SIZE, copies)?;
            api.event_record.call(event, copies)?;
            api.stream_wait_event.call(checks, event, 0)?;
            api.memcpy_dtoh_async.call(target, device, SIZE, checks)?;
            api.launch_host_func.call(
                checks,
                Some(count),
                ptr::from_ref(&called).cast_mut().cast(),
            )?;
            api.stream_write_value_64.call(copies, word.expose_provenance() as u64, round, 0)?;
            api.stream_synchronize.call(checks)?;
            let bytes = std::slice::from_raw_parts(target.cast::<u8>(), SIZE);
            if bytes.iter().any(|byte| *byte != value) {
                return Err(format!("thread {number}, round {round}: a byte is wrong").into());
            }
            api.stream_synchronize.call(copies)?;
            api.mem_free.call(device)?;
        }
    }
    if called.load(Ordering::Acquire) != rounds {
        return Err(format!("thread {number}: a host function is missing").into());
    }
    release(api, [copies, checks], event, [source, target, word])?;
    Ok(())
}

unsafe extern "C" fn count(data: *mut c_void) {
    let called: &AtomicU64 = unsafe { &*data.cast() };
    called.fetch_add(1, Ordering::Release);
}

fn release(
    api: &Api,
    streams: [wharf_sys::bindings::CUstream; 2],
    event: wharf_sys::bindings::CUevent,
    pinned: [*mut c_void; 3],
) -> Result<(), CudaFailure> {
    for stream in streams {
        unsafe { api.stream_destroy.call(stream) }?;
    }
    unsafe { api.event_destroy.call(event) }?;
    pinned.into_iter().try_for_each(|pointer| unsafe { api.mem_free_host.call(pointer) })
}
