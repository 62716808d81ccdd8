//! Reading a verification as it is now, whatever the caller's snapshot and rights: what the caller may do with it is
//! checked here.

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, pg_sys};
use policy::{Micros, Status, Verification};
use uuid::Uuid;

use crate::{ledger::layout::verification as column, letter::Done, misuse::Misuse};

/// What a session needs of a verification's row.
pub struct Recorded {
    pub provider: String,
    pub vendor: String,
    pub status: Status,
    pub reference: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub route: Option<String>,
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

/// The verification of that id. One of a role that the caller is no member of is not found, like one that is not there.
pub fn verification(id: Uuid) -> Result<Recorded, Misuse> {
    let found = by_id(id)?.filter(|(_, created_by)| may_act_for(created_by));
    found.map(|(recorded, _)| recorded).ok_or_else(|| {
        Misuse::undefined(
            "there is no verification of that id",
            "Give the verification_id that otp_send returned to your role; for a flow begun elsewhere, otp_verify takes a provider.",
        )
    })
}

/// The verification that an idempotency key of the current role, by any of its names, stands for: the latest since then.
/// Of others' keys a role learns nothing, and they take none away from it.
pub fn find_by_key(names: &[Vec<u8>], since: Micros) -> Result<Option<Keyed>, Misuse> {
    let role = current_role().name;
    let mut latest = None;
    for (key, name) in names.iter().enumerate() {
        find_by_name(key, name, since, &role, &mut latest)?;
    }
    Ok(latest)
}

fn find_by_name(key: usize, name: &[u8], since: Micros, role: &str, latest: &mut Option<Keyed>) -> Result<(), Misuse> {
    let wanted = [equal(column::IDEMPOTENCY_KEY, pg_sys::F_BYTEAEQ, name.into_datum())];
    scan(Some(c"verification_idempotency_key_idx"), wanted, |row| {
        // SAFETY: the columns are of these types.
        let (id, created_at, payload_hash, created_by) = unsafe {
            (
                row.value::<pgrx::datum::Uuid>(column::ID),
                row.datum(column::CREATED_AT).map_or(0, |time| time.value() as Micros),
                row.value::<Vec<u8>>(column::PAYLOAD_HASH).unwrap_or_default(),
                row.name(column::CREATED_BY),
            )
        };
        let id = id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
        let is_later = created_at > since && latest.as_ref().is_none_or(|other| other.id < id);
        if is_later && created_by == role {
            *latest = Some(Keyed { id, key, payload_hash });
        }
    })
}

fn by_id(id: Uuid) -> Result<Option<(Recorded, String)>, Misuse> {
    let id = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
    let mut found = None;
    scan(None, [equal(column::ID, pg_sys::F_UUID_EQ, id)], |row| {
        // SAFETY: the columns are of these types.
        found = Some(unsafe {
            let recorded = Recorded {
                provider: row.value(column::PROVIDER).unwrap_or_default(),
                vendor: row.value(column::VENDOR).unwrap_or_default(),
                status: row
                    .value::<String>(column::STATUS)
                    .and_then(|label| Status::from_label(&label))
                    .unwrap_or(Status::Unknown),
                reference: row.value(column::REFERENCE),
                sealed: row.value(column::SEALED),
                route: row.value(column::ROUTE),
                max_checks: row.value::<i32>(column::MAX_CHECKS).unwrap_or(0).unsigned_abs(),
                is_of_this_transaction: is_of_this_transaction(row.tuple),
            };
            (recorded, row.name(column::CREATED_BY))
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

fn equal(column: usize, function: u32, value: Option<pg_sys::Datum>) -> pg_sys::ScanKeyData {
    let mut key = pg_sys::ScanKeyData::default();
    // SAFETY: the function is the equality of the column's type.
    unsafe {
        pg_sys::ScanKeyInit(
            &mut key,
            column as i16,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(function),
            value.unwrap_or(pg_sys::Datum::from(0)),
        );
    }
    key
}

/// Scans an index (none: the primary key) with the latest snapshot: a REPEATABLE READ transaction must see what the
/// worker has recorded for it since it began.
fn scan<const N: usize>(
    index: Option<&CStr>,
    mut keys: [pg_sys::ScanKeyData; N],
    mut each: impl FnMut(&TupleValues),
) -> Result<(), Misuse> {
    // SAFETY: relation, scan and snapshot are opened and closed in order; an error in between aborts the statement,
    // which releases them. Values are copied out before the scan ends. The lock is released at once, so that a
    // transaction that stays open does not hold up DROP EXTENSION.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true);
        let table = pg_sys::get_relname_relid(c"verification_record".as_ptr(), schema);
        if table == pg_sys::InvalidOid {
            return Err(Misuse::not_installed());
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let index = match index {
            Some(name) => pg_sys::get_relname_relid(name.as_ptr(), schema),
            #[cfg(not(feature = "pg18"))]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation),
            #[cfg(feature = "pg18")]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation, false),
        };
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let uses_index = index != pg_sys::InvalidOid;
        let scan = pg_sys::systable_beginscan(relation, index, uses_index, snapshot, N as i32, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&TupleValues { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, lock);
        Ok(())
    }
}

struct TupleValues {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl TupleValues {
    /// # Safety
    /// The tuple is the scan's current one.
    unsafe fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: as the caller promises.
        let datum = unsafe { pg_sys::heap_getattr(self.tuple, column as i32, self.descriptor, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// # Safety
    /// The tuple is the scan's current one, and the column is of type name.
    unsafe fn name(&self, column: usize) -> String {
        // SAFETY: as the caller promises; a name is a C string.
        let name = unsafe { self.datum(column) };
        // SAFETY: as above.
        name.map(|name| unsafe { CStr::from_ptr(name.cast_mut_ptr()) }.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// # Safety
    /// The tuple is the scan's current one, and the column is of a type that T reads and copies.
    unsafe fn value<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: as the caller promises.
        unsafe { T::from_datum(self.datum(column)?, false) }
    }
}

/// Whether the current role is, or is a member of, the one that began a verification.
fn may_act_for(created_by: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(created_by) else { return false };
    // SAFETY: look-ups in the catalog; a role that was dropped has no OID, and then only superusers may.
    unsafe {
        let role = pg_sys::get_role_oid(name.as_ptr(), true);
        if role == pg_sys::InvalidOid {
            pg_sys::superuser()
        } else {
            pg_sys::is_member_of_role(pg_sys::GetUserId(), role)
        }
    }
}
