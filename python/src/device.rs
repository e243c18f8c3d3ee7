//! Devices.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use pyo3::prelude::*;
use wharf::driver::CaptureElsewhere;
use wharf::{Context, Driver};

use crate::error::{OrRaise, Raise, invalid};
use crate::held::{Held, Machine};
use crate::stream;

/// A device, with its primary context.
///
/// `Device(ordinal=0)` is one of the system's driver: `libcuda.so.1`, or the library that the
/// environment variable `WHARF_LIBCUDA` names. `Simulator.device` gives one without a GPU. Objects
/// of the same device share its context, which is released with the last thing that was made of it.
#[pyclass(frozen, eq, hash, module = "wharf")]
#[derive(Clone)]
pub(crate) struct Device(Arc<Shared>);

/// A device's context, held by all that was made of it.
pub(crate) type Shared = Held<Context>;

impl Device {
    pub(crate) fn open(ordinal: i32, driver: &Driver, machine: &Machine) -> PyResult<Self> {
        let context = driver.device(ordinal).and_then(|device| Context::retain(&device));
        Ok(Self(Arc::new(Held::new(context.or_raise()?, machine))))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

#[pymethods]
impl Device {
    #[new]
    #[pyo3(signature = (ordinal = 0))]
    fn new(py: Python<'_>, ordinal: i32) -> PyResult<Self> {
        py.detach(|| {
            let mut devices = lock(&SYSTEM);
            if let Some(shared) = devices.get(&ordinal).and_then(Weak::upgrade) {
                return Ok(Self(shared));
            }
            let device = Self::open(ordinal, driver()?, &Machine::default())?;
            devices.insert(ordinal, Arc::downgrade(&device.0));
            Ok(device)
        })
    }

    /// The device's number.
    #[getter]
    fn ordinal(&self) -> i32 {
        self.0.device().ordinal()
    }

    /// The device's name, as the driver has it.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        self.0.machine().run(py, || self.0.device().name()).or_raise()
    }

    /// The driver's handle of the primary context, as a number.
    #[getter]
    fn context(&self) -> usize {
        self.0.as_raw().addr()
    }

    /// How many errors the drops of this device's objects have met. Each left something
    /// undestroyed.
    #[getter]
    fn drop_errors(&self) -> u64 {
        self.0.drop_errors()
    }

    /// Waits for all work of the device's primary context.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        self.0.machine().run(py, || self.0.synchronize()).or_raise()
    }

    /// Forgets a stream that its owner is about to destroy; returns whether it was known.
    ///
    /// To be called before a stream is destroyed that was passed as a number, or that is closed
    /// while Python still holds its object: a driver gives its handle to the next stream.
    fn forget_stream(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<bool> {
        let raw = stream::raw_of(stream)?;
        self.0.machine().run(py, || self.0.forget_stream(raw.as_stream())).or_raise()
    }

    /// Announces that other code captures streams, until the result is closed: a context manager.
    ///
    /// Staging then asks each stream whether it is being captured, and refuses those that are.
    fn capture_elsewhere(&self) -> Captures {
        Captures(Mutex::new(Some(self.0.driver().capture_elsewhere())))
    }

    /// Drops what destroyed graphs kept alive, and waits until no graph keeps anything alive.
    ///
    /// Raises `WaitTimeoutError` after `timeout` seconds.
    #[pyo3(signature = (timeout = 10.0))]
    fn wait_deferred(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let limit = seconds(timeout)?;
        self.0.machine().run(py, || self.0.driver().wait_deferred(limit)).or_raise()
    }

    fn __repr__(&self) -> String {
        format!("Device({})", self.ordinal())
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::hash::Hash for Device {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}

/// An announcement that other code captures streams.
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct Captures(Mutex<Option<CaptureElsewhere>>);

#[pymethods]
impl Captures {
    /// Ends the announcement.
    fn close(&self) {
        drop(lock(&self.0).take());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyAny>) {
        self.close();
    }
}

/// A time in seconds, as Python passes it.
pub(crate) fn seconds(timeout: f64) -> PyResult<Duration> {
    // What exceeds the type is for ever; negative numbers and NaN are errors.
    if timeout == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(timeout)
        .map_err(|error| invalid(format!("{timeout:?} is no number of seconds: {error}")))
}

/// A lock that a panic elsewhere does not poison: no invariant spans a panic here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's driver. It stays loaded for the life of the process.
fn driver() -> PyResult<&'static Driver> {
    if let Some(driver) = DRIVER.get() {
        return Ok(driver);
    }
    let loaded = Driver::load().map_err(Raise::raise)?;
    Ok(DRIVER.get_or_init(|| loaded))
}

static DRIVER: OnceLock<Driver> = OnceLock::new();

/// The devices of the system's driver that are in use.
static SYSTEM: LazyLock<Mutex<HashMap<i32, Weak<Shared>>>> = LazyLock::new(Mutex::default);
