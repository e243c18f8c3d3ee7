//! Lock-free memory and input staging for CUDA engines, on the raw driver API.
//!
//! An engine that serves a model hands a few small inputs to the device before each of thousands of
//! steps a second, and needs memory that the device may still be using when the host is done with
//! it. `wharf` stages the inputs with one driver call a step, never overwrites what is being read,
//! and reuses memory in the order of streams without locks. It works beside what the engine already
//! uses for its kernels: contexts and streams are borrowed by raw handle, memory is handed out by
//! raw address.
//!
//! # Examples
//!
//! The driver here is `softcuda`, the software driver that the tests use; [`Driver::load`] finds
//! the system's.
//!
//! ```
//! use std::time::Duration;
//!
//! use wharf::memory::{PinnedMemoryResource, PinnedOptions};
//! use wharf::pool::{Buffer, Pool};
//! use wharf::staging::{InputBuffers, Len};
//! use wharf::{Context, Driver, Stream};
//!
//! let machine = softcuda::Simulator::new(softcuda::Config::default());
//! let _bound = machine.bind();
//! let driver = Driver::from_api(machine.api()?)?;
//! let context = Context::retain(&driver.device(0)?)?;
//! let _current = context.enter()?;
//! let stream = Stream::new(&context)?;
//!
//! // Inputs at fixed device addresses, and memory for results.
//! let inputs = InputBuffers::builder(&context)
//!     .slot::<i32>("input_ids", Len::Tokens)
//!     .slot::<i32>("seq_lens", Len::Requests)
//!     .buckets([1, 2, 4, 8])
//!     .build()?;
//! let ids = inputs.slot_id::<i32>("input_ids")?;
//! let lens = inputs.slot_id::<i32>("seq_lens")?;
//! let pinned = PinnedMemoryResource::new(&context, 1 << 30, PinnedOptions::default())?;
//! let results = Pool::builder().max_bytes(64 << 20).build(pinned)?;
//!
//! for tokens in [[11, 12, 13], [21, 22, 23]] {
//!     let mut step = inputs.begin(3, 1)?; // a ring slot that the device has read
//!     step.write(ids).copy_from_slice(&tokens);
//!     step.write(lens).fill(3);
//!     let staged = step.submit(&stream)?; // one driver call
//!     let _address = staged.device_ptr(ids); // the same every step
//!     // The engine launches its model here; it writes a result for the host.
//!     let mut result: Buffer<i32> = results.alloc(1, &stream)?;
//!     result.fill(tokens[2], &stream)?;
//!     assert_eq!(result.host_mut(Duration::from_secs(10))?, [tokens[2]]);
//! } // each result's memory is the next one's
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to go on
//!
//! The [`guide`] has a page for each task: [memory](guide::memory), [staging](guide::staging),
//! [embedding](guide::embedding), [testing](guide::testing) without a GPU,
//! [overhead](guide::overhead), and a [glossary](guide#glossary). The example `engine_loop` is a
//! whole decode loop.
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
//! * `futures`: steps, results and tickets as futures (`futures::Poller`).
//! * `nvtx`: ranges, marks and names for NVIDIA's profilers, blocks for its memory checker, see
//!   [`profile`]. Building it needs libclang.
//!
//! # Map
//!
//! For every engine:
//!
//! * [`driver`]: the loaded driver, devices, contexts, events.
//! * [`stream`]: streams, host callbacks, copies.
//! * [`memory`]: where bytes come from: pinned, device, managed, file-mapped.
//! * [`pool`]: buffers that are reused in the order of streams.
//! * [`element`]: the element types of buffers and slots.
//! * [`staging`]: a step's inputs at stable device addresses.
//! * [`graph`]: explicit graphs, stream capture, executable graphs.
//! * [`CudaError`], [`Error`], [`LoadError`]: the errors; [`ErrorKind`]: what to do about one.
//!
//! More:
//!
//! * [`slab`]: blocks of all sizes from one resource, without streams.
//! * [`tier`]: objects that move between device, managed, pinned and file-mapped memory.
//! * [`forecast`]: which sizes are likely next.
//! * [`manager`]: a step's inputs by name.
//! * [`mod@sys`]: the raw bindings and the function table.
//!
//! Looking in:
//!
//! * [`report`]: which bytes of a pool are held by what.
//! * [`profile`]: NVTX, for profilers and memory checkers.
//! * [`timeline`]: how far a stream is.

mod address;

mod sync;

mod error;

pub mod element;

pub mod profile;

pub mod driver;

mod lockfree;

pub mod forecast;

pub mod timeline;

#[cfg(any(feature = "futures", all(test, loom)))]
pub mod futures;

pub mod stream;

pub mod memory;

pub mod slab;

pub mod pool;

pub mod tier;

pub mod graph;

pub mod staging;

pub mod manager;

mod error_kind;

pub mod report;

// Documentation only: a build holds nothing of it.
#[cfg(any(doc, doctest))]
pub mod guide;

#[cfg(all(test, loom, not(shuttle)))]
#[path = "../loom_tests/mod.rs"]
mod loom_tests;
#[cfg(all(test, loom, shuttle))]
#[path = "../shuttle_tests/mod.rs"]
mod shuttle_tests;

pub use driver::{Context, ContextScope, Device, DeviceAttribute, Driver, Event, EventPool};
pub use error::{CudaError, Error, ErrorKind, LoadError};
pub use stream::Stream;
#[doc(inline)]
pub use wharf_sys as sys;

/// The README's program compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
