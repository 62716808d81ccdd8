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
    /// Messages an hour, for eight hours, spread over so many ranges.
    rate: f64,
    ranges: u64,
    /// To ranges that honest users have, too.
    among_honest: bool,
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
    Scene { attack: Some(Attack { rate, ranges, among_honest }), from: 30.0, until: 54.0, ..QUIET }
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
    let attack = scene.attack.unwrap_or(Attack { rate: 0.0, ranges: 1, among_honest: false });
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
            if pump > scene.from + 8.0 {
                pump = f64::MAX;
            }
            let number = random.u64(..attack.ranges);
            let range = if attack.among_honest { honest_range(number) } else { new_range(number) };
            outcome.pumped += 1;
            outcome.passed += u64::from(send(&mut ranges, &range, min, id, now));
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
    let few = |scene: Scene| Scene { honest: 300.0, ..scene };
    hold_to(vec![
        ("300/h for 8 h at a new range", attack(300.0, 1, false), 230, 0.0),
        ("the same, 300 honest a day over 200 ranges", Scene { ranges: 200, ..few(attack(300.0, 1, false)) }, 240, 0.0),
        ("300/h at a range that people have", attack(300.0, 1, true), 320, 6.0),
        ("the same, 300 honest a day", few(attack(300.0, 1, true)), 320, 6.0),
        ("300/h over 10 new ranges", attack(300.0, 10, false), 660, 0.0),
        ("3000/h over 10 new ranges", attack(3000.0, 10, false), 2250, 0.0),
        ("3000/h over 100 new ranges", attack(3000.0, 100, false), 6500, 0.0),
        ("300/h over 5 of 10 ranges that people have", attack(300.0, 5, true), 800, 21.0),
    ]);
}

/// For these there are send_limit, provider_limit, allowed_prefixes and a captcha.
#[test]
fn what_hides_among_the_honest_is_not_seen() {
    hold_to(vec![
        ("300/h over all ranges, 300 honest a day", Scene { honest: 300.0, ..attack(300.0, 10, true) }, 2500, 0.0),
        ("300/h over all ranges, 2000 honest a day", attack(300.0, 10, true), 2500, 0.0),
    ]);
}
