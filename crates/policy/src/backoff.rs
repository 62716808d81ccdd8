use crate::{Micros, dice::Dice};

const FIRST: Micros = 500_000;
const LONGEST: Micros = 60_000_000;

/// The wait before a retry (1 is the first): half a second, doubled each time, at most a minute; then from 3/4 to 5/4
/// of that, by `dice` (any random number), so that what failed together does not come back together.
pub fn backoff(retry: u32, dice: u64) -> Micros {
    // Seven doublings pass the minute.
    let doublings = retry.saturating_sub(1).min(7);
    let wait = (FIRST << doublings).min(LONGEST);
    let spread = Dice::new(dice).below(wait as u64 / 2 + 1);
    wait * 3 / 4 + spread as Micros
}
