//! The sizes of buckets, as a builder is told them.

use super::build_error::BuildError;
use super::error::Count;
use super::len::Counts;

/// The size of a bucket, as the builder was told it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketSize {
    pub(super) tokens: usize,
    /// As many as there are tokens if it is not said, but no more than a step may have.
    pub(super) requests: Option<usize>,
}

impl BucketSize {
    pub(super) fn counts(self, max: Counts) -> Counts {
        let requests = self.requests.unwrap_or(max.requests.min(self.tokens));
        Counts { tokens: self.tokens, requests }
    }
}

/// Checks the sizes of buckets.
pub(super) fn check_buckets(sizes: &[BucketSize]) -> Result<(), BuildError> {
    let wrong = sizes.iter().enumerate().find(|(index, size)| {
        let key = |size: &BucketSize| (size.tokens, size.requests);
        let is_twice = sizes[..*index].iter().any(|other| key(other) == key(size));
        size.tokens == 0 || size.requests == Some(0) || is_twice
    });
    match wrong {
        Some((_, BucketSize { tokens, requests: None })) => Err(BuildError::Bucket(*tokens)),
        Some((_, BucketSize { tokens, requests: Some(requests) })) => {
            Err(BuildError::BucketOf(Counts { tokens: *tokens, requests: *requests }))
        }
        None => Ok(()),
    }
}

/// The limits of steps, from the buckets and what was asked for.
pub(super) fn limits(
    sizes: &[BucketSize],
    tokens: Option<usize>,
    requests: Option<usize>,
) -> Result<Counts, BuildError> {
    let largest = sizes.iter().map(|size| size.tokens).max().unwrap_or(0);
    let tokens = tokens.unwrap_or(largest);
    // Each request has a token at least, so a bucket of n tokens holds n requests.
    let implied = sizes.iter().map(|size| size.requests.unwrap_or(size.tokens)).max();
    let requests = requests.unwrap_or(implied.unwrap_or(tokens));
    let needed = sizes.iter().filter_map(|size| size.requests).max().unwrap_or(1);
    if requests < needed && requests > 0 {
        return Err(BuildError::Limit { what: Count::Requests, limit: requests, needed });
    }
    if tokens < largest.max(1) {
        return Err(BuildError::Limit {
            what: Count::Tokens,
            limit: tokens,
            needed: largest.max(1),
        });
    }
    if requests == 0 {
        return Err(BuildError::Limit { what: Count::Requests, limit: 0, needed: 1 });
    }
    Ok(Counts { tokens, requests })
}
