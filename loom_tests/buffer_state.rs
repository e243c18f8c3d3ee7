//! Records of buffers: the last handle comes after all, and a bare handle is taken back once.

use super::{Guarded, model};
use crate::lockfree::buffer_state::{BufferWord, Phase};
use loom::sync::Arc;
use loom::thread;

/// Two threads use a buffer through a handle each; the thread that ends last has it alone.
#[test]
fn buffer_state_last_handle() {
    model("buffer_state_last_handle", || {
        let shared = Arc::new((BufferWord::new(), Guarded::new(3)));
        shared.0.begin().unwrap();
        shared.0.share().unwrap();
        let end = |(word, items): &(BufferWord, Guarded), own: usize| {
            items.own(own);
            let last = word.release().unwrap();
            if last {
                (0..3).for_each(|index| items.own(index));
            }
            last
        };
        let other = shared.clone();
        let thread = thread::spawn(move || end(&other, 0));
        let last = end(&shared, 1);
        assert!(last ^ thread.join().unwrap(), "one of them is the last");
        assert_eq!((shared.0.load().phase(), shared.0.load().handles()), (Phase::Retired, 0));
    });
}

/// Two threads end one bare handle, each in its way, beside the next life.
#[test]
fn buffer_state_raw_twice() {
    model("buffer_state_raw_twice", || {
        let shared = Arc::new((BufferWord::new(), Guarded::new(1)));
        shared.0.begin().unwrap();
        shared.1.own(0);
        let generation = shared.0.make_raw().unwrap();
        let end = |(word, items): &(BufferWord, Guarded), end: &dyn Fn(&BufferWord) -> bool| {
            let is_ended = end(word);
            if is_ended {
                items.own(0);
                // The next life has a bare handle too, which is not ours.
                word.begin().unwrap();
                word.begin_raw();
            }
            is_ended
        };
        let other = shared.clone();
        let thread = thread::spawn(move || end(&other, &|word| word.end_raw(generation)));
        let taken =
            end(&shared, &|word| word.take_raw(generation).is_ok_and(|()| word.release().unwrap()));
        assert!(taken ^ thread.join().unwrap(), "a bare handle ends once");
    });
}

/// One thread shares a block by its bare handle while another ends the handle: the one that ends
/// last has the block alone.
#[test]
fn buffer_state_raw_shared() {
    model("buffer_state_raw_shared", || {
        let shared = Arc::new((BufferWord::new(), Guarded::new(1)));
        shared.0.begin().unwrap();
        let generation = shared.0.make_raw().unwrap();
        let end = |(word, items): &(BufferWord, Guarded)| {
            items.share(0);
            let last = word.release().unwrap();
            if last {
                items.own(0);
            }
            usize::from(last)
        };
        let other = shared.clone();
        let thread =
            thread::spawn(move || other.0.share_raw(generation).map_or(0, |()| end(&other)));
        let last = if shared.0.end_raw(generation) {
            shared.1.own(0);
            1
        } else {
            shared.0.take_raw(generation).unwrap();
            end(&shared)
        };
        assert_eq!(last + thread.join().unwrap(), 1, "one of them is the last");
    });
}
