//! A stream of one device does not get memory of another.

use std::sync::Arc;

use wharf::memory::{
    DeviceMemoryResource, ManagedMemoryResource, PinnedMemoryResource, PinnedOptions,
};
use wharf::pool::{Buffer, Pool};
use wharf::tier::{Tier, TierError, TieredPool};
use wharf::{Context, Error, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::deadline::LONG;

const REFUSED: Error = Error::OtherDevice { stream: 1, memory: 0 };

/// The contexts of two devices.
fn on_two_devices(test: impl FnOnce(&Arc<Simulator>, &Context, &Context)) {
    let machine = Arc::new(Simulator::new(Config { devices: 2, ..Config::default() }));
    on_machine(&machine, |driver| {
        let [one, two] =
            [0, 1].map(|ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap());
        test(&machine, &one, &two);
    });
}

#[test]
fn memory_of_another_device_is_refused_by_name_before_anything_is_submitted() {
    on_two_devices(|machine, one, two| {
        let pool =
            Pool::builder().build(DeviceMemoryResource::new(one, 64 << 20).unwrap()).unwrap();
        let (own, other) = (Stream::new(one).unwrap(), Stream::new(two).unwrap());
        let buffer: Buffer<u8> = pool.alloc(1000, &own).unwrap();
        buffer.fill(9, &own).unwrap();
        let theirs =
            Pool::builder().build(DeviceMemoryResource::new(two, 64 << 20).unwrap()).unwrap();
        let target: Buffer<u8> = theirs.alloc(1000, &other).unwrap();
        other.timeline().unwrap();
        let _scope = two.enter().unwrap();
        let before = machine.all_calls();
        let refused = pool.alloc::<u8>(1000, &other).unwrap_err();
        assert_eq!(refused, REFUSED.into());
        let text = refused.to_string();
        assert!(text.contains("device 1") && text.contains("device 0"), "{text}");
        assert_eq!(buffer.fill(1, &other), Err(REFUSED));
        assert_eq!(target.copy_from(&buffer, &other), Err(REFUSED));
        assert_eq!(buffer.copy_from_slice(&[1; 1000], &other), Err(REFUSED));
        assert_eq!(buffer.record_use(&other), Err(REFUSED));
        assert_eq!(machine.all_calls(), before, "the driver was called");
        assert_eq!(buffer.copy_to_slice(&mut [0; 1000], &other), Err(REFUSED));
    });
}

#[test]
fn a_use_that_was_refused_costs_the_memory_nothing() {
    on_two_devices(|_, one, two| {
        let pool =
            Pool::builder().build(DeviceMemoryResource::new(one, 64 << 20).unwrap()).unwrap();
        let (own, other) = (Stream::new(one).unwrap(), Stream::new(two).unwrap());
        let buffer: Buffer<u8> = pool.alloc(1000, &own).unwrap();
        assert_eq!(buffer.fill(1, &other), Err(REFUSED));
        drop(buffer);
        assert_eq!(pool.stats().leaked, 0);
    });
}

#[test]
fn host_and_managed_memory_is_for_streams_of_all_devices() {
    on_two_devices(|_, one, two| {
        let stream = Stream::new(two).unwrap();
        let pinned = PinnedMemoryResource::new(one, 4 << 20, PinnedOptions::default()).unwrap();
        let pinned = Pool::builder().build(pinned).unwrap();
        let managed =
            Pool::builder().build(ManagedMemoryResource::new(one, 4 << 20).unwrap()).unwrap();
        for pool in [pinned, managed] {
            let mut buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
            buffer.fill(5, &stream).unwrap();
            assert_eq!(buffer.host_mut(LONG).unwrap(), [5; 1000], "{:?}", pool.kind());
        }
    });
}

#[test]
fn an_object_in_the_devices_tier_is_refused_to_a_stream_of_another_device() {
    on_two_devices(|_, one, two| {
        let pool =
            TieredPool::builder(one).device(8 << 20).pinned(8 << 20).wait(LONG).build().unwrap();
        let (own, other) = (Stream::new(one).unwrap(), Stream::new(two).unwrap());
        let mut object = pool.alloc(1000, Tier::Pinned).unwrap();
        object.pin_mut(Tier::Pinned, &other).unwrap().copy_from_slice(&[3; 1000]).unwrap();
        assert_eq!(object.pin(Tier::Device, &other).unwrap_err(), TierError::Driver(REFUSED));
        assert_eq!(object.tier(), Tier::Pinned, "it was not moved for that");
        drop(object.pin(Tier::Device, &own).unwrap());
        assert_eq!(object.pin_here(&other).unwrap_err(), TierError::Driver(REFUSED));
        // Nothing holds it.
        object.pin_mut(Tier::Device, &own).unwrap().copy_from_slice(&[4; 1000]).unwrap();
    });
}
