//! Advice about managed memory and what is remembered of it.

use std::ffi::{c_int, c_void};
use std::ptr;

use softcuda::{Config, Schedule};
use wharf_sys::bindings::{
    CUdevice_attribute, CUmem_advise as Advice, CUmem_range_attribute as Attribute,
    CUmemLocationType, PFN_cuMemDiscardBatchAsync_v13000, PFN_cuMemPrefetchBatchAsync_v13000,
    PFN_cuMemRangeGetAttributes_v8000,
};
use wharf_sys::{CudaError, Error};

use crate::support::{Rig, code, device_0, location};

const CPU: c_int = -1;
const NOWHERE: c_int = -2;
const PAGE: usize = 4096;

impl Rig {
    fn managed(&self, size: usize) -> u64 {
        let mut pointer = 0;
        unsafe { self.api.mem_alloc_managed.call(&raw mut pointer, size, 1) }.unwrap();
        pointer
    }

    fn advise(
        &self,
        pointer: u64,
        size: usize,
        advice: Advice,
        device: c_int,
    ) -> Result<(), Error> {
        unsafe { self.api.mem_advise.call(pointer, size, advice, device) }
    }

    fn range<const N: usize>(&self, pointer: u64, size: usize, attribute: Attribute) -> [c_int; N] {
        let mut value = [99; N];
        let to: *mut c_void = value.as_mut_ptr().cast();
        unsafe { self.api.mem_range_get_attribute.call(to, 4 * N, attribute, pointer, size) }
            .unwrap();
        value
    }
}

#[test]
fn advice_is_remembered_for_the_range_it_was_given_for() {
    let rig = Rig::new(Schedule::Async);
    let pointer = rig.managed(4 * PAGE);
    let all = 4 * PAGE;
    rig.advise(pointer, all, Advice::CU_MEM_ADVISE_SET_READ_MOSTLY, 0).unwrap();
    rig.advise(pointer, all, Advice::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CPU).unwrap();
    rig.advise(pointer, all, Advice::CU_MEM_ADVISE_SET_ACCESSED_BY, CPU).unwrap();
    rig.advise(pointer, all, Advice::CU_MEM_ADVISE_SET_ACCESSED_BY, 0).unwrap();
    assert_eq!(rig.range(pointer, all, Attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY), [1]);
    assert_eq!(
        rig.range(pointer, all, Attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION),
        [CPU]
    );
    let accessed = Attribute::CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY;
    assert_eq!(rig.range(pointer, all, accessed), [0, CPU, NOWHERE]);
    let prefetched = Attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION;
    assert_eq!(rig.range(pointer, all, prefetched), [NOWHERE]);
    rig.advise(pointer, PAGE, Advice::CU_MEM_ADVISE_UNSET_READ_MOSTLY, 0).unwrap();
    rig.advise(pointer, 1, Advice::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 0).unwrap();
    rig.advise(pointer, 1, Advice::CU_MEM_ADVISE_UNSET_ACCESSED_BY, 0).unwrap();
    assert_eq!(rig.range(pointer, all, Attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY), [0]);
    assert_eq!(rig.range(pointer, PAGE, Attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION), [0]);
    assert_eq!(
        rig.range(pointer, all, Attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION),
        [NOWHERE]
    );
    assert_eq!(rig.range(pointer, all, accessed), [CPU, NOWHERE]);
    assert_eq!(rig.range(pointer + PAGE as u64, PAGE, accessed), [0, CPU]);
}

#[test]
fn the_last_prefetch_is_remembered_with_its_kind_of_location() {
    let rig = Rig::new(Schedule::Late);
    let (stream, pointer) = (rig.stream(1), rig.managed(2 * PAGE));
    let prefetched = Attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION;
    let kind = Attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE;
    unsafe { rig.api.mem_prefetch_async.call(pointer, 2 * PAGE, 0, stream) }.unwrap();
    assert_eq!(rig.range(pointer, 2 * PAGE, prefetched), [0]);
    assert_eq!(rig.range(pointer, 1, kind), [1]);
    let numa = location(CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA, 0);
    unsafe { rig.api.mem_prefetch_async_v12020.call(pointer, 1, numa, 0, stream) }.unwrap();
    assert_eq!(rig.range(pointer, PAGE, prefetched), [CPU]);
    assert_eq!(rig.range(pointer, PAGE, kind), [3]);
    assert_eq!(rig.range(pointer, 2 * PAGE, kind), [0], "not all pages went to the same place");
}

#[test]
fn several_attributes_are_asked_at_once() {
    let rig = Rig::new(Schedule::Async);
    let pointer = rig.managed(PAGE);
    let get = entry!("cuMemRangeGetAttributes" 8000 PFN_cuMemRangeGetAttributes_v8000);
    let (mut read_mostly, mut accessed) = (9, [9; 2]);
    let mut data: [*mut c_void; 2] = [(&raw mut read_mostly).cast(), accessed.as_mut_ptr().cast()];
    let mut sizes = [4, 8];
    let mut attributes = [
        Attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY,
        Attribute::CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY,
    ];
    let (data, sizes, attributes) =
        (data.as_mut_ptr(), sizes.as_mut_ptr(), attributes.as_mut_ptr());
    assert_eq!(unsafe { get(data, sizes, attributes, 2, pointer, PAGE) }.0, 0);
    assert_eq!((read_mostly, accessed), (0, [NOWHERE; 2]));
}

#[test]
fn wrong_ranges_and_places_are_refused() {
    let rig = Rig::new(Schedule::Async);
    let (pointer, device) = (rig.managed(PAGE), rig.device(PAGE));
    let read_mostly = Advice::CU_MEM_ADVISE_SET_READ_MOSTLY;
    let preferred = Advice::CU_MEM_ADVISE_SET_PREFERRED_LOCATION;
    for (pointer, size) in
        [(device, PAGE), (0, PAGE), (pointer, 0), (pointer, 2 * PAGE), (pointer, usize::MAX)]
    {
        assert_eq!(code(rig.advise(pointer, size, read_mostly, 0)), CudaError::INVALID_VALUE);
    }
    assert_eq!(code(rig.advise(pointer, PAGE, Advice(99), 0)), CudaError::INVALID_VALUE);
    assert_eq!(code(rig.advise(pointer, PAGE, preferred, 7)), CudaError::INVALID_DEVICE);
    rig.advise(pointer, PAGE, read_mostly, 7).unwrap();
    let mut value = 0_u64;
    let get = |attribute, size| unsafe {
        let to: *mut c_void = (&raw const value).cast_mut().cast();
        rig.api.mem_range_get_attribute.call(to, size, attribute, pointer, PAGE)
    };
    let wrong = [
        get(Attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, 8),
        get(Attribute::CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, 0),
        get(Attribute::CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, 5),
        get(Attribute(99), 4),
    ];
    for result in wrong {
        assert_eq!(code(result), CudaError::INVALID_VALUE);
    }
    value += 1;
    assert_eq!(value, 1, "nothing was written");
}

#[test]
fn without_concurrent_access_no_device_can_be_preferred() {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS;
    let rig = Rig::with(Config { attributes: vec![(attribute, 0)], ..Rig::config() });
    let pointer = rig.managed(PAGE);
    for advice in
        [Advice::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, Advice::CU_MEM_ADVISE_SET_ACCESSED_BY]
    {
        assert_eq!(code(rig.advise(pointer, PAGE, advice, 0)), CudaError::INVALID_DEVICE);
        rig.advise(pointer, PAGE, advice, CPU).unwrap();
    }
    let prefetch = unsafe { rig.api.mem_prefetch_async.call(pointer, PAGE, 0, rig.stream(1)) };
    assert_eq!(code(prefetch), CudaError::INVALID_DEVICE);
}

#[test]
fn a_batch_prefetches_each_range_to_its_groups_place_and_discards_lose_contents() {
    let rig = Rig::new(Schedule::Late);
    let (stream, first, second) = (rig.stream(1), rig.managed(PAGE), rig.managed(PAGE));
    let prefetch = entry!("cuMemPrefetchBatchAsync" 13000 PFN_cuMemPrefetchBatchAsync_v13000);
    let discard = entry!("cuMemDiscardBatchAsync" 13000 PFN_cuMemDiscardBatchAsync_v13000);
    let (mut pointers, mut sizes) = ([first, second], [PAGE; 2]);
    let (pointers, sizes) = (pointers.as_mut_ptr(), sizes.as_mut_ptr());
    let mut places = [device_0(), location(CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST, 0)];
    let mut begins = [0, 1];
    let (places, begins) = (places.as_mut_ptr(), begins.as_mut_ptr());
    unsafe {
        assert_eq!(prefetch(pointers, sizes, 2, places, begins, 2, 0, stream).0, 0);
        assert_eq!(prefetch(pointers, sizes, 2, places, begins, 3, 0, stream).0, 1);
        assert_eq!(
            prefetch(pointers, sizes, 2, places, begins.add(1), 1, 0, stream).0,
            1,
            "not from 0"
        );
        assert_eq!(
            prefetch(pointers, sizes, 2, places, begins, 2, 0, ptr::null_mut()).0,
            1,
            "legacy"
        );
        rig.api.memset_d8_async.call(first, 1, PAGE, stream).unwrap();
        assert_eq!(discard(pointers, sizes, 1, 0, stream).0, 0);
    }
    let prefetched = Attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION;
    assert_eq!(rig.range(first, PAGE, prefetched), [0]);
    assert_eq!(rig.range(second, PAGE, prefetched), [CPU]);
    rig.synchronize(stream);
    assert_ne!(rig.read(first, 4), [1; 4]);
}
