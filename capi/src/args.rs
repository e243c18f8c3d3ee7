#![expect(unsafe_code, reason = "reads and writes through the caller's pointers")]
//! Pointers and options of the caller.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use crate::status::{Failure, wharf_status};

/// A place for a result, which is not null.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// Writes the result.
    #[inline]
    pub(crate) fn set(self, value: T) {
        // SAFETY: `out` was promised that the place can be written.
        unsafe { self.0.write(value) };
    }
}

/// The place for the result `name`.
///
/// # Safety
///
/// `at` is null, or can be written as long as the result is kept.
#[inline]
pub(crate) unsafe fn out<T>(at: *mut T, name: &'static str) -> Result<Out<T>, Failure> {
    // SAFETY: the caller's promise.
    unsafe { out_or_none(at) }.ok_or_else(|| null(name))
}

/// The place for a result that the caller may do without: none where it is null.
///
/// # Safety
///
/// As [`out`].
#[inline]
pub(crate) unsafe fn out_or_none<T>(at: *mut T) -> Option<Out<T>> {
    NonNull::new(at).map(Out)
}

/// Structures that grow: their first field is their size, as the caller was compiled with.
///
/// # Safety
///
/// The type is `repr(C)`, and its first field is a `usize`.
pub(crate) unsafe trait Growing: Sized {}

/// Checks the size of a structure that may grow.
///
/// # Safety
///
/// `at` is null, or points to a size, and to as many bytes as that says.
pub(crate) unsafe fn sized<T: Growing>(
    at: *const T,
    name: &'static str,
) -> Result<*const T, Failure> {
    if at.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, so there is a size: the caller's promise, and that of `Growing`.
    let given = unsafe { at.cast::<usize>().read() };
    let wanted = size_of::<T>();
    if given < wanted {
        let text = format!(
            "{name}->struct_size is {given}, and {wanted} at least: set it to sizeof(*{name})"
        );
        return Err(Failure::new(wharf_status::Invalid, text));
    }
    Ok(at)
}

/// A text of the caller's.
///
/// # Safety
///
/// `at` is null, or a string with a zero at its end, unchanged as long as the result is used.
pub(crate) unsafe fn text<'a>(at: *const c_char, name: &'static str) -> Result<&'a str, Failure> {
    if at.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null; the caller's promise.
    let text = unsafe { CStr::from_ptr(at) };
    text.to_str().map_err(|_| Failure::new(wharf_status::Invalid, format!("{name} is not UTF-8")))
}

/// As [`text`]; null is the default.
///
/// # Safety
///
/// As [`text`].
pub(crate) unsafe fn text_or<'a>(
    at: *const c_char,
    name: &'static str,
    default: &'a str,
) -> Result<&'a str, Failure> {
    if at.is_null() {
        return Ok(default);
    }
    // SAFETY: the caller's promise.
    unsafe { text(at, name) }
}

/// An array of the caller's, of at most `most` elements.
///
/// # Safety
///
/// `at` is null, or has `len` elements, unchanged as long as the result is used.
pub(crate) unsafe fn array<'a, T>(
    at: *const T,
    len: usize,
    most: usize,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(null(name));
    }
    if len > most {
        let text = format!("{name} has {len} elements, and {most} at most");
        return Err(Failure::new(wharf_status::Invalid, text));
    }
    // SAFETY: not null, and so many elements: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}

/// An array of slots that may grow, of at most `most`: pointers to each of `size` bytes.
///
/// # Safety
///
/// `at` is null, or has `len` elements of `size` bytes, unchanged as long as the result is used.
pub(crate) unsafe fn array_of<T>(
    at: *const T,
    size: usize,
    len: usize,
    most: usize,
) -> Result<impl Iterator<Item = *const T>, Failure> {
    if size < size_of::<T>() || !size.is_multiple_of(align_of::<T>()) {
        let wanted = size_of::<T>();
        let text = format!(
            "options->slot_size is {size}, and {wanted} at least: set it to sizeof(*slots)"
        );
        return Err(Failure::new(wharf_status::Invalid, text));
    }
    // SAFETY: so many elements, and each of them once: the caller's promise.
    unsafe { array(at, len, most, "slots") }?;
    // Within the array, whose size an allocation has.
    Ok((0..len).map(move |place| at.wrapping_byte_add(place * size)))
}

/// A time of the caller's.
pub(crate) fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cold]
fn null(name: &'static str) -> Failure {
    Failure::new(wharf_status::Null, format!("{name} is NULL"))
}
