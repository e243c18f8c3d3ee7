//! One simulated machine: its devices, its memory, its objects.
//!
//! A process has one machine for every program that loads the shared object, shaped by the
//! environment, and as many more as tests ask for ([`crate::Simulator`]). A thread talks to
//! the machine of its current context, else to the one it is bound to, else to the first.
//!
//! * [`state`]: what changes under the machine's lock.
//! * [`streams`], [`contexts`]: what concerns several parts of it at once.
//! * [`counters`], [`leaks`], [`exit`]: what a machine says of itself.

mod contexts;
mod counters;
mod exit;
mod leaks;
mod state;
mod streams;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use wharf_sys::CudaError;

use crate::config::{Config, Fault};
use crate::environment;
use crate::fork;
use crate::graph::user_object::Destructors;
use crate::handle::{Kind, MOST_MACHINES, decode};
use crate::memory::{self, Block, transfer};
use crate::report::{self, Check, Violation};
use crate::thread::Thread;
use counters::Counters;

pub use counters::Bytes;
pub(crate) use state::{Change, State, Work};

/// The bytes of poisoned memory.
pub(crate) const ALLOCATED: u8 = 0xA5;
pub(crate) const FREED: u8 = 0x5A;
/// Larger blocks are not poisoned: their pages would all be touched.
pub(crate) const POISON_LIMIT: usize = 64 << 20;

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: u32,
    pub(crate) config: Config,
    /// The environment variables that configure it are invalid.
    pub(crate) is_misconfigured: bool,
    /// The process that has called `cuInit`, as [`fork::generation`] counts, or zero.
    initialised: AtomicU32,
    state: Mutex<State>,
    /// Engines wait here for operations.
    pub(crate) engines: Condvar,
    /// The callback thread waits here for host functions.
    pub(crate) hosts: Condvar,
    /// Callers wait here for completions.
    pub(crate) progress: Condvar,
    pub(crate) counters: Counters,
    /// Destructors of user objects.
    pub(crate) destructors: Arc<Destructors>,
    faults: Mutex<Vec<Fault>>,
    has_faults: AtomicBool,
    violations: Mutex<Vec<Violation>>,
}

/// The machines that are there, by number.
static MACHINES: RwLock<BTreeMap<u32, Arc<Machine>>> = RwLock::new(BTreeMap::new());
/// The last process that has initialised any machine, or zero.
static ANY_INITIALISED: AtomicU32 = AtomicU32::new(0);
/// The machine of the environment has number 0 and is kept for ever: program threads may call
/// it while the process ends.
static FIRST: OnceLock<Arc<Machine>> = OnceLock::new();
/// The number of the next machine that a program makes; none is used twice.
static NEXT: AtomicU32 = AtomicU32::new(1);

impl Machine {
    /// Makes a machine.
    pub(crate) fn create(config: Config) -> Arc<Self> {
        // Relaxed: only uniqueness counts.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(id < MOST_MACHINES, "a process has at most {MOST_MACHINES} machines");
        Self::register(id, config, false)
    }

    fn register(id: u32, config: Config, is_misconfigured: bool) -> Arc<Self> {
        // A process may end without ending its machines.
        if config.print_counters || config.checks.leaks {
            exit::report_at_exit();
        }
        let machine = Arc::new(Self {
            id,
            is_misconfigured,
            initialised: AtomicU32::new(0),
            state: Mutex::new(State::new(id, &config)),
            engines: Condvar::new(),
            hosts: Condvar::new(),
            progress: Condvar::new(),
            counters: Counters::default(),
            destructors: Arc::default(),
            has_faults: AtomicBool::new(!config.faults.is_empty()),
            faults: Mutex::new(config.faults.clone()),
            violations: Mutex::new(Vec::new()),
            config,
        });
        MACHINES.write().insert(id, Arc::clone(&machine));
        machine
    }

    /// The machine of programs that know of no other, shaped by the environment. Where that is not
    /// understood, it says so and cannot be initialised. `knows` tells which calls there are.
    pub(crate) fn first(knows: environment::Knows) -> Arc<Self> {
        let first = FIRST.get_or_init(|| match environment::read(std::env::vars_os(), knows) {
            Ok(config) => Self::register(0, config, false),
            Err(error) => {
                report::line(&error.to_string());
                Self::register(0, Config::default(), true)
            }
        });
        Arc::clone(first)
    }

    /// The machine that the calling thread talks to; none where the one that it is bound to has
    /// gone. `knows` is for [`Machine::first`].
    pub(crate) fn current(knows: environment::Knows) -> Option<Arc<Self>> {
        let thread = Thread::current();
        if let Some(machine) = Self::of_context(thread.context().raw) {
            return Some(machine);
        }
        match thread.bound.get() {
            Some(id) => Self::by_id(id),
            None => Some(Self::first(knows)),
        }
    }

    /// The machine that a context's handle belongs to, live or not.
    pub(crate) fn of_context(context: u64) -> Option<Arc<Self>> {
        decode(Kind::Context, context).and_then(|id| Self::by_id(id.machine))
    }

    fn by_id(id: u32) -> Option<Arc<Self>> {
        MACHINES.read().get(&id).cloned()
    }

    /// Every machine that is there.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        MACHINES.read().values().cloned().collect()
    }

    /// Ends the machine: no later call reaches it.
    pub(crate) fn end(&self) {
        self.report_end();
        self.stop();
        let machine = MACHINES.write().remove(&self.id);
        // Its memory goes where the last call that is on its way returns.
        drop(machine);
    }

    pub(crate) fn initialise(&self) {
        fork::watch();
        // Release: pairs with the Acquire in `is_initialised`.
        self.initialised.store(fork::generation(), Ordering::Release);
        // Release: as above.
        ANY_INITIALISED.store(fork::generation(), Ordering::Release);
    }

    /// Whether a parent of this process has initialised the machine, whose threads and locks
    /// are that process's.
    pub(crate) fn is_orphaned(&self) -> bool {
        // Acquire: pairs with the Release in `initialise`.
        let process = self.initialised.load(Ordering::Acquire);
        process != 0 && process != fork::generation()
    }

    fn is_of_this_process(&self) -> bool {
        // Acquire: pairs with the Release in `initialise`.
        self.initialised.load(Ordering::Acquire) == fork::generation()
    }

    /// Whether `cuInit` was called: for this machine, or for any where the thread is not bound
    /// to one, as when it is about to set the first context that it hears of.
    pub(crate) fn is_initialised(&self, thread: &Thread) -> bool {
        // Acquire: pairs with the Release in `initialise`.
        let any = || ANY_INITIALISED.load(Ordering::Acquire) == fork::generation();
        self.is_of_this_process() || thread.bound.get().is_none() && any()
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

    /// Fills memory with a pattern where that is asked for.
    pub(crate) fn poison(&self, block: &Block, pattern: u8) {
        if self.config.poisons() && block.is_owner() && block.size <= POISON_LIMIT {
            transfer::fill(block, pattern);
        }
    }

    /// Notes a violation where `check` is on.
    pub(crate) fn violate(&self, check: Check, violation: impl FnOnce() -> Violation) {
        let checks = &self.config.checks;
        let on = match check {
            Check::SourceStable => checks.source_stable,
            Check::Bounds => checks.bounds,
            Check::UseAfterFree => checks.use_after_free,
            Check::PeerAccess => checks.peer_access,
            Check::Overlap => checks.overlap,
            Check::ValueOrder => checks.value_order,
            Check::Leak => checks.leaks,
            Check::Race => checks.race,
        };
        if !on {
            return;
        }
        // Made only when the check is on: texts of violations cost more than the checks.
        let violation = violation();
        if self.config.print_violations {
            report::line(&violation.to_string());
        }
        self.violations.lock().push(violation);
    }

    /// The bytes that there are where memory of this kind comes from.
    pub(crate) fn limit(&self, kind: memory::Kind) -> u64 {
        if kind.is_host() { self.config.host_memory } else { self.config.device_memory }
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().clone()
    }
}
