//! Two devices in one process: a pool that both use, and a third that may not.

use std::sync::Arc;

use ::softcuda::{Checks, Schedule};
use wharf::driver::{DeviceAttribute, EventKind};
use wharf::memory::{DeviceMemoryResource, DeviceOptions, MemoryResource};
use wharf::pool::{Buffer, Pool};
use wharf::{Context, CudaError, Error, Event, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::deadline::LONG;
use crate::memory_kinds::pattern;

const MIB: usize = 1 << 20;
const SCHEDULES: [Schedule; 4] =
    [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(3)];

/// Three devices of a machine with every check; nothing may be violated.
fn on_three_devices(schedule: Schedule, test: impl FnOnce(&Arc<Simulator>, &[Context; 3])) {
    let config = Config { devices: 3, schedule, checks: Checks::ALL, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let contexts =
            [0, 1, 2].map(|ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap());
        test(&machine, &contexts);
    });
    assert_eq!(machine.violations(), [], "{schedule:?}");
    assert_eq!(machine.leaks(), Vec::<String>::new(), "{schedule:?}");
}

/// Memory of the first device that the second reaches.
fn shared(contexts: &[Context; 3]) -> DeviceMemoryResource {
    let peers = [contexts[1].device().clone()];
    let options = DeviceOptions::default().peers(&peers);
    DeviceMemoryResource::with_options(&contexts[0], 64 * MIB, options).unwrap()
}

#[test]
fn a_pool_is_used_from_two_devices_and_refused_to_a_third() {
    for schedule in SCHEDULES {
        on_three_devices(schedule, |_, contexts| {
            let memory = shared(contexts);
            assert_eq!((memory.granted().peers, memory.report().peers), (vec![1], 1));
            let pool: Pool = Pool::builder().max_bytes(8 * MIB).build(memory).unwrap();
            let [own, peer, third] = [0, 1, 2].map(|at| Stream::new(&contexts[at]).unwrap());
            for round in 0..20 {
                // Written by one device, read by the other, in the order of an event.
                let (first, second) = if round % 2 == 0 { (&own, &peer) } else { (&peer, &own) };
                let block: Buffer<u8> = pool.alloc(2 * MIB, first).unwrap();
                let bytes = pattern(round, 2 * MIB);
                block.copy_from_slice(&bytes, first).unwrap();
                let other: Buffer<u8> = pool.alloc(2 * MIB, second).unwrap();
                second.wait_event(&event_behind(first)).unwrap();
                other.copy_from(&block, second).unwrap();
                let mut back = vec![0; 2 * MIB];
                other.copy_to_slice(&mut back, second).unwrap();
                assert!(back == bytes, "round {round}");
            }
            let refused = pool.alloc::<u8>(64, &third).unwrap_err();
            assert_eq!(refused, Error::OtherDevice { stream: 2, memory: 0 }.into());
            let block: Buffer<u8> = pool.alloc(64, &peer).unwrap();
            assert_eq!(block.fill(1, &third), Err(Error::OtherDevice { stream: 2, memory: 0 }));
            block.fill(1, &peer).unwrap();
        });
    }
}

/// An event behind what a stream has been given.
fn event_behind(stream: &Stream) -> Event {
    let event = Event::new(stream.context(), EventKind::Ordering).unwrap();
    stream.record(&event).unwrap();
    event
}

/// At its limit a pool takes what a stream of the other device still uses, and lets the stream wait
/// for it on the device: an event of one context, a stream of another.
#[test]
fn a_block_goes_from_a_stream_of_one_device_to_one_of_another() {
    for schedule in SCHEDULES {
        on_three_devices(schedule, |_, contexts| {
            let pool: Pool = Pool::builder().max_bytes(2 * MIB).build(shared(contexts)).unwrap();
            let streams = [0, 1].map(|at| Stream::new(&contexts[at]).unwrap());
            for round in 0..32 {
                let stream = &streams[usize::from(round % 2)];
                // All there is, and the other stream may still write it.
                let block: Buffer<u8> = pool.alloc(2 * MIB, stream).unwrap();
                block.fill(round, stream).unwrap();
                if round % 4 == 3 {
                    let mut back = vec![0; 2 * MIB];
                    block.copy_to_slice(&mut back, stream).unwrap();
                    assert!(back.iter().all(|byte| *byte == round));
                }
            }
            for stream in &streams {
                stream.ticket().unwrap().wait(LONG).unwrap();
            }
        });
    }
}

/// xla#40852, FBGEMM#1875: access is the mapping's, for each device, and asked for each.
#[test]
#[expect(unsafe_code, reason = "asks the driver about an address; commits a range")]
fn xla_40852_each_peer_has_access_to_each_mapping() {
    on_three_devices(Schedule::Eager, |_, contexts| {
        use wharf::sys::bindings::{CUmemLocation, CUmemLocationType};
        let memory = shared(contexts);
        let granule = memory.granularity();
        for offset in [0, 3 * granule] {
            // SAFETY: the ranges are not committed, and nothing else uses the resource.
            unsafe { memory.commit(offset, granule) }.unwrap();
            let access = [0, 1, 2].map(|id| {
                // SAFETY: an enumeration, a number: zeros are a value.
                let mut location: CUmemLocation = unsafe { std::mem::zeroed() };
                location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
                location.__bindgen_anon_1.id = id;
                let (mut flags, address) = (0, memory.base() + offset as u64);
                let entry = &contexts[0].driver().api().mem_get_access;
                // SAFETY: both are valid for the call.
                unsafe { entry.call(&raw mut flags, &raw const location, address) }.unwrap();
                flags
            });
            assert_eq!(access, [3, 3, 0]);
        }
    });
}

#[test]
fn a_peer_that_does_not_reach_the_device_is_refused() {
    on_three_devices(Schedule::Eager, |machine, contexts| {
        let peers = [contexts[1].device().clone(), contexts[2].device().clone()];
        assert!(peers[0].can_access(contexts[0].device()).unwrap());
        assert!(peers[0].can_access(&peers[0]).unwrap());
        machine.fail("cuDeviceCanAccessPeer", 1, CudaError::UNKNOWN);
        let options = DeviceOptions::default().peers(&peers);
        let refused = DeviceMemoryResource::with_options(&contexts[0], 64 * MIB, options.clone())
            .unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::UNKNOWN));
        // The driver refuses access for a peer: the probe says so, and no commit has to.
        machine.fail("cuMemSetAccess", 1, CudaError::INVALID_DEVICE);
        let refused = DeviceMemoryResource::with_options(&contexts[0], 64 * MIB, options.clone())
            .unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::INVALID_DEVICE));
        let memory = DeviceMemoryResource::with_options(&contexts[0], 64 * MIB, options).unwrap();
        assert_eq!(memory.granted().peers, [1, 2]);
    });
}

/// A device without virtual memory management: access is the contexts'.
#[test]
fn memory_that_is_not_mapped_is_given_to_the_context_of_a_peer() {
    let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED.as_raw();
    let config = Config {
        devices: 2,
        attributes: vec![(attribute, 0)],
        checks: Checks::ALL,
        ..Config::default()
    };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let [own, peer] = [0, 1].map(|at| Context::retain(&driver.device(at).unwrap()).unwrap());
        peer.enable_peer(&own).unwrap();
        peer.enable_peer(&own).unwrap();
        let options = DeviceOptions::default().peers(&[peer.device().clone()]);
        let memory = DeviceMemoryResource::with_options(&own, 64 * MIB, options).unwrap();
        let pool: Pool = Pool::builder().max_bytes(8 * MIB).build(memory).unwrap();
        let stream = Stream::new(&peer).unwrap();
        let block: Buffer<u8> = pool.alloc(MIB, &stream).unwrap();
        block.fill(5, &stream).unwrap();
        let mut back = vec![0; MIB];
        block.copy_to_slice(&mut back, &stream).unwrap();
        assert!(back.iter().all(|byte| *byte == 5));
    });
    assert_eq!(machine.violations(), []);
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
