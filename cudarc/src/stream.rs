#![expect(unsafe_code, reason = "borrows cudarc's handles together with their owners")]
//! Contexts and streams of cudarc's.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream};
use wharf::{Context, CudaError, Driver, Error, Stream};

/// A context of cudarc's, primary or not, for wharf. It is kept alive as long as anything of
/// wharf's uses it.
///
/// # Errors
///
/// As [`Context::borrow_with_owner`].
pub fn context(theirs: &Arc<CudaContext>, driver: &Driver) -> Result<Context, Error> {
    let owner = Arc::clone(theirs);
    // SAFETY: the context is destroyed, or the primary one released, when the last `Arc` is
    // dropped.
    unsafe { Context::borrow_with_owner(theirs.cu_ctx().cast(), owner, driver) }
}

/// A stream of cudarc's, for wharf: it derefs to a [`Stream`]. The stream is kept alive as long as
/// anything of wharf's may use it.
///
/// Making one of a stream that is known makes no driver call.
pub struct BorrowedStream {
    ours: Stream,
    theirs: Arc<CudaStream>,
}

impl BorrowedStream {
    /// Borrows a stream of `context`, which [`context`] made of the stream's own.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`INVALID_CONTEXT`](CudaError::INVALID_CONTEXT): the stream is of
    /// another context.
    pub fn new(theirs: &Arc<CudaStream>, context: &Context) -> Result<Self, Error> {
        if theirs.context().cu_ctx().addr() != context.as_raw().addr() {
            let call = "borrowing a stream of another context";
            return Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT });
        }
        let owner = Arc::clone(theirs);
        // SAFETY: a stream of the context, or its default stream, that is destroyed when the last
        // `Arc` is dropped. It can be forgotten by safe calls only, which then are refused here.
        let ours = unsafe { Stream::borrow_with_owner(theirs.cu_stream().cast(), owner, context) };
        Ok(Self { ours, theirs: Arc::clone(theirs) })
    }

    /// cudarc's stream.
    pub fn cudarc(&self) -> &Arc<CudaStream> {
        &self.theirs
    }

    /// Whether this is that stream of cudarc's.
    pub(crate) fn is(&self, stream: &CudaStream) -> bool {
        self.theirs.cu_stream() == stream.cu_stream()
            && self.theirs.context().cu_ctx() == stream.context().cu_ctx()
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
