//! A step's inputs by name: staging, allocation and forecasts in one object.

use super::buffer_pool::BufferPool;
use super::error::{InputFault, ManagerError};
use super::input::{Allocation, Input, StagedInput, StagedInputs, View};
use super::simple_pool::SimplePool;
use super::spec::BufferSpec;
use crate::forecast::WarmSet;
use crate::pool;
use crate::staging::{self, Counts, InputBuffers, SlotError, SlotInfo, Step};
use crate::stream::Stream;
use crate::tier::{Tier, TieredPool};

/// The inputs of an engine's steps, by name.
///
/// Belongs to one thread at a time. Dropping it waits for steps in flight.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::manager::{Input, create_input_buffers};
///
/// let mut manager = create_input_buffers(&context, 8, 128, false, true)?;
/// let stream = Stream::new(&context)?;
/// let ids: [i64; 5] = [3, 1, 4, 1, 5];
/// let positions = [0_i64, 1, 2, 3, 4];
/// let inputs = [("input_ids", Input::from(&ids)), ("positions", Input::from(&positions))];
/// let staged = manager.stage_inputs(&inputs, 3, &stream)?;
/// // The first three, at the same address in every step.
/// assert_eq!(staged.view("input_ids").map(|view| view.len), Some(3));
/// # drop(staged);
/// manager.release_all().map_err(|(_, error)| error)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "InputBufferManager")]
pub struct InputManager {
    pub(super) inputs: InputBuffers,
    pub(super) slots: Vec<Registered>,
    pub(super) memory: Memory,
    pub(super) graphs: Option<staging::Prewarm>,
}

/// A slot by its name.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    pub(super) name: Box<str>,
    pub(super) spec: BufferSpec,
    /// Of a static slot: what the input buffers know of it, its tokens or requests at most, and
    /// elements of each.
    pub(super) place: Option<(SlotInfo, usize, usize)>,
    /// Whether it is requests that count, and not tokens.
    pub(super) is_per_request: bool,
}

/// Where memory for inputs without a static slot comes from.
#[derive(Debug)]
pub(super) enum Memory {
    Simple { pool: SimplePool, prewarm: Option<pool::BlockPrewarm> },
    Tiered(TieredPool),
}

impl InputManager {
    /// Stages the first
    /// `num_tokens` of each input that has a static slot, by one graph launch on `stream`; all
    /// other inputs pass through as they are, but that objects of tiers are held on the device for
    /// `stream`.
    ///
    /// Static slots that are not given keep what an earlier step put there. With a forecast, graphs
    /// that are likely needed next are made when the step is on its way.
    ///
    /// # Errors
    ///
    /// * [`ManagerError::Input`]: an input does not fit its slot; one of a slot that has elements a
    ///   request is for [`stage_step`](Self::stage_step).
    /// * [`ManagerError::Stage`]: there are more tokens than the manager was made for, or the step
    ///   could not be staged.
    /// * [`ManagerError::Tier`]: an object could not be brought to the device.
    ///
    /// The step has then not happened.
    pub fn stage_inputs<'a>(
        &'a mut self,
        inputs: &[(&'a str, Input<'a>)],
        num_tokens: usize,
        stream: &'a Stream,
    ) -> Result<StagedInputs<'a>, ManagerError> {
        self.stage_step(inputs, Counts { tokens: num_tokens, requests: 0 }, stream)
    }

    /// As [`stage_inputs`](Self::stage_inputs), for a step of so many requests: the first elements
    /// of each input that has a slot
    /// [by request](super::InputManagerBuilder::register_request_slot) are staged for those.
    ///
    /// # Errors
    ///
    /// As `stage_inputs`.
    pub fn stage_step<'a>(
        &'a mut self,
        inputs: &[(&'a str, Input<'a>)],
        counts: Counts,
        stream: &'a Stream,
    ) -> Result<StagedInputs<'a>, ManagerError> {
        self.check(inputs, counts)?;
        let mut step = self.inputs.begin(counts.tokens, counts.requests)?;
        let mut outputs = Vec::with_capacity(inputs.len());
        for (name, input) in inputs {
            let slot = self.slots.iter().find(|slot| *slot.name == **name);
            let output = match slot.and_then(|slot| Some((slot, slot.place.as_ref()?))) {
                Some((registered, (slot, _, width))) => {
                    write(&mut step, slot, *input, registered.number(counts) * width)?
                }
                None => pass(*input, stream)?,
            };
            outputs.push((*name, output));
        }
        let staged = step.submit(stream)?;
        let counts = staged.counts();
        let ahead =
            self.graphs.as_mut().map_or(Ok(()), |graphs| graphs.record_usage(&self.inputs, counts));
        Ok(StagedInputs { staged, inputs: outputs, ahead })
    }

    /// Makes graphs that are forecast and could not be made while their ring slot was in flight:
    /// for a moment at which the device has caught up. Nothing without a forecast.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Stage`]: the driver refused; the next call tries again.
    pub fn prewarm(&mut self) -> Result<(), ManagerError> {
        let Some(graphs) = &mut self.graphs else { return Ok(()) };
        Ok(graphs.settle(&self.inputs)?)
    }

    /// Memory for an input without a static slot, to be used on `stream` first: of the pool, or of
    /// the tiers.
    ///
    /// With a forecast, blocks of the pool that are likely needed next are made ready; where the
    /// driver refuses one, the call that needs it fails.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Allocate`]: there is none.
    pub fn allocate(
        &mut self,
        spec: &BufferSpec,
        stream: &Stream,
    ) -> Result<Allocation, ManagerError> {
        match &mut self.memory {
            Memory::Tiered(tiers) => Ok(Allocation::Object(tiers.allocate(spec, stream)?)),
            Memory::Simple { pool, prewarm } => {
                let buffer = pool.allocate(spec, stream)?;
                if let Some(prewarm) = prewarm {
                    let _ahead = prewarm.record_usage(buffer.size(), stream);
                }
                Ok(Allocation::Buffer(buffer))
            }
        }
    }

    /// A static slot by its name, with the address that it has in every step.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`]: there is no static slot of the name.
    #[doc(alias = "get_slot")]
    pub fn slot(&self, name: &str) -> Result<SlotInfo, SlotError> {
        self.inputs.slot(name)
    }

    /// The spec that a slot was registered with, static or not.
    pub fn spec(&self, name: &str) -> Option<&BufferSpec> {
        self.slots.iter().find(|slot| *slot.name == *name).map(|slot| &slot.spec)
    }

    /// The static slots, whole, for graphs that are captured with their addresses.
    ///
    /// A graph keeps them alive if it is given a share of
    /// [`InputBuffers::static_buffers`](crate::staging::InputBuffers::static_buffers).
    #[doc(alias = "get_static_tensors")]
    pub fn static_tensors(&self) -> impl Iterator<Item = (&str, View)> {
        self.slots.iter().filter_map(|slot| {
            let (info, tokens, width) = slot.place.as_ref()?;
            Some((
                &*slot.name,
                View { address: info.address?, dtype: info.dtype, len: tokens * width },
            ))
        })
    }

    /// The sizes that are likely next, in padded tokens, the likeliest first; none without a
    /// forecast.
    pub fn predict_next_sizes(&self, count: usize) -> Vec<u32> {
        self.warm().map_or_else(Vec::new, |warm| warm.forecast().predict_next_sizes(count))
    }

    /// What the forecast of steps has had ready, and what became of it.
    pub fn warm(&self) -> Option<&WarmSet> {
        self.graphs.as_ref().map(staging::Prewarm::warm)
    }

    /// What the forecast of [allocated](Self::allocate) sizes has had ready in the pool.
    pub fn warm_blocks(&self) -> Option<&WarmSet> {
        match &self.memory {
            Memory::Simple { prewarm, .. } => prewarm.as_ref().map(pool::BlockPrewarm::warm),
            Memory::Tiered(_) => None,
        }
    }

    /// The input buffers below, with typed slots.
    pub fn inputs(&self) -> &InputBuffers {
        &self.inputs
    }

    /// The pool of other inputs, if it has no tiers.
    pub fn pool(&self) -> Option<&SimplePool> {
        match &self.memory {
            Memory::Simple { pool, .. } => Some(pool),
            Memory::Tiered(_) => None,
        }
    }

    /// The tiers of other inputs, if there are some.
    pub fn tiers(&self) -> Option<&TieredPool> {
        match &self.memory {
            Memory::Tiered(tiers) => Some(tiers),
            Memory::Simple { .. } => None,
        }
    }

    /// Gives all memory back when the device is done with every step. What graphs were given a
    /// share of stays until they are gone, and so does what was [allocated](Self::allocate) and is
    /// still held.
    ///
    /// # Errors
    ///
    /// The manager, as it was, and the reason: the device did not get done before the deadline, or
    /// has failed.
    pub fn release_all(self) -> Result<(), (Box<Self>, ManagerError)> {
        match self.inputs.wait() {
            Ok(()) => Ok(()),
            Err(error) => Err((Box::new(self), error.into())),
        }
    }

    /// Whether every input fits, before anything happens.
    fn check(&self, inputs: &[(&str, Input<'_>)], counts: Counts) -> Result<(), ManagerError> {
        for (at, (name, input)) in inputs.iter().enumerate() {
            let fault = if inputs[..at].iter().any(|(other, _)| other == name) {
                Err(InputFault::Twice)
            } else {
                let slot = self.slots.iter().find(|slot| *slot.name == **name);
                slot.map_or(Ok(()), |slot| slot.check(*input, counts))
            };
            fault.map_err(|fault| ManagerError::Input { name: (*name).into(), fault })?;
        }
        Ok(())
    }
}

impl Registered {
    /// How many tokens or requests of it a step has.
    fn number(&self, counts: Counts) -> usize {
        if self.is_per_request { counts.requests } else { counts.tokens }
    }

    fn check(&self, input: Input<'_>, counts: Counts) -> Result<(), InputFault> {
        let wanted = self.spec.dtype;
        if let Input::Host { dtype: given, .. } | Input::Device { dtype: given, .. } = input
            && given != wanted
        {
            return Err(InputFault::Type { wanted, given });
        }
        let Some((_, most, width)) = &self.place else { return Ok(()) };
        let Input::Host { bytes, .. } = input else { return Err(InputFault::NotOnHost) };
        let number = self.number(counts);
        if self.is_per_request && number == 0 && counts.tokens != 0 {
            return Err(InputFault::NoRequests);
        }
        if number > *most {
            return Err(if self.is_per_request {
                InputFault::Requests { requests: *most, given: number }
            } else {
                InputFault::Capacity { tokens: *most, given: number }
            });
        }
        let (wanted, given) = (number * width, bytes.len() / wanted.size());
        if given < wanted { Err(InputFault::Short { wanted, given }) } else { Ok(()) }
    }
}

/// Writes the first `len` elements of an input to its slot.
fn write(
    step: &mut Step<'_>,
    slot: &SlotInfo,
    input: Input<'_>,
    len: usize,
) -> Result<StagedInput<'static>, ManagerError> {
    let Input::Host { bytes, dtype } = input else {
        return Err(ManagerError::Input { name: slot.name.clone(), fault: InputFault::NotOnHost });
    };
    step.write_bytes(slot, &bytes[..len * dtype.size()])?;
    let address = slot.address.unwrap_or(0);
    Ok(StagedInput::Static(View { address, dtype, len }))
}

/// Passes an input through; an object of tiers is brought to the device.
fn pass<'a>(input: Input<'a>, stream: &'a Stream) -> Result<StagedInput<'a>, ManagerError> {
    match input {
        Input::Object(object) => Ok(StagedInput::Held(object.pin(Tier::Device, stream)?)),
        input => Ok(StagedInput::Passed(input)),
    }
}
