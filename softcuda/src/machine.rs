//! One simulated machine: its devices, its memory, its objects.
//!
//! A process has one machine for every program that loads the shared object, shaped by the
//! environment, and as many more as tests ask for ([`crate::Simulator`]). A thread talks to
//! the machine of its current context, else to the one it is bound to, else to the first.

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use wharf_sys::CudaError;

use crate::array::Array;
use crate::config::{Config, Fault};
use crate::context::Context;
use crate::event::Event;
use crate::graph;
use crate::handle::{Kind, Registry};
use crate::managed::Advice;
use crate::memory;
use crate::memory::transfer::Copy;
use crate::module::Modules;
use crate::pool::Pools;
use crate::report::{self, Check, Violation};
use crate::sched::Queue;
use crate::stream::Stream;
use crate::thread::Thread;
use crate::vmm;

/// A machine. Never freed: program threads may call it while the process ends.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: u16,
    pub(crate) config: Config,
    /// Whether `cuInit` has been called.
    initialised: AtomicBool,
    state: Mutex<State>,
    /// Engines wait here for operations.
    pub(crate) engines: Condvar,
    /// The callback thread waits here for host functions.
    pub(crate) hosts: Condvar,
    /// Callers wait here for completions.
    pub(crate) progress: Condvar,
    pub(crate) counters: Counters,
    /// Destructors of user objects.
    pub(crate) destructors: graph::user_object::Destructors,
    faults: Mutex<Vec<Fault>>,
    has_faults: AtomicBool,
    violations: Mutex<Vec<Violation>>,
}

/// What changes under the machine's lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) memory: memory::Table,
    pub(crate) vmm: vmm::Space,
    pub(crate) pools: Pools,
    pub(crate) advice: Advice,
    pub(crate) arrays: Registry<Array>,
    pub(crate) modules: Modules,
    /// Settings of core dumps, by number.
    pub(crate) coredump: HashMap<u32, Vec<u8>>,
    pub(crate) contexts: Registry<Context>,
    pub(crate) streams: Registry<Stream>,
    pub(crate) events: Registry<Event>,
    pub(crate) graphs: graph::Store,
    /// The primary contexts, active or not, by device number: a device's primary context keeps
    /// its handle when it is released and retained again.
    pub(crate) primaries: HashMap<i32, u64>,
    /// Flags for the primary contexts, by device number; they outlive the contexts.
    pub(crate) primary_flags: HashMap<i32, u32>,
    /// The last number given to a context or stream as its identity.
    pub(crate) next_id: u64,
    pub(crate) threads_started: bool,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) idle_engines: usize,
    /// Threads for host functions, and how many of them have none.
    pub(crate) hosts: usize,
    pub(crate) idle_hosts: usize,
    pub(crate) stopping: bool,
}

impl State {
    fn new(id: u16, config: &Config) -> Self {
        Self {
            queue: Queue::new(config.schedule, config.grace),
            memory: memory::Table::default(),
            vmm: vmm::Space::new(id),
            pools: Pools::new(id),
            advice: Advice::default(),
            arrays: Registry::new(Kind::Array, id),
            modules: Modules::new(id),
            coredump: HashMap::new(),
            contexts: Registry::new(Kind::Context, id),
            streams: Registry::new(Kind::Stream, id),
            events: Registry::new(Kind::Event, id),
            graphs: graph::Store::new(id),
            primaries: HashMap::new(),
            primary_flags: HashMap::new(),
            next_id: 0,
            threads_started: false,
            threads: Vec::new(),
            idle_engines: 0,
            hosts: 0,
            idle_hosts: 0,
            stopping: false,
        }
    }
}

static MACHINES: RwLock<Vec<&'static Machine>> = RwLock::new(Vec::new());
static ANY_INITIALISED: AtomicBool = AtomicBool::new(false);
static FIRST: OnceLock<&'static Machine> = OnceLock::new();

impl Machine {
    /// Makes a machine.
    pub(crate) fn create(config: Config) -> &'static Self {
        // The first machine has number 0 and is made before any other.
        if MACHINES.read().is_empty() {
            Self::first();
        }
        Self::register(config)
    }

    fn register(config: Config) -> &'static Self {
        let mut machines = MACHINES.write();
        let id = u16::try_from(machines.len()).unwrap_or(u16::MAX);
        let machine = Box::leak(Box::new(Self {
            id,
            initialised: AtomicBool::new(false),
            state: Mutex::new(State::new(id, &config)),
            engines: Condvar::new(),
            hosts: Condvar::new(),
            progress: Condvar::new(),
            counters: Counters::default(),
            destructors: graph::user_object::Destructors::default(),
            has_faults: AtomicBool::new(!config.faults.is_empty()),
            faults: Mutex::new(config.faults.clone()),
            violations: Mutex::new(Vec::new()),
            config,
        }));
        machines.push(machine);
        machine
    }

    /// The machine of programs that know of no other, shaped by the environment.
    pub(crate) fn first() -> &'static Self {
        FIRST.get_or_init(|| {
            let config = Config::from_environment();
            let at_exit = config.print_counters || config.checks.leaks;
            let machine = Self::register(config);
            if at_exit {
                crate::exit::report_at_exit();
            }
            machine
        })
    }

    /// The machine that the calling thread talks to.
    pub(crate) fn current() -> &'static Self {
        let thread = Thread::current();
        let named = crate::handle::decode(Kind::Context, thread.context()).map(|id| id.machine);
        match named.or(thread.bound.get()) {
            Some(id) => Self::by_id(id).unwrap_or_else(Self::first),
            None => Self::first(),
        }
    }

    pub(crate) fn initialise(&self) {
        // Release: pairs with the Acquire in `is_initialised`.
        self.initialised.store(true, Ordering::Release);
        // Release: as above.
        ANY_INITIALISED.store(true, Ordering::Release);
    }

    /// Whether `cuInit` was called: for this machine, or for any where the thread is not bound
    /// to one, as when it is about to set the first context that it hears of.
    pub(crate) fn is_initialised(&self, thread: &Thread) -> bool {
        // Acquire: pairs with the Release in `initialise`, here and below.
        self.initialised.load(Ordering::Acquire)
            || thread.bound.get().is_none() && ANY_INITIALISED.load(Ordering::Acquire)
    }

    /// The machine that a context's handle belongs to, live or not.
    pub(crate) fn of_context(context: u64) -> Option<&'static Self> {
        crate::handle::decode(Kind::Context, context).and_then(|id| Self::by_id(id.machine))
    }

    fn by_id(id: u16) -> Option<&'static Self> {
        MACHINES.read().get(usize::from(id)).copied()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The injected result of this call of `call`, if there is one. Counts the call.
    pub(crate) fn count(&self, call: &'static str) -> Option<CudaError> {
        let nth = self.counters.add_call(call);
        // Relaxed: the list itself is under its lock; a fault set while a call is on its way
        // may miss that call.
        if !self.has_faults.load(Ordering::Relaxed) {
            return None;
        }
        let mut faults = self.faults.lock();
        let index = faults.iter().position(|fault| fault.call == call && fault.nth == nth)?;
        Some(faults.remove(index).code)
    }

    /// Adds a fault for the `nth` call of `call` from now on.
    pub(crate) fn add_fault(&self, call: &str, nth: u64, code: CudaError) {
        let before = self.counters.calls(call);
        let fault = Fault { call: call.to_owned(), nth: before + nth, code };
        self.faults.lock().push(fault);
        // Relaxed: see `count`.
        self.has_faults.store(true, Ordering::Relaxed);
    }

    /// Notes a violation where `check` is on.
    pub(crate) fn violate(&self, check: Check, violation: impl FnOnce() -> Violation) {
        let checks = &self.config.checks;
        let on = match check {
            Check::SourceStable => checks.source_stable,
            Check::Bounds => checks.bounds,
            Check::UseAfterFree => checks.use_after_free,
            Check::Leak => checks.leaks,
        };
        if !on {
            return;
        }
        let violation = violation();
        if self.config.print_violations {
            report::line(&violation.to_string());
        }
        self.violations.lock().push(violation);
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().clone()
    }
}

/// How often each entry point was called, and how much was copied.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: Mutex<HashMap<&'static str, u64>>,
    htod: AtomicU64,
    dtoh: AtomicU64,
    dtod: AtomicU64,
    htoh: AtomicU64,
}

impl Counters {
    fn add_call(&self, call: &'static str) -> u64 {
        let mut calls = self.calls.lock();
        let count = calls.entry(call).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn calls(&self, call: &str) -> u64 {
        self.calls.lock().get(call).copied().unwrap_or(0)
    }

    /// Every entry point that was called, by name.
    pub(crate) fn all_calls(&self) -> Vec<(&'static str, u64)> {
        let calls = self.calls.lock();
        let mut calls: Vec<_> = calls.iter().map(|(call, count)| (*call, *count)).collect();
        calls.sort_unstable();
        calls
    }

    pub(crate) fn add_bytes(&self, copy: &Copy) {
        let is_host = |side: &memory::transfer::Side| side.blocks.iter().all(|block| block.kind.is_host());
        let counter = match (is_host(&copy.src), is_host(&copy.dst)) {
            (true, false) => &self.htod,
            (false, true) => &self.dtoh,
            (false, false) => &self.dtod,
            (true, true) => &self.htoh,
        };
        // Relaxed: a statistic.
        counter.fetch_add(copy.bytes() as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> crate::Bytes {
        // Relaxed: statistics.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        crate::Bytes {
            htod: read(&self.htod),
            dtoh: read(&self.dtoh),
            dtod: read(&self.dtod),
            htoh: read(&self.htoh),
        }
    }
}
