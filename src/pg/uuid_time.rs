//! Ids are time-ordered: the ids of a time, and the time of an id.

use policy::Timestamp;
use uuid::Uuid;

/// Postgres counts from 2000, ids from 1970: so many microseconds lie between.
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// So many milliseconds an id can hold.
const MOST_MILLIS: u64 = (1 << 48) - 1;

/// Whether both are ids of ours, and `id` was made before `other`.
pub fn is_earlier(id: Uuid, other: Uuid) -> bool {
    [id, other].iter().all(|id| id.get_version_num() == 7) && id < other
}

/// The smallest id of a time before that of `id`, by `reach` milliseconds.
pub fn id_before(id: Uuid, reach: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis(id).saturating_sub(reach)) << 80)
}

/// The smallest id of a time.
pub fn first_id_of(time: Timestamp) -> Uuid {
    let millis = u64::try_from(time.0.saturating_add(EPOCHS_APART) / 1000).unwrap_or(0).min(MOST_MILLIS);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// When what has this id began, to the millisecond.
pub fn began(id: Uuid) -> Timestamp {
    Timestamp(millis(id) as i64 * 1000 - EPOCHS_APART)
}

fn millis(id: Uuid) -> u64 {
    (id.as_u128() >> 80) as u64
}
