//! Objects in the memory of another process, which is killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf::Stream;
use wharf::memory::{PinnedMemoryResource, PinnedOptions, WiredResource};
use wharf::pool::Buffer;
use wharf::tier::{Tier, TieredPool};
use wharf_nixl::{Agent, RemoteBlock, RemoteError, RemoteTier};

use crate::has_nixl;
use crate::process::{LONG, Other, PIECE, Process, metadata_in_child, options};

const OBJECTS: u64 = 400;
const SIZE: usize = 32 << 10;
/// How many of the objects fit here.
const HERE: usize = 320;
/// How often the peer is killed, each time at another moment: by TCP, and by shared memory, where
/// no error says so and each takes the limit.
const RUNS: [u64; 2] = [20, 4];
/// How many objects are used in a run.
const USES: u64 = 60;
/// A transfer's limit once the peer is killed: what that costs a run, where no error says so.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn what_a_killed_peer_had_is_lost_by_name_and_all_else_is_whole() {
    if !has_nixl() {
        return;
    }
    let is_shared = std::env::var_os("WHARF_NIXL_SHARED").is_some();
    for seed in 1..=RUNS[usize::from(is_shared)] {
        run(seed);
    }
}

/// A run in which the peer is killed at a moment drawn from a seed.
fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let owner = Process::new("client", 2);
    let agent = Arc::new(Agent::new(&format!("tier {seed}"), &options()).unwrap());
    let mut other = Other::start("tier::child_lends_its_memory", &agent);
    let spaces = [RemoteBlock::from_bytes({
        let arrival = agent.next(LONG).unwrap().expect("a space");
        (*arrival.message).try_into().unwrap()
    })];
    let memory = PinnedMemoryResource::new(&owner.context, 1 << 30, PinnedOptions::default());
    let memory = WiredResource::new(memory.unwrap(), agent.wire());
    let pool = TieredPool::builder(&owner.context).resource(memory, HERE * SIZE).build().unwrap();
    let own = Stream::new(&owner.context).unwrap();
    let mut tier = RemoteTier::new(pool, &agent, "lender", &spaces, own, LONG).unwrap();
    for name in 0..OBJECTS {
        let object = tier.alloc(name, SIZE).unwrap();
        let bytes: Vec<u8> = content(name);
        object.pin_mut(Tier::Pinned, &owner.stream).unwrap().copy_from_slice(&bytes).unwrap();
    }
    assert!(tier.stats().remote >= 80);
    let moment = random.next() % USES;
    let (mut lost, mut whole) = (0, 0);
    for turn in 0..USES {
        if turn == moment {
            other.child.kill().unwrap();
            tier.set_limit(LIMIT);
        }
        let (name, start) = (random.zipf(), Instant::now());
        match tier.get(name) {
            Ok(object) => {
                let mut bytes = vec![0; SIZE];
                object.pin(Tier::Pinned, &owner.stream).unwrap().copy_to_slice(&mut bytes).unwrap();
                assert!(bytes == content(name), "object {name} has other bytes");
                whole += 1;
            }
            Err(RemoteError::Lost { name: named, peer }) => {
                assert_eq!((named, &*peer, turn >= moment), (name, "lender", true));
                lost += 1;
            }
            // The peer was found gone by an object that had to leave.
            Err(RemoteError::Full { cause: Some(_), .. }) if turn >= moment => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < LONG, "a call that does not end");
    }
    let (stats, used) = (tier.stats(), tier.pool().stats().tier(Tier::Pinned).used);
    let here = (0..OBJECTS).filter(|name| tier.is_remote(*name) == Some(false)).count();
    assert_eq!(used, here * SIZE + stats.leaked_bytes, "to the byte");
    assert_eq!(here + stats.lost + stats.remote, 400);
    assert!(whole > 0 && tier.is_gone() == (lost > 0 || stats.lost > 0));
    println!(
        "killed before use {moment}: {whole} whole, {lost} lost, {here} here, {} leaked",
        stats.leaked
    );
}

#[test]
fn child_lends_its_memory() {
    let Some(metadata) = metadata_in_child() else { return };
    let lender = Process::new("lender", 4);
    let client = lender.agent.connect(&metadata).unwrap();
    let space: Buffer<u8> = lender.pool.alloc(3 * PIECE + PIECE / 2, &lender.stream).unwrap();
    let exported = space.export().unwrap();
    let name = lender.region.name(exported.descriptor());
    lender.agent.send(&client, &name.to_bytes()).unwrap();
    // Until it is killed, or its parent is gone.
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        lender.agent.next(Duration::from_secs(1)).unwrap();
    }
    exported.complete();
}

fn content(name: u64) -> Vec<u8> {
    let mut random = Random(name + 1);
    (0..SIZE / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// A sequence of numbers from a seed: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A name, by Zipf's law with exponent 1.
    fn zipf(&mut self) -> u64 {
        let weight = |rank: u64| (1 << 40) / (rank + 1);
        let all: u64 = (0..OBJECTS).map(weight).sum();
        let mut drawn = self.next() % all;
        for rank in 0..OBJECTS {
            match drawn.checked_sub(weight(rank)) {
                Some(rest) => drawn = rest,
                // Ranks and names in no order.
                None => return rank * 211 % OBJECTS,
            }
        }
        0
    }
}
