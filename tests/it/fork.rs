#![expect(unsafe_code, reason = "forks; calls by raw addresses")]
//! A forked child: every call is refused, and every drop leaves the parent's things alone.

use std::any::Any;
use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use wharf::driver::{DeviceAttribute, EventKind};
use wharf::graph::{
    CaptureMode, CaptureScope, Copy1d, Fill, FillValue, GraphDefinition, keep_alive_in_capture,
};
use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, PinnedMemoryResource,
    PinnedOptions, WriteCombinedMemoryResource,
};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolOptions, SlabPool};
use wharf::staging::{InputBuffers, Len, StageError};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Event, EventPool, Stream};

use crate::backend::{machine, on_each_driver};
use crate::deadline::LONG;
use crate::ends::load;
use crate::memory_kinds::memory_file;

on_each_driver!(
    every_call_of_a_child_on_the_driver_is_refused,
    every_call_of_a_child_on_a_stream_is_refused,
    every_call_of_a_child_on_graphs_and_captures_is_refused,
    every_call_of_a_child_on_memory_is_refused,
    a_child_gets_no_large_block_that_its_parent_has_freed_last,
    a_child_that_polls_for_what_is_marked_or_done_is_refused,
    what_a_child_drops_reaches_neither_driver_nor_parent,
    a_fork_inside_a_scope_and_a_capture_is_refused,
    a_child_of_a_launch_does_not_wait_for_the_tables,
);

const LIMIT: Duration = Duration::from_millis(1);
const MIB: usize = 1 << 20;

/// What a child has found.
#[derive(Default)]
struct Doors(Vec<String>);

impl Doors {
    /// The door must be shut.
    fn shut(&mut self, name: &str, outcome: Result<impl Any, impl Debug>) {
        match outcome {
            Err(error) if format!("{error:?}").contains("Forked") => {}
            Err(error) => self.0.push(format!("{name}: {error:?}")),
            Ok(_) => self.0.push(format!("{name}: went through")),
        }
    }

    fn check(&mut self, name: &str, holds: bool) {
        if !holds {
            self.0.push(name.to_owned());
        }
    }
}

/// Runs `body` in a child, which tells of the doors that were not shut.
fn in_a_child(body: impl FnOnce(&mut Doors)) {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: made above, and this value's alone.
    let [mut told, mut tell] = ends.map(|end| unsafe { File::from_raw_fd(end) });
    // SAFETY: the child takes no lock that another thread of the parent may have held: its objects
    // are this test's.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let mut doors = Doors::default();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&mut doors))) {
            doors.0.push(format!("it panicked: {:?}", panic.downcast_ref::<String>()));
        }
        let written = tell.write_all(doors.0.join("\n").as_bytes());
        // SAFETY: ends the child without what the parent registered for its own end.
        unsafe { libc::_exit(i32::from(written.is_err())) };
    }
    drop(tell);
    let mut found = String::new();
    told.read_to_string(&mut found).unwrap();
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status, found.as_str()), (child, 0, ""));
}

fn every_call_of_a_child_on_the_driver_is_refused(driver: &Driver) {
    let device = driver.device(0).unwrap();
    let context = Context::retain(&device).unwrap();
    let stream = Stream::new(&context).unwrap();
    let events = EventPool::new(&context, EventKind::Timing, 2);
    let [event, kept] = [0, 1].map(|_| events.event().unwrap());
    stream.record(&event).unwrap();
    stream.synchronize().unwrap();
    drop(kept);
    in_a_child(|doors| {
        doors.shut("check_fork", driver.check_fork());
        doors.shut("version", driver.version());
        doors.shut("device_count", driver.device_count());
        doors.shut("device", driver.device(0));
        doors.shut("devices", driver.devices());
        doors.shut("drop_deferred", driver.drop_deferred());
        doors.shut("wait_deferred", driver.wait_deferred(LIMIT));
        doors.shut("relax_capture", driver.relax_capture().map(drop));
        doors.shut("name", device.name());
        doors.shut("uuid", device.uuid());
        doors.shut("total_memory", device.total_memory());
        doors.shut("supports", device.supports(DeviceAttribute::COMPUTE_CAPABILITY_MAJOR));
        doors.shut("compute_capability", device.compute_capability());
        doors.shut("retain", Context::retain(&device));
        doors.shut("current", Context::current(driver));
        // SAFETY: the context is alive.
        doors.shut("borrow_raw", unsafe { Context::borrow_raw(context.as_raw(), driver) });
        doors.shut("enter", context.enter().map(drop));
        doors.shut("synchronize", context.synchronize());
        doors.shut("stream_priorities", context.stream_priorities());
        doors.shut("Event::new", Event::new(&context, EventKind::Ordering));
        doors.shut("an event of a pool that has one", events.event());
        doors.shut("query", event.query());
        doors.shut("Event::synchronize", event.synchronize());
        doors.shut("elapsed_since", event.elapsed_since(&event));
        // SAFETY: no argument.
        doors.shut("a call of the table", unsafe { driver.api().ctx_synchronize.call() });
        doors.shut("Event::close", Event::new(&context, EventKind::Ordering).map(Event::close));
    });
    assert!(event.query().unwrap());
}

fn every_call_of_a_child_on_a_stream_is_refused(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let [stream, other] = [0, 1].map(|_| Stream::new(&context).unwrap());
    let event = Event::new(&context, EventKind::Ordering).unwrap();
    stream.ticket().unwrap().wait(Duration::from_secs(30)).unwrap();
    let open = stream.ticket().unwrap();
    let mut word = 0_u64;
    let host = ptr::from_mut(&mut word).cast();
    in_a_child(|doors| {
        for stream in [&stream, &Stream::legacy(&context), &Stream::per_thread(&context)] {
            doors.shut("query", stream.query());
            doors.shut("synchronize", stream.synchronize());
            doors.shut("record", stream.record(&event));
            doors.shut("wait_event", stream.wait_event(&event));
            doors.shut("capture_status", stream.capture_status());
            doors.shut("kind", stream.kind());
            doors.shut("priority", stream.priority());
            doors.shut("ticket", stream.ticket());
            doors.shut("mark", stream.mark());
            doors.shut("timeline", stream.timeline().map(drop));
            doors.shut("add_callback", stream.add_callback(|_| {}));
            doors.shut("launch_host_func", stream.launch_host_func(&|| {}));
            // SAFETY: nothing is copied, as below.
            doors.shut("copy_htod", unsafe { stream.copy_htod(4096, host, 8) });
            // SAFETY: as above.
            doors.shut("copy_dtoh", unsafe { stream.copy_dtoh(host, 4096, 8) });
            // SAFETY: as above.
            doors.shut("copy_dtod", unsafe { stream.copy_dtod(4096, 8192, 8) });
            // SAFETY: as above.
            doors.shut("copy", unsafe { stream.copy(4096, 8192, 8) });
            // SAFETY: as above.
            doors.shut("copy_batch", unsafe { stream.copy_batch(&[]) });
            // SAFETY: as above.
            doors.shut("fill_d8", unsafe { stream.fill_d8(4096, 0, 8) });
            // SAFETY: as above.
            doors.shut("fill_d32", unsafe { stream.fill_d32(4096, 0, 8) });
        }
        doors.shut("poll", open.poll());
        doors.shut("wait", open.wait(LIMIT));
        doors.shut("Stream::new", Stream::new(&context));
        doors.shut("forget_stream", context.forget_stream(other.as_raw()));
    });
    stream.record(&event).unwrap();
    stream.synchronize().unwrap();
    assert!(open.poll().unwrap());
}

fn every_call_of_a_child_on_graphs_and_captures_is_refused(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let event = Arc::new(Event::new(&context, EventKind::Ordering).unwrap());
    let mut graph = GraphDefinition::new(&context).unwrap();
    let (first, second) = (graph.empty(&[]).unwrap(), graph.empty(&[]).unwrap());
    let [mut exec, other] = [0, 1].map(|_| graph.duplicate().unwrap().instantiate().unwrap());
    in_a_child(|doors| {
        doors.shut("GraphDefinition::new", GraphDefinition::new(&context));
        doors.shut("empty", graph.empty(&[]));
        doors.shut("host_func", graph.host_func(|| {}, &[]));
        doors.shut("event_record", graph.event_record(&event, &[]));
        doors.shut("event_wait", graph.event_wait(&event, &[]));
        // SAFETY: it is never launched.
        doors.shut("memcpy", unsafe { graph.memcpy(Copy1d::dtod(4096, 8192, 8), &[]) });
        let fill = Fill { destination: 4096, value: FillValue::D8(0), len: 8 };
        // SAFETY: as above.
        doors.shut("memset", unsafe { graph.memset(fill, &[]) });
        doors.shut("depend", graph.depend(first, second));
        doors.shut("keep_alive", graph.keep_alive(()));
        doors.shut("duplicate", graph.duplicate());
        doors.shut("launch", exec.launch(&stream));
        doors.shut("upload", exec.upload(&stream));
        doors.shut("update", exec.update(&graph));
        doors.shut("begin", CaptureScope::begin(&stream, CaptureMode::default()).map(drop));
        doors.shut("keep_alive_in_capture", keep_alive_in_capture(&stream, ()));
        doors.shut("append_to_capture", graph.append_to_capture(&stream));
        doors.shut("instantiate", graph.instantiate().map_err(|failed| failed.error));
        doors.shut("close", other.close());
    });
    exec.launch(&stream).unwrap();
    stream.synchronize().unwrap();
}

fn every_call_of_a_child_on_memory_is_refused(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let resource = PinnedMemoryResource::new(&context, 16 * MIB, PinnedOptions::default()).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    let mut buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    drop(pool.alloc::<u8>(1000, &stream).unwrap());
    let mut used: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    used.fill(1, &stream).unwrap();
    let tiers = TieredPool::builder(&context).device(4 * MIB).pinned(4 * MIB).build().unwrap();
    let mut object = tiers.alloc(MIB, Tier::Pinned).unwrap();
    let held = tiers.alloc(MIB, Tier::Pinned).unwrap();
    let mut bytes = vec![0; MIB];
    {
        let pin = held.pin(Tier::Device, &stream).unwrap();
        in_a_child(|doors| {
            doors.shut("alloc of what is kept", pool.alloc::<u8>(1000, &stream));
            doors.shut("alloc", pool.alloc::<u8>(3 * MIB, &stream));
            doors.shut("fill", buffer.fill(1, &stream));
            doors.shut("acquire", buffer.acquire(&stream));
            doors.shut("record_use", buffer.record_use(&stream));
            doors.shut("copy_from_slice", buffer.copy_from_slice(&[1; 1000], &stream));
            doors.shut("copy_to_slice", buffer.copy_to_slice(&mut [1; 1000], &stream));
            doors.shut("copy_from", buffer.copy_from(&used, &stream));
            doors.shut("wait", used.wait(LIMIT));
            doors.shut("host_mut", buffer.host_mut(LIMIT).map(drop));
            doors.shut("host_mut of a used one", used.host_mut(LIMIT).map(drop));
            doors.shut("tiers' alloc", tiers.alloc(MIB, Tier::Pinned));
            doors.shut("map_file", tiers.map_file(&memory_file()).map(drop));
            doors.shut("step", tiers.step());
            doors.shut("trim", tiers.trim());
            doors.shut("prefetch", held.prefetch(Tier::Pinned));
            doors.shut("pin", held.pin(Tier::Device, &stream).map(drop));
            doors.shut("try_pin", held.try_pin(Tier::Pinned, &stream).map(drop));
            doors.shut("pin_here", held.pin_here(&stream).map(drop));
            doors.shut("pin_mut", object.pin_mut(Tier::Pinned, &stream).map(drop));
            doors.shut("copy_to_slice of a pin", pin.copy_to_slice(&mut bytes));
            doors.shut("build of tiers", TieredPool::builder(&context).device(MIB).build());
            let options = PinnedOptions::default();
            doors.shut("pinned", PinnedMemoryResource::new(&context, MIB, options));
            doors.shut("write-combined", WriteCombinedMemoryResource::new(&context, MIB));
            doors.shut("device", DeviceMemoryResource::new(&context, MIB));
            doors.shut("managed", ManagedMemoryResource::new(&context, MIB));
            let file = FileMappedMemoryResource::scratch(&context, &memory_file(), MIB);
            doors.shut("file", file);
            let inputs =
                InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens).buckets([8]);
            doors.shut("build of a set", inputs.build());
        });
    }
    buffer.fill(2, &stream).unwrap();
    assert_eq!(buffer.host_mut(Duration::from_secs(30)).unwrap(), [2; 1000]);
}

fn a_child_gets_no_large_block_that_its_parent_has_freed_last(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let resource = DeviceMemoryResource::new(&context, 64 * MIB).unwrap();
    let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
    pool.dealloc(pool.alloc(16 * MIB).unwrap()).unwrap();
    in_a_child(|doors| doors.shut("alloc of what was freed last", pool.alloc(16 * MIB)));
    pool.dealloc(pool.alloc(16 * MIB).unwrap()).unwrap();
}

/// What has its marker already makes no call, so no table finds out.
fn a_child_that_polls_for_what_is_marked_or_done_is_refused(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let resource = PinnedMemoryResource::new(&context, 16 * MIB, PinnedOptions::default()).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    let done = stream.ticket().unwrap();
    done.wait(Duration::from_secs(30)).unwrap();
    let idle: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let used: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let (open, closed) = channel::<()>();
    stream.add_callback(move |_| assert!(closed.recv().is_err())).unwrap();
    used.record_use(&stream).unwrap();
    let marked = stream.ticket().unwrap();
    stream.mark().unwrap();
    assert!(!marked.poll().unwrap() && !used.poll().unwrap());
    in_a_child(|doors| {
        doors.shut("poll of a marked ticket", marked.poll());
        doors.shut("wait for a marked ticket", marked.wait(LIMIT));
        doors.shut("poll of a marked buffer", used.poll());
        doors.shut("poll of a done ticket", done.poll());
        doors.shut("wait for a done ticket", done.wait(LIMIT));
        doors.shut("poll of an idle buffer", idle.poll());
        doors.shut("wait for an idle buffer", idle.wait(LIMIT));
    });
    drop(open);
    marked.wait(Duration::from_secs(30)).unwrap();
}

fn what_a_child_drops_reaches_neither_driver_nor_parent(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let mut things = Some(load(&context));
    let mut own = (Some(driver.clone()), Some(context));
    let calls = || machine().map(|machine| machine.all_calls());
    in_a_child(|doors| {
        let (before, mappings) = (calls(), mappings());
        things = None;
        own = (None, None);
        doors.check("a drop called the driver", calls() == before);
        let gone: Vec<_> =
            mappings.iter().filter(|line| !self::mappings().contains(line)).collect();
        doors.check(&format!("a drop unmapped {gone:?}"), gone.is_empty());
    });
    drop(things);
    drop(own);
    driver.wait_deferred(Duration::from_secs(30)).unwrap();
}

/// The process's mappings of shared and unusual kinds: what the heap does is its own.
fn mappings() -> Vec<String> {
    let all = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_of_interest = |line: &&str| line.contains("rw-s") || line.contains("memfd");
    all.lines().filter(is_of_interest).map(str::to_owned).collect()
}

fn a_fork_inside_a_scope_and_a_capture_is_refused(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let mut graph = GraphDefinition::new(&context).unwrap().instantiate().unwrap();
    let scope = context.enter().unwrap();
    let capture = CaptureScope::begin(&stream, CaptureMode::default()).unwrap();
    stream.launch_host_func(&|| {}).unwrap();
    let mut capture = Some(capture);
    in_a_child(|doors| {
        // A scope of the same context makes no call.
        doors.shut("enter", context.enter().map(drop));
        doors.shut("launch", graph.launch(&stream));
        doors.shut("end", capture.take().map_or(Ok(None), |capture| capture.end().map(Some)));
    });
    let captured = capture.take().unwrap().end().unwrap();
    assert_eq!(captured.len(), 1);
    drop(scope);
    graph.launch(&stream).unwrap();
    stream.synchronize().unwrap();
}

/// The parent holds the tables of the set while it sends patches, and will not let go in the child.
fn a_child_of_a_launch_does_not_wait_for_the_tables(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
    let inputs = set.persistent::<u32>("table", 1, 4, 4).buckets([4]).build().unwrap();
    let (ids, table) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.slot_id("table").unwrap());
    let embedded = inputs.embed(4).unwrap();
    let [step, other] = [embedded.begin(4, 1), inputs.begin(4, 1)].map(|step| {
        let mut step = step.unwrap();
        step.write(ids).fill(1);
        step.patch(table, 0, 0, &[1_u32]).unwrap();
        step
    });
    let launch = || {
        in_a_child(|doors| doors.shut("Step::submit", other.submit(&stream).map(drop)));
        Err(StageError::WouldBlock)
    };
    assert_eq!(step.submit_with(&stream, launch).unwrap_err(), StageError::WouldBlock);
    inputs.begin(0, 0).unwrap().submit(&stream).unwrap();
    stream.synchronize().unwrap();
    drop((embedded, inputs));
    driver.wait_deferred(LONG).unwrap();
}
