//! The one row that a session writes itself, in its caller's transaction: a queued verification.

use std::cell::{Cell, RefCell};

use pgrx::{
    Spi,
    pg_sys::{self, PgOid},
    spi::{OwnedPreparedStatement, SpiError},
};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::ActsAs,
        values::{argument, pg_uuid, text, time, uuids},
    },
    store::rows::NewVerification,
};

const INSERT: &str = "
    INSERT INTO otp_gateway_internal.verification_record
        (id, provider, vendor, status, recipient_masked, recipient_key, reference, created_by, created_at, send_count,
         check_count, max_checks, sealed, idempotency_key, payload_hash, is_test, route, provider_id, role_id, route_id)
    VALUES ($1, $2, $3, 'queued', $4, $5, $6, pg_catalog.name($7), $8, 0, 0, $9, $10, $11, $12, $13, $14, $15, $16, \
    $17)";

const TYPES: [pg_sys::Oid; 17] = [
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::BYTEAOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::INT4OID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
    pg_sys::BOOLOID,
    pg_sys::TEXTOID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
];

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
    let max_checks = i32::try_from(row.state.max_checks).unwrap_or(i32::MAX);
    let arguments = [
        argument(pg_uuid(row.id), TYPES[0]),
        text(&row.provider),
        text(&row.vendor),
        argument(row.recipient_masked, TYPES[3]),
        argument(row.recipient_key, TYPES[4]),
        argument(row.state.reference, TYPES[5]),
        text(&row.created_by),
        time(row.created_at),
        argument(max_checks, TYPES[8]),
        argument(row.sealed, TYPES[9]),
        argument(row.idempotency.as_ref().and_then(|one| one.keys.first().cloned()), TYPES[10]),
        argument(row.idempotency.and_then(|one| one.payloads.into_iter().next()), TYPES[11]),
        argument(row.is_test, TYPES[12]),
        argument(row.route.as_ref().map(|(name, _)| name.clone()), TYPES[13]),
        argument(row.provider_id, TYPES[14]),
        argument(row.role_id, TYPES[15]),
        argument(row.route.map(|(_, id)| id), TYPES[16]),
    ];
    WRITES.set(true);
    let _written = Written;
    let written: Result<(), SpiError> = Spi::connect_mut(|client| {
        PREPARED.with_borrow_mut(|prepared| {
            let statement = match prepared.take() {
                Some(statement) => statement,
                None => client.prepare_mut(INSERT, &TYPES.map(PgOid::from))?.keep(),
            };
            client.update(prepared.insert(statement) as &_, None, &arguments).map(|_| ())
        })
    });
    written.map_err(|error| Error::internal(format!("the verification could not be queued: {error}"), "Report it."))
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
