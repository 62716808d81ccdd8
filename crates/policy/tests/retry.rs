//! Promise to the user: a queued send is tried again soon at first, then ever more rarely, never all at the same time.

use policy::backoff;

const DRAWS: u64 = 4_000;

#[test]
fn the_wait_doubles_up_to_a_minute_and_is_spread_by_a_quarter() {
    for (retry, middle) in [
        // There is no retry before the first.
        (0, 500_000),
        (1, 500_000),
        (2, 1_000_000),
        (3, 2_000_000),
        (4, 4_000_000),
        (5, 8_000_000),
        (6, 16_000_000),
        (7, 32_000_000),
        (8, 60_000_000),
        (9, 60_000_000),
        (64, 60_000_000),
        (u32::MAX, 60_000_000),
    ] {
        let waits: Vec<i64> = (0..DRAWS).map(|dice| backoff(retry, dice)).collect();
        let (least, most) = (middle * 3 / 4, middle * 5 / 4);
        assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "{retry}");
        // The whole range is used, evenly.
        let hundredth = middle / 100;
        assert!(waits.iter().any(|wait| *wait < least + hundredth), "{retry}");
        assert!(waits.iter().any(|wait| *wait > most - hundredth), "{retry}");
        let mean = waits.iter().sum::<i64>() / waits.len() as i64;
        assert!((mean - middle).abs() < hundredth, "{retry}: {mean}");
    }
}

#[test]
fn the_same_dice_give_the_same_wait() {
    for dice in [0, 1, u64::MAX] {
        assert_eq!(backoff(3, dice), backoff(3, dice));
    }
    assert_ne!(backoff(3, 0), backoff(3, 1));
}
