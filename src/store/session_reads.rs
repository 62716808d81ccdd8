//! Reading a verification as it is now, whatever the caller's snapshot and rights: what the caller may do with it is
//! checked here.

use std::ffi::CStr;

use dialect::Operation;
use pgrx::{IntoDatum, pg_sys};
use policy::{Status, Timestamp};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::{Role, current_role},
        scan::{TupleValues, equal, is_of_this_transaction},
    },
    store::{
        columns::{attempt, verification as column},
        identity::{Identity, Kind, identities_of, object_of},
        scan::scan,
    },
};

/// What a session needs of a verification's row.
pub struct VerificationSnapshot {
    /// What it was called then.
    pub provider: String,
    pub provider_id: Identity,
    pub vendor: String,
    pub status: Status,
    pub reference: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub route_id: Option<Identity>,
    pub send_count: u32,
    /// Whom the code goes to; None: nobody that is known, or they were forgotten.
    pub recipient_key: Option<Vec<u8>>,
    pub approved_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    role_id: Identity,
    pub max_checks: u32,
    /// Written by the caller's own transaction, which has not ended.
    is_of_this_transaction: bool,
}

/// What an idempotency key stands for.
pub struct KeyedVerification {
    pub id: Uuid,
    /// Under which of the key's names it was found.
    pub key: usize,
    pub payload_hash: Vec<u8>,
}

/// The role that began a verification, if the current one may act for it.
pub fn role_of(id: Uuid) -> Result<Option<Role>, Error> {
    let Some(recorded) = own(id)? else { return Ok(None) };
    let Some(oid) = object_of(recorded.role_id)? else { return Ok(None) };
    // SAFETY: a look-up in the catalog; the role may have been dropped.
    let name = unsafe { pg_sys::GetUserNameFromId(oid, true) };
    // SAFETY: a C string, if it is there.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    Ok(name.map(|name| Role { oid, name }))
}

/// The same, of what others can see.
pub fn committed(id: Uuid) -> Result<VerificationSnapshot, Error> {
    let recorded = verification(id)?;
    if recorded.is_of_this_transaction {
        return Err(Error::not_in_prerequisite_state(
            "this transaction enqueued the verification, and nothing is sent before its COMMIT",
            "COMMIT first.",
        ));
    }
    Ok(recorded)
}

/// The verification of that id. One of a role whose rights the caller does not have is not found, like one that is not
/// there.
pub fn verification(id: Uuid) -> Result<VerificationSnapshot, Error> {
    own(id)?.ok_or_else(|| {
        Error::undefined_object(
            "there is no verification of that id",
            "Give the verification_id that otp_send returned to your role; for a flow begun elsewhere, otp_verify \
            takes a provider.",
        )
    })
}

/// The same, where none is no error.
pub fn own(id: Uuid) -> Result<Option<VerificationSnapshot>, Error> {
    let id = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
    let mut found = Ok(None);
    scan(c"verification_record", None, [equal(column::ID, pg_sys::F_UUID_EQ, id)], |row| {
        // First: the time is not to tell of rows that are not the caller's.
        // SAFETY: the column is of this type.
        let role = unsafe { row.value(column::ROLE_ID) }.unwrap_or_default();
        // SAFETY: the columns are of the types that they are read as.
        found = may_act_for(role).map(|may| may.then(|| unsafe { recorded(row, role) }));
    })?;
    found
}

/// The verification that an idempotency key of the current role, by any of its names, stands for: the latest since
/// then. Of others' keys a role learns nothing, and they take none away from it.
pub fn find_by_key(names: &[Vec<u8>], since: Timestamp) -> Result<Option<KeyedVerification>, Error> {
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
    since: Timestamp,
    roles: &[Identity],
    latest: &mut Option<KeyedVerification>,
) -> Result<(), Error> {
    let wanted = [equal(column::IDEMPOTENCY_KEY, pg_sys::F_BYTEAEQ, name.into_datum())];
    scan(c"verification_record", Some(c"verification_idempotency_key_idx"), wanted, |row| {
        // SAFETY: the columns are of these types.
        let (id, created_at, payload_hash, role) = unsafe {
            (
                row.value::<pgrx::datum::Uuid>(column::ID),
                row.datum(column::CREATED_AT).map_or_else(Timestamp::default, |time| Timestamp(time.value() as i64)),
                row.value::<Vec<u8>>(column::PAYLOAD_HASH).unwrap_or_default(),
                row.value::<Identity>(column::ROLE_ID),
            )
        };
        let id = id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
        let is_later = created_at > since && latest.as_ref().is_none_or(|other| other.id < id);
        if is_later && role.is_some_and(|role| roles.contains(&role)) {
            *latest = Some(KeyedVerification { id, key, payload_hash });
        }
    })
}

/// Whether a send of ours began a verification. A flow begun elsewhere names a number, too, and nobody here knows who
/// got its code.
pub fn was_sent_here(id: Uuid) -> Result<bool, Error> {
    let id = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
    let mut was_sent = false;
    let wanted = [equal(attempt::VERIFICATION_ID, pg_sys::F_UUID_EQ, id)];
    scan(c"attempt_record", Some(c"attempt_verification_id_idx"), wanted, |row| {
        // SAFETY: the column is of this type.
        let operation = unsafe { row.value::<String>(attempt::OPERATION) };
        was_sent |= operation.as_deref() == Some(Operation::Send.as_str());
    })?;
    Ok(was_sent)
}

/// # Safety
/// A row of the table of verifications, the current one of a scan.
unsafe fn recorded(row: &TupleValues, role_id: Identity) -> VerificationSnapshot {
    // SAFETY: as the caller promises.
    unsafe {
        VerificationSnapshot {
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
            recipient_key: row.value(column::RECIPIENT_KEY),
            approved_at: row.datum(column::APPROVED_AT).map(|time| Timestamp(time.value() as i64)),
            expires_at: row.datum(column::EXPIRES_AT).map(|time| Timestamp(time.value() as i64)),
            role_id,
            max_checks: row.value::<i32>(column::MAX_CHECKS).unwrap_or(0).unsigned_abs(),
            is_of_this_transaction: is_of_this_transaction(row.tuple),
        }
    }
}

/// Whether the current role has the rights of the one that began a verification, as it has those of a table's owner: a
/// membership that inherits nothing, or lets one administer the role, gives none. For one that was dropped, only
/// superusers may.
fn may_act_for(role: Identity) -> Result<bool, Error> {
    let role = object_of(role)?;
    // SAFETY: look-ups in the catalog.
    Ok(unsafe {
        match role {
            Some(role) => pg_sys::has_privs_of_role(pg_sys::GetUserId(), role),
            None => pg_sys::superuser(),
        }
    })
}
