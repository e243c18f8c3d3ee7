//! Futures of steps, results and tickets: woken when the device is there, and by nothing else.

#![expect(clippy::unwrap_used, reason = "tests: a failure panics")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use softcuda::{Binding, Config, Simulator};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use wharf::futures::Poller;
use wharf::staging::{
    Fetch, InputBuffers, Len, OutputBuffers, Pending, SlotId, StageError, Staged, Step,
};
use wharf::{Context, CudaError, Driver, Stream};

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A future that is polled by hand.
struct ByHand<F> {
    future: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

impl<F: Future> ByHand<F> {
    fn new(future: F) -> Self {
        Self { future: Box::pin(future), wakes: Arc::default() }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Task::from_waker(&waker))
    }

    fn wakes(&self) -> u64 {
        self.wakes.0.load(Relaxed)
    }
}

fn machine() -> Simulator {
    let mut config = Config::default();
    config.checks.race = true;
    Simulator::new(config)
}

fn context(machine: &Simulator) -> Context {
    let driver = Driver::from_api(machine.api().unwrap()).unwrap();
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

/// Holds the stream up until the result is dropped.
fn gate(stream: &Stream) -> Sender<()> {
    let (open, closed) = channel::<()>();
    let wait = move || assert!(closed.recv().is_err());
    stream.add_callback(move |_| wait()).unwrap();
    open
}

fn inputs(context: &Context, depth: usize) -> (InputBuffers, SlotId<i32>) {
    let set = InputBuffers::builder(context).slot::<i32>("ids", Len::Tokens).buckets([4]);
    let inputs = set.ring_depth(depth).build().unwrap();
    let ids = inputs.slot_id("ids").unwrap();
    (inputs, ids)
}

fn outputs(context: &Context, depth: usize) -> (OutputBuffers, SlotId<i32>) {
    let set = OutputBuffers::builder(context).slot::<i32>("sampled", Len::Tokens).buckets([4]);
    let outputs = set.ring_depth(depth).build().unwrap();
    let sampled = outputs.slot_id("sampled").unwrap();
    (outputs, sampled)
}

/// Whatever waits is woken by the first poll behind its completion, once, and not before.
#[test]
fn a_waker_is_woken_when_its_completion_is_there() {
    let machine = machine();
    let _bound = machine.bind();
    let context = context(&machine);
    let (inputs, ids) = inputs(&context, 1);
    let (outputs, sampled) = outputs(&context, 1);
    let [held, free] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let poller = Poller::new();

    let closed = gate(&held);
    let mut step = inputs.begin(3, 1).unwrap();
    step.write(ids).fill(7);
    let staged = step.submit(&held).unwrap();
    let pending = outputs.fetch(3, 1, &held).unwrap();
    let [ticket, other] = [&held, &free].map(|stream| stream.ticket().unwrap());

    let mut of_step = ByHand::new(poller.wait(&staged));
    let mut of_slot = ByHand::new(inputs.begin_async(3, 1, &poller));
    let mut of_results = ByHand::new(poller.wait(&pending));
    let mut of_ticket = ByHand::new(poller.wait(&ticket));
    let mut of_other = ByHand::new(poller.wait(&other));
    assert!(of_step.poll().is_pending() && of_slot.poll().is_pending());
    assert!(of_results.poll().is_pending() && of_ticket.poll().is_pending());
    free.synchronize().unwrap();
    // A word that the device has written by now needs no poll.
    assert!(of_other.poll().is_ready());
    for _ in 0..1000 {
        assert_eq!(poller.poll(), 4);
    }
    let wakes = [of_step.wakes(), of_slot.wakes(), of_results.wakes(), of_ticket.wakes()];
    assert_eq!(wakes, [0; 4], "woken for nothing");

    drop(closed);
    held.synchronize().unwrap();
    assert_eq!((poller.poll(), poller.poll()), (0, 0));
    let wakes = [of_step.wakes(), of_slot.wakes(), of_results.wakes(), of_ticket.wakes()];
    assert_eq!(wakes, [1; 4]);
    assert!(matches!(of_step.poll(), Poll::Ready(Ok(()))));
    assert!(matches!(of_ticket.poll(), Poll::Ready(Ok(()))));
    assert!(matches!(of_slot.poll(), Poll::Ready(Ok(_))));
    let Poll::Ready(Ok(results)) = of_results.poll() else { panic!("no results") };
    assert_eq!(results.read(sampled).unwrap(), [0; 3]);
}

/// A future that is dropped leaves the list, and what it waited for as it was.
#[test]
fn a_dropped_future_leaves_what_it_waited_for() {
    let machine = machine();
    let _bound = machine.bind();
    let context = context(&machine);
    let (outputs, sampled) = outputs(&context, 1);
    let stream = Stream::new(&context).unwrap();
    let poller = Poller::new();
    let closed = gate(&stream);
    let pending = outputs.fetch(3, 1, &stream).unwrap();
    for _ in 0..3 {
        let mut waiting = ByHand::new(poller.wait(&pending));
        assert!(waiting.poll().is_pending() && waiting.poll().is_pending());
        assert_eq!(poller.waiting(), 1);
        drop(waiting);
        assert_eq!((poller.waiting(), poller.poll()), (0, 0));
    }
    let mut beginning = ByHand::new(outputs.begin_async(3, 1, &poller));
    assert!(beginning.poll().is_pending());
    drop(beginning);
    drop(closed);
    stream.synchronize().unwrap();
    let mut waiting = ByHand::new(poller.wait(&pending));
    let Poll::Ready(Ok(results)) = waiting.poll() else { panic!("no results") };
    assert_eq!(results.read(sampled).unwrap(), [0; 3]);
    drop(waiting);
    drop(pending);
    // The ring slot that was waited for in vain is there.
    assert!(outputs.try_begin(3, 1).is_ok());
}

/// A task that polls sleeps while nothing waits, and is woken when something does.
#[test]
fn an_idle_poller_is_woken_by_the_first_that_waits() {
    let machine = machine();
    let _bound = machine.bind();
    let context = context(&machine);
    let stream = Stream::new(&context).unwrap();
    let poller = Poller::new();
    let mut awaited = ByHand::new(poller.awaited());
    assert!(awaited.poll().is_pending() && awaited.poll().is_pending());
    let closed = gate(&stream);
    let ticket = stream.ticket().unwrap();
    let mut waiting = ByHand::new(poller.wait(&ticket));
    assert_eq!(awaited.wakes(), 0);
    assert!(waiting.poll().is_pending());
    assert_eq!(awaited.wakes(), 1);
    assert!(awaited.poll().is_ready());
    drop(closed);
    stream.synchronize().unwrap();
    assert_eq!(poller.poll(), 0);
    assert!(waiting.poll().is_ready());
}

/// A device that fails writes no word: the futures hear of it all the same.
#[test]
fn futures_of_a_device_that_fails_are_errors() {
    let machine = machine();
    let _bound = machine.bind();
    let context = context(&machine);
    let (outputs, _) = outputs(&context, 1);
    let stream = Stream::new(&context).unwrap();
    let poller = Poller::new();
    let closed = gate(&stream);
    let pending = outputs.fetch(3, 1, &stream).unwrap();
    let mut waiting = ByHand::new(poller.wait(&pending));
    assert!(waiting.poll().is_pending());
    machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
    drop(closed);
    let start = Instant::now();
    while waiting.wakes() == 0 {
        poller.poll();
        assert!(start.elapsed() < Duration::from_secs(600), "never told");
        std::thread::yield_now();
    }
    assert!(matches!(waiting.poll(), Poll::Ready(Err(StageError::Driver(_)))));
    assert_eq!(poller.waiting(), 0);
}

/// What goes into tasks and to other threads.
#[test]
fn owned_handles_and_futures_go_anywhere() {
    fn is_owned<T: Send + 'static>() {}
    fn is_sent<T: Send>(_: &T) {}
    is_owned::<Step<'static>>();
    is_owned::<Staged<'static>>();
    is_owned::<Fetch>();
    is_owned::<Pending>();
    is_owned::<Poller>();
    let machine = machine();
    let _bound = machine.bind();
    let context = context(&machine);
    let (outputs, _) = outputs(&context, 1);
    let stream = Stream::new(&context).unwrap();
    let (poller, pending) = (Poller::new(), outputs.fetch(1, 1, &stream).unwrap());
    is_sent(&poller.wait(&pending));
    is_sent(&outputs.begin_async(1, 1, &poller));
    is_sent(&poller.awaited());
    stream.synchronize().unwrap();
}

/// An engine: what its tasks share.
struct Engine {
    inputs: InputBuffers,
    ids: SlotId<i32>,
    outputs: OutputBuffers,
    sampled: SlotId<i32>,
    stream: Stream,
}

impl Engine {
    fn new(context: &Context) -> Self {
        let (inputs, ids) = inputs(context, DEPTH);
        let (outputs, sampled) = outputs(context, DEPTH);
        let stream = Stream::new(context).unwrap();
        Self { inputs, ids, outputs, sampled, stream }
    }

    /// One step, whose model copies what came in to what goes out.
    async fn step(&self, value: i32, poller: &Poller, polls: &AtomicU64) -> Vec<i32> {
        let begun = self.inputs.begin_async(TOKENS, 1, poller);
        let mut step = Counted::new(begun, polls).await.unwrap().into_owned();
        step.write(self.ids).copy_from_slice(&[value, value + 1, value + 2]);
        let fetch = Counted::new(self.outputs.begin_async(TOKENS, 1, poller), polls).await.unwrap();
        let staged = step.submit(&self.stream).unwrap();
        let device = self.outputs.static_buffers().device_ptr(self.sampled, 4).unwrap();
        copy(&self.stream, device, staged.device_ptr(self.ids));
        let pending = fetch.submit(&self.stream).unwrap();
        self.stream.launch_host_func(&|| DONE.notify_one()).unwrap();
        let results = Counted::new(poller.wait(&pending), polls).await.unwrap();
        results.read(self.sampled).unwrap().to_vec()
    }
}

/// A kernel that copies four tokens.
#[expect(unsafe_code, reason = "names device memory")]
fn copy(stream: &Stream, to: u64, from: u64) {
    // SAFETY: device memory of two sets, of at least four tokens each, which live until the
    // streams are synchronised.
    unsafe { stream.copy_dtod(to, from, 4 * size_of::<i32>()) }.unwrap();
}

thread_local! {
    /// Lets a thread of the runtime's call the driver.
    static BOUND: RefCell<Option<Binding>> = const { RefCell::new(None) };
}

/// Rung by host functions behind steps.
static DONE: Notify = Notify::const_new();

/// Counts the polls of a future.
struct Counted<'a, F> {
    future: F,
    polls: &'a AtomicU64,
}

impl<'a, F> Counted<'a, F> {
    fn new(future: F, polls: &'a AtomicU64) -> Self {
        Self { future, polls }
    }
}

impl<F: Future + Unpin> Future for Counted<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Task<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Relaxed);
        Pin::new(&mut self.future).poll(context)
    }
}

/// A hundred engines on two threads of tokio's, of which one task is cancelled each step: all
/// others get their own results, no ring slot is lost, nothing is polled without a reason, and
/// nothing is left.
#[test]
fn a_hundred_engines_on_two_threads_and_one_is_cancelled_each_step() {
    let machine = Arc::new(machine());
    let _bound = machine.bind();
    let context = context(&machine);
    let engines: Vec<_> = (0..ENGINES).map(|_| Arc::new(Engine::new(&context))).collect();
    let poller = Poller::new();
    let (polls, turns) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bound = Arc::clone(&machine);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || BOUND.set(Some(bound.bind())))
        .build()
        .unwrap();

    let (wall, cpu) = (Instant::now(), cpu_time());
    let (driver, turned) = (poller.clone(), Arc::clone(&turns));
    let driving = runtime.spawn(async move {
        loop {
            DONE.notified().await;
            turned.fetch_add(1, Relaxed);
            driver.poll();
        }
    });
    let cancelled = run_and_cancel(&runtime, &engines, &poller, &polls);
    let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
    let steps = u64::try_from(STEPS * ENGINES).unwrap();
    let (polls, turns) = (polls.load(Relaxed), turns.load(Relaxed));
    println!(
        "{steps} steps, {cancelled} cancelled: {polls} polls of futures, {turns} of the poller; \
         {wall:?}, {cpu:?} of the processors"
    );
    // Each of the three futures of a step is polled when it begins and when it is woken; one for
    // which another task has taken the ring slot would be polled again, and there is none.
    assert!(polls <= 2 * 3 * steps, "{polls} polls of {steps} steps");
    assert!(turns <= steps, "{turns} turns of the poller for {steps} rings");
    assert_eq!(poller.waiting(), 0);
    for engine in &engines {
        let steps: Vec<_> = (0..DEPTH).map(|_| engine.inputs.try_begin(1, 1).unwrap()).collect();
        let fetches: Vec<_> = (0..DEPTH).map(|_| engine.outputs.try_begin(1, 1).unwrap()).collect();
        drop((steps, fetches));
    }
    driving.abort();
    drop(runtime);
    drop((engines, poller, context));
    assert_eq!(machine.leaks(), Vec::<String>::new());
    let races: Vec<_> = machine.violations().iter().map(ToString::to_string).collect();
    assert_eq!(races, Vec::<String>::new());
}

/// Runs the steps, and cancels one task in each; returns how many were cancelled.
fn run_and_cancel(
    runtime: &Runtime,
    engines: &[Arc<Engine>],
    poller: &Poller,
    polls: &Arc<AtomicU64>,
) -> usize {
    let mut random = 1_u64;
    let mut cancelled = 0;
    for step in 0..STEPS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let victim = usize::try_from(random >> 33).unwrap() % ENGINES;
        // Its device work does not end before it is cancelled.
        let closed = gate(&engines[victim].stream);
        let tasks = engines.iter().enumerate().map(|(at, engine)| {
            let (engine, poller) = (Arc::clone(engine), poller.clone());
            let polls = Arc::clone(polls);
            let value = i32::try_from(step * ENGINES + at).unwrap();
            runtime.spawn(async move { engine.step(value, &poller, &polls).await })
        });
        let mut tasks: Vec<_> = tasks.collect();
        let cancel = tasks.remove(victim);
        // In every other step when the others are done, so that it waits for its results by then.
        if step % 2 == 0 {
            cancel.abort();
        }
        let others = (0..ENGINES).filter(|at| *at != victim);
        for (at, task) in others.zip(tasks) {
            let value = i32::try_from(step * ENGINES + at).unwrap();
            assert_eq!(runtime.block_on(task).unwrap(), [value, value + 1, value + 2]);
        }
        cancel.abort();
        assert!(runtime.block_on(cancel).unwrap_err().is_cancelled());
        cancelled += 1;
        drop(closed);
    }
    // The last steps that were cancelled may be in flight; the others of their engines came behind.
    engines.iter().for_each(|engine| engine.stream.synchronize().unwrap());
    cancelled
}

/// The processors' time of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "no safe function asks for it")]
    // SAFETY: `time` is valid for writes.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0);
    let nanos = u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap();
    Duration::from_nanos(nanos)
}

const ENGINES: usize = 100;
const STEPS: usize = 30;
const DEPTH: usize = 2;
const TOKENS: usize = 3;
