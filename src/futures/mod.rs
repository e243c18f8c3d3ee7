//! Futures: tickets, steps and results that are awaited.
//!
//! [`Poller::wait`] makes a future of a [`Ticket`](crate::timeline::Ticket), of a
//! [`Staged`](crate::staging::Staged) step and of a [`Pending`](crate::staging::Pending) result;
//! `begin_async` of a set is one for its next free ring slot. There is no thread of ours and no
//! callback of the driver's: completion words are read when the caller says so.
//!
//! ```text
//!   future ──enlists──> Poller <──poll()── the caller: a task of its runtime, its own loop
//!     ^                    │
//!     └───────wakes────────┘               what is complete, and nothing else
//! ```
//!
//! # When to poll
//!
//! A [`poll`](Poller::poll) reads one word for each future that waits, and wakes those whose work
//! is done. It may come from anywhere but a host function, at any time:
//!
//! * **When the device says so.** A host function behind the step
//!   ([`Stream::launch_host_func`](crate::Stream::launch_host_func): one driver call, or none as a
//!   node of the engine's graph) wakes the task that polls. Nothing runs in between.
//! * **Now and then**, by the runtime's timer, while something waits: [`Poller::awaited`] completes
//!   when there is something to poll for.
//! * **In the engine's loop**, once a turn.
//!
//! A device that fails writes no word and runs no host function: so a poller that relies on host
//! functions is polled by a timer, too, more rarely. A poll asks the driver whether the context
//! works when something has waited for 5 ms, and then ever more rarely, up to each 200 ms. The same
//! timer serves futures of `begin_async` for a ring slot that a task gives back without the device:
//! by the drop of a step or of a result.
//!
//! # Cancelling
//!
//! A future that is dropped waits no longer, and that is all: the step or result that it refers to
//! is as it was and can be awaited again. Dropping a step or a result besides is safe in the same
//! way as without futures: its ring slot is free when the device is done with it.
//!
//! # Examples
//!
//! With tokio; a static `Notify` is what host functions ring.
//!
//! ```
//! # let machine = softcuda::Simulator::new(softcuda::Config::default());
//! # let _bound = machine.bind();
//! # let driver = wharf::Driver::from_api(machine.api()?)?;
//! # let context = wharf::Context::retain(&driver.device(0)?)?;
//! use std::time::Duration;
//! use tokio::sync::Notify;
//! use wharf::Stream;
//! use wharf::futures::Poller;
//! use wharf::staging::{Len, OutputBuffers, StageError};
//!
//! static DONE: Notify = Notify::const_new();
//!
//! let outputs = OutputBuffers::builder(&context).slot::<i32>("sampled", Len::Requests);
//! let outputs = outputs.buckets([4, 8]).build()?;
//! let sampled = outputs.slot_id::<i32>("sampled")?;
//! let stream = Stream::new(&context)?;
//!
//! let poller = Poller::new();
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! runtime.block_on(async {
//!     let driver = poller.clone();
//!     tokio::spawn(async move {
//!         loop {
//!             driver.awaited().await; // nothing runs while nothing waits
//!             let rung = tokio::time::timeout(Duration::from_millis(20), DONE.notified());
//!             let _or_time_is_up = rung.await;
//!             driver.poll();
//!         }
//!     });
//!     for _ in 0..3 {
//!         // The engine launches its model here.
//!         let pending = outputs.fetch(5, 2, &stream)?;
//!         stream.launch_host_func(&|| DONE.notify_one())?;
//!         let results = poller.wait(&pending).await?;
//!         assert_eq!(results.read(sampled)?, [0, 0]);
//!     }
//!     Ok::<(), StageError>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod awaited;
mod patience;
mod poller;
mod waiters;
mod waiting;

pub use self::awaited::{Awaited, Watch};
#[cfg(feature = "futures")]
pub(crate) use self::patience::Patience;
pub use self::poller::Poller;
pub use self::waiting::Waiting;
