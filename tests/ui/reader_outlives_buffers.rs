//! A read does not outlive what is read.

use wharf::Stream;
use wharf::staging::{InputBuffers, Reader, StageError};

fn read<'a>(inputs: InputBuffers, stream: &'a Stream) -> Result<Reader<'a>, StageError> {
    inputs.begin(1, 1)?.submit(stream)?.reader(stream)
}

fn main() {}
