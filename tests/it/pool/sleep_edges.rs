//! Sleep where it is refused, where a call fails, and beside what other threads do.

use std::sync::Arc;

use wharf::memory::{DeviceMemoryResource, Piece, Wire, WiredResource};
use wharf::pool::{Buffer, Contents, Pool};
use wharf::{Context, CudaError, DeviceAttribute, Error, ErrorKind, Stream};

use super::{SPAN, builder, context, device_pool, streams};
use crate::backend::{Config, Simulator, on_machine};
use crate::deadline::LONG;

const MIB: usize = 1 << 20;

/// A transport that does nothing.
#[derive(Debug)]
struct Silent;

impl Wire for Silent {
    type Key = ();

    fn attach(&self, _piece: &Piece) -> Result<(), Error> {
        Ok(())
    }

    fn detach(&self, _piece: &Piece, _key: ()) -> Result<(), Error> {
        Ok(())
    }
}

/// How often contents were copied, and pinned memory was made for them.
fn copies(machine: &Simulator) -> [u64; 3] {
    ["cuMemcpyDtoHAsync", "cuMemcpyHtoDAsync", "cuMemHostRegister"].map(|name| machine.calls(name))
}

/// A live buffer with contents.
fn filled(pool: &Pool, stream: &Stream) -> Buffer<u8> {
    let buffer: Buffer<u8> = pool.alloc(MIB, stream).unwrap();
    buffer.fill(3, stream).unwrap();
    stream.synchronize().unwrap();
    buffer
}

/// The contents of memory that cannot sleep are neither copied nor written: a peer may write there.
fn cannot_sleep(machine: &Arc<Simulator>, make: impl FnOnce(&Context) -> Pool) {
    on_machine(machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = make(&context);
        let buffer = filled(&pool, &stream);
        let before = copies(machine);
        let refused = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
        assert_eq!((refused.kind(), refused.is_asleep()), (ErrorKind::Unsupported, false));
        assert_eq!(copies(machine), before, "contents were copied");
        assert!(!pool.is_asleep());
        drop((buffer, pool.alloc::<u8>(MIB, &stream).unwrap()));
        stream.synchronize().unwrap();
        pool.close(LONG).unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn the_sleep_of_a_wired_pool_is_refused_before_anything_is_copied() {
    cannot_sleep(&Arc::new(Simulator::new(Config::default())), |context| {
        let device = DeviceMemoryResource::new(context, SPAN).unwrap();
        builder().build(WiredResource::new(device, Silent)).unwrap()
    });
}

#[test]
fn the_sleep_of_a_whole_span_is_refused_before_anything_is_copied() {
    let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED.as_raw();
    let config = Config { attributes: vec![(attribute, 0)], ..Config::default() };
    cannot_sleep(&Arc::new(Simulator::new(config)), device_pool);
}

/// The first piece stays mapped: what is in it is newer than what was kept, if a peer writes there.
#[test]
fn nothing_is_restored_where_nothing_was_suspended() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = device_pool(&context);
        let buffer = filled(&pool, &stream);
        let before = machine.calls("cuMemcpyHtoDAsync");
        machine.fail("cuMemUnmap", 1, CudaError::UNKNOWN);
        let failed = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
        assert_eq!((failed.is_asleep(), pool.is_asleep()), (false, false), "{failed}");
        assert_eq!(machine.calls("cuMemcpyHtoDAsync"), before, "contents were restored");
        pool.sleep(Contents::Kept, &stream, LONG).unwrap();
        pool.wake(&stream).unwrap();
        drop(buffer);
    });
}
