//! Making managers.

use super::error::ManagerError;
use super::input_manager::{InputManager, Memory, Registered};
use super::simple_pool::SimplePool;
use super::spec::{BufferSpec, SpecError};
use crate::driver::{Context, DeviceAttribute};
use crate::element::DType;
use crate::forecast::{ContextModel, Forecast, WarmSet};
use crate::memory::{DeviceMemoryResource, MemoryKind};
use crate::pool;
use crate::staging::{self, BuildError, Forgotten, InputBuffers, InputBuffersBuilder, Len};
use crate::tier::{TierBuilder, TieredPool};

/// Makes a manager with the slots `input_ids` and `positions`, 64-bit integers, for
/// `max_batch_size` sequences of `max_seq_len` tokens at most.
///
/// With `tiered`, memory for other inputs is of tiers between which it moves; with `predictive`,
/// graphs and blocks are made before they are needed. [`InputManager::builder`] has these four
/// choices and more.
///
/// # Errors
///
/// As [`InputManagerBuilder::build`].
///
/// # Examples
///
/// See [`InputManager`].
#[doc(alias = "create_input_buffer_manager")]
pub fn create_input_buffers(
    context: &Context,
    max_batch_size: usize,
    max_seq_len: usize,
    tiered: bool,
    predictive: bool,
) -> Result<InputManager, ManagerError> {
    let builder =
        InputManager::builder(context).max_batch_size(max_batch_size).max_seq_len(max_seq_len);
    builder.tiered(tiered).predictive(predictive).build()
}

/// A manager to be made; [`InputManager::builder`] begins one.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::element::DType;
/// use wharf::manager::{BufferSpec, InputManager};
/// use wharf::memory::MemoryKind;
///
/// let mask = BufferSpec::new(&[1024, 4], DType::I32, MemoryKind::Device)?;
/// let adapter = BufferSpec::new(&[4096], DType::F16, MemoryKind::Device)?;
/// let manager = InputManager::builder(&context)
///     .max_batch_size(8)
///     .max_seq_len(128)
///     .tiered(true)
///     .predictive(true)
///     .register_slot("mask", mask, true)
///     .register_slot("adapter", adapter, false)
///     .build()?;
/// assert!(manager.slot("mask")?.is_static);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct InputManagerBuilder {
    context: Context,
    max_batch_size: usize,
    max_seq_len: usize,
    tiers: Option<TierBuilder>,
    graphs: Option<WarmSet>,
    blocks: Option<WarmSet>,
    slots: Vec<(Box<str>, BufferSpec, Place)>,
    inputs: InputBuffersBuilder,
}

impl InputManager {
    /// Begins to describe a manager, for 256 sequences of 4096 tokens at most.
    pub fn builder(context: &Context) -> InputManagerBuilder {
        InputManagerBuilder {
            context: context.clone(),
            max_batch_size: 256,
            max_seq_len: 4096,
            tiers: None,
            graphs: None,
            blocks: None,
            slots: Vec::new(),
            inputs: InputBuffers::builder(context),
        }
    }
}

impl InputManagerBuilder {
    /// Sets how many sequences a step has at most. By default 256.
    pub fn max_batch_size(self, max_batch_size: usize) -> Self {
        Self { max_batch_size, ..self }
    }

    /// Sets how many tokens a sequence has at most. By default 4096.
    pub fn max_seq_len(self, max_seq_len: usize) -> Self {
        Self { max_seq_len, ..self }
    }

    /// Takes memory for inputs without a static slot from tiers, of 64 MiB of the device's and
    /// managed memory each and 256 MiB of pinned memory at most; [`tiers`](Self::tiers) sets
    /// others.
    pub fn tiered(self, tiered: bool) -> Self {
        let tiers = tiered.then(|| {
            let builder = TieredPool::builder(&self.context).device(64 << 20).pinned(256 << 20);
            let has_managed = self.context.device().attribute(DeviceAttribute::MANAGED_MEMORY);
            if has_managed.is_ok_and(|value| value != 0) {
                builder.managed(64 << 20)
            } else {
                builder
            }
        });
        Self { tiers, ..self }
    }

    /// Takes memory for inputs without a static slot from these tiers.
    pub fn tiers(self, tiers: TierBuilder) -> Self {
        Self { tiers: Some(tiers), ..self }
    }

    /// Forecasts what comes next with a
    /// [`ContextModel`]: graphs of 8 sizes of steps and blocks of 8 sizes are kept ready.
    /// [`forecast`](Self::forecast) sets others.
    pub fn predictive(self, predictive: bool) -> Self {
        let warm = || predictive.then(|| WarmSet::new(ContextModel::new(), WARM).ahead(AHEAD));
        Self { graphs: warm(), blocks: warm(), ..self }
    }

    /// Keeps graphs ready by this forecast, for so many sizes, and makes the first two of it ahead.
    pub fn forecast(self, forecast: impl Forecast + 'static, sizes: usize) -> Self {
        Self { graphs: Some(WarmSet::new(forecast, sizes).ahead(AHEAD)), ..self }
    }

    /// Adds a slot. A static one has memory of its own at an address that never changes, for as
    /// many tokens as the first length of `spec`, each with as many elements as the others make; of
    /// one that is not, the inputs pass through.
    pub fn register_slot(mut self, name: &str, spec: BufferSpec, is_static: bool) -> Self {
        let place = if is_static { Place::Tokens } else { Place::Passed };
        self.slots.push((name.into(), spec, place));
        self
    }

    /// Adds a slot with memory of its own, as a static one, that has elements a request and not a
    /// token, such as the lengths of sequences: the first length of `spec` is the most requests.
    /// [`InputManager::stage_step`] says how many requests a step has.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::Stream;
    /// use wharf::element::DType;
    /// use wharf::manager::{BufferSpec, Input, InputManager};
    /// use wharf::memory::MemoryKind;
    /// use wharf::staging::Counts;
    ///
    /// let lens = BufferSpec::new(&[8], DType::I32, MemoryKind::Device)?;
    /// let mut manager = InputManager::builder(&context)
    ///     .max_batch_size(8)
    ///     .max_seq_len(128)
    ///     .register_request_slot("seq_lens", lens)
    ///     .build()?;
    /// let stream = Stream::new(&context)?;
    /// let (ids, lens) = ([1_i64; 10], [5_i32, 3, 2]);
    /// let inputs = [("input_ids", Input::from(&ids)), ("seq_lens", Input::from(&lens))];
    /// let counts = Counts { tokens: 10, requests: 3 };
    /// let staged = manager.stage_step(&inputs, counts, &stream)?;
    /// assert_eq!(staged.view("seq_lens").map(|view| view.len), Some(3));
    /// # drop(staged);
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_request_slot(mut self, name: &str, spec: BufferSpec) -> Self {
        self.slots.push((name.into(), spec, Place::Requests));
        self
    }

    /// Changes what else there is to choose of the input buffers: the ring, the deadline, how many
    /// graphs are kept.
    pub fn inputs(self, change: impl FnOnce(InputBuffersBuilder) -> InputBuffersBuilder) -> Self {
        Self { inputs: change(self.inputs), ..self }
    }

    /// Makes the manager.
    ///
    /// # Errors
    ///
    /// * [`ManagerError::Build`]: two slots have one name, there are too many or too long ones, or
    ///   the driver refused.
    /// * [`ManagerError::Spec`]: a slot's spec is no tensor of the device.
    /// * [`ManagerError::Tier`], [`ManagerError::Pool`], [`ManagerError::Driver`]: the memory of
    ///   other inputs could not be had.
    pub fn build(self) -> Result<InputManager, ManagerError> {
        let tokens =
            self.max_batch_size.checked_mul(self.max_seq_len).ok_or(BuildError::TooLarge)?;
        let mut builder = self.inputs.forgotten(Forgotten::Keep).max_tokens(tokens);
        builder = builder.buckets(buckets(tokens)).max_requests(self.max_batch_size.max(1));
        let default = BufferSpec::new(&[tokens], DType::I64, MemoryKind::Device);
        let mut slots = Vec::new();
        for name in ["input_ids", "positions"] {
            let spec = default.map_err(|error| ManagerError::Spec { slot: name.into(), error })?;
            slots.push((name.into(), spec, Place::Tokens));
        }
        slots.extend(self.slots);
        let mut widths = Vec::with_capacity(slots.len());
        for (at, (name, spec, place)) in slots.iter().enumerate() {
            if slots[..at].iter().any(|(other, ..)| other == name) {
                return Err(BuildError::DuplicateSlot(name.clone()).into());
            }
            let width =
                width(spec).map_err(|error| ManagerError::Spec { slot: name.clone(), error })?;
            widths.push(width);
            builder = match place {
                Place::Tokens => builder.slot_of(name, spec.dtype, Len::Tokens.times(width)),
                Place::Requests => builder.slot_of(name, spec.dtype, Len::Requests.times(width)),
                Place::Passed => builder,
            };
        }
        let inputs = builder.build()?;
        let memory = memory(&self.context, self.tiers, self.blocks)?;
        let max = inputs.max();
        let registered = slots.into_iter().zip(widths).map(|((name, spec, kind), width)| {
            let capacity = spec.shape().first().copied().unwrap_or(1);
            let is_per_request = kind == Place::Requests;
            let most = capacity.min(if is_per_request { max.requests } else { max.tokens });
            let place = inputs.slot(&name).ok().map(|info| (info, most, width));
            Registered { name, spec, place, is_per_request }
        });
        let slots = registered.collect();
        Ok(InputManager { slots, inputs, memory, graphs: self.graphs.map(staging::Prewarm::new) })
    }
}

/// Where a slot's elements go, and what they count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tokens,
    Requests,
    Passed,
}

/// Elements a token or a request of a slot: the product of all lengths but the first.
fn width(spec: &BufferSpec) -> Result<usize, SpecError> {
    // The whole has to be a tensor, too.
    spec.size_bytes()?;
    let inner = BufferSpec::new(spec.shape().get(1..).unwrap_or_default(), spec.dtype, spec.kind)?;
    inner.len()
}

fn memory(
    context: &Context,
    tiers: Option<TierBuilder>,
    blocks: Option<WarmSet>,
) -> Result<Memory, ManagerError> {
    if let Some(tiers) = tiers {
        return Ok(Memory::Tiered(tiers.build()?));
    }
    let pool = SimplePool::new(DeviceMemoryResource::new(context, SPAN)?, MAX_BUFFERS)?;
    let prewarm = blocks.map(|warm| pool::BlockPrewarm::new(pool.pool(), warm));
    Ok(Memory::Simple { pool, prewarm })
}

/// The padded sizes for which engines keep graphs, up to `tokens`; larger steps go without.
fn buckets(tokens: usize) -> Vec<usize> {
    let sizes = [1, 2, 4].into_iter().chain((8..=256).step_by(8)).chain((272..=512).step_by(16));
    let mut sizes: Vec<_> = sizes.filter(|size| *size <= tokens).collect();
    if tokens < 512 && sizes.last() != Some(&tokens) && tokens > 0 {
        sizes.push(tokens);
    }
    sizes
}

/// Sizes that are kept ready.
const WARM: usize = 8;
/// How many of a forecast's sizes are made ahead: further ones are seldom used before the forecast
/// changes.
const AHEAD: usize = 2;
/// Addresses of the pool of other inputs, in bytes.
const SPAN: usize = 1 << 30;
/// Buffers of that pool.
const MAX_BUFFERS: usize = 1024;
