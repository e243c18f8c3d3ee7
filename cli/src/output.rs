//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A file that takes its name only when it is [kept](Output::keep). Dropped before, it leaves
/// nothing.
///
/// Pipes and devices, which cannot be replaced, are written to as they are; `-` is standard output.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    /// The temporary file that becomes the file; none for a device or pipe, which is written
    /// directly.
    part: Option<PathBuf>,
    file: Option<BufWriter<File>>,
}

impl Output {
    /// Begins the file that is to be at `path`.
    ///
    /// # Errors
    ///
    /// It cannot be made in that folder; the error names the path.
    pub fn create(path: &Path) -> io::Result<Self> {
        if is_standard(path) {
            // The same open file, so that what was written there stays before this.
            let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            let file = file.map_err(|error| named(path, &error))?;
            return Ok(Self {
                path: path.to_owned(),
                part: None,
                file: Some(BufWriter::new(file)),
            });
        }
        // A link stays one: what it leads to is replaced.
        let path = resolved(path);
        // Of `a/`, the name `a` could be begun, and not be given.
        let name = path.file_name().unwrap_or_default();
        if !path.exists() && !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Err(named(&path, &io::ErrorKind::IsADirectory.into()));
        }
        let kept_as_it_is = fs::metadata(&path).is_ok_and(|there| !there.is_file());
        let part = (!kept_as_it_is).then(|| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.part", std::process::id()));
            path.with_file_name(name)
        });
        let file = match &part {
            Some(part) => File::create(part),
            None => File::options().write(true).open(&path),
        };
        let file = file.map_err(|error| named(&path, &error))?;
        Ok(Self { path, part, file: Some(BufWriter::new(file)) })
    }

    /// Writes all of the file, and gives it its name.
    ///
    /// # Errors
    ///
    /// As [`Output::keep`].
    pub fn keep_text(mut self, text: &str) -> io::Result<()> {
        writeln!(self, "{text}")?;
        self.keep()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// What was written does not fit, or the name cannot be given; the error names the path.
    pub fn keep(mut self) -> io::Result<()> {
        let rename = |part: &PathBuf| fs::rename(part, &self.path);
        let flushed = self.file.as_mut().map_or(Ok(()), Write::flush);
        let renamed = flushed.and_then(|()| self.part.as_ref().map_or(Ok(()), rename));
        renamed.map_err(|error| named(&self.path, &error))?;
        self.file = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes));
        written.map_err(|error| named(&self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.as_mut().map_or(Ok(()), Write::flush);
        flushed.map_err(|error| named(&self.path, &error))
    }
}

/// Whether a path stands for standard output.
pub fn is_standard(path: &Path) -> bool {
    [Path::new("-"), Path::new("/dev/stdout")].contains(&path)
}

/// Where figures for people go: standard output, or, where that is one of these files, standard
/// error.
pub fn for_people(outputs: &[&Option<PathBuf>]) -> Box<dyn Write> {
    if outputs.iter().any(|path| path.as_deref().is_some_and(is_standard)) {
        Box::new(io::stderr().lock())
    } else {
        Box::new(io::stdout().lock())
    }
}

/// Makes the folder that files are to be in.
///
/// # Errors
///
/// It is not there and cannot be made; the error names the path.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let why = format!("{}: this is a file, and a folder is wanted", path.display());
            io::Error::new(error.kind(), why)
        }
        _ => named(path, &error),
    })
}

/// What went wrong of several outputs, each of which is written whatever becomes of the others.
#[derive(Debug, Default)]
pub struct Kept(Option<io::Error>);

impl Kept {
    /// Takes note of how an output went. A reader that closes a pipe early has what it wanted, so
    /// that is no error here: it must not stand before a verdict, or before the others.
    pub fn note(&mut self, done: io::Result<()>) {
        let Err(error) = done else { return };
        self.0 = match self.0.take() {
            before if error.kind() == io::ErrorKind::BrokenPipe => before,
            None => Some(error),
            Some(first) => Some(io::Error::new(first.kind(), format!("{first}; {error}"))),
        };
    }

    /// How all of it went.
    ///
    /// # Errors
    ///
    /// All that there were, of the kind of the first.
    pub fn result(self) -> io::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Opens the pipes among files that are to be written, which waits until each has a reader; after
/// that, [`Output::create`] does not. Only the end of the process interrupts such a wait.
///
/// # Errors
///
/// A pipe cannot be opened; the error names it.
pub fn open_pipes(outputs: &[Named]) -> io::Result<Vec<File>> {
    let paths = outputs.iter().map(|output| output.path.as_path());
    let is_pipe = |path: &Path| fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
    let pipes = paths.filter(|path| !is_standard(path) && is_pipe(path));
    let open = |path: &Path| File::options().write(true).open(path);
    pipes.map(|path| open(path).map_err(|error| named(path, &error))).collect()
}

/// A file that an argument names.
#[derive(Clone, Debug)]
pub struct Named {
    /// The argument.
    pub argument: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// One file that two arguments name, of which at least one writes it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{first} and {second} both name {}: name another file for one of them", path.display())]
pub struct Collision {
    first: &'static str,
    second: &'static str,
    path: PathBuf,
}

/// Sees that no output is another output or an input, whatever the paths look like, nor the file
/// that a standard stream goes to: what is printed there would be lost with the file.
///
/// # Errors
///
/// [`Collision`]: two arguments name one file.
pub fn distinct(inputs: &[Named], outputs: &[Named]) -> Result<(), Collision> {
    let streams = STREAMS.iter().filter_map(|(name, path)| Some((*name, file_at(path)?)));
    let inputs = inputs.iter().filter_map(|file| Some((file.argument, identity(&file.path)?)));
    let mut before: Vec<_> = streams.chain(inputs).collect();
    for output in outputs {
        let Some(place) = identity(&output.path) else { continue };
        if let Some((first, _)) = before.iter().find(|(_, known)| *known == place) {
            let (second, path) = (output.argument, output.path.clone());
            return Err(Collision { first, second, path });
        }
        before.push((output.argument, place));
    }
    Ok(())
}

/// Where a file is or would be: one value for all paths that lead there. `None` for pipes and
/// devices, which may be written to by several.
fn identity(path: &Path) -> Option<PathBuf> {
    if is_standard(path) {
        return Some(PathBuf::from("-"));
    }
    let path = &resolved(path);
    if path.exists() {
        return file_at(path);
    }
    // Of a folder that is still to be made, the part that is there counts.
    let mut missing = vec![path.file_name()?.to_owned()];
    let mut folder = path.parent()?;
    loop {
        let there = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Ok(place) = fs::canonicalize(there) {
            return Some(missing.iter().rev().fold(place, |place, name| place.join(name)));
        }
        missing.push(folder.file_name()?.to_owned());
        folder = folder.parent()?;
    }
}

/// The place of a file or folder that is there.
fn file_at(path: impl AsRef<Path>) -> Option<PathBuf> {
    let place = fs::canonicalize(path).ok()?;
    fs::metadata(&place).is_ok_and(|there| there.is_file() || there.is_dir()).then_some(place)
}

/// Where a path leads, also by a link to a file that is not there yet.
fn resolved(path: &Path) -> PathBuf {
    let mut place = path.to_owned();
    for _ in 0..LINKS {
        if place.exists() {
            // A pipe has no path but that of the link to it.
            return fs::canonicalize(&place).unwrap_or(place);
        }
        let Ok(target) = fs::read_link(&place) else { break };
        place = place.parent().unwrap_or(Path::new("")).join(target);
    }
    place
}

/// The most links that are followed, as by the kernel.
const LINKS: usize = 40;
/// The streams that figures and notes go to.
const STREAMS: [(&str, &str); 2] =
    [("standard output", "/proc/self/fd/1"), ("standard error", "/proc/self/fd/2")];

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Some(part) = &self.part
        {
            // A failure leaves a file of another name than the one asked for, and a drop cannot
            // report it.
            let _ = fs::remove_file(part);
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

    #[test]
    fn a_reader_that_leaves_hides_no_other_error() {
        let error = |kind, text: &str| Err(io::Error::new(kind, text));
        let mut kept = Kept::default();
        kept.note(error(io::ErrorKind::BrokenPipe, "left"));
        kept.note(Ok(()));
        assert!(Kept(kept.0.take()).result().is_ok());
        kept.note(error(io::ErrorKind::StorageFull, "a: full"));
        kept.note(error(io::ErrorKind::BrokenPipe, "left"));
        kept.note(error(io::ErrorKind::NotFound, "b: gone"));
        let told = kept.result().unwrap_err();
        assert_eq!(
            (told.kind(), told.to_string()),
            (io::ErrorKind::StorageFull, "a: full; b: gone".into())
        );
    }

    #[test]
    fn one_file_is_one_file_by_any_path() {
        let folder = std::env::temp_dir().join(format!("wharf-distinct-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("file"), folder.join("link"));
        fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::os::unix::fs::symlink("new", folder.join("ahead")).unwrap();
        let ahead = folder.join("ahead");
        let named = |argument, path: &Path| Named { argument, path: path.to_owned() };
        let new = folder.join("new");
        let around = folder.join(".").join("new");
        let deep = folder.join("no/such/new");
        let null = Path::new("/dev/null");
        for (inputs, outputs, collides) in [
            (vec![named("--trace", &file)], vec![named("--json", &link)], true),
            (vec![named("--trace", &file)], vec![named("--json", &new)], false),
            (vec![], vec![named("--json", &new), named("--html", &around)], true),
            (vec![], vec![named("--json", &deep), named("--html", &deep)], true),
            (vec![], vec![named("--json", &new), named("--html", &ahead)], true),
            (vec![], vec![named("--json", &new), named("--html", &deep)], false),
            (
                vec![],
                vec![named("--json", Path::new("-")), named("--html", Path::new("/dev/stdout"))],
                true,
            ),
            (
                vec![named("--trace", null)],
                vec![named("--json", null), named("--html", null)],
                false,
            ),
        ] {
            assert_eq!(distinct(&inputs, &outputs).is_err(), collides, "{inputs:?} {outputs:?}");
        }
        let both = [named("--json", &new), named("--html", &new)];
        let told = distinct(&[], &both).unwrap_err().to_string();
        assert!(
            told.starts_with("--json and --html both name ") && told.contains("/new"),
            "{told}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn links_and_devices_stay_what_they_are() {
        let folder =
            std::env::temp_dir().join(format!("wharf-output-links-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (file, link, device) =
            (folder.join("file"), folder.join("link"), folder.join("device"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        // To a file that is not there yet, by another link.
        let (new, far) = (folder.join("new"), folder.join("far"));
        std::os::unix::fs::symlink("near", &far).unwrap();
        std::os::unix::fs::symlink("new", folder.join("near")).unwrap();
        for path in [&link, &device, &far] {
            let mut output = Output::create(path).unwrap();
            output.write_all(b"new").unwrap();
            output.keep().unwrap();
            assert!(path.is_symlink());
        }
        for written in [&file, &new] {
            assert_eq!(fs::read(written).unwrap(), b"new");
        }
        assert!(!fs::metadata(&device).unwrap().is_file());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
        fs::remove_dir_all(&folder).unwrap();
        // A folder is not written to, and what does not fit is told.
        assert!(Output::create(&std::env::temp_dir()).is_err());
        let mut full = Output::create(Path::new("/dev/full")).unwrap();
        full.write_all(b"1").unwrap();
        assert!(full.keep().unwrap_err().to_string().contains("/dev/full"));
    }
}
