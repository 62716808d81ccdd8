//! Reading a verification as it is now, whatever the caller's snapshot and rights: what the caller may do with it is
//! checked here.

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, pg_sys};
use policy::{Status, Verification};
use uuid::Uuid;

use crate::{ledger::layout::verification as column, letter::Done, misuse::Misuse};

/// What a session needs of a verification's row.
pub struct Recorded {
    pub provider: String,
    pub vendor: String,
    pub status: Status,
    pub reference: Option<String>,
    pub sealed: Option<Vec<u8>>,
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
fn verification(id: Uuid) -> Result<Recorded, Misuse> {
    let found = scan(id)?.filter(|(_, created_by)| may_act_for(created_by));
    found.map(|(recorded, _)| recorded).ok_or_else(|| {
        Misuse::undefined(
            "there is no verification of that id",
            "Give the verification_id that otp_send returned to your role; for a flow begun elsewhere, otp_verify takes a provider.",
        )
    })
}

/// Scans the primary key with the latest snapshot: a REPEATABLE READ transaction must see what the worker has recorded
/// for it since it began.
fn scan(id: Uuid) -> Result<Option<(Recorded, String)>, Misuse> {
    let key = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum().unwrap_or(pg_sys::Datum::from(0));
    // SAFETY: relation, scan and snapshot are opened and closed in order; an error in between aborts the statement,
    // which releases them. Values are copied out before the scan ends. The lock is released at once, so that a
    // transaction that stays open does not hold up DROP EXTENSION.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true);
        let table = pg_sys::get_relname_relid(c"verification".as_ptr(), schema);
        if table == pg_sys::InvalidOid {
            return Err(Misuse::not_installed());
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        #[cfg(not(feature = "pg18"))]
        let index = pg_sys::RelationGetPrimaryKeyIndex(relation);
        #[cfg(feature = "pg18")]
        let index = pg_sys::RelationGetPrimaryKeyIndex(relation, false);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let mut scan_key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut scan_key,
            column::ID as i16,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_UUID_EQ),
            key,
        );
        let scan = pg_sys::systable_beginscan(relation, index, true, snapshot, 1, &mut scan_key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let row = TupleValues { tuple, descriptor: (*relation).rd_att };
            let recorded = Recorded {
                provider: row.value(column::PROVIDER).unwrap_or_default(),
                vendor: row.value(column::VENDOR).unwrap_or_default(),
                status: row
                    .value::<String>(column::STATUS)
                    .and_then(|label| Status::from_label(&label))
                    .unwrap_or(Status::Unknown),
                reference: row.value(column::REFERENCE),
                sealed: row.value(column::SEALED),
                max_checks: row.value::<i32>(column::MAX_CHECKS).unwrap_or(0).unsigned_abs(),
                is_of_this_transaction: pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::HeapTupleHeaderGetRawXmin(
                    (*tuple).t_data,
                )),
            };
            let created_by = row
                .datum(column::CREATED_BY)
                .map(|name| CStr::from_ptr(name.cast_mut_ptr()).to_string_lossy().into_owned())
                .unwrap_or_default();
            (recorded, created_by)
        });
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, lock);
        Ok(found)
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
