//! Promise to the user: a limit holds at the edges of its window, its `retry_after` is right to the microsecond, and
//! what is no limit is refused with the form.

use policy::{Limits, Micros, Timestamp};

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;
/// A day in 2026, as Postgres counts.
const NOW: Timestamp = Timestamp(838_000_000 * SECOND + 123_457);

fn limits(text: &str) -> Limits {
    text.parse().unwrap_or_else(|refused| panic!("{text}: {refused:?}"))
}

#[test]
fn every_form_has_one_canonical_text() {
    for (typed, canonical) in [
        ("5 per hour, 10 per day", "5 per hour, 10 per day"),
        ("10 per day,5 per hour", "5 per hour, 10 per day"),
        ("3 per 10 minutes", "3 per 10 minutes"),
        ("1 per 30s", "1 per 30 seconds"),
        ("  5\tPER  1   Hour  ", "5 per hour"),
        ("5per hour", "5 per hour"),
        ("5 per10min", "5 per 10 minutes"),
        ("007 per 03 h", "7 per 3 hours"),
        ("1 per s", "1 per second"),
        ("1 per sec", "1 per second"),
        ("1 per second", "1 per second"),
        ("1 per 2 seconds", "1 per 2 seconds"),
        ("1 per min", "1 per minute"),
        ("1 per minute", "1 per minute"),
        ("1 per 90 seconds", "1 per 90 seconds"),
        ("1 per 60 seconds", "1 per minute"),
        ("1 per h", "1 per hour"),
        ("1 per 2 hours", "1 per 2 hours"),
        ("1 per 24 hours", "1 per day"),
        ("1 per d", "1 per day"),
        ("1 per 31 days", "1 per 31 days"),
        ("1 per 7 days", "1 per week"),
        ("1 per week", "1 per week"),
        ("1 per 4 WEEKS", "1 per 4 weeks"),
        ("1000000 per 1 s", "1000000 per second"),
        (
            "1 per s, 2 per 2s, 3 per 3s, 4 per 4s, 5 per 5s, 6 per 6s, 7 per 7s, 8 per 8s",
            "1 per second, 2 per 2 seconds, 3 per 3 seconds, 4 per 4 seconds, 5 per 5 seconds, 6 per 6 seconds, \
             7 per 7 seconds, 8 per 8 seconds",
        ),
    ] {
        let parsed = limits(typed);
        assert_eq!(parsed.to_string(), canonical, "{typed}");
        assert_eq!(limits(canonical), parsed, "{typed}");
    }
}

#[test]
fn any_limits_parse_back() {
    let mut lot = Lot(7);
    for _ in 0..5_000 {
        let limits = some_limits(&mut lot);
        assert_eq!(limits.to_string().parse::<Limits>().as_ref(), Ok(&limits));
    }
}

#[test]
fn what_is_no_limit_is_refused_with_the_form() {
    for (typed, message) in [
        ("", "limit 1 is not of the form '<count> per <time>'"),
        ("  ", "limit 1 is not of the form '<count> per <time>'"),
        ("5", "limit 1 is not of the form '<count> per <time>'"),
        ("5 per", "limit 1 is not of the form '<count> per <time>'"),
        ("5 per 10", "limit 1 is not of the form '<count> per <time>'"),
        ("per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5 hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5/hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5 每小时", "limit 1 is not of the form '<count> per <time>'"),
        ("五 per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("٥ per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("-5 per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("+5 per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5.5 per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5 per hour,", "limit 2 is not of the form '<count> per <time>'"),
        (",5 per hour", "limit 1 is not of the form '<count> per <time>'"),
        ("5 per hour 10 per day", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per month", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per m", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per hourss", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per 1.5 hours", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per -1 hours", "limit 1 names no unit of time: second, minute, hour, day, week"),
        ("5 per hour, 6 per 2 ms", "limit 2 names no unit of time: second, minute, hour, day, week"),
        ("0 per hour", "limit 1 has a count that is not from 1 to 1000000"),
        ("1000001 per hour", "limit 1 has a count that is not from 1 to 1000000"),
        ("99999999999999999999999 per hour", "limit 1 has a count that is not from 1 to 1000000"),
        ("5 per 0 hours", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per 32 days", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per 5 weeks", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per 2678401 s", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per 9223372036854775807 s", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per 99999999999999999999999 s", "limit 1 has a time that is not from 1 second to 31 days"),
        ("5 per hour, 6 per hour", "limit 2 is over the same time as one before it"),
        ("5 per hour, 1 per s, 5 per 60 min", "limit 3 is over the same time as one before it"),
        (
            "1 per s, 2 per 2s, 3 per 3s, 4 per 4s, 5 per 5s, 6 per 6s, 7 per 7s, 8 per 8s, 9 per 9s",
            "limit 9 is one too many: at most 8 are taken",
        ),
    ] {
        let refused = typed.parse::<Limits>().expect_err(typed);
        assert_eq!(refused.message, message, "{typed}");
        assert_eq!(refused.hint, "For example: '5 per hour, 10 per day'.");
    }
}

#[test]
fn the_window_ends_on_the_microsecond() {
    let limits = limits("2 per minute");
    for (ages, wait) in [
        (&[][..], None),
        (&[0], None),
        (&[0, 0], Some(MINUTE)),
        (&[0, 1], Some(MINUTE - 1)),
        (&[0, MINUTE - 1], Some(1)),
        (&[0, MINUTE], None),
        (&[0, MINUTE + 1], None),
        // More events than were ever allowed: the second newest must leave the window, not the oldest.
        (&[5, 10, 15], Some(MINUTE - 10)),
        (&[5, 10, 15, 2 * MINUTE], Some(MINUTE - 10)),
        (&[MINUTE, MINUTE, MINUTE], None),
        // The clock was set back: the events count as if they had happened now.
        (&[-HOUR], None),
        (&[-HOUR, 20 * SECOND], Some(40 * SECOND)),
        (&[-HOUR, -HOUR], Some(MINUTE)),
        (&[-HOUR, -1, MINUTE], Some(MINUTE)),
        (&[-DAY * 365_000, -1], Some(MINUTE)),
    ] {
        let times: Vec<Timestamp> = ages.iter().map(|age| NOW - *age).collect();
        assert_eq!(limits.refusal(&times, NOW).map(|refusal| refusal.retry_after), wait, "{ages:?}");
    }
}

#[test]
fn the_longest_wait_is_told_with_its_limit() {
    let limits = limits("1 per minute, 3 per hour, 4 per day");
    for (ages, told) in [
        (&[MINUTE][..], None),
        (&[SECOND], Some(("1 per minute", MINUTE - SECOND))),
        (&[SECOND, 2 * SECOND, 3 * SECOND], Some(("3 per hour", HOUR - 3 * SECOND))),
        // The hour's wait is nearly over; the minute's lasts longer.
        (&[SECOND, 2 * SECOND, HOUR - SECOND], Some(("1 per minute", MINUTE - SECOND))),
        (&[2 * MINUTE, 3 * HOUR, 3 * HOUR, 4 * HOUR], Some(("4 per day", 20 * HOUR))),
    ] {
        let times: Vec<Timestamp> = ages.iter().map(|age| NOW - *age).collect();
        let refusal = limits.refusal(&times, NOW);
        let refusal = refusal.map(|refusal| (refusal.limit.to_string(), refusal.retry_after));
        assert_eq!(refusal, told.map(|(limit, wait)| (limit.to_owned(), wait)), "{ages:?}");
    }
}

#[test]
fn the_query_knows_how_far_to_read() {
    let limits = limits("10 per day, 50 per hour, 1 per s");
    assert_eq!((limits.most(), limits.reach()), (50, DAY));
}

/// No sequence that the limits let through ever holds more than n events in a window.
#[test]
fn whoever_asks_before_each_event_keeps_every_limit() {
    let mut lot = Lot(11);
    for _ in 0..300 {
        let limits = some_limits(&mut lot);
        let rules = read(&limits);
        let mut newest_first: Vec<Timestamp> = Vec::new();
        let mut now = NOW;
        for _ in 0..200 {
            match limits.refusal(&newest_first, now) {
                None => newest_first.insert(0, now),
                // Half of the callers obey, the others are impatient.
                Some(refusal) if lot.below(2) == 0 => now += refusal.retry_after,
                Some(refusal) => now += lot.below(refusal.retry_after),
            }
            now += lot.below(SECOND);
            for &(count, window) in &rules {
                let inside = newest_first.iter().filter(|&&time| time > now - window).count();
                assert!(inside <= count, "{limits}");
            }
        }
    }
}

#[test]
fn retry_after_is_the_first_moment_that_is_admitted() {
    let mut lot = Lot(13);
    let mut refused = 0;
    for _ in 0..20_000 {
        let limits = some_limits(&mut lot);
        let mut times: Vec<Timestamp> = (0..lot.below(40)).map(|_| NOW - some_age(&mut lot)).collect();
        times.sort_by(|a, b| b.cmp(a));
        // The refusal again, counted plainly.
        let full = read(&limits)
            .into_iter()
            .any(|(count, window)| times.iter().filter(|&&time| time > NOW - window).count() >= count);
        let refusal = limits.refusal(&times, NOW);
        assert_eq!(refusal.is_some(), full, "{limits}: {times:?}");
        // The events that the query leaves out change nothing.
        let mut needed: Vec<Timestamp> = times.iter().copied().filter(|time| *time > NOW - limits.reach()).collect();
        needed.truncate(limits.most());
        assert_eq!(limits.refusal(&needed, NOW), refusal, "{limits}: {times:?}");

        let Some(refusal) = refusal else { continue };
        refused += 1;
        let wait = refusal.retry_after;
        assert!(wait > 0 && wait <= limits.reach());
        assert_eq!(limits.refusal(&times, NOW + wait), None, "obeyed: {limits}: {times:?}");
        let whole_seconds = (wait + SECOND - 1) / SECOND * SECOND;
        assert_eq!(limits.refusal(&times, NOW + whole_seconds), None, "obeyed in seconds: {limits}: {times:?}");
        for early in [1, SECOND] {
            let again = limits.refusal(&times, NOW + wait - early);
            // Time may stand still, but it does not go back.
            if early <= wait {
                let again = again.expect("one that comes early is refused");
                assert_eq!((again.limit, again.retry_after), (refusal.limit, early), "{limits}: {times:?}");
            }
        }
    }
    assert!(refused > 5_000, "only {refused}");
}

/// Reads the rules from their text, by other code than the product's.
fn read(limits: &Limits) -> Vec<(usize, Micros)> {
    let rule = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        let times: Micros = if words.len() == 4 { words[2].parse().unwrap() } else { 1 };
        let unit = match words[words.len() - 1].trim_end_matches('s') {
            "second" => SECOND,
            "minute" => MINUTE,
            "hour" => HOUR,
            "day" => DAY,
            "week" => 7 * DAY,
            other => panic!("{other}"),
        };
        (words[0].parse().unwrap(), times * unit)
    };
    limits.to_string().split(", ").map(rule).collect()
}

fn some_limits(lot: &mut Lot) -> Limits {
    loop {
        let rules: Vec<String> = (0..=lot.below(4))
            .map(|_| {
                let unit = ["s", "minutes", "h", "day"][lot.below(4) as usize];
                format!("{} per {} {unit}", 1 + lot.below(12), 1 + lot.below(31))
            })
            .collect();
        // Two rules of one window are refused.
        if let Ok(limits) = rules.join(",").parse() {
            return limits;
        }
    }
}

/// Returns an age of any order of magnitude, often a whole number of some unit, so that edges are met.
fn some_age(lot: &mut Lot) -> Micros {
    let unit = [1, SECOND, MINUTE, HOUR, DAY][lot.below(5) as usize];
    unit * lot.below(61)
}

/// Knuth's MMIX generator: one seed makes one sequence.
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: Micros) -> Micros {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 16) % u64::try_from(bound).unwrap()) as Micros
    }
}

#[test]
fn as_many_as_there_is_room_for_are_admitted() {
    let limits = limits("5 per hour, 7 per day");
    let mut events = vec![NOW - MINUTE, NOW - 2 * HOUR, NOW - 3 * HOUR, NOW - 25 * HOUR];
    // Four go in the hour; of the day's seven, three are taken.
    assert_eq!(limits.room(&events, NOW), 4);
    for _ in 0..4 {
        assert_eq!(limits.refusal(&events, NOW), None);
        events.insert(0, NOW);
    }
    assert_eq!(limits.room(&events, NOW), 0);
    assert!(limits.refusal(&events, NOW).is_some());
    // The clock was set back: an event that lies ahead counts as now.
    assert_eq!(limits.room(&[NOW + HOUR], NOW), 4);
}

#[test]
fn how_much_is_used_is_that_of_the_tightest_window() {
    let ago = |lengths: &[Micros]| {
        let times: Vec<Timestamp> = lengths.iter().map(|length| NOW - *length).collect();
        limits("5 per hour, 10 per day").used(|since| times.iter().filter(|time| **time > since).count(), NOW)
    };
    assert_eq!(ago(&[]), 0.0);
    assert_eq!(ago(&[MINUTE, MINUTE]), 0.4);
    assert_eq!(ago(&[MINUTE, 2 * HOUR, 3 * HOUR, 4 * HOUR]), 0.4);
    assert_eq!(ago(&[HOUR, DAY]), 0.1);
    assert_eq!(ago(&[MINUTE; 6]), 1.2);
}
