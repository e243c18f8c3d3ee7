//! The guard of the destination as the check `race` sees it: whose accesses are ordered, not only
//! which bytes came. Nothing runs before it is waited for, so what nothing orders is pending
//! together.
//!
//! Each test is named by a mutant, which is the fault that was: with it the check names both
//! accesses. Reports: F1 to F4 of the staging reports, B1 of the embedding reports, A19 of the
//! memory reports.
#![expect(unsafe_code, reason = "borrows a default stream")]

use std::sync::Arc;
use std::thread;

use softcuda::{Grace, Schedule};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, binder, on_machine};
use crate::staging_readers::Rig;
use crate::staging_rig::context;

/// Runs `program` and sees that everything that touches the same bytes is ordered.
fn is_ordered(program: fn(&Rig)) {
    for schedule in [Schedule::Late, Schedule::Random(1), Schedule::Random(2), Schedule::Random(3)]
    {
        let machine = Simulator::new(Config { schedule, grace: Grace::Never, ..Config::default() });
        on_machine(&Arc::new(machine), |driver: &Driver| {
            let rig = Rig::new(&context(driver));
            program(&rig);
            rig.context.synchronize().unwrap();
        });
    }
}

fn stream(context: &Context) -> Stream {
    Stream::new(context).unwrap()
}

#[test]
fn steps_on_the_default_streams_of_two_threads_are_ordered() {
    is_ordered(|rig| {
        let step = |value| {
            rig.stage(value, &Stream::per_thread(&rig.context)).unwrap();
        };
        step(1);
        let bind = binder();
        thread::scope(|scope| {
            scope.spawn(move || {
                let _bound = bind();
                step(2);
            });
        });
    });
}

#[test]
fn a_step_on_a_stream_with_a_handle_that_came_back_is_behind_the_step_before() {
    is_ordered(|rig| {
        let first = stream(&rig.context);
        rig.stage(1, &first).unwrap();
        drop(first);
        rig.stage(2, &stream(&rig.context)).unwrap();
    });
}

#[test]
fn a_step_is_behind_the_last_copy_whatever_an_old_step_declares() {
    is_ordered(|rig| {
        let [first, second, reader] = [(); 3].map(|()| stream(&rig.context));
        let old = rig.stage(1, &first).unwrap();
        first.synchronize().unwrap();
        rig.stage(2, &first).unwrap();
        let _superseded = old.consumed_by(&reader);
        rig.stage(3, &second).unwrap();
    });
}

#[test]
fn a_step_is_behind_a_reader_that_waited_and_declared_nothing() {
    is_ordered(|rig| {
        let [copies, model] = [(); 2].map(|()| stream(&rig.context));
        for step in 0..2 {
            rig.stage(1, &copies).unwrap().wait_on(&model).unwrap();
            rig.read(step, &model);
        }
    });
}

#[test]
fn a_step_is_behind_a_reader_on_the_null_stream() {
    is_ordered(|rig| {
        let copies = stream(&rig.context);
        // SAFETY: a default stream.
        let null = unsafe { Stream::borrow_raw(std::ptr::null_mut(), &rig.context) };
        for step in 0..2 {
            let staged = rig.stage(1, &copies).unwrap();
            staged.wait_on(&null).unwrap();
            rig.read(step, &null);
            staged.consumed_by(&null).unwrap();
        }
    });
}
