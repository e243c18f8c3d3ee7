//! Objects in a peer's memory: whole, or lost by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use wharf::Stream;
use wharf::memory::{PinnedMemoryResource, PinnedOptions, WiredResource};
use wharf::pool::Exported;
use wharf::tier::{Tier, TieredPool};

use super::fake::{Fake, locked};
use super::{LONG, MIB, Rig, Side};
use crate::{Agent, Error, RemoteError, RemoteTier};

const SIZE: usize = MIB;
/// How many objects fit here.
const HERE: u64 = 4;

/// A tier of four objects over a peer's memory of four.
struct Tiers {
    tier: RemoteTier,
    stream: Stream,
    rig: Rig,
    space: Exported,
}

impl Tiers {
    fn new(limit: Duration) -> Self {
        Self::with_wait(limit, LONG)
    }

    fn with_wait(limit: Duration, wait: Duration) -> Self {
        let rig = Rig::apart();
        let context = rig.decode.stream.context().clone();
        let agent = Arc::new(Agent::with("tier", Fake::new("tier", &rig.network)));
        agent.connect(&rig.decode.agent.metadata().unwrap()).unwrap();
        rig.decode.agent.turn();
        let memory = PinnedMemoryResource::new(&context, 64 * MIB, PinnedOptions::default());
        let memory = WiredResource::new(memory.unwrap(), agent.wire());
        let pool = TieredPool::builder(&context).resource(memory, 4 * SIZE).wait(wait);
        let pool = pool.build().unwrap();
        let block = rig.decode.pool.alloc::<u8>(4 * SIZE, &rig.decode.stream).unwrap();
        let space = block.export().unwrap();
        let spaces = [rig.decode.region.name(space.descriptor())];
        let (stream, own) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
        let tier = RemoteTier::new(pool, &agent, "decode", &spaces, own, limit).unwrap();
        Self { tier, stream, rig, space }
    }

    fn make(&mut self, name: u64) -> Result<(), RemoteError> {
        let object = self.tier.alloc(name, SIZE)?;
        let bytes = vec![u8::try_from(name).unwrap(); SIZE];
        object.pin_mut(Tier::Pinned, &self.stream)?.copy_from_slice(&bytes)?;
        Ok(())
    }

    /// Whether an object has the bytes that it was made with.
    fn is_whole(&mut self, name: u64) -> Result<bool, RemoteError> {
        let object = self.tier.get(name)?;
        let mut bytes = vec![0; SIZE];
        object.pin(Tier::Pinned, &self.stream)?.copy_to_slice(&mut bytes)?;
        Ok(bytes.iter().all(|byte| u64::from(*byte) == name))
    }

    /// Does something while the peer answers.
    fn served<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let exchange = Arc::clone(&self.rig.decode.agent.exchange);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    exchange.progress().unwrap();
                    thread::yield_now();
                }
            });
            // Also where the work fails, so that the test ends.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
            is_over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[test]
fn objects_leave_for_the_peer_when_there_is_no_room_and_come_back_whole() {
    let mut tiers = Tiers::new(LONG);
    tiers.served(|it| {
        for name in 0..2 * HERE {
            it.make(name).unwrap();
        }
        assert!((0..HERE).all(|name| it.tier.is_remote(name) == Some(true)), "the coldest");
        let stats = it.tier.stats();
        assert_eq!((stats.remote, stats.remote_bytes), (4, 4 * SIZE));
        assert_eq!(it.make(1).unwrap_err(), RemoteError::Exists { name: 1 });
        assert!(it.tier.remove(7) && !it.tier.remove(7));
        for name in [0, 5, 1, 6, 2, 4, 3, 0] {
            assert!(it.is_whole(name).unwrap(), "{name}");
        }
        assert!(it.tier.remove(0) && it.tier.remove(1));
        it.tier.get(5).unwrap();
        it.tier.demote(5).unwrap();
        it.tier.demote(5).unwrap();
        assert_eq!(it.tier.is_remote(5), Some(true));
        assert!(it.is_whole(5).unwrap());
        let unknown = RemoteError::Unknown { name: 1 };
        assert_eq!(it.tier.get(1).unwrap_err(), unknown);
        assert_eq!(it.tier.demote(1).unwrap_err(), unknown);
    });
    let stats = tiers.tier.stats();
    assert_eq!((stats.lost, stats.leaked, tiers.tier.is_gone()), (0, 0, false));
    tiers.rig.decode.agent.turn();
    assert_eq!(tiers.rig.decode.agent.stats().leases, 0);
    tiers.space.complete();
}

#[test]
fn there_is_no_room_where_all_is_full_here_and_there() {
    let mut tiers = Tiers::with_wait(LONG, Duration::from_secs(3));
    tiers.served(|it| {
        (0..2 * HERE).for_each(|name| it.make(name).unwrap());
        assert_eq!(it.make(99).unwrap_err(), RemoteError::Full { size: SIZE, cause: None });
        assert_eq!(it.tier.get(99).unwrap_err(), RemoteError::Unknown { name: 99 });
    });
    assert_eq!(tiers.tier.stats().lost, 0);
    tiers.space.complete();
}

/// Neither side leaks: nothing was begun.
#[test]
fn a_peer_that_does_not_answer_costs_what_it_has_by_name_and_nothing_here() {
    let mut tiers = Tiers::new(LONG);
    tiers.served(|it| (0..HERE + 2).for_each(|name| it.make(name).unwrap()));
    tiers.tier.set_limit(Duration::ZERO);
    // Nothing serves the peer's agent now.
    let lost = |name| RemoteError::Lost { name, peer: "decode".to_owned() };
    tiers.tier.remove(3);
    assert_eq!(tiers.is_whole(0).unwrap_err(), lost(0));
    assert!(tiers.tier.is_gone());
    assert_eq!(tiers.tier.demote(1).unwrap_err(), lost(1));
    assert_eq!(tiers.is_whole(1).unwrap_err(), lost(1));
    for name in [2, 4, 5] {
        assert!(tiers.is_whole(name).unwrap(), "{name}");
    }
    let cause = Some(Error::UnknownPeer { peer: "decode".to_owned() });
    let full = RemoteError::Full { size: SIZE, cause };
    assert_eq!(tiers.tier.demote(2).unwrap_err(), full);
    tiers.make(8).unwrap();
    assert_eq!(tiers.make(9).unwrap_err(), full);
    let stats = tiers.tier.stats();
    assert_eq!((stats.lost, stats.leaked, stats.remote), (2, 0, 0));
    let used = tiers.tier.pool().stats().tier(Tier::Pinned).used;
    assert_eq!(used, 4 * SIZE);
    // The name is free for an object that is made again.
    assert!(tiers.tier.remove(0));
    tiers.space.complete();
}

#[test]
fn a_transfer_that_does_not_end_leaks_its_block_and_no_other() {
    let mut tiers = Tiers::new(LONG);
    tiers.served(|it| (0..HERE + 1).for_each(|name| it.make(name).unwrap()));
    tiers.tier.remove(4);
    tiers.tier.set_limit(Duration::from_millis(300));
    locked(&tiers.rig.network).refuses.insert("poll");
    let lost = RemoteError::Lost { name: 0, peer: "decode".to_owned() };
    assert_eq!(tiers.served(|it| it.is_whole(0)).unwrap_err(), lost);
    let stats = tiers.tier.stats();
    assert!(stats.lost == 1 && stats.leaked <= 1 && stats.leaked_bytes == stats.leaked * SIZE);
    let used = tiers.tier.pool().stats().tier(Tier::Pinned).used;
    assert_eq!(used, (3 + stats.leaked) * SIZE);
    tiers.space.complete();
}

/// An object that could not be written to the peer is here as before.
#[test]
fn a_write_that_fails_leaves_the_object_here() {
    for call in ["notify", "prepare", "post", "poll"] {
        let mut tiers = Tiers::new(LONG);
        tiers.make(1).unwrap();
        locked(&tiers.rig.network).refuses.insert(call);
        let error = tiers.served(|it| it.tier.demote(1)).unwrap_err();
        assert!(matches!(error, RemoteError::Full { cause: Some(_), .. }), "{error}");
        assert!(tiers.tier.is_gone() && tiers.is_whole(1).unwrap());
        assert_eq!((tiers.tier.stats().lost, tiers.tier.stats().leaked), (0, 0));
        tiers.space.complete();
    }
}

#[test]
fn a_pool_without_a_wire_and_a_space_without_a_granule_are_refused() {
    let Tiers { rig, space, stream, .. } = Tiers::new(LONG);
    let context = stream.context().clone();
    let Side { agent, region, .. } = rig.prefill;
    let agent = Arc::new(agent);
    let mut spaces = [region.name(space.descriptor())];
    let pool = |is_wired: bool| {
        let builder = TieredPool::builder(&context);
        if !is_wired {
            return builder.pinned(4 * MIB).build().unwrap();
        }
        let memory = PinnedMemoryResource::new(&context, 64 * MIB, PinnedOptions::default());
        let memory = WiredResource::new(memory.unwrap(), agent.wire());
        builder.resource(memory, 4 * MIB).build().unwrap()
    };
    let own = || Stream::new(&context).unwrap();
    let made = RemoteTier::new(pool(false), &agent, "decode", &spaces, own(), LONG);
    assert!(matches!(made, Err(RemoteError::Setup { .. })));
    spaces[0].descriptor.len = (2 << 20) - 1;
    let made = RemoteTier::new(pool(true), &agent, "decode", &spaces, own(), LONG);
    assert!(matches!(made, Err(RemoteError::Setup { .. })));
    space.complete();
}

/// Its offset and length are bytes of a message.
#[test]
fn a_space_that_no_memory_can_be_is_refused() {
    let rig = Rig::apart();
    let context = rig.decode.stream.context().clone();
    let agent = Arc::new(Agent::with("tier", Fake::new("tier", &rig.network)));
    for (offset, len) in [(u64::MAX - 10, 4 << 20), (0, u64::MAX), (0, 1 << 46), (7, 100)] {
        let memory = PinnedMemoryResource::new(&context, 64 * MIB, PinnedOptions::default());
        let memory = WiredResource::new(memory.unwrap(), agent.wire());
        let pool = TieredPool::builder(&context).resource(memory, SIZE).build().unwrap();
        let descriptor = wharf::memory::Descriptor { piece: 0, generation: 1, offset, len };
        let spaces = [rig.decode.region.name(descriptor)];
        let own = Stream::new(&context).unwrap();
        let refused = RemoteTier::new(pool, &agent, "decode", &spaces, own, LONG);
        assert!(matches!(refused, Err(RemoteError::Setup { .. })), "{refused:?}");
    }
}

#[test]
fn objects_of_no_bytes_are_moved_and_those_of_too_many_refused() {
    let mut tiers = Tiers::new(LONG);
    tiers.served(|it| {
        it.tier.alloc(0, 0).unwrap();
        it.tier.demote(0).unwrap();
        assert_eq!(it.tier.is_remote(0), Some(true));
        it.tier.get(0).unwrap();
        for size in [5 * SIZE, usize::MAX] {
            let made = it.tier.alloc(1, size).map(drop);
            assert!(made.is_err(), "{size} bytes: {made:?}");
            assert_eq!(it.tier.is_remote(1), None);
        }
        assert!(!it.tier.is_gone());
    });
    tiers.space.complete();
}
