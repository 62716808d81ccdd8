//! The cluster that queued sends of this database are sealed for: the one that it was made in, wherever pg_upgrade has
//! taken it since. A dump and a database made from a template are of another, and send nothing that was queued before.

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{database, values::argument},
    store::{StoreTransaction, columns::queue_home as column, prepared::statements, scan::scan, transaction::Failure},
};

statements! {
    // A database made from a template has the row of the template alone.
    insert_home(pg_sys::OIDOID, pg_sys::INT8OID)
      "INSERT INTO otp_gateway_internal.queue_home (database, cluster) SELECT $1, $2
       WHERE NOT EXISTS (SELECT FROM otp_gateway_internal.queue_home AS h WHERE h.database OPERATOR(pg_catalog.=) $1)"
}

/// In a transaction. Of the rows the one of this database in this cluster comes first: replication may have brought
/// others.
pub fn queue_home() -> Result<u64, Error> {
    let here = database::system_identifier();
    let mut homes = Vec::new();
    scan(c"queue_home", None, [], |row| {
        if row.get::<pg_sys::Oid>(column::DATABASE) == Some(database::current()) {
            homes.extend(row.get::<i64>(column::CLUSTER).map(i64::cast_unsigned));
        }
    })?;
    Ok(homes.iter().copied().find(|home| *home == here).or(homes.first().copied()).unwrap_or(here))
}

impl StoreTransaction<'_, '_> {
    pub fn note_queue_home(&mut self) -> Result<(), Failure> {
        let arguments = [
            argument(database::current(), pg_sys::OIDOID),
            argument(database::system_identifier().cast_signed(), pg_sys::INT8OID),
        ];
        self.client.update(&self.store.queue_home.insert_home, None, &arguments)?;
        Ok(())
    }
}
