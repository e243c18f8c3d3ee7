#![expect(unsafe_code, reason = "takes the software driver's functions; registers an exit handler")]
//! The drivers that a test runs on.

use std::cell::RefCell;
use std::env;
use std::io::Write;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::thread;

/// Here under a name that the module `softcuda` of stamped tests does not hide.
pub(crate) use softcuda::Config;
use softcuda::{Binding, Check, Schedule};
use wharf::{Driver, LoadError};

/// Stamps each test, a function of `&Driver`, for the software driver and for the system's.
macro_rules! on_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod softcuda {
            $(#[test]
            fn $test() {
                $crate::backend::on_softcuda(super::$test);
            })+
        }

        mod system {
            $(#[test]
            fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                $crate::backend::on_system(name, super::$test);
            })+
        }
    };
}
pub(crate) use on_each_driver;

/// A machine that looks for races, and whose handles and addresses come back under every schedule:
/// a test that has a race fails when the machine goes.
#[derive(Debug)]
pub(crate) struct Simulator(softcuda::Simulator);

impl Simulator {
    pub(crate) fn new(mut config: Config) -> Self {
        config.checks.race = true;
        config.recycle.get_or_insert(true);
        Self(softcuda::Simulator::new(config))
    }
}

impl Deref for Simulator {
    type Target = softcuda::Simulator;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let races =
            self.violations().into_iter().filter(|violation| violation.check == Check::Race);
        let races: Vec<_> = races.map(|race| race.to_string()).collect();
        assert!(races.is_empty(), "accesses that nothing orders:\n{}", races.join("\n"));
    }
}

/// Runs `test` on a new machine under each schedule, and with the oldest driver there may be, and
/// sees that it leaves nothing behind.
pub(crate) fn on_softcuda(test: fn(&Driver)) {
    let newest = Config::default().version;
    let schedules = [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(1)];
    for (schedule, version) in
        schedules.map(|schedule| (schedule, newest)).into_iter().chain([OLDEST])
    {
        let machine = Arc::new(Simulator::new(Config { schedule, version, ..Config::default() }));
        on_machine(&machine, test);
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{schedule:?}, driver {version}");
    }
}

/// A driver of CUDA 11.4, the first that loads.
const OLDEST: (Schedule, u32) = (Schedule::Async, 11_040);

/// Runs `test` with a driver of `machine`, to which the thread is bound meanwhile.
pub(crate) fn on_machine<R>(machine: &Arc<Simulator>, test: impl FnOnce(&Driver) -> R) -> R {
    let _bound = machine.bind();
    MACHINE.set(Some(Arc::clone(machine)));
    let _forgets = Forgets;
    test(&softcuda_driver().unwrap())
}

/// Takes the thread's machine away, also where the test panics: that of a thread that is over would
/// not know of the panic.
struct Forgets;

impl Drop for Forgets {
    fn drop(&mut self) {
        MACHINE.set(None);
    }
}

/// What a thread that a test starts calls first: it binds that thread to the machine of this one,
/// if the test runs on one.
pub(crate) fn binder() -> impl Fn() -> Option<Binding> + Clone + Send + Sync {
    let machine = machine();
    move || machine.as_ref().map(|machine| machine.bind())
}

/// The machine of this thread's test, if it runs on one.
pub(crate) fn machine() -> Option<Arc<Simulator>> {
    MACHINE.with_borrow(Clone::clone)
}

thread_local! {
    static MACHINE: RefCell<Option<Arc<Simulator>>> = const { RefCell::new(None) };
}

/// The driver of the machine that the thread is bound to.
pub(crate) fn softcuda_driver() -> Result<Driver, LoadError> {
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }
}

/// Runs `test` on the system's driver, or counts it as skipped where there is none.
pub(crate) fn on_system(name: &'static str, test: fn(&Driver)) {
    let required = env::var_os("WHARF_REQUIRE_GPU").is_some_and(|value| value == "1")
        || env::var_os("WHARF_LIBCUDA").is_some();
    match Driver::load() {
        Ok(driver) => test(&driver),
        Err(error) => match verdict(&error, required) {
            Verdict::Skip => skip(name, &error),
            Verdict::Fail => panic!("{name}: {error}"),
        },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Skip,
    Fail,
}

/// Only an absent library or device is a reason to skip, and only where none was asked for.
fn verdict(error: &LoadError, required: bool) -> Verdict {
    match error {
        LoadError::Library { .. } | LoadError::NoDevice if !required => Verdict::Skip,
        _ => Verdict::Fail,
    }
}

/// Takes note of a skipped test; the process prints the count when it ends.
fn skip(name: &'static str, reason: &LoadError) {
    let mut skipped = SKIPPED.lock().unwrap();
    if skipped.is_empty() {
        // SAFETY: the handler is a function without arguments that lives for ever.
        let registered = unsafe { libc::atexit(print_skipped) };
        assert_eq!(registered, 0, "the skipped tests cannot be printed");
    }
    skipped.push((name, reason.to_string()));
}

static SKIPPED: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

/// Writes past the test harness, which keeps what passing tests print.
extern "C" fn print_skipped() {
    let Ok(skipped) = SKIPPED.lock() else { return };
    let Some((first, reason)) = skipped.first() else { return };
    let (count, error) = (skipped.len(), std::io::stderr());
    let _closed = writeln!(&error, "{count} tests skipped, the first {first}: {reason}");
}

#[test]
fn only_an_absent_driver_or_device_is_skipped() {
    let absent = LoadError::Library { name: "libcuda.so".into(), source: "no such file".into() };
    assert_eq!(verdict(&absent, false), Verdict::Skip);
    assert_eq!(verdict(&LoadError::NoDevice, false), Verdict::Skip);
    let old = LoadError::TooOld { found: 10_000, needed: 11_040 };
    assert_eq!(verdict(&old, false), Verdict::Fail);
    assert_eq!(
        verdict(&LoadError::Missing { call: "cuInit", introduced: 2000 }, false),
        Verdict::Fail
    );
}

#[test]
fn nothing_is_skipped_where_a_device_is_required() {
    let absent = LoadError::Library { name: "libcuda.so".into(), source: "no such file".into() };
    assert_eq!(verdict(&absent, true), Verdict::Fail);
    assert_eq!(verdict(&LoadError::NoDevice, true), Verdict::Fail);
}
