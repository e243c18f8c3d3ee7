//! The threads that run operations, and the callers that help them.

use parking_lot::MutexGuard;
use std::thread;
use std::time::Duration;

use wharf_sys::CudaError;

use super::queue::{OpId, Origin, Taker};
use super::work::{Outcome, Work};
use crate::config::Schedule;
use crate::machine::{Machine, State};

/// Threads that call host functions, at most: more blocked ones than this wait for each other.
const MOST_HOSTS: usize = 64;

/// How often a value in memory is looked at while an operation waits for it.
const POLL: Duration = Duration::from_micros(100);

type Guard<'a> = MutexGuard<'a, State>;

impl Machine {
    /// Lets the schedule act on what a call has just enqueued, and wakes the engines.
    pub(crate) fn kick<'a>(&'static self, mut state: Guard<'a>) -> Guard<'a> {
        self.start_threads(&mut state);
        match self.config.schedule {
            Schedule::Async | Schedule::Late => {}
            Schedule::Eager => state = self.settle(state),
            Schedule::Random(_) => {
                while state.queue.flip() {
                    let Some(job) = state.queue.take(Taker::Waiter) else { break };
                    state = self.run(state, job);
                }
            }
        }
        self.wake(&mut state);
        state
    }

    /// Waits until every operation of `targets` is complete.
    pub(crate) fn wait<'a>(&'static self, mut state: Guard<'a>, targets: &[OpId]) -> Guard<'a> {
        while targets.iter().any(|target| state.queue.is_pending(*target)) {
            state.queue.demand(targets);
            state = self.help(state);
        }
        state.release_surplus();
        state
    }

    /// Waits until everything that `context` was given is complete.
    pub(crate) fn wait_for_context<'a>(&'static self, state: Guard<'a>, context: u64) -> Guard<'a> {
        let targets = state.queue.of_context(context);
        self.wait(state, &targets)
    }

    /// Whether operations are complete, asked without waiting: `NOT_READY` while they are not.
    ///
    /// A late or random schedule lets one more operation go at every such question, so that a
    /// program that asks until it is answered gets its answer.
    pub(crate) fn is_complete(
        &'static self,
        mut state: Guard<'_>,
        ops: &[OpId],
        context: u64,
    ) -> Result<(), CudaError> {
        state.lost(context)?;
        if !ops.iter().any(|op| state.queue.is_pending(*op)) {
            return Ok(());
        }
        if matches!(self.config.schedule, Schedule::Late | Schedule::Random(_)) {
            state.queue.demand_first(ops);
            if let Some(job) = state.queue.take(Taker::Asker) {
                drop(self.run(state, job));
            } else {
                self.wake(&mut state);
            }
        }
        Err(CudaError::NOT_READY)
    }

    /// Runs one operation on the calling thread where the schedule is the caller's business,
    /// or sleeps until some operation completes.
    fn help<'a>(&'static self, mut state: Guard<'a>) -> Guard<'a> {
        let has_engines = self.config.schedule == Schedule::Async && !state.threads.is_empty();
        if !has_engines && let Some(job) = state.queue.take(Taker::Waiter) {
            return self.run(state, job);
        }
        self.wake(&mut state);
        self.progress.wait(&mut state);
        state
    }

    /// Runs everything that neither a host function nor a value in memory holds up.
    fn settle<'a>(&'static self, mut state: Guard<'a>) -> Guard<'a> {
        loop {
            if let Some(job) = state.queue.take(Taker::Waiter) {
                state = self.run(state, job);
            } else if state.queue.is_running() {
                self.progress.wait(&mut state);
            } else {
                return state;
            }
        }
    }

    fn run<'a>(&'static self, mut state: Guard<'a>, (id, origin, work): (OpId, Origin, Work)) -> Guard<'a> {
        let lost = state.contexts.get(origin.context).and_then(|context| context.lost);
        // What else is ready is for another thread.
        self.wake(&mut state);
        drop(state);
        let outcome = work.run(self, origin, lost);
        let mut state = self.lock();
        match outcome {
            Outcome::Done => state.queue.complete(id),
            Outcome::Blocked(work) => state.queue.block(id, work),
            Outcome::Apply(change) => {
                change(&mut state);
                state.queue.complete(id);
            }
            Outcome::Fault(code) => {
                state.lose(origin.context, code);
                state.queue.complete(id);
            }
        }
        self.wake(&mut state);
        self.progress.notify_all();
        state
    }

    /// Wakes the threads that have something to look at. Host functions may block for long, one
    /// on each stream, so there are as many threads for them as are needed at once.
    fn wake(&'static self, state: &mut State) {
        if state.idle_engines > 0 && !state.queue.is_empty() {
            self.engines.notify_one();
        }
        if !state.queue.has_ready_host() {
            return;
        }
        if state.idle_hosts > 0 {
            self.hosts.notify_one();
        } else if state.hosts < MOST_HOSTS {
            self.start_host(state);
        }
    }

    fn start_host(&'static self, state: &mut State) {
        let thread = spawn("softcuda-host", move || self.host());
        state.hosts += usize::from(thread.is_some());
        state.threads.extend(thread);
    }

    fn start_threads(&'static self, state: &mut State) {
        if state.threads_started {
            return;
        }
        state.threads_started = true;
        let engines = if self.config.schedule == Schedule::Async { 2 } else { 1 };
        for _ in 0..engines {
            state.threads.extend(spawn("softcuda-engine", move || self.engine()));
        }
        self.start_host(state);
    }

    /// The life of an engine thread.
    fn engine(&'static self) {
        let mut state = self.lock();
        while !state.stopping {
            if let Some(job) = state.queue.take(Taker::Engine) {
                state = self.run(state, job);
                continue;
            }
            state = self.look_at_blocked(state);
            // The lock was away in there: who came in the meantime saw no idle engine to wake.
            if state.stopping {
                break;
            }
            if let Some(job) = state.queue.take(Taker::Engine) {
                state = self.run(state, job);
                continue;
            }
            let pause = self.pause(&state);
            state.idle_engines += 1;
            match pause {
                None => self.engines.wait(&mut state),
                Some(pause) => {
                    self.engines.wait_for(&mut state, pause);
                }
            }
            state.idle_engines -= 1;
        }
    }

    /// How long an idle engine may sleep before it has to look again.
    fn pause(&self, state: &State) -> Option<Duration> {
        if state.queue.has_blocked() {
            return Some(POLL);
        }
        let by_grace = matches!(self.config.schedule, Schedule::Late | Schedule::Random(_));
        (by_grace && !state.queue.is_empty()).then(|| (self.config.grace / 4).max(POLL))
    }

    fn look_at_blocked<'a>(&'static self, mut state: Guard<'a>) -> Guard<'a> {
        let mut last = 0;
        while let Some(job) = state.queue.take_blocked(last) {
            last = job.0;
            state = self.run(state, job);
        }
        state
    }

    /// The life of the thread that calls host functions.
    fn host(&'static self) {
        let mut state = self.lock();
        while !state.stopping {
            if let Some(job) = state.queue.take_host() {
                state = self.run(state, job);
                continue;
            }
            let by_grace = matches!(self.config.schedule, Schedule::Late | Schedule::Random(_));
            state.idle_hosts += 1;
            if by_grace && !state.queue.is_empty() {
                self.hosts.wait_for(&mut state, (self.config.grace / 4).max(POLL));
            } else {
                self.hosts.wait(&mut state);
            }
            state.idle_hosts -= 1;
        }
    }
}

impl State {
    /// Notes that the device faulted in `context`: every later call there returns `code`.
    pub(crate) fn lose(&mut self, context: u64, code: CudaError) {
        if let Some(context) = self.contexts.get_mut(context) {
            context.lost.get_or_insert(code);
        }
    }
}

/// A thread, or none where the system has no more: then only callers run operations.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Option<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).ok()
}
