//! wharf's memory between processes and machines, moved by NVIDIA's NIXL.

mod agent;
mod end;
mod error;
mod exchange;
mod local;
mod message;
mod metadata;
mod nixl;
mod options;
mod peers;
mod region;
mod registry;
mod remote_error;
mod remote_tier;
mod remote_transfer;
mod space;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod transport;

pub use agent::{Agent, AgentStats};
pub use error::{Error, Refusal};
pub use local::Local;
pub use options::AgentOptions;
pub use region::{Region, RemoteBlock};
pub use registry::{NixlKey, NixlWire};
pub use remote_error::RemoteError;
pub use remote_tier::{RemoteTier, RemoteTierStats};
pub use state::Arrival;
pub use transfer::Transfer;
