//! Where steps come from.

use std::cell::{Cell, RefCell};
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::rc::Rc;

use indicatif::ProgressBar;
use wharf::forecast::Plan;
use wharf_cli::Request;
use wharf_cli::generate::Generator;
use wharf_cli::replay::SizeRecorder;
use wharf_cli::schedule::{Scheduler, Step};
use wharf_cli::summary::Origin;
use wharf_cli::trace::{Problem, STANDARD_INPUT, Trace, TraceError};

use crate::arguments::{Replay, Requests};
use crate::input::{Input, is_special};
use crate::signals::Signals;

/// What was found out about the requests while they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken(Rc<State>);

#[derive(Debug, Default)]
struct State {
    requests: Cell<u64>,
    trace: RefCell<Option<Origin>>,
}

impl Taken {
    /// The number of requests.
    pub(super) fn count(&self) -> u64 {
        self.0.requests.get()
    }

    /// Tells of requests that had to be sorted.
    pub(crate) fn note(&self) {
        if let Some(Origin { path, reordered: count @ 1.., .. }) = self.origin() {
            let note = "requests were not in the order of their arrival, and were sorted";
            // Where nothing can be told, the figures have the number.
            let _ = writeln!(io::stderr(), "{path}: {count} {note}");
        }
    }

    /// The trace that they are from, if any.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.0.trace.borrow().clone()
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
        let Some(path) = &options.requests.trace else {
            // Generated requests never end.
            let steps = options.steps.unwrap_or(MADE_UP_STEPS);
            return Ok(Some(Self { steps: steps as u64 }));
        };
        if is_special(path) || path == Path::new(STANDARD_INPUT) {
            return Ok(None);
        }
        // A long trace takes its time.
        let bar = ProgressBar::new_spinner().with_message("reading the trace");
        let steps = steps(options, &Taken::default(), None)?.try_fold(0, |count: u64, step| {
            if count.is_multiple_of(4096) {
                bar.tick();
            }
            step.map(|_| count + 1)
        });
        bar.finish_and_clear();
        let steps = steps?;
        // Past the steps that run, the rest of the trace counts too.
        if options.steps.is_some() {
            let mut trace = Trace::open(path, &options.requests.options())?;
            trace.try_for_each(|request| request.map(drop))?;
        }
        Ok(Some(Self { steps }))
    }
}

/// The steps that the options ask for, one after the other. One of `signals` ends the wait for
/// them.
pub(super) fn steps(
    options: &Replay,
    taken: &Taken,
    signals: Option<&Signals>,
) -> Result<impl Iterator<Item = Result<Step, TraceError>> + use<>, TraceError> {
    let limit = match (options.steps, &options.requests.trace) {
        (Some(steps), _) => steps,
        (None, Some(_)) => usize::MAX,
        (None, None) => MADE_UP_STEPS,
    };
    steps_of(&options.requests, limit, taken, signals)
}

/// At most `limit` steps of a trace, or of the requests that a seed stands for.
pub(crate) fn steps_of(
    requests: &Requests,
    limit: usize,
    taken: &Taken,
    signals: Option<&Signals>,
) -> Result<impl Iterator<Item = Result<Step, TraceError>> + use<>, TraceError> {
    let source: Box<dyn Iterator<Item = Result<Request, TraceError>>> = match &requests.trace {
        Some(path) => {
            let trace = open(path, requests, signals)?;
            let (path, format) = (path.display().to_string(), trace.format().name());
            let (reordered, prefix_cache) = (trace.reordered(), requests.prefix_cache);
            taken.0.trace.replace(Some(Origin { path, format, reordered, prefix_cache }));
            Box::new(trace)
        }
        None => Box::new(Generator::new(requests.seed).map(Ok)),
    };
    let taken = taken.clone();
    let counted = source.inspect(move |_| taken.0.requests.set(taken.count() + 1));
    Ok(Scheduler::new(counted).take(limit))
}

fn open(path: &Path, requests: &Requests, signals: Option<&Signals>) -> Result<Trace, TraceError> {
    let input = signals.map(|signals| Input::open(path, signals)).transpose();
    let input = input.map_err(|error| {
        let (path, problem) = (path.to_owned(), Problem::Open(error));
        TraceError { path, line: 0, column: 0, problem }
    })?;
    match input.flatten() {
        Some(input) => Trace::read(path, BufReader::new(input), &requests.options()),
        None => Trace::open(path, &requests.options()),
    }
}

/// The recording of an earlier run of the same requests.
pub(super) fn plan(options: &Replay, extent: Option<&Extent>) -> Result<Plan, TraceError> {
    let mut recorder = SizeRecorder::new();
    if extent.is_some() {
        for step in steps(options, &Taken::default(), None)? {
            recorder.record(&step?);
        }
    }
    Ok(recorder.finish())
}

/// The number of steps of generated requests, by default.
const MADE_UP_STEPS: usize = 10_000;
