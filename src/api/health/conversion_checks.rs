//! Whether the codes that go out are typed in: what the worker has found, as it is on record.

use policy::{NumberRange, Timestamp};

use crate::{
    api::health::{HealthCheck, Level},
    pg::clock::clock,
    store::glance::{self, SeenLowConversion},
};

const CONVERSION: &str = "conversion";
const PUMPING: &str = "pumping";
/// Of more ranges it is said how many there are.
const NAMED: usize = 3;

/// For each of the two a row for each provider where it is not well, or one for all.
pub fn conversion() -> Vec<HealthCheck> {
    let Ok(mut all) = glance::low_conversions(clock()) else {
        return vec![HealthCheck::locked(CONVERSION), HealthCheck::locked(PUMPING)];
    };
    all.sort_by(|a, b| (&a.provider, a.since, &a.range).cmp(&(&b.provider, b.since, &b.range)));
    let (of_providers, of_ranges): (Vec<_>, Vec<_>) = all.into_iter().partition(|low| low.range.is_empty());
    let mut checks: Vec<HealthCheck> = of_providers.iter().map(slump).collect();
    if checks.is_empty() {
        checks.push(HealthCheck::ok(CONVERSION, "codes are typed in as usual, as far as there are enough to tell"));
    }
    let of_each = of_ranges.chunk_by(|a, b| a.provider == b.provider);
    let held: Vec<HealthCheck> = of_each.map(pumping).collect();
    if held.is_empty() {
        checks.push(HealthCheck::ok(PUMPING, "no range of numbers is held back, or would be"));
    }
    checks.extend(held);
    checks
}

/// `+918144******`.
fn shown(range: &str) -> String {
    NumberRange::read(range).map_or_else(|| range.to_owned(), |range| range.to_string())
}

fn slump(low: &SeenLowConversion) -> HealthCheck {
    let detail = format!(
        "{}: {} of the {} codes of the last hour were typed in, and {:.0}% of those before",
        low.provider,
        low.converted,
        low.sends,
        low.usual * 100.0
    );
    let hint = "Most codes do not arrive, though the vendor says sent: ask it about its operators, templates and the \
        sender's registration. otp_gateway.ranges says whether it is some numbers or all.";
    HealthCheck::bad(CONVERSION, Level::Warning, detail, hint)
        .valued(f64::from(low.converted) / f64::from(low.sends.max(1)))
        .since(Some(low.since))
}

fn pumping(ranges: &[SeenLowConversion]) -> HealthCheck {
    let range =
        |low: &SeenLowConversion| format!("{} ({} of {} typed in)", shown(&low.range), low.converted, low.sends);
    let named: Vec<String> = ranges.iter().take(NAMED).map(range).collect();
    let more = match ranges.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let is_enforced = ranges.iter().any(|low| low.is_enforced);
    let (blocked, provider) = (ranges.iter().map(|low| low.blocked).sum::<i64>(), &ranges[0].provider);
    let (what, hint) = if is_enforced {
        (
            "are held back",
            "Somebody may be paid for each message to these: see otp_gateway.ranges and who asks for them. If they \
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
    let since: Option<Timestamp> = ranges.iter().map(|low| low.since).min();
    HealthCheck::bad(PUMPING, Level::Warning, detail, hint).valued(ranges.len() as f64).since(since)
}
