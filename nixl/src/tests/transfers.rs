//! Moved bytes, and what each side is told.

use super::fake::locked;
use super::{COUNT, LONG, PIECE, Rig, numbers};
use crate::message::Message;
use crate::{Error, Refusal};

#[test]
fn a_write_moves_all_blocks_and_brings_its_message() {
    let rig = Rig::new();
    let [a, b] = [rig.prefill.block(1), rig.prefill.block(2)];
    let [mut to_a, mut to_b] = [rig.decode.block(0), rig.decode.block(0)];
    let (kept_a, name_a) = rig.decode.export(&to_a);
    let (kept_b, name_b) = rig.decode.export(&to_b);
    let pairs =
        vec![(rig.prefill.export(&a).0.into(), name_a), (rig.prefill.export(&b).0.into(), name_b)];
    let mut transfer = rig.prefill.agent.write("decode", pairs, b"kv of 7").unwrap();
    rig.run(&mut transfer).unwrap();
    assert!(transfer.poll().unwrap(), "it stays complete");
    let arrival = rig.decode.next().unwrap();
    assert_eq!((&*arrival.peer, &*arrival.message), ("prefill", &b"kv of 7"[..]));
    assert!(arrival.is_transfer);
    let decode = rig.decode.agent.stats();
    assert_eq!((decode.leases, decode.granted, decode.malformed), (0, 1, 0));
    let prefill = rig.prefill.agent.stats();
    assert_eq!((prefill.transfers, prefill.completed, prefill.leaked), (0, 1, 0));
    assert_eq!(prefill.bytes, 2 * 8 * COUNT as u64);
    kept_a.complete();
    kept_b.complete();
    assert_eq!((numbers(&mut to_a), numbers(&mut to_b)), (&[1; COUNT][..], &[2; COUNT][..]));
    assert_eq!(rig.prefill.pool.stats().leaked, 0);
}

#[test]
fn a_read_brings_the_peers_bytes() {
    let rig = Rig::new();
    let (mut here, there) = (rig.prefill.block(0), rig.decode.block(5));
    let (kept, name) = rig.decode.export(&there);
    let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
    let mut transfer = rig.prefill.agent.read("decode", pairs, b"").unwrap();
    rig.run(&mut transfer).unwrap();
    assert_eq!(numbers(&mut here), [5; COUNT]);
    assert!(rig.decode.next().unwrap().is_transfer);
    kept.complete();
}

#[test]
fn metadata_is_exported_and_loaded_only_where_pieces_have_changed() {
    let rig = Rig::new();
    let mut blocks = Vec::new();
    for _ in 0..3 {
        blocks.push((rig.prefill.block(3), rig.decode.block(0)));
    }
    let move_all = || {
        for (from, to) in &blocks {
            let (kept, name) = rig.decode.export(to);
            let pairs = vec![(rig.prefill.export(from).0.into(), name)];
            let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
            rig.run(&mut transfer).unwrap();
            kept.complete();
        }
    };
    move_all();
    // The empty one of the beginning, and that of three pieces.
    assert_eq!(rig.decode.agent.stats().exports, 2);
    let loads = locked(&rig.network).loads;
    for _ in 0..10 {
        move_all();
    }
    assert_eq!(rig.decode.agent.stats().exports, 2);
    let network = locked(&rig.network);
    assert_eq!((network.loads, network.unloads), (loads, 0));
    drop(network);
    assert_eq!(rig.decode.agent.stats().registrations, 3);
    assert_eq!(rig.decode.agent.metadata().unwrap().len(), {
        rig.decode.agent.stats().metadata_bytes
    });
}

#[test]
fn arguments_that_fit_nothing_are_errors_and_the_blocks_stay_usable() {
    let rig = Rig::new();
    let (mut here, there) = (rig.prefill.block(6), rig.decode.block(0));
    let (kept, name) = rig.decode.export(&there);
    let local = || rig.prefill.export(&here).0.into();
    let write = |peer: &str, pairs| rig.prefill.agent.write(peer, pairs, b"").unwrap_err();
    assert_eq!(write("decode", vec![]), Error::NoBlocks);
    let peer = "other".to_owned();
    assert_eq!(write("other", vec![(local(), name)]), Error::UnknownPeer { peer });
    let mut longer = name;
    longer.descriptor.len += 8;
    let bytes = 8 * COUNT;
    let error = Error::Length { index: 1, local: bytes, remote: bytes as u64 + 8 };
    assert_eq!(write("decode", vec![(local(), name), (local(), longer)]), error);
    locked(&rig.network).refuses.insert("notify");
    assert!(matches!(write("decode", vec![(local(), name)]), Error::Nixl { .. }));
    assert!(rig.prefill.agent.send("decode", b"x").is_err());
    locked(&rig.network).refuses.clear();
    assert_eq!(numbers(&mut here), [6; COUNT]);
    assert_eq!(rig.prefill.agent.stats().leaked, 0);
    assert_eq!(rig.prefill.agent.connect(b"nothing"), Err(Error::Malformed));
    kept.complete();
}

#[test]
fn a_region_that_is_closed_or_foreign_is_refused() {
    let rig = Rig::new();
    let (here, there) = (rig.prefill.block(6), rig.decode.block(0));
    let (kept, mut name) = rig.decode.export(&there);
    rig.decode.agent.close(rig.decode.region);
    for region in [rig.decode.region, crate::Region(77)] {
        name.region = region;
        let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
        let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
        let reason = Refusal::NoRegion { region: region.0 };
        let refused = Error::Refused { peer: "decode".to_owned(), index: 0, reason };
        assert_eq!(rig.run(&mut transfer), Err(refused.clone()));
        assert_eq!(transfer.poll(), Err(refused), "it stays refused");
    }
    // With another pool's registrations: the same pieces, at other addresses.
    let foreign = rig.prefill.pool.registrations().unwrap();
    name.region = rig.decode.region;
    rig.decode.agent.open(name.region, foreign);
    let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
    let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    assert!(matches!(rig.run(&mut transfer), Err(Error::Refused { .. })));
    kept.complete();
}

#[test]
fn messages_come_alone_and_foreign_bytes_are_counted() {
    let rig = Rig::new();
    rig.prefill.agent.send("decode", b"hello").unwrap();
    let arrival = rig.decode.agent.next(LONG).unwrap().unwrap();
    assert_eq!((&*arrival.message, arrival.is_transfer), (&b"hello"[..], false));
    let instance = rig.prefill.agent.exchange.registry.instance;
    let done = Message::Done { id: 1, text: vec![] }.to_bytes(instance);
    for bytes in [&b"foreign"[..], b"", b"wharf\x01\x00short", &done] {
        locked(&rig.network).inject("prefill", "decode", bytes);
    }
    assert_eq!(rig.decode.next(), None);
    assert_eq!(rig.decode.agent.stats().malformed, 4);
}

/// A large introduction is overtaken by a small question.
#[test]
fn a_question_that_overtakes_the_introduction_is_answered() {
    let rig = Rig::apart();
    let metadata = rig.decode.agent.metadata().unwrap();
    rig.prefill.agent.connect(&metadata).unwrap();
    let (here, there) = (rig.prefill.block(6), rig.decode.block(0));
    let (kept, name) = rig.decode.export(&there);
    let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
    let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
    let cancelled = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    assert!(cancelled.cancel());
    locked(&rig.network).reorder("decode");
    rig.run(&mut transfer).unwrap();
    assert!(rig.decode.next().unwrap().is_transfer);
    assert_eq!((rig.decode.agent.stats().granted, rig.decode.agent.stats().leases), (1, 0));
    kept.complete();
}

#[test]
fn a_commit_whose_registration_is_refused_is_undone() {
    let rig = Rig::new();
    locked(&rig.network).refuses.insert("register");
    let refused = rig.decode.pool.alloc::<u8>(PIECE, &rig.decode.stream).unwrap_err();
    assert!(refused.to_string().contains("nixlAgent::registerMem"), "{refused}");
    assert_eq!(rig.decode.agent.stats().registrations, 0);
    locked(&rig.network).refuses.clear();
    drop(rig.decode.block(1));
    assert_eq!(rig.decode.agent.stats().registrations, 1);
}
