//! Reads a verification as it is now, whatever the caller's snapshot and rights; what the caller may do with it is
//! checked here.

use dialect::{Operation, Outcome};
use policy::{Status, Timestamp};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::{Role, acting_owner, current_role, current_user, has_privileges_of, is_superuser, name_of},
        row::Row,
        scan::Key,
        values::quoted,
    },
    store::{
        columns::{attempt, verification as column},
        identity::{Identity, Kind, identities_of, object_of},
        scan::scan,
    },
};

/// What a session needs of a verification's row.
pub struct VerificationSnapshot {
    /// The provider's name at that time.
    pub provider: String,
    pub provider_id: Identity,
    pub vendor: String,
    pub status: Status,
    pub reference: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub route_id: Option<Identity>,
    pub send_count: u32,
    /// Whom the code goes to; None: nobody who is known, or the recipient was forgotten.
    pub recipient_key: Option<Vec<u8>>,
    pub approved_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    role_id: Identity,
    pub max_checks: u32,
    /// Whether the caller's own transaction, which has not ended, wrote the row.
    is_of_this_transaction: bool,
}

/// The verification that an idempotency key stands for.
pub struct KeyedVerification {
    pub id: Uuid,
    /// The place, in the key file, of the key under which it was found.
    pub key: usize,
    pub payload_hash: Vec<u8>,
}

/// Returns the role that began a verification, if the current role may act for it.
pub fn role_of(id: Uuid) -> Result<Option<Role>, Error> {
    let Some(recorded) = own(id)? else { return Ok(None) };
    let Some(oid) = object_of(recorded.role_id)? else { return Ok(None) };
    // The role may have been dropped.
    Ok(name_of(oid).map(|name| Role { oid, name }))
}

/// Returns a verification that others can see, too; fails if this transaction has enqueued it.
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

/// Returns the verification of that id. A verification of a role whose rights the caller lacks is not found, as if it
/// did not exist.
pub fn verification(id: Uuid) -> Result<VerificationSnapshot, Error> {
    own(id)?.ok_or_else(|| {
        Error::undefined_object(
            "there is no verification of that id",
            format!(
                "Give the verification_id that otp_send returned to your role, or that the row has after COMMIT: what \
                a transaction enqueued and then changed, deleted or rolled back is withdrawn, unsent. For a flow begun \
                elsewhere, otp_verify takes a provider.{}",
                may_act_for_hint()
            ),
        )
    })
}

/// Returns the verification of that id; None if there is none that the caller may act for.
pub fn own(id: Uuid) -> Result<Option<VerificationSnapshot>, Error> {
    let mut found = Ok(None);
    scan(c"verification_record", None, [Key::Uuid(column::ID, id)], |row| {
        // Asked first, so that the time taken does not tell of rows that are not the caller's.
        let role = row.get(column::ROLE_ID).unwrap_or_default();
        found = may_act_for(role).map(|may| may.then(|| recorded(row, role)));
    })?;
    found
}

/// Returns the latest verification since a time that an idempotency key of the current role stands for; `names` has the
/// key's fingerprint under each key of the key file. A role learns nothing of other roles' keys, and they take none
/// away from it.
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
    let wanted = [Key::Bytea(column::IDEMPOTENCY_KEY, name)];
    scan(c"verification_record", Some(c"verification_idempotency_key_idx"), wanted, |row| {
        let id = row.uuid(column::ID).unwrap_or_default();
        let created_at = row.time(column::CREATED_AT).unwrap_or_default();
        let is_later = created_at > since && latest.as_ref().is_none_or(|other| other.id < id);
        if is_later && row.get::<Identity>(column::ROLE_ID).is_some_and(|role| roles.contains(&role)) {
            let payload_hash = row.get(column::PAYLOAD_HASH).unwrap_or_default();
            *latest = Some(KeyedVerification { id, key, payload_hash });
        }
    })
}

/// Returns whether a send of ours began the verification. A flow begun elsewhere names a number, too, but nobody here
/// knows who got its code.
pub fn was_sent_here(id: Uuid) -> Result<bool, Error> {
    let mut was_sent = false;
    scan_attempts(id, |row| {
        let operation = row.get::<String>(attempt::OPERATION);
        was_sent |= operation.as_deref() == Some(Operation::Send.as_str());
    })?;
    Ok(was_sent)
}

/// Returns whether the vendor's latest answer was that the code has expired: also in words that no page lists, which
/// end no verification.
pub fn is_called_expired(id: Uuid) -> Result<bool, Error> {
    let mut latest: Option<(Uuid, Option<String>)> = None;
    scan_attempts(id, |row| {
        let Some(attempt) = row.get::<pgrx::datum::Uuid>(attempt::ID) else { return };
        let attempt = Uuid::from_bytes(*attempt.as_bytes());
        if latest.as_ref().is_none_or(|(before, _)| *before < attempt) {
            latest = Some((attempt, row.get::<String>(attempt::OUTCOME)));
        }
    })?;
    Ok(latest.is_some_and(|(_, outcome)| outcome.as_deref() == Some(Outcome::Expired.as_str())))
}

/// Scans the attempts of a verification, in no order.
fn scan_attempts(verification: Uuid, each: impl FnMut(Row)) -> Result<(), Error> {
    let wanted = [Key::Uuid(attempt::VERIFICATION_ID, verification)];
    scan(c"attempt_record", Some(c"attempt_verification_id_idx"), wanted, each)
}

/// Returns what a row of the table of verifications says.
fn recorded(row: Row, role_id: Identity) -> VerificationSnapshot {
    let status = row.get::<String>(column::STATUS).and_then(|label| Status::from_label(&label));
    VerificationSnapshot {
        provider: row.get(column::PROVIDER).unwrap_or_default(),
        provider_id: row.get(column::PROVIDER_ID).unwrap_or_default(),
        vendor: row.get(column::VENDOR).unwrap_or_default(),
        status: status.unwrap_or(Status::Unknown),
        reference: row.get(column::REFERENCE),
        sealed: row.get(column::SEALED),
        route_id: row.get(column::ROUTE_ID),
        send_count: row.get::<i32>(column::SEND_COUNT).unwrap_or(0).unsigned_abs(),
        recipient_key: row.get(column::RECIPIENT_KEY),
        approved_at: row.time(column::APPROVED_AT),
        expires_at: row.time(column::EXPIRES_AT),
        role_id,
        max_checks: row.get::<i32>(column::MAX_CHECKS).unwrap_or(0).unsigned_abs(),
        is_of_this_transaction: row.is_of_this_transaction(),
    }
}

/// Says, in a SECURITY DEFINER function, how to get the right to another role's verifications: that is more likely
/// missing than the verification.
fn may_act_for_hint() -> String {
    match acting_owner() {
        owner if owner.is_empty() => owner,
        owner => format!(
            "{owner} What another role began is found after GRANT <the role that began it> TO {}.",
            quoted(&current_role().name)
        ),
    }
}

/// Returns whether the current role has the rights of the role that began a verification, as it would have those of a
/// table's owner: a membership that inherits nothing, or only lets one administer the role, gives none. If that role
/// was dropped, only superusers may act for it.
fn may_act_for(role: Identity) -> Result<bool, Error> {
    Ok(match object_of(role)? {
        Some(role) => has_privileges_of(current_user(), role),
        None => is_superuser(current_user()),
    })
}
