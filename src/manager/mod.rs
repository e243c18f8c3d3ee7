//! A step's inputs by name, with tiers and forecasts.
//!
//! [`create_input_buffers`] makes an [`InputManager`]; [`InputManager::stage_inputs`] is the call
//! of every step. For engines that come from a Python buffer manager, `docs/original.md` has its
//! names beside these.
//!
//! ```text
//!   create_input_buffers(context, max_batch_size, max_seq_len, tiered, predictive)
//!      |
//!   InputManager ── stage_inputs([("input_ids", ids), ...], num_tokens, stream) ──> StagedInputs
//!      |  static slots            InputBuffers   one graph launch
//!      |  other inputs            passed through; objects of tiers are held on the device
//!      |  memory for those        SimplePool, or with `tiered` TieredPool
//!      └  with `predictive`       staging::Prewarm, pool::BlockPrewarm
//! ```
//!
//! It costs a look at names and a few allocations a step. An engine's hot path goes to
//! [`InputBuffers`](crate::staging::InputBuffers) itself, by typed slots.

mod buffer_pool;
mod builder;
mod error;
mod input;
mod input_manager;
mod simple_pool;
mod spec;

pub use self::buffer_pool::{AllocateError, BufferPool, NotOurs};
pub use self::builder::{InputManagerBuilder, create_input_buffers};
pub use self::error::{InputFault, ManagerError};
pub use self::input::{Allocation, Input, StagedInput, StagedInputs, View};
pub use self::input_manager::InputManager;
pub use self::simple_pool::SimplePool;
pub use self::spec::{BufferSpec, SpecError};
