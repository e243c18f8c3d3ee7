//! Machines in process, for tests.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr;
use std::sync::Arc;

use wharf_sys::CudaError;

use crate::abi;
use crate::config::Config;
use crate::machine::Machine;
use crate::module::{KernelArguments, Native};
use crate::report::Violation;
use crate::thread::Thread;

/// A machine of its own, beside the one that the environment shapes.
///
/// A thread talks to it after [`Simulator::bind`], or by having one of its contexts current.
/// Dropping it stops its threads; what it holds stays allocated, as driver state does.
///
/// # Examples
///
/// ```
/// use softcuda::{Config, Schedule, Simulator};
/// use wharf_sys::Api;
///
/// let simulator = Simulator::new(Config { schedule: Schedule::Late, ..Config::default() });
/// let _bound = simulator.bind();
/// // SAFETY: softcuda's functions have the signatures of NVIDIA's header and live for ever.
/// let api = unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// // SAFETY: no precondition.
/// unsafe { api.init.call(0) }?;
/// assert_eq!(simulator.calls("cuInit"), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Simulator {
    machine: &'static Machine,
}

impl Simulator {
    /// Makes a machine.
    pub fn new(config: Config) -> Self {
        Self { machine: Machine::create(config) }
    }

    /// Lets the calling thread talk to this machine while the guard lives. The thread begins
    /// without a current context, and gets back the ones it had when the guard goes.
    pub fn bind(&self) -> Binding {
        let thread = Thread::current();
        Binding {
            machine: thread.bound.replace(Some(self.machine.id)),
            contexts: thread.contexts.take(),
            not_send: PhantomData,
        }
    }

    /// How often `call` was called, by its name without a version suffix.
    pub fn calls(&self, call: &str) -> u64 {
        self.machine.counters.calls(call)
    }

    /// Every entry point that was called and how often, by name.
    pub fn all_calls(&self) -> Vec<(&'static str, u64)> {
        self.machine.counters.all_calls()
    }

    /// Bytes copied, by direction.
    pub fn bytes(&self) -> Bytes {
        self.machine.counters.bytes()
    }

    /// Lets the `nth` call of `call` from now on, counted from 1, return `code` and do nothing.
    /// A code that loses the context (see [`CudaError::is_sticky`]) loses the calling thread's.
    pub fn fail(&self, call: &str, nth: u64, code: CudaError) {
        self.machine.add_fault(call, nth, code);
    }

    /// Lets every device fault with `code`, as after an illegal access by a kernel: operations
    /// that have not run never do, and later calls in every context return `code`.
    pub fn fault_devices(&self, code: CudaError) {
        self.machine.fault_devices(code);
    }

    /// Lets native code stand for the kernel `name` of every module and library: a launch runs
    /// `body` in the order of its stream, or in its place in a graph. `sizes` are the bytes of
    /// the kernel's parameters, whose values are those of the launch.
    ///
    /// # Examples
    ///
    /// ```
    /// use softcuda::{Config, Simulator};
    ///
    /// let simulator = Simulator::new(Config::default());
    /// // One parameter, an address of four bytes.
    /// simulator.register_kernel("count", &[8], |arguments| {
    ///     let word: *mut u32 = std::ptr::with_exposed_provenance_mut(arguments.number(0) as usize);
    ///     // SAFETY: the launch names device memory of at least four bytes.
    ///     unsafe { *word += arguments.grid()[0] };
    /// });
    /// ```
    pub fn register_kernel(
        &self,
        name: &str,
        sizes: &[usize],
        body: impl Fn(&KernelArguments) + Send + Sync + 'static,
    ) {
        let native = Native { sizes: sizes.to_vec(), body: Arc::new(body) };
        self.machine.lock().modules.natives.insert(name.to_owned(), native);
    }

    /// What the checks have found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.machine.violations()
    }

    /// The objects that are alive: one line each.
    pub fn leaks(&self) -> Vec<String> {
        self.machine.leaks()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if self.machine.config.checks.leaks {
            self.machine.report_leaks();
        }
        self.machine.stop();
    }
}

/// Binds the calling thread to a machine until dropped.
#[derive(Debug)]
#[must_use = "the thread is bound only as long as this lives"]
pub struct Binding {
    /// What the thread was bound to before.
    machine: Option<u16>,
    /// The contexts that were current before.
    contexts: Vec<u64>,
    not_send: PhantomData<*const ()>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        let thread = Thread::current();
        thread.bound.set(self.machine);
        thread.contexts.replace(std::mem::take(&mut self.contexts));
    }
}

/// Bytes copied, by direction; a copy counts when it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Host to device.
    pub htod: u64,
    /// Device to host.
    pub dtoh: u64,
    /// Device to device.
    pub dtod: u64,
    /// Host to host.
    pub htoh: u64,
}

/// The address of the entry point `name` with the signature it has had since CUDA `version`,
/// or null where there is no such signature, or none yet in the driver of the machine that the
/// calling thread talks to, see [`Config::version`].
pub fn entry_point(name: &str, version: u32) -> *mut c_void {
    if version > Machine::current().config.version { ptr::null_mut() } else { abi::exactly(name, version) }
}
