//! Transports: what they are told of a resource's memory, and what a lease holds.

mod exported;
mod failures;
mod registrations;
mod rig;
mod stale;
