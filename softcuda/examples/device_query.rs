//! Prints what the simulated machine's devices say of themselves.
//!
//! ```text
//! cargo run -p softcuda --example device_query
//! SOFTCUDA_DEVICES=2 SOFTCUDA_MEMORY=80G cargo run -p softcuda --example device_query
//! ```

#![allow(unsafe_code, reason = "the driver API is a C interface")]

use std::error::Error;
use std::ffi::{CStr, c_char};
use std::io::{Write, stdout};

use wharf_sys::Api;
use wharf_sys::bindings::CUdevice_attribute as Attribute;

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: softcuda's functions have the signatures of NVIDIA's header and live for ever.
    let api = unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
    let (mut version, mut count) = (0, 0);
    // SAFETY: no precondition.
    unsafe { api.init.call(0) }?;
    // SAFETY: the result is a local.
    unsafe { api.driver_get_version.call(&raw mut version) }?;
    // SAFETY: the result is a local.
    unsafe { api.device_get_count.call(&raw mut count) }?;
    let mut out = stdout().lock();
    writeln!(out, "CUDA {}.{}, {count} device(s)", version / 1000, version % 1000 / 10)?;
    for ordinal in 0..count {
        print_device(&api, ordinal, &mut out)?;
    }
    Ok(())
}

fn print_device(api: &Api, ordinal: i32, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let (mut device, mut memory, mut name): (_, _, [c_char; 64]) = (0, 0, [0; 64]);
    // SAFETY: the result is a local.
    unsafe { api.device_get.call(&raw mut device, ordinal) }?;
    // SAFETY: the buffer has 64 bytes.
    unsafe { api.device_get_name.call(name.as_mut_ptr(), 64, device) }?;
    // SAFETY: the result is a local.
    unsafe { api.device_total_mem.call(&raw mut memory, device) }?;
    // SAFETY: the driver closed the text with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    writeln!(out, "\ndevice {ordinal}: {}", name.to_string_lossy())?;
    writeln!(out, "  {:<44} {:>12}", "memory, in MiB", memory >> 20)?;
    for (label, attribute) in ATTRIBUTES {
        let mut value = 0;
        // SAFETY: the result is a local.
        unsafe { api.device_get_attribute.call(&raw mut value, *attribute, device) }?;
        writeln!(out, "  {label:<44} {value:>12}")?;
    }
    Ok(())
}

const ATTRIBUTES: &[(&str, Attribute)] = &[
    ("compute capability, major", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
    ("compute capability, minor", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
    ("multiprocessors", Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
    ("copy engines", Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT),
    ("integrated", Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED),
    ("unified addressing", Attribute::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING),
    ("managed memory", Attribute::CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY),
    ("concurrent managed access", Attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS),
    (
        "virtual memory management",
        Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
    ),
    ("memory pools", Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED),
    (
        "64-bit stream memory operations",
        Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS,
    ),
    ("wait-value NOR", Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR),
    ("host registration", Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED),
    (
        "read-only host registration",
        Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
    ),
    (
        "host pointer usable for registered memory",
        Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
    ),
    ("stream priorities", Attribute::CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED),
];
