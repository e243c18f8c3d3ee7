//! Traces that come while the command runs: a signal ends the wait for more.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use wharf_cli::trace::STANDARD_INPUT;

use crate::signals::Signals;

/// Standard input, a pipe or a device; it ends where a signal asks to stop.
///
/// The system begins a read again that a signal interrupted, and one of a pipe may take forever.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    /// Can be read from once there was a signal.
    woken: UnixStream,
    stop: Arc<AtomicBool>,
}

impl Input {
    /// Opens what `path` names; `None` for a file or folder, which has an end.
    pub(crate) fn open(path: &Path, signals: &Signals) -> io::Result<Option<Self>> {
        let file = if path == Path::new(STANDARD_INPUT) {
            // Not by way of the buffer that the process has for it.
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else if is_special(path) {
            // Else it would wait here for a writer, and a signal would not end that.
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
            File::options().read(true).custom_flags(flags).open(path)?
        } else {
            return Ok(None);
        };
        let (woken, stop) = (signals.woken.try_clone()?, Arc::clone(&signals.stop));
        Ok(Some(Self { file, woken, stop }))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.stop.load(Ordering::Relaxed) {
            let [file, woken] = [self.file.as_fd(), self.woken.as_fd()];
            let mut waits = [file, woken].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut waits, None) {
                Ok(_) if waits[0].revents().is_empty() => (),
                Ok(_) => match self.file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                    read => return read,
                },
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// Whether a path is a pipe or a device, which can be read once.
pub(crate) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}
