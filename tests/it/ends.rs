#![expect(
    unsafe_code,
    reason = "captures, graphs and contexts as an engine has them: by raw calls"
)]
//! Ends: everything is dropped in any order, and nothing is left, of ours or of the engine's
//! context.

use std::any::Any;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wharf::driver::{DeferredError, EventKind};
use wharf::graph::{CaptureMode, CaptureScope, GraphDefinition, keep_alive_in_capture};
use wharf::pool::Buffer;
use wharf::slab::PoolOptions;
use wharf::staging::{InputBuffers, Len};
use wharf::sys::bindings::{CUgraph, CUgraph_st, CUstreamCaptureMode};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Error, Event, EventPool, Stream};

use crate::backend::{Config, Simulator, machine, on_each_driver, on_machine, softcuda_driver};
use crate::deadline::LONG;
use crate::graph_rig::{Owner, until_dropped};

on_each_driver!(
    nothing_is_left_whatever_is_dropped_first,
    a_model_is_unloaded_from_a_context_that_the_engine_destroys,
    the_inputs_of_the_last_set_go_without_a_graph_call,
    a_wait_for_owners_says_how_many_are_left,
    one_model_of_two_is_unloaded,
    an_owner_is_not_dropped_into_a_capture,
);

const MIB: usize = 1 << 20;

pub(crate) type Things = Vec<Box<dyn Any>>;

/// Some of everything that a model has, used once, and idle.
pub(crate) fn load(context: &Context) -> Things {
    let mut things: Things = Vec::new();
    let stream = Stream::new(context).unwrap();
    let events = EventPool::new(context, EventKind::Ordering, 4);
    let (pooled, event) =
        (events.event().unwrap(), Arc::new(Event::new(context, EventKind::Timing).unwrap()));
    stream.record(&event).unwrap();
    stream.record(&pooled).unwrap();
    things.push(Box::new((events, 0)));
    things.push(Box::new(pooled));
    load_memory(context, &stream, &mut things);
    load_graphs(context, &stream, &event, &mut things);
    things.push(Box::new(stream.ticket().unwrap()));
    stream.synchronize().unwrap();
    things.push(Box::new(event));
    things.push(Box::new(stream));
    things.push(Box::new(context.clone()));
    things
}

/// Pools with blocks that two streams have used, and tiers with an object.
fn load_memory(context: &Context, stream: &Stream, things: &mut Things) {
    let other = Stream::new(context).unwrap();
    let resource = wharf::memory::DeviceMemoryResource::new(context, 16 * MIB).unwrap();
    let options = PoolOptions::default().thread_cache_bytes(0);
    let pool = wharf::pool::Pool::builder().slabs(options).build(resource).unwrap();
    for size in [1000, MIB] {
        let buffer: Buffer<u8> = pool.alloc(size, stream).unwrap();
        buffer.fill(1, stream).unwrap();
        buffer.acquire(&other).unwrap();
        buffer.record_use(&other).unwrap();
        things.push(Box::new(buffer));
    }
    let tiers = TieredPool::builder(context).device(4 * MIB).pinned(4 * MIB).build().unwrap();
    let mut object = tiers.alloc(MIB, Tier::Pinned).unwrap();
    object.pin_mut(Tier::Device, stream).unwrap();
    other.synchronize().unwrap();
    things.push(Box::new(object));
    things.push(Box::new(tiers));
    things.push(Box::new(pool));
    things.push(Box::new(other));
}

/// A set; graphs of ours and of the engine's that keep its memory and more; all were launched.
fn load_graphs(context: &Context, stream: &Stream, event: &Arc<Event>, things: &mut Things) {
    let inputs = InputBuffers::builder(context)
        .slot::<i32>("ids", Len::Tokens)
        .buckets([8])
        .build()
        .unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let mut step = inputs.begin(8, 1).unwrap();
    step.write(ids).fill(1);
    step.submit(stream).unwrap();
    let buffers = inputs.static_buffers();

    let capture = CaptureScope::begin(stream, CaptureMode::default()).unwrap();
    buffers.keep_alive_in_capture(stream).unwrap();
    stream.launch_host_func(&|| {}).unwrap();
    let mut model = capture.end().unwrap().instantiate().unwrap();
    model.launch(stream).unwrap();
    things.push(Box::new(model));

    let embedded = inputs.embed(8).unwrap();
    let mut graph = GraphDefinition::new(context).unwrap();
    embedded.as_child_of(&mut graph, &[]).unwrap();
    let record = graph.event_record(event, &[]).unwrap();
    graph.host_func(|| {}, &[record.into()]).unwrap();
    graph.keep_alive((Stream::new(context).unwrap(), context.clone())).unwrap();
    things.push(Box::new(graph.duplicate().unwrap()));
    let mut whole = graph.instantiate().unwrap();
    whole.keep_alive(Arc::clone(event));
    let mut step = embedded.begin(8, 1).unwrap();
    step.write(ids).fill(2);
    step.submit_with::<wharf::staging::StageError>(stream, || Ok(whole.launch(stream)?)).unwrap();
    inputs.wait().unwrap();
    stream.synchronize().unwrap();
    things.push(Box::new(whole));
    things.push(Box::new(embedded));
    things.push(Box::new(ForeignGraph::capture(stream, || {
        buffers.keep_alive_in_capture(stream).unwrap();
    })));
    things.push(Box::new(buffers));
    things.push(Box::new(inputs));
}

/// A graph that the engine captures and destroys by raw calls.
struct ForeignGraph {
    raw: *mut CUgraph_st,
    driver: Driver,
}

impl ForeignGraph {
    fn capture(stream: &Stream, body: impl FnOnce()) -> Self {
        let driver = stream.context().driver().clone();
        let raw = capture(stream, body);
        Self { raw, driver }
    }
}

impl Drop for ForeignGraph {
    fn drop(&mut self) {
        // SAFETY: captured for this value.
        let destroyed = unsafe { self.driver.api().graph_destroy.call(self.raw) };
        assert!(matches!(destroyed, Ok(()) | Err(Error::Forked)), "{destroyed:?}");
    }
}

/// What `body` gives `stream`, captured by the engine.
fn capture(stream: &Stream, body: impl FnOnce()) -> CUgraph {
    let (api, mode) =
        (stream.context().driver().api(), CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    let _scope = stream.context().enter().unwrap();
    // SAFETY: the stream is alive.
    unsafe { api.stream_begin_capture.call(stream.as_raw(), mode) }.unwrap();
    body();
    let mut raw = ptr::null_mut();
    // SAFETY: as above; `raw` is valid for writes.
    unsafe { api.stream_end_capture.call(stream.as_raw(), &raw mut raw) }.unwrap();
    raw
}

/// Drops everything in an order of the seed's.
fn drop_in_any_order(mut things: Things, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !things.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let index = usize::try_from(state % things.len() as u64).unwrap();
        drop(things.swap_remove(index));
    }
}

fn primary_is_active(driver: &Driver) -> bool {
    let (mut flags, mut active) = (0, 0);
    let (device, state) =
        (driver.device(0).unwrap().as_raw(), &driver.api().device_primary_ctx_get_state);
    // SAFETY: both are valid for writes for the whole call.
    unsafe { state.call(device, &raw mut flags, &raw mut active) }.unwrap();
    active != 0
}

/// Errors that drops met from here on.
fn drop_errors(driver: &Driver) -> Arc<Mutex<Vec<Error>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    driver.on_drop_error(move |error| log.lock().unwrap().push(*error)).unwrap();
    heard
}

/// 80 orders on each of the five machines.
fn nothing_is_left_whatever_is_dropped_first(driver: &Driver) {
    let errors = drop_errors(driver);
    for seed in 0..80 {
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        let things = load(&context);
        drop(context);
        drop_in_any_order(things, seed);
        driver.wait_deferred(LONG).unwrap();
        assert_eq!(driver.deferred(), 0, "seed {seed}");
        if let Some(machine) = machine() {
            assert!(!primary_is_active(driver), "seed {seed}");
            assert_eq!(machine.leaks(), Vec::<String>::new(), "seed {seed}");
        }
    }
    assert_eq!(*errors.lock().unwrap(), []);
}

fn a_model_is_unloaded_from_a_context_that_the_engine_destroys(driver: &Driver) {
    let errors = drop_errors(driver);
    let (api, device) = (driver.api(), driver.device(0).unwrap().as_raw());
    let mut raw = ptr::null_mut();
    // SAFETY: `raw` is valid for writes.
    unsafe { api.ctx_create.call(&raw mut raw, 0, device) }.unwrap();
    // SAFETY: null is allowed: no context is current.
    unsafe { api.ctx_set_current.call(ptr::null_mut()) }.unwrap();
    for seed in 0..3 {
        // SAFETY: destroyed below, when nothing of it is used any more.
        let context = unsafe { Context::borrow_raw(raw, driver) }.unwrap();
        let things = load(&context);
        drop_in_any_order(things, seed);
        driver.wait_deferred(LONG).unwrap();
        assert_eq!(context.drop_errors(), 0);
    }
    // SAFETY: made above, destroyed once.
    unsafe { api.ctx_destroy.call(raw) }.unwrap();
    assert_eq!((driver.deferred(), &*errors.lock().unwrap()), (0, &Vec::new()));
    if let Some(machine) = machine() {
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

/// The engine's graphs are destroyed by calls that are not ours; then a stream is made and dropped.
fn the_inputs_of_the_last_set_go_without_a_graph_call(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let (owner, dropped) = Owner::new();
    let graph = ForeignGraph::capture(&stream, || keep_alive_in_capture(&stream, owner).unwrap());
    drop(graph);
    let end = Instant::now() + LONG;
    while !dropped.is() {
        assert!(Instant::now() < end, "{} owners are left", driver.deferred());
        drop(Stream::new(&context).unwrap());
        thread::yield_now();
    }
}

fn a_wait_for_owners_says_how_many_are_left(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let mut graph = GraphDefinition::new(&context).unwrap();
    let ((first, _), (second, dropped)) = (Owner::new(), Owner::new());
    let before = driver.deferred();
    graph.keep_alive(first).unwrap();
    graph.keep_alive(second).unwrap();
    assert_eq!(driver.deferred(), before + 2);
    let error = driver.wait_deferred(Duration::ZERO).unwrap_err();
    let DeferredError::Deadline { left, .. } = error else { panic!("{error}") };
    assert_eq!(left, before + 2);
    assert!(error.to_string().contains("still keep 2 owners"), "{error}");
    drop(graph);
    driver.wait_deferred(LONG).unwrap();
    assert!(dropped.is());
}

fn one_model_of_two_is_unloaded(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let models = [0, 1].map(|_| {
        let owner = Arc::new(());
        let mut graph = GraphDefinition::new(&context).unwrap();
        graph.keep_alive(Arc::clone(&owner)).unwrap();
        (graph.instantiate().unwrap(), Arc::downgrade(&owner))
    });
    let [(stays, _), (goes, owner)] = models;
    drop(goes);
    driver.wait_deferred_until(LONG, || owner.strong_count() == 0).unwrap();
    assert!(driver.wait_deferred(Duration::ZERO).is_err(), "the other model has its owners");
    drop(stays);
    driver.wait_deferred(LONG).unwrap();
}

/// What an owner's drop gives a stream would be captured, too.
fn an_owner_is_not_dropped_into_a_capture(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let capture = CaptureScope::begin(&stream, CaptureMode::Relaxed).unwrap();
    let (owner, dropped) = Owner::new();
    let mut graph = GraphDefinition::new(&context).unwrap();
    graph.keep_alive(owner).unwrap();
    drop(graph);
    // Some of these find the owner in the list, on a driver that gives it up at once.
    for _ in 0..100 {
        drop(Stream::new(&context).unwrap());
        assert!(!dropped.is());
        thread::yield_now();
    }
    drop(capture);
    until_dropped(driver, &dropped);
}

/// An owner that keeps its context and counts its drops. A thread that drops it belongs to its
/// machine, since a primary context is released by the number of its device.
struct Counted {
    drops: Arc<AtomicUsize>,
    context: Option<Context>,
    machine: Arc<Simulator>,
}

impl Counted {
    fn new(drops: &Arc<AtomicUsize>, context: &Context) -> Self {
        Self {
            drops: Arc::clone(drops),
            context: Some(context.clone()),
            machine: machine().unwrap(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _bound = self.machine.bind();
        drop(self.context.take());
        self.drops.fetch_add(1, Ordering::Release);
    }
}

/// Only the engine's graphs are left of all: what they gave up would keep its context for ever.
#[test]
fn what_graphs_give_up_after_the_last_driver_is_dropped() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |engine| {
        let drops = Arc::new(AtomicUsize::new(0));
        let graphs = [0, 1].map(|_| {
            let driver = softcuda_driver().unwrap();
            let context = Context::retain(&driver.device(0).unwrap()).unwrap();
            let stream = Stream::new(&context).unwrap();
            capture(&stream, || {
                for _ in 0..3 {
                    keep_alive_in_capture(&stream, Counted::new(&drops, &context)).unwrap();
                }
            })
        });
        assert_eq!(drops.load(Ordering::Acquire), 0);
        assert!(primary_is_active(engine));
        for graph in graphs {
            // SAFETY: captured above, destroyed once.
            unsafe { engine.api().graph_destroy.call(graph) }.unwrap();
        }
        let end = Instant::now() + LONG;
        while drops.load(Ordering::Acquire) < 6 {
            assert!(
                Instant::now() < end,
                "{} of 6 owners were dropped",
                drops.load(Ordering::Acquire)
            );
            thread::yield_now();
        }
        assert!(!primary_is_active(engine));
        while !machine.leaks().is_empty() {
            assert!(Instant::now() < end, "{:?}", machine.leaks());
            thread::yield_now();
        }
    });
}

/// The last `Driver` goes when what the graph gave up has come, or before: the owner goes in both
/// cases.
#[test]
fn the_drop_of_the_last_driver_drops_what_graphs_gave_up() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |engine| {
        let drops = Arc::new(AtomicUsize::new(0));
        for round in 1..=200 {
            let driver = softcuda_driver().unwrap();
            let context = Context::retain(&driver.device(0).unwrap()).unwrap();
            let mut graph = GraphDefinition::new(&context).unwrap();
            graph.keep_alive(Counted::new(&drops, &context)).unwrap();
            drop(graph);
            drop(context);
            drop(driver);
            let end = Instant::now() + LONG;
            while drops.load(Ordering::Acquire) < round {
                assert!(Instant::now() < end, "round {round}");
                thread::yield_now();
            }
            assert!(!primary_is_active(engine));
        }
    });
}
