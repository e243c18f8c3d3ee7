//! wharf beside cudarc, in safe code.
//!
//! cudarc owns contexts, streams, kernels and graphs; wharf stages the inputs of steps and pools
//! memory. This crate lets each use what is the other's:
//!
//! * [`context`] and [`BorrowedStream`]: cudarc's contexts and streams for wharf, kept alive by
//!   cudarc's `Arc`s.
//! * [`DeviceView`]: a [`Buffer`](wharf::pool::Buffer) as cudarc's copies, fills and launches take
//!   device memory; their uses are recorded.
//! * [`StaticView`]: a slot of a set of input buffers, for the graphs that cudarc captures.
//! * [`OutputView`]: a slot of a set of results, for kernels, copies and captured graphs that write
//!   it; [`FetchFrom`]: cudarc's device memory as the source of results.
//! * [`HostSource`], [`HostTarget`]: pinned buffers as the host's side of cudarc's copies.
//! * [`refer`]: cudarc's pinned memory as the source of a step.
//! * [`Recording`]: a capture by cudarc that wharf knows of.
//! * [`from_cudarc`], [`to_cudarc`]: errors.
//!
//! A graph keeps the memory that it captured: a view that is used on a stream which is being
//! captured gives the graph a share of it.
//!
//! # Examples
//!
//! ```no_run
//! use cudarc::driver::CudaContext;
//! use wharf::memory::DeviceMemoryResource;
//! use wharf::pool::{Buffer, Pool};
//! use wharf::staging::{InputBuffers, Len};
//! use wharf_cudarc::{BorrowedStream, DeviceView, Recording, StaticView};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cuda = CudaContext::new(0)?;
//! let queue = cuda.new_stream()?;
//! let context = wharf_cudarc::context(&cuda, &wharf::Driver::load()?)?;
//! let stream = BorrowedStream::new(&queue, &context)?; // derefs to wharf's `Stream`
//!
//! let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
//! let inputs = inputs.buckets([4, 8]).build()?;
//! let ids = inputs.slot_id::<i32>("ids")?;
//! let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
//! let seen: Buffer<i32> = pool.alloc(8, &stream)?;
//!
//! let recording = Recording::begin(&stream)?;
//! let slot = StaticView::new(&inputs, ids, 8, &stream).ok_or("no such bucket")?;
//! queue.memcpy_dtod(&slot, &mut DeviceView::new(&seen, &stream)?)?; // kernels likewise
//! let model = recording.end()?.ok_or("an empty graph")?;
//!
//! for number in 0..100 {
//!     let mut step = inputs.begin(5, 1)?;
//!     step.write(ids).fill(number);
//!     step.submit(&stream)?;
//!     model.launch()?;
//!     let back = queue.clone_dtoh(&DeviceView::new(&seen, &stream)?)?;
//!     assert_eq!(back[..5], [number; 5]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Event tracking
//!
//! cudarc records events beside its own `CudaSlice`s and lets other streams wait for them. In a
//! capture, such a wait for work from before it is an error (`STREAM_CAPTURE_ISOLATION`): a
//! `CudaSlice` that was used before cannot be captured while tracking is on. The views here have no
//! events of cudarc's, and are captured in any case.
//!
//! # The current context
//!
//! cudarc makes its context current and does not restore the one before. With several contexts on
//! one thread call [`Driver::verify_scopes`](wharf::Driver::verify_scopes).

mod error;
mod fetch;
mod handing;
mod host;
mod output_view;
mod recording;
mod static_view;
mod step;
mod stream;
mod view;

pub use error::{from_cudarc, to_cudarc};
pub use fetch::FetchFrom;
pub use host::{HostSource, HostTarget};
pub use output_view::OutputView;
pub use recording::Recording;
pub use static_view::StaticView;
pub use step::refer;
pub use stream::{BorrowedStream, context};
pub use view::DeviceView;
