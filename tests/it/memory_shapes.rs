//! The resources on devices that lack something, and the balance of their calls.

use std::io::Write;
use std::sync::Arc;

use wharf::Driver;
use wharf::memory::{
    Backing, DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, MemoryResource,
    PinnedMemoryResource, PinnedOptions, WriteCombinedMemoryResource,
};
use wharf::slab::{PoolError, PoolOptions, SlabPool};
use wharf::sys::bindings::CUdevice_attribute as Attribute;
use wharf::tier::{TierError, TieredPool};

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_conformance::suite;
use crate::memory_kinds::{
    Kind, assert_balanced, commit, context_of, decommit, host_bytes, memory_file, pattern, read,
    write,
};

const SIZE: usize = 32 << 20;

fn without(attribute: Attribute) -> Config {
    Config { attributes: vec![(attribute, 0)], ..Config::default() }
}

/// Runs a test on a machine and sees that it leaves nothing behind, and that no call was refused
/// that takes something.
fn on<T>(config: &Config, test: impl FnOnce(&Driver, &Simulator) -> T) -> T {
    let machine = Arc::new(Simulator::new(config.clone()));
    let result = refusing(&machine, test);
    assert_balanced(&machine);
    result
}

/// Runs a test on a machine that refuses calls, and sees that it leaves nothing behind.
fn refusing<T>(machine: &Arc<Simulator>, test: impl FnOnce(&Driver, &Simulator) -> T) -> T {
    let result = on_machine(machine, |driver| test(driver, machine));
    assert_eq!(machine.leaks(), Vec::<String>::new());
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
        assert_eq!((resource.report().backing, machine.calls("cuMemAlloc")), (Backing::Whole, 0));
        commit(&resource, 0, SIZE / 2).unwrap();
        assert_eq!(machine.calls("cuMemAlloc"), 1);
        let calls = machine.all_calls();
        commit(&resource, SIZE / 2, SIZE / 2).unwrap();
        assert_eq!(machine.all_calls(), calls, "a later commit only keeps account");
    });
    conforms::<DeviceMemoryResource>(&config);
}

#[test]
fn a_driver_that_cannot_register_allocates() {
    let config = without(Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED);
    on(&config, |driver, machine| {
        let resource = PinnedMemoryResource::make(&context_of(driver), SIZE).unwrap();
        assert_eq!(resource.report().backing, Backing::Whole);
        assert_eq!(
            machine.calls("cuMemHostAlloc"),
            0,
            "nothing is taken before it is known how much"
        );
        commit(&resource, 0, SIZE).unwrap();
        assert_eq!((machine.calls("cuMemHostAlloc"), machine.calls("cuMemHostRegister")), (1, 0));
    });
    conforms::<PinnedMemoryResource>(&config);
}

const GIB: usize = 1 << 30;

/// A machine that lacks what resources reserve addresses by, with 3 GiB on the device and to pin.
fn of_three_gib() -> Config {
    let lacking = [
        Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED,
    ];
    let (device_memory, host_memory) = (3 << 30, 3 << 30);
    let attributes = lacking.map(|attribute| (attribute, 0)).to_vec();
    Config { attributes, device_memory, host_memory, ..Config::default() }
}

/// Two pools of 1 GiB each on spans of 8 GiB, both full.
fn two_limited_pools_fit<R: Kind>() {
    on(&of_three_gib(), |driver, _| {
        let context = context_of(driver);
        let pools = [(); 2].map(|()| {
            let options = PoolOptions::default().max_bytes(GIB + 5);
            SlabPool::new(R::make(&context, 8 * GIB).unwrap(), options).unwrap()
        });
        for pool in &pools {
            let whole = pool.alloc(GIB).unwrap();
            assert!(pool.alloc(1).is_err());
            let offset = usize::try_from(whole.address() - pool.upstream().base()).unwrap();
            let device = pool.upstream().device_address(offset, GIB).unwrap() + (GIB - 9) as u64;
            write(&context, device, &pattern(2, 9));
            assert!(read(&context, device, 9) == pattern(2, 9));
            pool.dealloc(whole).unwrap();
        }
    });
}

#[test]
fn two_limited_pools_fit_a_device_without_virtual_memory() {
    two_limited_pools_fit::<DeviceMemoryResource>();
}

#[test]
fn two_limited_pools_fit_a_host_whose_memory_cannot_be_registered() {
    two_limited_pools_fit::<PinnedMemoryResource>();
}

#[test]
fn two_limited_pools_of_managed_and_of_write_combined_memory_fit() {
    two_limited_pools_fit::<ManagedMemoryResource>();
    two_limited_pools_fit::<WriteCombinedMemoryResource>();
}

#[test]
fn a_pool_whose_one_allocation_is_refused_says_what_there_is_and_what_to_do() {
    refusing(&Arc::new(Simulator::new(of_three_gib())), |driver, machine| {
        let context = context_of(driver);
        let refused = |pool: Result<SlabPool<_>, PoolError>| {
            let PoolError::Upstream { size, cause, physical } = pool.map(drop).unwrap_err() else {
                panic!("another error")
            };
            (
                size,
                cause.call(),
                cause.is_out_of_memory(),
                physical.map(|memory| (memory.free, memory.total)),
            )
        };
        let device =
            |options| SlabPool::new(DeviceMemoryResource::new(&context, 8 * GIB).unwrap(), options);
        let error = device(PoolOptions::default()).map(drop).unwrap_err();
        assert!(error.to_string().contains("3221225472 of 3221225472 bytes"), "{error}");
        assert!(error.to_string().ends_with("set max_bytes, or make the span smaller"), "{error}");
        for (options, size) in [
            (PoolOptions::default(), 8 * GIB),
            (PoolOptions::default().max_bytes(4 * GIB), 4 * GIB),
        ] {
            let all = Some((3 * GIB, 3 * GIB));
            assert_eq!(refused(device(options)), (size, "cuMemAlloc", true, all));
        }
        let pinned = PinnedMemoryResource::make(&context, 8 * GIB).unwrap();
        let host = SlabPool::new(pinned, PoolOptions::default()).map(drop).unwrap_err();
        assert!(
            host.to_string().contains("cuMemHostAlloc: CUDA_ERROR_OUT_OF_MEMORY (2): set"),
            "{host}"
        );
        assert_eq!(machine.leaks().len(), 1, "the context: {:?}", machine.leaks());
    });
}

#[test]
fn a_tier_whose_one_allocation_is_refused_is_refused_when_it_is_made() {
    refusing(&Arc::new(Simulator::new(of_three_gib())), |driver, _| {
        let context = context_of(driver);
        for builder in [
            TieredPool::builder(&context).device(4 * GIB),
            TieredPool::builder(&context).device(GIB).pinned(4 * GIB),
            TieredPool::builder(&context).pinned(GIB).managed(4 * GIB),
        ] {
            let refused = builder.build().map(drop).unwrap_err();
            let TierError::Pool(PoolError::Upstream { size, .. }) = refused else {
                panic!("{refused}")
            };
            assert_eq!(size, 4 * GIB);
        }
        drop(TieredPool::builder(&context).device(2 * GIB).pinned(2 * GIB).build().unwrap());
    });
}

#[test]
fn a_span_that_was_refused_is_had_when_there_is_memory_and_a_base_that_was_told_stays() {
    refusing(&Arc::new(Simulator::new(of_three_gib())), |driver, _| {
        let context = context_of(driver);
        let other = DeviceMemoryResource::make(&context, 2 * GIB).unwrap();
        commit(&other, 0, 2 * GIB).unwrap();
        let mut resource = DeviceMemoryResource::make(&context, 2 * GIB).unwrap();
        let told = DeviceMemoryResource::make(&context, 2 * GIB).unwrap();
        let base = told.base();
        assert_eq!(base % (4 << 20), 0);
        for _ in 0..2 {
            assert!(commit(&resource, 0, 2 << 20).unwrap_err().is_out_of_memory());
            assert!(commit(&told, 0, 2 << 20).unwrap_err().is_out_of_memory());
        }
        assert!(resource.limit_to(2 * GIB).unwrap_err().is_out_of_memory());
        assert_eq!((resource.report().committed, resource.device_address(0, 1)), (0, None));
        drop(other);
        // The pieces of what was refused are free.
        commit(&resource, 0, 2 * GIB).unwrap();
        assert_eq!(resource.device_address(0, 2 * GIB), Some(resource.base()));
        resource.limit_to(GIB).unwrap();
        assert_eq!(resource.size(), 2 * GIB, "what is in use is not made shorter");
        drop(resource);
        assert!(commit(&told, 0, 2 << 20).unwrap_err().is_out_of_memory());
        assert_eq!((told.base(), told.device_address(0, 1)), (base, None));
    });
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
            assert_eq!(
                (report.committed, report.registered, report.pages.plain),
                (2 << 20, 0, 8192)
            );
            assert_eq!(
                (resource.device_address(0, 1), machine.calls("cuMemHostRegister")),
                (None, 0)
            );
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
        let resource =
            FileMappedMemoryResource::read_only(&context_of(driver), &memory_file()).unwrap();
        commit(&resource, 0, resource.size()).unwrap();
        assert_eq!((resource.report().registered, machine.calls("cuMemHostRegister")), (0, 0));
    });
}
