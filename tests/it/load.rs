#![expect(unsafe_code, reason = "takes the software driver's functions")]
//! Drivers that load, and drivers that do not.

use core::ffi::c_void;
use core::ptr;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use softcuda::{Config, Simulator};
use wharf::sys::Row;
use wharf::{CudaError, Driver, Error, LoadError};

use crate::backend::softcuda_driver;

fn resolve(row: &Row) -> *mut c_void {
    softcuda::entry_point(row.name, row.version)
}

#[test]
fn a_path_without_a_library_is_told() {
    let error = Driver::load_from("/nowhere/libcuda.so.1").unwrap_err();
    assert!(
        matches!(&error, LoadError::Library { name, .. } if name == "/nowhere/libcuda.so.1"),
        "{error:?}"
    );
    assert!(error.to_string().contains("WHARF_LIBCUDA"), "{error}");
}

#[test]
fn a_library_that_is_not_cuda_is_told() {
    let error = Driver::load_from("libc.so.6").unwrap_err();
    assert!(matches!(error, LoadError::NotCuda { .. }), "{error:?}");
}

#[test]
fn a_machine_without_devices_is_told() {
    let machine = Simulator::new(Config { devices: 0, ..Config::default() });
    let _bound = machine.bind();
    let error = softcuda_driver().unwrap_err();
    assert!(matches!(error, LoadError::NoDevice), "{error:?}");
}

#[test]
fn a_driver_that_refuses_to_start_is_told() {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    machine.fail("cuInit", 1, CudaError::SYSTEM_DRIVER_MISMATCH);
    let error = softcuda_driver().unwrap_err();
    let expected = Error::Driver { call: "cuInit", code: CudaError::SYSTEM_DRIVER_MISMATCH };
    assert!(matches!(error, LoadError::Init(inner) if inner == expected), "{error:?}");

    machine.fail("cuInit", 1, CudaError::NO_DEVICE);
    let error = softcuda_driver().unwrap_err();
    assert!(matches!(error, LoadError::NoDevice), "{error:?}");
}

#[test]
fn a_missing_required_row_is_told() {
    let without = |row: &Row| if row.name == "cuMemAlloc" { ptr::null_mut() } else { resolve(row) };
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    let error = unsafe { Driver::from_fns(without) }.unwrap_err();
    assert!(
        matches!(error, LoadError::Missing { call: "cuMemAlloc", introduced: 3020 }),
        "{error:?}"
    );
}

#[test]
fn a_missing_optional_row_is_an_error_when_called() {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let required = |row: &Row| if row.required { resolve(row) } else { ptr::null_mut() };
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    let driver = unsafe { Driver::from_fns(required) }.unwrap();
    let mut id = 0;
    // SAFETY: `id` is valid for writes for the whole call; there is no context to look into.
    let error = unsafe { driver.api().ctx_get_id.call(ptr::null_mut(), &raw mut id) }.unwrap_err();
    assert_eq!(error, Error::Unsupported { call: "cuCtxGetId", introduced: 12_000 });
    assert!(error.to_string().contains("CUDA 12.0"), "{error}");
}

#[test]
fn a_driver_of_cuda_11_4_has_every_required_row_and_no_later_one() {
    let machine = Simulator::new(Config { version: 11_040, ..Config::default() });
    let _bound = machine.bind();
    let driver = softcuda_driver().unwrap();
    assert_eq!(driver.version(), Ok(11_040));
    let mut id = 0;
    // SAFETY: `id` is valid for writes for the whole call; there is no context to look into.
    let error = unsafe { driver.api().ctx_get_id.call(ptr::null_mut(), &raw mut id) }.unwrap_err();
    assert_eq!(error, Error::Unsupported { call: "cuCtxGetId", introduced: 12_000 });
}

/// The whole path that an engine takes: dlopen, the driver's own look-up, cuInit.
///
/// Each case is a process of its own, this test again: what `Driver::load` finds is the
/// environment's to say, and a driver that was started stays as it is.
#[test]
fn shared_libraries_load() {
    const CHILD: &str = "WHARF_TEST_LOADS";
    if let Some(path) = env::var_os(CHILD) {
        let loaded = if path.is_empty() { Driver::load() } else { Driver::load_from(path) };
        return println!(
            "{}",
            loaded.map_or_else(|error| error.to_string(), |driver| describe(&driver))
        );
    }
    let load_from = |path: &str, settings: &[(&str, &str)]| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "load::shared_libraries_load", "--nocapture"]);
        command.env(CHILD, path).envs(settings.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let load = |library: &str, settings: &[(&str, &str)]| {
        load_from("", &[settings, &[("WHARF_LIBCUDA", library)]].concat())
    };
    let expect =
        |output: String, text: &str| assert!(output.contains(text), "{text:?} is not in {output}");
    let library = softcuda_library();
    let library = library.to_str().unwrap();
    expect(load_from(library, &[]), "loaded 13");
    expect(load_from(library, &[]), "softcuda");
    expect(load(library, &[]), "loaded 13");
    expect(load(library, &[("SOFTCUDA_VERSION", "11040")]), "loaded 11040");
    expect(
        load(library, &[("SOFTCUDA_VERSION", "11030")]),
        "supports CUDA 11.3, and this library needs 11.4 or later",
    );
    expect(load(library, &[("SOFTCUDA_DEVICES", "0")]), "found no device");
    expect(load(library, &[("SOFTCUDA_FAIL", "cuInit@1=999")]), "cuInit: CUDA_ERROR_UNKNOWN (999)");
    expect(load("/nowhere/libcuda.so", &[]), "no CUDA driver library: /nowhere/libcuda.so");
    expect(load("libc.so.6", &[]), "libc.so.6 is not a CUDA driver");
}

fn describe(driver: &Driver) -> String {
    let name = driver.device(0).unwrap().name().unwrap();
    format!("loaded {}: {name}", driver.version().unwrap())
}

/// `cargo test` builds softcuda as a shared library too, next to the test.
fn softcuda_library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.parent().map(|folder| folder.join("libsoftcuda.so")).unwrap();
    assert!(library.exists(), "{} is not there", library.display());
    library
}
