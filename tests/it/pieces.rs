#![expect(unsafe_code, reason = "asks for raw addresses; submits a fill with one")]
//! Host memory in pieces: the driver refuses a copy from one registration into the next.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use ::softcuda::Schedule;
use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, MemoryResource, PinnedMemoryResource,
    PinnedOptions,
};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len, StageError};
use wharf::tier::{Tier, TieredPool};
use wharf::{CudaError, Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::memory_kinds::{commit, context_of, memory_file, pattern};

on_each_driver!(
    a_copy_between_buffers_is_cut_at_registrations,
    a_copy_of_a_slice_that_is_pinned_in_pieces_is_cut,
    a_fill_is_cut_at_registrations,
    an_address_is_given_only_for_one_registration,
    a_reference_to_several_registrations_is_refused,
);

const MIB: usize = 1 << 20;
/// A registration of the small pools.
const PIECE: usize = 2 * MIB;
/// A registration where nothing else is asked for.
const LIMIT: usize = 256 * MIB;

/// Pinned memory, registered in pieces of [`PIECE`] bytes, and memory of the device.
struct Rig {
    stream: Stream,
    pinned: Pool,
    device: Pool,
}

impl Rig {
    fn new(driver: &Driver) -> Self {
        let context = context_of(driver);
        let options = PinnedOptions::default().piece_limit(PIECE);
        let pinned = PinnedMemoryResource::new(&context, 256 * MIB, options).unwrap();
        let device = DeviceMemoryResource::new(&context, 256 * MIB).unwrap();
        Self {
            stream: Stream::new(&context).unwrap(),
            pinned: Pool::builder().build(pinned).unwrap(),
            device: Pool::builder().build(device).unwrap(),
        }
    }

    /// A large block, in a commit of its own: a registration begins with it.
    fn pinned(&self) -> Buffer<u8> {
        self.pinned.alloc(40 * MIB, &self.stream).unwrap()
    }

    fn device(&self) -> Buffer<u8> {
        self.device.alloc(40 * MIB, &self.stream).unwrap()
    }
}

/// Ranges that touch, cross and leave a border.
fn round(border: usize) -> Vec<std::ops::Range<usize>> {
    let starts = (border - 3)..(border + 3);
    let ends = [border, border + 1, border + 300, border + PIECE - 1, border + PIECE + 5];
    starts.flat_map(|start| ends.map(|end| start..end.max(start + 1))).collect()
}

fn a_copy_between_buffers_is_cut_at_registrations(driver: &Driver) {
    let rig = Rig::new(driver);
    let (mut from, to, mut back) = (rig.pinned(), rig.device(), rig.pinned());
    let bytes = pattern(7, 40 * MIB);
    from.host_mut(LONG).unwrap().copy_from_slice(&bytes);
    to.copy_from(&from, &rig.stream).unwrap();
    back.copy_from(&to, &rig.stream).unwrap();
    assert!(back.host_mut(LONG).unwrap() == bytes);
    for range in round(PIECE) {
        // Of two pinned buffers, at offsets of which neither begins where the other does.
        let target = back.slice(1..=range.len()).unwrap();
        target.copy_from(&from.slice(range.clone()).unwrap(), &rig.stream).unwrap();
        drop(target);
        assert!(back.host_mut(LONG).unwrap()[1..=range.len()] == bytes[range]);
    }
}

fn a_copy_of_a_slice_that_is_pinned_in_pieces_is_cut(driver: &Driver) {
    let rig = Rig::new(driver);
    let (mut host, to, mut back) = (rig.pinned(), rig.device(), rig.pinned());
    host.host_mut(LONG).unwrap()[PIECE - 1..=PIECE].fill(9);
    to.copy_from_slice(host.host_mut(LONG).unwrap(), &rig.stream).unwrap();
    to.copy_to_slice(back.host_mut(LONG).unwrap(), &rig.stream).unwrap();
    assert!(back.host_mut(LONG).unwrap() == host.host_mut(LONG).unwrap());
    // Ordinary memory has no pieces, the buffer has.
    back.copy_from_slice(&pattern(3, 40 * MIB), &rig.stream).unwrap();
    let mut bytes = vec![0; 40 * MIB];
    back.copy_to_slice(&mut bytes, &rig.stream).unwrap();
    assert!(bytes == pattern(3, 40 * MIB));

    let context = rig.stream.context();
    let tiers = TieredPool::builder(context).device(64 * MIB).pinned(64 * MIB).build().unwrap();
    let mut object = tiers.alloc(40 * MIB, Tier::Device).unwrap();
    let mut held = object.pin_mut(Tier::Device, &rig.stream).unwrap();
    held.copy_from_slice(back.host_mut(LONG).unwrap()).unwrap();
    held.copy_to_slice(host.host_mut(LONG).unwrap()).unwrap();
    assert!(host.host_mut(LONG).unwrap() == bytes);
}

fn a_fill_is_cut_at_registrations(driver: &Driver) {
    let rig = Rig::new(driver);
    let buffer = rig.pinned();
    buffer.fill(1, &rig.stream).unwrap();
    let mut part = buffer.slice(PIECE - 8..PIECE + 8).unwrap();
    drop(buffer);
    part.fill(2, &rig.stream).unwrap();
    assert_eq!(part.host_mut(LONG).unwrap(), [2; 16]);
    let mut part = part.cast::<u16>().unwrap();
    part.fill(0x304, &rig.stream).unwrap();
    assert_eq!(part.host_mut(LONG).unwrap(), [0x304; 8]);
    let mut part = part.cast::<i64>().unwrap();
    part.fill(-1, &rig.stream).unwrap();
    assert_eq!(part.host_mut(LONG).unwrap(), [-1; 2]);
}

fn an_address_is_given_only_for_one_registration(driver: &Driver) {
    let context = context_of(driver);
    let options = PinnedOptions::default().piece_limit(PIECE);
    let resource = PinnedMemoryResource::new(&context, 8 * MIB, options).unwrap();
    commit(&resource, 0, 6 * MIB).unwrap();
    let address = |offset, len| MemoryResource::device_address(&resource, offset, len);
    assert!(address(0, PIECE).is_some() && address(PIECE - 1, 1).is_some());
    assert_eq!(address(PIECE - 1, 2), None);
    assert_eq!(address(0, 6 * MIB), None);
    assert_eq!(address(5 * MIB, 2 * MIB), None);
    let pieces = |offset, len| resource.pieces(offset, len).collect::<Vec<_>>();
    assert_eq!(pieces(5, 0), []);
    assert_eq!(pieces(PIECE - 1, 2), [PIECE - 1..PIECE, PIECE..PIECE + 1]);
    // Up to what is not committed.
    assert_eq!(pieces(5 * MIB, 3 * MIB), [5 * MIB..6 * MIB, 6 * MIB..8 * MIB]);
}

fn a_reference_to_several_registrations_is_refused(driver: &Driver) {
    let rig = Rig::new(driver);
    let inputs = InputBuffers::builder(rig.stream.context()).slot::<u8>("x", Len::Tokens);
    let inputs = inputs.buckets([4096]).build().unwrap();
    let buffer = rig.pinned();
    let mut step = inputs.begin(4096, 1).unwrap();
    let slot = inputs.slot_id("x").unwrap();
    let across = buffer.slice(PIECE - 1..PIECE + 4095).unwrap();
    let refused = step.refer_buffer(slot, &across).unwrap_err();
    let StageError::Driver(error) = refused else { panic!("{refused}") };
    assert_eq!(error.code(), Some(CudaError::INVALID_VALUE));
    step.refer_buffer(slot, &buffer.slice(PIECE..PIECE + 4096).unwrap()).unwrap();
    step.submit(&rig.stream).unwrap();
    rig.stream.synchronize().unwrap();
}

/// A machine on which operations run at once.
fn machine(config: Config) -> Arc<Simulator> {
    Arc::new(Simulator::new(Config { schedule: Schedule::Eager, ..config }))
}

#[test]
fn pieces_that_the_device_sees_elsewhere_are_copied_from_where_they_are() {
    on_machine(&machine(Config { registered_alias: true, ..Config::default() }), |driver| {
        a_copy_between_buffers_is_cut_at_registrations(driver);
        a_copy_of_a_slice_that_is_pinned_in_pieces_is_cut(driver);
        a_fill_is_cut_at_registrations(driver);
        let rig = Rig::new(driver);
        let buffer = rig.pinned();
        // SAFETY: nothing is submitted with the addresses but a fill, whose use is noted.
        let pieces: Vec<_> = unsafe { buffer.as_device_pieces() }.unwrap().collect();
        assert_eq!(pieces.len(), 20);
        for (address, size) in pieces {
            // SAFETY: a piece of the buffer, which nothing else uses.
            unsafe { rig.stream.fill_d8(address, 5, size) }.unwrap();
        }
        buffer.record_use(&rig.stream).unwrap();
        let mut bytes = vec![0; 40 * MIB];
        buffer.copy_to_slice(&mut bytes, &rig.stream).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 5));
    });
}

#[test]
fn a_copy_that_fails_midway_keeps_its_memory_until_the_device_is_past_it() {
    let late = Config { schedule: Schedule::Late, ..Config::default() };
    let machine = Arc::new(Simulator::new(late));
    on_machine(&machine, |driver| {
        let rig = Rig::new(driver);
        let (from, to) = (rig.pinned(), rig.device());
        machine.fail("cuMemcpyAsync", 3, CudaError::INVALID_VALUE);
        let failed = to.copy_from(&from, &rig.stream);
        assert_eq!(failed.map_err(|error| error.code()), Err(Some(CudaError::INVALID_VALUE)));
        // Two pieces are on their way.
        assert!(!to.is_idle() && !from.is_idle());
        to.wait(LONG).unwrap();
        // Nothing is: the very first was refused.
        machine.fail("cuMemcpyAsync", 1, CudaError::INVALID_VALUE);
        to.copy_from(&from, &rig.stream).unwrap_err();
        assert!(to.is_idle() && from.is_idle());
    });
}

/// One of these at a time: each has 1 or 2 GiB of memory.
static LARGE: Mutex<()> = Mutex::new(());

/// Memory of 1 GiB with few bytes that are not 0: round the borders, each different.
fn mark(border: usize) -> Vec<u8> {
    pattern(u8::try_from(border / LIMIT).unwrap() * 50 + 1, 16)
}

const BORDERS: [usize; 3] = [LIMIT, 2 * LIMIT, 3 * LIMIT];

/// An object of more than a registration.
const SIZE: usize = 300 * MIB;

/// Whether a buffer of 1 GiB has the marks, and zeros elsewhere.
fn is_marked(buffer: &Buffer<u8>, stream: &Stream) -> bool {
    let (mut bytes, mut expected) = (vec![0; 64 * MIB], vec![0; 64 * MIB]);
    (0..buffer.len()).step_by(64 * MIB).all(|start| {
        let part = buffer.slice(start..start + 64 * MIB).unwrap();
        part.copy_to_slice(&mut bytes, stream).unwrap();
        expected.fill(0);
        for border in BORDERS {
            for (at, byte) in (border - 8..).zip(mark(border)) {
                if (start..start + 64 * MIB).contains(&at) {
                    expected[at - start] = byte;
                }
            }
        }
        bytes == expected
    })
}

/// Copies all there is round the borders, from every offset on, to a small buffer, and looks at it.
fn check_round_borders(from: &Buffer<u8>, small: &Buffer<u8>, stream: &Stream) {
    for border in BORDERS {
        for start in border - 8..border + 8 {
            small.copy_from(&from.slice(start..border + 8).unwrap(), stream).unwrap();
            let mut bytes = vec![0; small.len()];
            small.copy_to_slice(&mut bytes, stream).unwrap();
            assert_eq!(
                bytes[..border + 8 - start],
                mark(border)[start - (border - 8)..],
                "{start:#x}"
            );
        }
    }
}

#[test]
fn a_pinned_buffer_of_a_gibibyte_is_copied_whole_and_at_every_offset_round_a_border() {
    let _one_at_a_time = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    on_machine(&machine(Config::default()), |driver| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pinned =
            PinnedMemoryResource::new(&context, 1 << 30, PinnedOptions::default()).unwrap();
        let pinned: Pool = Pool::builder().build(pinned).unwrap();
        let device = DeviceMemoryResource::new(&context, 2 << 30).unwrap();
        let device: Pool = Pool::builder().build(device).unwrap();
        let mut from: Buffer<u8> = pinned.alloc(1 << 30, &stream).unwrap();
        for border in BORDERS {
            from.host_mut(LONG).unwrap()[border - 8..border + 8].copy_from_slice(&mark(border));
        }
        let whole: Buffer<u8> = device.alloc(1 << 30, &stream).unwrap();
        whole.copy_from(&from, &stream).unwrap();
        assert!(is_marked(&whole, &stream));
        check_round_borders(&from, &device.alloc(64, &stream).unwrap(), &stream);
        // And back.
        from.fill(3, &stream).unwrap();
        from.copy_from(&whole, &stream).unwrap();
        assert!(is_marked(&from, &stream));
    });
}

/// A file of 1 GiB with the marks; its other bytes have no blocks.
fn marked_file() -> File {
    let file = memory_file();
    file.set_len(1 << 30).unwrap();
    for border in BORDERS {
        file.write_all_at(&mark(border), border as u64 - 8).unwrap();
    }
    file
}

#[test]
fn a_file_of_a_gibibyte_is_copied_whole_and_at_every_offset_round_a_border() {
    let _one_at_a_time = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    on_machine(&machine(Config::default()), |driver| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let file = FileMappedMemoryResource::read_only(&context, &marked_file()).unwrap();
        let file: Pool = Pool::builder().build(file).unwrap();
        let device = DeviceMemoryResource::new(&context, 2 << 30).unwrap();
        let device: Pool = Pool::builder().build(device).unwrap();
        let from: Buffer<u8> = file.alloc(1 << 30, &stream).unwrap();
        let whole: Buffer<u8> = device.alloc(1 << 30, &stream).unwrap();
        whole.copy_from(&from, &stream).unwrap();
        assert!(is_marked(&whole, &stream));
        check_round_borders(&from, &device.alloc(64, &stream).unwrap(), &stream);
    });
}

#[test]
fn objects_of_more_than_a_registration_move_between_all_tiers() {
    let _one_at_a_time = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    on_machine(&machine(Config::default()), |driver| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool = TieredPool::builder(&context)
            .device(SIZE)
            .managed(SIZE)
            .pinned(SIZE)
            .file(memory_file(), SIZE)
            .build()
            .unwrap();
        let mut bytes = pattern(3, SIZE);
        let mut object = pool.alloc(SIZE, Tier::Pinned).unwrap();
        object.pin_mut(Tier::Pinned, &stream).unwrap().copy_from_slice(&bytes).unwrap();
        for tier in [Tier::Device, Tier::Managed, Tier::FileMapped, Tier::Pinned, Tier::FileMapped]
        {
            drop(object.pin(tier, &stream).unwrap());
            assert_eq!(object.tier(), tier);
        }
        bytes.fill(0);
        let held = object.pin(Tier::Device, &stream).unwrap();
        held.copy_to_slice(&mut bytes).unwrap();
        assert!(bytes == pattern(3, SIZE));
    });
}

#[test]
fn an_object_that_is_a_part_of_a_large_file_moves_from_it() {
    let _one_at_a_time = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    on_machine(&machine(Config::default()), |driver| {
        let stream = Stream::new(&context_of(driver)).unwrap();
        let pool = TieredPool::builder(stream.context()).device(512 * MIB).build().unwrap();
        let file = pool.map_file(&marked_file()).unwrap();
        for start in LIMIT - 8..LIMIT + 8 {
            let object = pool.object_of(&file, start..LIMIT + 8).unwrap();
            let mut bytes = vec![0; LIMIT + 8 - start];
            object.pin_here(&stream).unwrap().copy_to_slice(&mut bytes).unwrap();
            assert_eq!(bytes, mark(LIMIT)[start - (LIMIT - 8)..]);
            bytes.fill(0);
            object.pin(Tier::Device, &stream).unwrap().copy_to_slice(&mut bytes).unwrap();
            assert_eq!(bytes, mark(LIMIT)[start - (LIMIT - 8)..]);
        }
        let object = pool.object_of(&file, LIMIT - 8..2 * LIMIT + 8).unwrap();
        let mut bytes = vec![0; object.size()];
        object.pin(Tier::Device, &stream).unwrap().copy_to_slice(&mut bytes).unwrap();
        assert_eq!((&bytes[..16], &bytes[LIMIT..]), (&*mark(LIMIT), &*mark(2 * LIMIT)));
    });
}
