//! The host's memory nodes: pages near the device.

#![expect(unsafe_code, reason = "a system call that libc has no function for")]

use std::ffi::c_long;
use std::fs;

use super::host_span::HostSpan;
use crate::driver::{Device, DeviceAttribute};
use crate::error::Error;

/// Which NUMA node a resource takes host memory from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NumaNode {
    /// The node nearest to the device, where the driver or the system knows it.
    #[default]
    OfDevice,
    /// The node with this number.
    Number(u32),
    /// Any node: the system chooses.
    Any,
}

impl NumaNode {
    /// The number of the node, if there is one to ask for.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the device could not be asked.
    pub(super) fn number(self, device: &Device) -> Result<Option<u32>, Error> {
        match self {
            Self::OfDevice => of_device(device),
            Self::Number(number) => Ok(Some(number)),
            Self::Any => Ok(None),
        }
    }
}

/// Lets the pages of a range be taken from `node` as long as it has any.
///
/// Preferred rather than bound: where the node is full, a page from elsewhere is slower, and none
/// at all ends the process.
pub(super) fn prefer(span: &HostSpan, offset: usize, len: usize, node: u32) -> Result<(), Error> {
    const WORD: u32 = u64::BITS;
    let mut nodes = [0_u64; NODES / WORD as usize];
    let Some(word) = nodes.get_mut((node / WORD) as usize) else {
        return Err(Error::System { call: "mbind", errno: libc::EINVAL });
    };
    *word = 1 << (node % WORD);
    // The kernel reads one bit less than it is told, and an empty set would mean any node.
    // SAFETY: the range is a part of a mapping of ours, and `nodes` has the bits that are read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            span.at(offset),
            len,
            c_long::from(libc::MPOL_PREFERRED),
            nodes.as_ptr(),
            NODES + 1,
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(super::host_span::last("mbind")) }
}

/// The node nearest to `device`: as the driver says (from CUDA 12.2 on), else as the system says of
/// its place on the bus.
fn of_device(device: &Device) -> Result<Option<u32>, Error> {
    match device.attribute(DeviceAttribute::HOST_NUMA_ID) {
        Ok(node) => Ok(u32::try_from(node).ok()),
        Err(error) if error.code() == Some(crate::error::CudaError::INVALID_VALUE) => {
            on_bus(device)
        }
        Err(error) => Err(error),
    }
}

fn on_bus(device: &Device) -> Result<Option<u32>, Error> {
    let domain = device.attribute(DeviceAttribute::PCI_DOMAIN_ID)?;
    let bus = device.attribute(DeviceAttribute::PCI_BUS_ID)?;
    let slot = device.attribute(DeviceAttribute::PCI_DEVICE_ID)?;
    let path = format!("/sys/bus/pci/devices/{domain:04x}:{bus:02x}:{slot:02x}.0/numa_node");
    // -1 where the system knows no node.
    Ok(fs::read_to_string(path).ok().and_then(|node| node.trim().parse().ok()))
}

/// More nodes than Linux can be built for.
const NODES: usize = 1024;
