//! The loop of `overhead/steps.py` without Python: what a step costs of itself.
//!
//! Prints nanoseconds a step. The driver is the process's; `overhead/run.sh` has softcuda be it.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use wharf::staging::{InputBuffers, Len};
use wharf::{Context, Driver, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let steps: u32 = std::env::args().nth(1).ok_or("usage: step_loop STEPS")?.parse()?;
    let context = Context::retain(&Driver::load()?.device(0)?)?;
    let stream = Stream::new(&context)?;
    let inputs = InputBuffers::builder(&context)
        .slot::<i32>("ids", Len::Tokens)
        .slot::<i64>("positions", Len::Tokens)
        .slot::<i64>("mapping", Len::Tokens)
        .slot::<i32>("lens", Len::Requests)
        .slot::<i32>("tables", Len::Requests.times(16))
        .slot::<f32>("temperature", Len::Requests)
        .buckets([1, 8])
        .build()?;
    let (ids, lens) = (inputs.slot_id::<i32>("ids")?, inputs.slot_id::<i32>("lens")?);
    let (positions, mapping) = (inputs.slot_id::<i64>("positions")?, inputs.slot_id("mapping")?);
    let (tables, temperature) = (inputs.slot_id::<i32>("tables")?, inputs.slot_id("temperature")?);
    let (int, long, table, float) = ([1_i32; 8], [2_i64; 8], [3_i32; 128], [0.5_f32; 8]);
    let round = |steps: u32| -> Result<u128, Box<dyn Error>> {
        let start = Instant::now();
        for _ in 0..steps {
            let mut step = inputs.begin(8, 8)?;
            step.write_from(ids, &int)?;
            step.write_from(positions, &long)?;
            step.write_from(mapping, &long)?;
            step.write_from(lens, &int)?;
            step.write_from(tables, &table)?;
            step.write_from(temperature, &float)?;
            step.submit(&stream)?;
        }
        Ok(start.elapsed().as_nanos() / u128::from(steps))
    };
    // The best of many: the machine does other things, too.
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round(steps / ROUNDS)).collect::<Result<_, _>>()?;
    writeln!(std::io::stdout(), "{}", rounds.iter().min().ok_or("no round")?)?;
    Ok(())
}

const ROUNDS: u32 = 100;
