//! Inputs by name that have elements a request.

use wharf::element::DType;
use wharf::manager::{BufferSpec, Input, InputFault, InputManager, ManagerError};
use wharf::memory::MemoryKind;
use wharf::staging::{Counts, StageError};
use wharf::{Driver, Stream};

use crate::backend::on_each_driver;
use crate::staging_rig::{context, words};

on_each_driver!(lengths_of_requests_are_staged_for_the_requests, misuse_is_refused);

fn manager(driver: &Driver) -> InputManager {
    let spec = |shape: &[usize]| BufferSpec::new(shape, DType::I32, MemoryKind::Device).unwrap();
    InputManager::builder(&context(driver))
        .max_batch_size(8)
        .max_seq_len(16)
        .register_request_slot("seq_lens", spec(&[8]))
        .register_request_slot("blocks", spec(&[4, 3]))
        .register_slot("marks", spec(&[128]), true)
        .build()
        .unwrap()
}

/// 3 lengths in a step of 10 tokens, which was refused as too short.
fn lengths_of_requests_are_staged_for_the_requests(driver: &Driver) {
    let mut manager = manager(driver);
    let stream = Stream::new(&context(driver)).unwrap();
    let (ids, marks) = ([7_i64; 10], [1_i32; 10]);
    for (lens, blocks) in [([5_i32, 3, 2], [1_i32, 2, 3, 4, 5, 6, 7, 8, 9]), ([1; 3], [8; 9])] {
        let inputs = [
            ("input_ids", Input::from(&ids)),
            ("seq_lens", Input::from(&lens)),
            ("blocks", Input::from(&blocks)),
            ("marks", Input::from(&marks)),
        ];
        let counts = Counts { tokens: 10, requests: 3 };
        let staged = manager.stage_step(&inputs, counts, &stream).unwrap();
        let view = |name| staged.view(name).unwrap();
        let lengths = ["input_ids", "seq_lens", "blocks", "marks"].map(|name| view(name).len);
        assert_eq!(lengths, [10, 3, 9, 10]);
        let found: [u32; 3] = words(&stream, view("seq_lens").address);
        assert_eq!(found, lens.map(i32::cast_unsigned));
        let found: [u32; 9] = words(&stream, view("blocks").address);
        assert_eq!(found, blocks.map(i32::cast_unsigned));
    }
    let views: Vec<_> = manager.static_tensors().map(|(name, view)| (name, view.len)).collect();
    assert!(views.contains(&("seq_lens", 8)) && views.contains(&("blocks", 12)), "{views:?}");
}

fn misuse_is_refused(driver: &Driver) {
    let mut manager = manager(driver);
    let stream = Stream::new(&context(driver)).unwrap();
    let (lens, blocks) = ([1_i32; 9], [0_i32; 27]);
    let mut stage = |name, input, tokens, requests| {
        let staged = manager.stage_step(&[(name, input)], Counts { tokens, requests }, &stream);
        staged.map(drop).unwrap_err()
    };
    let fault = |error| match error {
        ManagerError::Input { fault, .. } => fault,
        error => panic!("{error}"),
    };
    let short = fault(stage("seq_lens", Input::from(&lens[..2]), 10, 3));
    assert_eq!(short, InputFault::Short { wanted: 3, given: 2 });
    let many = fault(stage("blocks", Input::from(&blocks), 10, 5));
    assert_eq!(many, InputFault::Requests { requests: 4, given: 5 });
    assert_eq!(fault(stage("seq_lens", Input::from(&lens), 10, 0)), InputFault::NoRequests);
    let beyond = stage("input_ids", Input::from(&[1_i64; 10]), 10, 9);
    assert!(matches!(beyond, ManagerError::Stage(StageError::TooLarge { .. })), "{beyond}");
}
