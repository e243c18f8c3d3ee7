//! Transports: what they are told of a resource's memory, what a lease holds, what other processes
//! and other devices may have of it.

mod budgets;
mod exported;
mod failures;
mod hooks;
mod options;
mod peers;
mod processes;
mod registrations;
mod rig;
mod socket;
mod stale;
