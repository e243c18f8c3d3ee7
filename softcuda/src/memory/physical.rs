#![expect(unsafe_code, reason = "makes files in memory")]
//! Physical memory: bytes without an address, which mappings show at several.
//!
//! The bytes lie in a file in memory, so mappings of one allocation share them. Allocations that
//! another process may import have a file of their own, whose descriptor is what is exported;
//! all others share one sparse file, since a process has few descriptors.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// The bytes of one physical allocation; they are gone when the last mapping and the last
/// handle are.
#[derive(Debug)]
pub(crate) struct Bytes {
    file: Arc<File>,
    /// Where in the file they begin.
    offset: u64,
    size: u64,
    /// Whether the file holds other allocations too.
    shares_file: bool,
}

/// Where new physical allocations of one machine get their bytes.
#[derive(Debug, Default)]
pub(crate) struct Store {
    file: Option<Arc<File>>,
    /// The end of the last allocation in the shared file. Offsets are not used again, and a
    /// freed range costs nothing.
    end: u64,
}

impl Store {
    /// `size` bytes, all zero and not committed; with `exportable`, in a file of their own.
    pub(crate) fn allocate(&mut self, size: u64, exportable: bool) -> Option<Bytes> {
        if exportable {
            let file = Arc::new(new_file()?);
            file.set_len(size).ok()?;
            return Some(Bytes { file, offset: 0, size, shares_file: false });
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(new_file()?))),
        };
        let offset = self.end;
        let end = offset.checked_add(size)?;
        file.set_len(end).ok()?;
        self.end = end;
        Some(Bytes { file, offset, size, shares_file: true })
    }
}

impl Bytes {
    /// The bytes behind a descriptor that was exported, here or in another process.
    pub(crate) fn import(descriptor: i32) -> Option<Self> {
        let copy = duplicate(descriptor)?;
        let file = File::from(copy);
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        is_in_memory(&file).then(|| Self {
            file: Arc::new(file),
            offset: 0,
            size,
            shares_file: false,
        })
    }

    /// What other processes of this machine open the bytes by, as long as this one has them: this
    /// process and its descriptor, and which file that is.
    pub(crate) fn fabric_handle(&self) -> Option<[u8; FABRIC_BYTES]> {
        let (device, file) = self.identity()?;
        let numbers = [
            u64::from_le_bytes(*MAGIC),
            std::process::id().into(),
            u64::try_from(self.file.as_raw_fd()).ok()?,
            device,
            file,
        ];
        let mut handle = [0; FABRIC_BYTES];
        for (bytes, number) in handle.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        Some(handle)
    }

    /// The bytes behind a fabric handle; `None` if the process that exported them, or its
    /// allocation, is gone.
    pub(crate) fn open(handle: &[u8; FABRIC_BYTES]) -> Option<Self> {
        let mut numbers = handle.chunks_exact(8).map(|bytes| {
            bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        });
        let mut next = || numbers.next();
        let (magic, process, descriptor) = (next()?, next()?, next()?);
        let identity = (next()?, next()?);
        if magic != u64::from_le_bytes(*MAGIC) {
            return None;
        }
        let path = format!("/proc/{process}/fd/{descriptor}");
        let file = File::options().read(true).write(true).open(path).ok()?;
        // The descriptor may be another file's by now.
        Self::import(file.as_raw_fd()).filter(|bytes| bytes.identity() == Some(identity))
    }

    /// A new descriptor of the bytes, the caller's to close.
    pub(crate) fn export(&self) -> Option<OwnedFd> {
        self.file.as_fd().try_clone_to_owned().ok()
    }

    /// The identity of an exported allocation, across processes.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.file.metadata().ok().map(|data| (data.dev(), data.ino()))
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The file and where in it the allocation's byte `offset` is.
    pub(crate) fn locate(&self, offset: u64) -> (i32, u64) {
        (self.file.as_raw_fd(), self.offset + offset)
    }

    /// Fills all bytes with a pattern.
    pub(crate) fn fill(&self, pattern: u8) {
        let chunk = vec![pattern; 1 << 20];
        for begin in (0..self.size).step_by(chunk.len()) {
            let rest = usize::try_from(self.size - begin).unwrap_or(usize::MAX).min(chunk.len());
            // A pattern that cannot be written leaves zeros.
            let _ = self.file.write_all_at(&chunk[..rest], self.offset + begin);
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.shares_file {
            punch(&self.file, self.offset, self.size);
        }
    }
}

/// The length of a fabric handle.
pub(crate) const FABRIC_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"softcuda";

/// A new file in memory, closed when the program executes another.
fn new_file() -> Option<File> {
    // SAFETY: the name is a C string; the call makes a descriptor and touches nothing else.
    owned(unsafe { libc::memfd_create(c"softcuda".as_ptr(), libc::MFD_CLOEXEC) }).map(File::from)
}

fn duplicate(descriptor: i32) -> Option<OwnedFd> {
    // SAFETY: a number that is no descriptor is an error.
    owned(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) })
}

fn owned(descriptor: i32) -> Option<OwnedFd> {
    // SAFETY: not negative, so a descriptor that the kernel has just made for us.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether a file lies in memory: only such files have seals.
fn is_in_memory(file: &File) -> bool {
    // SAFETY: asks about a descriptor that is open.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) >= 0 }
}

/// Gives a range of a file back to the system; it then reads as zeros.
fn punch(file: &File, offset: u64, size: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: changes a range of our own file that is not mapped any more.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset.cast_signed(), size.cast_signed()) };
}
