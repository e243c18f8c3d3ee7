//! The resources on devices that lack something, and the balance of their calls.

use std::io::Write;
use std::sync::Arc;

use wharf::Driver;
use wharf::memory::{
    Backing, DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, MemoryResource,
    PinnedMemoryResource, PinnedOptions, WriteCombinedMemoryResource,
};
use wharf::sys::bindings::CUdevice_attribute as Attribute;

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_conformance::suite;
use crate::memory_kinds::{
    Kind, assert_balanced, commit, context_of, decommit, host_bytes, memory_file, pattern, read, write,
};

const SIZE: usize = 32 << 20;

fn without(attribute: Attribute) -> Config {
    Config { attributes: vec![(attribute, 0)], ..Config::default() }
}

/// Runs a test on a machine and sees that it leaves nothing behind.
fn on<T>(config: &Config, test: impl FnOnce(&Driver, &Simulator) -> T) -> T {
    let machine = Arc::new(Simulator::new(config.clone()));
    let result = on_machine(&machine, |driver| test(driver, &machine));
    assert_eq!(machine.leaks(), Vec::<String>::new());
    assert_balanced(&machine);
    result
}

/// Runs the whole suite on machines of a shape.
fn conforms<R: Kind>(config: &Config) {
    for test in suite::<R>() {
        on(config, |driver, _| test(driver));
    }
}

#[test]
fn calls_that_take_and_give_are_equal_in_number() {
    let config = Config::default();
    conforms::<PinnedMemoryResource>(&config);
    conforms::<WriteCombinedMemoryResource>(&config);
    conforms::<DeviceMemoryResource>(&config);
    conforms::<ManagedMemoryResource>(&config);
    conforms::<FileMappedMemoryResource>(&config);
}

#[test]
fn a_device_without_virtual_memory_gets_one_allocation() {
    let config = without(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
    on(&config, |driver, machine| {
        let resource = DeviceMemoryResource::make(&context_of(driver), SIZE).unwrap();
        assert_eq!(resource.report().backing, Backing::Whole);
        let calls = machine.all_calls();
        commit(&resource, 0, SIZE).unwrap();
        assert_eq!(machine.all_calls(), calls, "a commit only keeps account");
    });
    conforms::<DeviceMemoryResource>(&config);
}

#[test]
fn a_driver_that_cannot_register_allocates() {
    let config = without(Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED);
    on(&config, |driver, machine| {
        let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
        assert_eq!(resource.report().backing, Backing::Whole);
        assert_eq!((machine.calls("cuMemHostAlloc"), machine.calls("cuMemHostRegister")), (1, 0));
    });
    conforms::<PinnedMemoryResource>(&config);
}

#[test]
fn registered_memory_may_have_another_address_on_the_device() {
    let config = Config { registered_alias: true, ..Config::default() };
    on(&config, |driver, _| {
        let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
        commit(&resource, 0, SIZE).unwrap();
        let device = resource.device_address(4096, 1).unwrap();
        assert_ne!(device, resource.base() + 4096);
        let asked = resource.device_address(SIZE - 1, 1).unwrap();
        assert_eq!(asked - device, SIZE as u64 - 1 - 4096);
    });
    conforms::<PinnedMemoryResource>(&config);
    conforms::<FileMappedMemoryResource>(&config);
}

#[test]
fn a_registration_is_no_longer_than_its_limit() {
    on(&Config::default(), |driver, machine| {
        let context = context_of(driver);
        let options = PinnedOptions::default().piece_limit(5 << 20);
        let resource = PinnedMemoryResource::new(&context, SIZE, options).unwrap();
        commit(&resource, 0, 20 << 20).unwrap();
        // 6 MiB, rounded up, and a rest of 2 MiB.
        assert_eq!(machine.calls("cuMemHostRegister"), 4);
        assert_eq!(resource.report().registered, 20 << 20);
        let device = resource.device_address(7 << 20, 1000).unwrap();
        write(&context, device, &pattern(3, 1000));
        assert!(read(&context, device, 1000) == pattern(3, 1000));
        decommit(&resource, 0, 20 << 20).unwrap();
        assert_eq!(machine.calls("cuMemHostUnregister"), 4);
    });
}

#[test]
fn a_file_is_read_by_the_device_where_it_can_be_registered() {
    on(&Config::default(), |driver, machine| {
        let context = context_of(driver);
        let (len, mut file) = ((5 << 20) + 77, memory_file());
        let bytes = pattern(9, len);
        file.write_all(&bytes).unwrap();
        let resource = FileMappedMemoryResource::read_only(&context, &file).unwrap();
        assert_eq!(resource.size(), 6 << 20);
        commit(&resource, 0, 4 << 20).unwrap();
        commit(&resource, 4 << 20, 2 << 20).unwrap();
        assert_eq!(machine.calls("cuMemHostRegister"), 2);
        let device = resource.device_address(4 << 20, (1 << 20) + 77).unwrap();
        assert!(read(&context, device, (1 << 20) + 77) == bytes[4 << 20..]);
        assert_eq!(resource.device_address(4 << 20, 2 << 20), None, "the file ends before");
    });
}

#[test]
fn a_file_that_cannot_be_registered_is_plain_memory() {
    let cannot = [
        Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
        Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED,
    ];
    for attribute in cannot {
        on(&without(attribute), |driver, machine| {
            let context = context_of(driver);
            let mut file = memory_file();
            file.write_all(&pattern(5, 5000)).unwrap();
            let resource = FileMappedMemoryResource::read_only(&context, &file).unwrap();
            commit(&resource, 0, resource.size()).unwrap();
            let report = resource.report();
            assert_eq!((report.committed, report.registered, report.pages.plain), (2 << 20, 0, 8192));
            assert_eq!((resource.device_address(0, 1), machine.calls("cuMemHostRegister")), (None, 0));
            assert!(host_bytes(resource.base(), 5000) == pattern(5, 5000));
            decommit(&resource, 0, resource.size()).unwrap();
        });
    }
}

#[test]
fn a_scratch_file_has_blocks_only_where_it_is_committed() {
    use std::os::unix::fs::MetadataExt;
    on(&Config::default(), |driver, _| {
        let file = memory_file();
        let resource = FileMappedMemoryResource::scratch(&context_of(driver), &file, SIZE).unwrap();
        let blocks = || file.metadata().unwrap().blocks() * 512;
        assert_eq!((file.metadata().unwrap().len(), blocks()), (SIZE as u64, 0));
        commit(&resource, 4 << 20, 8 << 20).unwrap();
        assert_eq!(blocks(), 8 << 20);
        decommit(&resource, 4 << 20, 8 << 20).unwrap();
        assert_eq!(blocks(), 0);
    });
}

#[test]
fn an_empty_file_is_an_empty_span() {
    on(&Config::default(), |driver, machine| {
        let resource = FileMappedMemoryResource::read_only(&context_of(driver), &memory_file()).unwrap();
        commit(&resource, 0, resource.size()).unwrap();
        assert_eq!((resource.report().registered, machine.calls("cuMemHostRegister")), (0, 0));
    });
}
