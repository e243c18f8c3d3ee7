//! The checked-in header is what cbindgen makes of the sources.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_header_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::generate_with_config(root, config).unwrap().write(&mut made);
    let (made, path) = (String::from_utf8(made).unwrap(), root.join("include/wharf.h"));
    if env::var_os("WHARF_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &made).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(checked_in.lines()).find(|(made, old)| made != old);
    assert!(
        made == checked_in,
        "include/wharf.h is not what the sources say, first at {differs:?}; make it anew with \
         WHARF_BLESS=1 cargo test -p wharf-capi"
    );
}
