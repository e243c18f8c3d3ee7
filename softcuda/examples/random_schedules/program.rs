//! A program of four streams, three events and two graphs whose result is fixed by its waits.
//!
//! ```text
//!  first   fill a ── graph one (a to b, c filled) ── record e0
//!                                                      |    |
//!  second                    wait e0 ── b to c ── record e1 |
//!                                                   |       |
//!  third     wait e0 ── graph two (d halves, b to d) ── record e2
//!                                                   |            |
//!  fourth                    wait e1, wait e2 ── c and d to the result
//! ```

use std::ptr;

use softcuda::{Config, Grace, Schedule, Simulator};
use wharf_sys::bindings::{
    CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS_v1, CUcontext, CUevent, CUgraph, CUgraphExec,
    CUgraphNode, CUmemorytype, CUstream,
};
use wharf_sys::{Api, Error};

/// Elements of each buffer.
pub(crate) const LEN: usize = 64;
const SIZE: usize = LEN * 4;

/// Runs the program under `schedule` and returns what arrived. Without `waits`, the fourth stream
/// does not wait for the third.
pub(crate) fn run(schedule: Schedule, waits: bool) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    // Every operation is waited for, so none needs the grace, which would let a slow machine change
    // the order that a seed fixes.
    let machine = Simulator::new(Config { schedule, grace: Grace::Never, ..Config::default() });
    let _bound = machine.bind();
    let api = unsafe { Api::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
    let mut context = ptr::null_mut();
    unsafe {
        api.init.call(0)?;
        api.device_primary_ctx_retain.call(&raw mut context, 0)?;
        api.ctx_set_current.call(context)?;
    }
    let result = Program::new(&api, context)?.run(waits)?;
    Ok(result)
}

struct Program<'a> {
    api: &'a Api,
    context: CUcontext,
    streams: [CUstream; 4],
    events: [CUevent; 3],
    /// a, b, c, d and the result, which is twice as long.
    buffers: [u64; 5],
}

impl<'a> Program<'a> {
    fn new(api: &'a Api, context: CUcontext) -> Result<Self, Error> {
        let mut this = Self {
            api,
            context,
            streams: [ptr::null_mut(); 4],
            events: [ptr::null_mut(); 3],
            buffers: [0; 5],
        };
        for stream in &mut this.streams {
            unsafe { api.stream_create.call(stream, 1) }?;
        }
        for event in &mut this.events {
            unsafe { api.event_create.call(event, 2) }?;
        }
        for buffer in &mut this.buffers {
            unsafe { api.mem_alloc.call(buffer, 2 * SIZE) }?;
            unsafe { api.memset_d32.call(*buffer, 0, 2 * LEN) }?;
        }
        unsafe { api.ctx_synchronize.call() }?;
        Ok(this)
    }

    fn run(&self, waits: bool) -> Result<Vec<u32>, Error> {
        let Self { api, streams: [first, second, third, fourth], events: [e0, e1, e2], .. } = *self;
        let [a, b, c, d, result] = self.buffers;
        let (one, two) = (self.graph_one()?, self.graph_two()?);
        unsafe {
            api.memset_d32_async.call(a, 0x11, LEN, first)?;
            api.graph_launch.call(one, first)?;
            api.event_record.call(e0, first)?;

            api.stream_wait_event.call(second, e0, 0)?;
            api.memcpy_dtod_async.call(c, b, SIZE / 2, second)?;
            api.event_record.call(e1, second)?;

            api.stream_wait_event.call(third, e0, 0)?;
            api.graph_launch.call(two, third)?;
            api.event_record.call(e2, third)?;

            api.stream_wait_event.call(fourth, e1, 0)?;
            if waits {
                api.stream_wait_event.call(fourth, e2, 0)?;
            }
            api.memcpy_dtod_async.call(result, c, SIZE, fourth)?;
            api.memcpy_dtod_async.call(result + SIZE as u64, d, SIZE, fourth)?;
            api.stream_synchronize.call(fourth)?;
        }
        let mut values = vec![0; 2 * LEN];
        unsafe { api.memcpy_dtoh.call(values.as_mut_ptr().cast(), result, 2 * SIZE) }?;
        unsafe { api.ctx_synchronize.call() }?;
        Ok(values)
    }

    /// Copies a to b and fills c, in either order.
    fn graph_one(&self) -> Result<CUgraphExec, Error> {
        let [a, b, c, ..] = self.buffers;
        let graph = self.graph()?;
        self.copy(graph, &[], b, a, SIZE)?;
        self.fill(graph, &[], c, 0x22, LEN)?;
        self.instantiate(graph)
    }

    /// Fills both halves of d in either order, then copies the start of b over the first.
    fn graph_two(&self) -> Result<CUgraphExec, Error> {
        let [_, b, _, d, _] = self.buffers;
        let graph = self.graph()?;
        let halves = [
            self.fill(graph, &[], d, 0x33, LEN / 2)?,
            self.fill(graph, &[], d + SIZE as u64 / 2, 0x44, LEN / 2)?,
        ];
        self.copy(graph, &halves, d, b, SIZE / 4)?;
        self.instantiate(graph)
    }

    fn graph(&self) -> Result<CUgraph, Error> {
        let mut graph = ptr::null_mut();
        unsafe { self.api.graph_create.call(&raw mut graph, 0) }?;
        Ok(graph)
    }

    fn instantiate(&self, graph: CUgraph) -> Result<CUgraphExec, Error> {
        let mut exec = ptr::null_mut();
        unsafe { self.api.graph_instantiate_with_flags.call(&raw mut exec, graph, 0) }?;
        unsafe { self.api.graph_destroy.call(graph) }?;
        Ok(exec)
    }

    fn copy(
        &self,
        graph: CUgraph,
        after: &[CUgraphNode],
        dst: u64,
        src: u64,
        size: usize,
    ) -> Result<CUgraphNode, Error> {
        let mut node = ptr::null_mut();
        let params = CUDA_MEMCPY3D {
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcDevice: src,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstDevice: dst,
            WidthInBytes: size,
            Height: 1,
            Depth: 1,
            ..unsafe { std::mem::zeroed() }
        };
        let add = &self.api.graph_add_memcpy_node;
        unsafe {
            add.call(
                &raw mut node,
                graph,
                after.as_ptr(),
                after.len(),
                &raw const params,
                self.context,
            )
        }?;
        Ok(node)
    }

    fn fill(
        &self,
        graph: CUgraph,
        after: &[CUgraphNode],
        dst: u64,
        value: u32,
        len: usize,
    ) -> Result<CUgraphNode, Error> {
        let mut node = ptr::null_mut();
        let params = CUDA_MEMSET_NODE_PARAMS_v1 {
            dst,
            pitch: 0,
            value,
            elementSize: 4,
            width: len,
            height: 1,
        };
        let add = &self.api.graph_add_memset_node;
        unsafe {
            add.call(
                &raw mut node,
                graph,
                after.as_ptr(),
                after.len(),
                &raw const params,
                self.context,
            )
        }?;
        Ok(node)
    }
}
