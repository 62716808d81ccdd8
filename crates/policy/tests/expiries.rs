use policy::{Expiries, Micros, Span, Timestamp};

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const DAY: Micros = 1440 * MINUTE;
const NOW: Timestamp = Timestamp(800_000_000 * SECOND);

/// Returns the spans that are due by then.
fn taken(expiries: &mut Expiries, now: Timestamp) -> Vec<Span> {
    std::iter::from_fn(|| expiries.take(now)).collect()
}

fn covers(spans: &[Span], began: Timestamp) -> bool {
    spans.iter().any(|span| span.from <= began && began < span.until)
}

#[test]
fn nothing_is_due_before_its_time_and_everything_within_a_minute_after() {
    let mut expiries = Expiries::default();
    assert!(expiries.is_empty() && expiries.next_due().is_none());
    let at = NOW + 5 * MINUTE + 7 * SECOND;
    expiries.add(NOW, at, NOW);
    let due = expiries.next_due().unwrap();
    assert!(at < due && due <= at + MINUTE);
    assert_eq!(taken(&mut expiries, due - 1), []);
    assert!(covers(&taken(&mut expiries, due), NOW));
    assert!(expiries.is_empty());
}

#[test]
fn at_the_turn_of_a_minute() {
    let turn = Timestamp(NOW.0 / MINUTE * MINUTE);
    for at in [turn - 1, turn, turn + 1, Timestamp(-1), Timestamp(0)] {
        for began in [turn - 1, turn, Timestamp(0), Timestamp(59 * SECOND), Timestamp(MINUTE)] {
            let mut expiries = Expiries::default();
            expiries.add(began, at, NOW);
            assert!(expiries.next_due().unwrap() > at);
            assert!(covers(&taken(&mut expiries, at + MINUTE), began), "{began:?} {at:?}");
        }
    }
}

#[test]
fn what_is_open_takes_no_more_room_however_much_it_is() {
    let mut expiries = Expiries::default();
    // Two hours of 500 a second, whose codes live five minutes or, once in three, an hour.
    for n in 0..3_600_000 {
        let began = NOW + n * 2000;
        expiries.add(began, began + if n % 3 == 0 { 60 } else { 5 } * MINUTE, began);
    }
    assert!(expiries.len() <= 2 * (120 + 60), "{}", expiries.len());
}

#[test]
fn whatever_their_times_are_there_is_an_end_of_it() {
    let mut expiries = Expiries::default();
    let mut dice: u64 = 7;
    let mut roll = |below: Micros| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 20) as Micros % below
    };
    let all: Vec<(Timestamp, Timestamp)> = (0..300_000).map(|_| (NOW - roll(30 * DAY), NOW + roll(20 * DAY))).collect();
    for (began, at) in &all {
        expiries.add(*began, *at, NOW);
    }
    assert!(expiries.len() <= 8 * (8 * 1440 + 1), "{}", expiries.len());
    // No end is lost: what is due by then lies in a span. What ends later may lie in it, too, and is added again.
    let mut sorted = all.clone();
    sorted.sort_by_key(|(_, at)| *at);
    let mut left = sorted.into_iter().peekable();
    while let Some(due) = expiries.next_due() {
        let spans = taken(&mut expiries, due);
        while let Some((began, _)) = left.next_if(|(_, at)| (*at).min(NOW + 8 * DAY) < due) {
            assert!(covers(&spans, began));
        }
    }
    assert!(left.next().is_none());
}
