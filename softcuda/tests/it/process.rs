//! What only a process of its own can show: the environment, exit, thread-local destructors.
//!
//! A test starts this program again for one of the `child_` tests below, which do nothing
//! in an ordinary run.

use std::env;
use std::process::{Command, Output};
use std::ptr;
use std::sync::OnceLock;
use std::thread;

use wharf_sys::bindings::{
    CUresult, PFN_cuCtxSynchronize_v2000, PFN_cuInit_v2000, PFN_cuMemAlloc_v3020,
    PFN_cuMemFree_v3020, PFN_cuStreamSynchronize_v2000,
};

use crate::support::api;

const CHILD: &str = "TEST_SOFTCUDA_CHILD";

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

/// Makes the machine that the environment shapes ready, and returns a stream, pinned and device
/// memory.
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
    let report =
        text.lines().find(|line| line.contains("source-stable: cuMemcpyHtoDAsync")).unwrap();
    assert!(report.contains("changed between the call and its copy to [0x"), "{report}");
    assert!(report.contains(" on stream 0x"), "{report}");
    assert!(text.contains("leaks: at the end: stream 0x"), "{text}");
    assert!(text.contains("softcuda: cuMemcpyHtoDAsync 1\n"), "{text}");
    assert!(text.contains("softcuda: bytes htod 64 "), "{text}");
}

#[test]
fn what_is_not_understood_in_the_environment_is_said_once_and_fails_initialisation() {
    for (name, value, expected) in [
        (
            "SOFTCUDA_SCHEDULE",
            "sometimes",
            "SOFTCUDA_SCHEDULE=sometimes is invalid: the variable takes async,",
        ),
        ("SOFTCUDA_SHEDULE", "late", "SOFTCUDA_SHEDULE is invalid: there is no such variable"),
        (
            "SOFTCUDA_FAIL",
            "cuNoSuchCall@1=2",
            "SOFTCUDA_FAIL=cuNoSuchCall@1=2 is invalid: there is no",
        ),
        ("SOFTCUDA_FAIL", "cuMemAlloc@0=2", "the calls of cuMemAlloc are counted from 1"),
    ] {
        let text = said(&run_child("child_cannot_initialise", &[(name, value)]));
        assert_eq!(text.matches(expected).count(), 1, "{text}");
        assert_eq!(text.matches("softcuda: ").count(), 1, "{text}");
    }
}

#[test]
fn child_cannot_initialise() {
    if !is_child("child_cannot_initialise") {
        return;
    }
    // A machine of the program's own works, and says nothing.
    let machine = softcuda::Simulator::new(softcuda::Config::default());
    let bound = machine.bind();
    unsafe { api().init.call(0) }.unwrap();
    drop(bound);
    let api = api();
    for _ in 0..2 {
        let error = unsafe { api.init.call(0) }.unwrap_err();
        assert_eq!(error.code(), Some(wharf_sys::CudaError::INVALID_VALUE));
    }
}

#[test]
fn counters_are_those_of_the_machines_that_ran() {
    let text =
        said(&run_child("child_counts_on_machines_of_its_own", &[("SOFTCUDA_COUNTERS", "1")]));
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("softcuda: ")).collect();
    let bytes = "softcuda: bytes htod 0 dtoh 0 dtod 0 htoh 0";
    assert_eq!(lines, ["softcuda: cuInit 2", bytes, "softcuda: cuInit 3", bytes], "{text}");
}

#[test]
fn child_counts_on_machines_of_its_own() {
    if !is_child("child_counts_on_machines_of_its_own") {
        return;
    }
    let run = |calls| {
        let machine = softcuda::Simulator::new(softcuda::Config::from_environment().unwrap());
        let bound = machine.bind();
        let api = api();
        for _ in 0..calls {
            unsafe { api.init.call(0) }.unwrap();
        }
        drop(bound);
        machine
    };
    // One that ends before the process, and one that does not.
    drop(run(2));
    let _kept = std::mem::ManuallyDrop::new(run(3));
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
    static API: OnceLock<wharf_sys::Api> = OnceLock::new();
    let (api, stream, ..) = start();
    let api = API.get_or_init(|| api);
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

#[test]
fn a_child_of_fork_is_told_that_the_driver_is_not_initialised() {
    // What threads of the parent hold is lost in a fork, and no leak of the driver's.
    let no_leaks = ("ASAN_OPTIONS", "detect_leaks=0");
    said(&run_child("child_forks_after_initialisation", &[("SOFTCUDA_CHECK", "leaks"), no_leaks]));
    said(&run_child("child_forks_before_initialisation", &[no_leaks]));
}

/// Runs `body` in a fork of this process and asserts that it returned true.
fn in_fork(body: impl FnOnce() -> bool) {
    match unsafe { libc::fork() } {
        0 => {
            let passed =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
            // The handlers of the driver run, and must not wait for threads of the parent.
            unsafe { libc::exit(i32::from(!passed)) };
        }
        child => {
            let mut status = -1;
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the fork failed");
        }
    }
}

#[test]
fn child_forks_after_initialisation() {
    if !is_child("child_forks_after_initialisation") {
        return;
    }
    let (api, stream, source, device) = start();
    unsafe { api.memcpy_htod_async.call(device, source.as_ptr().cast(), 64, stream) }.unwrap();
    let machine = softcuda::Simulator::new(softcuda::Config::default());
    let bound = machine.bind();
    unsafe { api.init.call(0) }.unwrap();
    drop(bound);
    // The entry points themselves: the table of wharf-sys does not even call them there.
    let alloc = entry!("cuMemAlloc" 3020 PFN_cuMemAlloc_v3020);
    let free = entry!("cuMemFree" 3020 PFN_cuMemFree_v3020);
    let synchronize = entry!("cuStreamSynchronize" 2000 PFN_cuStreamSynchronize_v2000);
    let synchronize_all = entry!("cuCtxSynchronize" 2000 PFN_cuCtxSynchronize_v2000);
    let init = entry!("cuInit" 2000 PFN_cuInit_v2000);
    in_fork(move || {
        let mut pointer = 0;
        let results = unsafe {
            [
                alloc(&raw mut pointer, 64),
                synchronize(stream),
                synchronize_all(),
                free(device),
                init(0),
            ]
        };
        drop(machine);
        results == [CUresult::CUDA_ERROR_NOT_INITIALIZED; 5]
    });
}

#[test]
fn child_forks_before_initialisation() {
    if !is_child("child_forks_before_initialisation") {
        return;
    }
    in_fork(|| {
        let (api, stream, source, device) = start();
        unsafe { api.memcpy_htod_async.call(device, source.as_ptr().cast(), 64, stream) }.unwrap();
        unsafe { api.stream_synchronize.call(stream) }.is_ok()
    });
    start();
}
