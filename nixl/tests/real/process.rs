//! A process of a test: memory on the software driver, an agent, and the other process.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use std::{env, process};

use softcuda::{Binding, Config, Simulator};
use wharf::memory::{PinnedMemoryResource, PinnedOptions, WiredResource};
use wharf::pool::Pool;
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};
use wharf_nixl::{Agent, AgentOptions, Arrival, Region};

pub(crate) const PIECE: usize = 4 << 20;
/// What must come has so long.
pub(crate) const LONG: Duration = Duration::from_secs(600);
const CHILD: &str = "WHARF_TEST_CHILD";

/// UCX in the mode that its transports need.
pub(crate) fn options() -> AgentOptions {
    let options = AgentOptions::default();
    match env::var_os("WHARF_NIXL_SHARED") {
        Some(_) => options.parameter("ucx_error_handling_mode", "none"),
        None => options,
    }
}

/// Memory and an agent.
pub(crate) struct Process {
    pub(crate) agent: Agent,
    pub(crate) region: Region,
    pub(crate) pool: Pool,
    pub(crate) stream: Stream,
    pub(crate) context: Context,
    _binding: Binding,
    _machine: Simulator,
}

impl Process {
    /// A pool of at most so many pieces, each as large as a block may be.
    pub(crate) fn new(name: &str, pieces: usize) -> Self {
        let machine = Simulator::new(Config::default());
        let binding = machine.bind();
        let driver = Driver::from_api(machine.api().unwrap()).unwrap();
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        let agent = Agent::new(name, &options()).unwrap();
        let wire = agent.wire();
        let region = wire.region();
        let options = PinnedOptions::default();
        let memory = PinnedMemoryResource::new(&context, 1 << 30, options).unwrap();
        let slabs = PoolOptions::default().piece_bytes(PIECE);
        let pool = Pool::builder().slabs(slabs).max_bytes(pieces * PIECE);
        let pool = pool.build(WiredResource::new(memory, wire)).unwrap();
        agent.open(region, pool.registrations().unwrap());
        let stream = Stream::new(&context).unwrap();
        Self { agent, region, pool, stream, context, _binding: binding, _machine: machine }
    }

    /// The next message, which must come.
    pub(crate) fn next(&self) -> Arrival {
        self.agent.next(LONG).unwrap().expect("a message")
    }

    /// The next message, which says this.
    pub(crate) fn expect(&self, message: &[u8]) {
        assert_eq!(&*self.next().message, message);
    }
}

/// The other process of a test, killed with this value.
pub(crate) struct Other {
    pub(crate) child: Child,
    metadata: PathBuf,
}

impl Other {
    /// Starts this program for a `child_` test, and gives it this process's metadata.
    pub(crate) fn start(name: &str, agent: &Agent) -> Self {
        let file = format!("wharf-nixl.{}.{}", process::id(), name.replace("::", "."));
        let metadata = env::temp_dir().join(file);
        fs::write(&metadata, agent.metadata().unwrap()).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture", "--test-threads", "1"]);
        let child = command.env(CHILD, &metadata).spawn().unwrap();
        Self { child, metadata }
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn end(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the other process: {status}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // After its end both are errors.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        let _removed = fs::remove_file(&self.metadata);
    }
}

/// In the other process of a test: the metadata of the one that has started it.
pub(crate) fn metadata_in_child() -> Option<Vec<u8>> {
    Some(fs::read(env::var_os(CHILD)?).unwrap())
}
