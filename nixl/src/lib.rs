//! wharf's memory between processes and machines, moved by NVIDIA's NIXL.
//!
//! * [`Agent`], with [`AgentOptions`]: one process's part. Its [`wire`](Agent::wire) registers the
//!   pieces of a [`WiredResource`](wharf::memory::WiredResource), each a [`Region`].
//! * [`RemoteBlock`]: the name of a block for peers. [`Local`]: a block of this process for a
//!   transfer.
//! * [`Transfer`], from [`Agent::write`] and [`Agent::read`]; [`Arrival`]: what comes with a peer's
//!   transfer, or without one.
//! * [`RemoteTier`]: a peer's memory below the tiers of a
//!   [`TieredPool`](wharf::tier::TieredPool).
//!
//! ```text
//!   this process                                  the peer
//!   pool ─ WiredResource ─ NixlWire               pool ─ WiredResource ─ NixlWire
//!              commit: a registration                        │
//!   Buffer ─ export ─┐                                       ├─ export ─ name
//!                    │   ask: by generation ──>              │
//!   Transfer ────────┤   <── granted: leases, metadata if old
//!                    │   bytes, by NIXL ─────>               │
//!   complete: free <─┘   with the last: message ──> leases end, Arrival
//! ```
//!
//! NIXL's transfers name bare addresses, which their owner may have given back, or use again: a
//! peer that is late writes over other blocks, and nothing says so. Here the owner admits each
//! block by its piece's generation and holds a lease until the transfer is over; the other side
//! holds its blocks as long. A block whose transfer is not known to
//! be over is leaked, never freed.
//!
//! # Examples
//!
//! See the [README](https://docs.rs/crate/wharf-nixl), and `examples/prefill_decode`.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod agent;
mod end;
mod error;
mod exchange;
mod home;
mod local;
mod message;
mod metadata;
mod nixl;
mod options;
mod peers;
mod region;
mod registry;
mod remote_error;
mod remote_tier;
mod remote_transfer;
mod segments;
mod space;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod transport;

pub use agent::{Agent, AgentStats};
pub use error::{Error, Refusal};
pub use local::Local;
pub use options::AgentOptions;
pub use region::{Region, RemoteBlock};
pub use registry::{NixlKey, NixlWire};
pub use remote_error::RemoteError;
pub use remote_tier::{RemoteTier, RemoteTierStats};
pub use state::Arrival;
pub use transfer::Transfer;
