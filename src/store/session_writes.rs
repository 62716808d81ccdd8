//! The rows that a session writes itself, in its caller's transaction: queued verifications.

use std::cell::RefCell;

use pgrx::{Spi, spi::SpiError};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::ActsAs,
        row_array::RowType,
        table_write,
        values::{Transaction, uuids},
    },
    store::{columns::verification, rows::NewVerification, scan::table_of_this_version, verifications},
};

thread_local! {
    /// The table's columns: the extension may be dropped and made anew in one session.
    static TABLE: RefCell<Option<RowType>> = const { RefCell::new(None) };
}

/// Writes a queued verification, of this transaction, whatever the caller's rights on the table: they have none.
pub fn insert_queued(row: &NewVerification) -> Result<(), Error> {
    let table = table_of_this_version(c"verification_record")?;
    let known = TABLE.take().filter(|known| known.relation() == table);
    let of = known.unwrap_or_else(|| RowType::of(table));
    table_write::insert(&of, std::slice::from_ref(row), |row, columns| {
        verifications::fill(row, columns);
        columns.transaction(verification::ENQUEUED, Transaction::current());
    });
    TABLE.set(Some(of));
    Ok(())
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
