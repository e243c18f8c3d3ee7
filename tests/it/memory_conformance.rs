//! What holds for every memory resource.

use std::thread;

use wharf::memory::{
    Backing, DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource,
    PinnedMemoryResource, WriteCombinedMemoryResource,
};
use wharf::{Context, Driver};

use crate::backend::{binder, on_each_driver};
use crate::memory_kinds::{Kind, commit, context_of, decommit, pattern, read, write};

/// Stamps the suite on a resource, for each driver.
macro_rules! conformance {
    ($($module:ident: $resource:ty;)+) => {$(
        mod $module {
            use wharf::Driver;

            crate::backend::on_each_driver!(
                the_span_is_as_promised,
                bytes_stay_where_they_are,
                a_decommitted_piece_can_be_committed_again,
                wrong_ranges_are_refused,
                a_decommit_of_a_part_of_a_commit_is_refused_and_changes_nothing,
                threads_commit_side_by_side,
                a_drop_gives_back_what_is_committed,
                the_context_lives_as_long,
                a_size_is_rounded_up,
            );

            conformance!(@tests $resource:
                the_span_is_as_promised,
                bytes_stay_where_they_are,
                a_decommitted_piece_can_be_committed_again,
                wrong_ranges_are_refused,
                a_decommit_of_a_part_of_a_commit_is_refused_and_changes_nothing,
                threads_commit_side_by_side,
                a_drop_gives_back_what_is_committed,
                the_context_lives_as_long,
                a_size_is_rounded_up,
            );
        }
    )+};
    (@tests $resource:ty: $($test:ident,)+) => {
        $(fn $test(driver: &Driver) {
            super::$test::<$resource>(driver);
        })+
    };
}

conformance! {
    pinned: wharf::memory::PinnedMemoryResource;
    write_combined: wharf::memory::WriteCombinedMemoryResource;
    device: wharf::memory::DeviceMemoryResource;
    managed: wharf::memory::ManagedMemoryResource;
    file_mapped: wharf::memory::FileMappedMemoryResource;
}

/// The whole suite, for machines of other shapes.
pub(crate) fn suite<R: Kind>() -> [fn(&Driver); 9] {
    [
        the_span_is_as_promised::<R>,
        bytes_stay_where_they_are::<R>,
        a_decommitted_piece_can_be_committed_again::<R>,
        wrong_ranges_are_refused::<R>,
        a_decommit_of_a_part_of_a_commit_is_refused_and_changes_nothing::<R>,
        threads_commit_side_by_side::<R>,
        a_drop_gives_back_what_is_committed::<R>,
        the_context_lives_as_long::<R>,
        a_size_is_rounded_up::<R>,
    ]
}

const SIZE: usize = 32 << 20;

fn made<R: Kind>(driver: &Driver) -> (Context, R) {
    let context = context_of(driver);
    let resource = R::make(&context, SIZE).unwrap();
    (context, resource)
}

fn the_span_is_as_promised<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    let granularity = resource.granularity();
    assert!(granularity.is_power_of_two() && granularity >= 4096);
    assert_eq!(resource.base() % granularity as u64, 0);
    assert_eq!(resource.size() % granularity, 0);
    assert!(resource.size() >= SIZE && resource.base() != 0);
    assert!(resource.base().checked_add(resource.size() as u64).is_some());
    assert_eq!((resource.kind(), resource.ordinal()), (R::KIND, Some(context.device().ordinal())));
    let report = resource.report();
    assert_eq!((report.committed, report.registered, report.lost), (0, 0, 0));
    resource.close().unwrap();
    assert_eq!(context.drop_errors(), 0);
}

fn bytes_stay_where_they_are<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    let granule = resource.granularity();
    commit(&resource, granule, 2 * granule).unwrap();
    commit(&resource, 4 * granule, granule).unwrap();
    let first = resource.device_address(granule, 2 * granule).unwrap();
    let second = resource.device_address(4 * granule + 256, 1000).unwrap();
    write(&context, first, &pattern(1, 2 * granule));
    write(&context, second, &pattern(2, 1000));
    commit(&resource, 3 * granule, granule).unwrap();
    assert_eq!(resource.device_address(granule, 2 * granule), Some(first));
    assert!(read(&context, first, 2 * granule) == pattern(1, 2 * granule));
    assert!(read(&context, second, 1000) == pattern(2, 1000));
    decommit(&resource, granule, 2 * granule).unwrap();
    assert!(read(&context, second, 1000) == pattern(2, 1000));
    assert_eq!(resource.device_address(granule, 1), None);
    assert_eq!(resource.report().committed, 2 * granule);
}

fn a_decommitted_piece_can_be_committed_again<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    let granule = resource.granularity();
    for (round, pieces) in [1, 3, 2, 4].into_iter().enumerate() {
        let len = pieces * granule;
        commit(&resource, granule, len).unwrap();
        let address = resource.device_address(granule, len).unwrap();
        let bytes = pattern(u8::try_from(round).unwrap(), len);
        write(&context, address, &bytes);
        assert!(read(&context, address, len) == bytes);
        assert_eq!(resource.report().committed, len);
        decommit(&resource, granule, len).unwrap();
        assert_eq!((resource.report().committed, resource.report().registered), (0, 0));
    }
}

fn wrong_ranges_are_refused<R: Kind>(driver: &Driver) {
    let (_context, resource) = made::<R>(driver);
    let (granule, size) = (resource.granularity(), resource.size());
    commit(&resource, granule, 2 * granule).unwrap();
    let before = resource.report();
    for (offset, len) in
        [(granule, granule), (0, 2 * granule), (2 * granule, 2 * granule), (size, granule), (0, 0)]
    {
        assert!(commit(&resource, offset, len).is_err(), "commit of {len} at {offset}");
    }
    for (offset, len) in
        [(0, granule), (3 * granule, granule), (2 * granule, 2 * granule), (size, granule)]
    {
        assert!(decommit(&resource, offset, len).is_err(), "decommit of {len} at {offset}");
    }
    let after = resource.report();
    assert_eq!((after.committed, after.registered), (before.committed, before.registered));
    assert!(resource.device_address(granule, 2 * granule).is_some());
    assert_eq!(resource.device_address(granule, 2 * granule + 1), None);
    assert_eq!(resource.device_address(usize::MAX, 2), None);
    commit(&resource, 0, granule).unwrap();
}

fn a_decommit_of_a_part_of_a_commit_is_refused_and_changes_nothing<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    let granule = resource.granularity();
    commit(&resource, 0, 3 * granule).unwrap();
    commit(&resource, 3 * granule, granule).unwrap();
    let before = resource.report();
    for (offset, granules) in [(0, 1), (0, 2), (1, 2), (0, 4), (2, 2)] {
        let refused = decommit(&resource, offset * granule, granules * granule).unwrap_err();
        assert!(refused.to_string().contains("not one commit's"), "{refused}");
    }
    let after = resource.report();
    assert_eq!(
        (after.committed, after.registered, after.lost),
        (before.committed, before.registered, 0)
    );
    // The bytes are still there.
    if let Some(device) = resource.device_address(0, granule) {
        write(&context, device, &pattern(5, granule));
        assert!(read(&context, device, granule) == pattern(5, granule));
    }
    decommit(&resource, 0, 3 * granule).unwrap();
    decommit(&resource, 3 * granule, granule).unwrap();
    assert_eq!((resource.report().committed, resource.report().lost), (0, 0));
}

fn threads_commit_side_by_side<R: Kind>(driver: &Driver) {
    let (_context, resource) = made::<R>(driver);
    let (granule, bind) = (resource.granularity(), binder());
    thread::scope(|scope| {
        for thread in 0..4 {
            let (resource, bind) = (&resource, bind.clone());
            scope.spawn(move || {
                let _bound = bind();
                for _ in 0..8 {
                    commit(resource, 3 * thread * granule, 3 * granule).unwrap();
                    assert!(resource.device_address(3 * thread * granule, 3 * granule).is_some());
                    decommit(resource, 3 * thread * granule, 3 * granule).unwrap();
                }
                commit(resource, 3 * thread * granule, granule).unwrap();
            });
        }
    });
    assert_eq!(resource.report().committed, 4 * granule);
}

fn a_drop_gives_back_what_is_committed<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    let granule = resource.granularity();
    commit(&resource, 0, granule).unwrap();
    commit(&resource, granule, 2 * granule).unwrap();
    commit(&resource, 5 * granule, granule).unwrap();
    drop(resource);
    assert_eq!(context.drop_errors(), 0);
}

fn the_context_lives_as_long<R: Kind>(driver: &Driver) {
    let (context, resource) = made::<R>(driver);
    drop(context);
    commit(&resource, 0, resource.granularity()).unwrap();
    resource.close().unwrap();
}

fn a_size_is_rounded_up<R: Kind>(driver: &Driver) {
    let context = context_of(driver);
    let resource = R::make(&context, 1).unwrap();
    assert_eq!(resource.size(), resource.granularity());
    commit(&resource, 0, resource.granularity()).unwrap();
    drop(resource);
    assert!(R::make(&context, usize::MAX).is_err());
    assert!(R::make(&context, isize::MAX.unsigned_abs()).is_err());
    assert_eq!(context.drop_errors(), 0);
}

on_each_driver!(every_kind_is_obtained_in_the_best_way);

fn every_kind_is_obtained_in_the_best_way(driver: &Driver) {
    let context = context_of(driver);
    let backings = [
        PinnedMemoryResource::make(&context, SIZE).unwrap().report().backing,
        DeviceMemoryResource::make(&context, SIZE).unwrap().report().backing,
        FileMappedMemoryResource::make(&context, SIZE).unwrap().report().backing,
        ManagedMemoryResource::make(&context, SIZE).unwrap().report().backing,
        WriteCombinedMemoryResource::make(&context, SIZE).unwrap().report().backing,
    ];
    let best = [Backing::Pieces, Backing::Pieces, Backing::Pieces, Backing::Whole, Backing::Whole];
    assert_eq!(backings, best);
}
