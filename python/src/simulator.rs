//! Machines without a GPU, for tests.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use softcuda::{Config, has_call};
use wharf::sys::bindings::CUresult;
use wharf::{CudaError, Driver};

use crate::device::Device;
use crate::error::{OrRaise, class, invalid};
use crate::held::Machine;

/// A machine with a software CUDA driver in this process, for tests without a GPU.
///
/// `Simulator(schedule="late", check="all")`: the keyword arguments are softcuda's variables
/// without their prefix, in lower case. `schedule` is when operations run: `"async"`, `"eager"`,
/// `"late"` (as late as the documentation allows) or `"random:SEED"`. `check` names checks, or is
/// `"all"`; what they find is in `violations`. `devices`, `memory` and others shape the machine.
/// Machines are independent of each other, and of a `libcuda.so.1` that other libraries have
/// loaded.
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct Simulator {
    simulator: Arc<softcuda::Simulator>,
    driver: Driver,
    machine: Machine,
}

#[pymethods]
impl Simulator {
    #[new]
    #[pyo3(signature = (**configuration))]
    fn new(py: Python<'_>, configuration: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let variables = configuration.into_iter().flatten().map(variable);
        let variables: Vec<_> = variables.collect::<PyResult<_>>()?;
        let config = Config::from_variables(variables);
        let config =
            config.map_err(|error| class::ConfigurationError::new_err(error.to_string()))?;
        let simulator = Arc::new(softcuda::Simulator::new(config));
        let machine = Machine::simulated(Arc::clone(&simulator));
        let started = machine.run(py, || simulator.api().and_then(Driver::from_api));
        Ok(Self { simulator, driver: started.or_raise()?, machine })
    }

    /// A device of the machine.
    #[pyo3(signature = (ordinal = 0))]
    fn device(&self, py: Python<'_>, ordinal: i32) -> PyResult<Device> {
        self.machine.run(py, || Device::open(ordinal, &self.driver, &self.machine))
    }

    /// What the checks have found so far.
    #[getter]
    fn violations(&self) -> Vec<Violation> {
        let found = self.simulator.violations().into_iter();
        found
            .map(|violation| Violation {
                text: violation.to_string(),
                check: violation.check.to_string(),
                call: violation.call,
            })
            .collect()
    }

    /// The driver's objects that are alive, a line each.
    #[getter]
    fn leaks(&self) -> Vec<String> {
        self.simulator.leaks()
    }

    /// How often an entry point of the driver was called, by its name such as `"cuGraphLaunch"`.
    fn calls(&self, call: &str) -> PyResult<u64> {
        known(call)?;
        Ok(self.simulator.calls(call))
    }

    /// Lets the `nth` call of an entry point from now on fail with the result `code`.
    fn fail(&self, call: &str, nth: u64, code: u32) -> PyResult<()> {
        known(call)?;
        let result = CudaError::new(CUresult(code)).filter(|code| code.name().is_some());
        let result = result.ok_or_else(|| invalid(format!("{code} is no CUresult of an error")))?;
        if nth == 0 {
            return Err(invalid("calls are counted from 1"));
        }
        self.simulator.fail(call, nth, result);
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("Simulator({} violations)", self.simulator.violations().len())
    }
}

/// An error of the program that a GPU would not report.
#[pyclass(frozen, get_all, module = "wharf")]
pub(crate) struct Violation {
    /// The check that found it.
    check: String,
    /// The driver's call that enqueued the operation.
    call: &'static str,
    /// What happened.
    text: String,
}

#[pymethods]
impl Violation {
    fn __repr__(&self) -> String {
        format!("Violation({self})")
    }

    fn __str__(&self) -> String {
        self.text.clone()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn known(call: &str) -> PyResult<()> {
    if has_call(call) {
        return Ok(());
    }
    Err(invalid(format!("the driver API has no call {call:?} (names have no version suffix)")))
}

/// A keyword argument as softcuda's variable.
fn variable((name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)) -> PyResult<(OsString, OsString)> {
    let name = format!("SOFTCUDA_{}", name.extract::<String>()?.to_uppercase());
    // `True` and `False` are its `true` and `false`.
    let is_truth = value.is_instance_of::<pyo3::types::PyBool>();
    let text = value.str()?.extract::<String>()?;
    let text = if is_truth { text.to_lowercase() } else { text };
    Ok((name.into(), text.into()))
}
