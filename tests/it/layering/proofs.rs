//! The rules themselves: each finds what it forbids, and only that.

use super::*;

fn file(path: &str, source: &str) -> File {
    File::new(path, source)
}

#[test]
fn a_higher_module_is_found_in_every_spelling() {
    for source in [
        "use crate::slab::Pool;",
        "use crate::{error::Error, slab::{Block, Pool}};",
        "fn f() { crate::slab::grow() }",
        "use super::super::slab;",
        "fn f(pool: &crate::slab::Pool) {}",
        "macro_rules! m { () => { $crate::slab::grow() } }",
    ] {
        let found = upward(&file("src/driver/context.rs", source));
        assert!(!found.is_empty(), "{source}");
        assert!(found[0].starts_with("src/driver/context.rs:1: driver names slab"), "{found:?}");
    }
    assert_eq!(upward(&file("src/error.rs", "use super::driver::Driver;")).len(), 1);
}

#[test]
fn a_module_of_the_same_layer_is_found() {
    let found = upward(&file("src/pool/core.rs", "use crate::tier::Tier;"));
    assert_eq!(found, ["src/pool/core.rs:1: pool names tier, which is beside it"]);
    assert_eq!(upward(&file("src/tier/core.rs", "use crate::pool::Pool;")).len(), 1);
    assert_eq!(upward(&file("src/tier/core.rs", "use crate::tier::Tier;")), Vec::<String>::new());
}

#[test]
fn the_root_and_unlisted_modules_are_found() {
    assert_eq!(upward(&file("src/driver/event.rs", "use crate::Stream;")).len(), 1);
    assert_eq!(upward(&file("src/util.rs", "")).len(), 1);
    assert_eq!(upward(&file("src/util/mod.rs", "")).len(), 1);
}

#[test]
fn lower_modules_and_documentation_may_be_named() {
    let source = "//! See [`crate::slab::Pool`].\n/// [`Stream`](crate::Stream)\n\
                  use crate::error::Error; use super::{Context, event::Event}; // crate::slab\n\
                  fn f() { let text = \"crate::slab\"; self::g(); }";
    assert_eq!(upward(&file("src/driver/context.rs", source)), Vec::<String>::new());
    assert_eq!(upward(&file("src/lib.rs", "use crate::slab::Pool;")), Vec::<String>::new());
}

#[test]
fn a_circle_of_files_is_found() {
    let mut files = vec![
        file("src/pool/mod.rs", "mod core; mod buffer; mod info; pub use self::info::BufferInfo;"),
        file("src/pool/core.rs", "use super::record::Record; use crate::slab::Block;"),
        file("src/pool/buffer.rs", "use super::core::Core; use super::BufferInfo;"),
        file("src/pool/info.rs", "use crate::pool::core::Core;"),
        file("src/pool/record.rs", "//! super::buffer"),
    ];
    assert_eq!(circles::circle("src/pool", &files), None);
    // By the facade's name, and by the file's.
    for back in ["fn f(info: &super::BufferInfo) {}", "use crate::pool::{record::Use, info::X};"] {
        files[1] = file("src/pool/core.rs", back);
        assert_eq!(circles::circle("src/pool", &files).unwrap(), ["core", "info"]);
    }
    files[1] = file("src/pool/core.rs", "use super::buffer::Buffer;");
    assert_eq!(circles::circle("src/pool", &files).unwrap(), ["buffer", "core"]);
}

#[test]
fn primitives_are_found_in_every_spelling() {
    for source in [
        "use std::sync::atomic::AtomicU64;",
        "use core::sync::atomic;",
        "use std::sync::{Arc, Mutex};",
        "use std::{fmt, sync::atomic as a};",
        "fn f() { ::core::sync::atomic::fence(o) }",
        "use std::sync;",
        "use std::sync::*;",
        "use loom::sync::atomic::AtomicU64;",
        "use std::sync::{OnceLock, Weak};",
        "use std::sync::RwLock;",
        "static S: std::sync::LazyLock<u8> = x;",
        "fn f(c: &core::cell::UnsafeCell<u8>) {}",
        "use std::thread;",
        "fn f() { std::thread::yield_now() }",
        "fn f() { core::hint::spin_loop() }",
        "thread_local! { static S: u8 = 0 }",
        "std::thread_local! { static S: u8 = 0 }",
    ] {
        let found = primitives(&file("src/slab/mod.rs", source));
        assert_eq!(found.len(), 1, "{source}: {found:?}");
    }
    let both = "use std::sync::{Arc, atomic::{AtomicU64, Ordering}};";
    assert_eq!(primitives(&file("src/slab/mod.rs", both)).len(), 2);
    let fine = "use std::sync::{Arc, Weak}; use crate::sync::{Mutex, atomic::AtomicU64, thread}; \
                use std::cell::{Cell, RefCell}; // std::sync::atomic\n\
                crate::sync::thread_local! { static S: Cell<u8> = const { Cell::new(0) } } \
                #[cfg(not(loom))] fn f() { let loom = 1; thread::yield_now() }";
    assert_eq!(primitives(&file("src/slab/mod.rs", fine)), Vec::<String>::new());
    let door = primitives(&file("src/sync/std.rs", "pub use std::sync::atomic;"));
    assert_eq!(door, Vec::<String>::new());
}

#[test]
fn unsafe_is_found_outside_the_list() {
    let allowed = vec!["src/driver/".to_owned(), "src/slab/block.rs".to_owned()];
    for source in ["fn f() { unsafe { g() } }", "unsafe impl Send for T {}", "pub unsafe fn f() {}"]
    {
        assert_eq!(unsafety(&file("src/lockfree/stack.rs", source), &allowed).len(), 1, "{source}");
        assert_eq!(unsafety(&file("src/slab/mod.rs", source), &allowed).len(), 1, "{source}");
        assert!(unsafety(&file("src/slab/block.rs", source), &allowed).is_empty());
        assert!(unsafety(&file("src/driver/device.rs", source), &allowed).is_empty());
    }
    let fine = "//! unsafe\n#![expect(unsafe_code, reason = \"unsafe\")]\nfn f() { \"unsafe\"; }";
    assert_eq!(unsafety(&file("src/lockfree/stack.rs", fine), &allowed), Vec::<String>::new());
}

#[test]
fn an_entry_without_unsafe_is_stale() {
    let files = [
        file("src/a/b.rs", "unsafe impl Send for T {}"),
        file("src/c.rs", "//! unsafe\nfn f() {}"),
    ];
    for (entry, is) in
        [("src/a/", false), ("src/a/b.rs", false), ("src/c.rs", true), ("src/gone.rs", true)]
    {
        assert_eq!(is_stale(entry, &files), is, "{entry}");
    }
}

#[test]
fn the_list_of_unsafe_modules_is_read() {
    let text = "# A\n- `src/no.rs`\n## Unsafe modules\n\nWhy.\n\n- `src/a.rs`: reason\n\
                - `src/b/`\n\n## Next\n- `src/c.rs`";
    assert_eq!(unsafe_modules(text), ["src/a.rs", "src/b/"]);
}

#[test]
fn entry_points_are_found_outside_the_table() {
    for source in [
        "fn f() { cuInit(0) }",
        "extern \"C\" { fn cuMemAlloc_v2(); }",
        "use sys::cuCtxCreate_v4 as c;",
    ] {
        assert_eq!(entry_points(&file("src/driver/mod.rs", source)).len(), 1, "{source}");
        assert_eq!(entry_points(&file("sys/src/entry.rs", source)).len(), 1, "{source}");
        assert!(entry_points(&file("sys/src/table.rs", source)).is_empty());
    }
    for source in ["fn f() { symbol(\"cuInit\") }", "fn f() { symbol(c\"cuInit\") }"] {
        assert_eq!(entry_points(&file("src/driver/mod.rs", source)).len(), 1, "{source}");
    }
    let fine = "/// [`cuInit`]\n#[doc(alias = \"cuInit\")]\n\
                fn f() { api.init.call(0); CUstream; cuda; cursor; \"cuInit fails\"; }";
    assert_eq!(entry_points(&file("src/driver/mod.rs", fine)), Vec::<String>::new());
}

#[test]
fn a_weakened_lint_is_found() {
    let manifest = read("Cargo.toml");
    assert_eq!(
        lints(&manifest.replace("unsafe_code = \"deny\"", "unsafe_code = \"warn\"")).len(),
        1
    );
    assert_eq!(lints(&manifest.replace("unwrap_used = \"deny\"\n", "")).len(), 1);
    assert_eq!(lints("[package]\n").len(), DENIED.len());
}
