//! What the two processes have in common: memory, an agent, and the numbers in the blocks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use wharf::memory::{
    DeviceMemoryResource, DeviceOptions, Handles, PinnedMemoryResource, PinnedOptions,
    WiredResource,
};
use wharf::pool::Pool;
use wharf::{Context, Driver, Stream};
use wharf_nixl::{Agent, AgentOptions, Region};

use crate::Any;

/// What is transferred.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) is_device: bool,
    is_shared: bool,
    pub(crate) requests: usize,
    pub(crate) most_blocks: usize,
    /// The length of a block, in numbers of 64 bits.
    pub(crate) len: usize,
}

impl Shape {
    /// The words that say where, and what the others say.
    pub(crate) fn parse(words: &[String]) -> Result<(Vec<&str>, Self), Any> {
        let (is_device, is_shared) = (false, false);
        let mut shape =
            Self { is_device, is_shared, requests: 24, most_blocks: 32, len: 256 * 128 };
        let mut rest = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some(("requests", number)) => shape.requests = number.parse()?,
                Some(("blocks", number)) => shape.most_blocks = number.parse::<usize>()?.max(1),
                Some(("kib", number)) => shape.len = number.parse::<usize>()?.max(1) * 128,
                _ if word == "device" => shape.is_device = true,
                _ if word == "shared" => shape.is_shared = true,
                _ => rest.push(word.as_str()),
            }
        }
        Ok((rest, shape))
    }

    /// How many blocks each request has.
    pub(crate) fn blocks(&self) -> Result<Vec<usize>, Any> {
        let tokens: Vec<usize> = match std::env::var("WHARF_TRACE") {
            Ok(path) => {
                let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
                let second = |line: &str| line.split(',').nth(1)?.parse().ok();
                text.lines().skip(1).filter_map(second).take(self.requests).collect()
            }
            Err(_) => (0..self.requests).map(|number| 16 * (1 + number * 13 % 37)).collect(),
        };
        Ok(tokens.iter().map(|tokens| tokens.div_ceil(16).clamp(1, self.most_blocks)).collect())
    }
}

/// A process's memory and agent.
pub(crate) struct Process {
    pub(crate) context: Context,
    pub(crate) stream: Stream,
    pub(crate) pool: Pool,
    pub(crate) region: Region,
    pub(crate) agent: Agent,
}

impl Process {
    pub(crate) fn new(name: &str, shape: Shape) -> Result<Self, Any> {
        let driver = Driver::load()?;
        let context = Context::retain(&driver.device(0)?)?;
        let stream = Stream::new(&context)?;
        let mut options = AgentOptions::default();
        if shape.is_shared {
            options = options.parameter("ucx_error_handling_mode", "none");
        }
        let agent = Agent::new(name, &options)?;
        let wire = agent.wire();
        let region = wire.region();
        let pool = Pool::builder().max_bytes(1 << 30);
        let pool = if shape.is_device {
            let options = DeviceOptions::default().shareable(Handles::FABRIC | Handles::POSIX);
            let memory = DeviceMemoryResource::with_options(&context, 4 << 30, options)?;
            pool.build(WiredResource::new(memory, wire))?
        } else {
            let memory = PinnedMemoryResource::new(&context, 4 << 30, PinnedOptions::default())?;
            pool.build(WiredResource::new(memory, wire))?
        };
        agent.open(region, pool.registrations().ok_or("the memory is not registered")?);
        Ok(Self { context, stream, pool, region, agent })
    }
}

/// What a model would have computed.
pub(crate) fn number(request: usize, block: usize, index: usize) -> u64 {
    let [request, block, index] = [request, block, index].map(|it| it as u64 + 1);
    let mixed = request.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ block.rotate_left(40);
    mixed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Sends bytes with their length ahead.
pub(crate) fn put(socket: &mut TcpStream, bytes: &[u8]) -> Result<(), Any> {
    socket.write_all(&(bytes.len() as u64).to_le_bytes())?;
    Ok(socket.write_all(bytes)?)
}

/// Receives what [`put`] has sent.
pub(crate) fn get(socket: &mut TcpStream) -> Result<Vec<u8>, Any> {
    let mut len = [0; 8];
    socket.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > 1 << 30 {
        return Err(format!("a message of {len} bytes").into());
    }
    let mut bytes = vec![0; usize::try_from(len)?];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Numbers as the bytes of a message.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> Option<([usize; N], &[u8])> {
    let mut numbers = [0; N];
    let mut rest = bytes;
    for number in &mut numbers {
        let (first, others) = rest.split_first_chunk()?;
        *number = usize::try_from(u64::from_le_bytes(*first)).ok()?;
        rest = others;
    }
    Some((numbers, rest))
}

pub(crate) fn bytes(numbers: &[usize]) -> Vec<u8> {
    numbers.iter().flat_map(|number| (*number as u64).to_le_bytes()).collect()
}
