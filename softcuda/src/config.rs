//! What a machine looks like and how it behaves: in-process or from the environment.

use std::env;
use std::time::Duration;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUdevice_attribute;

/// When operations run, within what the documentation allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// As soon as they may, on engine threads: what a GPU does.
    #[default]
    Async,
    /// Before the call that enqueues them returns, where nothing blocks them.
    Eager,
    /// Not before somebody waits for them or for something behind them, or asks about it
    /// repeatedly, or [`Config::grace`] has passed.
    Late,
    /// In any order that the dependencies allow, drawn from this seed.
    Random(u64),
}

/// Checks that report what a GPU would silently get wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checks {
    /// A host source that changes between the call and its execution.
    pub source_stable: bool,
    /// Fill memory with a pattern when it is allocated and when it is freed.
    pub poison: bool,
    /// A copy or fill that leaves its allocation.
    pub bounds: bool,
    /// An operation on memory that was freed after it was enqueued.
    pub use_after_free: bool,
    /// Objects that are alive when the machine ends.
    pub leaks: bool,
}

impl Checks {
    /// Every check.
    pub const ALL: Self =
        Self { source_stable: true, poison: true, bounds: true, use_after_free: true, leaks: true };
}

/// A fault to inject: the `nth` call of `call` (counted from 1) returns `code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The entry point's name without a version suffix, such as `cuMemAlloc`.
    pub call: String,
    /// Which call, counted from 1.
    pub nth: u64,
    /// What it returns.
    pub code: CudaError,
}

/// A machine's shape and behaviour.
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
    /// When operations run.
    pub schedule: Schedule,
    /// What is checked.
    pub checks: Checks,
    /// Faults to inject from the start.
    pub faults: Vec<Fault>,
    /// The number of devices.
    pub devices: u32,
    /// Memory of each device, in bytes.
    pub device_memory: u64,
    /// Pinned memory that the host can lock, in bytes.
    pub host_memory: u64,
    /// What `cuDriverGetVersion` answers, as 1000 * major + 10 * minor. Later entry points are
    /// absent.
    pub version: u32,
    /// Device attributes that differ from the built-in ones.
    pub attributes: Vec<(CUdevice_attribute, i32)>,
    /// The device sees registered host memory at addresses of its own.
    pub registered_alias: bool,
    /// After how long an operation runs under [`Schedule::Late`] and [`Schedule::Random`] though
    /// nobody asks for it: what a program that polls memory relies on.
    pub grace: Duration,
    /// Print violations on the standard error stream as they happen.
    pub print_violations: bool,
    /// Print the call counters on the standard error stream at process exit.
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
            registered_alias: false,
            grace: Duration::from_millis(20),
            print_violations: true,
            print_counters: false,
        }
    }
}

impl Config {
    /// Reads the variables that `README.md` lists; an unset or malformed one keeps its default,
    /// a malformed one with a line on the standard error stream.
    pub fn from_environment() -> Self {
        let mut config = Self::default();
        let mut set = |name: &str, apply: &mut dyn FnMut(&mut Self, &str) -> Option<()>| {
            if let Ok(value) = env::var(name)
                && apply(&mut config, &value).is_none()
            {
                crate::report::line(&format!("{name}={value} is not understood and has no effect"));
            }
        };
        set("SOFTCUDA_SCHEDULE", &mut |c, v| parse_schedule(v).map(|s| c.schedule = s));
        set("SOFTCUDA_CHECK", &mut |c, v| parse_checks(v).map(|s| c.checks = s));
        set("SOFTCUDA_FAIL", &mut |c, v| parse_faults(v).map(|s| c.faults = s));
        set("SOFTCUDA_DEVICES", &mut |c, v| v.parse().ok().map(|n| c.devices = n));
        set("SOFTCUDA_MEMORY", &mut |c, v| parse_bytes(v).map(|n| c.device_memory = n));
        set("SOFTCUDA_HOST_MEMORY", &mut |c, v| parse_bytes(v).map(|n| c.host_memory = n));
        set("SOFTCUDA_VERSION", &mut |c, v| v.parse().ok().map(|n| c.version = n));
        set("SOFTCUDA_ATTRIBUTES", &mut |c, v| parse_attributes(v).map(|a| c.attributes = a));
        set("SOFTCUDA_REGISTERED_ALIAS", &mut |c, v| parse_switch(v).map(|b| c.registered_alias = b));
        set("SOFTCUDA_GRACE_MS", &mut |c, v| v.parse().ok().map(|n| c.grace = Duration::from_millis(n)));
        set("SOFTCUDA_COUNTERS", &mut |c, v| parse_switch(v).map(|b| c.print_counters = b));
        config
    }
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
        match name {
            "all" => checks = Checks::ALL,
            "source-stable" => checks.source_stable = true,
            "poison" => checks.poison = true,
            "bounds" => checks.bounds = true,
            "use-after-free" => checks.use_after_free = true,
            "leaks" => checks.leaks = true,
            _ => return None,
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
    let code = CudaError::new(wharf_sys::bindings::CUresult(code.parse().ok()?))?;
    Some(Fault { call: call.to_owned(), nth: nth.parse().ok()?, code })
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
            Some((CUdevice_attribute(number.parse().ok()?), value.parse().ok()?))
        })
        .collect()
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
}
