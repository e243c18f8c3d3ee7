#![expect(unsafe_code, reason = "has the kernel move bytes")]
//! The program's own memory, which the driver does not know.
//!
//! The kernel moves its bytes, so an address that is not mapped is an error instead of a crash.

use std::io;
use std::os::fd::AsRawFd;

use crate::address::pointer;

/// What went wrong while bytes were moved: a page is not mapped, or not for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// Copies `size` bytes of the program's memory at `remote` to `local`, which is the driver's.
pub(super) fn get(remote: u64, local: *mut u8, size: usize) -> Result<(), Unreachable> {
    Direction::FromProgram.across(remote, local, size)
}

/// Copies `size` bytes at `local`, which is the driver's, to the program's memory at `remote`.
pub(super) fn put(remote: u64, local: *const u8, size: usize) -> Result<(), Unreachable> {
    Direction::ToProgram.across(remote, local.cast_mut(), size)
}

/// Whether every page of a range of the program's memory can be read.
pub(crate) fn is_mapped(address: u64, size: usize) -> bool {
    let last = address + size as u64 - 1;
    let mut byte = 0;
    (address..=last).step_by(PAGE).chain([last]).all(|page| get(page, &raw mut byte, 1).is_ok())
}

/// The smallest page, and what an empty pipe takes at once.
const PAGE: usize = 4096;

#[derive(Clone, Copy)]
enum Direction {
    FromProgram,
    ToProgram,
}

impl Direction {
    fn across(self, remote: u64, local: *mut u8, size: usize) -> Result<(), Unreachable> {
        let mut done = 0;
        while done < size {
            match self.by_call(remote + done as u64, local.wrapping_add(done), size - done) {
                Ok(moved) if moved > 0 => done += moved,
                // Emulators lack the call, and a container's rules may forbid it.
                Err(libc::ENOSYS | libc::EPERM) => {
                    return self.by_pipe(
                        remote + done as u64,
                        local.wrapping_add(done),
                        size - done,
                    );
                }
                _ => return Err(Unreachable),
            }
        }
        Ok(())
    }

    /// Moves bytes by the call that moves them between processes. Returns how many, or the error's
    /// number.
    fn by_call(self, remote: u64, local: *mut u8, size: usize) -> Result<usize, i32> {
        let local = libc::iovec { iov_base: local.cast(), iov_len: size };
        let remote = libc::iovec { iov_base: pointer(remote), iov_len: size };
        // SAFETY: no precondition.
        let process = unsafe { libc::getpid() };
        let moved = match self {
            // SAFETY: `local` has `size` bytes for writing; the kernel checks `remote`.
            Self::FromProgram => unsafe {
                libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0)
            },
            // SAFETY: `local` has `size` bytes for reading; the kernel checks `remote`, and
            // that the program lets the driver write there is the meaning of the call.
            Self::ToProgram => unsafe {
                libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0)
            },
        };
        usize::try_from(moved)
            .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EFAULT))
    }

    /// Moves bytes through a pipe, a page at a time, of which all can be moved or nothing.
    fn by_pipe(self, remote: u64, local: *mut u8, size: usize) -> Result<(), Unreachable> {
        let (reader, writer) = io::pipe().map_err(|_| Unreachable)?;
        let mut done = 0;
        while done < size {
            let (remote, local) = (pointer::<u8>(remote + done as u64), local.wrapping_add(done));
            let len = (PAGE - remote.addr() % PAGE).min(size - done);
            let (from, to) = match self {
                Self::FromProgram => (remote, local),
                Self::ToProgram => (local, remote),
            };
            // SAFETY: `len` bytes of ours, or the program's, which the kernel checks.
            let written = unsafe { libc::write(writer.as_raw_fd(), from.cast_const().cast(), len) };
            if usize::try_from(written) != Ok(len) {
                return Err(Unreachable);
            }
            // SAFETY: as above; that the program lets the driver write there is the meaning of the
            // call.
            let read = unsafe { libc::read(reader.as_raw_fd(), to.cast(), len) };
            if usize::try_from(read) != Ok(len) {
                return Err(Unreachable);
            }
            done += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    const LEN: usize = 3 * PAGE;

    /// Three pages: one of numbers, one of numbers with the access that is asked for, and one with
    /// none.
    fn pages(middle: libc::c_int) -> *mut u8 {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the system's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), LEN, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.cast::<u8>();
        for at in 0..2 * PAGE {
            // SAFETY: within the mapping.
            unsafe { base.wrapping_add(at).write(u8::try_from(at % 251).unwrap()) };
        }
        // SAFETY: a page of the mapping.
        assert_eq!(unsafe { libc::mprotect(base.wrapping_add(PAGE).cast(), PAGE, middle) }, 0);
        let last = base.wrapping_add(2 * PAGE).cast();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::mprotect(last, PAGE, libc::PROT_NONE) }, 0);
        base
    }

    #[test]
    fn a_pipe_moves_bytes_where_the_kernel_forbids_the_call_between_processes() {
        let base = pages(libc::PROT_READ | libc::PROT_WRITE);
        let address = base.expose_provenance() as u64;
        let mut bytes = vec![0; LEN];
        let local = bytes.as_mut_ptr();
        assert_eq!(Direction::FromProgram.by_pipe(address + 5, local, 2 * PAGE - 5), Ok(()));
        assert!(
            (5..2 * PAGE).all(|at| usize::from(bytes[at - 5]) == at % 251),
            "every byte in its place"
        );
        bytes.fill(7);
        let local = bytes.as_mut_ptr();
        assert_eq!(Direction::ToProgram.by_pipe(address + 9, local, PAGE), Ok(()));
        // SAFETY: mapped by `pages`.
        let there = unsafe { std::slice::from_raw_parts(base, 2 * PAGE) };
        assert_eq!(
            (there[8], there[9], there[8 + PAGE], usize::from(there[9 + PAGE])),
            (8, 7, 7, (9 + PAGE) % 251)
        );
    }

    #[test]
    fn memory_that_may_not_be_touched_is_an_error_by_either_way() {
        let address = pages(libc::PROT_READ).expose_provenance() as u64;
        let mut bytes = vec![0; LEN];
        let local = bytes.as_mut_ptr();
        for is_by_pipe in [false, true] {
            let way = if is_by_pipe { Direction::by_pipe } else { Direction::across };
            assert_eq!(way(Direction::FromProgram, address, local, 2 * PAGE), Ok(()));
            assert_eq!(way(Direction::FromProgram, address, local, 2 * PAGE + 1), Err(Unreachable));
            assert_eq!(way(Direction::ToProgram, address, local, PAGE), Ok(()));
            assert_eq!(
                way(Direction::ToProgram, address, local, PAGE + 1),
                Err(Unreachable),
                "read only"
            );
            assert_eq!(way(Direction::FromProgram, 4096, local, 1), Err(Unreachable), "not mapped");
        }
    }
}
