//! What a driver and its devices say of themselves.

use wharf::sys::bindings::CUdevice_attribute;
use wharf::{CudaError, DeviceAttribute, Driver};

use crate::backend::on_each_driver;

on_each_driver!(
    devices_describe_themselves,
    there_is_no_device_beyond_the_last,
    unknown_attributes_are_absent
);

fn devices_describe_themselves(driver: &Driver) {
    assert!(driver.version().unwrap() >= 11_040);
    let devices = driver.devices().unwrap();
    assert_eq!(devices.len(), usize::try_from(driver.device_count().unwrap()).unwrap());
    for (ordinal, device) in devices.iter().enumerate() {
        assert_eq!(usize::try_from(device.ordinal()).unwrap(), ordinal);
        assert!(!device.name().unwrap().is_empty());
        assert!(device.total_memory().unwrap() > 0);
        let capability = device.compute_capability().unwrap();
        assert!(capability.major >= 3 && capability.minor >= 0, "{capability}");
        assert!(device.attribute(DeviceAttribute::MULTIPROCESSOR_COUNT).unwrap() > 0);
        assert!(device.supports(DeviceAttribute::UNIFIED_ADDRESSING).unwrap());
        let same = |other: &&wharf::Device| other.uuid().unwrap() == device.uuid().unwrap();
        assert_eq!(devices.iter().filter(same).count(), 1, "identifiers are unique");
    }
}

fn there_is_no_device_beyond_the_last(driver: &Driver) {
    for ordinal in [-1, driver.device_count().unwrap(), i32::MAX] {
        let error = driver.device(ordinal).unwrap_err();
        assert_eq!((error.call(), error.code()), ("cuDeviceGet", Some(CudaError::INVALID_DEVICE)));
    }
}

fn unknown_attributes_are_absent(driver: &Driver) {
    let device = driver.device(0).unwrap();
    let unknown = DeviceAttribute::from_raw(CUdevice_attribute(123_456));
    assert_eq!(device.attribute(unknown).unwrap_err().code(), Some(CudaError::INVALID_VALUE));
    assert!(!device.supports(unknown).unwrap());
}
