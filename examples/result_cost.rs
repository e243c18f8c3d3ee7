//! What fetching and reading the results of a step costs the calling thread, for
//! `bench/staging.sh`: a launch does nothing but say that it is done.
//!
//! ```text
//! cargo run --release --example result_cost -- Results|Loop STEPS
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures")]

#[path = "staging_cost/table.rs"]
mod table;

use std::hint::black_box;
use std::ptr;

use softcuda::{Config, Simulator};
use wharf::staging::{Instantiation, Len, OutputBuffers, SlotId};
use wharf::sys::bindings::{CUgraphExec, CUresult, CUstream};
use wharf::{Context, Stream};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let steps = arguments.next().map_or(1, |steps| steps.parse().unwrap());
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let context = Context::retain(&table::driver().device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let outputs = OutputBuffers::builder(&context).slot::<i32>("sampled", Len::Requests);
    let outputs = outputs.slot::<f32>("logprobs", Len::Requests).buckets([64]);
    let outputs = outputs.instantiation(Instantiation::Eager).build().unwrap();
    let sampled = outputs.slot_id("sampled").unwrap();
    if what == "Loop" {
        only_the_loop(steps);
    } else {
        counted_results(&outputs, sampled, &stream, steps);
    }
    println!("{steps} steps");
}

/// Callgrind counts in here: a fetch of results, which are there at once, and the read of a slot.
#[inline(never)]
fn counted_results(outputs: &OutputBuffers, sampled: SlotId<i32>, stream: &Stream, steps: u64) {
    for _ in 0..steps {
        let pending = outputs.fetch(black_box(64), black_box(64), stream).unwrap();
        let results = pending.try_read().unwrap().unwrap();
        black_box(results.read(sampled).unwrap());
    }
}

/// The same with nothing of the library in it: what the loop itself costs, and the launch that
/// stands for the driver's.
#[inline(never)]
#[expect(unsafe_code, reason = "calls a function of the table")]
fn only_the_loop(steps: u64) {
    let memory = [0_i32; 64];
    let call: unsafe extern "C" fn(CUgraphExec, CUstream) -> CUresult = black_box(table::launch);
    for _ in 0..steps {
        let _counts = (black_box(64), black_box(64));
        // SAFETY: it looks at neither argument.
        let result = unsafe { call(ptr::null_mut(), ptr::null_mut()) };
        black_box(u64::from(result.0));
        black_box(&memory[..]);
    }
}
