//! Adapters of a model, of which each step uses one: more than the device holds.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_distr::{Distribution, Zipf};
use wharf::tier::{Tier, TierStats, TieredObject, TieredPool};
use wharf::{Context, Stream};

use super::{ReplayError, Settings};

/// Objects in tiers, and which one each step uses.
pub(super) struct Adapters {
    pool: TieredPool,
    objects: Vec<TieredObject>,
    random: ChaCha8Rng,
    rank: Zipf<f64>,
    /// Those of the next steps, the next one first.
    next: VecDeque<usize>,
    /// What was loaded does not count as a step's.
    loaded: TierStats,
    verify: bool,
    /// Bytes that were not as they had been written.
    mismatches: u64,
}

/// The use of the adapters.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct TierUse {
    /// Adapters, and all their bytes.
    pub objects: usize,
    /// See `objects`.
    pub bytes: u64,
    /// The limit of the device's tier, in bytes.
    pub device_limit: u64,
    /// Steps that found their adapter on the device.
    pub hits: u64,
    /// Steps that had to wait for it.
    pub misses: u64,
    /// The share of hits.
    pub hit_rate: f64,
    /// Bytes that were moved to the device, to managed and to pinned memory.
    pub moved: [u64; 3],
    /// Moves that came to nothing: refused by the driver, or overtaken.
    pub in_vain: u64,
}

impl Adapters {
    pub(super) fn new(
        context: &Context,
        stream: &Stream,
        settings: &Settings,
    ) -> Result<Self, ReplayError> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let sizes: Vec<_> = (0..COUNT).map(|_| LEAST << (random.next_u32() % SIZES)).collect();
        let bytes: usize = sizes.iter().sum();
        // A quarter fits on the device, so that objects have to move.
        let pool = TieredPool::builder(context)
            .device(bytes / 4)
            .managed(bytes / 4)
            .pinned(2 * bytes)
            .budget(&settings.budget)
            .build()?;
        let mut objects = Vec::with_capacity(COUNT);
        for (number, size) in sizes.into_iter().enumerate() {
            let mut object = pool.alloc(size, Tier::Pinned)?;
            object.pin_mut(Tier::Pinned, stream)?.copy_from_slice(&content(number, size))?;
            objects.push(object);
        }
        #[expect(clippy::expect_used, reason = "numbers that the distribution accepts")]
        let rank = Zipf::new(COUNT as f64, 1.0).expect("a positive number");
        let (loaded, next) = (pool.stats(), VecDeque::new());
        Ok(Self {
            pool,
            objects,
            random,
            rank,
            next,
            loaded,
            verify: settings.verify,
            mismatches: 0,
        })
    }

    /// Has a step's adapter on the device for the work that `stream` is given next.
    pub(super) fn step(&mut self, stream: &Stream) -> Result<(), ReplayError> {
        // An engine knows the requests that wait, and so the adapters of the next steps.
        while self.next.len() <= AHEAD {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank from 1 to COUNT"
            )]
            let index = (self.rank.sample(&mut self.random) as usize).clamp(1, COUNT) - 1;
            self.objects[index].expect_use_in(self.next.len() as u64, Tier::Device);
            self.next.push_back(index);
        }
        let Some(index) = self.next.pop_front() else { return Ok(()) };
        let held = self.objects[index].pin(Tier::Device, stream)?;
        if self.verify {
            let mut found = vec![0; held.size()];
            held.copy_to_slice(&mut found)?;
            let wanted = content(index, found.len());
            // At once first: bytes one by one take their time.
            if found != wanted {
                let wrong = found.iter().zip(&wanted).filter(|(found, wanted)| found != wanted);
                self.mismatches += wrong.count() as u64;
            }
        }
        drop(held);
        Ok(self.pool.step()?)
    }

    /// Bytes that were not as they had been written.
    pub(super) fn mismatches(&self) -> u64 {
        self.mismatches
    }

    pub(super) fn usage(&self) -> TierUse {
        let (now, before) = (self.pool.stats(), self.loaded);
        let (hits, misses) = (now.hits - before.hits, now.misses - before.misses);
        let moved = |tier: Tier| now.tier(tier).moved - before.tier(tier).moved;
        TierUse {
            objects: COUNT,
            bytes: self.objects.iter().map(|object| object.size() as u64).sum(),
            device_limit: now.tier(Tier::Device).limit as u64,
            hits,
            misses,
            hit_rate: hits as f64 / (hits + misses).max(1) as f64,
            moved: [Tier::Device, Tier::Managed, Tier::Pinned].map(moved),
            in_vain: now.in_vain + now.failed - before.in_vain - before.failed,
        }
    }
}

/// What an adapter holds: of each other bytes at every place.
fn content(number: usize, size: usize) -> Vec<u8> {
    let cycle: Vec<u8> =
        (0..251_u8).map(|at| at.wrapping_mul(3) ^ number.to_le_bytes()[0]).collect();
    let mut bytes = cycle.repeat(size.div_ceil(cycle.len()));
    bytes.truncate(size);
    bytes
}

/// The number of adapters.
const COUNT: usize = 64;
/// Their sizes: this, and each of its doublings up to so many.
const LEAST: usize = 64 << 10;
const SIZES: u32 = 5;
/// For how many steps ahead the adapters are known.
const AHEAD: usize = 3;
const SEED: u64 = 1;
