//! The one row that a session writes itself, in its caller's transaction: a queued verification.

use std::cell::{Cell, RefCell};

use pgrx::{
    Spi,
    datum::DatumWithOid,
    pg_sys::{self, PgOid},
    spi::{OwnedPreparedStatement, SpiError},
};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::ActsAs,
        values::{argument, number, text, time, uuid, uuids},
    },
    store::rows::NewVerification,
};

thread_local! {
    static PREPARED: RefCell<Option<OwnedPreparedStatement>> = const { RefCell::new(None) };
    /// A row is being written here, not one that comes from somewhere else.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Whether the row of the record that is being written is one that this process has queued.
pub fn is_queued_here() -> bool {
    WRITES.get()
}

/// Writes a queued verification with the rights of the table's owner: callers have none on the table.
pub fn insert_queued(row: NewVerification) -> Result<(), Error> {
    let _role = ActsAs::owner_of_the_record()?;
    let columns = columns(row);
    let names = columns.each_ref().map(|(name, _)| *name);
    let arguments = columns.map(|(_, value)| value);
    WRITES.set(true);
    let _written = Written;
    let written: Result<(), SpiError> = Spi::connect_mut(|client| {
        PREPARED.with_borrow_mut(|prepared| {
            let statement = match prepared.take() {
                Some(statement) => statement,
                None => {
                    let types = arguments.each_ref().map(|value| PgOid::from(value.oid()));
                    client.prepare_mut(insert(&names).as_str(), &types)?.keep()
                }
            };
            client.update(prepared.insert(statement) as &_, None, &arguments).map(|_| ())
        })
    });
    written.map_err(|error| Error::internal(format!("the verification could not be queued: {error}"), "Report it."))
}

/// A queued verification's columns; those that are the same in each stand in [`insert`].
fn columns(row: NewVerification) -> [(&'static str, DatumWithOid<'static>); 18] {
    let max_checks = i32::try_from(row.state.max_checks).unwrap_or(i32::MAX);
    let (keys, payloads) = row.idempotency.map(|one| (one.keys, one.payloads)).unwrap_or_default();
    let newest = |hashes: Vec<Vec<u8>>| argument(hashes.into_iter().next(), pg_sys::BYTEAOID);
    let (route, route_id) = row.route.unzip();
    [
        ("id", uuid(row.id)),
        ("provider", text(&row.provider)),
        ("vendor", text(&row.vendor)),
        ("recipient_masked", argument(row.recipient_masked, pg_sys::TEXTOID)),
        ("recipient_key", argument(row.recipient_key, pg_sys::BYTEAOID)),
        ("reference", argument(row.state.reference, pg_sys::TEXTOID)),
        ("created_by", text(&row.created_by)),
        ("created_at", time(row.created_at)),
        ("max_checks", argument(max_checks, pg_sys::INT4OID)),
        ("sealed", argument(row.sealed, pg_sys::BYTEAOID)),
        ("idempotency_key", newest(keys)),
        ("payload_hash", newest(payloads)),
        ("is_test", argument(row.is_test, pg_sys::BOOLOID)),
        ("route", argument(route, pg_sys::TEXTOID)),
        ("provider_id", number(row.provider_id)),
        ("role_id", number(row.role_id)),
        ("route_id", argument(route_id, pg_sys::INT8OID)),
        ("country", argument(row.country, pg_sys::INT4OID)),
    ]
}

fn insert(names: &[&str]) -> String {
    let places: Vec<_> = (1..=names.len()).map(|number| format!("${number}")).collect();
    format!(
        "INSERT INTO otp_gateway_internal.verification_record (status, send_count, check_count, {}) \
         VALUES ('queued', 0, 0, {})",
        names.join(", "),
        places.join(", "),
    )
}

/// Also after an error.
struct Written;

impl Drop for Written {
    fn drop(&mut self) {
        WRITES.set(false);
    }
}

/// Takes back queued verifications, before the transaction that queued them commits.
pub fn withdraw(ids: &[Uuid]) -> Result<(), Error> {
    let _role = ActsAs::owner_of_the_record()?;
    let taken: Result<(), SpiError> = Spi::connect_mut(|client| {
        let delete = "DELETE FROM otp_gateway_internal.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
        client.update(delete, None, &[uuids(ids)]).map(|_| ())
    });
    taken.map_err(|error| Error::internal(format!("queued sends could not be taken back: {error}"), "Report it."))
}
