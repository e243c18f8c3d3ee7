//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that takes its name only when it is [kept](Output::keep). Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    part: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Output {
    /// Begins the file that is to be at `path`.
    ///
    /// # Errors
    ///
    /// It cannot be made in that folder; the error names the path.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(name);
        let file = File::create(&part).map_err(|error| named(path, &error))?;
        Ok(Self { path: path.to_owned(), part, file: Some(BufWriter::new(file)) })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// What was written does not fit, or the name cannot be given; the error names the path.
    pub fn keep(mut self) -> io::Result<()> {
        let renamed = self.flush().and_then(|()| fs::rename(&self.part, &self.path));
        renamed.map_err(|error| named(&self.path, &error))?;
        self.file = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // It has another name than what anybody asked for; there is nobody to tell.
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = std::env::temp_dir().join(format!("wharf-output-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("a.json");
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"1").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"[]").unwrap();
        output.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[]");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
        assert!(Output::create(&path).unwrap_err().to_string().contains("a.json"));
    }
}
