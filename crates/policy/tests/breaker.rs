//! Promise to the user: a provider that is down costs one call in a while, not one wait for each send, and it is used
//! again as soon as one call succeeds; a user's mistakes never shut a provider off.

use dialect::Outcome;
use policy::{Breaker, BreakerPermit, BreakerState, Micros, Timestamp, is_fault};

const SECOND: Micros = 1_000_000;
const NOW: Timestamp = Timestamp(838_000_000 * SECOND);
const FAULTS: [Outcome; 4] = [Outcome::Unreachable, Outcome::Unknown, Outcome::ProviderError, Outcome::AuthFailed];

fn is_probe(pass: BreakerPermit) -> bool {
    matches!(pass, BreakerPermit::Probe { .. })
}

/// Asks the breaker, which must let the call go.
fn go(breaker: &mut Breaker, now: Timestamp) -> BreakerPermit {
    breaker.acquire(now).unwrap_or_else(|wait| panic!("refused for {wait}: {breaker:?}"))
}

fn call(breaker: &mut Breaker, outcome: Outcome, now: Timestamp) {
    let pass = go(breaker, now);
    breaker.record(pass, outcome, now);
}

/// Returns a breaker that opened at NOW.
fn open() -> Breaker {
    let mut breaker = Breaker::new();
    for _ in 0..Breaker::THRESHOLD {
        call(&mut breaker, Outcome::Unreachable, NOW);
    }
    breaker
}

#[test]
fn a_run_of_the_providers_faults_opens() {
    for fault in FAULTS {
        let mut breaker = Breaker::new();
        for _ in 0..4 {
            call(&mut breaker, fault, NOW);
            assert_eq!(breaker.state(NOW), BreakerState::Closed);
        }
        call(&mut breaker, fault, NOW);
        assert_eq!(breaker.state(NOW), BreakerState::Open { until: NOW + 5 * SECOND }, "{fault:?}");
        assert_eq!(breaker.acquire(NOW), Err(5 * SECOND));
        assert_eq!(breaker.acquire(NOW + 2 * SECOND), Err(3 * SECOND));
        assert_eq!(breaker.acquire(NOW + 5 * SECOND - 1), Err(1));
    }
}

#[test]
fn what_is_no_fault_never_opens_and_an_answer_ends_the_run() {
    for outcome in Outcome::ALL {
        if FAULTS.contains(&outcome) {
            continue;
        }
        let mut breaker = Breaker::new();
        for _ in 0..100 {
            call(&mut breaker, outcome, NOW);
        }
        assert_eq!(breaker.state(NOW), BreakerState::Closed, "{outcome:?}");
        // Four faults, this outcome, and a fifth fault.
        for _ in 0..4 {
            call(&mut breaker, Outcome::Unknown, NOW);
        }
        call(&mut breaker, outcome, NOW);
        call(&mut breaker, Outcome::Unknown, NOW);
        let resets = !matches!(outcome, Outcome::RateLimited | Outcome::Blocked);
        assert_eq!(breaker.state(NOW) == BreakerState::Closed, resets, "{outcome:?}");
    }
}

#[test]
fn one_probe_goes_at_a_time() {
    let mut breaker = open();
    let then = NOW + 5 * SECOND;
    assert_eq!(breaker.state(then - 1), BreakerState::Open { until: then });
    assert_eq!(breaker.state(then), BreakerState::HalfOpen);
    assert!(is_probe(go(&mut breaker, then)));
    assert_eq!(breaker.state(then), BreakerState::HalfOpen);
    assert_eq!(breaker.acquire(then), Err(60 * SECOND));
    assert_eq!(breaker.acquire(then + 60 * SECOND - 1), Err(1));
    // Nothing was heard of the probe.
    assert!(is_probe(go(&mut breaker, then + 60 * SECOND)));
    assert_eq!(breaker.acquire(then + 60 * SECOND), Err(60 * SECOND));
}

#[test]
fn a_probes_outcome_decides() {
    for outcome in Outcome::ALL {
        let mut breaker = open();
        let then = NOW + 5 * SECOND;
        let probe = go(&mut breaker, then);
        let heard = then + SECOND;
        breaker.record(probe, outcome, heard);
        let expected = match outcome {
            _ if FAULTS.contains(&outcome) => BreakerState::Open { until: heard + 10 * SECOND },
            Outcome::RateLimited => BreakerState::Open { until: heard + 5 * SECOND },
            // The probe never left: the next one may go.
            Outcome::Blocked => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        };
        assert_eq!(breaker.state(heard), expected, "{outcome:?}");
        match expected {
            BreakerState::Closed => assert!(!is_probe(go(&mut breaker, heard))),
            BreakerState::HalfOpen => assert!(is_probe(go(&mut breaker, heard))),
            BreakerState::Open { until } => assert_eq!(breaker.acquire(heard), Err(until.since(heard))),
        }
    }
}

#[test]
fn the_wait_doubles_up_to_five_minutes_and_begins_anew_once_closed() {
    let mut breaker = open();
    let mut now = NOW;
    for wait in [5, 10, 20, 40, 80, 160, 300, 300, 300] {
        assert_eq!(breaker.acquire(now), Err(wait * SECOND));
        now += wait * SECOND;
        call(&mut breaker, Outcome::ProviderError, now);
    }
    now += 300 * SECOND;
    call(&mut breaker, Outcome::Sent, now);
    assert_eq!(breaker.state(now), BreakerState::Closed);
    // A whole new run of faults is needed, and the first wait follows it.
    for _ in 0..4 {
        call(&mut breaker, Outcome::Unreachable, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Closed);
    call(&mut breaker, Outcome::Unreachable, now);
    assert_eq!(breaker.acquire(now), Err(5 * SECOND));
}

#[test]
fn calls_from_before_the_opening_say_nothing_afterwards() {
    for late in Outcome::ALL {
        let mut breaker = Breaker::new();
        let under_way: Vec<BreakerPermit> = (0..50).map(|_| go(&mut breaker, NOW)).collect();
        for pass in &under_way[..5] {
            breaker.record(*pass, Outcome::Unknown, NOW);
        }
        let late_ones = |breaker: &mut Breaker, now| {
            for pass in &under_way[5..] {
                breaker.record(*pass, late, now);
            }
        };
        // While the breaker is open, the wait becomes neither longer nor shorter.
        late_ones(&mut breaker, NOW + SECOND);
        assert_eq!(breaker.state(NOW + SECOND), BreakerState::Open { until: NOW + 5 * SECOND }, "{late:?}");
        // While the probe is under way, it alone decides.
        let then = NOW + 5 * SECOND;
        let probe = go(&mut breaker, then);
        late_ones(&mut breaker, then);
        assert_eq!(breaker.acquire(then), Err(60 * SECOND), "{late:?}");
        breaker.record(probe, Outcome::Sent, then);
        // After the breaker closed.
        late_ones(&mut breaker, then);
        assert_eq!(breaker.state(then), BreakerState::Closed, "{late:?}");
    }
}

#[test]
fn a_probe_that_was_given_up_says_nothing_of_the_next() {
    for late in Outcome::ALL {
        let mut breaker = open();
        let first = go(&mut breaker, NOW + 5 * SECOND);
        let then = NOW + 65 * SECOND;
        let second = go(&mut breaker, then);
        breaker.record(first, late, then);
        assert_eq!(breaker.acquire(then), Err(60 * SECOND), "{late:?}");
        breaker.record(second, Outcome::Unreachable, then);
        assert_eq!(breaker.acquire(then), Err(10 * SECOND), "{late:?}");
    }
}

#[test]
fn a_report_counts_once() {
    let mut breaker = open();
    let probe = go(&mut breaker, NOW + 5 * SECOND);
    breaker.record(probe, Outcome::Unreachable, NOW + 5 * SECOND);
    breaker.record(probe, Outcome::Sent, NOW + 5 * SECOND);
    assert_eq!(breaker.acquire(NOW + 5 * SECOND), Err(10 * SECOND));
}

#[test]
fn a_clock_set_back_does_not_lengthen_a_wait() {
    let mut breaker = open();
    let now = NOW - 3_600 * SECOND;
    assert_eq!(breaker.acquire(now), Err(5 * SECOND));
    let probe = go(&mut breaker, now + 5 * SECOND);
    assert_eq!(breaker.acquire(now - 3_600 * SECOND), Err(60 * SECOND));
    breaker.record(probe, Outcome::Sent, now);
    assert_eq!(breaker.state(now), BreakerState::Closed);
}

/// Checks, in any traffic, what holds at every step.
#[test]
fn whatever_happens_single_probes_go_and_every_wait_ends() {
    for seed in 0..200 {
        let mut lot = seed;
        let mut draw = |bound: u64| {
            lot = u64::wrapping_add(u64::wrapping_mul(lot, 6_364_136_223_846_793_005), 1_442_695_040_888_963_407);
            (lot >> 33) % bound
        };
        let (mut breaker, mut twin) = (Breaker::new(), Breaker::new());
        let mut now = NOW;
        let mut under_way: Vec<BreakerPermit> = Vec::new();
        let mut last_probe: Option<(BreakerPermit, Timestamp)> = None;
        for _ in 0..2_000 {
            now += draw(4_000_000) as Micros;
            if draw(2) == 0 {
                let before = breaker.state(now);
                let answer = breaker.acquire(now);
                assert_eq!(twin.acquire(now), answer, "the same traffic has the same end");
                match answer {
                    Ok(pass) if is_probe(pass) => {
                        assert_eq!(before, BreakerState::HalfOpen);
                        if let Some((_, since)) = last_probe {
                            assert!(now >= since + Breaker::PROBE_PATIENCE, "two probes at once");
                        }
                        last_probe = Some((pass, now));
                        under_way.push(pass);
                    }
                    Ok(pass) => {
                        assert_eq!(before, BreakerState::Closed);
                        under_way.push(pass);
                    }
                    Err(wait) => {
                        assert_ne!(before, BreakerState::Closed);
                        assert!(wait > 0 && wait <= Breaker::LONGEST_WAIT);
                        assert!(breaker.clone().acquire(now + wait).is_ok(), "who obeys is let go");
                        assert_eq!(breaker.clone().acquire(now + wait - 1), Err(1));
                    }
                }
            } else if !under_way.is_empty() {
                let pass = under_way.swap_remove(draw(under_way.len() as u64) as usize);
                let any = Outcome::ALL[draw(17) as usize];
                // Mostly faults, so that the breaker opens often.
                let outcome = if draw(4) == 0 { any } else { Outcome::Unreachable };
                breaker.record(pass, outcome, now);
                twin.record(pass, outcome, now);
                assert_eq!(twin.state(now), breaker.state(now));
                if last_probe.is_some_and(|(probe, _)| probe == pass) {
                    last_probe = None;
                }
            }
        }
    }
}

#[test]
fn what_never_left_tells_nothing() {
    let mut breaker = Breaker::new();
    for _ in 0..2 * Breaker::THRESHOLD {
        let pass = go(&mut breaker, NOW);
        breaker.forgo(pass, NOW);
    }
    assert_eq!(breaker.state(NOW), BreakerState::Closed);
    // A probe that never left does not count: the next one goes at once.
    let mut breaker = open();
    let later = NOW + Breaker::FIRST_WAIT;
    let probe = go(&mut breaker, later);
    breaker.forgo(probe, later);
    assert!(is_probe(go(&mut breaker, later)));
}

/// The outcomes that are counted as failures are those that open the breaker.
#[test]
fn a_fault_is_what_opens_it() {
    for outcome in Outcome::ALL {
        let mut breaker = Breaker::new();
        for _ in 0..Breaker::THRESHOLD {
            if let Ok(permit) = breaker.acquire(NOW) {
                breaker.record(permit, outcome, NOW);
            }
        }
        assert_eq!(is_fault(outcome), breaker.state(NOW) != BreakerState::Closed, "{outcome:?}");
    }
}
