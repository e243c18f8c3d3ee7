//! The commonest bug of staging code: a pinned source rewritten while a copy still reads it.
//!
//! ```text
//! cargo run -p softcuda --example unguarded_reuse
//! SOFTCUDA_SCHEDULE=eager cargo run -p softcuda --example unguarded_reuse
//! SOFTCUDA_SCHEDULE=late SOFTCUDA_CHECK=source-stable \
//!     cargo run -p softcuda --example unguarded_reuse
//! ```
//!
//! Each step writes its number into the same pinned buffer and enqueues a copy of it to its own
//! place on the device, without waiting for the copy of the step before. Under `eager` the bytes
//! are right all the same; under `late` they are wrong every time, and the check names the call,
//! both addresses and the stream. The exit status is 1 if a byte is wrong.

#![allow(unsafe_code, reason = "the driver API is a C interface")]

use std::error::Error;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::ptr;

use wharf_sys::Api;

const STEPS: u8 = 4;
const SIZE: usize = 4096;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // SAFETY: softcuda's functions have the signatures of NVIDIA's header and live for ever.
    let api = unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
    let (mut context, mut stream, mut source, mut device) =
        (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0);
    // SAFETY: no precondition.
    unsafe { api.init.call(0) }?;
    // SAFETY: the result is a local.
    unsafe { api.device_primary_ctx_retain.call(&raw mut context, 0) }?;
    // SAFETY: the context was just retained.
    unsafe { api.ctx_set_current.call(context) }?;
    // SAFETY: the result is a local.
    unsafe { api.stream_create.call(&raw mut stream, 1) }?;
    // SAFETY: the result is a local.
    unsafe { api.mem_host_alloc.call(&raw mut source, SIZE, 0) }?;
    // SAFETY: the result is a local.
    unsafe { api.mem_alloc.call(&raw mut device, SIZE * usize::from(STEPS)) }?;

    for step in 0..STEPS {
        // SAFETY: `source` has `SIZE` bytes. This is the bug: nothing says that the copy of the
        // step before is done.
        unsafe { ptr::write_bytes(source.cast::<u8>(), step, SIZE) };
        let to = device + u64::from(step) * SIZE as u64;
        // SAFETY: both sides have `SIZE` bytes.
        unsafe { api.memcpy_htod_async.call(to, source, SIZE, stream) }?;
    }
    // SAFETY: the stream was made above.
    unsafe { api.stream_synchronize.call(stream) }?;

    let mut bytes = vec![0_u8; SIZE * usize::from(STEPS)];
    // SAFETY: both sides have so many bytes.
    unsafe { api.memcpy_dtoh.call(bytes.as_mut_ptr().cast(), device, bytes.len()) }?;
    let wrong = (0..STEPS)
        .filter(|step| bytes[usize::from(*step) * SIZE..][..SIZE].iter().any(|byte| byte != step));
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() {
        writeln!(stdout(), "all {STEPS} steps arrived as written")?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(stdout(), "steps {wrong:?} arrived with a later step's bytes")?;
        Ok(ExitCode::FAILURE)
    }
}
