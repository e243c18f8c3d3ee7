//! The properties of a device's memory, and which of them the driver grants.

#![expect(unsafe_code, reason = "calls the driver")]

use wharf_sys::bindings::{
    CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationGranularity_flags,
    CUmemAllocationProp_st__bindgen_ty_1, CUmemAllocationProp_v1, CUmemAllocationType,
    CUmemLocation, CUmemLocation_st__bindgen_ty_1, CUmemLocationType, CUpointer_attribute,
};

use super::device_options::{Ask, DeviceOptions, Granted, Handles};
use super::owner::{Owner, Section};
use crate::driver::DeviceAttribute;
use crate::error::{CudaError, Error};

/// How memory of a device is created and mapped: the same for all of a span.
#[derive(Debug)]
pub(super) struct Allocation {
    ordinal: i32,
    pub(super) granted: Granted,
    pub(super) granularity: usize,
}

impl Allocation {
    /// The most of the options that the driver grants.
    pub(super) fn new(section: &Section<'_>, options: &DeviceOptions) -> Result<Self, Error> {
        let ordinal = section.owner().ordinal();
        if options.is_plain() {
            let granted = Granted::default();
            let granularity = granularity(section, &properties(ordinal, &granted))?;
            return Ok(Self { ordinal, granted, granularity });
        }
        let peers = peers(section.owner(), options)?;
        let mut refusal = None;
        for (handles, rdma) in candidates(section.owner(), options)? {
            let granted = Granted { handles, rdma, peers: peers.clone() };
            match probe(section, ordinal, granted) {
                // "A request": the driver may grant the allocation and not that.
                Ok(made) if rdma && !made.granted.rdma && options.rdma == Ask::Required => {
                    refusal = Some(NO_RDMA);
                }
                Ok(made) => return Ok(made),
                Err(error) if is_refusal(error) => refusal = refusal.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or(NO_RDMA))
    }

    pub(super) fn properties(&self) -> CUmemAllocationProp_v1 {
        properties(self.ordinal, &self.granted)
    }

    /// Lets the device and its peers read and write a range that is mapped.
    pub(super) fn make_accessible(
        &self,
        section: &Section<'_>,
        address: u64,
        len: usize,
    ) -> Result<(), Error> {
        let ordinals = [self.ordinal].into_iter().chain(self.granted.peers.iter().copied());
        set_access(section, address, len, ordinals)
    }
}

/// Lets devices read and write a range that is mapped.
pub(super) fn set_access(
    section: &Section<'_>,
    address: u64,
    len: usize,
    ordinals: impl Iterator<Item = i32>,
) -> Result<(), Error> {
    let flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    let access: Vec<_> = ordinals
        .map(|ordinal| CUmemAccessDesc { location: device_location(ordinal), flags })
        .collect();
    section.call(|api| {
        // SAFETY: `access` is valid for the whole call, and as long as its length says.
        unsafe { api.mem_set_access.call(address, len, access.as_ptr(), access.len()) }
    })
}

/// Combinations of handles and RDMA, the best first.
fn candidates(owner: &Owner, options: &DeviceOptions) -> Result<Vec<(Handles, bool)>, Error> {
    let device = owner.context().device();
    let lacks = |handles: Handles, attribute| {
        let is_lacking = options.handles.contains(handles) && !device.supports(attribute)?;
        Ok::<_, Error>(if is_lacking { handles } else { Handles::NONE })
    };
    let fabric = lacks(Handles::FABRIC, DeviceAttribute::HANDLE_TYPE_FABRIC_SUPPORTED)?;
    let posix =
        lacks(Handles::POSIX, DeviceAttribute::HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED)?;
    let most = options.handles.without(fabric | posix);
    let mut handles =
        vec![most, most.without(Handles::FABRIC), most.without(Handles::POSIX), Handles::NONE];
    handles.dedup();
    let attribute = DeviceAttribute::GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
    let rdma: &[bool] = match options.rdma {
        Ask::No => &[false],
        wanted => match (device.supports(attribute)?, wanted) {
            (true, Ask::Required) => &[true],
            (true, _) => &[true, false],
            (false, Ask::Required) => &[],
            (false, _) => &[false],
        },
    };
    Ok(handles.into_iter().flat_map(|it| rdma.iter().map(move |rdma| (it, *rdma))).collect())
}

/// The ordinals of the peers, each of which can reach the device.
pub(super) fn peers(owner: &Owner, options: &DeviceOptions) -> Result<Vec<i32>, Error> {
    let device = owner.context().device();
    let mut ordinals = Vec::new();
    for peer in options.peers.iter().filter(|peer| *peer != device) {
        if !peer.can_access(device)? {
            let call = owner.api().device_can_access_peer.name();
            return Err(Error::Driver { call, code: CudaError::PEER_ACCESS_UNSUPPORTED });
        }
        if !ordinals.contains(&peer.ordinal()) {
            ordinals.push(peer.ordinal());
        }
    }
    Ok(ordinals)
}

/// Creates one granule, maps it, makes it accessible, and gives it back.
fn probe(section: &Section<'_>, ordinal: i32, granted: Granted) -> Result<Allocation, Error> {
    let properties = properties(ordinal, &granted);
    let granularity = granularity(section, &properties)?;
    let mut made = Allocation { ordinal, granted, granularity };
    let (mut handle, mut address) = (0, 0);
    section.call(|api| {
        // SAFETY: both are valid for the whole call.
        unsafe { api.mem_create.call(&raw mut handle, granularity, &raw const properties, 0) }
    })?;
    let reserved = section.call(|api| {
        // SAFETY: `address` is valid for writes for the whole call.
        unsafe { api.mem_address_reserve.call(&raw mut address, granularity, 0, 0, 0) }
    });
    let outcome = reserved.and_then(|()| {
        // SAFETY: the range was just reserved, and nothing is mapped there.
        section.call(|api| unsafe { api.mem_map.call(address, granularity, 0, handle, 0) })?;
        let outcome = made
            .make_accessible(section, address, granularity)
            .and_then(|()| is_rdma_capable(section, address));
        // SAFETY: mapped above; nothing uses it.
        section.call(|api| unsafe { api.mem_unmap.call(address, granularity) })?;
        outcome
    });
    if reserved.is_ok() {
        // SAFETY: reserved above. Where the unmap has failed the driver refuses, which is noted.
        section.undo(|api| unsafe { api.mem_address_free.call(address, granularity) });
    }
    // SAFETY: created above, and only this call knows it.
    section.undo(|api| unsafe { api.mem_release.call(handle) });
    made.granted.rdma &= outcome?;
    Ok(made)
}

/// Whether network cards reach memory that is mapped.
fn is_rdma_capable(section: &Section<'_>, address: u64) -> Result<bool, Error> {
    let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE;
    let mut capable = 0_u32;
    let asked = section.call(|api| {
        let data = (&raw mut capable).cast();
        // SAFETY: a boolean attribute, which the driver writes as an int at most.
        unsafe { api.pointer_get_attribute.call(data, attribute, address) }
    });
    match asked {
        // A driver that does not know the attribute.
        Err(error) if error.code() == Some(CudaError::INVALID_VALUE) => Ok(false),
        asked => asked.map(|()| capable != 0),
    }
}

/// Whether an error says that memory cannot be made so, rather than that there is none.
fn is_refusal(error: Error) -> bool {
    matches!(
        error.code(),
        Some(
            CudaError::NOT_SUPPORTED
                | CudaError::NOT_PERMITTED
                | CudaError::INVALID_VALUE
                | CudaError::INVALID_DEVICE
        )
    )
}

/// The unit in which memory is mapped best.
fn granularity(section: &Section<'_>, properties: &CUmemAllocationProp_v1) -> Result<usize, Error> {
    let recommended = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
    let mut granularity = 0;
    section.call(|api| {
        let entry = &api.mem_get_allocation_granularity;
        // SAFETY: both are valid for the whole call.
        unsafe { entry.call(&raw mut granularity, &raw const *properties, recommended) }
    })?;
    Ok(granularity.max(4096).next_power_of_two())
}

fn properties(ordinal: i32, granted: &Granted) -> CUmemAllocationProp_v1 {
    CUmemAllocationProp_v1 {
        type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: granted.handles.as_raw(),
        location: device_location(ordinal),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: u8::from(granted.rdma),
            usage: 0,
            reserved: [0; 4],
        },
    }
}

fn device_location(ordinal: i32) -> CUmemLocation {
    CUmemLocation {
        type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        __bindgen_anon_1: CUmemLocation_st__bindgen_ty_1 { id: ordinal },
    }
}

/// RDMA is required, and the device does not have it for such memory.
const NO_RDMA: Error =
    Error::Driver { call: "cuMemCreate with gpuDirectRDMACapable", code: CudaError::NOT_SUPPORTED };
