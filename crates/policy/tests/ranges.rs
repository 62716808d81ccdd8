//! Promise: whoever is paid for messages to numbers of their own gets few of them, and whoever wants to log in gets
//! theirs. What a change of a threshold costs is to be read off the table below: of each case, how many pumped messages
//! go out, and what share of the honest ones is held back in the day from its beginning.

use std::collections::BinaryHeap;

use fastrand::Rng;
use policy::{Micros, MinConversion, NumberRange, Ranges, Timestamp};

const MINUTE: Micros = 60_000_000;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;
const START: Timestamp = Timestamp(8_000 * DAY);

/// What happens at one provider.
#[derive(Clone, Copy)]
struct Scene {
    /// Sends a day, spread over so many ranges.
    honest: f64,
    ranges: u64,
    conversion: f64,
    /// Between these hours nothing arrives, though the vendor says that it does.
    outage: (f64, f64),
    /// At so many of the ranges.
    outage_of: u64,
    attack: Option<Attack>,
    /// The first so many hours are not counted: they are what is usual.
    from: f64,
    until: f64,
}

#[derive(Clone, Copy)]
struct Attack {
    /// Messages an hour, spread over so many ranges.
    rate: f64,
    ranges: u64,
    /// To ranges that honest users have, too.
    among_honest: bool,
    /// The share of codes that are typed in all the same.
    conversion: f64,
    /// For so many hours.
    hours: f64,
}

const QUIET: Scene = Scene {
    honest: 2000.0,
    ranges: 10,
    conversion: 0.7,
    outage: (0.0, 0.0),
    outage_of: u64::MAX,
    attack: None,
    from: 24.0,
    until: 48.0,
};

fn attack(rate: f64, ranges: u64, among_honest: bool) -> Scene {
    Scene {
        attack: Some(Attack { rate, ranges, among_honest, conversion: 0.0, hours: 8.0 }),
        from: 30.0,
        until: 54.0,
        ..QUIET
    }
}

#[derive(Default, Debug)]
struct Outcome {
    honest: u64,
    blocked: u64,
    pumped: u64,
    passed: u64,
}

impl Outcome {
    fn share(&self) -> f64 {
        100.0 * self.blocked as f64 / self.honest.max(1) as f64
    }
}

fn honest_range(number: u64) -> NumberRange {
    NumberRange::of(&format!("+9477{number:04}000000")).unwrap()
}

fn new_range(number: u64) -> NumberRange {
    NumberRange::of(&format!("+88213{number:04}000000")).unwrap()
}

fn at(hours: f64) -> Timestamp {
    START + (hours * HOUR as f64) as Micros
}

/// The next of events that come so often an hour, by chance.
fn next(random: &mut Rng, after: f64, an_hour: f64) -> f64 {
    if an_hour == 0.0 { f64::MAX } else { after - (1.0 - random.f64()).ln() / an_hour }
}

fn play(scene: Scene, seed: u64) -> Outcome {
    let (mut random, mut ranges, mut outcome) = (Rng::with_seed(seed), Ranges::default(), Outcome::default());
    let min = MinConversion::default();
    let mut typed: BinaryHeap<std::cmp::Reverse<(Timestamp, NumberRange, u128, Timestamp)>> = BinaryHeap::new();
    let honest_an_hour = scene.honest / 24.0;
    let attack =
        scene.attack.unwrap_or(Attack { rate: 0.0, ranges: 1, among_honest: false, conversion: 0.0, hours: 0.0 });
    let mut honest = next(&mut random, 0.0, honest_an_hour);
    let mut pump = next(&mut random, scene.from, attack.rate);
    let (mut id, mut tended) = (0, START);
    loop {
        let is_honest = honest <= pump;
        let hours = honest.min(pump);
        let now = at(hours);
        if hours > scene.until {
            return outcome;
        }
        while typed.peek().is_some_and(|next| next.0.0 <= now) {
            let (_, range, id, sent_at) = typed.pop().unwrap().0;
            ranges.converted(&range, Some(id), sent_at);
        }
        if now.since(tended) > MINUTE {
            ranges.pass_time(now);
            tended = now;
        }
        let counts = hours >= scene.from;
        id += 1;
        if is_honest {
            honest = next(&mut random, honest, honest_an_hour);
            let number = random.u64(..scene.ranges);
            let range = honest_range(number);
            let goes = send(&mut ranges, &range, min, id, now);
            outcome.honest += u64::from(counts);
            outcome.blocked += u64::from(counts && !goes);
            let arrives = number >= scene.outage_of || !(scene.outage.0..scene.outage.1).contains(&hours);
            if goes && arrives && random.f64() < scene.conversion {
                let takes = 10_000_000 + (random.f64() * 110.0) as Micros * 1_000_000;
                typed.push(std::cmp::Reverse((now + takes, range, id, now)));
            }
        } else {
            pump = next(&mut random, pump, attack.rate);
            if pump > scene.from + attack.hours {
                pump = f64::MAX;
            }
            let number = random.u64(..attack.ranges);
            let range = if attack.among_honest { honest_range(number) } else { new_range(number) };
            outcome.pumped += 1;
            let goes = send(&mut ranges, &range, min, id, now);
            outcome.passed += u64::from(goes);
            if goes && random.f64() < attack.conversion {
                typed.push(std::cmp::Reverse((now + MINUTE, range, id, now)));
            }
        }
    }
}

/// As the worker asks.
fn send(ranges: &mut Ranges, range: &NumberRange, min: MinConversion, id: u128, now: Timestamp) -> bool {
    let is_held = ranges.hold(range, min, now).is_some();
    if is_held && !ranges.probes(range, now) {
        return false;
    }
    ranges.sent(range, is_held.then_some(id), now);
    true
}

/// Plays each case with two seeds: no more pumped messages than that go out, and no greater share of the honest ones,
/// in percent, is held back. `cargo test -p policy --test ranges -- --nocapture` prints what came of it.
fn hold_to(cases: Vec<(&str, Scene, u64, f64)>) {
    for (name, scene, most_passed, most_blocked) in cases {
        let both = [play(scene, 1), play(scene, 2)];
        let passed = both.iter().map(|one| one.passed).max().unwrap();
        let pumped = both.iter().map(|one| one.pumped).max().unwrap();
        let blocked = both.iter().map(Outcome::share).fold(0.0, f64::max);
        println!("{name:45} {passed:5} of {pumped:5} pumped go out, {blocked:5.2}% of the honest are held back");
        assert!(passed <= most_passed && blocked <= most_blocked, "{name}");
    }
}

fn honest(a_day: f64, conversion: f64) -> Scene {
    Scene { honest: a_day, conversion, ..QUIET }
}

fn outage(a_day: f64, hours: f64) -> Scene {
    Scene { honest: a_day, outage: (36.0, 36.0 + hours), until: 42.0 + hours, ..QUIET }
}

#[test]
fn nobody_honest_is_held_back() {
    hold_to(vec![
        ("300 a day, 30% typed in", honest(300.0, 0.3), 0, 0.0),
        ("300 a day, 70%", honest(300.0, 0.7), 0, 0.0),
        ("2000 a day, 30%", honest(2000.0, 0.3), 0, 0.0),
        ("2000 a day, 70%", honest(2000.0, 0.7), 0, 0.0),
        ("10000 a day, 30%", honest(10_000.0, 0.3), 0, 0.0),
        ("10000 a day, 70%", honest(10_000.0, 0.7), 0, 0.0),
        ("2000 a day, 20%", honest(2000.0, 0.2), 0, 0.0),
        ("10000 a day, 20%", honest(10_000.0, 0.2), 0, 0.0),
        ("2000 a day, nobody types a code in", honest(2000.0, 0.0), 0, 0.0),
        ("2000 on the first day", Scene { from: 0.0, ..honest(2000.0, 0.7) }, 0, 0.0),
    ]);
}

#[test]
fn a_vendor_that_delivers_nothing_is_not_taken_for_pumping() {
    let out_of_ten = |a_day, ranges| Scene { outage_of: ranges, ..outage(a_day, 3.0) };
    hold_to(vec![
        ("300 a day, nothing arrives for 3 h", outage(300.0, 3.0), 0, 0.0),
        ("2000 a day, for 3 h", outage(2000.0, 3.0), 0, 0.0),
        ("10000 a day, for 3 h", outage(10_000.0, 3.0), 0, 0.0),
        ("2000 a day, for 30 h", outage(2000.0, 30.0), 0, 0.0),
        ("10000 a day, for 30 h", outage(10_000.0, 30.0), 0, 0.0),
        ("2000 a day over 100 ranges, for 3 h", Scene { ranges: 100, ..outage(2000.0, 3.0) }, 0, 0.0),
        ("10000 a day, for 3 h, at one operator", out_of_ten(10_000.0, 3), 0, 0.0),
        ("30000 a day, for 3 h, in one range", out_of_ten(30_000.0, 1), 0, 0.0),
    ]);
}

#[test]
fn what_is_pumped_is_stopped() {
    let slowly = |rate, ranges, conversion| {
        let slow = Attack { rate, ranges, among_honest: false, conversion, hours: 24.0 };
        Scene { attack: Some(slow), until: 55.0, ..attack(300.0, 1, false) }
    };
    let few = |scene: Scene| Scene { honest: 300.0, ..scene };
    hold_to(vec![
        ("300/h for 8 h at a new range", attack(300.0, 1, false), 230, 0.0),
        ("the same, 300 honest a day over 200 ranges", Scene { ranges: 200, ..few(attack(300.0, 1, false)) }, 240, 0.0),
        ("300/h at a range that people have", attack(300.0, 1, true), 320, 5.0),
        ("the same, 300 honest a day", few(attack(300.0, 1, true)), 320, 6.0),
        ("300/h over 10 new ranges", attack(300.0, 10, false), 660, 0.0),
        ("3000/h over 10 new ranges", attack(3000.0, 10, false), 2250, 0.0),
        ("3000/h over 100 new ranges", attack(3000.0, 100, false), 6500, 0.0),
        ("20/h for a day at a new range", slowly(20.0, 1, 0.0), 140, 0.0),
        ("the same, one in fifty typed in", slowly(20.0, 1, 0.02), 140, 0.0),
        ("3000/h over 100 new ranges, one in fifty", slowly(3000.0, 100, 0.02), 15_000, 0.0),
        ("300/h over 5 of 10 ranges that people have", attack(300.0, 5, true), 520, 21.0),
    ]);
}

/// For these there are send_limit, provider_limit, allowed_prefixes and a captcha.
#[test]
fn what_hides_among_the_honest_is_not_seen() {
    hold_to(vec![
        ("300/h over all ranges, 300 honest a day", Scene { honest: 300.0, ..attack(300.0, 10, true) }, 2500, 12.0),
        ("300/h over all ranges, 2000 honest a day", attack(300.0, 10, true), 2500, 0.0),
    ]);
}

/// So many sends to a range at that time, and so many of them typed in.
fn fill(ranges: &mut Ranges, range: &NumberRange, sends: u32, converted: u32, hours: f64) {
    (0..sends).for_each(|_| ranges.sent(range, None, at(hours)));
    (0..converted).for_each(|_| assert!(!ranges.converted(range, None, at(hours))));
}

/// The ranges of people, until the hour 24.
fn people() -> Ranges {
    let mut ranges = Ranges::default();
    (0..10).for_each(|number| fill(&mut ranges, &honest_range(number), 60, 42, 20.0));
    ranges
}

fn is_held(ranges: &mut Ranges, range: &NumberRange) -> bool {
    ranges.hold(range, MinConversion::default(), at(24.0)).is_some()
}

#[test]
fn what_was_pumped_elsewhere_does_not_hide_it() {
    let mut ranges = people();
    // Forty a day to a thousand ranges, none enough to be looked at, and one in forty typed in.
    (0..1000).for_each(|number| fill(&mut ranges, &new_range(number), 40, 1, 21.0));
    fill(&mut ranges, &new_range(2000), 100, 0, 23.6);
    assert!(is_held(&mut ranges, &new_range(2000)));
}

#[test]
fn what_is_usual_for_pumping_is_not_usual_for_people() {
    let mut ranges = people();
    (1..24).for_each(|hour| fill(&mut ranges, &new_range(1), 20, 0, f64::from(hour)));
    ranges.converted(&new_range(1), None, at(12.0));
    assert!(is_held(&mut ranges, &new_range(1)));
}

/// Fifty that are ten minutes old, of which fewer than a tenth were typed in; while others convert.
#[test]
fn thresholds() {
    let case = |sends, converted, hours| {
        let mut ranges = people();
        fill(&mut ranges, &new_range(1), sends, converted, hours);
        is_held(&mut ranges, &new_range(1))
    };
    assert!(case(50, 4, 23.5) && case(50, 0, 23.8) && case(50, 0, 23.1) && case(50, 4, 22.9));
    assert!(!case(49, 0, 23.5) && !case(50, 5, 23.5));
    // The last ten minutes, and what is a day old.
    assert!(!case(50, 0, 23.9) && !case(50, 0, -0.1));
    // With nobody to compare with, and with others who have ceased to convert.
    let mut alone = Ranges::default();
    fill(&mut alone, &new_range(1), 500, 0, 23.5);
    assert!(!is_held(&mut alone, &new_range(1)));
    let mut ranges = people();
    fill(&mut ranges, &new_range(1), 500, 0, 23.5);
    (0..10).for_each(|number| fill(&mut ranges, &honest_range(number), 6, 0, 23.5));
    assert!(!is_held(&mut ranges, &new_range(1)));
}

#[test]
fn a_range_opens_by_probes_in_time_by_ceasing_and_by_release() {
    let range = new_range(1);
    let held = || {
        let mut ranges = people();
        fill(&mut ranges, &range, 60, 0, 23.5);
        assert!(is_held(&mut ranges, &range));
        ranges
    };
    // Four of five, and a fifth that was never a probe.
    let mut ranges = held();
    (1..=5).for_each(|id| ranges.sent(&range, Some(id), at(24.0)));
    assert!(!ranges.converted(&range, Some(7), at(24.0)) && !ranges.converted(&range, None, at(24.0)));
    assert!(is_held(&mut ranges, &range));
    assert!(ranges.converted(&range, Some(2), at(24.0)), "one of five is a fifth");
    assert!(!is_held(&mut ranges, &range) && ranges.probes(&range, at(24.0)));
    // Of twenty probes the latest count: three are too few, the fourth is enough.
    let mut ranges = held();
    (1..=30).for_each(|id| ranges.sent(&range, Some(id), at(24.0)));
    for id in [3, 12, 13, 14] {
        assert!(!ranges.converted(&range, Some(id), at(24.0)));
    }
    assert!(ranges.converted(&range, Some(30), at(24.0)));
    // Half a day.
    let mut ranges = held();
    assert!(ranges.pass_time(at(35.9)).is_empty() && ranges.pass_time(at(36.0)) == [range.clone()]);
    let mut ranges = held();
    assert!(ranges.hold(&range, MinConversion::default(), at(36.0)).is_none());
    let mut ranges = held();
    assert!(ranges.release(&range) && !ranges.release(&range) && !is_held(&mut ranges, &range));
    // A range that people have, once nobody asks for it any more than is usual: an hour later.
    let mut ranges = people();
    fill(&mut ranges, &honest_range(1), 600, 0, 23.5);
    assert!(is_held(&mut ranges, &honest_range(1)));
    for _ in 0..100 {
        ranges.probes(&honest_range(1), at(24.5));
    }
    assert!(ranges.pass_time(at(24.9)).is_empty() && ranges.pass_time(at(25.1)).is_empty());
    assert_eq!(ranges.pass_time(at(25.6)), [honest_range(1)]);
}

#[test]
fn one_in_twenty_is_a_probe() {
    let mut ranges = people();
    fill(&mut ranges, &new_range(1), 60, 0, 23.5);
    assert!(is_held(&mut ranges, &new_range(1)));
    let probes: Vec<u32> = (1..=60).filter(|_| ranges.probes(&new_range(1), at(24.0))).collect();
    assert_eq!(probes, [20, 40, 60]);
}

/// What is put on record and read again is the same, but for the minutes: nothing is older than it was.
#[test]
fn the_record_keeps_it() {
    let mut ranges = people();
    fill(&mut ranges, &new_range(1), 60, 3, 22.3);
    fill(&mut ranges, &new_range(1), 7, 1, 23.9);
    let mut restored = Ranges::default();
    for number in 0..10 {
        restored.restore(honest_range(number), &ranges.counts(&honest_range(number), at(24.0)));
    }
    let hours = ranges.counts(&new_range(1), at(24.0));
    assert_eq!((&hours.sends[..], &hours.converted[..]), (&[7, 60][..], &[1, 3][..]));
    restored.restore(new_range(1), &hours);
    assert_eq!(restored.counts(&new_range(1), at(24.0)), hours);
    assert!(is_held(&mut ranges, &new_range(1)) && is_held(&mut restored, &new_range(1)));
    // Sends of just now are not taken for sends of an hour ago.
    let mut young = people();
    fill(&mut young, &new_range(1), 60, 0, 23.9);
    let hours = young.counts(&new_range(1), at(24.0));
    young.restore(new_range(1), &hours);
    assert!(!is_held(&mut young, &new_range(1)));
}

/// Whoever has codes sent to ever new ranges fills no memory, and drives out nobody who is held back.
#[test]
fn so_many_ranges_are_remembered() {
    let mut ranges = people();
    fill(&mut ranges, &new_range(1), 60, 0, 23.5);
    assert!(is_held(&mut ranges, &new_range(1)));
    for number in 0..3 * Ranges::MOST as u64 {
        ranges.sent(&NumberRange::of(&format!("+7{number:06}000000")).unwrap(), None, at(24.0 + number as f64 / 1e6));
        assert!(ranges.len() <= Ranges::MOST);
    }
    assert!(ranges.holds_back(&new_range(1)));
    assert_eq!(ranges.pass_time(at(50.0)), [new_range(1)]);
    assert_eq!(ranges.len(), 0);
}

#[test]
fn a_range_is_a_number_without_six_digits() {
    for (number, range) in [
        ("+918144094480", Some("+918144******")),
        ("+94771234567", Some("+94771******")),
        ("+12345678", Some("+12******")),
        ("+123456", None),
        ("user@example.org", None),
        ("918144094480", None),
        ("+91814409448x", None),
        ("", None),
        ("+", None),
    ] {
        assert_eq!(NumberRange::of(number).map(|range| range.to_string()).as_deref(), range, "{number}");
    }
    for typed in ["+918144", "+918144******", " +918144… ", "+918144XXXXXX", "+918144 ...... "] {
        assert_eq!(NumberRange::read(typed).unwrap().as_str(), "+918144", "{typed}");
    }
    for typed in ["", "+", "918144", "+918144094480", "+91 8144", "+9181a4", "******"] {
        assert!(NumberRange::read(typed).is_none(), "{typed}");
    }
}

#[test]
fn the_option() {
    for (text, shown) in [("10%", "10%"), (" 5 % ", "5%"), ("1%", "1%"), ("30%", "30%")] {
        assert_eq!(text.parse::<MinConversion>().unwrap().to_string(), shown);
    }
    for text in ["", "%", "10", "0%", "31%", "100%", "-1%", "1.5%", "+5%", "ten%", "10%%"] {
        assert!(text.parse::<MinConversion>().is_err(), "{text}");
    }
}
