//! What a step costs the calling thread, and how fast slots are written.
//!
//! ```text
//! cargo run --release --example staging_cost -- noop WHAT STEPS   for bench/staging.sh
//! cargo run --release --example staging_cost -- ratio             CPU time beside a copy loop
//! cargo run --release --example staging_cost -- write               bandwidth into pinned slots
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that measures"
)]

mod noop;
mod ratio;
mod table;
mod write;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wharf::staging::{InputBuffers, Len, SlotId};
use wharf::{Context, Driver};

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("noop") => {
            noop::run(&arguments.next().unwrap(), arguments.next().unwrap().parse().unwrap());
        }
        Some("ratio") => ratio::run(),
        Some("write") => write::run(),
        _ => {
            println!("staging_cost noop PerSlot|Packed|Loop STEPS, staging_cost ratio|write");
            std::process::exit(2);
        }
    }
}

/// A set of twelve slots and their ids.
fn twelve(
    context: &Context,
    depth: usize,
    layout: wharf::staging::Layout,
) -> (InputBuffers, Vec<SlotId<i32>>) {
    let names: Vec<_> = (0..12).map(|slot| format!("slot {slot}")).collect();
    let set = InputBuffers::builder(context).buckets([64]).ring_depth(depth).layout(layout);
    let set = names.iter().fold(set, |set, name| set.slot::<i32>(name, Len::Tokens));
    let inputs = set.instantiation(wharf::staging::Instantiation::Eager).build().unwrap();
    let ids = names.iter().map(|name| inputs.slot_id(name).unwrap()).collect();
    (inputs, ids)
}

/// The software driver.
#[expect(unsafe_code, reason = "takes the software driver's functions")]
fn driver() -> Driver {
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap()
}

/// Counts the allocations of each thread: the software driver's threads have their own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator, which is asked for the same.
#[expect(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and nothing here asks for its count.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
