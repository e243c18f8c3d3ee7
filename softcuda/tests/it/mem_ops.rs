//! Stream memory operations: what they may name and what the device must have.

use std::mem;

use softcuda::{Config, Schedule};
use wharf_sys::bindings::{
    CUdevice_attribute, CUresult, CUstreamBatchMemOpParams, CUstreamBatchMemOpType,
    PFN_cuStreamBatchMemOp_v11070, PFN_cuStreamWaitValue32_v11070, PFN_cuStreamWaitValue64_v11070,
    PFN_cuStreamWriteValue32_v11070, PFN_cuStreamWriteValue64_v11070,
};

use crate::support::Rig;

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
/// `CU_STREAM_WAIT_VALUE_FLUSH`
const FLUSH: u32 = 1 << 30;

#[test]
fn managed_memory_is_refused() {
    let rig = Rig::new(Schedule::Async);
    let (stream, mut managed) = (rig.stream(1), 0);
    unsafe { rig.api.mem_alloc_managed.call(&raw mut managed, 64, 1) }.unwrap();
    let write = entry!("cuStreamWriteValue32" 11070 PFN_cuStreamWriteValue32_v11070);
    let write_wide = entry!("cuStreamWriteValue64" 11070 PFN_cuStreamWriteValue64_v11070);
    let wait = entry!("cuStreamWaitValue32" 11070 PFN_cuStreamWaitValue32_v11070);
    let wait_wide = entry!("cuStreamWaitValue64" 11070 PFN_cuStreamWaitValue64_v11070);
    let results = unsafe {
        [
            write(stream, managed, 1, 0),
            write_wide(stream, managed, 1, 0),
            wait(stream, managed, 0, 0),
            wait_wide(stream, managed, 0, 0),
        ]
    };
    assert_eq!(results, [INVALID; 4]);
    assert_eq!(unsafe { write(stream, rig.device(8), 1, 0) }, OK);
}

#[test]
fn a_flush_of_remote_writes_needs_a_device_that_can() {
    let lacks = (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES, 0);
    for (attributes, expected) in [(vec![], OK), (vec![lacks], CUresult::CUDA_ERROR_NOT_SUPPORTED)]
    {
        let rig = Rig::with(Config { attributes, ..Rig::config() });
        let (stream, word) = (rig.stream(1), rig.device(8));
        let wait = entry!("cuStreamWaitValue32" 11070 PFN_cuStreamWaitValue32_v11070);
        let batch = entry!("cuStreamBatchMemOp" 11070 PFN_cuStreamBatchMemOp_v11070);
        let mut flush: CUstreamBatchMemOpParams = unsafe { mem::zeroed() };
        flush.operation = CUstreamBatchMemOpType::CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES;
        assert_eq!(unsafe { wait(stream, word, 0, FLUSH) }, expected);
        assert_eq!(unsafe { batch(stream, 1, &raw mut flush, 0) }, expected);
        assert_eq!(unsafe { wait(stream, word, 0, 0) }, OK);
        // The poisoned word is negative as a signed one.
        unsafe { rig.api.memset_d32_async.call(word, 0, 1, std::ptr::null_mut()) }.unwrap();
        rig.synchronize(stream);
    }
}
