//! Agents on a transport within the process, on the software driver.

mod ends;
mod fake;
mod fork;
mod names;
mod scale;
mod stale;
mod tier;
mod transfers;

use std::time::Duration;

use wharf::memory::{PinnedMemoryResource, PinnedOptions, WiredResource};
use wharf::pool::{Buffer, Exported, Pool};
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};

use self::fake::{Fake, Shared};
use crate::{Agent, Arrival, Region, RemoteBlock, Transfer};

const MIB: usize = 1 << 20;
/// A block is as large as a piece: the piece is free when the block is.
const PIECE: usize = 4 * MIB;
const LONG: Duration = Duration::from_secs(600);

/// A process, as far as memory and its agent go.
struct Side {
    agent: Agent,
    region: Region,
    pool: Pool,
    stream: Stream,
}

/// Two processes on one machine.
struct Rig {
    prefill: Side,
    decode: Side,
    network: Shared,
    _bound: softcuda::Binding,
    _machine: softcuda::Simulator,
}

impl Rig {
    /// The two, of which `prefill` has `decode`'s metadata.
    fn new() -> Self {
        let rig = Self::apart();
        let metadata = rig.decode.agent.metadata().unwrap();
        assert_eq!(rig.prefill.agent.connect(&metadata).unwrap(), "decode");
        assert_eq!(rig.decode.agent.poll().unwrap(), None);
        assert_eq!(rig.decode.agent.peers(), ["prefill"]);
        rig
    }

    /// The two, which do not know of each other.
    fn apart() -> Self {
        let machine = softcuda::Simulator::new(softcuda::Config::default());
        let bound = machine.bind();
        let driver = Driver::from_api(machine.api().unwrap()).unwrap();
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        let network = Shared::default();
        let prefill = Side::new("prefill", &context, &network);
        let decode = Side::new("decode", &context, &network);
        Self { prefill, decode, network, _bound: bound, _machine: machine }
    }

    /// Goes on until a transfer of `prefill`'s has ended.
    fn run(&self, transfer: &mut Transfer) -> Result<(), crate::Error> {
        loop {
            self.decode.agent.turn();
            if transfer.poll()? {
                return Ok(());
            }
        }
    }
}

impl Side {
    fn new(name: &str, context: &Context, network: &Shared) -> Self {
        let agent = Agent::with(name, Fake::new(name, network));
        let wire = agent.wire();
        let region = wire.region();
        let memory = PinnedMemoryResource::new(context, 1 << 30, PinnedOptions::default()).unwrap();
        let slabs = PoolOptions::default().piece_bytes(PIECE);
        let pool = Pool::builder().slabs(slabs).max_bytes(4 * PIECE);
        let pool = pool.build(WiredResource::new(memory, wire)).unwrap();
        agent.open(region, pool.registrations().unwrap());
        Self { agent, region, pool, stream: Stream::new(context).unwrap() }
    }

    /// A block of one piece that begins with a number.
    fn block(&self, number: u64) -> Buffer<u64> {
        let mut block: Buffer<u64> = self.pool.alloc(PIECE / 8, &self.stream).unwrap();
        block.host_mut(LONG).unwrap()[..COUNT].fill(number);
        block
    }

    /// A block for peers, and its name.
    fn export(&self, block: &Buffer<u64>) -> (Exported, RemoteBlock) {
        let exported = block.slice(..COUNT).unwrap().export().unwrap();
        let name = self.region.name(exported.descriptor());
        (exported, name)
    }

    fn next(&self) -> Option<Arrival> {
        self.agent.poll().unwrap()
    }
}

impl Agent {
    fn turn(&self) {
        self.exchange.progress().unwrap();
    }
}

/// How many numbers of a block are moved.
const COUNT: usize = 1000;

fn numbers(block: &mut Buffer<u64>) -> &[u64] {
    &block.host_mut(LONG).unwrap()[..COUNT]
}
