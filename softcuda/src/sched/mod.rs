//! When operations run.
//!
//! Everything that a stream or a graph does is an [`Op`]: a piece of [`Work`] that may run
//! when the operations it depends on are complete. Streams, events and graphs only decide
//! the dependencies; which of the ready operations runs next is the [`Schedule`]'s choice, so
//! every order that the documentation allows is an order that some schedule takes.
//!
//! ```text
//!            enqueue               last dependency completes            picked
//!  (caller) ---------> Waiting ---------------------------> Ready ----------------> Running
//!                                                             ^                      |   |
//!                                 a wait-value not yet true   +------- Blocked <-----+   |
//!                                                                                        v
//!                                                       dependents lose one        Complete
//! ```
//!
//! [`queue`] holds the operations and makes the choice, [`work`] says what an operation does,
//! [`engine`] is the threads that do it, [`order`] tells what is ordered behind what.

pub(crate) mod queue;
mod watch;
pub(crate) mod work;

pub(crate) use queue::{Origin, Queue, Taker};
pub(crate) use work::Work;
