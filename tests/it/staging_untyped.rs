#![expect(unsafe_code, reason = "allocates and names device memory by raw address")]
//! Slots, results and addresses for callers that know types at run time only, and sources of
//! results that other code has allocated.

use std::sync::Arc;

use wharf::element::DType;
use wharf::staging::{
    Counts, Fetch, InputBuffers, Layout, Len, OutputBuffers, SlotFault, SlotInfo, StageError,
};
use wharf::{Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::staging_outputs::small;
use crate::staging_rig::context;

on_each_driver!(
    results_are_read_without_their_types,
    slots_are_written_and_read_by_their_numbers,
    a_step_is_submitted_to_a_place_which_keeps_what_it_had_if_that_fails,
    memory_of_another_allocator_is_a_source,
    addresses_are_found_without_types,
);

fn fault(error: StageError) -> SlotFault {
    match error {
        StageError::Slot { fault, .. } => fault,
        error => panic!("{error}"),
    }
}

fn results_are_read_without_their_types(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let outputs = OutputBuffers::builder(&context)
        .slot::<u16>("halves", Len::Tokens)
        .slot_of("words", DType::U32, Len::Requests.times(2))
        .buckets([8])
        .build()
        .unwrap();
    let [halves, words]: [SlotInfo; 2] = outputs.slots().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((&*words.name, words.dtype, words.index), ("words", DType::U32, 1));
    assert_eq!(outputs.slot("words").unwrap(), words);
    assert!(outputs.slot("none").is_err());
    let values = [0x0102_0304_u32, 0x0506_0708];
    let address = words.address.unwrap();
    // SAFETY: pageable memory, which may go when the call returns, and the slot's own memory.
    unsafe { stream.copy_htod(address, values.as_ptr().cast(), 8) }.unwrap();
    let pending = outputs.fetch(3, 1, &stream).unwrap();
    let results = pending.wait(LONG).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    assert_eq!(results.read_raw(&words).unwrap(), bytes);
    assert_eq!(results.read_raw(&halves).unwrap(), [0; 6]);
    let foreign = small(&context, 1).0.slot("words").unwrap();
    assert_eq!(fault(results.read_raw(&foreign).unwrap_err()), SlotFault::Foreign);
}

fn slots_are_written_and_read_by_their_numbers(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = InputBuffers::builder(&context)
        .slot_of("halves", DType::U16, Len::Tokens)
        .dynamic::<u32>("elsewhere")
        .buckets([8])
        .build()
        .unwrap();
    let mut step = inputs.begin(3, 1).unwrap();
    assert!(step.write_raw_at(2).is_none(), "there are two slots");
    step.write_raw_at(0).unwrap().copy_from_slice(&[1, 0, 2, 0, 3, 0]);
    assert_eq!(step.write_raw_at(1), Some(&mut [][..]), "has no memory here");
    assert_eq!(fault(step.submit(&stream).unwrap_err()), SlotFault::IsDynamic);

    let (outputs, _) = small(&context, 1);
    let address = outputs.slot("words").unwrap().address.unwrap();
    let values = [5_u32, 6];
    // SAFETY: pageable memory, which may go when the call returns, and the slot's own memory.
    unsafe { stream.copy_htod(address, values.as_ptr().cast(), 8) }.unwrap();
    let pending = outputs.fetch(2, 1, &stream).unwrap();
    let results = pending.wait(LONG).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    assert_eq!(results.read_raw_at(0).unwrap(), bytes);
    assert_eq!(fault(results.read_raw_at(1).unwrap_err()), SlotFault::Foreign);
}

fn a_step_is_submitted_to_a_place_which_keeps_what_it_had_if_that_fails(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens).buckets([8]);
    let inputs = inputs.build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let mut place = None;
    for (tokens, value) in [(2, 7), (3, 8)] {
        let mut step = inputs.begin(tokens, 1).unwrap();
        step.write(ids).fill(value);
        step.submit_to(&stream, &mut place).unwrap();
        let staged = place.as_ref().unwrap();
        assert_eq!(staged.counts().tokens, tokens);
        stream.synchronize().unwrap();
        let mut found = [0_i32; 3];
        // SAFETY: so many elements of the slot's memory, and the copy is over below.
        unsafe { stream.copy_dtoh(found.as_mut_ptr().cast(), staged.device_ptr(ids), 12) }.unwrap();
        stream.synchronize().unwrap();
        assert!(found[..tokens].iter().all(|found| *found == value), "{found:?}");
    }
    let unwritten = inputs.begin(4, 1).unwrap();
    let refused = unwritten.submit_to(&stream, &mut place).unwrap_err();
    assert_eq!(fault(refused), SlotFault::Forgotten);
    assert_eq!(place.unwrap().counts().tokens, 3);
}

/// A graph of the set's own memory does not take it, so it is copied by a call; the next fetch of
/// the set's memory is right again.
fn memory_of_another_allocator_is_a_source(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (outputs, words) = small(&context, 1);
    let info = outputs.slot("words").unwrap();
    let (values, mut theirs) = ([7_u32; 8], 0);
    {
        let _current = context.enter().unwrap();
        // SAFETY: `theirs` is valid for writes; freed below, behind the fetches.
        unsafe { driver.api().mem_alloc.call(&raw mut theirs, 32) }.unwrap();
    }
    // SAFETY: pageable memory, which may go when the call returns, and so many bytes.
    unsafe { stream.copy_htod(theirs, values.as_ptr().cast(), 32) }.unwrap();
    let source = |fetch: &mut Fetch, typed: bool| {
        match typed {
            // SAFETY: memory of the device that holds the elements of the padded step.
            true => unsafe { fetch.source(words, theirs) },
            // SAFETY: as above.
            false => unsafe { fetch.source_raw(&info, theirs) },
        }
    };
    for round in 0..6 {
        let mut fetch = outputs.begin(5, 1).unwrap();
        assert_eq!(fetch.source_len(words).unwrap(), 8);
        fetch.check_source(words, 8).unwrap();
        let short = fetch.check_source(words, 7).unwrap_err();
        assert!(short.to_string().contains("words"), "names the slot: {short}");
        assert_eq!(fault(short), SlotFault::Length { wanted: 8, given: 7 });
        let is_theirs = round % 3 > 0;
        if is_theirs {
            source(&mut fetch, round % 3 == 1).unwrap();
        }
        let pending = fetch.submit(&stream).unwrap();
        let wanted = if is_theirs { [7; 5] } else { [0; 5] };
        assert_eq!(pending.wait(LONG).unwrap().read(words).unwrap(), wanted, "round {round}");
    }
    let (_other, foreign) = small(&context, 1);
    let mut fetch = outputs.begin(5, 1).unwrap();
    assert_eq!(fault(fetch.source_len(foreign).unwrap_err()), SlotFault::Foreign);
    let refused = source(&mut small(&context, 1).0.begin(5, 1).unwrap(), false);
    assert_eq!(fault(refused.unwrap_err()), SlotFault::Foreign);
    // SAFETY: a driver gives no such address; refused, since the slot is another set's.
    let refused = unsafe { fetch.source(foreign, 256) };
    assert_eq!(fault(refused.unwrap_err()), SlotFault::Foreign);
    drop(fetch);
    stream.synchronize().unwrap();
    let _current = context.enter().unwrap();
    // SAFETY: allocated above, and the fetches of it are over.
    unsafe { driver.api().mem_free.call(theirs) }.unwrap();
}

fn addresses_are_found_without_types(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = InputBuffers::builder(&context)
        .slot::<i32>("first", Len::Tokens.times(100))
        .slot::<u8>("second", Len::Tokens)
        .buckets([2, 8])
        .layout(Layout::Packed)
        .build()
        .unwrap();
    let (second, info) = (inputs.slot_id::<u8>("second").unwrap(), inputs.slot("second").unwrap());
    let buffers = inputs.static_buffers();
    for tokens in [1, 2, 3, 8, 9] {
        let counts = Counts { tokens, requests: 1 };
        assert_eq!(buffers.address_of(&info, counts), buffers.device_ptr(second, counts));
    }
    assert_ne!(buffers.address_of(&info, 2), buffers.address_of(&info, 8));
    let mut step = inputs.begin(2, 1).unwrap();
    step.write(inputs.slot_id::<i32>("first").unwrap()).fill(1);
    step.write(second).fill(2);
    let staged = step.submit(&stream).unwrap();
    assert_eq!(Some(staged.address_of(&info)), buffers.address_of(&info, 2));
    let foreign = small(&context, 1).0.slot("words").unwrap();
    assert_eq!((staged.address_of(&foreign), buffers.address_of(&foreign, 2)), (0, None));
    stream.synchronize().unwrap();
}

/// On a machine of its own: the system's driver may have other holders.
#[test]
fn the_primary_context_is_active_as_long_as_it_is_held() {
    on_machine(&Arc::new(Simulator::new(Config::default())), |driver| {
        let device = driver.device(0).unwrap();
        assert!(!device.is_primary_active().unwrap());
        let held = context(driver);
        assert!(device.is_primary_active().unwrap());
        drop(held);
        assert!(!device.is_primary_active().unwrap());
    });
}
