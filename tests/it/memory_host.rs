//! What the system shows of the host's memory: children, huge pages, nodes; and growth beside
//! captures.
#![expect(unsafe_code, reason = "forks; captures by raw calls")]

use std::fs;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread;

use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, MemoryResource,
    NumaNode, PageTier, PinnedMemoryResource, PinnedOptions, WriteCombinedMemoryResource,
};
use wharf::sys::bindings::{CUdevice_attribute as Attribute, CUstreamCaptureMode};
use wharf::{Driver, Error, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::memory_kinds::{Kind, commit, context_of, decommit};

on_each_driver!(
    pinned_pages_are_not_inherited,
    a_child_is_refused,
    the_tier_that_was_obtained_is_reported,
    nothing_is_left_accessible_after_a_decommit,
    growth_does_not_disturb_a_capture,
    calls_and_their_time_are_counted,
    a_commit_of_more_than_the_host_has_is_refused_before_it_is_filled,
);

const GRANULE: usize = 2 << 20;
const SIZE: usize = 16 * GRANULE;

/// The lines of `/proc/self/smaps` on the mapping that contains an address.
fn mapping_at(address: u64) -> Vec<String> {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let contains = |line: &&str| {
        let Some((start, rest)) = line.split_once('-') else { return false };
        let end = rest.split(' ').next().unwrap_or_default();
        let number = |text| u64::from_str_radix(text, 16).ok();
        number(start).zip(number(end)).is_some_and(|(start, end)| (start..end).contains(&address))
    };
    let mut lines = smaps.lines().skip_while(|line| !contains(line));
    let head = lines.next().unwrap().to_owned();
    // Every mapping has one `VmFlags:`, and it is the last line.
    let last = |line: &&str| line.starts_with("VmFlags:");
    let mut found = vec![head];
    for line in lines {
        found.push(line.to_owned());
        if last(&line) {
            break;
        }
    }
    found
}

fn is_kept_from_children(address: u64) -> bool {
    mapping_at(address).iter().any(|line| line.starts_with("VmFlags:") && line.contains(" dc"))
}

fn pinned_pages_are_not_inherited(driver: &Driver) {
    let context = context_of(driver);
    let resource = PinnedMemoryResource::make(&context, SIZE).unwrap();
    commit(&resource, GRANULE, 2 * GRANULE).unwrap();
    assert!(is_kept_from_children(resource.base() + GRANULE as u64));
    decommit(&resource, GRANULE, 2 * GRANULE).unwrap();
    commit(&resource, GRANULE, GRANULE).unwrap();
    assert!(is_kept_from_children(resource.base() + GRANULE as u64));
    let file = FileMappedMemoryResource::make(&context, SIZE).unwrap();
    commit(&file, 0, GRANULE).unwrap();
    assert!(is_kept_from_children(file.base()));
}

fn a_child_is_refused(driver: &Driver) {
    refused_in_a_child::<PinnedMemoryResource>(driver);
    refused_in_a_child::<WriteCombinedMemoryResource>(driver);
    refused_in_a_child::<DeviceMemoryResource>(driver);
    refused_in_a_child::<ManagedMemoryResource>(driver);
    refused_in_a_child::<FileMappedMemoryResource>(driver);
}

fn refused_in_a_child<R: Kind>(driver: &Driver) {
    let resource = R::make(&context_of(driver), SIZE).unwrap();
    commit(&resource, 0, GRANULE).unwrap();
    // SAFETY: the child calls nothing but what asks for its process's number, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let outcomes = (commit(&resource, GRANULE, GRANULE), decommit(&resource, 0, GRANULE));
        let refused = outcomes == (Err(Error::Forked), Err(Error::Forked));
        // SAFETY: ends the child without what the parent registered for its own end.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    decommit(&resource, 0, GRANULE).unwrap();
}

fn the_tier_that_was_obtained_is_reported(driver: &Driver) {
    let context = context_of(driver);
    for tier in [PageTier::Explicit, PageTier::Transparent, PageTier::Plain] {
        let options = PinnedOptions::default().page_tier(tier);
        let resource = PinnedMemoryResource::new(&context, SIZE, options).unwrap();
        commit(&resource, 0, 2 * GRANULE).unwrap();
        let pages = resource.report().pages;
        assert_eq!(pages.explicit + pages.transparent + pages.plain, 2 * GRANULE, "{tier:?}");
        let mapping = mapping_at(resource.base());
        let has = |field: &str, value: &str| {
            mapping.iter().any(|line| line.starts_with(field) && line.contains(value))
        };
        // `ht`: explicit, `hg`: asked to be huge.
        assert_eq!(has("VmFlags:", " ht"), pages.explicit > 0, "{mapping:#?}");
        assert_eq!(has("VmFlags:", " hg"), pages.transparent > 0, "{mapping:#?}");
        assert!(tier != PageTier::Plain || pages.plain == 2 * GRANULE);
        assert!(tier != PageTier::Transparent || pages.explicit == 0);
        decommit(&resource, 0, 2 * GRANULE).unwrap();
        let pages = resource.report().pages;
        assert_eq!((pages.explicit, pages.transparent, pages.plain), (0, 0, 0));
    }
}

fn nothing_is_left_accessible_after_a_decommit(driver: &Driver) {
    let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
    let untouched = mapping_at(resource.base());
    assert!(untouched[0].contains(" ---p "), "{untouched:#?}");
    commit(&resource, GRANULE, GRANULE).unwrap();
    commit(&resource, 4 * GRANULE, 2 * GRANULE).unwrap();
    assert!(mapping_at(resource.base() + GRANULE as u64)[0].contains(" rw-p "));
    assert!(mapping_at(resource.base())[0].contains(" ---p "));
    decommit(&resource, GRANULE, GRANULE).unwrap();
    decommit(&resource, 4 * GRANULE, 2 * GRANULE).unwrap();
    // One mapping again, so that the system's limit on their number is no limit on growth.
    assert_eq!(mapping_at(resource.base()), untouched);
}

fn growth_does_not_disturb_a_capture(driver: &Driver) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    // Not those whose making would wait for the device.
    let pinned = PinnedMemoryResource::make(&context, SIZE).unwrap();
    let device = DeviceMemoryResource::make(&context, SIZE).unwrap();
    let grow = || {
        commit(&pinned, 0, GRANULE).unwrap();
        commit(&device, 0, GRANULE).unwrap();
        decommit(&pinned, 0, GRANULE).unwrap();
        decommit(&device, 0, GRANULE).unwrap();
        drop(PinnedMemoryResource::make(&context, SIZE).unwrap());
    };
    let api = driver.api();
    let scope = context.enter().unwrap();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    // SAFETY: the stream is alive.
    unsafe { api.stream_begin_capture.call(stream.as_raw(), mode) }.unwrap();
    grow();
    let bind = binder();
    thread::scope(|threads| {
        threads.spawn(|| {
            let _bound = bind();
            grow();
        });
    });
    let mut graph = ptr::null_mut();
    // SAFETY: `graph` is valid for writes for the whole call.
    unsafe { api.stream_end_capture.call(stream.as_raw(), &raw mut graph) }.unwrap();
    // SAFETY: just made, and owned by nothing else.
    unsafe { api.graph_destroy.call(graph) }.unwrap();
    drop(scope);
}

fn calls_and_their_time_are_counted(driver: &Driver) {
    let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
    commit(&resource, 0, GRANULE).unwrap();
    let report = resource.report();
    // The registration, and the question for its address.
    assert_eq!((report.driver_calls, report.registered), (2, GRANULE));
    assert!(report.driver_nanoseconds > 0);
    decommit(&resource, 0, GRANULE).unwrap();
    assert_eq!(resource.report().driver_calls, 3);
}

/// The node that a resource asks pages from, on a device that says `value`.
fn node_of(value: i32, node: NumaNode) -> (Option<u32>, u64) {
    let attributes = vec![(Attribute::CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, value)];
    let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
    on_machine(&machine, |driver| {
        let options = PinnedOptions::default().numa_node(node);
        let resource = PinnedMemoryResource::new(&context_of(driver), SIZE, options).unwrap();
        commit(&resource, 0, GRANULE).unwrap();
        let report = resource.report();
        (report.numa_node, report.unbound_commits)
    })
}

#[test]
fn pages_are_taken_from_the_devices_node() {
    assert_eq!(node_of(0, NumaNode::OfDevice).0, Some(0));
    assert_eq!(node_of(-1, NumaNode::OfDevice), (None, 0));
    assert_eq!(node_of(0, NumaNode::Any), (None, 0));
    // No system has so many: the commit goes on without, and says so.
    assert_eq!(node_of(0, NumaNode::Number(1023)), (Some(1023), 1));
    assert_eq!(node_of(0, NumaNode::Number(u32::MAX)), (Some(u32::MAX), 1));
}

#[test]
fn another_threads_drop_gives_back() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let (sender, receiver) = mpsc::channel();
        let bind = binder();
        thread::scope(|threads| {
            threads.spawn(move || {
                let _bound = bind();
                drop::<PinnedMemoryResource>(receiver.recv().unwrap());
            });
            let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
            commit(&resource, 0, GRANULE).unwrap();
            sender.send(resource).unwrap();
        });
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

fn a_commit_of_more_than_the_host_has_is_refused_before_it_is_filled(driver: &Driver) {
    let (context, much) = (context_of(driver), 1 << 42);
    let options = PinnedOptions::default();
    let Ok(resource) = PinnedMemoryResource::new(&context, much, options) else { return };
    let refused = commit(&resource, 0, much).unwrap_err();
    let Error::HostMemory { wanted, free, total, .. } = refused else { panic!("{refused}") };
    assert!(wanted == much && free < total && total < much, "{refused}");
    assert_eq!((resource.report().committed, resource.report().lost), (0, 0));
    let memory = resource.physical_memory().unwrap();
    assert!(memory.free <= memory.total && memory.total < much);
    // The range is as it was.
    commit(&resource, 0, resource.granularity()).unwrap();
}
