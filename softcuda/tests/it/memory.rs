//! Device, pinned and registered memory: what succeeds, and the code where it does not.

use std::ptr;

use softcuda::{Check, Config, Grace, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::CUdevice_attribute;

use crate::support::{Rig, code};

#[test]
fn size_zero_is_refused_and_null_may_be_freed() {
    let rig = Rig::new(Schedule::Async);
    let mut device = 0;
    unsafe {
        assert_eq!(code(rig.api.mem_alloc.call(&raw mut device, 0)), CudaError::INVALID_VALUE);
        assert_eq!(
            code(rig.api.mem_alloc_managed.call(&raw mut device, 0, 1)),
            CudaError::INVALID_VALUE
        );
        rig.api.mem_free.call(0).unwrap();
        rig.api.mem_free_host.call(ptr::null_mut()).unwrap();
    }
}

#[test]
fn pinned_memory_of_size_zero_is_a_success_without_memory() {
    let rig = Rig::new(Schedule::Async);
    let before = rig.simulator.leaks();
    let mut host = ptr::dangling_mut();
    unsafe {
        rig.api.mem_host_alloc.call(&raw mut host, 0, 0).unwrap();
        assert!(host.is_null());
        rig.api.mem_free_host.call(host).unwrap();
    }
    assert_eq!(rig.simulator.leaks(), before);
}

#[test]
fn allocated_pinned_memory_cannot_be_unregistered() {
    let rig = Rig::new(Schedule::Async);
    let pinned = rig.pinned(4096).as_mut_ptr();
    unsafe {
        let result = rig.api.mem_host_unregister.call(pinned.cast());
        assert_eq!(code(result), CudaError::INVALID_VALUE);
        assert_eq!(
            code(rig.api.mem_host_unregister.call(ptr::null_mut())),
            CudaError::INVALID_VALUE
        );
        rig.api.mem_free_host.call(pinned.cast()).unwrap();
    }
}

/// `CU_MEMHOSTREGISTER_READ_ONLY`
const READ_ONLY: u32 = 8;

/// A page that the process may only read.
fn read_only_page() -> *mut std::ffi::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page
}

#[test]
fn a_device_write_to_a_read_only_registration_is_refused_and_no_crash() {
    let rig = Rig::new(Schedule::Async);
    let (device, stream, page) = (rig.device(4096), rig.stream(1), read_only_page());
    unsafe { rig.api.mem_host_register.call(page, 4096, READ_ONLY) }.unwrap();
    // Pages that the host may write are read-only to the device all the same.
    let mut writable = vec![5_u8; 3 * 4096];
    let base = writable.as_mut_ptr();
    let writable = base.wrapping_add(base.align_offset(4096));
    unsafe { rig.api.mem_host_register.call(writable.cast(), 4096, READ_ONLY) }.unwrap();
    for host in [page, writable.cast()] {
        let address = host.addr() as u64;
        let writes = unsafe {
            [
                rig.api.memcpy_dtoh.call(host, device, 8),
                rig.api.memcpy_dtoh_async.call(host, device, 8, stream),
                rig.api.memset_d8_async.call(address, 1, 8, stream),
                rig.api.stream_write_value_32.call(stream, address, 1, 0),
            ]
        };
        for write in writes {
            assert_eq!(code(write), CudaError::INVALID_VALUE);
        }
        unsafe { rig.api.memcpy_htod_async.call(device, host, 4096, stream) }.unwrap();
        rig.synchronize(stream);
        unsafe { rig.api.mem_host_unregister.call(host) }.unwrap();
    }
    assert_eq!(rig.read(device, 4096), [5; 4096]);
    unsafe { libc::munmap(page, 4096) };
}

#[test]
fn registration_asks_for_what_pages_and_devices_allow() {
    let rig = Rig::new(Schedule::Async);
    let page = read_only_page();
    let result = unsafe { rig.api.mem_host_register.call(page, 4096, 0) };
    assert_eq!(code(result), CudaError::INVALID_VALUE, "read-only pages need the flag");
    let mut memory = [0_u8; 64];
    let memory = memory.as_mut_ptr().cast();
    for (attribute, flags, expected) in [
        (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 0, false),
        (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, READ_ONLY, false),
        (
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
            READ_ONLY,
            false,
        ),
        (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 0, true),
    ] {
        let rig = Rig::with(Config { attributes: vec![(attribute, 0)], ..Rig::config() });
        let result = unsafe { rig.api.mem_host_register.call(memory, 64, flags) };
        if expected {
            unsafe { rig.api.mem_host_unregister.call(memory) }.unwrap();
        } else {
            assert_eq!(code(result), CudaError::NOT_SUPPORTED, "{attribute:?} {flags}");
        }
    }
    unsafe { libc::munmap(page, 4096) };
}

#[test]
fn three_quarters_of_the_memory_cost_nothing_until_touched() {
    let rig = Rig::with(Config { device_memory: 1 << 40, ..Rig::config() });
    let (mut free, mut total) = (0, 0);
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!((free, total), (1 << 40, 1 << 40));
    let pointer = rig.device(total / 4 * 3);
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!(free, total / 4);
    let mut more = 0;
    let result = unsafe { rig.api.mem_alloc.call(&raw mut more, total / 2) };
    assert_eq!(code(result), CudaError::OUT_OF_MEMORY);
    unsafe { rig.api.mem_free.call(pointer) }.unwrap();
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!(free, total);
}

#[test]
fn a_second_free_and_a_free_inside_an_allocation_are_refused() {
    let rig = Rig::new(Schedule::Async);
    let pointer = rig.device(512);
    unsafe {
        assert_eq!(code(rig.api.mem_free.call(pointer + 8)), CudaError::INVALID_VALUE);
        rig.api.mem_free.call(pointer).unwrap();
        assert_eq!(code(rig.api.mem_free.call(pointer)), CudaError::INVALID_VALUE);
        let result = rig.api.mem_get_address_range.call(ptr::null_mut(), ptr::null_mut(), pointer);
        assert_eq!(code(result), CudaError::NOT_FOUND);
    }
}

#[test]
fn registration_knows_overlaps_interiors_and_strangers() {
    let rig = Rig::new(Schedule::Async);
    let mut memory = vec![0_u8; 3 * 4096];
    let base = memory.as_mut_ptr();
    let at = |offset: usize| base.wrapping_add(offset).cast();
    unsafe {
        rig.api.mem_host_register.call(at(0), 2 * 4096, 0).unwrap();
        let overlap = rig.api.mem_host_register.call(at(4096), 2 * 4096, 0);
        assert_eq!(code(overlap), CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        assert_eq!(code(rig.api.mem_host_unregister.call(at(16))), CudaError::INVALID_VALUE);
        let stranger = rig.api.mem_host_unregister.call(at(2 * 4096 + 64));
        assert_eq!(code(stranger), CudaError::HOST_MEMORY_NOT_REGISTERED);
        let free = rig.api.mem_free_host.call(at(0));
        assert_eq!(code(free), CudaError::INVALID_VALUE);
        rig.api.mem_host_unregister.call(at(0)).unwrap();
        assert_eq!(
            code(rig.api.mem_host_unregister.call(at(0))),
            CudaError::HOST_MEMORY_NOT_REGISTERED
        );
    }
}

#[test]
fn the_device_may_see_registered_memory_elsewhere() {
    let rig = Rig::with(Config { registered_alias: true, ..Rig::config() });
    let mut memory = vec![7_u8; 4096];
    let (host, device) = (memory.as_mut_ptr(), rig.device(4096));
    let mut alias = 0;
    unsafe {
        rig.api.mem_host_register.call(host.cast(), 4096, 0).unwrap();
        rig.api.mem_host_get_device_pointer.call(&raw mut alias, host.cast(), 0).unwrap();
        assert_ne!(alias, host.addr() as u64);
        rig.api.memcpy_dtod.call(device, alias, 4096).unwrap();
        assert_eq!(rig.read(device, 4096), memory);
        rig.api.mem_host_unregister.call(host.cast()).unwrap();
    }
}

#[test]
fn a_copy_that_leaves_its_allocation_is_refused_and_reported() {
    let rig = Rig::new(Schedule::Async);
    let (device, source) = (rig.device(64), [0_u8; 128]);
    let result = unsafe { rig.api.memcpy_htod.call(device + 1, source.as_ptr().cast(), 64) };
    assert_eq!(code(result), CudaError::INVALID_VALUE);
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].check, violations[0].call), (Check::Bounds, "cuMemcpyHtoD"));
}

#[test]
fn a_copy_across_two_registrations_or_out_of_one_is_refused() {
    let rig = Rig::new(Schedule::Async);
    let mut memory = vec![7_u8; 5 * 4096];
    let base = memory.as_mut_ptr();
    let first = base.wrapping_add(base.align_offset(4096));
    let (device, stream) = (rig.device(3 * 4096), rig.stream(1));
    unsafe {
        rig.api.mem_host_register.call(first.wrapping_add(4096).cast(), 4096, 0).unwrap();
        rig.api.mem_host_register.call(first.wrapping_add(2 * 4096).cast(), 4096, 0).unwrap();
        // Across both, out of the last, from pageable memory into the first, over all.
        for (offset, size) in [(8000, 500), (12_000, 500), (4000, 500), (0, 3 * 4096)] {
            let host = first.wrapping_add(offset).cast::<core::ffi::c_void>();
            let results = [
                rig.api.memcpy_htod.call(device, host, size),
                rig.api.memcpy_dtoh.call(host, device, size),
                rig.api.memcpy_htod_async.call(device, host, size, stream),
                rig.api.memcpy_dtoh_async.call(host, device, size, stream),
                rig.api.memset_d8_async.call(host.addr() as u64, 1, size, stream),
            ];
            for result in results {
                assert_eq!(code(result), CudaError::INVALID_VALUE, "{size} bytes at {offset}");
            }
        }
        // Up to a border is in one.
        rig.api.memcpy_htod.call(device, first.wrapping_add(8000).cast(), 192).unwrap();
        rig.api.memcpy_htod.call(device, first.wrapping_add(3 * 4096).cast(), 100).unwrap();
        rig.api.mem_host_unregister.call(first.wrapping_add(4096).cast()).unwrap();
        rig.api.mem_host_unregister.call(first.wrapping_add(2 * 4096).cast()).unwrap();
    }
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 20, "{violations:?}");
    assert!(violations.iter().all(|violation| violation.check == Check::Bounds));
}

#[test]
fn an_operation_on_memory_freed_too_early_is_reported_and_harmless() {
    let rig = Rig::new(Schedule::Late);
    let (stream, device) = (rig.stream(1), rig.device(64));
    unsafe {
        rig.api.memset_d8_async.call(device, 1, 64, stream).unwrap();
        rig.api.mem_free.call(device).unwrap();
        rig.synchronize(stream);
    }
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].check, violations[0].call), (Check::UseAfterFree, "cuMemsetD8Async"));
    assert_eq!(violations[0].stream, stream.addr() as u64);
}

#[test]
fn fresh_memory_is_poisoned_where_asked() {
    let rig = Rig::new(Schedule::Async);
    let device = rig.device(64);
    assert_eq!(rig.read(device, 64), [0xA5; 64]);
}

/// The first and last bytes of fresh device memory.
fn fresh(config: Config) -> [u8; 2] {
    let rig = Rig::with(config);
    let bytes = rig.read(rig.device(5000), 5000);
    [bytes[0], bytes[4999]]
}

#[test]
fn fresh_memory_is_not_zero_in_late_and_random() {
    let plain = |schedule| Config { schedule, grace: Grace::Never, ..Config::default() };
    for schedule in [Schedule::Async, Schedule::Eager] {
        assert_eq!(fresh(plain(schedule)), [0; 2], "{schedule:?}");
        assert_eq!(
            fresh(Config { poison: Some(true), ..plain(schedule) }),
            [0xA5; 2],
            "{schedule:?}"
        );
    }
    for schedule in [Schedule::Late, Schedule::Random(1)] {
        assert_eq!(fresh(plain(schedule)), [0xA5; 2], "{schedule:?}");
        assert_eq!(
            fresh(Config { poison: Some(false), ..plain(schedule) }),
            [0; 2],
            "{schedule:?}"
        );
    }
}

#[test]
fn device_memory_may_begin_at_multiples_of_256_bytes_and_no_more() {
    for (least_alignment, offset) in [(false, 0), (true, 256)] {
        let rig = Rig::with(Config { least_alignment, recycle: Some(true), ..Rig::config() });
        for size in [1, 3840, 4096, 100_000] {
            let (device, mut pooled, stream) = (rig.device(size), 0, rig.stream(1));
            unsafe { rig.api.mem_alloc_async.call(&raw mut pooled, size, stream) }.unwrap();
            rig.synchronize(stream);
            assert_eq!([device % 4096, pooled % 4096], [offset; 2]);
            unsafe {
                rig.api.memset_d8.call(device, 7, size).unwrap();
                rig.api.memset_d8.call(pooled, 8, size).unwrap();
            }
            assert_eq!(rig.read(device, size), vec![7; size]);
            assert_eq!(rig.read(pooled, size), vec![8; size]);
            let past = unsafe { rig.api.memset_d8.call(device, 7, size + 1) };
            assert_eq!(code(past), CudaError::INVALID_VALUE);
            unsafe { rig.api.mem_free.call(device) }.unwrap();
            unsafe { rig.api.mem_free_async.call(pooled, stream) }.unwrap();
        }
        assert_eq!(rig.pinned(1).as_ptr().addr() % 4096, 0, "pinned memory is of pages");
    }
}

#[test]
fn pinned_memory_has_a_ceiling() {
    let rig = Rig::with(Config { host_memory: 8192, ..Rig::config() });
    rig.pinned(8192);
    let mut more = ptr::null_mut();
    assert_eq!(
        code(unsafe { rig.api.mem_host_alloc.call(&raw mut more, 1, 0) }),
        CudaError::OUT_OF_MEMORY
    );
    assert!(more.is_null());
}

#[test]
fn a_copy_onto_its_own_source_is_reported() {
    let rig = Rig::new(Schedule::Async);
    let (device, stream) = (rig.device(64), rig.stream(1));
    let copy = |to: u64, from: u64| unsafe {
        rig.api.memcpy_dtod_async.call(device + to, device + from, 16, stream).unwrap();
        rig.synchronize(stream);
    };
    copy(16, 0);
    copy(0, 16);
    assert_eq!(rig.simulator.violations(), []);
    copy(15, 0);
    copy(0, 15);
    copy(8, 8);
    let violations = rig.simulator.violations();
    // The check `race` reports each as well.
    let overlaps: Vec<_> =
        violations.iter().filter(|known| known.check == Check::Overlap).collect();
    assert_eq!(overlaps.len(), 3, "{violations:?}");
    assert_eq!(overlaps[0].call, "cuMemcpyDtoDAsync");
}

/// What a copy of four pages onto the pages before leaves there, page by page.
fn moved_down(schedule: Schedule) -> Vec<u8> {
    const PAGE: usize = 4096;
    let rig = Rig::new(schedule);
    let (device, stream) = (rig.device(5 * PAGE), rig.stream(1));
    for page in 0..5 {
        let at = device + (page * PAGE) as u64;
        unsafe { rig.api.memset_d8.call(at, u8::try_from(page).unwrap(), PAGE) }.unwrap();
    }
    rig.synchronize(ptr::null_mut());
    unsafe { rig.api.memcpy_dtod_async.call(device, device + PAGE as u64, 4 * PAGE, stream) }
        .unwrap();
    rig.synchronize(stream);
    rig.read(device, 4 * PAGE).chunks(PAGE).map(|page| page[17]).collect()
}

/// The order shows where a copy overwrites its own source, which no program may do.
#[test]
fn the_last_bytes_of_a_copy_may_arrive_first() {
    assert_eq!(moved_down(Schedule::Async), [1, 2, 3, 4]);
    assert_eq!(moved_down(Schedule::Eager), [1, 2, 3, 4]);
    assert_eq!(moved_down(Schedule::Late), [4, 4, 4, 4], "the last page first");
    let orders: Vec<_> = (0..20).map(|seed| moved_down(Schedule::Random(seed))).collect();
    assert!(orders.iter().any(|pages| *pages != orders[0]), "{orders:?}");
    assert_eq!(moved_down(Schedule::Random(3)), orders[3], "one seed gives one order");
}
