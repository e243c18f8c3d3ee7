//! Transfers between an object's block and a peer's.

use std::sync::Arc;
use std::time::Duration;

use wharf::Stream;
use wharf::memory::Registrations;
use wharf::tier::{Pin, Tier, TierError, TieredObject};

use crate::agent::Agent;
use crate::error::Error;
use crate::local::Local;
use crate::region::RemoteBlock;
use crate::remote_error::RemoteError;
use crate::transfer::Transfer;

/// By which way.
pub(crate) struct Route {
    pub(crate) agent: Arc<Agent>,
    pub(crate) peer: String,
    /// The memory of the pinned tier.
    pub(crate) pinned: Registrations,
    /// For holds during transfers.
    pub(crate) stream: Stream,
    pub(crate) limit: Duration,
}

/// How a transfer of a tier's ended.
pub(crate) enum Failure {
    /// There was none: the object could not be held.
    Tier(TierError),
    /// The memory of the object is not registered.
    Unregistered,
    /// It failed, and the transport has let go of the memory.
    Transfer(Error),
    /// It failed, and the transport may still use the memory.
    UnderWay(Error),
}

impl From<Failure> for RemoteError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Tier(error) => Self::Tier(error),
            Failure::Unregistered => Self::Setup { reason: UNREGISTERED },
            Failure::Transfer(error) | Failure::UnderWay(error) => {
                Self::Full { size: 0, cause: Some(error) }
            }
        }
    }
}

/// Writes an object to the peer.
pub(crate) fn write(
    route: &Route,
    object: &mut TieredObject,
    to: RemoteBlock,
) -> Result<(), Failure> {
    // For writing: the device is past all uses then, and the object's block is free with it.
    let pin = object.pin_mut(Tier::Pinned, &route.stream).map_err(Failure::Tier)?;
    let outcome = match transfer(route, &pin, to, Agent::write) {
        // Reads of what changes do no harm, and the lease keeps the memory there.
        Err(Failure::UnderWay(error)) => Err(Failure::Transfer(error)),
        outcome => outcome,
    };
    drop(pin);
    // Nothing but the end of the hold is on the stream.
    outcome.and(route.stream.synchronize().map_err(|error| Failure::Tier(error.into())))
}

/// Reads an object from the peer.
pub(crate) fn read(
    route: &Route,
    object: &mut TieredObject,
    from: RemoteBlock,
) -> Result<(), Failure> {
    let pin = object.pin_mut(Tier::Pinned, &route.stream).map_err(Failure::Tier)?;
    transfer(route, &pin, from, Agent::read)
}

type Begin = fn(&Agent, &str, Vec<(Local, RemoteBlock)>, &[u8]) -> Result<Transfer, Error>;

fn transfer(
    route: &Route,
    pin: &Pin<'_>,
    remote: RemoteBlock,
    begin: Begin,
) -> Result<(), Failure> {
    let lease = route.pinned.lease(pin.address(), pin.size());
    let lease = lease.map_err(|_| Failure::Unregistered)?;
    let pairs = vec![(Local::of_lease(lease), remote)];
    let mut transfer =
        begin(&route.agent, &route.peer, pairs, MESSAGE).map_err(Failure::Transfer)?;
    match transfer.wait(route.limit) {
        Ok(()) => Ok(()),
        Err(error) if transfer.cancel() => Err(Failure::Transfer(error)),
        Err(error) => Err(Failure::UnderWay(error)),
    }
}

const UNREGISTERED: &str = "the memory of an object is not registered with the agent";

/// What the peer is told with each transfer, which it needs for nothing.
const MESSAGE: &[u8] = b"tier";
