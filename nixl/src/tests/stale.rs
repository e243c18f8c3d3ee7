//! Peers that hold names of memory which its owner has given back, or uses again.

use std::time::Duration;

use wharf::memory::LeaseError;

use super::fake::locked;
use super::{COUNT, PIECE, Rig, numbers};
use crate::{Error, Refusal, RemoteBlock};

fn write(rig: &Rig, number: u64, name: RemoteBlock) -> Result<(), Error> {
    let block = rig.prefill.block(number);
    let pairs = vec![(rig.prefill.export(&block).0.into(), name)];
    rig.run(&mut rig.prefill.agent.write("decode", pairs, b"")?)?;
    // The message that it is over has come.
    assert!(rig.decode.next().is_some());
    Ok(())
}

fn stale(rig: &Rig, number: u64, name: RemoteBlock) -> LeaseError {
    match write(rig, number, name) {
        Err(Error::Refused { reason: Refusal::Lease(error), .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_of_memory_that_was_given_back_is_refused_also_where_other_memory_is_there() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    let address = kept.address();
    write(&rig, 1, name).unwrap();
    kept.complete();
    drop(block);
    assert_eq!(rig.decode.pool.trim(Duration::ZERO, 0).released, PIECE);
    let (piece, generation) = (name.descriptor.piece, name.descriptor.generation);
    assert_eq!(stale(&rig, 2, name), LeaseError::Stale { piece, generation, current: 0 });
    // The lowest piece is committed first: the same address.
    let mut block = rig.decode.block(7);
    let (kept, again) = rig.decode.export(&block);
    assert_eq!(kept.address(), address);
    assert_eq!(stale(&rig, 3, name), LeaseError::Stale { piece, generation, current: 2 });
    assert_eq!(rig.decode.agent.stats().refused, 2);
    // The new name is good, and the transfer has the new key: NIXL keeps the first one of an
    // address, so that what was known is dropped.
    write(&rig, 4, again).unwrap();
    assert_eq!(locked(&rig.network).unloads, 1);
    kept.complete();
    assert_eq!(numbers(&mut block), [4; COUNT]);
}

#[test]
fn memory_that_a_peer_was_granted_is_not_given_back() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    let source = rig.prefill.block(9);
    let pairs = vec![(rig.prefill.export(&source).0.into(), name)];
    locked(&rig.network).is_held = true;
    let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    for _ in 0..10 {
        rig.decode.agent.turn();
        assert!(!transfer.poll().unwrap());
    }
    // Its user is done with the block; the peer is not.
    kept.complete();
    drop(block);
    let trimmed = rig.decode.pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.released, trimmed.leased), (0, PIECE));
    locked(&rig.network).is_held = false;
    rig.run(&mut transfer).unwrap();
    rig.decode.agent.turn();
    assert_eq!(rig.decode.pool.trim(Duration::ZERO, 0).released, PIECE);
}

/// What was granted meanwhile waits for the transfers under way, and for new metadata.
#[test]
fn a_connection_is_renewed_when_no_transfer_uses_it() {
    let rig = Rig::new();
    let (first, second) = (rig.decode.block(0), rig.decode.block(0));
    let (kept, name) = rig.decode.export(&second);
    write(&rig, 1, name).unwrap();
    locked(&rig.network).is_held = true;
    let source = rig.prefill.block(9);
    let pairs = vec![(rig.prefill.export(&source).0.into(), name)];
    let mut held = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    for _ in 0..5 {
        rig.decode.agent.turn();
        assert!(!held.poll().unwrap());
    }
    drop(first);
    assert_eq!(rig.decode.pool.trim(Duration::ZERO, 0).released, PIECE);
    let mut first = rig.decode.block(0);
    let (kept_first, name) = rig.decode.export(&first);
    let pairs = vec![(rig.prefill.export(&source).0.into(), name)];
    let mut next = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    for _ in 0..5 {
        rig.decode.agent.turn();
        assert!(!next.poll().unwrap());
    }
    assert_eq!(locked(&rig.network).unloads, 0);
    locked(&rig.network).is_held = false;
    rig.run(&mut next).unwrap();
    rig.run(&mut held).unwrap();
    assert_eq!(locked(&rig.network).unloads, 1);
    kept.complete();
    kept_first.complete();
    assert_eq!(numbers(&mut first), [9; COUNT]);
}
