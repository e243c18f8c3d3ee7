//! Memory that views keep, order and refuse, on the driver that cuda-core and wharf both load.
//! Without one each test says that it was skipped.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "tests: a failure panics"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cuda_async::cuda_graph::CudaGraph;
use cuda_async::device_operation::DeviceOp;
use cuda_core::{DeviceBuffer, PinnedHostBuffer};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len, OutputBuffers, SlotFault, StageError};
use wharf::{Context, CudaError, Driver, LoadError};
use wharf_cuda_core::{
    BorrowedStream, FetchFrom, copy, device_buffer, from_cuda_core, input_buffer, output_buffer,
    refer,
};

const LIMIT: Duration = Duration::from_secs(600);

struct Rig {
    cuda: Arc<cuda_core::Context>,
    queue: Arc<cuda_core::Stream>,
    context: Context,
    stream: BorrowedStream,
    pool: Pool,
    /// Last: the tests share the primary context, and captures are of the whole process.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// The objects of a test, or none where there is no driver and none is demanded.
fn rig() -> Option<Rig> {
    let driver = match Driver::load() {
        Ok(driver) => driver,
        Err(LoadError::Library { .. } | LoadError::NoDevice)
            if std::env::var_os("WHARF_REQUIRE_GPU").is_none() =>
        {
            eprintln!("skipped: there is no CUDA driver here");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cuda = cuda_core::Context::new(0).unwrap();
    let queue = cuda.new_stream().unwrap();
    let context = wharf_cuda_core::context(&cuda, &driver).unwrap();
    let stream = BorrowedStream::new(&queue, &context).unwrap();
    let resource = DeviceMemoryResource::new(&context, 64 << 20).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    Some(Rig { cuda, queue, context, stream, pool, _alone: alone })
}

/// Waits for what cuda-core gives up on a thread of its own.
fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_buffer_goes_back_when_the_work_on_it_is_done() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.pool.alloc(100_000, &rig.stream).unwrap();
    let address = buffer.info().address;
    let mut theirs = device_buffer(buffer, &rig.stream, LIMIT).unwrap();
    assert_eq!((theirs.cu_deviceptr(), theirs.len()), (address, 100_000));
    theirs.copy_from_host(&rig.queue, &vec![7; 100_000]).unwrap();
    assert_eq!(theirs.to_host_vec(&rig.queue).unwrap(), vec![7; 100_000]);
    let other = rig.cuda.new_stream().unwrap();
    theirs.zero_async(&other).unwrap();
    drop(theirs);
    // Its lease has the block, and then the pool: an allocation gets it. Those before stay, so that
    // each gets another block.
    let mut held: Vec<Buffer<i32>> = Vec::new();
    until(|| match rig.pool.alloc(100_000, &rig.stream) {
        Ok(next) => {
            held.push(next);
            held.last().is_some_and(|next| next.info().address == address)
        }
        Err(_) => {
            held.clear();
            false
        }
    });
    other.synchronize().unwrap();
}

#[test]
fn a_buffer_is_theirs_when_earlier_work_on_the_memory_is_done() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.pool.alloc(100_000, &rig.stream).unwrap();
    buffer.fill(5, &rig.stream).unwrap();
    let theirs = device_buffer(buffer, &rig.stream, LIMIT).unwrap();
    // On a stream that nothing orders behind the fill.
    let stranger = rig.cuda.new_stream().unwrap();
    assert_eq!(theirs.to_host_vec(&stranger).unwrap(), vec![5; 100_000]);
}

#[test]
fn a_graph_keeps_what_was_recorded() {
    let Some(rig) = rig() else { return };
    let inputs = InputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let buffer: Buffer<i32> = rig.pool.alloc(8, &rig.stream).unwrap();
    let address = buffer.info().address;
    let from = input_buffer(&inputs, ids, 8, &rig.stream).unwrap();
    let mut to = device_buffer(buffer, &rig.stream, LIMIT).unwrap();
    let announced = rig.context.driver().capture_elsewhere();
    let graph = CudaGraph::scope(&rig.queue, |scope| {
        // A step has no place in a capture, and does not disturb it.
        let mut step = inputs.begin(8, 1).unwrap();
        step.write(ids).fill(1);
        let refused = step.submit(&rig.stream).unwrap_err();
        assert!(matches!(refused, StageError::Driver(_)), "{refused:?}");
        scope.record(copy(&from, &mut to)?)
    });
    let graph = graph.unwrap();
    drop((announced, from, to, inputs));
    graph.launch().sync_on(&rig.queue).unwrap();
    let next: Buffer<i32> = rig.pool.alloc(8, &rig.stream).unwrap();
    assert_ne!(next.info().address, address, "the graph writes there");
    drop((graph, next));
    until(|| rig.pool.blocks().iter().all(|block| block.handles == 0));
}

#[test]
fn results_come_from_their_memory_and_are_told_apart() {
    let Some(rig) = rig() else { return };
    let outputs = OutputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let outputs = Arc::new(outputs.slot::<i32>("own", Len::Tokens).buckets([8]).build().unwrap());
    let (ids, own) = (outputs.slot_id("ids").unwrap(), outputs.slot_id("own").unwrap());
    let mut ours = output_buffer(&outputs, own, 8, &rig.stream).unwrap();
    ours.copy_from_host(&rig.queue, &[3; 8]).unwrap();
    let theirs = DeviceBuffer::from_host(&rig.queue, &[4; 9]).unwrap();
    let short = DeviceBuffer::from_host(&rig.queue, &[4; 7]).unwrap();
    let mut fetch = FetchFrom::new(outputs.begin(5, 1).unwrap(), &rig.stream);
    let refused = fetch.source(ids, &short).unwrap_err();
    let fault = SlotFault::Length { wanted: 8, given: 7 };
    assert!(matches!(refused, StageError::Slot { fault: it, .. } if it == fault), "no {fault:?}");
    fetch.source(ids, &theirs).unwrap();
    let pending = fetch.submit().unwrap();
    // The lease keeps it until the copy is done.
    drop(theirs);
    let results = pending.wait(LIMIT).unwrap();
    assert_eq!(results.read(ids).unwrap(), [4; 5]);
    assert_eq!(results.read(own).unwrap(), [3; 5]);
}

#[test]
fn their_pinned_memory_is_the_source_of_a_step() {
    let Some(rig) = rig() else { return };
    let inputs = InputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let pinned = Arc::new(PinnedHostBuffer::from_slice(&rig.cuda, &[6; 8]).unwrap());
    let held = Arc::downgrade(&pinned);
    let mut step = inputs.begin(8, 1).unwrap();
    let short = Arc::new(PinnedHostBuffer::<i32>::zeroed(&rig.cuda, 4).unwrap());
    let refused = refer(&inputs, &mut step, ids, short).unwrap_err();
    assert!(matches!(refused, StageError::Slot { .. }), "{refused:?}");
    refer(&inputs, &mut step, ids, pinned).unwrap();
    step.submit(&rig.stream).unwrap();
    assert!(held.upgrade().is_some(), "kept until the ring slot is used again");
    let view = input_buffer(&inputs, ids, 8, &rig.stream).unwrap();
    assert_eq!(view.to_host_vec(&rig.queue).unwrap(), [6; 8]);
    inputs.wait().unwrap();
    drop(inputs);
    assert!(held.upgrade().is_none());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(rig) = rig() else { return };
    let inputs = InputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let above = input_buffer(&inputs, ids, 9, &rig.stream).map(drop).unwrap_err();
    assert_eq!(above.code(), Some(CudaError::INVALID_VALUE));
    let from = DeviceBuffer::from_host(&rig.queue, &[1; 9]).unwrap();
    let mut to = input_buffer(&inputs, ids, 8, &rig.stream).unwrap();
    let refused = from_cuda_core(copy(&from, &mut to).unwrap_err());
    assert_eq!(refused.code(), Some(CudaError::INVALID_VALUE));
}
