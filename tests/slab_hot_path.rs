//! Warm allocation and freeing take nothing from the heap and call no driver. In a process of its
//! own, for the allocator that counts.
#![expect(unsafe_code, reason = "counts allocations; takes the software driver's functions")]

#[path = "../examples/slab_hot_path/run.rs"]
mod run;

#[global_allocator]
static ALLOCATOR: run::Counting = run::Counting;

#[test]
fn ten_million_warm_pairs_neither_allocate_nor_call_the_driver() {
    let pairs = 10_000_000;
    let outcome = run::warm_pairs(pairs, || ()).unwrap();
    assert_eq!(outcome, run::Outcome { pairs, allocations: 0, driver_calls: 0 });
}

#[test]
fn the_allocator_counts() {
    let before = run::allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(run::allocations() - before, 2);
}
