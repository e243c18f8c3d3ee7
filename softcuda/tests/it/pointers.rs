//! Attributes of pointers.

use std::ffi::c_void;
use std::ptr;

use softcuda::{Config, Schedule};
use wharf_sys::bindings::CUpointer_attribute as Attribute;
use wharf_sys::{CudaError, Error};

use crate::memory_rig::GRANULE;
use crate::support::{Rig, code};

const HOST: u64 = 1;
const DEVICE: u64 = 2;

impl Rig {
    fn ask(&self, attribute: Attribute, pointer: u64) -> Result<u64, Error> {
        let mut value = 0_u64;
        let to: *mut c_void = (&raw mut value).cast();
        unsafe { self.api.pointer_get_attribute.call(to, attribute, pointer) }.map(|()| value)
    }

    fn ask_all(&self, attributes: &mut [Attribute], pointer: u64) -> Vec<u64> {
        let mut values = vec![0_u64; attributes.len()];
        let mut to: Vec<*mut c_void> =
            values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        let count = u32::try_from(attributes.len()).unwrap();
        let get = &self.api.pointer_get_attributes;
        unsafe { get.call(count, attributes.as_mut_ptr(), to.as_mut_ptr(), pointer) }.unwrap();
        values
    }
}

#[test]
fn device_memory_says_where_it_is() {
    let rig = Rig::new(Schedule::Async);
    let (pointer, other) = (rig.device(100), rig.device(100));
    let at = pointer + 10;
    let ask = |attribute| rig.ask(attribute, at).unwrap();
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT), rig.context.addr() as u64);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE), DEVICE);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER), at);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL), 0);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR), pointer);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE), 100);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_MAPPED), 1);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED), 0);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE), 0);
    assert_eq!(ask(Attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS), 3);
    let id = Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID;
    assert_ne!(ask(id), rig.ask(id, other).unwrap());
    let host = rig.ask(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER, at);
    assert_eq!(code(host), CudaError::INVALID_VALUE);
}

#[test]
fn pinned_and_managed_memory_have_a_host_pointer() {
    let rig = Rig::new(Schedule::Async);
    let pinned = rig.pinned(16).as_ptr().expose_provenance() as u64;
    let mut managed = 0;
    unsafe { rig.api.mem_alloc_managed.call(&raw mut managed, 16, 1) }.unwrap();
    let host = Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER;
    assert_eq!(rig.ask(host, pinned + 1).unwrap(), pinned + 1);
    assert_eq!(rig.ask(host, managed).unwrap(), managed);
    assert_eq!(rig.ask(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pinned).unwrap(), HOST);
    assert_eq!(rig.ask(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, managed).unwrap(), DEVICE);
    assert_eq!(rig.ask(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED, managed).unwrap(), 1);
}

#[test]
fn registered_memory_is_found_by_both_its_addresses() {
    let rig = Rig::with(Config { registered_alias: true, ..Rig::config() });
    let mut memory = vec![0_u8; 4096];
    let host = memory.as_mut_ptr().expose_provenance() as u64;
    let mut device = 0;
    unsafe {
        rig.api.mem_host_register.call(memory.as_mut_ptr().cast(), 4096, 0).unwrap();
        rig.api
            .mem_host_get_device_pointer
            .call(&raw mut device, memory.as_mut_ptr().cast(), 0)
            .unwrap();
    }
    assert_ne!(device, host);
    for pointer in [host + 7, device + 7] {
        assert_eq!(
            rig.ask(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER, pointer).unwrap(),
            host + 7
        );
        assert_eq!(
            rig.ask(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER, pointer).unwrap(),
            device + 7
        );
    }
    unsafe { rig.api.mem_host_unregister.call(memory.as_mut_ptr().cast()) }.unwrap();
}

#[test]
fn an_unknown_pointer_is_an_error_alone_and_null_among_several() {
    let rig = Rig::new(Schedule::Async);
    let local = 5_u64;
    for pointer in [0, 0x1000, (&raw const local).addr() as u64, u64::MAX] {
        let context = rig.ask(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT, pointer);
        assert_eq!(code(context), CudaError::INVALID_VALUE);
        let mut attributes = [
            Attribute::CU_POINTER_ATTRIBUTE_CONTEXT,
            Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER,
            Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
        ];
        assert_eq!(rig.ask_all(&mut attributes, pointer), [0; 4]);
    }
    let unknown = rig.ask(Attribute(99), rig.device(4));
    assert_eq!(code(unknown), CudaError::INVALID_VALUE);
}

#[test]
fn pooled_and_mapped_memory_name_what_they_are_from() {
    let rig = Rig::new(Schedule::Async);
    let (stream, mut pool, mut pointer) = (rig.stream(1), ptr::null_mut(), 0);
    let size = GRANULE;
    let (reserved, physical) = (rig.reserve(2 * size), rig.physical(size));
    unsafe {
        rig.api.device_get_mem_pool.call(&raw mut pool, 0).unwrap();
        rig.api.mem_alloc_async.call(&raw mut pointer, 64, stream).unwrap();
        rig.api.mem_map.call(reserved + size as u64, size, 0, physical, 0).unwrap();
    }
    let handle = Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE;
    assert_eq!(rig.ask(handle, pointer).unwrap(), pool.addr() as u64);
    let mapped = reserved + size as u64 + 5;
    for at in [reserved, mapped] {
        assert_eq!(
            rig.ask(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, at).unwrap(),
            reserved
        );
        assert_eq!(
            rig.ask(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE, at).unwrap(),
            2 * size as u64
        );
        let is_mapped = rig.ask(Attribute::CU_POINTER_ATTRIBUTE_MAPPED, at).unwrap();
        assert_eq!(is_mapped, u64::from(at == mapped));
    }
    assert_eq!(rig.ask(Attribute::CU_POINTER_ATTRIBUTE_MAPPING_SIZE, mapped).unwrap(), size as u64);
    assert_eq!(rig.ask(Attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS, mapped).unwrap(), 0);
}

#[test]
fn memory_that_is_set_to_synchronise_always_does() {
    let rig = Rig::new(Schedule::Late);
    let pointer = rig.device(16);
    let (stream, set) = (ptr::null_mut(), 1_u32);
    let sync = Attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS;
    unsafe { rig.api.memset_d8.call(pointer, 1, 16) }.unwrap();
    assert_eq!(code(unsafe { rig.api.stream_query.call(stream) }), CudaError::NOT_READY);
    let set_attribute = &rig.api.pointer_set_attribute;
    unsafe { set_attribute.call((&raw const set).cast(), sync, pointer) }.unwrap();
    assert_eq!(rig.ask(sync, pointer).unwrap(), 1);
    unsafe { rig.api.stream_query.call(stream) }.unwrap();
    unsafe { rig.api.memset_d8.call(pointer, 2, 16) }.unwrap();
    unsafe { rig.api.stream_query.call(stream) }.unwrap();
    let other = Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID;
    let refused = unsafe { set_attribute.call((&raw const set).cast(), other, pointer) };
    assert_eq!(code(refused), CudaError::INVALID_VALUE);
}
