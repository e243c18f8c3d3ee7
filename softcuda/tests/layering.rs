//! The layers of `src/`, checked on the source text: a module names only modules above it in the
//! table of `src/lib.rs`, which lists the lowest first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

#[path = "../../tests/it/layering/documented.rs"]
mod documented;
#[path = "../../tests/it/layering/layers.rs"]
mod layers;
#[expect(dead_code, reason = "the rules of the library need more of a file")]
#[path = "../../tests/it/layering/source.rs"]
mod source;

use std::path::Path;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn modules_name_only_lower_ones() {
    documented::check(Path::new(PACKAGE), "src", "lib.rs", &[]);
}
