use vendor::{Operation, Outcome};

use crate::{Micros, backoff, retryable};

/// When a queued send that ended so may be tried again, in microseconds from now. None: not at all; either the outcome
/// does not say that nothing was sent, or `tries`, of which at most `max_tries` are made, are used up.
pub fn again_after(
    outcome: Outcome,
    tries: u32,
    max_tries: u32,
    retry_after: Option<Micros>,
    dice: u64,
) -> Option<Micros> {
    if tries >= max_tries || !retryable(Operation::Send, outcome, 0) {
        return None;
    }
    let wait = backoff(tries, dice);
    Some(retry_after.map_or(wait, |asked| asked.max(wait)))
}
