//! A step's inputs by name: the surface of the Python module that this crate began from, on what the crate is
//! made of.
//!
//! ```text
//!   create_input_buffers(context, max_batch_size, max_seq_len, tiered, predictive)
//!      |
//!   InputManager ── stage_inputs([("input_ids", ids), ...], num_tokens, stream) ──> StagedInputs
//!      |  static slots            InputBuffers   one graph launch
//!      |  other inputs            passed through; objects of tiers are held on the device
//!      |  memory for those        SimplePool, or with `tiered` TieredPool
//!      └  with `predictive`       staging::Prewarm, pool::Prewarm
//! ```
//!
//! It costs a look at names and a few allocations a step. An engine's hot path goes to [`InputBuffers`] itself, by
//! typed slots.
//!
//! # What the original had, and what is here
//!
//! | original | here | what is different |
//! |---|---|---|
//! | `BufferState` | [`pool::BufferState`] | every state is reached: allocated, used, retired, free; what is staged is a [`Staged`] |
//! | `BufferSpec` | [`pool::BufferSpec`], [`pool::DType`] | sizes are exact or an error |
//! | `BufferEntry` | [`pool::BufferInfo`]; [`Buffer`] and [`RawBuffer`] as handles | a double or stale release is an error that names the block |
//! | `BufferPool` | [`pool::BufferPool`] | implemented by every pool |
//! | `SimpleBufferPool` | [`pool::SimplePool`] | lock-free, the limit holds, classes of sizes, nothing that the device reads is given up |
//! | `InputSlot`, `set_data` | [`SlotInfo`], [`staging::SlotId`]; [`staging::Step::write`], `write_from` | length and type are checked; no copy in flight reads what is written |
//! | `InputBufferManager` | [`InputManager`]; [`InputBuffers`] for typed slots | one driver call a step |
//! | `register_slot`, `get_slot` | [`InputManagerBuilder::register_slot`], [`InputManager::slot`] | a name that is there is an error |
//! | `stage_inputs` | [`InputManager::stage_inputs`] | one graph launch, and nothing in flight is overwritten |
//! | `get_static_tensors` | [`InputManager::static_tensors`], [`InputBuffers::static_buffers`] | kept alive by the graphs that use them |
//! | `release_all` | [`InputManager::release_all`] | waits for the device |
//! | `HierarchicalBufferPool` | [`tier::TieredPool`](crate::tier::TieredPool) | objects move by themselves, down when room is needed and up when they are used |
//! | `PredictiveBufferManager`: `record_usage`, `predict_next_sizes`, `prewarm` | [`Forecast`](crate::forecast::Forecast), [`WarmSet`], [`InputManager::prewarm`], [`staging::Prewarm`], [`pool::Prewarm`] | what is ready is free to use, bounded, and given back |
//! | `create_input_buffer_manager` | [`create_input_buffers`], [`InputManagerBuilder`] | errors instead of exceptions |
//!
//! [`Buffer`]: crate::pool::Buffer
//! [`RawBuffer`]: crate::pool::RawBuffer
//! [`InputBuffers`]: crate::staging::InputBuffers
//! [`InputBuffers::static_buffers`]: crate::staging::InputBuffers::static_buffers
//! [`SlotInfo`]: crate::staging::SlotInfo
//! [`Staged`]: crate::staging::Staged
//! [`WarmSet`]: crate::forecast::WarmSet
//! [`pool::BufferState`]: crate::pool::BufferState
//! [`pool::BufferSpec`]: crate::pool::BufferSpec
//! [`pool::DType`]: crate::pool::DType
//! [`pool::BufferInfo`]: crate::pool::BufferInfo
//! [`pool::BufferPool`]: crate::pool::BufferPool
//! [`pool::SimplePool`]: crate::pool::SimplePool
//! [`pool::Prewarm`]: crate::pool::Prewarm
//! [`staging::Prewarm`]: crate::staging::Prewarm
//! [`staging::SlotId`]: crate::staging::SlotId
//! [`staging::Step::write`]: crate::staging::Step::write

mod builder;
mod error;
mod input;
mod input_manager;

pub use self::builder::{InputManagerBuilder, create_input_buffers};
pub use self::error::{InputFault, ManagerError};
pub use self::input::{Input, StagedInput, StagedInputs, View};
pub use self::input_manager::{Allocation, InputManager};
