//! Sequences of operations on a pool, against a list of what is live.
//!
//! `cargo +nightly fuzz run --sanitizer none slab`, or `.ci/run fuzz` without cargo-fuzz; no
//! sanitizer, since the pool runs on addresses with nothing behind them.
#![no_main]

#[path = "../../tests/it/slab_model/model.rs"]
mod model;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

use model::{Model, Op};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let cached = bytes.arbitrary().unwrap_or(false);
    let mut model = Model::new(if cached { 4 << 20 } else { 0 });
    while !bytes.is_empty()
        && let Ok(op) = op(&mut bytes)
    {
        model.run(op);
        model.check();
    }
    model.end();
});

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match bytes.int_in_range(0..=9)? {
        0 => Op::Alloc(size(bytes)?),
        1 => Op::Aligned(size(bytes)?, bytes.int_in_range(0..=23)?),
        2 => Op::Free(at(bytes)?),
        3 => Op::AllocRaw(size(bytes)?),
        4 => Op::FreeRaw(at(bytes)?),
        5 => Op::FreeRawAgain(at(bytes)?),
        6 => Op::FreeInside(at(bytes)?, bytes.int_in_range(1..=255)?),
        7 => Op::Flush,
        8 => Op::Trim(bytes.int_in_range(0..=3)?),
        _ => Op::FailCommits(bytes.int_in_range(0..=3)?),
    })
}

/// 1 byte to 64 MiB, all doublings alike.
fn size(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let bits = bytes.int_in_range(0..=25)?;
    Ok((1 << bits) + bytes.int_in_range(0..=(1 << bits) - 1)?)
}

/// Which of the live blocks.
fn at(bytes: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(bytes.arbitrary::<u8>()?))
}
