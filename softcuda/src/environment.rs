//! The environment variables `SOFTCUDA_*` and their values.
//!
//! An unknown variable or value is an error and never ignored: a test with a misspelt fault or
//! check would pass.

use core::fmt;
use std::error::Error;
use std::ffi::OsString;
use std::time::Duration;

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUdevice_attribute, CUresult};

use crate::config::{Checks, Config, Fault, Grace, Schedule};

/// An unknown variable `SOFTCUDA_*`, or an invalid value of one.
///
/// It reads, for example, `SOFTCUDA_SCHEDULE=sometimes is invalid: the variable takes async, eager,
/// late or random:SEED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `SOFTCUDA_FAIL=cuNoSuchCall@1=2`, or the name alone where there is no such variable.
    what: String,
    why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is invalid: {}", self.what, self.why)
    }
}

impl Error for ConfigError {}

/// A variable: its name, the values that it takes, and how a value changes the configuration.
struct Variable {
    name: &'static str,
    takes: &'static str,
    apply: fn(&mut Config, &str) -> Option<()>,
}

/// Whether the driver API has a call of this name.
pub(crate) type Knows = fn(&str) -> bool;

/// The prefix of all names.
const PREFIX: &str = "SOFTCUDA_";

/// Lists the variables: name, field of [`Config`], parser of a value, values.
macro_rules! variables {
    ($($name:literal $field:ident $parse:ident $takes:expr;)+) => {
        const VARIABLES: &[Variable] = &[$(Variable {
            name: $name,
            takes: $takes,
            apply: |config, value| {
                config.$field = $parse(value)?;
                Some(())
            },
        },)+];
    };
}

variables! {
    "SOFTCUDA_SCHEDULE" schedule parse_schedule "async, eager, late or random:SEED";
    "SOFTCUDA_CHECK" checks parse_checks CHECK_NAMES;
    "SOFTCUDA_FAIL" faults parse_faults
        "CALL@N=CODE with commas: the Nth call, counted from 1, returns the CUresult CODE";
    "SOFTCUDA_DEVICES" devices parse_number "a number of devices";
    "SOFTCUDA_MEMORY" device_memory parse_bytes BYTES;
    "SOFTCUDA_HOST_MEMORY" host_memory parse_bytes BYTES;
    "SOFTCUDA_VERSION" version parse_number "1000 * major + 10 * minor, such as 13030";
    "SOFTCUDA_ATTRIBUTES" attributes parse_attributes
        "NUMBER=VALUE with commas, with numbers of CUdevice_attribute";
    "SOFTCUDA_IMEX_CHANNEL" imex_channel parse_switch SWITCH;
    "SOFTCUDA_REGISTERED_ALIAS" registered_alias parse_switch SWITCH;
    "SOFTCUDA_RECYCLE" recycle parse_choice SWITCH;
    "SOFTCUDA_LEAST_ALIGNMENT" least_alignment parse_switch SWITCH;
    "SOFTCUDA_POISON" poison parse_choice SWITCH;
    "SOFTCUDA_GRACE_MS" grace parse_grace "a number of milliseconds, or never";
    "SOFTCUDA_COUNTERS" print_counters parse_switch SWITCH;
}

const BYTES: &str = "a number of bytes, or one with K, M, G or T";
const SWITCH: &str = "1 or 0";
const CHECK_NAMES: &str = "source-stable, poison, bounds, use-after-free, peer-access, overlap, \
                           value-order, race, leaks with commas, or all";

/// The field of a check.
type Field = fn(&mut Checks) -> &mut bool;

/// The checks by name.
const CHECKS: &[(&str, Field)] = &[
    ("source-stable", |checks| &mut checks.source_stable),
    ("poison", |checks| &mut checks.poison),
    ("bounds", |checks| &mut checks.bounds),
    ("use-after-free", |checks| &mut checks.use_after_free),
    ("peer-access", |checks| &mut checks.peer_access),
    ("overlap", |checks| &mut checks.overlap),
    ("value-order", |checks| &mut checks.value_order),
    ("race", |checks| &mut checks.race),
    ("leaks", |checks| &mut checks.leaks),
];

/// The configuration that the variables among `environment` describe.
pub(crate) fn read(
    environment: impl Iterator<Item = (OsString, OsString)>,
    knows: Knows,
) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name) else {
            let names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
            let why = format!("there is no such variable; the variables are {}", names.join(", "));
            return Err(ConfigError { what: name.to_owned(), why });
        };
        // No variable has a value that is not UTF-8.
        let applied = value.to_str().and_then(|value| (variable.apply)(&mut config, value));
        let checked = match applied {
            None => Err(format!("the variable takes {}", variable.takes)),
            Some(()) => config.faults.iter().try_for_each(|fault| check_fault(fault, knows)),
        };
        checked.map_err(|why| {
            let what = format!("{name}={}", value.to_string_lossy());
            ConfigError { what, why }
        })?;
    }
    Ok(config)
}

fn parse_number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn parse_schedule(text: &str) -> Option<Schedule> {
    match text {
        "async" => Some(Schedule::Async),
        "eager" => Some(Schedule::Eager),
        "late" => Some(Schedule::Late),
        _ => text.strip_prefix("random:")?.parse().ok().map(Schedule::Random),
    }
}

fn parse_checks(text: &str) -> Option<Checks> {
    let mut checks = Checks::default();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        if name == "all" {
            checks = Checks::ALL;
        } else {
            let (_, field) = CHECKS.iter().find(|(known, _)| *known == name)?;
            *field(&mut checks) = true;
        }
    }
    Some(checks)
}

/// `cuMemHostAlloc@3=2,cuGraphLaunch@1=700`
fn parse_faults(text: &str) -> Option<Vec<Fault>> {
    text.split(',').filter(|item| !item.is_empty()).map(parse_fault).collect()
}

fn parse_fault(item: &str) -> Option<Fault> {
    let (call, rest) = item.split_once('@')?;
    let (nth, code) = rest.split_once('=')?;
    let code = CudaError::new(CUresult(code.parse().ok()?))?;
    Some(Fault { call: call.to_owned(), nth: nth.parse().ok()?, code })
}

/// Refuses a fault that can never happen, or whose code is no result of the driver API.
pub(crate) fn check_fault(fault: &Fault, knows: Knows) -> Result<(), String> {
    let Fault { call, nth, code } = fault;
    check_call(call, knows)?;
    if *nth == 0 {
        return Err(format!("the calls of {call} are counted from 1"));
    }
    if code.name().is_none() {
        return Err(format!("{} is no CUresult", code.code()));
    }
    Ok(())
}

/// Refuses the name of a call that does not exist.
pub(crate) fn check_call(call: &str, knows: Knows) -> Result<(), String> {
    if knows(call) {
        Ok(())
    } else {
        Err(format!("there is no call {call}; calls are named without a version suffix"))
    }
}

/// `8G`, `512M`, `64K` or a number of bytes.
fn parse_bytes(text: &str) -> Option<u64> {
    let shift = match text.as_bytes().last()? {
        b'K' | b'k' => 10,
        b'M' | b'm' => 20,
        b'G' | b'g' => 30,
        b'T' | b't' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `18=1,102=0`: attribute numbers of the driver API and their values.
fn parse_attributes(text: &str) -> Option<Vec<(CUdevice_attribute, i32)>> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (number, value) = item.split_once('=')?;
            let attribute = CUdevice_attribute(number.parse().ok()?);
            crate::attributes::is_known(attribute).then_some(())?;
            Some((attribute, value.parse().ok()?))
        })
        .collect()
}

fn parse_grace(text: &str) -> Option<Grace> {
    match text {
        "never" => Some(Grace::Never),
        _ => Some(Grace::After(Duration::from_millis(text.parse().ok()?))),
    }
}

/// A switch that overrides what the schedule selects.
fn parse_choice(text: &str) -> Option<Option<bool>> {
    parse_switch(text).map(Some)
}

fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "on" | "true" => Some(true),
        "0" | "off" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for the list of entry points, which is above this module.
    fn knows(call: &str) -> bool {
        ["cuInit", "cuMemAlloc", "cuMemHostAlloc", "cuGraphLaunch"].contains(&call)
    }

    fn read_one(name: &str, value: &str) -> Result<Config, String> {
        let variables = [("PATH".into(), "/bin".into()), (name.into(), value.into())];
        read(variables.into_iter(), knows).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_forms_are_understood() {
        assert_eq!(parse_schedule("random:7"), Some(Schedule::Random(7)));
        assert_eq!(parse_schedule("sometimes"), None);
        assert_eq!(parse_checks("all"), Some(Checks::ALL));
        assert!(parse_checks("bounds,poison").is_some_and(|c| c.bounds && c.poison && !c.leaks));
        assert_eq!(parse_bytes("2G"), Some(2 << 30));
        assert_eq!(parse_bytes("12"), Some(12));
        assert_eq!(parse_bytes("G"), None);
        let faults = parse_faults("cuMemHostAlloc@3=2,cuGraphLaunch@1=700").unwrap();
        assert_eq!(faults[1].code, CudaError::ILLEGAL_ADDRESS);
        assert_eq!(parse_faults("cuMemHostAlloc=2"), None);
        assert_eq!(parse_attributes("102=0"), Some(vec![(CUdevice_attribute(102), 0)]));
    }

    #[test]
    fn a_variable_that_does_not_exist_is_an_error_that_names_those_that_do() {
        let error = read_one("SOFTCUDA_SHEDULE", "late").unwrap_err();
        assert!(
            error.starts_with("SOFTCUDA_SHEDULE is invalid: there is no such variable"),
            "{error}"
        );
        assert!(error.contains("the variables are SOFTCUDA_SCHEDULE, SOFTCUDA_CHECK, "), "{error}");
        assert_eq!(
            read_one("SOFTCUDA_GRACE_MS", "7").unwrap().grace,
            Grace::After(Duration::from_millis(7))
        );
        assert!(read_one("OTHER_SOFTCUDA_SHEDULE", "late").is_ok());
    }

    #[test]
    fn a_value_that_is_not_understood_is_an_error_that_says_what_the_variable_takes() {
        for (variable, value) in [
            ("SOFTCUDA_SCHEDULE", "random"),
            ("SOFTCUDA_CHECK", "bounds,races"),
            ("SOFTCUDA_DEVICES", "-1"),
            ("SOFTCUDA_MEMORY", "12Q"),
            ("SOFTCUDA_HOST_MEMORY", "99999999999999999999"),
            ("SOFTCUDA_VERSION", "13.3"),
            ("SOFTCUDA_ATTRIBUTES", "102"),
            ("SOFTCUDA_ATTRIBUTES", "4711=1"),
            ("SOFTCUDA_ATTRIBUTES", "0=1"),
            ("SOFTCUDA_REGISTERED_ALIAS", "yes"),
            ("SOFTCUDA_RECYCLE", "2"),
            ("SOFTCUDA_GRACE_MS", "1.5"),
            ("SOFTCUDA_COUNTERS", ""),
            ("SOFTCUDA_FAIL", "cuMemAlloc"),
            ("SOFTCUDA_FAIL", "cuMemAlloc@x=2"),
        ] {
            let error = read_one(variable, value).unwrap_err();
            let expected = format!("{variable}={value} is invalid: the variable takes ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_fault_that_could_never_happen_is_an_error_that_says_why() {
        for (value, why) in [
            ("cuNoSuchCall@1=2", "there is no call cuNoSuchCall"),
            ("cuMemAlloc_v2@1=2", "there is no call cuMemAlloc_v2"),
            ("cuInit@1=2,cuMemAlloc@0=2", "the calls of cuMemAlloc are counted from 1"),
            ("cuMemAlloc@1=12345", "12345 is no CUresult"),
        ] {
            let error = read_one("SOFTCUDA_FAIL", value).unwrap_err();
            assert!(
                error.starts_with(&format!("SOFTCUDA_FAIL={value} is invalid: {why}")),
                "{error}"
            );
        }
    }
}
