//! Reads on another stream, ordered by nodes of graphs.

use std::sync::Arc;

use crate::driver::{Context, Event, EventKind};
use crate::error::Error;
use crate::stream::Stream;

/// Two events that order the steps of a set on one stream with the reads of their inputs on one
/// other, where the staging graphs hold one half of it: each waits for the end of the read before,
/// and records that its step is staged.
///
/// | the other half | driver calls a step, its launch included |
/// |---|--:|
/// | nodes of the engine's graph: a wait for `staged`, what reads, a record of `read` | 1 |
/// | [`begin`](Self::begin) and [`end`](Self::end) around the engine's launch | 3 |
/// | [`Staged::reader`](super::Staged::reader) in place of this | 5 |
///
/// Each step has one read, which begins behind its submission, and whose end is in its stream, by a
/// launch or a call, before the next step is submitted. For several readers, and where that cannot
/// be said, there is `Staged::reader`, which works beside this. A read that is declared by
/// neither is not waited for. Steps of a [view](super::InputBuffers::view) are steps of its set
/// here, in the same stream.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::graph::GraphDefinition;
/// use wharf::staging::{InputBuffers, Len};
///
/// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
/// let inputs = inputs.buckets([4, 8]).read_events(true).build()?;
/// let (ids, events) = (inputs.slot_id::<i32>("ids")?, inputs.read_events().unwrap());
///
/// let mut engine = GraphDefinition::new(&context)?;
/// let staged = engine.event_wait(events.staged(), &[])?;
/// let model = engine.host_func(|| println!("the model runs here"), &[staged.into()])?;
/// engine.event_record(events.read(), &[model.into()])?;
/// let mut engine = engine.instantiate()?;
///
/// let (copies, model) = (Stream::new(&context)?, Stream::new(&context)?);
/// for value in 0..3 {
///     let mut step = inputs.begin(5, 1)?;
///     step.write(ids).fill(value);
///     step.submit(&copies)?; // one driver call
///     engine.launch(&model)?;
/// }
/// # model.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReadEvents {
    staged: Arc<Event>,
    read: Arc<Event>,
}

impl ReadEvents {
    pub(super) fn new(context: &Context) -> Result<Arc<Self>, Error> {
        let event = || Event::new(context, EventKind::Ordering).map(Arc::new);
        Ok(Arc::new(Self { staged: event()?, read: event()? }))
    }

    /// Recorded behind the copies of each step.
    pub fn staged(&self) -> &Arc<Event> {
        &self.staged
    }

    /// What the copies of each step wait for: to be recorded behind what reads the step before.
    pub fn read(&self) -> &Arc<Event> {
        &self.read
    }

    /// Makes what `stream` is given from here on wait, on the device, for the step that was
    /// submitted last. One driver call.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused, as for a stream that is being captured.
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn begin(&self, stream: &Stream) -> Result<(), Error> {
        stream.wait_event(&self.staged)
    }

    /// Makes the next step wait, on the device, for what `stream` was given so far. One driver
    /// call. Not for a stream that is being captured: its end is a [node](Self::read).
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused. The next step does not wait for this read.
    #[doc(alias = "cuEventRecord")]
    pub fn end(&self, stream: &Stream) -> Result<(), Error> {
        stream.record(&self.read)
    }
}
