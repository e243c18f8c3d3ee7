//! The threads that run operations, and the callers that help them.

mod destructor;
mod run;
mod watch;

use parking_lot::MutexGuard;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf_sys::CudaError;

use crate::config::{Grace, Schedule};
use crate::machine::{Machine, State, Work};
use crate::order::OpId;
use crate::sched::{Origin, Taker};
use run::{Outcome, run_mem_ops};

/// Threads that call host functions, at most: more blocked ones than this wait for each other.
const MOST_HOSTS: usize = 64;
/// The same where a schedule uses what is allowed: "host functions without a mandated order (such
/// as in independent streams) execute in undefined order and may be serialized" (cuLaunchHostFunc).
const FEWEST_HOSTS: usize = 1;

/// The interval between reads of a value in memory that an operation waits for.
const POLL: Duration = Duration::from_micros(100);

type Guard<'a> = MutexGuard<'a, State>;

impl Machine {
    /// Lets the schedule act on what a call has just enqueued, and wakes the engines.
    pub(crate) fn kick<'a>(self: &'a Arc<Self>, mut state: Guard<'a>) -> Guard<'a> {
        self.start_threads(&mut state);
        match self.config.schedule {
            Schedule::Async | Schedule::Late => {}
            Schedule::Eager => state = self.settle(state),
            Schedule::Random(_) => {
                // A coin decides how much runs before the call returns, so that callers meet both a
                // stream that is ahead and one that is behind.
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
    pub(crate) fn wait<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a>,
        targets: &[OpId],
    ) -> Guard<'a> {
        while targets.iter().any(|target| state.queue.is_pending(*target)) {
            state.queue.demand(targets);
            state = self.help(state);
        }
        for target in targets {
            state.queue.learn_op(*target);
        }
        let State { pools, memory, .. } = &mut *state;
        pools.release_surplus(memory);
        state
    }

    /// Waits until everything that `context` was given is complete.
    pub(crate) fn wait_for_context<'a>(
        self: &'a Arc<Self>,
        state: Guard<'a>,
        context: u64,
    ) -> Guard<'a> {
        let targets = state.queue.of_context(context);
        let mut state = self.wait(state, &targets);
        state.queue.learn_everything();
        state
    }

    /// Whether operations are complete, asked without waiting: `NOT_READY` while they are not.
    ///
    /// A late or random schedule lets one more operation go at every such question, so that a
    /// program that asks until it is answered gets its answer.
    pub(crate) fn is_complete(
        self: &Arc<Self>,
        mut state: Guard<'_>,
        ops: &[OpId],
        context: u64,
    ) -> Result<(), CudaError> {
        state.lost(context)?;
        if !ops.iter().any(|op| state.queue.is_pending(*op)) {
            for op in ops {
                state.queue.learn_op(*op);
            }
            return Ok(());
        }
        if matches!(self.config.schedule, Schedule::Late | Schedule::Random(_)) {
            state.queue.demand_first(ops);
            if let Some(job) = state.queue.take(Taker::Asker) {
                // Answered as not ready even if that was the last one: the question was asked
                // before.
                drop(self.run(state, job));
            } else {
                self.wake(&mut state);
            }
        }
        Err(CudaError::NOT_READY)
    }

    /// Runs one operation on the calling thread where the schedule is the caller's business,
    /// or sleeps until some operation completes.
    fn help<'a>(self: &'a Arc<Self>, mut state: Guard<'a>) -> Guard<'a> {
        let has_engines = self.config.schedule == Schedule::Async && !state.threads.is_empty();
        if !has_engines && let Some(job) = state.queue.take(Taker::Waiter) {
            return self.run(state, job);
        }
        if !has_engines && state.queue.demand_a_writer() {
            return state;
        }
        self.wake(&mut state);
        self.progress.wait(&mut state);
        state
    }

    /// Runs everything that neither a host function nor a value in memory holds up.
    fn settle<'a>(self: &'a Arc<Self>, mut state: Guard<'a>) -> Guard<'a> {
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

    fn run<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a>,
        (id, origin, work): (OpId, Origin, Work),
    ) -> Guard<'a> {
        let lost = state.contexts.get(origin.context).and_then(|context| context.lost);
        let watches = state.queue.watches_order() && lost.is_none();
        if watches {
            self.watch_begin(&mut state, id, origin, &work);
        }
        // What else is ready is for another thread.
        self.wake(&mut state);
        let is_host = work.is_host();
        let outcome = match work {
            // A thread that sees the word must find here what wrote it.
            Work::MemOps(ops, next) if watches => {
                run_mem_ops(ops, next, |op| self.watch_word(&mut state, id, origin, op))
            }
            work => {
                drop(state);
                let outcome = work.run(self, origin, lost);
                state = self.lock();
                outcome
            }
        };
        if watches && is_host {
            // What the host had heard of when its function returned.
            state.queue.hear_host(id);
        }
        match outcome {
            Outcome::Done => state.queue.complete(id),
            Outcome::Blocked(work) => state.queue.block(id, work),
            Outcome::Apply(change) => {
                state.queue.begin_parent(id);
                change(&mut state);
                state.queue.end_parent();
                state.queue.complete(id);
            }
            Outcome::Ran(declared) => {
                if watches {
                    self.watch_end(&mut state, id, origin, &declared);
                }
                state.queue.complete(id);
            }
            Outcome::Fault(code) => {
                state.lose(origin.context, code);
                state.queue.complete(id);
            }
        }
        state.collect_clocks();
        self.wake(&mut state);
        self.progress.notify_all();
        state
    }

    /// Wakes the threads that have something to look at. Host functions may block for long, one
    /// on each stream, so there are as many threads for them as are needed at once, up to a limit.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if state.idle_engines > 0 && !state.queue.is_empty() {
            self.engines.notify_one();
        }
        if !state.queue.has_ready_host() {
            return;
        }
        let most = if self.config.is_unkind() { FEWEST_HOSTS } else { MOST_HOSTS };
        if state.idle_hosts > 0 {
            self.hosts.notify_one();
        } else if state.hosts < most {
            self.start_host(state);
        }
    }

    fn start_host(self: &Arc<Self>, state: &mut State) {
        let machine = Arc::clone(self);
        let thread = spawn("softcuda-host", move || machine.host());
        state.hosts += usize::from(thread.is_some());
        state.threads.extend(thread);
    }

    fn start_threads(self: &Arc<Self>, state: &mut State) {
        if state.threads_started {
            return;
        }
        state.threads_started = true;
        let engines = if self.config.schedule == Schedule::Async { 2 } else { 1 };
        for _ in 0..engines {
            let machine = Arc::clone(self);
            state.threads.extend(spawn("softcuda-engine", move || machine.engine()));
        }
        self.start_host(state);
    }

    /// The life of an engine thread.
    fn engine(self: &Arc<Self>) {
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

    /// The longest sleep of an idle engine.
    fn pause(&self, state: &State) -> Option<Duration> {
        if state.queue.has_blocked() {
            return Some(POLL);
        }
        self.grace_pause(state)
    }

    /// The longest sleep of a thread before the grace of an operation may have passed.
    fn grace_pause(&self, state: &State) -> Option<Duration> {
        let by_grace = matches!(self.config.schedule, Schedule::Late | Schedule::Random(_));
        match self.config.grace {
            Grace::After(grace) if by_grace && !state.queue.is_empty() => {
                Some((grace / 4).max(POLL))
            }
            _ => None,
        }
    }

    fn look_at_blocked<'a>(self: &'a Arc<Self>, mut state: Guard<'a>) -> Guard<'a> {
        let mut last = 0;
        while let Some(job) = state.queue.take_blocked(last) {
            last = job.0;
            state = self.run(state, job);
        }
        state
    }

    /// The life of the thread that calls host functions.
    fn host(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            if let Some(job) = state.queue.take_host() {
                state = self.run(state, job);
                continue;
            }
            // Under a late schedule nothing wakes this thread when the grace of an operation
            // passes.
            let pause = self.grace_pause(&state);
            state.idle_hosts += 1;
            match pause {
                None => self.hosts.wait(&mut state),
                Some(pause) => {
                    self.hosts.wait_for(&mut state, pause);
                }
            }
            state.idle_hosts -= 1;
        }
    }
}

/// A thread, or none where the system has no more: then only callers run operations.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Option<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).ok()
}
