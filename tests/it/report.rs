//! Snapshots of pools.

use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::report::Snapshot;
use wharf::{Context, Driver, Stream};

use crate::backend::on_each_driver;

on_each_driver!(
    a_snapshot_accounts_for_every_byte,
    a_snapshot_names_owner_stream_and_site,
    pinned_memory_is_in_it
);

fn pool(driver: &Driver) -> (Pool, Stream) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let resource = DeviceMemoryResource::new(&context, 256 << 20).unwrap();
    let pool = Pool::builder().name("<kv>").track(true).build(resource).unwrap();
    (pool, Stream::new(&context).unwrap())
}

fn a_snapshot_accounts_for_every_byte(driver: &Driver) {
    let (pool, stream) = pool(driver);
    let sizes = [100, 1000, 70_000, 3 << 20, 20 << 20];
    let held: Vec<Buffer<u8>> =
        sizes.iter().map(|&size| pool.alloc(size, &stream).unwrap()).collect();
    let retired: Vec<Buffer<u8>> =
        sizes.iter().map(|&size| pool.alloc(size, &stream).unwrap()).collect();
    retired.iter().for_each(|buffer| buffer.record_use(&stream).unwrap());
    drop(retired);
    let snapshot = Snapshot::of(&pool);
    assert_eq!(snapshot.live, held.iter().map(|buffer| buffer.info().size).sum::<usize>());
    assert_eq!((snapshot.retired, snapshot.blocks.len()), (pool.retired(), 10));
    let memory = snapshot.physical.unwrap();
    assert!(memory.free > 0 && memory.free + snapshot.reserved <= memory.total, "{memory:?}");
    assert!(snapshot.to_string().contains(&format!("of {} bytes free", memory.total)));
    assert_eq!(snapshot.waste, snapshot.live - sizes.iter().sum::<usize>());
    let slabs: usize = snapshot.slabs.iter().map(|slab| slab.size).sum();
    assert_eq!(slabs + snapshot.unused, snapshot.reserved);
    let taken: usize =
        snapshot.slabs.iter().map(|slab| (slab.blocks - slab.free) * slab.block_size).sum();
    assert_eq!(taken, snapshot.live + snapshot.retired + snapshot.cached);
    for block in &snapshot.blocks {
        let end = block.address + block.size as u64;
        let is_in = |slab: &wharf::report::SlabEntry| {
            slab.address <= block.address && end <= slab.address + slab.size as u64
        };
        assert_eq!(snapshot.slabs.iter().filter(|slab| is_in(slab)).count(), 1, "{block}");
    }
}

fn a_snapshot_names_owner_stream_and_site(driver: &Driver) {
    let (pool, stream) = pool(driver);
    let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    buffer.fill(1, &stream).unwrap();
    let snapshot = Snapshot::of(&pool);
    let text = snapshot.to_string();
    for part in ["<kv>", "report.rs", "in use", &format!("stream {:#x}", stream.as_raw().addr())] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(snapshot.blocks[0].age_nanoseconds.is_some());
    let svg = snapshot.to_svg();
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("class=\"in-use\"")
    );
    assert!(svg.contains("&lt;kv&gt;") && !svg.contains("<kv>"));
    assert_eq!(svg.matches("<rect").count(), svg.matches("</rect>").count());
}

fn pinned_memory_is_in_it(driver: &Driver) {
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let resource = PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default()).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    let empty = Snapshot::of(&pool);
    assert_eq!((empty.reserved, empty.slabs.len(), empty.kind.as_str()), (0, 0, "Pinned"));
    assert!(empty.to_svg().starts_with("<svg"));
    let stream = Stream::new(&context).unwrap();
    let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    assert!(Snapshot::of(&pool).reserved >= buffer.info().size);
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_is_json() {
    use crate::backend::{Config, Simulator, on_machine};

    let machine = std::sync::Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let (pool, stream) = pool(driver);
        let _buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
        let json: serde_json::Value = serde_json::to_value(Snapshot::of(&pool)).unwrap();
        assert_eq!(
            (json["name"].as_str(), json["blocks"][0]["asked"].as_u64()),
            (Some("<kv>"), Some(5000))
        );
    });
}
