//! The pool of objects: allocation, mapped files, steps and statistics.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::core::{AttemptError, Core};
use super::file::MappedFile;
use super::memory::TierMemory;
use super::object::TieredObject;
use super::stats::{Counters, TierStats, TierUse};
use super::{Tier, TierError};
use crate::driver::Context;
use crate::memory::Registrations;
use crate::sync::atomic::Ordering::Relaxed;

/// Objects that move between device, managed, pinned and file-mapped memory.
///
/// It may be shared between threads. Objects keep its memory alive; the last of them, or the pool,
/// waits for what the device still does with it when it is dropped, and leaks what the device does
/// not finish within the pool's deadline.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// use wharf::tier::{Tier, TieredPool};
/// use wharf::{Context, Stream};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let pool = TieredPool::builder(&context).device(8 << 20).pinned(64 << 20).build()?;
/// // More than the device's tier holds.
/// let mut layers = Vec::new();
/// for number in 0..4_u8 {
///     let mut layer = pool.alloc(3 << 20, Tier::Pinned)?;
///     layer.pin_mut(Tier::Pinned, &stream)?.copy_from_slice(&vec![number; 3 << 20])?;
///     layers.push(layer);
/// }
/// for (number, layer) in layers.iter().enumerate() {
///     let held = layer.pin(Tier::Device, &stream)?;
///     // Work that reads `held.device_address()` is submitted to `stream` here.
///     let mut bytes = vec![0; 3 << 20];
///     held.copy_to_slice(&mut bytes)?;
///     assert!(bytes.iter().all(|byte| usize::from(*byte) == number));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "HierarchicalBufferPool")]
pub struct TieredPool {
    pub(super) core: Arc<Core>,
}

impl TieredPool {
    /// Allocates an object of `size` bytes in `tier`; 0 counts as 1. The bytes are not set.
    ///
    /// Waits for room if need be, while colder objects are copied to lower tiers.
    ///
    /// # Errors
    ///
    /// * [`TierError::Absent`], [`TierError::TooLarge`]: the pool has no such tier, or none so
    ///   large.
    /// * [`TierError::TooManyObjects`].
    /// * [`TierError::Busy`]: there was no room before the deadline; says why.
    /// * [`TierError::Driver`]: the driver refused memory or a copy.
    pub fn alloc(&self, size: usize, tier: Tier) -> Result<TieredObject, TierError> {
        self.alloc_within(size, tier, self.core.wait)
    }

    /// As [`alloc`](Self::alloc), and does not wait: where there is no room, colder objects begin
    /// to leave for lower tiers, and a later call finds their room.
    ///
    /// For an engine that makes room itself, by what it does with its objects.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    pub fn try_alloc(&self, size: usize, tier: Tier) -> Result<TieredObject, TierError> {
        self.alloc_within(size, tier, Duration::ZERO)
    }

    fn alloc_within(
        &self,
        size: usize,
        tier: Tier,
        limit: Duration,
    ) -> Result<TieredObject, TierError> {
        let index = self.core.alloc(size.max(1), tier.index(), limit)?;
        Ok(TieredObject::new(Arc::clone(&self.core), index))
    }

    /// The pieces of a tier's memory that a transport has registered; `None` if there is no such
    /// tier, or its memory is the pool's own.
    ///
    /// A lease keeps memory, and not the object that lies in it: keep the object's guard while a
    /// transport uses it.
    pub fn registrations(&self, tier: Tier) -> Option<Registrations> {
        self.core.tiers[tier.index()].as_ref()?.registrations()
    }

    /// Maps a file, for parts of it to be objects.
    ///
    /// The file must not be cut short as long as it is mapped: see
    /// [`FileMappedMemoryResource`](crate::memory::FileMappedMemoryResource).
    ///
    /// # Errors
    ///
    /// * [`TierError::Driver`]: the file cannot be mapped, or the driver refused.
    /// * [`TierError::Pool`]: the file is empty or too large.
    pub fn map_file(&self, file: &File) -> Result<MappedFile, TierError> {
        MappedFile::new(file, self.core.stream.context())
    }

    /// Makes an object of a part of a file, in [`Tier::FileMapped`]. The pool needs no tier of
    /// files.
    ///
    /// It leaves other tiers without a copy, as long as it is not written; in the file it cannot
    /// be.
    ///
    /// # Errors
    ///
    /// * [`TierError::OutOfFile`]: the range is empty or not within the file.
    /// * [`TierError::TooManyObjects`].
    pub fn object_of(
        &self,
        file: &MappedFile,
        range: Range<usize>,
    ) -> Result<TieredObject, TierError> {
        let block = file.block(&range)?;
        let index = self.core.adopt(file, block, range.len())?;
        Ok(TieredObject::new(Arc::clone(&self.core), index))
    }

    /// Tells that a step of the engine's has gone by: complete copies count, and what is
    /// [expected](TieredObject::expect_use_in) soon begins to move. Does not wait.
    ///
    /// # Errors
    ///
    /// [`TierError::Driver`]: the driver refused a copy that was expected; its object stays where
    /// it is.
    pub fn step(&self) -> Result<(), TierError> {
        self.core.advance().map_err(AttemptError::at_once)
    }

    /// Frees what the device is past, and gives memory that no object has back to the driver. Does
    /// not wait.
    ///
    /// # Errors
    ///
    /// [`TierError::Driver`]: a stream could not be asked how far it is.
    pub fn trim(&self) -> Result<(), TierError> {
        self.core.settle()?;
        self.core.tiers.iter().flatten().for_each(TierMemory::trim);
        Ok(())
    }

    /// Whether an object is of this pool.
    pub fn owns(&self, object: &TieredObject) -> bool {
        Arc::ptr_eq(&self.core, &object.core)
    }

    /// The context of its memory and its copies.
    pub fn context(&self) -> &Context {
        self.core.stream.context()
    }

    /// What the pool holds and has done.
    pub fn stats(&self) -> TierStats {
        let Counters { hits, misses, clean, failed, in_vain, refused_hints, moved } =
            &self.core.counters;
        let tiers = std::array::from_fn(|tier| TierUse {
            limit: self.core.tiers[tier].as_ref().map_or(0, |memory| memory.limit),
            used: self.core.tiers[tier].as_ref().map_or(0, TierMemory::used),
            moved: moved[tier].load(Relaxed),
        });
        TierStats {
            hits: self.core.hits.iter().chain([hits]).map(|hits| hits.load(Relaxed)).sum(),
            misses: misses.load(Relaxed),
            clean: clean.load(Relaxed),
            failed: failed.load(Relaxed),
            in_vain: in_vain.load(Relaxed),
            refused_hints: refused_hints.load(Relaxed),
            in_flight: self.core.moves.len(),
            tiers,
        }
    }
}
