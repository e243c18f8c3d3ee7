//! Lock-free slab memory and staging for CUDA engines, on the raw driver API.
//!
//! An engine that serves a model hands a few small inputs to the device before each of
//! thousands of steps a second. `wharf` gives it memory that is carved without locks and
//! reused only when the device is done with it, beside whatever the engine already uses for its
//! kernels: contexts and streams are borrowed by raw handle, memory is handed out by raw address.
//!
//! # Examples
//!
//! The driver here is `softcuda`, the software driver that the tests use;
//! [`Driver::load`] finds the system's.
//!
//! ```
//! use wharf::{Context, Driver, Stream};
//!
//! # let machine = softcuda::Simulator::new(softcuda::Config::default());
//! # let _bound = machine.bind();
//! // Its functions have the signatures that the rows name, and are callable for ever.
//! let driver = unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
//! let context = Context::retain(&driver.device(0)?)?;
//! let stream = Stream::new(&context)?;
//! stream.synchronize()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When not to use it
//!
//! An engine that copies its inputs once, or that never replays a graph, gains nothing from
//! memory at stable addresses; cudarc or NVIDIA's cuda-core wrap more of the driver.
//!
//! # Features
//!
//! * `cuda-driver-sys`: conversions to and from that crate's handles. Links libcuda, as that
//!   crate demands.
//! * `serde`: [`report`]s can be serialised.
//! * `svg`: graphs drawn as SVG (`GraphDefinition::to_svg`).
//! * `nvtx`: ranges, marks and names for NVIDIA's profilers, blocks for its memory checker, see
//!   [`profile`]. Building it needs libclang.
//!
//! # Map
//!
//! * [`driver`]: the loaded driver, devices, contexts, events.
//! * [`timeline`]: how far a stream has come.
//! * [`stream`]: streams, host callbacks, copies.
//! * [`CudaError`], [`Error`], [`LoadError`]: what can go wrong.
//! * [`memory`]: where bytes come from.
//! * [`slab`]: blocks of all sizes from one resource.
//! * [`pool`]: buffers that are reused in the order of streams.
//! * [`staging`]: a step's inputs at stable device addresses.
//! * [`tier`]: objects that move between device, managed, pinned and file-mapped memory.
//! * [`graph`]: explicit graphs, stream capture, executable graphs.
//! * [`forecast`]: what sizes come next.
//! * [`manager`]: a step's inputs by name; what the original module's names are called here.
//! * [`report`]: who holds which bytes of a pool.
//! * [`profile`]: what a profiler sees.
//! * [`sys`]: the raw bindings and the function table.

mod sync;

mod error;

pub mod profile;

pub mod driver;

#[expect(dead_code, reason = "the slab layer takes it up")]
mod lockfree;

pub mod forecast;

pub mod timeline;

pub mod stream;

pub mod memory;

#[cfg_attr(all(test, loom), expect(dead_code, reason = "thread caches need statics, which loom lacks"))]
pub mod slab;

pub mod pool;

#[cfg(not(all(test, loom)))]
pub mod tier;

pub mod graph;

pub mod staging;

#[cfg(not(all(test, loom)))]
pub mod manager;

#[cfg(not(all(test, loom)))]
pub mod report;

#[cfg(all(test, loom, not(shuttle)))]
#[path = "../loom_tests/mod.rs"]
mod loom_tests;
#[cfg(all(test, loom, shuttle))]
#[path = "../shuttle_tests/mod.rs"]
mod shuttle_tests;

pub use driver::{Context, ContextScope, Device, DeviceAttribute, Driver, Event, EventPool};
pub use error::{CudaError, Error, LoadError};
pub use stream::Stream;
pub use wharf_sys as sys;

/// The README's program compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
