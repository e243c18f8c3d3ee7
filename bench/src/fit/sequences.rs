//! The sequences by name.

use std::fs;
use std::str::FromStr;

use super::Options;
use super::sequence::{
    KIB, MIB, Sequence, Step, ageing, lives, logarithmic, serving, sliding, training,
};
use crate::stream_order::Failure;

/// A trace's steps and their name: `NAME=FILE`.
#[derive(Clone, Debug)]
pub struct Named {
    name: String,
    file: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = text.split_once('=').ok_or("NAME=FILE is expected")?;
        Ok(Self { name: name.to_owned(), file: file.to_owned() })
    }
}

/// All sequences whose names are wanted, one at a time: the larger ones are tens of MiB.
pub(super) fn all<'a>(
    options: &'a Options,
    wanted: impl Fn(&str) -> bool + 'a,
) -> Result<impl Iterator<Item = Sequence> + 'a, Failure> {
    let mut made: Vec<(String, Box<dyn Fn(&str) -> Sequence>)> = Vec::new();
    let mut add = |name: String, make: Box<dyn Fn(&str) -> Sequence>| {
        if wanted(&name) {
            made.push((name, make));
        }
    };
    for Named { name, file } in &options.steps {
        let steps = read(file)?;
        let tokens: Vec<_> = steps.iter().map(|step| step.tokens).collect();
        let (padded, exact) = (sizes(&tokens, padded), sizes(&tokens, |tokens| tokens.max(1)));
        let two = padded.clone();
        add(name.clone(), Box::new(move |name| sliding(name, padded.iter().copied(), 1)));
        add(format!("{name}-two"), Box::new(move |name| sliding(name, two.iter().copied(), 2)));
        let exact: Vec<_> = exact.into_iter().take(60_000).collect();
        add(
            format!("{name}-exact-two"),
            Box::new(move |name| sliding(name, exact.iter().copied(), 2)),
        );
        for streams in [1, 2, 4] {
            let steps: Vec<_> = steps.iter().copied().take(1500).collect();
            add(
                format!("{name}-serving-{streams}"),
                Box::new(move |name| serving(name, 5, &steps, streams)),
            );
        }
    }
    let (seed, replacements) = (options.seed, options.replacements);
    for (name, alive) in [("one-alive", 1), ("two-alive", 2), ("eight-alive", 8)] {
        add(
            name.to_owned(),
            Box::new(move |name| sliding(name, logarithmic(1 + seed, 3000, (1, 256 * MIB)), alive)),
        );
    }
    let aged = [
        ("ageing-small", 2, 512 * MIB, (256, MIB), replacements, 1),
        ("ageing-middle", 3, 1024 * MIB, (64 * KIB, 16 * MIB), 60_000, 1),
        ("ageing-middle-4", 3, 1024 * MIB, (64 * KIB, 16 * MIB), 60_000, 4),
        ("ageing-large", 3, 4096 * MIB, (MIB, 256 * MIB), 20_000, 1),
    ];
    for (name, own, bytes, range, replacements, streams) in aged {
        add(
            name.to_owned(),
            Box::new(move |name| ageing(name, own + seed, bytes, range, replacements, streams)),
        );
    }
    for (name, streams) in [("lives-1", 1), ("lives-4", 4)] {
        add(
            name.to_owned(),
            Box::new(move |name| lives(name, 4 + seed, 60_000, 200.0, (KIB, 64 * MIB), streams)),
        );
    }
    for (name, grows) in [("training-growing", true), ("training-drawn", false)] {
        add(name.to_owned(), Box::new(move |name| training(name, 6 + seed, 80, grows)));
    }
    Ok(made.into_iter().map(|(name, make)| make(&name)))
}

/// `tokens,requests,...` a line.
fn read(file: &str) -> Result<Vec<Step>, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let steps = text.lines().enumerate().map(|(line, text)| {
        let mut fields = text.split(',').map(|field| field.trim().parse().ok());
        let (Some(Some(tokens)), Some(Some(requests))) = (fields.next(), fields.next()) else {
            return Err(format!("{file}:{}: 'tokens,requests' is expected", line + 1).into());
        };
        Ok(Step { tokens, requests })
    });
    steps.collect()
}

/// Bytes of a step's activations.
fn sizes(tokens: &[usize], rows: impl Fn(usize) -> usize) -> Vec<usize> {
    tokens.iter().map(|tokens| rows(*tokens) * 8192).collect()
}

/// The sizes for which vLLM captures graphs, and a few larger ones.
fn padded(tokens: usize) -> usize {
    let small = [1, 2, 4].into_iter().chain((8..=256).step_by(8)).chain((272..=512).step_by(16));
    let mut ladder = small.chain([640, 768, 1024, 1280, 1536, 1792, 2048]);
    ladder.find(|size| tokens <= *size).unwrap_or(tokens).max(1)
}
