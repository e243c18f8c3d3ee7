#![expect(unsafe_code, reason = "borrows streams by handle")]
//! Right bytes for every kind of stream, way to declare a read, and schedule.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use softcuda::Schedule;
use wharf::Stream;
use wharf::sys::constants::STREAM_LEGACY;

use crate::backend::{Config, Simulator, binder, on_machine};
use crate::staging_readers::Rig;
use crate::staging_rig::context;

/// What the stream is that steps go to, or that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Owned,
    Null,
    Legacy,
    /// The default streams of two threads, in turn.
    PerThread,
    /// A new stream each time, that has the handle of the last one.
    Recycled,
    /// One stream, by two objects.
    BorrowedTwice,
}

/// The stream that reads, and how that is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Steps go to streams of the kind, which read them; nothing is declared.
    OnItsStream,
    WaitOn,
    ConsumedBy,
    Reader,
}

const KINDS: [Kind; 6] =
    [Kind::Owned, Kind::Null, Kind::Legacy, Kind::PerThread, Kind::Recycled, Kind::BorrowedTwice];
const READS: [Reads; 4] = [Reads::OnItsStream, Reads::WaitOn, Reads::ConsumedBy, Reads::Reader];
const STEPS: usize = 6;

#[test]
fn every_kind_of_stream_reads_its_own_step_when_work_is_late() {
    all(Schedule::Late);
}

#[test]
fn every_kind_of_stream_reads_its_own_step_in_200_random_schedules() {
    (0..200).for_each(|seed| all(Schedule::Random(seed)));
}

/// Every kind of stream in every way, on one machine.
fn all(schedule: Schedule) {
    let machine = Arc::new(Simulator::new(Config { schedule, ..Config::default() }));
    on_machine(&machine, |driver| {
        // The host never waits for a ring slot: what it polls comes late.
        let rig = Rig::deep(STEPS, &context(driver));
        for (way, (kind, reads)) in
            KINDS.iter().flat_map(|kind| READS.map(|reads| (kind, reads))).enumerate()
        {
            let place = way * STEPS;
            match kind {
                Kind::PerThread => in_two_threads(&rig, reads, place),
                kind => in_one_thread(&rig, *kind, reads, place),
            }
            rig.context.synchronize().unwrap();
            let found: Vec<_> = (place..place + STEPS).map(|place| rig.found(place)).collect();
            let wanted: Vec<_> =
                (place..place + STEPS).map(value).map(|value| [value; 4]).collect();
            assert_eq!(found, wanted, "{kind:?}, {reads:?}, {schedule:?}");
        }
    });
    assert_eq!(machine.leaks(), Vec::<String>::new(), "{schedule:?}");
}

fn in_one_thread(rig: &Rig, kind: Kind, reads: Reads, place: usize) {
    let context = &rig.context;
    let own = [(); 2].map(|()| Stream::new(context).unwrap());
    for step in 0..STEPS {
        let raw = match kind {
            Kind::Null => ptr::null_mut(),
            Kind::Legacy => STREAM_LEGACY,
            Kind::BorrowedTwice => own[0].as_raw(),
            Kind::Owned | Kind::PerThread | Kind::Recycled => own[step % 2].as_raw(),
        };
        let stream = match kind {
            Kind::Recycled => Stream::new(context).unwrap(),
            // SAFETY: a default stream, or one that outlives the borrow.
            _ => unsafe { Stream::borrow_raw(raw, context) },
        };
        // Between two steps on streams that are one, there is one on another.
        let to = if step % 3 == 2 && reads == Reads::OnItsStream { &own[1] } else { &stream };
        one(rig, &own[0], to, reads, place + step);
    }
}

/// Two threads take turns, each with its own default stream, as long as both live.
fn in_two_threads(rig: &Rig, reads: Reads, place: usize) {
    let (turn, bind) = (AtomicUsize::new(0), binder());
    let copies = Stream::new(&rig.context).unwrap();
    thread::scope(|scope| {
        for which in 0..2 {
            let (turn, bind, copies) = (&turn, bind.clone(), &copies);
            scope.spawn(move || {
                let _bound = bind();
                let stream = Stream::per_thread(&rig.context);
                for step in (0..STEPS).filter(|step| step % 2 == which) {
                    while turn.load(Ordering::Acquire) != step {
                        thread::yield_now();
                    }
                    one(rig, copies, &stream, reads, place + step);
                    turn.store(step + 1, Ordering::Release);
                }
                while turn.load(Ordering::Acquire) != STEPS {
                    thread::yield_now();
                }
            });
        }
    });
}

/// One step and its read.
fn one(rig: &Rig, copies: &Stream, stream: &Stream, reads: Reads, place: usize) {
    let to = if reads == Reads::OnItsStream { stream } else { copies };
    let staged = rig.stage(value(place), to).unwrap();
    let reader = match reads {
        Reads::Reader => Some(staged.reader(stream).unwrap()),
        Reads::WaitOn | Reads::ConsumedBy => {
            staged.wait_on(stream).unwrap();
            None
        }
        Reads::OnItsStream => None,
    };
    rig.read(place, stream);
    if reads == Reads::ConsumedBy {
        staged.consumed_by(stream).unwrap();
    }
    drop(reader);
}

fn value(place: usize) -> u32 {
    u32::try_from(place).unwrap() + 1
}
