#![expect(unsafe_code, reason = "calls a function of the table")]
//! Steps with a table whose launch does nothing but say that it is done.

use std::hint::black_box;
use std::ptr;

use softcuda::{Config, Simulator};
use wharf::staging::{InputBuffers, Layout, SlotId};
use wharf::sys::bindings::{CUgraphExec, CUresult, CUstream};
use wharf::{Context, Stream};

use crate::{ALLOCATIONS, table, twelve};

/// Runs so many steps in a layout, or of nothing but the loop.
pub(crate) fn run(what: &str, steps: u64) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = table::driver();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let layout = if what == "Packed" { Layout::Packed } else { Layout::PerSlot };
    let (inputs, ids) = twelve(&context, 3, layout);
    println!("{steps} steps begin");
    let before = ALLOCATIONS.get();
    match what {
        "Loop" => only_the_loop(&ids, steps),
        _ => counted_steps(&inputs, &ids, &stream, steps),
    }
    let allocations = ALLOCATIONS.get() - before;
    println!("{steps} steps end");
    assert_eq!(allocations, 0, "a step allocates");
}

/// Callgrind counts in here. The caller writes nothing, and nothing is to be padded.
#[inline(never)]
fn counted_steps(inputs: &InputBuffers, ids: &[SlotId<i32>], stream: &Stream, steps: u64) {
    for _ in 0..steps {
        let mut step = inputs.begin(black_box(64), black_box(64)).unwrap();
        for id in ids {
            black_box(step.write(*id));
        }
        black_box(step.submit(stream).unwrap().device_ptr(ids[0]));
    }
}

/// The same with nothing of the library in it: what the loop itself costs, and the launch that
/// stands for the driver's.
#[inline(never)]
fn only_the_loop(ids: &[SlotId<i32>], steps: u64) {
    let mut memory = [0_i32; 64];
    let call: unsafe extern "C" fn(CUgraphExec, CUstream) -> CUresult = black_box(table::launch);
    for _ in 0..steps {
        let _counts = (black_box(64), black_box(64));
        for _ in ids {
            black_box(&mut memory[..]);
        }
        // SAFETY: it looks at neither argument.
        let result = unsafe { call(ptr::null_mut(), ptr::null_mut()) };
        black_box(u64::from(result.0));
    }
}
