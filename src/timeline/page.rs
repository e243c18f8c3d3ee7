//! A page of completion words with an owner of its own.

#![expect(unsafe_code, reason = "calls the driver with a handle that the caller vouches for")]

use wharf_sys::bindings::CUstream;

use crate::driver::{Context, SharedWord, WordPage};
use crate::error::Error;

/// Words that the device writes in stream order, see [`WordPage`].
///
/// When it is dropped the driver lets go of the memory, so no device work may still write to it; an
/// owner that cannot know that [leaks](Self::leak) it.
#[derive(Debug)]
pub(crate) struct CompletionPage {
    page: WordPage,
    leaked: bool,
    context: Context,
}

impl CompletionPage {
    /// Whether the device can write completion words.
    pub(crate) fn is_supported(context: &Context) -> Result<bool, Error> {
        WordPage::is_supported(context)
    }

    /// Makes `len` words, not disturbing any stream capture.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: there is no memory.
    /// * [`Error::Driver`]: the driver cannot pin it.
    pub(crate) fn new(context: &Context, len: usize) -> Result<Self, Error> {
        Ok(Self { page: WordPage::new(len, context)?, leaked: false, context: context.clone() })
    }

    /// The value of a word, and with it all that the device did before it wrote it.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.page.load(index)
    }

    /// Sets a word that no device work is to write.
    #[inline]
    pub(crate) fn reset(&self, index: usize, value: u64) {
        self.page.reset(index, value);
    }

    /// A word by its address, for a holder that looks at it often.
    pub(crate) fn share(&self, index: usize) -> SharedWord {
        self.page.share(index)
    }

    /// Where the device sees a word.
    pub(crate) fn device_address(&self, index: usize) -> u64 {
        self.page.device_address(index)
    }

    /// Lets the device write `value` to a word when it comes to this place in the stream.
    ///
    /// # Safety
    ///
    /// * `stream` is a stream of the page's context, and that context is current.
    /// * The page is dropped only when the write is done, or leaked.
    pub(crate) unsafe fn write(
        &self,
        index: usize,
        value: u64,
        stream: CUstream,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.page.write(index, value, stream, self.context.driver()) }
    }

    /// Gives the page up while the device may still write to it.
    pub(crate) fn leak(mut self) {
        self.leaked = true;
    }
}

impl Drop for CompletionPage {
    fn drop(&mut self) {
        if !self.leaked {
            let outcome = self.page.close(self.context.driver(), self.context.as_raw());
            self.context.release().note(self.context.driver(), outcome);
        }
    }
}
