//! Checks whether the codes that go out are typed in, by what the worker has found and put on record.

use policy::{Counts, NumberRange, Timestamp};

use crate::{
    api::health::{HealthCheck, Level},
    pg::clock::clock,
    store::{glance, ranges::LowConversion},
};

const CONVERSION: &str = "conversion";
const PUMPING: &str = "pumping";
/// How many ranges are named; of the others only the number is told.
const NAMED: usize = 3;

/// A provider's name, and what converts too seldom there.
type Low = (String, LowConversion);

/// Returns, for slumps and for pumping, one row for each provider that has it, or one row that says that all is well.
pub fn conversion() -> Vec<HealthCheck> {
    let Ok(mut all) = glance::low_conversions(clock()) else {
        return vec![HealthCheck::locked(CONVERSION), HealthCheck::locked(PUMPING)];
    };
    all.sort_by(|(a, of_a), (b, of_b)| (a, of_a.since, &of_a.range).cmp(&(b, of_b.since, &of_b.range)));
    let (of_providers, of_ranges): (Vec<Low>, Vec<Low>) = all.into_iter().partition(|(_, low)| low.range.is_empty());
    let mut checks: Vec<HealthCheck> = of_providers.iter().map(slump).collect();
    if checks.is_empty() {
        checks.push(HealthCheck::ok(CONVERSION, "codes are typed in as usual, as far as there are enough to tell"));
    }
    let held: Vec<HealthCheck> = of_ranges.chunk_by(|(a, _), (b, _)| a == b).map(pumping).collect();
    if held.is_empty() {
        checks.push(HealthCheck::ok(PUMPING, "no range of numbers is held back, or would be"));
    }
    checks.extend(held);
    checks
}

fn slump((provider, low): &Low) -> HealthCheck {
    let Counts { sends, converted } = low.counts;
    let usual = low.usual * 100.0;
    let detail = format!(
        "{provider}: {converted} of the {sends} codes of the last hour were typed in, and {usual:.0}% of those before"
    );
    let hint = "Most codes do not arrive, though the vendor says sent: ask it about its operators, templates and the \
        sender's registration. otp_gateway.ranges says whether it is some numbers or all.";
    HealthCheck::bad(CONVERSION, Level::Warning, detail, hint)
        .valued(f64::from(converted) / f64::from(sends.max(1)))
        .since(Some(low.since))
}

/// Returns the row about the ranges of one provider.
fn pumping(ranges: &[Low]) -> HealthCheck {
    let provider = ranges.first().map_or("", |(provider, _)| provider);
    let named: Vec<String> = ranges.iter().take(NAMED).map(|(_, low)| described(low)).collect();
    let more = match ranges.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let blocked: u64 = ranges.iter().map(|(_, low)| low.blocked).sum();
    let (what, hint) = if ranges.iter().any(|(_, low)| low.is_enforced) {
        (
            "are held back",
            "Somebody may be paid for each message to these: see otp_gateway.ranges, and who asks for them. If they \
            are people: SELECT otp_gateway.release(provider, range).",
        )
    } else {
        (
            "would be held back, and go",
            "Somebody may be paid for each message to these: see otp_gateway.ranges. ALTER SERVER ... OPTIONS (ADD \
            min_conversion '10%') holds them back; with enforce 'observe' it does not.",
        )
    };
    let detail = format!("{provider}: sends to {}{more} {what}; {blocked} so far", named.join(", "));
    let since: Option<Timestamp> = ranges.iter().map(|(_, low)| low.since).min();
    HealthCheck::bad(PUMPING, Level::Warning, detail, hint).valued(ranges.len() as f64).since(since)
}

/// Writes `+918144****** (2 of 55 typed in)`.
fn described(low: &LowConversion) -> String {
    let range = NumberRange::read(&low.range).map_or_else(|| low.range.clone(), |range| range.to_string());
    format!("{range} ({} of {} typed in)", low.counts.converted, low.counts.sends)
}
