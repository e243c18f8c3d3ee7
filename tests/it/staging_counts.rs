//! Steps whose tokens and requests do not go together, sizes that ranks have agreed on, and ways to
//! write.

use std::sync::{Arc, Barrier};
use std::thread;

use wharf::staging::{
    BuildError, Count, CountFault, Counts, Forgotten, InputBuffers, InputBuffersBuilder,
    Instantiation, Layout, Len, OutputBuffers, Pad, SlotFault, StageError,
};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::graph_rig::Inventory;
use crate::staging_rig::{Noise, context, words};

on_each_driver!(
    a_step_goes_to_the_smallest_bucket_that_holds_it,
    buckets_of_counts_are_checked,
    the_engine_finds_its_graph_by_the_bucket,
    ranks_agree_on_a_size,
    what_is_beyond_the_agreed_size_is_refused,
    the_rest_of_a_prefix_is_padding,
    slots_are_written_side_by_side,
    a_count_by_name_sizes_its_slots,
    counts_are_checked,
);

const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];

fn counts(tokens: usize, requests: usize) -> Counts {
    Counts { tokens, requests }
}

/// Speculative decoding: four tokens a request, and prefill of few requests.
fn speculative(context: &Context) -> InputBuffersBuilder {
    let decode = [1, 2, 4, 8, 16, 32, 64].map(|requests| counts(4 * requests, requests));
    InputBuffers::builder(context)
        .slot::<i32>("ids", Len::Tokens)
        .slot::<i32>("tables", Len::Requests.times(2048))
        .buckets_of(decode.into_iter().chain([counts(512, 4), counts(2048, 8)]))
}

/// 64 requests of 4 tokens with tables of 2048 blocks: the tables of 64 requests are staged, and
/// not those of 256.
#[test]
fn a_table_is_staged_for_its_requests_alone() {
    for layout in LAYOUTS {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let stream = Stream::new(&context).unwrap();
            let inputs = speculative(&context).layout(layout).build().unwrap();
            let (ids, tables) = (inputs.slot_id("ids").unwrap(), inputs.slot_id("tables").unwrap());
            let before = machine.bytes().htod;
            let mut step = inputs.begin(256, 64).unwrap();
            step.write::<i32>(ids).fill(1);
            step.write::<i32>(tables).fill(2);
            let staged = step.submit(&stream).unwrap();
            assert_eq!(staged.padded(), counts(256, 64));
            inputs.wait().unwrap();
            let bytes = machine.bytes().htod - before;
            assert!((524_288..=530_000).contains(&bytes), "{bytes} bytes");
        });
    }
}

/// 290 buckets and a ring of four: more graphs than are kept. Decoding finds all it needs.
#[test]
fn an_eager_ladder_of_hundreds_keeps_the_smallest() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let stream = Stream::new(&context).unwrap();
        let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
        let set = set.buckets((1..=290).map(|bucket| 8 * bucket)).ring_depth(4);
        let inputs = set.instantiation(Instantiation::Eager).build().unwrap();
        assert_eq!((inputs.graphs().count, inputs.graphs_made().ahead), (1024, 1024));
        let (ids, mut noise) = (inputs.slot_id::<u32>("ids").unwrap(), Noise(5));
        for _ in 0..1000 {
            // The sizes of the 256 smallest buckets.
            let tokens = 1 + noise.below(2048);
            let mut step = inputs.begin(tokens, 1).unwrap();
            step.write(ids).fill(1);
            step.submit(&stream).unwrap();
        }
        inputs.wait().unwrap();
        assert_eq!(inputs.graphs_made().by_steps, 0);
    });
}

fn a_step_goes_to_the_smallest_bucket_that_holds_it(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for layout in LAYOUTS {
        let inputs = speculative(&context).layout(layout).build().unwrap();
        let (ids, tables) =
            (inputs.slot_id::<u32>("ids").unwrap_err(), inputs.slot_id::<i32>("tables").unwrap());
        assert!(ids.to_string().contains("i32"), "{ids}");
        let ids = inputs.slot_id::<i32>("ids").unwrap();
        for (step, wanted) in [
            ((4, 1), (4, 1)),
            ((1, 1), (4, 1)),
            ((5, 1), (8, 2)),
            ((3, 2), (8, 2)),
            // More tokens than any decoding step of so few requests: prefill.
            ((500, 2), (512, 4)),
            ((300, 5), (2048, 8)),
            ((200, 60), (256, 64)),
        ] {
            let mut filled = inputs.begin(step.0, step.1).unwrap();
            assert_eq!(filled.padded(), counts(wanted.0, wanted.1), "{step:?}");
            let bucket = filled.bucket().unwrap();
            filled.write(ids).fill(1);
            filled.write(tables).fill(2);
            let staged = filled.submit(&stream).unwrap();
            assert_eq!((staged.bucket(), staged.counts()), (Some(bucket), counts(step.0, step.1)));
            let [.., last] = words::<4>(&stream, staged.device_ptr(ids));
            assert_eq!(last, u32::from(step.0 >= 4));
        }
        // Largest counts of two buckets: no bucket holds both.
        let both = inputs.begin(2048, 64).unwrap();
        assert_eq!((both.bucket(), both.padded()), (None, counts(2048, 64)));
        let error = inputs.begin(2048, 65).unwrap_err();
        assert!(matches!(error, StageError::TooLarge { what: Count::Requests, max: 64, .. }));
    }
}

fn buckets_of_counts_are_checked(driver: &Driver) {
    let context = context(driver);
    let refused = |buckets: &[Counts], requests| {
        let set = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
        set.buckets_of(buckets.iter().copied()).max_requests(requests).build().unwrap_err()
    };
    for wrong in [counts(0, 1), counts(1, 0)] {
        assert_eq!(refused(&[counts(4, 4), wrong], 4), BuildError::BucketOf(wrong));
    }
    let twice = [counts(4, 2), counts(8, 2), counts(4, 2)];
    assert_eq!(refused(&twice, 4), BuildError::BucketOf(counts(4, 2)));
    let limit = BuildError::Limit { what: Count::Requests, limit: 3, needed: 4 };
    assert_eq!(refused(&[counts(8, 4)], 3), limit);
}

/// By its index among the buckets; addresses and lengths are asked for in the same terms.
fn the_engine_finds_its_graph_by_the_bucket(driver: &Driver) {
    let context = context(driver);
    let before = Inventory::now();
    let inputs = speculative(&context).layout(Layout::Packed).build().unwrap();
    let tables = inputs.slot_id::<i32>("tables").unwrap();
    let (buffers, buckets) = (inputs.static_buffers(), Vec::from_iter(inputs.buckets()));
    for (index, bucket) in buckets.iter().enumerate() {
        assert_eq!(inputs.bucket_of(*bucket), Some(index));
        assert_eq!(inputs.begin(bucket.tokens, bucket.requests).unwrap().bucket(), Some(index));
        assert_eq!(buffers.len(tables, *bucket), Some(2048 * bucket.requests));
        assert!(buffers.device_ptr(tables, *bucket).is_some());
        let embedded = inputs.embed(*bucket).unwrap();
        assert_eq!(embedded.begin(1, 1).unwrap().padded(), *bucket);
    }
    assert_eq!(inputs.bucket_of(counts(2048, 64)), None);
    assert_eq!(buffers.device_ptr(tables, counts(2048, 64)), None);
    let error = inputs.embed(counts(2049, 1)).unwrap_err();
    assert!(matches!(error, StageError::TooLarge { what: Count::Tokens, max: 2048, .. }));
    drop((buffers, inputs));
    before.restored(driver);
}

/// Four ranks with steps of their own and one size; a rank is idle now and then.
fn ranks_agree_on_a_size(driver: &Driver) {
    const RANKS: usize = 4;
    const STEPS: usize = 12;
    let context = context(driver);
    // The tokens of each rank in each step.
    let mut noise = Noise(11);
    let steps = [(); STEPS].map(|()| [(); RANKS].map(|()| noise.below(3) * noise.below(14)));
    let barrier = Barrier::new(RANKS);
    let bind = binder();
    thread::scope(|scope| {
        for rank in 0..RANKS {
            let (context, barrier, bind, steps) = (&context, &barrier, bind.clone(), &steps);
            scope.spawn(move || {
                let _bound = bind();
                let set = InputBuffers::builder(context)
                    .slot_padded::<u32>("ids", Len::Tokens, Pad::Value(7))
                    .slot_padded::<u32>("starts", Len::Requests.plus(1), Pad::RepeatLast);
                let inputs = set.buckets([4, 8, 16, 32]).build().unwrap();
                let outputs = OutputBuffers::builder(context).slot::<u32>("ids", Len::Tokens);
                let outputs = outputs.buckets([4, 8, 16, 32]).build().unwrap();
                let ids = inputs.slot_id::<u32>("ids").unwrap();
                let starts = inputs.slot_id::<u32>("starts").unwrap();
                let stream = Stream::new(context).unwrap();
                let mut wrong = Vec::new();
                for (number, all) in steps.iter().enumerate() {
                    let (own, agreed) = (all[rank], *all.iter().max().unwrap());
                    let requests = own.min(1);
                    let mut step = inputs.begin_padded(own, requests, agreed).unwrap();
                    if own > 0 {
                        step.write(ids).fill(1);
                    }
                    step.write(starts).fill(u32::try_from(own).unwrap());
                    let padded = step.padded();
                    let staged = step.submit(&stream).unwrap();
                    let found = words::<32>(&stream, staged.device_ptr(ids));
                    let wanted = |index| if index < own { 1 } else { 7 };
                    let is_padded = (0..padded.tokens).all(|index| found[index] == wanted(index));
                    let fetch = outputs.begin_padded(own, requests, agreed).unwrap();
                    let (fetched, pending) = (fetch.padded(), fetch.submit(&stream).unwrap());
                    let counts = pending.wait(LONG).unwrap().counts();
                    let is_agreed = padded.tokens == agreed.next_power_of_two().max(4);
                    if !(is_padded && is_agreed && fetched == padded && counts.tokens == own) {
                        wrong.push((number, padded));
                    }
                    // As a collective, which every rank has to come to.
                    barrier.wait();
                }
                // Here, since a rank that ends early would let the others wait.
                assert_eq!(wrong, [], "rank {rank}");
            });
        }
    });
}

fn what_is_beyond_the_agreed_size_is_refused(driver: &Driver) {
    let context = context(driver);
    let inputs = speculative(&context).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let too_large =
        |outcome: Result<_, StageError>| matches!(outcome, Err(StageError::TooLarge { .. }));
    assert!(too_large(inputs.begin_padded(5, 1, 4)));
    assert!(too_large(inputs.begin_padded(4, 2, counts(4, 1))));
    assert!(too_large(inputs.begin_padded(1, 1, 2049)));
    // What has elements has to be written, in an idle rank too.
    let set = InputBuffers::builder(&context).slot::<u32>("starts", Len::Requests.plus(1));
    let other = set.slot::<u32>("ids", Len::Tokens).buckets([4]).build().unwrap();
    let error = other.begin_padded(0, 0, 4).unwrap().submit(&Stream::new(&context).unwrap());
    let StageError::Slot { slot, fault: SlotFault::Forgotten } = error.unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(&*slot, "starts");
    let mut step = inputs.begin(1, 1).unwrap();
    step.write(ids).fill(1);
    let error = step.submit(&Stream::new(&context).unwrap()).unwrap_err();
    assert!(matches!(error, StageError::Slot { fault: SlotFault::Forgotten, .. }));
}

fn the_rest_of_a_prefix_is_padding(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let set = InputBuffers::builder(&context)
        .slot_padded::<u32>("value", Len::Tokens, Pad::Value(7))
        .slot_padded::<u32>("last", Len::Tokens, Pad::RepeatLast)
        .buckets([4, 8])
        .max_tokens(16)
        .ring_depth(1);
    let inputs = set.build().unwrap();
    let [value, last] = ["value", "last"].map(|name| inputs.slot_id::<u32>(name).unwrap());
    for tokens in [5, 8, 12] {
        let mut step = inputs.begin(tokens, 1).unwrap();
        step.write(value).fill(99);
        step.write(last).fill(99);
        step.write_prefix(value, &[1, 2]).unwrap();
        step.write_prefix(last, &[3, 4, 5]).unwrap();
        let long = step.write_prefix(value, &[0; 13]).unwrap_err();
        let fault = SlotFault::Length { wanted: tokens, given: 13 };
        assert_eq!(long, StageError::Slot { slot: "value".into(), fault });
        let staged = step.submit(&stream).unwrap();
        assert_eq!(words(&stream, staged.device_ptr(value)), [1, 2, 7, 7, 7, 7, 7, 7]);
        assert_eq!(words(&stream, staged.device_ptr(last)), [3, 4, 5, 5, 5, 5, 5, 5]);
    }
}

fn slots_are_written_side_by_side(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let set = || {
        InputBuffers::builder(&context)
            .slot::<u32>("a", Len::Tokens)
            .slot::<u64>("b", Len::Tokens)
            .slot::<u8>("c", Len::Requests)
            .dynamic::<u32>("dynamic")
            .when_forgotten(Forgotten::Pad)
            .buckets([4, 8])
            .build()
            .unwrap()
    };
    let (inputs, other) = (set(), set());
    let (a, b, c) = (
        inputs.slot_id::<u32>("a").unwrap(),
        inputs.slot_id::<u64>("b").unwrap(),
        inputs.slot_id::<u8>("c").unwrap(),
    );
    let mut step = inputs.begin(3, 2).unwrap();
    let fault = |error: StageError| match error {
        StageError::Slot { fault, .. } => fault,
        error => panic!("{error}"),
    };
    let dynamic = inputs.slot_id::<u32>("dynamic").unwrap();
    let foreign = other.slot_id::<u64>("b").unwrap();
    assert_eq!(fault(step.write_many((a, a)).unwrap_err()), SlotFault::Twice);
    assert_eq!(fault(step.write_many((a, foreign)).unwrap_err()), SlotFault::Foreign);
    assert_eq!(fault(step.write_many((a, dynamic)).unwrap_err()), SlotFault::IsDynamic);
    let (ids, wide, flags) = step.write_many((a, b, c)).unwrap();
    assert_eq!((ids.len(), wide.len(), flags.len()), (3, 3, 2));
    for (value, (narrow, wide)) in (0..).zip(ids.iter_mut().zip(wide)) {
        (*narrow, *wide) = (value, u64::from(value) + 10);
    }
    flags.fill(5);
    let staged = step.submit(&stream).unwrap();
    assert_eq!(words(&stream, staged.device_ptr(a)), [0, 1, 2, 0]);
    assert_eq!(words(&stream, staged.device_ptr(b)), [10, 0, 11, 0, 12, 0]);
    assert_eq!(words(&stream, staged.device_ptr(c)), [0x0505]);
    // What failed has not counted as written.
    let mut step = inputs.begin(3, 2).unwrap();
    step.write_many((a, b)).unwrap();
    let _refused = step.write_many((c, foreign)).unwrap_err();
    assert_eq!(fault(step.submit(&stream).unwrap_err()), SlotFault::Forgotten);
}

/// One slot by tokens, two by the logits of a step, of which there are four a request at most.
fn logits(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .slot::<u32>("ids", Len::Tokens)
        .slot_padded::<u32>("indices", Len::count("logits"), Pad::Value(9))
        .slot_padded::<u32>("pairs", Len::count("logits").times(2).plus(1), Pad::RepeatLast)
        .count("drafts", Len::Fixed(3))
        .count("logits", Len::Requests.times(4))
        .buckets_of([counts(8, 1), counts(16, 2)])
        .max_tokens(32)
}

fn a_count_by_name_sizes_its_slots(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for layout in LAYOUTS {
        let inputs = logits(&context).layout(layout).ring_depth(1).build().unwrap();
        let [ids, indices, pairs] =
            ["ids", "indices", "pairs"].map(|name| inputs.slot_id::<u32>(name).unwrap());
        let count = inputs.count_id("logits").unwrap();
        assert_eq!(inputs.slot("indices").unwrap().len, Len::count("logits"));
        // In buckets, one of them full in tokens and requests; and above them.
        for (tokens, requests, number) in [(8, 1, 3), (16, 2, 8), (9, 2, 0), (20, 2, 5), (8, 1, 4)]
        {
            let mut step = inputs.begin(tokens, requests).unwrap();
            step.write(ids).fill(1);
            step.set_count(count, number).unwrap();
            let (own, twice) = step.write_many((indices, pairs)).unwrap();
            assert_eq!((own.len(), twice.len()), (number, 2 * number + 1));
            own.fill(3);
            twice.fill(4);
            let padded = step.padded();
            let staged = step.submit(&stream).unwrap();
            let found = words::<4>(&stream, staged.device_ptr(indices));
            let wanted = |index| if index < number { 3 } else { 9 };
            assert_eq!(found, [0, 1, 2, 3].map(wanted), "{tokens} {requests} {number}");
            let most = 8 * padded.requests + 1;
            let all = words::<17>(&stream, staged.device_ptr(pairs));
            assert_eq!(all[..most.min(17)], [4; 17][..most.min(17)]);
        }
    }
}

fn counts_are_checked(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (inputs, other) = (logits(&context).build().unwrap(), logits(&context).build().unwrap());
    let [ids, indices, pairs] =
        ["ids", "indices", "pairs"].map(|name| inputs.slot_id::<u32>(name).unwrap());
    let (count, drafts) = (inputs.count_id("logits").unwrap(), inputs.count_id("drafts").unwrap());
    assert!(inputs.count_id("tokens").unwrap_err().to_string().contains("no count"));
    let fault = |error: StageError| match error {
        StageError::Count { fault, .. } => fault,
        error => panic!("{error}"),
    };
    let mut step = inputs.begin(8, 1).unwrap();
    let foreign = other.count_id("logits").unwrap();
    assert_eq!(fault(step.set_count(foreign, 1).unwrap_err()), CountFault::Foreign);
    let large = CountFault::TooLarge { wanted: 5, max: 4 };
    assert_eq!(fault(step.set_count(count, 5).unwrap_err()), large);
    // A slot by a count that is not set has no elements, and the step is refused.
    let not_set = StageError::Slot { slot: "indices".into(), fault: SlotFault::CountNotSet };
    assert_eq!(step.write_from(indices, &[]).unwrap_err(), not_set);
    assert_eq!(step.write(indices).len(), 0);
    assert_eq!(fault(step.set_count(count, 2).unwrap_err()), CountFault::Written);
    step.set_count(drafts, 3).unwrap();
    step.write(ids).fill(1);
    step.write(pairs).fill(1);
    assert_eq!(step.submit(&stream).unwrap_err(), not_set);
    let mut step = inputs.begin(8, 1).unwrap();
    step.set_count(count, 2).unwrap();
    step.set_count(count, 3).unwrap();
    assert_eq!(step.write(indices).len(), 3);
    assert_eq!(fault(step.set_count(count, 1).unwrap_err()), CountFault::Written);
    drop(step);
    // Never set, and none needed: then it is forgotten.
    let mut step = inputs.begin(8, 1).unwrap();
    step.write(ids).fill(1);
    let forgotten = StageError::Slot { slot: "indices".into(), fault: SlotFault::Forgotten };
    assert_eq!(step.submit(&stream).unwrap_err(), forgotten);
    let refused = |set: InputBuffersBuilder| set.build().unwrap_err();
    let set = || InputBuffers::builder(&context).slot::<u32>("ids", Len::count("a")).buckets([4]);
    assert_eq!(refused(set()), BuildError::UnknownCount("a".into()));
    let one = |name| set().count("a", Len::Tokens).count(name, Len::count("a"));
    assert_eq!(refused(one("a")), BuildError::DuplicateCount("a".into()));
    assert_eq!(refused(one("b")), BuildError::CountOfCount("b".into()));
    let many = (0..9).fold(set(), |set, at| set.count(&at.to_string(), Len::Tokens));
    assert_eq!(refused(many), BuildError::TooManyCounts { given: 9, max: 8 });
    let outputs = OutputBuffers::builder(&context).slot::<u32>("ids", Len::count("a"));
    let error = outputs.buckets([4]).build().unwrap_err();
    assert_eq!(error, BuildError::UnknownCount("a".into()));
}
