//! The driver and its devices.

use wharf::memory::{
    Ask, Backing, DeviceMemoryResource, DeviceOptions, Handles, MemoryResource,
    PinnedMemoryResource, PinnedOptions,
};
use wharf::{Context, Device, DeviceAttribute, Driver, Error, LoadError};

use super::{Fact, Verdict, size};
use crate::target::{Target, TargetError};

pub(super) fn facts(target: Result<Target, TargetError>) -> Vec<Fact> {
    let target = match target {
        Ok(target) => target,
        Err(TargetError::Load(error)) => return vec![no_driver(&error)],
        Err(TargetError::Environment(error)) => {
            let remedy = "softcuda/README.md lists the variables and their values";
            return vec![Fact::bad(Verdict::Broken, "software driver", error.to_string(), remedy)];
        }
    };
    let mut facts: Vec<_> = target.instead_of.as_ref().map(no_driver).into_iter().collect();
    facts.push(driver(&target));
    match target.driver.devices() {
        Ok(devices) => facts.extend(devices.iter().flat_map(device)),
        Err(error) => facts.push(refused("devices", error)),
    }
    facts
}

fn no_driver(error: &LoadError) -> Fact {
    let remedy = match error {
        LoadError::NoDevice => {
            "check nvidia-smi, CUDA_VISIBLE_DEVICES and, in a container, `--gpus all`; \
             --driver softcuda works"
        }
        _ => "in a container, run with `--gpus all`; --driver softcuda works without a device",
    };
    Fact::bad(Verdict::Broken, "system's driver", error.to_string(), remedy)
}

fn driver(target: &Target) -> Fact {
    let name =
        if target.software().is_some() { "softcuda, the software driver" } else { "the system's" };
    match target.driver.version() {
        Ok(version) => {
            Fact::good("driver", format!("{name}, CUDA {}.{}", version / 1000, version % 1000 / 10))
        }
        Err(error) => refused("driver", error),
    }
}

fn refused(topic: &'static str, error: Error) -> Fact {
    Fact::bad(
        Verdict::Broken,
        topic,
        error.to_string(),
        "the driver refused: see its log (dmesg, nvidia-smi -q)",
    )
}

fn device(device: &Device) -> Vec<Fact> {
    let mut facts = vec![identity(device).unwrap_or_else(|error| refused("device", error))];
    facts.extend(FEATURES.iter().map(|feature| feature.fact(device)));
    facts.push(memory_operations(device));
    facts.push(capture(device.driver()));
    facts.push(pinned(device).unwrap_or_else(|error| refused("pinned memory", error)));
    facts.push(shared(device).unwrap_or_else(|error| refused("shared memory", error)));
    facts
}

fn identity(device: &Device) -> Result<Fact, Error> {
    let (capability, memory) = (device.compute_capability()?, size(device.total_memory()? as u64));
    let engines = device.attribute(DeviceAttribute::ASYNC_ENGINE_COUNT)?;
    let (ordinal, name) = (device.ordinal(), device.name()?);
    let found = format!(
        "{ordinal}: {name}, compute capability {capability}, {memory}, {engines} copy engines"
    );
    Ok(Fact::good("device", found))
}

/// An attribute that wharf decides by.
struct Feature {
    topic: &'static str,
    attribute: DeviceAttribute,
    without: &'static str,
    remedy: &'static str,
}

impl Feature {
    fn fact(&self, device: &Device) -> Fact {
        match device.supports(self.attribute) {
            Ok(true) => Fact::good(self.topic, "yes"),
            Ok(false) => {
                Fact::bad(Verdict::Slow, self.topic, format!("no: {}", self.without), self.remedy)
            }
            Err(error) => refused(self.topic, error),
        }
    }
}

const FEATURES: [Feature; 4] = [
    Feature {
        topic: "virtual memory",
        attribute: DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        without: "a device pool is one allocation made at the start and does not shrink",
        remedy: "update the driver or choose a vGPU profile that has it; otherwise set max_bytes \
                 to what the engine needs",
    },
    Feature {
        topic: "registered memory",
        attribute: DeviceAttribute::HOST_REGISTER_SUPPORTED,
        without: "a pinned pool is one allocation, without choice of pages and node",
        remedy: "set max_bytes to what the engine needs",
    },
    Feature {
        topic: "mapped memory",
        attribute: DeviceAttribute::CAN_MAP_HOST_MEMORY,
        without: "the device does not read pinned memory in place",
        remedy: "use the copying layouts",
    },
    Feature {
        topic: "managed memory",
        attribute: DeviceAttribute::CONCURRENT_MANAGED_ACCESS,
        without: "host and device may not use managed memory at the same time",
        remedy: "keep what both use at once in pinned memory",
    },
];

/// Needs the attribute, and entry points that came with CUDA 11.7.
fn memory_operations(device: &Device) -> Fact {
    const TOPIC: &str = "memory operations";
    let api = device.driver().api();
    // The graph node came later than the call on a stream, and staging needs both.
    let lacks = if api.stream_write_value_64.is_available()
        && api.graph_add_batch_mem_op_node.is_available()
    {
        match device.supports(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS) {
            Ok(true) => return Fact::good(TOPIC, "yes, in streams and graphs"),
            Ok(false) => "the device has none",
            Err(error) => return refused(TOPIC, error),
        }
    } else {
        "the driver is older than CUDA 11.7"
    };
    let found =
        format!("no, {lacks}: events mark what is complete, at one more driver call a step");
    Fact::bad(
        Verdict::Slow,
        TOPIC,
        found,
        "update the driver; nothing to do under WSL and on some vGPU profiles",
    )
}

fn capture(driver: &Driver) -> Fact {
    const TOPIC: &str = "stream capture";
    if driver.api().stream_begin_capture_to_graph.is_available() {
        return Fact::good(TOPIC, "yes, into graphs that exist too");
    }
    let found = "yes, into new graphs only: the driver is older than CUDA 12.3";
    Fact::bad(Verdict::Note, TOPIC, found, "update the driver to capture into a graph that exists")
}

/// Not an attribute but the thing itself: a granule of pinned memory is committed and given back.
fn pinned(device: &Device) -> Result<Fact, Error> {
    const TOPIC: &str = "pinned memory";
    let context = Context::retain(device)?;
    let resource = PinnedMemoryResource::new(&context, 1, PinnedOptions::default())?;
    let granule = resource.granularity();
    commit(&resource, granule)?;
    // Pages and node are known only after the system has given the memory.
    let report = resource.report();
    let node = report.numa_node.map_or(String::new(), |node| format!(" on node {node}"));
    let pages = match report.pages {
        _ if report.backing == Backing::Whole => "pages of the driver's choice",
        pages if pages.explicit + pages.transparent > 0 => "huge pages",
        _ => "plain pages",
    };
    Ok(Fact::good(TOPIC, format!("{} obtained in {pages}{node}", size(granule as u64))))
}

/// What memory of the device can be made for: other processes, network cards, other devices.
///
/// A granule is made, mapped and given back for it, so this says what the driver grants and not
/// what the device advertises.
fn shared(device: &Device) -> Result<Fact, Error> {
    const TOPIC: &str = "shared memory";
    let context = Context::retain(device)?;
    let mut peers = Vec::new();
    for other in device.driver().devices()? {
        if other != *device && other.can_access(device)? {
            peers.push(other);
        }
    }
    let options = DeviceOptions::default()
        .rdma(Ask::IfPossible)
        .shareable(Handles::FABRIC | Handles::POSIX)
        .peers(&peers);
    let resource = DeviceMemoryResource::with_options(&context, 1, options)?;
    let granted = resource.granted();
    let kinds = [(Handles::POSIX, "file descriptors"), (Handles::FABRIC, "fabric handles")];
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|(kind, _)| granted.handles.contains(*kind))
        .map(|(_, it)| *it)
        .collect();
    let handles = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(" and ") };
    let cards = if granted.rdma { "reached" } else { "not reached" };
    let found = match granted.peers.len() {
        0 => format!("exported as {handles}, {cards} by network cards, no peers"),
        count => format!("exported as {handles}, {cards} by network cards, {count} peers"),
    };
    let advertised = [
        (DeviceAttribute::HANDLE_TYPE_FABRIC_SUPPORTED, granted.handles.contains(Handles::FABRIC)),
        (DeviceAttribute::GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, granted.rdma),
    ];
    for (attribute, is_granted) in advertised {
        if device.supports(attribute)? && !is_granted {
            let remedy = "the device advertises more than the driver grants: fabric handles need \
                          an IMEX channel (nvidia-modprobe -i 0), network cards need \
                          nvidia-peermem or dma-buf, and WSL2 has neither";
            return Ok(Fact::bad(Verdict::Note, TOPIC, found, remedy));
        }
    }
    Ok(Fact::good(TOPIC, found))
}

#[expect(unsafe_code, reason = "commits memory of a resource of its own")]
fn commit(resource: &PinnedMemoryResource, len: usize) -> Result<(), Error> {
    // SAFETY: the resource was just made with this one granule, and has no other owner.
    unsafe { resource.commit(0, len) }
}
