use dialect::{Operation, Outcome};

use fastrand::Rng;

use crate::time::Micros;

/// Returns when a queued send that ended so may be tried again, in microseconds from now. Returns None if it may not:
/// either the outcome does not say that nothing was sent, or `tries`, of which at most `max_tries` are made, are used
/// up. Refused credentials wait for whoever mends them, as long as the queue's age allows: the breaker keeps such calls
/// to single probes.
pub fn retry_delay(
    outcome: Outcome,
    tries: u32,
    max_tries: u32,
    retry_after: Option<Micros>,
    seed: u64,
) -> Option<Micros> {
    let goes_again = match outcome {
        Outcome::AuthFailed => true,
        _ => tries < max_tries && retryable(Operation::Send, outcome, 0),
    };
    if !goes_again {
        return None;
    }
    let wait = backoff(tries, seed);
    Some(retry_after.map_or(wait, |asked| asked.max(wait)))
}

/// Returns whether the same call may be made again, as the last column of the table of outcomes says; after a wrong
/// code, whether another code may be tried.
pub fn retryable(operation: Operation, outcome: Outcome, attempts_left: u32) -> bool {
    match outcome {
        Outcome::Unreachable | Outcome::RateLimited => true,
        Outcome::InvalidCode => attempts_left > 0,
        // A verify has side effects; that the vendor failed says nothing of them.
        Outcome::ProviderError => operation != Operation::Verify,
        _ => false,
    }
}

pub const FIRST: Micros = 500_000;

pub const LONGEST: Micros = 60_000_000;

/// Returns the wait before a retry (1 is the first): half a second, doubled each time, at most a minute; then from 3/4
/// to 5/4 of that, by `seed` (any random number), so that sends which failed together do not come back together.
pub fn backoff(retry: u32, seed: u64) -> Micros {
    // Seven doublings pass the minute.
    let doublings = retry.saturating_sub(1).min(7);
    let wait = (FIRST << doublings).min(LONGEST);
    let spread = Rng::with_seed(seed).u64(..=wait as u64 / 2);
    wait * 3 / 4 + spread as Micros
}
