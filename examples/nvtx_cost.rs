//! What a range costs beside the bare calls of the crate nvtx, with a tool attached or without.
//!
//! ```text
//! cargo run --release --features nvtx --example nvtx_cost
//! ```
//!
//! wharf's ranges are not public, so the module and what it uses are compiled into this program as
//! they are. Rounds of both, and of the empty loop, follow each other; the figures are those of the
//! best round of each, for one push and pop.

#![allow(clippy::print_stdout, reason = "a program that measures")]
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    reason = "the modules are written for the library"
)]

#[path = "../src/address.rs"]
mod address;
#[path = "../src/profile/mod.rs"]
mod profile;
#[path = "../src/sync/mod.rs"]
mod sync;

use std::hint::black_box;
use std::time::Instant;

use ::nvtx::sys::ffi;
use ::nvtx::sys::{EventAttributes, MessageType, MessageValue, PayloadType, PayloadValue};

fn main() {
    let attributes = attributes();
    let mut best = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        let times = [
            measure(|number| {
                black_box(number);
            }),
            measure(|number| bare(&attributes, number)),
            measure(|number| {
                let _range = profile::range!("memory::cost", black_box(number));
            }),
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time);
        }
    }
    let [nothing, bare, ours] = best;
    let (bare, ours) = (bare - nothing, ours - nothing);
    let tool = if profile::is_attached() { "a tool is attached" } else { "no tool is attached" };
    println!("{tool}; nanoseconds a range, the loop's {nothing:.2} taken off");
    println!("  the crate's calls, attributes made before   {bare:>8.2}");
    println!("  wharf's range                               {ours:>8.2}");
    println!("  difference                                  {:>8.2}", ours - bare);
}

/// Nanoseconds for one.
fn measure(mut work: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..COUNT).for_each(&mut work);
    start.elapsed().as_nanos() as f64 / COUNT as f64
}

/// Pushes and pops through the crate, in its default domain.
#[expect(unsafe_code, reason = "the bare calls")]
fn bare(attributes: &EventAttributes, bytes: usize) {
    let mut attributes = *attributes;
    attributes.payload.ullValue = black_box(bytes) as u64;
    // SAFETY: null is the default domain; a tool reads the attributes before it returns.
    unsafe { ffi::nvtxDomainRangePushEx(std::ptr::null_mut(), &raw const attributes) };
    // SAFETY: as above.
    unsafe { ffi::nvtxDomainRangePop(std::ptr::null_mut()) };
}

fn attributes() -> EventAttributes {
    EventAttributes {
        version: ::nvtx::sys::NVTX_VERSION.unsigned_abs(),
        size: u16::try_from(::nvtx::sys::NVTX_EVENT_ATTRIBUTES_SIZE).unwrap_or(0),
        category: 0,
        colorType: 0,
        color: 0,
        payloadType: PayloadType::NVTX_PAYLOAD_TYPE_UNSIGNED_INT64.into(),
        reserved0: 0,
        payload: PayloadValue { ullValue: 0 },
        messageType: MessageType::NVTX_MESSAGE_TYPE_ASCII.into(),
        message: MessageValue { ascii: c"memory::cost".as_ptr() },
    }
}

const ROUNDS: usize = 20;
const COUNT: usize = 1_000_000;
