//! Promise to the user: a route tries its members in the order, or by the lot, that it was given, and goes to the next
//! one only where the person got no message.

use dialect::Outcome;
use policy::{Strategy, fails_over, member_order};

#[test]
fn ordered_is_as_listed() {
    for dice in 0..100 {
        assert_eq!(member_order(Strategy::Ordered, &[0, 5, 1], dice), [0, 1, 2]);
    }
    assert!(member_order(Strategy::Ordered, &[], 1).is_empty());
}

#[test]
fn weighted_names_each_member_once_and_the_same_for_the_same_dice() {
    for weights in [&[][..], &[1], &[0], &[3, 2, 1], &[0, 0, 0], &[u32::MAX; 5], &[1, u32::MAX, 0, 7]] {
        for dice in (0..2_000).chain(u64::MAX - 2_000..=u64::MAX) {
            let drawn = member_order(Strategy::Weighted, weights, dice);
            assert_eq!(member_order(Strategy::Weighted, weights, dice), drawn);
            let mut sorted = drawn;
            sorted.sort();
            assert_eq!(sorted, (0..weights.len()).collect::<Vec<_>>(), "{weights:?}");
        }
    }
}

#[test]
fn weight_0_is_tried_last_and_as_listed() {
    let mut firsts = [0; 5];
    for dice in 0..1_000 {
        let drawn = member_order(Strategy::Weighted, &[0, 2, 0, 1, 0], dice);
        assert_eq!(drawn[2..], [0, 2, 4]);
        firsts[drawn[0]] += 1;
    }
    assert!(firsts[1] > firsts[3] && firsts[3] > 0, "{firsts:?}");
    assert_eq!(member_order(Strategy::Weighted, &[0, 0, 0], 9), [0, 1, 2]);
}

#[test]
fn the_lot_falls_by_weight() {
    const DRAWS: u64 = 120_000;
    let weights = [6, 3, 1];
    let mut seen = std::collections::BTreeMap::<Vec<usize>, u64>::new();
    for dice in 0..DRAWS {
        *seen.entry(member_order(Strategy::Weighted, &weights, dice)).or_default() += 1;
    }
    // The first is drawn by its weight of all, the second by its weight of the two that are left.
    for (drawn, share) in [
        ([0, 1, 2], 0.6 * 3.0 / 4.0),
        ([0, 2, 1], 0.6 * 1.0 / 4.0),
        ([1, 0, 2], 0.3 * 6.0 / 7.0),
        ([1, 2, 0], 0.3 * 1.0 / 7.0),
        ([2, 0, 1], 0.1 * 6.0 / 9.0),
        ([2, 1, 0], 0.1 * 3.0 / 9.0),
    ] {
        let expected = DRAWS as f64 * share;
        let got = seen[&drawn[..]] as f64;
        // Four standard deviations: the seeds are fixed, so that it passes always or never.
        assert!((got - expected).abs() < 4.0 * expected.sqrt(), "{drawn:?}: {got} of {expected}");
    }
}

#[test]
fn a_route_moves_on_only_where_nothing_was_sent() {
    for outcome in Outcome::ALL {
        let moves = ["unreachable", "rate_limited", "auth_failed", "provider_error"].contains(&outcome.as_str());
        assert_eq!(fails_over(outcome), moves, "{outcome:?}");
    }
}
