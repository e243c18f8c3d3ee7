#![expect(unsafe_code, reason = "takes a socket from the standard input; unmaps by bare addresses")]
//! Memory of one process that another maps: both directions, and ends in any order.
//!
//! A test starts this program again for one of the `child_` tests, which do nothing in an ordinary
//! run. The two have a socket, on the child's standard input.

use std::env;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use wharf::driver::DeviceAttribute;
use wharf::memory::{
    DeviceMemoryResource, DeviceOptions, Handles, ImportedPiece, MemoryResource, ShareableHandle,
    WiredResource, dma_buf,
};
use wharf::{Context, CudaError, Error};

use super::options::machine;
use super::rig::{MIB, Recorder};
use super::socket::{MESSAGE, receive, send};
use crate::backend::{Simulator, on_machine};
use crate::memory_kinds::{commit, context_of, decommit, pattern, read, write};

const CHILD: &str = "WHARF_TEST_CHILD";
const LEN: usize = 4 * MIB;
const KINDS: [Handles; 2] = [Handles::POSIX, Handles::FABRIC];

/// A machine that has both kinds of handles.
fn able() -> Arc<Simulator> {
    machine(&[(DeviceAttribute::HANDLE_TYPE_FABRIC_SUPPORTED, 1)], true)
}

type Wired = WiredResource<DeviceMemoryResource, Arc<Recorder>>;

/// A piece that can be exported as both kinds.
fn piece_of(context: &Context) -> Wired {
    let options = DeviceOptions::default().shareable(Handles::POSIX | Handles::FABRIC);
    let memory = DeviceMemoryResource::with_options(context, 64 * MIB, options).unwrap();
    let memory = WiredResource::new(memory, Recorder::new());
    commit(&memory, 0, LEN).unwrap();
    memory
}

/// Sends what names a piece.
fn export(socket: &mut UnixStream, context: &Context, memory: &Wired, kind: Handles) {
    let piece = memory.registrations().unwrap().pieces()[0];
    let mut message = [0; MESSAGE];
    match ShareableHandle::export(context, &piece, kind).unwrap() {
        ShareableHandle::Posix(descriptor) => send(socket, &message, Some(&descriptor)),
        ShareableHandle::Fabric(bytes) => {
            message[..64].copy_from_slice(&bytes);
            send(socket, &message, None);
        }
        other => panic!("{other:?}"),
    }
}

fn handle(socket: &mut UnixStream) -> ShareableHandle {
    match receive(socket) {
        (_, Some(descriptor)) => ShareableHandle::Posix(descriptor),
        (message, None) => ShareableHandle::Fabric(message[..64].try_into().unwrap()),
    }
}

fn import(context: &Context, handle: &ShareableHandle) -> Result<ImportedPiece, Error> {
    ImportedPiece::new(context, handle, LEN, &[])
}

/// Tells the other process to go on, or waits until it says so.
fn signal(socket: &mut UnixStream) {
    send(socket, &[7; MESSAGE], None);
}

fn wait(socket: &mut UnixStream) {
    assert_eq!(receive(socket).0, [7; MESSAGE]);
}

/// Starts a child for a `child_` test and a kind of handle.
fn start(name: &str, kind: Handles) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let kind = if kind == Handles::FABRIC { "fabric" } else { "posix" };
    let mut command = Command::new(env::current_exe().unwrap());
    let name = format!("wire::processes::{name}");
    command.args(["--exact", &name, "--nocapture", "--test-threads", "1"]);
    command.env(CHILD, format!("{name} {kind}")).stdin(Stdio::from(OwnedFd::from(theirs)));
    (command.spawn().unwrap(), ours)
}

/// In the child of a test: the kind of handle, and the socket.
fn child(name: &str) -> Option<(Handles, UnixStream)> {
    let value = env::var(CHILD).ok()?;
    let kind = value.strip_prefix(&format!("wire::processes::{name} "))?;
    let kind = if kind == "fabric" { Handles::FABRIC } else { Handles::POSIX };
    // SAFETY: the parent has put the socket there, and nothing else in this process uses it.
    Some((kind, unsafe { UnixStream::from_raw_fd(0) }))
}

fn ended(mut child: Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "the child: {status}");
}

/// Both directions; what one writes the other reads; each ends its own.
#[test]
fn memory_is_shared_in_both_directions() {
    for kind in KINDS {
        let machine = able();
        on_machine(&machine, |driver| {
            let (child, mut socket) = start("child_imports_and_exports", kind);
            let context = context_of(driver);
            let memory = piece_of(&context);
            write(&context, memory.base(), &pattern(1, LEN));
            export(&mut socket, &context, &memory, kind);
            let theirs = import(&context, &handle(&mut socket)).unwrap();
            assert!(read(&context, theirs.address(), LEN) == pattern(3, LEN));
            // What the child has written into ours before it sent its own.
            assert_eq!(read(&context, memory.base() + 4096, 64), pattern(2, 64));
            write(&context, theirs.address() + 100, &pattern(4, 100));
            signal(&mut socket);
            ended(child);
            theirs.close().unwrap();
        });
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

#[test]
fn child_imports_and_exports() {
    let Some((kind, mut socket)) = child("child_imports_and_exports") else { return };
    let machine = able();
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let first = handle(&mut socket);
        // Twice: two mappings of one memory, and each is unmapped.
        let [one, two] = [(); 2].map(|()| import(&context, &first).unwrap());
        assert!(read(&context, one.address(), LEN) == pattern(1, LEN));
        write(&context, one.address() + 4096, &pattern(2, 64));
        assert_eq!(read(&context, two.address() + 4096, 64), pattern(2, 64));
        one.close().unwrap();
        assert_eq!(read(&context, two.address() + 4096, 64), pattern(2, 64));
        drop(two);
        let memory = piece_of(&context);
        write(&context, memory.base(), &pattern(3, LEN));
        export(&mut socket, &context, &memory, kind);
        wait(&mut socket);
        assert_eq!(read(&context, memory.base() + 100, 100), pattern(4, 100));
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// The exporter ends while the importer has the memory mapped: the bytes stay.
#[test]
fn the_exporter_ends_first() {
    for kind in KINDS {
        let machine = able();
        on_machine(&machine, |driver| {
            let (child, mut socket) = start("child_exports_and_ends", kind);
            let context = context_of(driver);
            let first = handle(&mut socket);
            let theirs = import(&context, &first).unwrap();
            signal(&mut socket);
            ended(child);
            assert!(read(&context, theirs.address(), LEN) == pattern(5, LEN));
            write(&context, theirs.address(), &pattern(6, 64));
            assert_eq!(read(&context, theirs.address(), 64), pattern(6, 64));
            // A descriptor holds the memory, the bytes of a fabric handle only name it.
            let late = import(&context, &first);
            match kind {
                Handles::POSIX => {
                    assert_eq!(read(&context, late.unwrap().address(), 64), pattern(6, 64));
                }
                _ => {
                    let call = "cuMemImportFromShareableHandle";
                    let code = CudaError::INVALID_VALUE;
                    assert_eq!(late.map(drop), Err(Error::Driver { call, code }));
                }
            }
        });
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

#[test]
fn child_exports_and_ends() {
    let Some((kind, mut socket)) = child("child_exports_and_ends") else { return };
    on_machine(&able(), |driver| {
        let context = context_of(driver);
        let memory = piece_of(&context);
        write(&context, memory.base(), &pattern(5, LEN));
        export(&mut socket, &context, &memory, kind);
        wait(&mut socket);
    });
}

/// The importer keeps what the owner had exported, whatever the owner commits there later.
#[test]
fn memory_that_its_owner_commits_again_is_another() {
    for kind in KINDS {
        on_machine(&able(), |driver| {
            let context = context_of(driver);
            let memory = piece_of(&context);
            write(&context, memory.base(), &pattern(1, 64));
            let piece = memory.registrations().unwrap().pieces()[0];
            let handle = ShareableHandle::export(&context, &piece, kind).unwrap();
            let imported = import(&context, &handle).unwrap();
            decommit(&memory, 0, LEN).unwrap();
            commit(&memory, 0, LEN).unwrap();
            let now = memory.registrations().unwrap().pieces()[0];
            assert_eq!((now.index, now.generation), (piece.index, piece.generation + 1));
            write(&context, memory.base(), &pattern(2, 64));
            assert_eq!(read(&context, imported.address(), 64), pattern(1, 64));
            write(&context, imported.address(), &pattern(3, 64));
            assert_eq!(read(&context, memory.base(), 64), pattern(2, 64));
        });
    }
}

#[test]
fn an_importer_that_unmaps_twice_is_told() {
    let machine = able();
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let memory = piece_of(&context);
        let piece = memory.registrations().unwrap().pieces()[0];
        let handle = ShareableHandle::export(&context, &piece, Handles::POSIX).unwrap();
        let imported = import(&context, &handle).unwrap();
        let scope = context.enter().unwrap();
        // SAFETY: nothing uses the mapping; its owner is told that it is gone.
        unsafe { driver.api().mem_unmap.call(imported.address(), LEN) }.unwrap();
        drop(scope);
        let twice = imported.close().unwrap_err();
        assert_eq!(twice, Error::Driver { call: "cuMemUnmap", code: CudaError::INVALID_VALUE });
        // What it was of is as before.
        write(&context, memory.base(), &pattern(8, 64));
        assert_eq!(read(&context, memory.base(), 64), pattern(8, 64));
    });
}

#[test]
fn a_device_that_grants_neither_says_so() {
    let neither =
        machine(&[(DeviceAttribute::HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0)], false);
    on_machine(&neither, |driver| {
        let context = context_of(driver);
        let memory = piece_of(&context);
        let piece = memory.registrations().unwrap().pieces()[0];
        for kind in
            [Handles::POSIX, Handles::FABRIC, Handles::NONE, Handles::POSIX | Handles::FABRIC]
        {
            let refused = ShareableHandle::export(&context, &piece, kind).unwrap_err();
            assert_eq!(refused.code(), Some(CudaError::NOT_SUPPORTED));
            assert!(refused.to_string().contains("not made shareable"), "{refused}");
        }
        let refused = import(&context, &ShareableHandle::Fabric([1; 64])).unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::NOT_SUPPORTED), "{refused}");
        let refused = dma_buf(&context, &piece).unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::NOT_SUPPORTED), "{refused}");
    });
    // Advertised, and not permitted.
    let advertised = machine(&[(DeviceAttribute::HANDLE_TYPE_FABRIC_SUPPORTED, 1)], false);
    on_machine(&advertised, |driver| {
        let refused = import(&context_of(driver), &ShareableHandle::Fabric([1; 64])).unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::NOT_PERMITTED), "{refused}");
    });
    for machine in [neither, advertised] {
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

/// Each call of an export and of an import in turn: an error of that call, and nothing is left.
#[test]
fn an_export_or_import_that_fails_leaves_nothing() {
    let exports =
        ["cuPointerGetAttribute", "cuMemRetainAllocationHandle", "cuMemExportToShareableHandle"];
    let imports = [
        "cuMemImportFromShareableHandle",
        "cuMemAddressReserve",
        "cuMemMap",
        "cuMemRelease",
        "cuMemSetAccess",
    ];
    let code = CudaError::UNKNOWN;
    for call in exports.into_iter().chain(imports) {
        let machine = able();
        on_machine(&machine, |driver| {
            let context = context_of(driver);
            let memory = piece_of(&context);
            let piece = memory.registrations().unwrap().pieces()[0];
            let is_export = exports.contains(&call);
            if is_export {
                machine.fail(call, 1, code);
            }
            let handle = ShareableHandle::export(&context, &piece, Handles::FABRIC);
            if is_export {
                assert_eq!(handle.map(drop), Err(Error::Driver { call, code }));
                return;
            }
            let handle = handle.unwrap();
            machine.fail(call, 1, code);
            let refused = import(&context, &handle).map(drop);
            assert_eq!(refused, Err(Error::Driver { call, code }));
            import(&context, &handle).unwrap().close().unwrap();
        });
        // A handle that the driver does not release is the driver's.
        let leaks = machine.leaks();
        assert_eq!(leaks.len(), usize::from(call == "cuMemRelease"), "{call}: {leaks:?}");
    }
    let machine = able();
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let memory = piece_of(&context);
        let piece = memory.registrations().unwrap().pieces()[0];
        let handle = ShareableHandle::export(&context, &piece, Handles::POSIX).unwrap();
        let refused = ImportedPiece::new(&context, &handle, 2 * LEN, &[]).unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::INVALID_VALUE), "more than there is: {refused}");
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn a_piece_is_a_dma_buf_where_the_device_has_them() {
    let machine = machine(&[(DeviceAttribute::DMA_BUF_SUPPORTED, 1)], false);
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let memory = piece_of(&context);
        write(&context, memory.base(), &pattern(9, 4096));
        let piece = memory.registrations().unwrap().pieces()[0];
        let file = std::fs::File::from(dma_buf(&context, &piece).unwrap());
        let mut bytes = vec![0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(bytes == pattern(9, 4096));
        machine.fail("cuMemGetHandleForAddressRange", 1, CudaError::UNKNOWN);
        assert_eq!(dma_buf(&context, &piece).unwrap_err().code(), Some(CudaError::UNKNOWN));
    });
}
