//! Agents of real NIXL, in two processes.
//!
//! A test starts this program again for a test whose name begins with `child_`, which does nothing
//! in an ordinary run. Where NIXL cannot be opened the tests say so and end; with
//! `WHARF_REQUIRE_NIXL=1` they fail. `UCX_TLS` says how bytes are moved; for shared memory
//! `WHARF_NIXL_SHARED=1` sets the mode that UCX needs. Device memory has its test in `check.sh`, by
//! the example `prefill_decode`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod process;
mod stale;
mod tier;

use std::env;

/// Whether real NIXL is here. Says so where it is not.
fn has_nixl() -> bool {
    match wharf_nixl::Agent::new("probe", &process::options()) {
        Ok(_) => true,
        Err(error) => {
            assert!(env::var_os("WHARF_REQUIRE_NIXL").is_none(), "{error}");
            println!("skipped: {error}");
            false
        }
    }
}
