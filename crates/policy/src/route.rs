use dialect::Outcome;
use fastrand::Rng;

/// How a route chooses among its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In the order in which they are listed.
    Ordered,
    /// By lot, each as likely as its weight.
    Weighted,
}

/// Returns the order in which a route's members are tried, by their places in the list. `weights`: one for each member,
/// which only `Weighted` looks at. `seed`: any random number; the same seed gives the same order.
pub fn member_order(strategy: Strategy, weights: &[u32], seed: u64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..weights.len()).collect();
    if strategy == Strategy::Ordered {
        return left;
    }
    let mut rng = Rng::with_seed(seed);
    let mut drawn = Vec::with_capacity(left.len());
    loop {
        let total: u64 = left.iter().map(|&member| u64::from(weights[member])).sum();
        if total == 0 {
            // A weight of 0 is never drawn: such members stand by, as listed, for when all others have failed.
            drawn.append(&mut left);
            return drawn;
        }
        let mut point = rng.u64(..total);
        let place = left.iter().position(|&member| {
            let weight = u64::from(weights[member]);
            let hit = point < weight;
            point = point.saturating_sub(weight);
            hit
        });
        // The point is below the sum, so that it lies on one of the members.
        drawn.push(left.remove(place.unwrap_or(0)));
    }
}

/// Returns whether a route tries its next member: only if this one certainly sent nothing, and for a reason of its own
/// that says nothing of the recipient.
pub fn fails_over(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Unreachable | Outcome::RateLimited | Outcome::AuthFailed | Outcome::ProviderError)
}
