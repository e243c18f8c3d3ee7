//! Machines in the process of a test.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr;
use std::ffi::OsString;
use std::sync::Arc;

use wharf_sys::bindings::CUstream;
use wharf_sys::{Api, CudaError, LoadError};

use crate::abi;
use crate::config::{Config, Fault};
use crate::environment::{self, ConfigError, check_call, check_fault};
use crate::handle::Name;
use crate::machine::{Bytes, Machine};
use crate::module::{KernelArguments, Native};
use crate::report::Violation;
use crate::thread::Thread;

/// A machine for a test, independent of all others in the process.
///
/// The calls of a thread go to a machine after [`Simulator::bind`], or while one of the machine's
/// contexts is current. Dropping a machine stops its threads and frees its memory, with everything
/// that was allocated on it. Later calls of threads that are bound to it return
/// `CUDA_ERROR_DEINITIALIZED`.
///
/// # Examples
///
/// ```
/// use softcuda::{Config, Schedule, Simulator};
///
/// let simulator = Simulator::new(Config { schedule: Schedule::Late, ..Config::default() });
/// let _bound = simulator.bind();
/// let api = simulator.api()?;
/// // SAFETY: no precondition.
/// unsafe { api.init.call(0) }?;
/// assert_eq!(simulator.calls("cuInit"), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Simulator {
    machine: Arc<Machine>,
}

impl Simulator {
    /// Makes a machine.
    ///
    /// # Panics
    ///
    /// * After 16 million machines in one process: a machine's number is part of its handles.
    /// * If a fault of `config` can never happen: see [`Simulator::fail`].
    pub fn new(config: Config) -> Self {
        config.faults.iter().for_each(expect_fault);
        Self { machine: Machine::create(config) }
    }

    /// Sends the calling thread's calls to this machine until the guard is dropped. The thread has
    /// no current context at first; dropping the guard restores its earlier contexts.
    pub fn bind(&self) -> Binding {
        let thread = Thread::current();
        Binding {
            machine: thread.bound.replace(Some(self.machine.id)),
            contexts: thread.contexts.take(),
            not_send: PhantomData,
        }
    }

    /// The function table of the driver API in this machine's [`Config::version`]. A call goes to
    /// the machine of the calling thread's current context, or else to the one that it is bound to.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: the version is older than [`Api`] needs.
    pub fn api(&self) -> Result<Api, LoadError> {
        abi::api(self.machine.config.version)
    }

    /// The number of calls of `call`, by its name without a version suffix.
    ///
    /// # Panics
    ///
    /// If the driver API has no such call: a misspelt name would always count 0.
    pub fn calls(&self, call: &str) -> u64 {
        expect(check_call(call, abi::knows));
        self.machine.counters.calls(call)
    }

    /// The number of calls of each entry point that was called, by name.
    pub fn all_calls(&self) -> Vec<(&'static str, u64)> {
        self.machine.counters.all_calls()
    }

    /// Bytes copied, by direction.
    pub fn bytes(&self) -> Bytes {
        self.machine.counters.bytes()
    }

    /// Injects a fault: the `nth` call of `call` from now on, counted from 1, returns `code` and
    /// does nothing else. A sticky code (see [`CudaError::is_sticky`]) also loses the calling
    /// thread's context.
    ///
    /// # Panics
    ///
    /// If there is no such call, `nth` is zero or the driver API has no such code: a test whose
    /// fault never happens would pass.
    pub fn fail(&self, call: &str, nth: u64, code: CudaError) {
        expect_fault(&Fault { call: call.to_owned(), nth, code });
        self.machine.add_fault(call, nth, code);
    }

    /// Loses every context, as after an illegal access by a kernel: operations that have not run
    /// never do, and later calls in every context return `code`.
    pub fn fault_devices(&self, code: CudaError) {
        self.machine.fault_devices(code);
    }

    /// Registers native code as the kernel `name` of every module and library: a launch runs `body`
    /// in the order of its stream, or as a node of a graph, with the parameters of the launch.
    /// `sizes` are the sizes of the parameters, in bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use softcuda::{Config, Simulator};
    ///
    /// let simulator = Simulator::new(Config::default());
    /// // One parameter, an address of four bytes.
    /// simulator.register_kernel("count", &[8], |arguments| {
    ///     let address = arguments.number(0) as usize;
    ///     let word: *mut u32 = std::ptr::with_exposed_provenance_mut(address);
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

    /// Launches the native kernel `name`, without a module, as `cuLaunchKernel` would in `stream`:
    /// with blocks of one thread, and the low bytes of each of `arguments` as its parameters. The
    /// stream may be capturing. The calling thread talks to this machine and has a current context.
    ///
    /// # Errors
    ///
    /// * [`CudaError::NOT_FOUND`]: no kernel of this name was registered.
    /// * [`CudaError::INVALID_VALUE`]: it has another number of parameters, or one of more than 8
    ///   bytes, or the grid is larger than the device allows.
    /// * [`CudaError::INVALID_CONTEXT`]: the thread talks to another machine.
    /// * Those of `cuLaunchKernel`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::ptr;
    ///
    /// use softcuda::{Config, Schedule, Simulator};
    ///
    /// let simulator = Simulator::new(Config { schedule: Schedule::Late, ..Config::default() });
    /// let _bound = simulator.bind();
    /// let api = simulator.api()?;
    /// simulator.register_kernel("add", &[8, 4], |arguments| {
    ///     let word: *mut u32 = ptr::with_exposed_provenance_mut(arguments.number(0) as usize);
    ///     arguments.writes(arguments.number(0), 4);
    ///     // SAFETY: the launch names device memory of four bytes.
    ///     unsafe { *word += arguments.number(1) as u32 };
    /// });
    /// let (mut context, mut word, mut sum) = (ptr::null_mut(), 0, 0_u32);
    /// let stream = ptr::null_mut();
    /// // SAFETY: all pointers are to locals that live until the calls return.
    /// unsafe {
    ///     api.init.call(0)?;
    ///     api.device_primary_ctx_retain.call(&raw mut context, 0)?;
    ///     api.ctx_set_current.call(context)?;
    ///     api.mem_alloc.call(&raw mut word, 4)?;
    ///     api.memset_d32_async.call(word, 40, 1, stream)?;
    ///     simulator.launch("add", [1, 1, 1], &[word, 2], stream)?;
    ///     api.memcpy_dtoh.call((&raw mut sum).cast(), word, 4)?;
    /// }
    /// assert_eq!(sum, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn launch(
        &self,
        name: &str,
        grid: [u32; 3],
        arguments: &[u64],
        stream: CUstream,
    ) -> Result<(), CudaError> {
        let result = abi::enter("cuLaunchKernel", abi::Guard::Normal, false, |call| {
            // A bound thread may have a context of another machine current.
            if call.machine.id != self.machine.id {
                return Err(CudaError::INVALID_CONTEXT);
            }
            call.launch_native(name, grid, arguments, stream)
        });
        CudaError::new(result).map_or(Ok(()), Err)
    }

    /// The violations that the checks have found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.machine.violations()
    }

    /// The objects that are alive, one line each.
    pub fn leaks(&self) -> Vec<String> {
        self.machine.leaks()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // A child of `fork` has neither the machine's threads nor the right to its locks.
        if self.machine.is_orphaned() {
            return;
        }
        self.machine.end();
    }
}

/// Panics where a fault can never happen.
fn expect_fault(fault: &Fault) {
    expect(check_fault(fault, abi::knows));
}

/// Panics with the text of an error.
fn expect(checked: Result<(), String>) {
    assert!(checked.is_ok(), "{}", checked.err().unwrap_or_default());
}

impl Config {
    /// The configuration in the environment variables `SOFTCUDA_*`, which the crate's documentation
    /// lists. An unset variable keeps the default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: an unknown variable, or an invalid value.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::from_variables(std::env::vars_os())
    }

    /// The configuration in variables `SOFTCUDA_*` that are given as names and values, for callers
    /// that read it from elsewhere than the environment. Other names are ignored.
    ///
    /// # Errors
    ///
    /// As [`from_environment`](Self::from_environment).
    ///
    /// # Examples
    ///
    /// ```
    /// use softcuda::{Config, Schedule};
    ///
    /// let config = Config::from_variables([("SOFTCUDA_SCHEDULE".into(), "late".into())])?;
    /// assert_eq!(config.schedule, Schedule::Late);
    /// assert!(Config::from_variables([("SOFTCUDA_DEVICES".into(), "two".into())]).is_err());
    /// # Ok::<(), softcuda::ConfigError>(())
    /// ```
    pub fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        environment::read(variables.into_iter(), abi::knows)
    }
}

/// Binds the calling thread to a machine until dropped.
#[derive(Debug)]
#[must_use = "the thread is bound only as long as this lives"]
pub struct Binding {
    /// The machine that the thread was bound to before.
    machine: Option<u32>,
    /// The contexts that were current before.
    contexts: Vec<Name>,
    not_send: PhantomData<*const ()>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        let thread = Thread::current();
        thread.bound.set(self.machine);
        thread.contexts.replace(std::mem::take(&mut self.contexts));
    }
}

/// Returns whether the driver API has a call of this name, without a version suffix: those that
/// [`Simulator::calls`] and [`Simulator::fail`] take.
pub fn has_call(name: &str) -> bool {
    abi::knows(name)
}

/// The address of the entry point `name` with the signature it has had since CUDA `version`,
/// or null where there is no such signature, or none yet in the driver of the machine that the
/// calling thread talks to, see [`Config::version`].
pub fn entry_point(name: &str, version: u32) -> *mut c_void {
    let has_it =
        Machine::current(abi::knows).is_some_and(|machine| version <= machine.config.version);
    if has_it { abi::exactly(name, version) } else { ptr::null_mut() }
}
