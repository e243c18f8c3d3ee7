#![expect(unsafe_code, reason = "passes descriptors over a socket")]
//! Messages with descriptors between two processes.

use std::io::{Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::{mem, ptr};

/// The length of a message.
pub(super) const MESSAGE: usize = 96;

/// A control message with one descriptor: a `cmsghdr` of 64-bit systems, and its data.
#[repr(C, align(8))]
#[derive(Default)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    descriptor: i32,
}

/// Sends a message, and a descriptor with it.
pub(super) fn send(socket: &mut UnixStream, message: &[u8; MESSAGE], descriptor: Option<&OwnedFd>) {
    let Some(descriptor) = descriptor else { return socket.write_all(message).unwrap() };
    // Header and data, without the padding.
    let mut control = Control {
        len: 20,
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        descriptor: descriptor.as_raw_fd(),
    };
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: MESSAGE };
    let header = parcel(&mut part, &mut control);
    // SAFETY: all that the header points to outlives the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) };
    assert_eq!(sent, isize::try_from(MESSAGE).unwrap(), "{}", Error::last_os_error());
}

/// The next message, and the descriptor that came with it.
pub(super) fn receive(socket: &mut UnixStream) -> ([u8; MESSAGE], Option<OwnedFd>) {
    let (mut message, mut control) = ([0; MESSAGE], Control::default());
    let mut part = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: MESSAGE };
    let mut header = parcel(&mut part, &mut control);
    // SAFETY: all that the header points to outlives the call.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).unwrap();
    assert!(got > 0, "the peer has ended");
    let has_descriptor = header.msg_controllen > 0;
    socket.read_exact(&mut message[got..]).unwrap();
    // SAFETY: the kernel has put a descriptor there, which is this process's own.
    let descriptor = has_descriptor.then(|| unsafe { OwnedFd::from_raw_fd(control.descriptor) });
    (message, descriptor)
}

/// A message's header, of one part and room for one descriptor.
fn parcel(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: integers and pointers, for which zeros are a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = ptr::from_mut(control).cast();
    header.msg_controllen = size_of::<Control>();
    header
}
