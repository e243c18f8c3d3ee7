//! Structures over indices: no CUDA, no `unsafe`, no allocation after construction.
//!
//! They know neither addresses nor blocks, only small numbers, so that `loom` can explore them
//! whole. What an index means is decided one layer up, in `slab`, `pool` and `staging`.
//!
//! ```text
//!   Bitmap        which indices are free          slab blocks, hints "slab may have room"
//!   SlabState     what a run of slices is         vacant, claimed, open (class, free blocks)
//!   TransferCache batches for another thread      blocks freed here and wanted there
//!   IndexStack    indices that any thread may take  buffers that are free for a stream
//!   BufferState   the owner of a buffer's record    free, allocated, in use, retired
//!   SlotState     the owner of a staging slot     free, filling, in flight
//!   StepWord      which step is the last          steps that write one destination
//!   Turn          a try-lock                        growth of a class, taking lists apart
//!   Tickets       how far a queue of work is      places in a stream
//!   PieceWord     leases on registered memory   pieces that a transport may use
//!   TierWord      an object's tier and holders    objects that move between tiers
//! ```
//!
//! Every operation is lock-free: a thread that stops anywhere stops no other.

pub(crate) mod bitmap;
pub(crate) mod buffer_state;
pub(crate) mod index_stack;
pub(crate) mod piece_word;
pub(crate) mod slab_state;
pub(crate) mod slot_state;
pub(crate) mod step_word;
pub(crate) mod tickets;
pub(crate) mod tier_state;
pub(crate) mod transfer_cache;
pub(crate) mod turn;
