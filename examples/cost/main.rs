//! What operations cost the calling thread, counted: instructions, loads, stores and locked
//! instructions by callgrind; driver calls and heap allocations by the software driver and the
//! allocator. Counts are the same on a busy machine, so there are limits, and CI holds them.
//!
//! ```text
//! cargo run --release --example cost                     the table; fails above a limit
//! cargo run --release --example cost -- calls            which driver calls a set's life takes
//! cargo run --release --example cost -- row NAME ROUNDS  one row's operation, for callgrind
//! ```
//!
//! Functions of the library that a caller of some size does not inline are outlined here too. What
//! the loop takes without the library is subtracted; a launch does nothing but write completion
//! words, and is not counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that measures"
)]

mod count;
mod limits;
mod memory;
mod startup;
mod steps;
mod table;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(|argument| &**argument).collect::<Vec<_>>()[..] {
        [] => {
            let instructions = count::table();
            let startup = startup::table();
            std::process::exit(i32::from(!(instructions && startup)));
        }
        ["calls"] => startup::calls(),
        ["row", name, rounds] => count::row(name, rounds.parse().unwrap()),
        _ => {
            println!("cost, cost calls, cost row NAME ROUNDS");
            std::process::exit(2);
        }
    }
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
