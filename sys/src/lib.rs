//! The CUDA driver API for `wharf`: types, one function table, one loader.
//!
//! * [`bindings`]: types and signatures as bindgen reads them from NVIDIA's headers; checked
//!   in, so that no build needs the toolkit. Enums are newtypes: a value that a newer driver
//!   returns is a value.
//! * [`Api`]: the function table. [`Api::load`] finds the system's driver,
//!   [`Api::load_from`] opens a given library, [`Api::from_fns`] takes functions from anywhere,
//!   such as the software driver's.
//! * [`signature`]: what the name of a signature says.
//! * [`CudaError`], [`Error`], [`LoadError`]: what can go wrong; [`ErrorKind`]: what to do about
//!   it.
//!
//! Nothing links against CUDA. A driver that lacks an optional entry point still loads; calling
//! that entry point returns [`Error::Unsupported`].

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!(
    "wharf supports Linux on x86-64 and aarch64: the CUDA driver is looked for there only"
);

#[allow(clippy::allow_attributes, reason = "which of these fire depends on bindgen's version")]
#[allow(
    missing_docs,
    missing_debug_implementations,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    clippy::all,
    clippy::use_self,
    clippy::doc_markdown,
    clippy::too_many_lines,
    clippy::wildcard_imports,
    reason = "generated: NVIDIA's names, bindgen's layout"
)]
pub mod bindings;
mod code;
pub mod constants;
mod entry;
mod error;
mod kind;
mod load_error;
mod loader;
mod process;
pub mod signature;
mod table;

pub use code::CudaError;
pub use entry::{Entry, Signature};
pub use error::Error;
pub use kind::ErrorKind;
pub use load_error::LoadError;
pub use loader::{LIBRARY_VARIABLE, OLDEST_VERSION};
pub use process::Home;
pub use table::{Api, ROWS, Row};
