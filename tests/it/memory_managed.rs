#![expect(unsafe_code, reason = "takes the software driver's functions")]
//! Advice about managed memory, and moves of it.

use std::ptr;
use std::sync::Arc;

use wharf::memory::{Advice, Location, ManagedMemoryResource};
use wharf::sys::Row;
use wharf::{CudaError, Driver, Error, Stream};

use ::softcuda::entry_point as softcuda_entry;

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::memory_kinds::{commit, context_of, pattern, read, write};

on_each_driver!(advice_and_moves_keep_the_bytes, ranges_beyond_the_span_are_refused);

const SIZE: usize = 8 << 20;

fn every_advice<'a>(place: Location<'a>) -> [Advice<'a>; 6] {
    [
        Advice::ReadMostly,
        Advice::NotReadMostly,
        Advice::PreferredLocation(place),
        Advice::NoPreferredLocation,
        Advice::AccessedBy(place),
        Advice::NotAccessedBy(place),
    ]
}

fn advice_and_moves_keep_the_bytes(driver: &Driver) {
    let context = context_of(driver);
    let resource = ManagedMemoryResource::new(&context, SIZE).unwrap();
    let stream = Stream::new(&context).unwrap();
    commit(&resource, 0, SIZE).unwrap();
    let address = resource.device_address(0, SIZE).unwrap();
    write(&context, address, &pattern(7, SIZE));
    for place in [Location::Device(context.device()), Location::Host] {
        for advice in every_advice(place) {
            resource.advise(4096, SIZE - 4096, advice).unwrap();
        }
        resource.prefetch(0, SIZE, place, &stream).unwrap();
        stream.synchronize().unwrap();
        assert!(read(&context, address, SIZE) == pattern(7, SIZE));
    }
}

fn ranges_beyond_the_span_are_refused(driver: &Driver) {
    let context = context_of(driver);
    let resource = ManagedMemoryResource::new(&context, SIZE).unwrap();
    let stream = Stream::new(&context).unwrap();
    for (offset, len) in [(0, SIZE + 1), (SIZE, 1), (usize::MAX, 2), (0, 0)] {
        let advised = resource.advise(offset, len, Advice::ReadMostly).unwrap_err();
        let moved = resource.prefetch(offset, len, Location::Host, &stream).unwrap_err();
        assert_eq!([advised.code(), moved.code()], [Some(CudaError::INVALID_VALUE); 2]);
    }
}

#[test]
fn a_driver_before_12_2_knows_devices_and_the_host() {
    let machine = Arc::new(Simulator::new(Config { version: 12_010, ..Config::default() }));
    on_machine(&machine, |_| {
        let older = |row: &Row| row.required || row.version <= 12_010;
        let entry = |row: &Row| {
            if older(row) { softcuda_entry(row.name, row.version) } else { ptr::null_mut() }
        };
        // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
        let driver = &unsafe { Driver::from_fns(entry) }.unwrap();
        advice_and_moves_keep_the_bytes(driver);
        let context = context_of(driver);
        let resource = ManagedMemoryResource::new(&context, SIZE).unwrap();
        let node = Advice::PreferredLocation(Location::HostNode(0));
        let refused = resource.advise(0, SIZE, node).unwrap_err();
        assert_eq!(refused, Error::Unsupported { call: "cuMemAdvise", introduced: 12_020 });
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
