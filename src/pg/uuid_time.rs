//! Ids are time-ordered: the ids of a time.

use policy::Micros;
use uuid::Uuid;

/// Whether both are ids of ours, and `id` was made before `other`.
pub fn is_earlier(id: Uuid, other: Uuid) -> bool {
    [id, other].iter().all(|id| id.get_version_num() == 7) && id < other
}

/// The smallest id of a time before that of `id`, by `reach` milliseconds.
pub fn id_before(id: Uuid, reach: u64) -> Uuid {
    let millis = (id.as_u128() >> 80) as u64;
    Uuid::from_u128(u128::from(millis.saturating_sub(reach)) << 80)
}

/// The smallest id of a time.
pub fn first_id_of(time: Micros) -> Uuid {
    /// Postgres counts from 2000, ids from 1970.
    const EPOCHS_APART: Micros = 946_684_800_000_000;
    let millis = u64::try_from(time.saturating_add(EPOCHS_APART) / 1000).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}
