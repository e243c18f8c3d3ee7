//! wharf beside NVIDIA's cuda-core, in safe code.
//!
//! cuda-core owns contexts, streams and kernels; wharf stages the inputs and results of steps and
//! pools memory. This crate lets each use what is the other's:
//!
//! * [`context`] and [`BorrowedStream`]: cuda-core's contexts and streams for wharf, kept alive by
//!   cuda-core's `Arc`s.
//! * [`device_buffer`]: a [`Buffer`](wharf::pool::Buffer) as a [`cuda_core::DeviceBuffer`].
//! * [`input_buffer`], [`output_buffer`]: the device memory of a slot as one, for kernels and
//!   graphs.
//! * [`FetchFrom`]: cuda-core's device memory as the source of results.
//! * [`refer`]: cuda-core's pinned memory as the source of a step.
//! * `copy`, with the feature `cuda-async`: a copy for [graphs of
//!   cuda-async's](https://docs.rs/cuda-async/latest/cuda_async/cuda_graph/struct.Scope.html).
//! * [`from_cuda_core`], [`to_cuda_core`]: errors.
//!
//! cuda-core keeps a lease of the memory that it is given until the device is done with it, also in
//! graphs. Memory of wharf's is an owner behind such a lease: it goes back to its pool when the
//! last buffer and the last lease are gone, and needs no record of its uses.
//!
//! # Examples
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cuda_core::Context;
//! use wharf::memory::DeviceMemoryResource;
//! use wharf::pool::Pool;
//! use wharf::staging::{InputBuffers, Len};
//! use wharf_cuda_core::{BorrowedStream, device_buffer, input_buffer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cuda = Context::new(0)?;
//! let queue = cuda.new_stream()?;
//! let context = wharf_cuda_core::context(&cuda, &wharf::Driver::load()?)?;
//! let stream = BorrowedStream::new(&queue, &context)?; // derefs to wharf's `Stream`
//!
//! let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
//! let inputs = inputs.buckets([4, 8]).build()?;
//! let ids = inputs.slot_id::<i32>("ids")?;
//! let on_device = input_buffer(&inputs, ids, 8, &stream)?;
//! let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
//! let mut seen = device_buffer(pool.alloc::<i32>(8, &stream)?, &stream, Duration::from_secs(10))?;
//!
//! for number in 0..100 {
//!     let mut step = inputs.begin(5, 1)?;
//!     step.write(ids).fill(number);
//!     step.submit(&stream)?;
//!     seen.copy_from_device_async(&on_device, &queue)?; // kernels likewise
//!     assert_eq!(seen.to_host_vec(&queue)?[..5], [number; 5]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Captures
//!
//! Capture by cuda-async (`CudaGraph::scope`), which holds its leases across launches. A copy of
//! cuda-core's own that is captured by other means keeps its lease for ever, since the event behind
//! it is never complete. While something else than wharf captures, announce it with
//! [`Driver::capture_elsewhere`](wharf::Driver::capture_elsewhere), so that steps keep out of it.
//!
//! # The current context
//!
//! cuda-core makes its context current and does not restore the one before. With several contexts
//! on one thread call [`Driver::verify_scopes`](wharf::Driver::verify_scopes).

mod buffer;
mod error;
mod fetch;
#[cfg(feature = "cuda-async")]
mod graph;
mod step;
mod stream;

pub use buffer::{device_buffer, input_buffer, output_buffer};
pub use error::{from_cuda_core, to_cuda_core};
pub use fetch::FetchFrom;
#[cfg(feature = "cuda-async")]
pub use graph::{Copy, copy};
pub use step::refer;
pub use stream::{BorrowedStream, context};
