//! Transfers that end late, badly or never: what may be used is leaked, and nothing else.

use std::time::Duration;

use super::fake::locked;
use super::{COUNT, PIECE, Rig, Side, numbers};
use crate::{Error, RemoteBlock, Transfer};

/// Begins a write of a new block, whose buffer is dropped at once.
fn begin(side: &Side, name: RemoteBlock) -> Transfer {
    let block = side.block(8);
    side.agent.write("decode", vec![(side.export(&block).0.into(), name)], b"late").unwrap()
}

fn granted(rig: &Rig, transfer: &mut Transfer) {
    for _ in 0..5 {
        rig.decode.agent.turn();
        assert!(!transfer.poll().unwrap());
    }
}

#[test]
fn a_peer_that_does_not_answer_costs_the_limit_and_no_block() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    let mut transfer = begin(&rig.prefill, name);
    let error = transfer.wait(Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::TimedOut { admitted: false, .. }), "{error}");
    assert!(transfer.cancel(), "nothing was moved");
    assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, PIECE);
    // The peer hears the question and that it is over, in this order.
    assert_eq!(rig.decode.next(), None);
    assert_eq!((rig.decode.agent.stats().granted, rig.decode.agent.stats().leases), (1, 0));
    // The answer finds no question.
    assert_eq!(rig.prefill.next(), None);
    kept.complete();
}

#[test]
fn a_transfer_under_way_keeps_its_block_without_a_handle_and_ends_it_when_it_is_over() {
    let rig = Rig::new();
    let mut block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    locked(&rig.network).is_held = true;
    let mut transfer = begin(&rig.prefill, name);
    granted(&rig, &mut transfer);
    let error = transfer.wait(Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::TimedOut { admitted: true, .. }), "{error}");
    assert!(!transfer.cancel(), "its bytes are under way");
    assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, 0);
    locked(&rig.network).is_held = false;
    assert_eq!(rig.prefill.next(), None);
    assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, PIECE);
    assert_eq!(&*rig.decode.next().unwrap().message, b"late");
    kept.complete();
    assert_eq!(numbers(&mut block), [8; COUNT]);
}

#[test]
fn a_transfer_that_fails_before_it_begins_leaks_nothing_on_either_side() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    locked(&rig.network).refuses.insert("prepare");
    let mut transfer = begin(&rig.prefill, name);
    let error = rig.run(&mut transfer).unwrap_err();
    assert!(matches!(error, Error::Nixl { call: "prepare", .. }), "{error}");
    assert_eq!(rig.decode.next(), None);
    assert_eq!((rig.decode.agent.stats().granted, rig.decode.agent.stats().leases), (1, 0));
    assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, PIECE);
    assert_eq!((rig.prefill.pool.stats().leaked, rig.prefill.agent.stats().leaked), (0, 0));
    kept.complete();
}

#[test]
fn a_transfer_that_fails_when_it_has_begun_leaks_its_blocks_on_both_sides() {
    for call in ["post", "poll"] {
        let rig = Rig::new();
        let block = rig.decode.block(0);
        let (kept, name) = rig.decode.export(&block);
        locked(&rig.network).refuses.insert(call);
        let mut transfer = begin(&rig.prefill, name);
        let error = rig.run(&mut transfer).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        let stats = rig.prefill.agent.stats();
        assert_eq!((stats.leaked, stats.leaked_bytes), (1, 8 * COUNT as u64));
        assert_eq!(rig.prefill.pool.stats().leaked, PIECE as u64);
        assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, 0);
        kept.complete();
        drop(block);
        assert_eq!(rig.decode.pool.trim(Duration::ZERO, 0).released, 0);
        assert_eq!(rig.decode.agent.forget("prefill").unwrap(), 1);
        assert_eq!(rig.decode.agent.stats().leases, 0);
        assert_eq!(rig.decode.pool.trim(Duration::ZERO, 0).released, 0, "leaked");
    }
}

#[test]
fn a_peer_that_is_forgotten_ends_its_transfers() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    locked(&rig.network).is_held = true;
    let mut posted = begin(&rig.prefill, name);
    granted(&rig, &mut posted);
    let mut asked = begin(&rig.prefill, name);
    assert_eq!(rig.prefill.agent.forget("decode").unwrap(), 1);
    assert!(matches!(posted.poll(), Err(Error::Failed { .. })));
    assert!(matches!(asked.poll(), Err(Error::UnknownPeer { .. })));
    assert_eq!(rig.prefill.pool.trim(Duration::ZERO, 0).released, PIECE, "one of the two");
    assert!(matches!(rig.prefill.agent.forget("decode"), Err(Error::UnknownPeer { .. })));
    assert!(matches!(rig.prefill.agent.send("decode", b""), Err(Error::UnknownPeer { .. })));
    kept.complete();
}

/// The owner of the memory loses the asker's metadata while a transfer of it is under way.
#[test]
fn a_peer_that_metadata_has_made_unknown_is_forgotten_with_its_leases() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    locked(&rig.network).is_held = true;
    let mut posted = begin(&rig.prefill, name);
    granted(&rig, &mut posted);
    let _newer = rig.prefill.block(1);
    rig.prefill.agent.connect(&rig.decode.agent.metadata().unwrap()).unwrap();
    locked(&rig.network).refuses.insert("load");
    rig.decode.agent.turn();
    assert_eq!((rig.decode.agent.peers().len(), rig.decode.agent.stats().leases), (0, 1));
    assert_eq!(rig.decode.agent.forget("prefill"), Ok(1));
    assert_eq!((rig.decode.agent.stats().leases, rig.decode.agent.stats().leaked), (0, 1));
    assert!(matches!(rig.decode.agent.forget("prefill"), Err(Error::UnknownPeer { .. })));
    kept.complete();
}

#[test]
fn an_agent_that_ends_leaks_what_is_under_way_and_gives_the_rest_back() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    locked(&rig.network).is_held = true;
    let mut posted = begin(&rig.prefill, name);
    granted(&rig, &mut posted);
    let asked = begin(&rig.prefill, name);
    let Rig { prefill: Side { agent, pool, .. }, decode, .. } = rig;
    // Handles keep the exchange.
    drop((agent, posted, asked));
    assert_eq!(pool.trim(Duration::ZERO, 0).released, PIECE);
    assert_eq!(pool.stats().leaked, PIECE as u64);
    let leased = decode.agent.stats().leases;
    assert_eq!(leased, 1);
    drop(decode.agent);
    kept.complete();
    drop(block);
    assert_eq!(decode.pool.trim(Duration::ZERO, 0).released, 0, "leaked");
}

#[test]
fn an_owner_that_cannot_answer_keeps_no_lease_and_one_that_cannot_hear_says_so() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    let mut transfer = begin(&rig.prefill, name);
    locked(&rig.network).refuses.insert("metadata");
    rig.decode.agent.turn();
    assert_eq!((rig.decode.agent.stats().leases, rig.decode.agent.stats().failed), (0, 1));
    locked(&rig.network).refuses.insert("notifications");
    assert!(matches!(transfer.poll(), Err(Error::Nixl { .. })));
    assert!(matches!(rig.decode.agent.poll(), Err(Error::Nixl { .. })));
    locked(&rig.network).refuses.clear();
    assert!(matches!(transfer.wait(Duration::ZERO), Err(Error::TimedOut { .. })));
    kept.complete();
    drop(transfer);
    assert_eq!(rig.decode.agent.next(Duration::ZERO).unwrap(), None);
    assert!(rig.prefill.agent.next(Duration::ZERO).unwrap().is_none());
}

/// Metadata that cannot be loaded ends the transfer, and the peer is asked for again by `connect`.
#[test]
fn metadata_that_is_refused_ends_the_transfer_only() {
    let rig = Rig::new();
    let block = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&block);
    let mut transfer = begin(&rig.prefill, name);
    locked(&rig.network).refuses.insert("load");
    assert!(matches!(rig.run(&mut transfer), Err(Error::Nixl { call: "load", .. })));
    assert_eq!(rig.decode.next(), None);
    assert_eq!((rig.decode.agent.stats().granted, rig.decode.agent.stats().leases), (1, 0));
    locked(&rig.network).refuses.clear();
    rig.prefill.agent.connect(&rig.decode.agent.metadata().unwrap()).unwrap();
    rig.run(&mut begin(&rig.prefill, name)).unwrap();
    assert_eq!(rig.prefill.agent.stats().leaked, 0);
    kept.complete();
}
