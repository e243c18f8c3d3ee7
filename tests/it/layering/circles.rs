//! Circles: the files of a folder import each other in one direction only.

use std::collections::BTreeMap;

use super::source::File;

/// A circle of imports among the files of `folder`, such as `src/pool`, if there is one: the names
/// of its files, of which the last imports the first.
///
/// `mod.rs` may name all of them. An import of what it re-exports is one of the file that has it.
pub(super) fn circle(folder: &str, files: &[File]) -> Option<Vec<String>> {
    let of_folder = files.iter().filter_map(|file| {
        let name = file.path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".rs")?;
        (!name.contains('/')).then_some((name, file))
    });
    let mut by_name: BTreeMap<_, _> = of_folder.collect();
    let facade = by_name.remove("mod");
    let exported = |item: &str| {
        facade?.paths().into_iter().find_map(|(path, _)| match path.as_slice() {
            [this, file, .., last] if this == "self" && last == item => Some(file.clone()),
            _ => None,
        })
    };
    let module = folder.rsplit('/').next()?;
    let imports = by_name.iter().map(|(name, file)| {
        let targets = file.paths().into_iter().filter_map(|(path, _)| {
            let item = match path.as_slice() {
                [up, item, ..] if up == "super" => item,
                [root, own, item, ..] if root == "crate" && own == module => item,
                _ => return None,
            };
            let file = Some(item.clone()).filter(|item| by_name.contains_key(item.as_str()));
            file.or_else(|| exported(item)).filter(|target| target != name)
        });
        ((*name).to_owned(), targets.collect())
    });
    first_circle(&imports.collect())
}

/// A circle in a graph of names: files without imports are taken away until none is left, or only
/// files that import each other.
fn first_circle(imports: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut left = imports.clone();
    while let Some(done) =
        left.iter().find(|(_, targets)| targets.is_empty()).map(|(name, _)| name.clone())
    {
        left.remove(&done);
        left.values_mut().for_each(|targets| targets.retain(|target| *target != done));
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left.get(way.last()?)?.first()?;
        if let Some(start) = way.iter().position(|name| name == next) {
            return Some(way.split_off(start));
        }
        way.push(next.clone());
    }
}
