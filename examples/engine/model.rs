//! The model: two kernels, as native functions of the software driver.
//!
//! A request's cache is paged: position `p` is in block `table[p / BLOCK]`. The cache of a position
//! is a number made of the one before, the token and the position, so that a wrong id, position,
//! table or order shows in every token that follows.

#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
#![expect(unsafe_code, reason = "kernels read and write raw addresses")]

use softcuda::{KernelArguments, Simulator};

/// Positions of a block of the cache.
pub(crate) const BLOCK: usize = 4;
/// Blocks of a request.
pub(crate) const BLOCKS: usize = 32;
/// Requests that have a place on the device.
pub(crate) const PLACES: usize = 8;
/// Tokens of the prompt in one step.
pub(crate) const CHUNK: usize = 6;
/// Tokens of a request in a decoding step: the last one, and three speculative ones.
pub(crate) const QUERY: usize = 4;
/// The id of a token that the device knows and the host does not.
pub(crate) const PLACEHOLDER: i32 = -1;

/// The cache behind a token, and the token that follows.
pub(crate) fn advance(before: u64, id: i32, position: usize) -> (u64, i32) {
    let state = (before ^ u64::from(id.unsigned_abs()) ^ (position as u64) << 32)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23);
    let next = if state.is_multiple_of(3) { (state % VOCABULARY) as i32 } else { draft(id) };
    (state, next)
}

/// What is likely to follow a token: two times of three it does.
fn draft(id: i32) -> i32 {
    (i64::from(id) * 7 + 3).rem_euclid(VOCABULARY as i64) as i32
}

const VOCABULARY: u64 = 997;

pub(crate) fn register(machine: &Simulator) {
    machine.register_kernel("prepare", &[8; 6], prepare);
    machine.register_kernel("forward", &[8; 10], forward);
}

/// Puts ids and positions where the host has left placeholders: what the step before has left for
/// the request, and guesses. Arguments: ids, positions, starts, places, last tokens and positions,
/// requests.
fn prepare(arguments: &KernelArguments) {
    let requests = arguments.number(5) as usize;
    let starts: &[i32] = read(arguments, 2, requests + 1);
    let places: &[i32] = read(arguments, 3, requests);
    let last: &[[i32; 2]] = read(arguments, 4, PLACES);
    let tokens = starts[requests] as usize;
    let ids: &mut [i32] = write(arguments, 0, tokens);
    let positions: &mut [i32] = write(arguments, 1, tokens);
    for (request, place) in places.iter().enumerate().filter(|(_, place)| **place >= 0) {
        let (start, end) = (starts[request] as usize, starts[request + 1] as usize);
        if ids[start] != PLACEHOLDER {
            continue;
        }
        let [mut id, position] = last[*place as usize];
        for (at, token) in (start..end).enumerate() {
            (ids[token], positions[token]) = (id, position + at as i32);
            id = draft(id);
        }
    }
}

/// Runs the tokens, and samples: of a request in decoding as many tokens as were guessed right, and
/// one more. Arguments: ids, positions, starts, places, tables, samples, last tokens and positions,
/// cache, results, requests. The results are sampled tokens and how many.
fn forward(arguments: &KernelArguments) {
    let requests = arguments.number(9) as usize;
    let starts: &[i32] = read(arguments, 2, requests + 1);
    let tokens = starts[requests] as usize;
    let ids: &[i32] = read(arguments, 0, tokens);
    let positions: &[i32] = read(arguments, 1, tokens);
    let places: &[i32] = read(arguments, 3, requests);
    let tables: &[i32] = read(arguments, 4, requests * BLOCKS);
    let samples: &[i32] = read(arguments, 5, requests);
    let last: &mut [[i32; 2]] = write(arguments, 6, PLACES);
    let cache: &mut [u64] = write(arguments, 7, PLACES * BLOCKS * BLOCK);
    let results: &mut [[i32; QUERY + 1]] = write(arguments, 8, requests);
    for request in (0..requests).filter(|request| places[*request] >= 0) {
        let table = &tables[request * BLOCKS..][..BLOCKS];
        let place = |at: usize| table[at / BLOCK] as usize * BLOCK + at % BLOCK;
        let range = starts[request] as usize..starts[request + 1] as usize;
        let mut sampled = Vec::new();
        for token in range.clone() {
            let (id, position) = (ids[token], positions[token] as usize);
            let before = if position == 0 { 0 } else { cache[place(position - 1)] };
            let (state, next) = advance(before, id, position);
            cache[place(position)] = state;
            // In decoding each token samples; in prefill the last one of the prompt alone.
            if samples[request] > 1 || samples[request] == 1 && token + 1 == range.end {
                sampled.push(next);
                last[places[request] as usize] = [next, position as i32 + 1];
                if ids.get(token + 1).filter(|_| token + 1 < range.end) != Some(&next) {
                    break;
                }
            }
        }
        let result = &mut results[request];
        result[..sampled.len()].copy_from_slice(&sampled);
        result[QUERY] = sampled.len() as i32;
    }
}

/// The elements at the address that the argument holds, which the machine's check for races is told
/// of.
fn read<T>(arguments: &KernelArguments, index: usize, len: usize) -> &[T] {
    let address = arguments.number(index);
    arguments.reads(address, len * size_of::<T>());
    let pointer = std::ptr::with_exposed_provenance(address as usize);
    // SAFETY: the launch names device memory of as many elements, which is not written before the
    // kernel's place in the stream has passed.
    unsafe { std::slice::from_raw_parts(pointer, len) }
}

/// The same, to be written.
#[expect(clippy::mut_from_ref, reason = "device memory")]
fn write<T>(arguments: &KernelArguments, index: usize, len: usize) -> &mut [T] {
    let address = arguments.number(index);
    arguments.writes(address, len * size_of::<T>());
    let pointer = std::ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: as above, and the kernel alone touches it in its place in the stream; arguments name
    // different memory.
    unsafe { std::slice::from_raw_parts_mut(pointer, len) }
}
