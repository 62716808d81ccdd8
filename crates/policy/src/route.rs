use dialect::Outcome;
use fastrand::Rng;

/// How a route chooses among its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// As they are listed.
    Ordered,
    /// By lot, each as likely as its weight.
    Weighted,
}

/// The order in which a route's members are tried, by their places in the list. `weights`: one for each member; only
/// `Weighted` looks at them. `seed`: any random number; the same one gives the same
/// order.
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
            // Weight 0 is never drawn: those stand by, as listed, for when all the others failed.
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
        // The point is below the sum, so that it lies on one of them.
        drawn.push(left.remove(place.unwrap_or(0)));
    }
}

/// Whether a route tries its next member: only where this one certainly sent nothing, and for a reason of its own that
/// says nothing of the recipient.
pub fn fails_over(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Unreachable | Outcome::RateLimited | Outcome::AuthFailed | Outcome::ProviderError)
}
