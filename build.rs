//! Finds a libcuda to link, for the feature `cuda-driver-sys` alone: that crate demands one.
//!
//! Searched, the first folder that has `libcuda.so` wins: `WHARF_LIBCUDA_DIR`, then `lib64` and
//! `lib64/stubs` of `CUDA_PATH` and of `/usr/local/cuda`. Where none has it, the linker's own
//! search decides. Tests find a folder that was given at run time too.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA_DRIVER_SYS").is_none() {
        return;
    }
    println!("cargo::rerun-if-env-changed=WHARF_LIBCUDA_DIR");
    println!("cargo::rerun-if-env-changed=CUDA_PATH");
    let given = env::var_os("WHARF_LIBCUDA_DIR").map(PathBuf::from);
    let toolkits = env::var_os("CUDA_PATH").map(PathBuf::from).into_iter();
    let toolkits = toolkits.chain([PathBuf::from("/usr/local/cuda")]);
    let installed = toolkits.flat_map(|root| [root.join("lib64"), root.join("lib64/stubs")]);
    let found =
        given.iter().cloned().chain(installed).find(|folder| folder.join("libcuda.so").exists());
    if let Some(folder) = &found {
        println!("cargo::rustc-link-search=native={}", folder.display());
    }
    match given {
        Some(folder) if found.as_deref() == Some(Path::new(&folder)) => {
            println!("cargo::rustc-link-arg-tests=-Wl,-rpath,{}", folder.display());
        }
        Some(folder) => {
            println!("cargo::warning=WHARF_LIBCUDA_DIR: no libcuda.so in {}", folder.display());
        }
        None => {}
    }
}
