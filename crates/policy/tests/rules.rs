//! Promise to the user: of one recipient's wrong codes an account takes max_checks at most, whoever guesses; those who
//! sent nothing get half of them, rounded up, between them; a right code forgives the wrong ones before it. To wait as
//! long as a refusal says is enough, and what is left is as many as go through.

use dialect::Operation;
use policy::{BlockReason, Blocked, History, LimitRules, Micros, PastCheck, Timestamp};

const SECOND: Micros = 1_000_000;
const NOW: Timestamp = Timestamp(838_000_000 * SECOND);
const REACH: Micros = 600 * SECOND;

fn rules(max_checks: u32, check_limit: Option<&str>) -> LimitRules {
    let check_limit = check_limit.map(|text| text.parse().expect("limits"));
    LimitRules { enforce: true, max_checks, check_window: REACH, check_limit, ..LimitRules::default() }
}

fn wrong(by_stranger: bool) -> PastCheck {
    PastCheck { at: NOW, is_right: false, of_account: true, of_provider: true, by_stranger }
}

/// Returns how many wrong codes go until the first refusal, and that refusal.
fn guesses(rules: &LimitRules, history: &mut History, is_stranger: bool) -> (u32, Blocked) {
    history.is_stranger = is_stranger;
    for count in 0.. {
        let left = rules.checks_left(history, NOW);
        match rules.check(Operation::Verify, history, NOW) {
            Some(blocked) => {
                assert_eq!(left, 0);
                return (count, blocked);
            }
            None => assert!(left > 0),
        }
        history.checks.insert(0, wrong(is_stranger));
    }
    unreachable!("it ends")
}

#[test]
fn strangers_get_half_and_the_sender_the_rest() {
    for most in 1..12 {
        let (rules, mut history) = (rules(most, None), History::default());
        let (strangers, blocked) = guesses(&rules, &mut history, true);
        assert_eq!((strangers, blocked.reason), (most.div_ceil(2), BlockReason::MaxChecks));
        let (senders, _) = guesses(&rules, &mut history, false);
        assert_eq!(strangers + senders, most);
        // In the other order no more wrong codes go either.
        let mut history = History::default();
        assert_eq!(guesses(&rules, &mut history, false).0, most);
        assert_eq!(guesses(&rules, &mut history, true).0, 0);
    }
}

#[test]
fn a_right_code_forgives_those_before_it() {
    let (rules, mut history) = (rules(3, None), History::default());
    assert_eq!(guesses(&rules, &mut history, false).0, 3);
    history.checks.insert(0, PastCheck { is_right: true, ..wrong(false) });
    assert_eq!(guesses(&rules, &mut history, false).0, 3);
    // But the wrong codes of another account are not forgiven.
    history.checks.insert(0, PastCheck { is_right: true, of_account: false, ..wrong(false) });
    assert_eq!(guesses(&rules, &mut history, false).0, 0);
}

#[test]
fn check_limit_is_the_providers_and_forgives_nothing() {
    let (rules, mut history) = (rules(100, Some("3 per hour")), History::default());
    let (strangers, blocked) = guesses(&rules, &mut history, true);
    assert_eq!((strangers, blocked.reason), (2, BlockReason::CheckLimit));
    history.checks.insert(0, PastCheck { is_right: true, ..wrong(false) });
    assert_eq!(guesses(&rules, &mut history, false).0, 1);
    let elsewhere = |check: &mut PastCheck| check.of_provider = false;
    history.checks.iter_mut().for_each(elsewhere);
    assert_eq!(guesses(&rules, &mut history, false).0, 3);
}

#[test]
fn to_wait_as_long_is_enough_and_no_more_than_is_needed() {
    let rules = rules(4, None);
    for is_stranger in [true, false] {
        let mut history = History::default();
        for age in [500, 400, 300, 200] {
            history.checks.insert(0, PastCheck { at: NOW - age * SECOND, ..wrong(is_stranger) });
        }
        history.is_stranger = is_stranger;
        let wait =
            rules.check(Operation::Verify, &history, NOW).and_then(|blocked| blocked.retry_after).expect("a wait");
        assert_eq!(wait, if is_stranger { 300 } else { 100 } * SECOND);
        assert!(rules.check(Operation::Verify, &history, NOW + wait - 1).is_some());
        assert!(rules.check(Operation::Verify, &history, NOW + wait).is_none());
    }
}
