//! Layers: a module names only modules before it in a list. Shared with the tests of the other
//! packages.

use std::fs;
use std::path::Path;

use super::source::File;

/// The paths of a file of `module` that leave it for a module above or beside it in `layers`, for
/// one that is not listed, or for what the root re-exports: the root is above all layers. The
/// modules of one layer are listed with spaces between them.
pub(super) fn upward(file: &File, module: &[&str], layers: &[impl AsRef<str>]) -> Vec<String> {
    let Some(own) = module.first() else { return Vec::new() };
    let has = |layer: &str, name: &str| layer.split(' ').any(|module| module == name);
    let height = |name: &str| layers.iter().position(|layer| has(layer.as_ref(), name));
    let Some(own_height) = height(own) else {
        return vec![file.violation(1, format!("the module {own} is not in the list of layers"))];
    };
    let named = |(path, line): (Vec<String>, usize)| {
        let target = from_root(&path, module.len())?;
        match height(target) {
            Some(other) if other < own_height || target == *own => None,
            Some(other) if other == own_height => {
                Some(file.violation(line, format!("{own} names {target}, which is beside it")))
            }
            Some(_) => {
                Some(file.violation(line, format!("{own} names {target}, which is above it")))
            }
            None => Some(file.violation(line, format!("{own} names the root's {target}"))),
        }
    };
    file.paths().into_iter().filter_map(named).collect()
}

/// The name below the root that `path` leads to, from a module at `depth`.
fn from_root(path: &[String], depth: usize) -> Option<&str> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let skip = match path.first()?.as_str() {
        "crate" => 1,
        "super" if ups >= depth => ups,
        _ => return None,
    };
    path.get(skip).map(String::as_str)
}

/// The sources below `folder` of a package, with paths from the package's root.
pub(super) fn sources(package: &Path, folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![package.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(package).unwrap().to_str().unwrap();
                files.push(File::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "no source in {folder}");
    files
}
