//! A folder for what callgrind writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, process};

/// A new folder, which is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("wharf-scale-{}-{number}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clear: the figures are there without it.
        _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind_an_error() {
        let mut made = PathBuf::new();
        let outcome = (|| -> io::Result<()> {
            let folder = Folder::new()?;
            folder.path().clone_into(&mut made);
            fs::write(folder.path().join("out.1"), "totals: 1")?;
            fs::read_to_string(folder.path().join("out.2")).map(drop)
        })();
        assert!(outcome.is_err());
        assert!(!made.as_os_str().is_empty() && !made.exists(), "{}", made.display());
    }
}
