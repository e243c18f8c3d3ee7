//! Where steps come from.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use wharf::forecast::Plan;
use wharf_cli::Request;
use wharf_cli::generate::Generator;
use wharf_cli::replay::SizeRecorder;
use wharf_cli::schedule::{Scheduler, Step};
use wharf_cli::trace::{Trace, TraceError};

use crate::arguments::Replay;

/// Counts the requests that were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Rc<Cell<u64>>);

impl Requests {
    pub(super) fn count(&self) -> u64 {
        self.0.get()
    }
}

/// The number of steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) steps: u64,
}

impl Extent {
    /// Goes through a trace once, so that a broken one is told before anything runs. `None` where
    /// it can be read only once.
    pub(super) fn of(options: &Replay) -> Result<Option<Self>, TraceError> {
        if let Some(path) = &options.trace
            && fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir())
        {
            return Ok(None);
        }
        let steps = steps(options, &Requests::default())?
            .try_fold(0, |count, step| step.map(|_| count + 1))?;
        // Past the steps that run, the rest of the trace counts too.
        if let Some(path) = &options.trace {
            Trace::open(path)?.try_for_each(|request| request.map(drop))?;
        }
        Ok(Some(Self { steps }))
    }
}

/// The steps that the options ask for, one after the other.
pub(super) fn steps(
    options: &Replay,
    requests: &Requests,
) -> Result<impl Iterator<Item = Result<Step, TraceError>> + use<>, TraceError> {
    let limit = match (options.steps, &options.trace) {
        (Some(steps), _) => steps,
        (None, Some(_)) => usize::MAX,
        (None, None) => MADE_UP_STEPS,
    };
    steps_of(options.trace.as_deref(), options.seed, limit, requests)
}

/// At most `limit` steps of a trace, or of the requests that a seed stands for.
pub(crate) fn steps_of(
    trace: Option<&Path>,
    seed: u64,
    limit: usize,
    requests: &Requests,
) -> Result<impl Iterator<Item = Result<Step, TraceError>> + use<>, TraceError> {
    let source: Box<dyn Iterator<Item = Result<Request, TraceError>>> = match trace {
        Some(path) => Box::new(Trace::open(path)?),
        None => Box::new(Generator::new(seed).map(Ok)),
    };
    let requests = requests.clone();
    let counted = source.inspect(move |_| requests.0.set(requests.0.get() + 1));
    Ok(Scheduler::new(counted).take(limit))
}

/// The recording of an earlier run of the same requests.
pub(super) fn plan(options: &Replay, extent: Option<&Extent>) -> Result<Plan, TraceError> {
    let mut recorder = SizeRecorder::new();
    if extent.is_some() {
        for step in steps(options, &Requests::default())? {
            recorder.record(&step?);
        }
    }
    Ok(recorder.finish())
}

/// The number of steps of generated requests, by default.
const MADE_UP_STEPS: usize = 10_000;
