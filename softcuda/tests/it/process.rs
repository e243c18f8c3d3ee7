//! What only a process of its own can show: the environment, exit, thread-local destructors.
//!
//! A test starts this program again for one of the `child_` tests below, which do nothing
//! in an ordinary run.

use std::env;
use std::process::{Command, Output};
use std::ptr;
use std::thread;

use crate::support::api;

const CHILD: &str = "SOFTCUDA_TEST_CHILD";

/// Runs the child test `name` with more environment, and returns what became of it.
fn run_child(name: &str, environment: &[(&str, &str)]) -> Output {
    let program = env::current_exe().unwrap();
    Command::new(program)
        .args(["--exact", &format!("process::{name}"), "--nocapture", "--test-threads", "1"])
        .env(CHILD, name)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn is_child(name: &str) -> bool {
    env::var(CHILD).is_ok_and(|child| child == name)
}

/// What a child said on its standard error stream; it must have ended well.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {text}", output.status);
    text
}

/// Makes the machine that the environment shapes ready, and returns a stream, pinned and device memory.
fn start() -> (wharf_sys::Api, wharf_sys::bindings::CUstream, &'static mut [u8], u64) {
    let api = api();
    let (mut context, mut stream, mut source, mut device) =
        (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0);
    let source = unsafe {
        api.init.call(0).unwrap();
        api.device_primary_ctx_retain.call(&raw mut context, 0).unwrap();
        api.ctx_set_current.call(context).unwrap();
        api.stream_create.call(&raw mut stream, 1).unwrap();
        api.mem_alloc.call(&raw mut device, 64).unwrap();
        api.mem_host_alloc.call(&raw mut source, 64, 0).unwrap();
        std::slice::from_raw_parts_mut(source.cast(), 64)
    };
    (api, stream, source, device)
}

#[test]
fn the_environment_turns_on_what_the_readme_says() {
    let environment = [
        ("SOFTCUDA_SCHEDULE", "late"),
        ("SOFTCUDA_CHECK", "source-stable,leaks"),
        ("SOFTCUDA_COUNTERS", "1"),
    ];
    let text = said(&run_child("child_reuses_a_source", &environment));
    let report = text.lines().find(|line| line.contains("source-stable: cuMemcpyHtoDAsync")).unwrap();
    assert!(report.contains("changed between the call and its copy to [0x"), "{report}");
    assert!(report.contains(" on stream 0x"), "{report}");
    assert!(text.contains("leaks: at the end: stream 0x"), "{text}");
    assert!(text.contains("softcuda: cuMemcpyHtoDAsync 1\n"), "{text}");
    assert!(text.contains("softcuda: bytes htod 64 "), "{text}");

    let text = said(&run_child("child_reuses_a_source", &[("SOFTCUDA_SCHEDULE", "sometimes")]));
    assert!(text.contains("SOFTCUDA_SCHEDULE=sometimes is not understood"), "{text}");
}

#[test]
fn child_reuses_a_source() {
    if !is_child("child_reuses_a_source") {
        return;
    }
    let (api, stream, source, device) = start();
    unsafe { api.memcpy_htod_async.call(device, source.as_ptr().cast(), 64, stream) }.unwrap();
    source.fill(9);
    unsafe { api.stream_synchronize.call(stream) }.unwrap();
}

#[test]
fn work_that_never_ends_does_not_keep_the_process() {
    for schedule in ["async", "eager", "late", "random:1"] {
        said(&run_child("child_leaves_a_blocked_stream", &[("SOFTCUDA_SCHEDULE", schedule)]));
    }
}

#[test]
fn child_leaves_a_blocked_stream() {
    if !is_child("child_leaves_a_blocked_stream") {
        return;
    }
    let (api, stream, word, _) = start();
    word.fill(0);
    let address = word.as_ptr().expose_provenance() as u64;
    unsafe { api.stream_wait_value_64.call(stream, address, 1, 0) }.unwrap();
}

#[test]
fn the_driver_works_in_destructors_of_thread_local_variables() {
    said(&run_child("child_calls_the_driver_from_a_destructor", &[]));
}

#[test]
fn child_calls_the_driver_from_a_destructor() {
    if !is_child("child_calls_the_driver_from_a_destructor") {
        return;
    }
    let (api, stream, ..) = start();
    let api: &'static wharf_sys::Api = Box::leak(Box::new(api));
    let mut context = ptr::null_mut();
    unsafe { api.ctx_get_current.call(&raw mut context) }.unwrap();
    let (context, stream) = (context.expose_provenance(), stream.expose_provenance());
    let done = thread::spawn(move || LATE.with(|late| late.0.set(Some((api, context, stream)))));
    done.join().unwrap();
    assert!(DESTROYED.load(std::sync::atomic::Ordering::Acquire));
}

struct Late(std::cell::Cell<Option<(&'static wharf_sys::Api, usize, usize)>>);

thread_local! {
    static LATE: Late = const { Late(std::cell::Cell::new(None)) };
}

static DESTROYED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

impl Drop for Late {
    fn drop(&mut self) {
        let Some((api, context, stream)) = self.0.take() else { return };
        unsafe {
            api.ctx_set_current.call(ptr::with_exposed_provenance_mut(context)).unwrap();
            api.stream_destroy.call(ptr::with_exposed_provenance_mut(stream)).unwrap();
            api.ctx_synchronize.call().unwrap();
        }
        DESTROYED.store(true, std::sync::atomic::Ordering::Release);
    }
}
