//! Ids are ordered by time: the ids of a time, and the time of an id.

use policy::Timestamp;
use uuid::Uuid;

/// The microseconds between 1970, from which ids count, and 2000, from which Postgres counts.
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// The most milliseconds that an id can hold.
const MOST_MILLIS: u64 = (1 << 48) - 1;

/// Returns whether both are ids of ours (version 7), and `id` was made before `other`.
pub fn is_earlier(id: Uuid, other: Uuid) -> bool {
    [id, other].iter().all(|id| id.get_version_num() == 7) && id < other
}

/// Returns the smallest id of the time that lies `reach` milliseconds before that of `id`.
pub fn id_before(id: Uuid, reach: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis(id).saturating_sub(reach)) << 80)
}

/// Returns the smallest id of a time.
pub fn first_id_of(time: Timestamp) -> Uuid {
    let millis = u64::try_from(time.0.saturating_add(EPOCHS_APART) / 1000).unwrap_or(0).min(MOST_MILLIS);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// Returns the time at which an id was made, to the millisecond.
pub fn began(id: Uuid) -> Timestamp {
    Timestamp(millis(id) as i64 * 1000 - EPOCHS_APART)
}

fn millis(id: Uuid) -> u64 {
    (id.as_u128() >> 80) as u64
}
