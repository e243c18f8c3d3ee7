//! A peer with the name of memory that its owner has given back, and uses again.

use std::time::Duration;

use wharf::memory::LeaseError;
use wharf::pool::Buffer;
use wharf_nixl::{Error, Refusal, RemoteBlock};

use crate::has_nixl;
use crate::process::{LONG, Other, PIECE, Process, metadata_in_child};

const LEN: usize = PIECE / 8;
/// What is in the memory that is used again.
const OWN: u64 = 0x1111;

#[test]
fn a_stale_name_is_refused_and_nothing_is_overwritten() {
    if !has_nixl() {
        return;
    }
    let owner = Process::new("owner", 2);
    let mut other = Other::start("stale::child_writes_by_an_old_name", &owner.agent);
    owner.expect(b"ready");
    let block: Buffer<u64> = owner.pool.alloc(LEN, &owner.stream).unwrap();
    let exported = block.export().unwrap();
    let (address, old) = (exported.address(), owner.region.name(exported.descriptor()));
    owner.agent.send("peer", &old.to_bytes()).unwrap();
    owner.expect(b"first");
    exported.complete();
    drop(block);
    assert_eq!(owner.pool.trim(Duration::ZERO, 0).released, PIECE);
    owner.agent.send("peer", b"gone").unwrap();
    owner.expect(b"refused, and nothing is there");
    let mut again: Buffer<u64> = owner.pool.alloc(LEN, &owner.stream).unwrap();
    again.host_mut(LONG).unwrap().fill(OWN);
    let exported = again.export().unwrap();
    assert_eq!(exported.address(), address, "the same address is memory again");
    let new = owner.region.name(exported.descriptor());
    owner.agent.send("peer", &new.to_bytes()).unwrap();
    owner.expect(b"refused");
    assert_eq!(overwritten(&again, &owner), 0);
    owner.expect(b"second");
    exported.complete();
    assert!(again.host_mut(LONG).unwrap().iter().all(|it| *it == 2));
    owner.agent.send("peer", b"end").unwrap();
    other.end();
    let stats = owner.agent.stats();
    assert_eq!((stats.leases, stats.leaked, stats.refused, stats.malformed), (0, 0, 2, 0));
}

/// How many numbers of a block are not its owner's.
fn overwritten(block: &Buffer<u64>, owner: &Process) -> usize {
    let mut numbers = vec![0; LEN];
    block.copy_to_slice(&mut numbers, &owner.stream).unwrap();
    numbers.iter().filter(|it| **it != OWN).count()
}

#[test]
fn child_writes_by_an_old_name() {
    let Some(metadata) = metadata_in_child() else { return };
    let peer = Process::new("peer", 2);
    assert_eq!(peer.agent.connect(&metadata).unwrap(), "owner");
    peer.agent.send("owner", b"ready").unwrap();
    let name = |bytes: &[u8]| RemoteBlock::from_bytes(bytes.try_into().unwrap());
    let write = |number: u64, to: RemoteBlock, message: &[u8]| {
        let mut block: Buffer<u64> = peer.pool.alloc(LEN, &peer.stream).unwrap();
        block.host_mut(LONG).unwrap().fill(number);
        let pairs = vec![(block.export().unwrap().into(), to)];
        peer.agent.write("owner", pairs, message).unwrap().wait(LONG)
    };
    let old = name(&peer.next().message);
    write(1, old, b"first").unwrap();
    peer.expect(b"gone");
    assert_eq!(stale(write(3, old, b"")), 0);
    peer.agent.send("owner", b"refused, and nothing is there").unwrap();
    let new = name(&peer.next().message);
    assert_eq!(stale(write(4, old, b"")), new.descriptor.generation);
    peer.agent.send("owner", b"refused").unwrap();
    // The key of the address is another one now: the first is not to be used.
    write(2, new, b"second").unwrap();
    peer.expect(b"end");
    assert_eq!(peer.agent.stats().leaked, 0);
}

/// The generation that is there instead.
fn stale(outcome: Result<(), Error>) -> u32 {
    match outcome {
        Err(Error::Refused {
            reason: Refusal::Lease(LeaseError::Stale { current, .. }), ..
        }) => current,
        other => panic!("not refused as stale: {other:?}"),
    }
}
