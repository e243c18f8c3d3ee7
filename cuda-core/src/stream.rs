#![expect(unsafe_code, reason = "borrows cuda-core's handles together with their owners")]
//! Contexts and streams of cuda-core's.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use wharf::{Context, CudaError, Driver, Error, Stream};

/// A context of cuda-core's for wharf. It is kept alive as long as anything of wharf's uses it.
///
/// # Errors
///
/// As [`Context::borrow_with_owner`].
pub fn context(theirs: &Arc<cuda_core::Context>, driver: &Driver) -> Result<Context, Error> {
    let owner = Arc::clone(theirs);
    // SAFETY: the primary context is released, or the owner that another library gave is dropped,
    // when the last `Arc` is; a context borrowed without an owner was vouched for by its borrower,
    // for all that is derived from it.
    unsafe { Context::borrow_with_owner(theirs.cu_ctx().cast(), owner, driver) }
}

/// A stream of cuda-core's, for wharf: it derefs to a [`Stream`]. The stream is kept alive as long
/// as anything of wharf's may use it.
///
/// Making one of a stream that is known makes no driver call.
pub struct BorrowedStream {
    ours: Stream,
    theirs: Arc<cuda_core::Stream>,
}

impl BorrowedStream {
    /// Borrows a stream of `context`, which [`context`] made of the stream's own.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`INVALID_CONTEXT`](CudaError::INVALID_CONTEXT): the stream is of
    /// another context.
    pub fn new(theirs: &Arc<cuda_core::Stream>, context: &Context) -> Result<Self, Error> {
        if theirs.context().cu_ctx().addr() != context.as_raw().addr() {
            let call = "borrowing a stream of another context";
            return Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT });
        }
        let owner = Arc::clone(theirs);
        // SAFETY: a stream of the context, or its default stream, which is given up when the last
        // `Arc` is dropped. It can be forgotten by safe calls only, which then are refused here.
        let ours = unsafe { Stream::borrow_with_owner(theirs.cu_stream().cast(), owner, context) };
        Ok(Self { ours, theirs: Arc::clone(theirs) })
    }

    /// cuda-core's stream.
    pub fn cuda_core(&self) -> &Arc<cuda_core::Stream> {
        &self.theirs
    }
}

impl Deref for BorrowedStream {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.ours
    }
}

impl fmt::Debug for BorrowedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BorrowedStream").field(&self.ours).finish()
    }
}
