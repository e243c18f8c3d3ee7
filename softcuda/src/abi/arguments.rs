#![expect(unsafe_code, reason = "reads and writes through the program's pointers")]
//! Arguments that are pointers: what can be one, and what it points at.

use wharf_sys::CudaError;

use crate::errors::Status;
use crate::memory::pageable::is_mapped;

/// Whether `pointer` can be an address of `T` in a program: not null, aligned, in user space.
pub(crate) fn valid<T>(pointer: *const T) -> bool {
    let address = pointer.addr();
    (4096..(1 << 47) - size_of::<T>()).contains(&address) && address.is_multiple_of(align_of::<T>())
}

/// Writes a result through the program's pointer.
pub(crate) fn out<T>(pointer: *mut T, value: T) -> Status {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that it may be written is the program's promise to
    // the driver API.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Writes a result through a pointer that may be null.
pub(crate) fn out_if_any<T>(pointer: *mut T, value: T) -> Status {
    if pointer.is_null() { Ok(()) } else { out(pointer, value) }
}

/// Reads an argument structure.
pub(crate) fn input<T: Copy>(pointer: *const T) -> Status<T> {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that it holds a `T` is the program's promise.
    Ok(unsafe { pointer.read() })
}

/// Arrays of more bytes than this are looked at before they are read.
const LONG: usize = 64 << 10;

/// Reads `count` arguments; a null pointer is no arguments where `count` is zero.
pub(crate) fn inputs<T: Copy>(pointer: *const T, count: usize) -> Status<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(CudaError::INVALID_VALUE)?;
    if !valid(pointer)
        || bytes > 1 << 40
        || !valid(pointer.wrapping_byte_add(bytes - size_of::<T>()))
    {
        return Err(CudaError::INVALID_VALUE);
    }
    // A count that is nonsense is told by the end of the program's memory.
    if bytes > LONG && !is_mapped(pointer.expose_provenance() as u64, bytes) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that there are `count` of them is the program's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) }.to_vec())
}

/// Writes results through the program's pointer to the first of several.
pub(crate) fn out_array<T: Copy>(pointer: *mut T, values: &[T]) -> Status {
    let Some(last) = values.len().checked_sub(1) else { return Ok(()) };
    if !valid(pointer) || !valid(pointer.wrapping_add(last)) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space and aligned; that so many may be written is the program's promise.
    unsafe { pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}
