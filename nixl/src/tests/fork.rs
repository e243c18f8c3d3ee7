//! An agent in a forked child.

#![expect(unsafe_code, reason = "forks, waits for the child")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use wharf::pool::Buffer;

use super::fake::locked;
use super::{COUNT, Rig, numbers};
use crate::{Error, RemoteBlock, Transfer};

/// Whether a child says that all is as it must be.
fn holds_in_a_child(test: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses what this thread alone holds, and ends without the parent's handlers.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let holds = catch_unwind(AssertUnwindSafe(test)).unwrap_or(false);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!holds)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and the child is this process's.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Begins a write of a block.
fn write(rig: &Rig, from: &Buffer<u64>, to: RemoteBlock) -> Result<Transfer, Error> {
    let pairs = vec![(rig.prefill.export(from).0.into(), to)];
    rig.prefill.agent.write("decode", pairs, b"")
}

#[test]
fn a_forked_child_is_refused_and_its_drops_end_nothing_of_its_parents() {
    let rig = Rig::new();
    let (here, there) = (rig.prefill.block(5), rig.decode.block(0));
    let (kept, name) = rig.decode.export(&there);
    let transfer = write(&rig, &here, name).unwrap();
    let mut all = Some((rig, here, there, kept, transfer));
    let holds = holds_in_a_child(|| {
        let (rig, here, there, kept, mut transfer) = all.take().unwrap();
        let agent = &rig.prefill.agent;
        let refused = [
            agent.poll().map(drop),
            agent.metadata().map(drop),
            agent.connect(b"").map(drop),
            agent.send("decode", b"child"),
            agent.forget("decode").map(drop),
            transfer.poll().map(drop),
            write(&rig, &here, name).map(drop),
        ];
        let Rig { prefill, decode, network, _bound: bound, _machine: machine } = rig;
        kept.complete();
        drop((transfer, here, there, prefill, decode));
        // Threads of the machine's are the parent's.
        std::mem::forget((bound, machine));
        let network = locked(&network);
        let ends = (network.ended, network.freed, network.unloads);
        refused == [const { Err(Error::Forked) }; 7] && ends == (0, 0, 0)
    });
    assert!(holds);
    let (rig, here, mut there, kept, mut transfer) = all.unwrap();
    rig.run(&mut transfer).unwrap();
    kept.complete();
    assert_eq!(numbers(&mut there), [5; COUNT]);
    drop(here);
}
