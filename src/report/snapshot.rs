//! A pool at one moment, in plain numbers.

use crate::address::to_usize;
use crate::memory::PhysicalMemory;
use crate::pool::{BufferInfo, BufferState, Pool, StreamUse};
use crate::slab::SlabInfo;

/// A pool at one moment. Sizes are in bytes.
///
/// While other threads use the pool, each number is right for some moment of the call. Taking it
/// stops no thread, allocates, and asks the driver how much memory there is.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Buffer, Pool};
/// use wharf::report::Snapshot;
///
/// let memory = DeviceMemoryResource::new(&context, 1 << 30)?;
/// let pool = Pool::builder().name("weights").build(memory)?;
/// let weights: Buffer<f32> = pool.alloc(1000, &stream)?;
/// let snapshot = Snapshot::of(&pool);
/// assert_eq!((snapshot.live, snapshot.blocks.len()), (4096, 1));
/// assert!(snapshot.to_string().contains("weights"));
/// assert!(snapshot.to_svg().starts_with("<svg"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The pool's name.
    pub name: String,
    /// The kind of memory, in words.
    pub kind: String,
    /// The device, by its ordinal.
    pub ordinal: Option<i32>,
    /// The start of the span.
    pub base: u64,
    /// The length of the span.
    pub span: usize,
    /// What the pool may commit.
    pub limit: usize,
    /// What it has committed.
    pub reserved: usize,
    /// Blocks with a handle.
    pub live: usize,
    /// Blocks in caches of threads.
    pub cached: usize,
    /// What streams have retired: free for one stream, or waiting for the device. Blocks without a
    /// handle, and what such blocks became when they were joined.
    pub retired: usize,
    /// Bytes of live blocks beyond the requested sizes.
    pub waste: usize,
    /// Committed, free, and part of no slab.
    pub unused: usize,
    /// What could not be given back.
    pub lost: usize,
    /// What has no memory behind it while the pool sleeps; no part of `reserved`.
    pub asleep: usize,
    /// The memory that the pool takes from, such as the device's, where it is known.
    pub physical: Option<PhysicalMemory>,
    /// Slabs and runs of large blocks, by address.
    pub slabs: Vec<SlabEntry>,
    /// Blocks that are held or retired, by address.
    pub blocks: Vec<BlockEntry>,
}

/// A slab, or the run of one large block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SlabEntry {
    /// The address of its first byte.
    pub address: u64,
    /// Its length.
    pub size: usize,
    /// The size of its blocks.
    pub block_size: usize,
    /// How many blocks it has.
    pub blocks: usize,
    /// How many of them are free.
    pub free: usize,
}

/// A block that is held or retired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BlockEntry {
    /// The address of its first byte.
    pub address: u64,
    /// Its size.
    pub size: usize,
    /// What was asked for.
    pub asked: usize,
    /// Where it is in its life, in words.
    pub state: String,
    /// How many lives it has had.
    pub generation: u32,
    /// The streams that used it.
    pub streams: Vec<StreamUse>,
    /// How long ago it was allocated, in nanoseconds, where the pool keeps track.
    pub age_nanoseconds: Option<u64>,
    /// Where in the program it was allocated, where the pool keeps track.
    pub site: Option<String>,
}

impl Snapshot {
    /// The pool at this moment.
    pub fn of(pool: &Pool) -> Self {
        let (stats, span) = (pool.slab_stats(), pool.span());
        let mut infos = pool.blocks();
        infos.sort_by_key(|block| block.address);
        let sum = |which: fn(&BufferInfo) -> usize, held: bool| {
            infos.iter().filter(|info| (info.handles > 0) == held).map(which).sum::<usize>()
        };
        let live = sum(|info| info.size, true);
        let mut slabs: Vec<_> = pool.slabs().iter().map(SlabEntry::from).collect();
        slabs.sort_by_key(|slab| slab.address);
        Self {
            name: pool.name().to_owned(),
            kind: format!("{:?}", pool.kind()),
            ordinal: pool.ordinal(),
            base: span.start,
            span: to_usize(span.end - span.start),
            limit: stats.limit,
            reserved: stats.reserved,
            live,
            cached: stats.cached,
            retired: sum(|info| info.size, false) + stats.retired,
            waste: live.saturating_sub(sum(|info| info.asked, true)),
            unused: stats.empty + stats.unused,
            lost: stats.lost,
            asleep: stats.asleep,
            physical: pool.physical_memory(),
            slabs,
            blocks: infos.iter().map(BlockEntry::from).collect(),
        }
    }
}

impl Snapshot {
    /// Bytes of the physical memory that are in use by others than this pool, as the driver says:
    /// other pools, contexts and processes. `None` where it is not known.
    ///
    /// Less than nothing is 0: the driver then counts less as used than the pool has.
    pub fn used_by_others(&self) -> Option<usize> {
        let PhysicalMemory { free, total, .. } = self.physical?;
        Some(total.saturating_sub(free).saturating_sub(self.reserved))
    }
}

impl From<&SlabInfo> for SlabEntry {
    fn from(info: &SlabInfo) -> Self {
        let SlabInfo { address, size, block_size, blocks, free, .. } = *info;
        Self { address, size, block_size, blocks, free }
    }
}

impl From<&BufferInfo> for BlockEntry {
    fn from(info: &BufferInfo) -> Self {
        Self {
            address: info.address,
            size: info.size,
            asked: info.asked,
            state: match info.state {
                BufferState::Retired => "retired".to_owned(),
                BufferState::InUse => "in use".to_owned(),
                BufferState::Allocated => "allocated".to_owned(),
                _ => "free".to_owned(),
            },
            generation: info.generation,
            streams: info.uses.clone(),
            age_nanoseconds: info.age.and_then(|age| u64::try_from(age.as_nanos()).ok()),
            site: info.site.map(ToString::to_string),
        }
    }
}
