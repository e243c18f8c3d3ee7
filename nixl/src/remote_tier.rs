//! Another process's memory below the tiers of this one.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use wharf::Stream;
use wharf::slab::Block;
use wharf::tier::{Tier, TierError, TieredObject, TieredPool};

use crate::agent::Agent;
use crate::error::Error;
use crate::region::RemoteBlock;
use crate::remote_error::RemoteError;
use crate::remote_transfer::{Failure, Route, read, write};
use crate::space::Space;

/// A pool of tiers with a lowest tier in a peer's memory. Objects have names.
///
/// ```text
///   TieredPool    Device > Managed > Pinned       by the pool's own rules
///                                      |  ^
///                        no room: write|  |read: `get`
///                                      v  |
///   the peer      spaces: exported blocks of a pool, which it leaves to this process
/// ```
///
/// The pinned tier is registered with an agent: its resource is a
/// [`WiredResource`](wharf::memory::WiredResource), see
/// [`TierBuilder::resource`](wharf::tier::TierBuilder::resource). When it has no room the object
/// that was used least recently is written to the peer, and comes back with [`get`](Self::get). An
/// object is here or there, whole. The peer keeps its spaces exported and polls its agent; which
/// bytes of them are in use is known here only.
///
/// A transfer that fails, or has not ended within the limit, means that the peer is gone: it is
/// forgotten, and what it had is lost, by name. All else stays.
///
/// The pool's [`wait`](wharf::tier::TierBuilder::wait) is spent where the device still uses an
/// object that is to leave, and where there is no room here and at the peer.
pub struct RemoteTier {
    pool: TieredPool,
    route: Route,
    is_gone: bool,
    spaces: Vec<Space>,
    objects: HashMap<u64, Entry>,
    /// Counts uses, for the order in which objects leave.
    clock: u64,
    stats: RemoteTierStats,
}

struct Entry {
    place: Place,
    size: usize,
    used: u64,
}

enum Place {
    Here(TieredObject),
    /// In a space, at an address of its pool.
    There(usize, Block),
    Lost,
}

/// What a remote tier holds and has done. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteTierStats {
    /// Objects in the peer's memory.
    pub remote: usize,
    /// Their size.
    pub remote_bytes: usize,
    /// Objects that were written to the peer.
    pub demoted: u64,
    /// Objects that came back.
    pub promoted: u64,
    /// Objects that are lost with the peer, and have not been removed.
    pub lost: usize,
    /// Local blocks that the transport may still write to, of reads that failed.
    pub leaked: usize,
    /// Their size.
    pub leaked_bytes: usize,
}

impl RemoteTier {
    /// Puts a peer's spaces below a pool. `stream` is for holds of objects during transfers; each
    /// transfer may take `limit`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::{sync::Arc, time::Duration};
    /// # use wharf::memory::{PinnedMemoryResource, PinnedOptions, WiredResource};
    /// # use wharf::tier::{Tier, TieredPool};
    /// # use wharf::{Context, Stream};
    /// # use wharf_nixl::{Agent, RemoteBlock, RemoteTier};
    /// # type Any = Box<dyn std::error::Error>;
    /// # fn tier(context: Context, agent: Arc<Agent>, stream: Stream) -> Result<(), Any> {
    /// // The peer has connected, and sent the name of a block that it exported for this.
    /// let arrival = agent.next(Duration::from_secs(1))?.ok_or("no space")?;
    /// let spaces = [RemoteBlock::from_bytes((*arrival.message).try_into()?)];
    /// let memory = PinnedMemoryResource::new(&context, 1 << 30, PinnedOptions::default())?;
    /// let memory = WiredResource::new(memory, agent.wire());
    /// let pool = TieredPool::builder(&context).resource(memory, 64 << 20).build()?;
    /// let own = Stream::new(&context)?;
    /// let limit = Duration::from_secs(5);
    /// let mut tier = RemoteTier::new(pool, &agent, &arrival.peer, &spaces, own, limit)?;
    /// let object = tier.alloc(7, 1 << 20)?;
    /// object.pin_mut(Tier::Pinned, &stream)?.copy_from_slice(&[1; 1 << 20])?;
    /// tier.demote(7)?;                // to the peer; also where others need the room
    /// let object = tier.get(7)?;      // here again, or `RemoteError::Lost { name: 7, .. }`
    /// # let _ = object;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// * [`RemoteError::Setup`]: the pool's pinned tier has no wire of an agent's, or a space is
    ///   smaller than 2 MiB or larger than 1 TiB, or this process cannot have as many addresses.
    pub fn new(
        pool: TieredPool,
        agent: &Arc<Agent>,
        peer: &str,
        spaces: &[RemoteBlock],
        stream: Stream,
        limit: Duration,
    ) -> Result<Self, RemoteError> {
        let unregistered = RemoteError::Setup {
            reason: "the pool's pinned tier is not registered: pass TierBuilder::resource a \
                     WiredResource with a wire of the agent",
        };
        let pinned = pool.registrations(Tier::Pinned).ok_or(unregistered)?;
        let spaces = spaces.iter().copied().map(Space::new).collect::<Result<_, _>>()?;
        let (agent, peer) = (Arc::clone(agent), peer.to_owned());
        Ok(Self {
            pool,
            route: Route { agent, peer, pinned, stream, limit },
            is_gone: false,
            spaces,
            objects: HashMap::new(),
            clock: 0,
            stats: RemoteTierStats::default(),
        })
    }

    /// The pool of the tiers of this process.
    pub fn pool(&self) -> &TieredPool {
        &self.pool
    }

    /// Sets how long each transfer may take from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.route.limit = limit;
    }

    /// Whether the peer is gone.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Makes an object of `size` bytes in the pinned tier; colder ones leave for the peer if need
    /// be. The bytes are not set.
    ///
    /// # Errors
    ///
    /// * [`RemoteError::Exists`].
    /// * [`RemoteError::Full`]: nothing could leave, or the peer has no room, or is gone.
    /// * [`RemoteError::Tier`].
    pub fn alloc(&mut self, name: u64, size: usize) -> Result<&mut TieredObject, RemoteError> {
        if self.objects.contains_key(&name) {
            return Err(RemoteError::Exists { name });
        }
        let object = self.make(size)?;
        self.put(name, object)
    }

    /// An object, here: read back from the peer if it is there.
    ///
    /// # Errors
    ///
    /// * [`RemoteError::Unknown`].
    /// * [`RemoteError::Lost`]: the peer had it, and is gone.
    /// * [`RemoteError::Full`], [`RemoteError::Tier`]: there is no room here. The object stays at
    ///   the peer.
    pub fn get(&mut self, name: u64) -> Result<&mut TieredObject, RemoteError> {
        let entry = self.objects.get(&name).ok_or(RemoteError::Unknown { name })?;
        let size = entry.size;
        if let Place::There(..) = entry.place {
            self.promote(name, size)?;
        }
        self.clock += 1;
        let peer = &self.route.peer;
        match self.objects.get_mut(&name) {
            Some(Entry { place: Place::Here(object), used, .. }) => {
                *used = self.clock;
                Ok(object)
            }
            _ => Err(RemoteError::Lost { name, peer: peer.clone() }),
        }
    }

    /// Writes an object to the peer, if it is here.
    ///
    /// # Errors
    ///
    /// * [`RemoteError::Unknown`], [`RemoteError::Lost`].
    /// * [`RemoteError::Full`]: the peer has no room, or is gone. The object is here.
    /// * [`RemoteError::Tier`]: the object is held, or could not be moved to the pinned tier.
    pub fn demote(&mut self, name: u64) -> Result<(), RemoteError> {
        let entry = self.objects.get_mut(&name).ok_or(RemoteError::Unknown { name })?;
        let (size, peer) = (entry.size, || self.route.peer.clone());
        let object = match &mut entry.place {
            Place::Here(object) => object,
            Place::There(..) => return Ok(()),
            Place::Lost => return Err(RemoteError::Lost { name, peer: peer() }),
        };
        if self.is_gone {
            let cause = Some(Error::UnknownPeer { peer: peer() });
            return Err(RemoteError::Full { size, cause });
        }
        let mut spaces = self.spaces.iter().enumerate();
        let taken = spaces.find_map(|(number, space)| Some((number, space.take(size)?)));
        let (number, block) = taken.ok_or(RemoteError::Full { size, cause: None })?;
        let space = &self.spaces[number];
        let written = write(&self.route, object, space.name(&block, size));
        match written {
            Ok(()) => {
                entry.place = Place::There(number, block);
                self.stats.demoted += 1;
                Ok(())
            }
            // The object stays, and so does the registration of its memory, where the transport
            // may still read. What it would write is never read.
            Err(error) => {
                space.give(block);
                let Failure::Transfer(cause) = error else { return Err(error.into()) };
                self.lose_peer();
                Err(RemoteError::Full { size, cause: Some(cause) })
            }
        }
    }

    /// Removes an object. Returns whether there was one, lost ones too.
    pub fn remove(&mut self, name: u64) -> bool {
        let Some(entry) = self.objects.remove(&name) else { return false };
        if let Place::There(number, block) = entry.place {
            self.spaces[number].give(block);
        }
        true
    }

    /// Returns whether an object is in the peer's memory; `None` for a name that no object has, or
    /// a lost one.
    pub fn is_remote(&self, name: u64) -> Option<bool> {
        match self.objects.get(&name)?.place {
            Place::Here(_) => Some(false),
            Place::There(..) => Some(true),
            Place::Lost => None,
        }
    }

    /// What it holds and has done.
    pub fn stats(&self) -> RemoteTierStats {
        let mut stats = self.stats;
        for entry in self.objects.values() {
            match entry.place {
                Place::Here(_) => {}
                Place::There(..) => {
                    stats.remote += 1;
                    stats.remote_bytes += entry.size;
                }
                Place::Lost => stats.lost += 1,
            }
        }
        stats
    }

    fn put(&mut self, name: u64, object: TieredObject) -> Result<&mut TieredObject, RemoteError> {
        self.clock += 1;
        let (size, used) = (object.size(), self.clock);
        self.objects.insert(name, Entry { place: Place::Here(object), size, used });
        match self.objects.get_mut(&name) {
            Some(Entry { place: Place::Here(object), .. }) => Ok(object),
            _ => Err(RemoteError::Unknown { name }),
        }
    }

    /// A new object in the pinned tier. Others leave until there is room.
    fn make(&mut self, size: usize) -> Result<TieredObject, RemoteError> {
        loop {
            match self.pool.try_alloc(size, Tier::Pinned) {
                Err(TierError::Busy { .. }) => {}
                outcome => return Ok(outcome?),
            }
            let left = match self.coldest() {
                Some(coldest) => self.demote(coldest),
                None => Err(RemoteError::Full { size, cause: None }),
            };
            match left {
                // There may be room when the device is past what was removed.
                Err(full @ RemoteError::Full { cause: None, .. }) => {
                    return match self.pool.alloc(size, Tier::Pinned) {
                        Err(TierError::Busy { .. }) => Err(full),
                        outcome => Ok(outcome?),
                    };
                }
                outcome => outcome?,
            }
        }
    }

    /// The object in the pinned tier that was used least recently.
    fn coldest(&self) -> Option<u64> {
        let pinned = self.objects.iter().filter(|(_, entry)| {
            matches!(&entry.place, Place::Here(object) if object.tier() == Tier::Pinned)
        });
        pinned.min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name)
    }

    /// Reads an object back that is in the peer's memory.
    fn promote(&mut self, name: u64, size: usize) -> Result<(), RemoteError> {
        let made = self.make(size);
        // What has left meanwhile may have found the peer gone.
        let Some(Entry { place: Place::There(number, block), .. }) = self.objects.get(&name) else {
            return Ok(());
        };
        let mut object = made?;
        let from = self.spaces[*number].name(block, size);
        match read(&self.route, &mut object, from) {
            Ok(()) => {
                let Some(entry) = self.objects.get_mut(&name) else { return Ok(()) };
                let place = std::mem::replace(&mut entry.place, Place::Here(object));
                if let Place::There(number, block) = place {
                    self.spaces[number].give(block);
                }
                self.stats.promoted += 1;
                Ok(())
            }
            Err(Failure::Transfer(_)) => {
                self.lose_peer();
                Ok(())
            }
            Err(Failure::UnderWay(_)) => {
                self.stats.leaked += 1;
                self.stats.leaked_bytes += size;
                #[expect(clippy::mem_forget, reason = "the transport may still write to it")]
                std::mem::forget(object);
                self.lose_peer();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes note that the peer is gone, and what it had is lost.
    fn lose_peer(&mut self) {
        self.is_gone = true;
        // Another tier of the same peer's may have forgotten it.
        let _leaked = self.route.agent.forget(&self.route.peer);
        for entry in self.objects.values_mut() {
            if let Place::There(..) = entry.place {
                let place = std::mem::replace(&mut entry.place, Place::Lost);
                if let Place::There(number, block) = place {
                    self.spaces[number].give(block);
                }
            }
        }
    }
}

impl Debug for RemoteTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RemoteTier");
        out.field("peer", &self.route.peer).field("is_gone", &self.is_gone);
        out.field("stats", &self.stats()).finish_non_exhaustive()
    }
}
