#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Every row of the table fails once.
//!
//! An exercise is a row's shortest valid use, through wharf's own call where there is one. It runs
//! twice, on a machine of its own each time: once undisturbed, which shows that it is valid and
//! reaches the row, and once with the row's first call failing, which must come out as an `Err`
//! that names the entry point and the code, with nothing left behind.

mod copy;
mod device;
mod exec;
mod graph;
mod memory;
mod node;
mod stream;

use core::ffi::c_void;
use core::ptr;
use std::thread;

use wharf::driver::{DeviceAttribute, EventKind};
use wharf::sys::bindings::{CUdeviceptr, CUgraph, CUgraphNode, CUmemAttach_flags};
use wharf::sys::{Api, ROWS, Row};
use wharf::{Context, CudaError, Driver, Error, Event, LoadError, Stream};

use crate::backend::{Config, Simulator, softcuda_driver};

/// Calls an entry point of the world's table.
macro_rules! call {
    ($world:expr, $entry:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: handles come from guards that are alive, pointers from locals that outlive the
        // call, and sizes are those of what they point to.
        unsafe { $world.api().$entry.call($($argument),*) }
    };
}
use call;

/// A C structure of zeros.
macro_rules! zeroed {
    ($kind:ty) => {
        // SAFETY: a structure of integers, pointers and unions of them: zeros are valid.
        unsafe { core::mem::zeroed::<$kind>() }
    };
}
use zeroed;

/// The code that is injected: no exercise meets it otherwise.
const CODE: CudaError = CudaError::OPERATING_SYSTEM;

type Outcome = Result<(), Error>;

/// An entry point, its version, and a use of it.
type Exercise = (&'static str, u32, fn(&World) -> Outcome);

const GROUPS: &[&[Exercise]] = &[
    device::EXERCISES,
    memory::EXERCISES,
    copy::EXERCISES,
    stream::EXERCISES,
    graph::EXERCISES,
    node::EXERCISES,
    exec::EXERCISES,
];

#[test]
fn every_row_fails_once() {
    let failures: Vec<_> = ROWS.iter().filter_map(|row| fails_once(row).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} rows:\n{}",
        failures.len(),
        ROWS.len(),
        failures.join("\n")
    );
}

#[test]
fn no_exercise_is_left_over() {
    for (name, version, _) in GROUPS.iter().copied().flatten() {
        let row = ROWS.iter().find(|row| row.name == *name && row.version == *version);
        assert!(row.is_some(), "an exercise for {name} {version}, which is no row");
    }
}

/// Runs a row's exercise undisturbed, then with the row failing.
fn fails_once(row: &Row) -> Result<(), String> {
    let mut exercises = GROUPS.iter().copied().flatten();
    let found = exercises.find(|(name, version, _)| *name == row.name && *version == row.version);
    let outcome = match found {
        Some((_, _, exercise)) => judge(row, *exercise),
        None => Err("no exercise for row".to_owned()),
    };
    outcome.map_err(|what| format!("{} {}: {what}", row.name, row.version))
}

#[test]
fn the_software_driver_has_every_row() {
    let mut missing =
        ROWS.iter().filter(|row| softcuda::entry_point(row.name, row.version).is_null());
    assert_eq!(missing.next(), None);
}

/// What is wrong with a row, or with its exercise.
fn judge(row: &Row, exercise: fn(&World) -> Outcome) -> Result<(), String> {
    let healthy = Run::new(row, exercise, None);
    match healthy.outcome {
        Some(Ok(())) if healthy.calls > 0 => {}
        Some(Ok(())) => return Err("the exercise does not reach it".to_owned()),
        Some(Err(error)) => return Err(format!("the exercise fails by itself: {error}")),
        None => return Err("the exercise panics by itself".to_owned()),
    }
    if !healthy.leaks.is_empty() {
        return Err(format!("the exercise leaks by itself: {}", healthy.leaks.join(", ")));
    }
    let failed = Run::new(row, exercise, Some(CODE));
    match failed.outcome {
        Some(Err(Error::Driver { call, code })) if call == row.name && code == CODE => {}
        Some(other) => return Err(format!("failed, it gives {other:?}")),
        None => return Err("failed, it panics".to_owned()),
    }
    if !failed.leaks.is_empty() {
        return Err(format!("failed, it leaks: {}", failed.leaks.join(", ")));
    }
    Ok(())
}

/// The judge finds what it is there to find.
#[test]
fn bad_exercises_are_found() {
    let row = |name: &str| ROWS.iter().find(|row| row.name == name).unwrap();
    let unknown = Row { name: "cuNothing", version: 1, symbol: "cuNothing", required: false };
    let complaint = |outcome: Result<(), String>| outcome.unwrap_err();
    assert!(complaint(fails_once(&unknown)).contains("no exercise for row"));
    assert!(complaint(judge(row("cuMemAlloc"), |_| Ok(()))).contains("does not reach it"));
    assert!(
        complaint(judge(row("cuMemAlloc"), |_| panic!("on purpose"))).contains("panics by itself")
    );
    let leaky = |w: &World| {
        let _never_destroyed = w.stream()?.into_raw();
        Ok(())
    };
    assert!(complaint(judge(row("cuStreamCreate"), leaky)).contains("leaks by itself: stream"));
    let swallowing = |w: &World| w.stream().map(drop).or(Ok(()));
    assert!(
        complaint(judge(row("cuStreamCreate"), swallowing)).contains("failed, it gives Ok(())")
    );
    let leaky_when_failed = |w: &World| {
        let raw = w.stream()?.into_raw();
        call!(w, stream_synchronize(raw))?;
        call!(w, stream_destroy(raw))
    };
    assert!(
        complaint(judge(row("cuStreamSynchronize"), leaky_when_failed))
            .contains("failed, it leaks: stream")
    );
}

/// What an exercise did, on a machine and a thread of its own.
struct Run {
    /// `None`: it panicked.
    outcome: Option<Outcome>,
    calls: u64,
    leaks: Vec<String>,
}

impl Run {
    fn new(row: &Row, exercise: fn(&World) -> Outcome, fault: Option<CudaError>) -> Self {
        // What the built-in device does not advertise.
        let attributes = vec![(DeviceAttribute::DMA_BUF_SUPPORTED.as_raw(), 1)];
        let machine = Simulator::new(Config { devices: 2, attributes, ..Config::default() });
        if let Some(code) = fault {
            machine.fail(row.name, 1, code);
        }
        let run = || {
            let _bound = machine.bind();
            World::run(exercise, &machine)
        };
        let result = thread::scope(|scope| scope.spawn(run).join());
        let (outcome, mut leaks) = match result {
            Ok((outcome, leaks)) => (Some(outcome), leaks),
            Err(_panic) => (None, Vec::new()),
        };
        leaks.extend(machine.leaks());
        Self { outcome, calls: machine.calls(row.name), leaks }
    }
}

/// What exercises start from: a driver, and a context that is current.
struct World {
    driver: Driver,
    context: Context,
}

impl World {
    /// Runs `exercise`, and says what it left in the context, which dies with the world and would
    /// take that along.
    fn run(exercise: fn(&Self) -> Outcome, machine: &Simulator) -> (Outcome, Vec<String>) {
        let world = match Self::new() {
            Ok(world) => world,
            Err(error) => return (Err(error), Vec::new()),
        };
        let scope = match world.context.enter() {
            Ok(scope) => scope,
            Err(error) => return (Err(error), Vec::new()),
        };
        let outcome = exercise(&world);
        let mut leaks = machine.leaks();
        leaks.retain(|line| !line.starts_with("context"));
        drop(scope);
        (outcome, leaks)
    }

    fn new() -> Result<Self, Error> {
        let driver = softcuda_driver().map_err(|error| match error {
            LoadError::Init(error) => error,
            other => panic!("{other}"),
        })?;
        let context = Context::retain(&driver.device(0)?)?;
        Ok(Self { driver, context })
    }

    fn api(&self) -> &Api {
        self.driver.api()
    }

    fn ordinal(&self) -> i32 {
        self.context.device().as_raw()
    }

    fn stream(&self) -> Result<Stream, Error> {
        Stream::new(&self.context)
    }

    fn event(&self) -> Result<Event, Error> {
        Event::new(&self.context, EventKind::Ordering)
    }

    fn device_memory(&self, size: usize) -> Result<Guard<'_, CUdeviceptr>, Error> {
        let mut address = 0;
        call!(self, mem_alloc(&raw mut address, size))?;
        Ok(self.guard(address, |world, address| call!(world, mem_free(address))))
    }

    fn managed(&self, size: usize) -> Result<Guard<'_, CUdeviceptr>, Error> {
        let mut address = 0;
        let flags = CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL.0;
        call!(self, mem_alloc_managed(&raw mut address, size, flags))?;
        Ok(self.guard(address, |world, address| call!(world, mem_free(address))))
    }

    fn pinned(&self, size: usize) -> Result<Guard<'_, *mut c_void>, Error> {
        let mut address = ptr::null_mut();
        call!(self, mem_host_alloc(&raw mut address, size, 0))?;
        Ok(self.guard(address, |world, address| call!(world, mem_free_host(address))))
    }

    fn graph(&self) -> Result<Guard<'_, CUgraph>, Error> {
        let mut graph = ptr::null_mut();
        call!(self, graph_create(&raw mut graph, 0))?;
        Ok(self.guard(graph, |world, graph| call!(world, graph_destroy(graph))))
    }

    /// A node of `graph`, which owns it.
    fn empty_node(&self, graph: &Guard<'_, CUgraph>) -> Result<CUgraphNode, Error> {
        let mut node = ptr::null_mut();
        call!(self, graph_add_empty_node(&raw mut node, graph.get(), ptr::null(), 0))?;
        Ok(node)
    }

    fn guard<T: Copy>(&self, value: T, free: fn(&Self, T) -> Outcome) -> Guard<'_, T> {
        Guard { value, live: true, world: self, free }
    }
}

/// Something to free: at the latest on drop, where a refusal shows as a leak.
struct Guard<'w, T: Copy> {
    value: T,
    live: bool,
    world: &'w World,
    free: fn(&World, T) -> Outcome,
}

impl<T: Copy> Guard<'_, T> {
    fn get(&self) -> T {
        self.value
    }

    /// Frees it now. If that fails, the drop tries once more.
    fn close(mut self) -> Outcome {
        let outcome = (self.free)(self.world, self.value);
        self.live = outcome.is_err();
        outcome
    }
}

impl<T: Copy> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.live {
            let _shown_as_a_leak = (self.free)(self.world, self.value);
        }
    }
}
