//! Finds the name that a mistyped name stands for.

use strsim::osa_distance;

use crate::payload::field::plain;

/// Returns the candidate that a mistyped name most likely means; None if no candidate is near enough.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 63 {
        return None;
    }
    let wanted = plain(name);
    let reach = (wanted.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (osa_distance(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
