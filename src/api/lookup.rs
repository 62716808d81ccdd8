//! Reading a verification as it is now, whatever the caller's snapshot and rights: what the caller may do with it is
//! checked here.

use std::ffi::CStr;

use pgrx::{IntoDatum, pg_sys};
use policy::{Micros, Status, Verification};
use uuid::Uuid;

use crate::{
    identity::{Identity, Kind, identities_of, object_of},
    ledger::{
        layout::verification as column,
        scan::{equal, scan},
    },
    letter::Done,
    misuse::Misuse,
};

/// What a session needs of a verification's row.
pub struct Recorded {
    /// What it was called then.
    pub provider: String,
    pub provider_id: Identity,
    pub vendor: String,
    pub status: Status,
    pub reference: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub route_id: Option<Identity>,
    pub send_count: u32,
    max_checks: u32,
    /// Written by the caller's own transaction, which has not ended.
    is_of_this_transaction: bool,
}

impl Recorded {
    /// The row as it is while the send has no outcome.
    pub fn done(self, id: Uuid) -> Done {
        Done::without_attempt(
            id,
            &Verification { status: self.status, reference: self.reference, ..Verification::queued(self.max_checks) },
        )
    }
}

/// What an idempotency key stands for.
pub struct Keyed {
    pub id: Uuid,
    /// Under which of the key's names it was found.
    pub key: usize,
    pub payload_hash: Vec<u8>,
}

/// The role that is in force (in a SECURITY DEFINER function, its owner).
pub struct Role {
    pub oid: pg_sys::Oid,
    pub name: String,
}

pub fn current_role() -> Role {
    // SAFETY: the current role exists for as long as this statement runs.
    unsafe {
        let oid = pg_sys::GetUserId();
        let name = CStr::from_ptr(pg_sys::GetUserNameFromId(oid, false)).to_string_lossy().into_owned();
        Role { oid, name }
    }
}

/// The same, of what others can see.
pub fn committed(id: Uuid) -> Result<Recorded, Misuse> {
    let recorded = verification(id)?;
    if recorded.is_of_this_transaction {
        return Err(Misuse::not_ready(
            "this transaction enqueued the verification, and nothing is sent before its COMMIT",
            "COMMIT first.",
        ));
    }
    Ok(recorded)
}

/// The verification of that id. One of a role whose rights the caller does not have is not found, like one that is not there.
pub fn verification(id: Uuid) -> Result<Recorded, Misuse> {
    if let Some((recorded, role)) = by_id(id)?
        && may_act_for(role)?
    {
        return Ok(recorded);
    }
    Err(Misuse::undefined(
        "there is no verification of that id",
        "Give the verification_id that otp_send returned to your role; for a flow begun elsewhere, otp_verify takes a provider.",
    ))
}

/// The verification that an idempotency key of the current role, by any of its names, stands for: the latest since then.
/// Of others' keys a role learns nothing, and they take none away from it.
pub fn find_by_key(names: &[Vec<u8>], since: Micros) -> Result<Option<Keyed>, Misuse> {
    let roles = identities_of(Kind::Role, current_role().oid)?;
    let mut latest = None;
    for (key, name) in names.iter().enumerate() {
        find_by_name(key, name, since, &roles, &mut latest)?;
    }
    Ok(latest)
}

fn find_by_name(
    key: usize,
    name: &[u8],
    since: Micros,
    roles: &[Identity],
    latest: &mut Option<Keyed>,
) -> Result<(), Misuse> {
    let wanted = [equal(column::IDEMPOTENCY_KEY, pg_sys::F_BYTEAEQ, name.into_datum())];
    scan(c"verification_record", Some(c"verification_idempotency_key_idx"), wanted, |row| {
        // SAFETY: the columns are of these types.
        let (id, created_at, payload_hash, role) = unsafe {
            (
                row.value::<pgrx::datum::Uuid>(column::ID),
                row.datum(column::CREATED_AT).map_or(0, |time| time.value() as Micros),
                row.value::<Vec<u8>>(column::PAYLOAD_HASH).unwrap_or_default(),
                row.value::<Identity>(column::ROLE_ID),
            )
        };
        let id = id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
        let is_later = created_at > since && latest.as_ref().is_none_or(|other| other.id < id);
        if is_later && role.is_some_and(|role| roles.contains(&role)) {
            *latest = Some(Keyed { id, key, payload_hash });
        }
    })
}

fn by_id(id: Uuid) -> Result<Option<(Recorded, Identity)>, Misuse> {
    let id = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
    let mut found = None;
    scan(c"verification_record", None, [equal(column::ID, pg_sys::F_UUID_EQ, id)], |row| {
        // SAFETY: the columns are of these types.
        found = Some(unsafe {
            let recorded = Recorded {
                provider: row.value(column::PROVIDER).unwrap_or_default(),
                provider_id: row.value(column::PROVIDER_ID).unwrap_or_default(),
                vendor: row.value(column::VENDOR).unwrap_or_default(),
                status: row
                    .value::<String>(column::STATUS)
                    .and_then(|label| Status::from_label(&label))
                    .unwrap_or(Status::Unknown),
                reference: row.value(column::REFERENCE),
                sealed: row.value(column::SEALED),
                route_id: row.value(column::ROUTE_ID),
                send_count: row.value::<i32>(column::SEND_COUNT).unwrap_or(0).unsigned_abs(),
                max_checks: row.value::<i32>(column::MAX_CHECKS).unwrap_or(0).unsigned_abs(),
                is_of_this_transaction: is_of_this_transaction(row.tuple),
            };
            (recorded, row.value(column::ROLE_ID).unwrap_or_default())
        });
    })?;
    Ok(found)
}

/// Whether this very transaction, or a subtransaction of it, wrote the row.
///
/// # Safety
/// The tuple is a scan's current one.
unsafe fn is_of_this_transaction(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: as the caller promises. The number of a frozen row may have come round again.
    unsafe {
        let header = &*(*tuple).t_data;
        let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
        header.t_infomask & frozen != frozen
            && pg_sys::TransactionIdIsCurrentTransactionId(header.t_choice.t_heap.t_xmin)
    }
}

/// Whether the current role has the rights of the one that began a verification, as it has those of a table's owner: a
/// membership that inherits nothing, or lets one administer the role, gives none. For one that was dropped, only
/// superusers may.
fn may_act_for(role: Identity) -> Result<bool, Misuse> {
    let role = object_of(role)?;
    // SAFETY: look-ups in the catalog.
    Ok(unsafe {
        match role {
            Some(role) => pg_sys::has_privs_of_role(pg_sys::GetUserId(), role),
            None => pg_sys::superuser(),
        }
    })
}
