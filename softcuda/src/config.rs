//! The configuration of a machine.

use std::time::Duration;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUdevice_attribute;

/// When operations run, within what the documentation allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// As soon as their dependencies are complete, on engine threads, as on a GPU.
    #[default]
    Async,
    /// Before the call that enqueues them returns, unless a host function or a value in memory
    /// blocks them.
    Eager,
    /// As late as allowed: when a call waits for them or for later work, when queries ask for
    /// them, or after [`Config::grace`]. Finds sources and memory that are reused too early.
    Late,
    /// In any order that the dependencies allow, drawn from this seed. Finds missing dependencies;
    /// one seed gives one order to a single-threaded program.
    Random(u64),
}

/// When an operation runs under [`Schedule::Late`] and [`Schedule::Random`] though no call waits
/// for it or asks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grace {
    /// This long after the call that enqueued it, so that programs which poll memory make progress.
    After(Duration),
    /// Never: which operations have run depends on the program's calls alone, and not on time. A
    /// program that polls memory without calling the driver waits for ever.
    Never,
}

/// Checks that report errors which a GPU does not report.
///
/// A violation is a line on the standard error stream and an entry of
/// [`Simulator::violations`](crate::Simulator::violations); the program goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checks {
    /// Pinned sources of copies that change between the call (for a graph, the launch) and its
    /// execution: a buffer was reused too early.
    pub source_stable: bool,
    /// Fills memory with patterns when it is allocated and when it is freed, so that reads of
    /// uninitialised or freed memory give wrong results. Reports no violation.
    pub poison: bool,
    /// Ranges of copies and fills that are partly outside their allocation. The call returns
    /// `CUDA_ERROR_INVALID_VALUE` with or without the check.
    pub bounds: bool,
    /// Operations on memory that was freed after they were enqueued.
    pub use_after_free: bool,
    /// Operations on memory that their device has no access to. The call returns
    /// `CUDA_ERROR_INVALID_VALUE` with or without the check.
    pub peer_access: bool,
    /// Copies whose source and destination overlap, which a device copies in any order.
    pub overlap: bool,
    /// Waits for a value in memory that another stream writes, with no event between the two: the
    /// driver may run them in the wrong order, which is a deadlock.
    pub value_order: bool,
    /// Objects that are not destroyed before the machine ends.
    pub leaks: bool,
    /// Data races: accesses of the same bytes, one of them a write, that no stream, event, graph or
    /// wait of the host orders.
    pub race: bool,
}

impl Checks {
    /// Every check.
    pub const ALL: Self = Self {
        source_stable: true,
        poison: true,
        bounds: true,
        use_after_free: true,
        peer_access: true,
        overlap: true,
        value_order: true,
        leaks: true,
        race: true,
    };
}

/// A fault to inject: the `nth` call of `call` (counted from 1) returns `code` and does nothing
/// else. The call and the code must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The entry point's name without a version suffix, such as `cuMemAlloc`.
    pub call: String,
    /// The number of the call, counted from 1.
    pub nth: u64,
    /// The result of that call.
    pub code: CudaError,
}

/// The hardware and the behaviour of a machine.
///
/// [`Config::from_environment`] reads it from the variables `SOFTCUDA_*`.
///
/// # Examples
///
/// ```
/// use softcuda::{Checks, Config, Schedule};
///
/// let config = Config { schedule: Schedule::Late, checks: Checks::ALL, ..Config::default() };
/// assert_eq!(config.devices, 1);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// When operations run, within what the driver API allows.
    pub schedule: Schedule,
    /// The checks to make.
    pub checks: Checks,
    /// Faults to inject from the start.
    pub faults: Vec<Fault>,
    /// The number of devices.
    pub devices: u32,
    /// Memory of each device, in bytes.
    pub device_memory: u64,
    /// Host memory that can be pinned, in bytes.
    pub host_memory: u64,
    /// The driver's version, as 1000 * major + 10 * minor. Entry points of later versions are
    /// absent.
    pub version: u32,
    /// Device attributes that differ from those of the built-in device of compute capability 9.0,
    /// to test code for devices without a feature.
    pub attributes: Vec<(CUdevice_attribute, i32)>,
    /// Whether the process has an IMEX channel, without which a driver refuses memory with fabric
    /// handles though the device advertises them
    /// (`CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED`, which the built-in device does not).
    pub imex_channel: bool,
    /// Registered host memory has other addresses on the device than on the host, as on systems
    /// without `CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM`.
    pub registered_alias: bool,
    /// When an operation runs under [`Schedule::Late`] and [`Schedule::Random`] though no call asks
    /// for it.
    pub grace: Grace,
    /// Handles of destroyed objects and addresses of freed memory are reused at once, as drivers
    /// may do: finds objects that are known by their handle alone. Unset: under
    /// [`Schedule::Late`] and [`Schedule::Random`].
    pub recycle: Option<bool>,
    /// Device memory is aligned to 256 bytes and no more, which is all that a driver promises.
    /// Unset, it begins at a page.
    pub least_alignment: bool,
    /// Fills memory with `A5` when it is allocated and with `5A` when it is freed, up to 64 MiB a
    /// block. Unset: under [`Schedule::Late`] and [`Schedule::Random`], and with
    /// [`Checks::poison`].
    pub poison: Option<bool>,
    /// Prints violations on the standard error stream as they happen.
    pub print_violations: bool,
    /// Prints the number of calls of each entry point and the bytes copied on the standard error
    /// stream when the machine or the process ends.
    pub print_counters: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schedule: Schedule::Async,
            checks: Checks::default(),
            faults: Vec::new(),
            devices: 1,
            device_memory: 16 << 30,
            host_memory: 64 << 30,
            version: 13_030,
            attributes: Vec::new(),
            imex_channel: false,
            registered_alias: false,
            grace: Grace::After(Duration::from_millis(20)),
            recycle: None,
            least_alignment: false,
            poison: None,
            print_violations: true,
            print_counters: false,
        }
    }
}

impl Config {
    /// Whether handles and addresses come back, see [`Config::recycle`].
    pub(crate) fn recycles(&self) -> bool {
        self.recycle.unwrap_or(self.is_unkind())
    }

    /// Whether memory holds patterns, see [`Config::poison`].
    pub(crate) fn poisons(&self) -> bool {
        self.poison.unwrap_or(self.checks.poison || self.is_unkind())
    }

    /// Whether the schedule is one that uses the freedom which the documentation leaves.
    pub(crate) fn is_unkind(&self) -> bool {
        matches!(self.schedule, Schedule::Late | Schedule::Random(_))
    }
}
