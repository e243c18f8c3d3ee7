//! Processes that have, or claim, another one's name; bytes of no agent.

use super::fake::locked;
use super::{COUNT, Rig, Side, numbers};
use crate::Error;
use crate::message::Message;
use crate::region::RemoteBlock;

/// It would get the peer's transfers, and its blocks would be admitted by the peer.
#[test]
fn a_process_with_a_known_peers_name_is_refused_until_that_one_is_forgotten() {
    let rig = Rig::new();
    let other = Side::new("decode", rig.decode.stream.context(), &rig.network);
    let metadata = other.agent.metadata().unwrap();
    let taken = Error::NameTaken { peer: "decode".to_owned() };
    assert_eq!(rig.prefill.agent.connect(&metadata), Err(taken));
    assert_eq!(rig.prefill.agent.peers(), ["decode"]);
    // What it asks is not answered: the answer would go to the peer.
    assert_eq!(other.agent.connect(&rig.prefill.agent.metadata().unwrap()).unwrap(), "prefill");
    let (from, to) = (other.block(3), rig.prefill.block(0));
    let (kept, name) = rig.prefill.export(&to);
    let pairs = vec![(other.export(&from).0.into(), name)];
    let asked = other.agent.write("prefill", pairs, b"").unwrap();
    rig.prefill.agent.turn();
    let stats = rig.prefill.agent.stats();
    assert_eq!((stats.malformed, stats.granted, stats.leases), (2, 0, 0));
    drop(asked);
    kept.complete();

    rig.prefill.agent.forget("decode").unwrap();
    rig.prefill.agent.connect(&metadata).unwrap();
    let (from, mut to) = (rig.prefill.block(4), other.block(0));
    let (kept, name) = other.export(&to);
    let pairs = vec![(rig.prefill.export(&from).0.into(), name)];
    let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
    while !transfer.poll().unwrap() {
        other.agent.turn();
    }
    kept.complete();
    assert_eq!(numbers(&mut to), [4; COUNT]);
}

#[test]
fn metadata_that_comes_with_an_answer_is_the_peers_own_or_refused() {
    let rig = Rig::new();
    let other = Side::new("other", rig.decode.stream.context(), &rig.network);
    let (here, there) = (rig.prefill.block(6), rig.decode.block(0));
    let (kept, name) = rig.decode.export(&there);
    let instance = rig.decode.agent.exchange.registry.instance;
    for metadata in [other.agent.metadata().unwrap(), b"none".to_vec()] {
        let pairs = vec![(rig.prefill.export(&here).0.into(), name)];
        let mut transfer = rig.prefill.agent.write("decode", pairs, b"").unwrap();
        let id = rig.prefill.agent.exchange.state().next - 1;
        let granted = Message::Granted { id, version: 9, metadata }.to_bytes(instance);
        locked(&rig.network).inject("decode", "prefill", &granted);
        assert_eq!(transfer.poll(), Err(Error::Malformed));
        assert_eq!(rig.prefill.agent.peers(), ["decode"]);
    }
    kept.complete();
}

/// Whatever comes, the agent goes on, and gives no more than was asked for rightly.
#[test]
fn any_bytes_of_a_peer_are_heard_without_harm() {
    let rig = Rig::new();
    let there = rig.decode.block(0);
    let (kept, name) = rig.decode.export(&there);
    let instance = rig.prefill.agent.exchange.registry.instance;
    let metadata = rig.prefill.agent.metadata().unwrap();
    let mut beyond = name;
    beyond.descriptor.len = u64::MAX;
    beyond.descriptor.offset = u64::MAX;
    let messages = [
        Message::Hello { metadata: metadata.clone() },
        Message::Ask { id: 1, known: 0, blocks: vec![beyond; 3] },
        Message::Ask { id: 2, known: u64::MAX, blocks: vec![RemoteBlock::from_bytes([255; 28])] },
        Message::Granted { id: u64::MAX, version: u64::MAX, metadata },
        Message::Done { id: 3, text: vec![0; 9] },
        Message::Cancel { id: u64::MAX },
    ];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..200 {
        for message in &messages {
            let mut bytes = message.to_bytes(instance);
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let [at, bit, cut] = [random, random >> 20, random >> 40].map(|it| it as usize);
            // Behind the instance: a message of the peer's, which is changed.
            let body = 14 + at % (bytes.len() - 14);
            bytes[body] ^= 1 << (bit % 8);
            bytes.truncate(if cut.is_multiple_of(3) { cut % bytes.len() } else { bytes.len() });
            locked(&rig.network).inject("prefill", "decode", &bytes);
            while rig.decode.next().is_some() {}
        }
    }
    let stats = rig.decode.agent.stats();
    assert_eq!((stats.leases, stats.leaked), (0, 0));
    assert!(stats.malformed > 200, "{stats:?}");
    kept.complete();
}
