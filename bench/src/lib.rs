//! wharf's allocator beside others, on the same work.
//!
//! ```text
//!   peer        what an allocator is here: blocks out, blocks back, a view for each thread
//!   peers/      wharf itself and the others behind that trait
//!   work/       the workloads, each a loop over the trait
//!   machine     cores, clocks, waiting for quiet
//!   measure     rounds: every peer once a round, in random order
//!   report      ratios, goals, tables, JSON
//!   ageing      fragmentation after millions of replacements
//!   fit         what is reserved for what is live, beside PyTorch's allocators
//!   scale       what operations cost as a pool has more addresses
//!   stream_order  what reuse of blocks that the device still uses costs
//! ```
//!
//! To add an allocator: implement [`Shared`](peer::Shared) for it in `peers/`, and name it in
//! [`peers::all`].

pub mod ageing;
pub mod fit;
pub mod machine;
pub mod measure;
pub mod peer;
pub mod peers;
pub mod report;
pub mod scale;
pub mod stream_order;
pub mod work;
