//! The id of the key that seals in this database, on record in the database itself, so that pg_dump and pg_upgrade
//! carry it. If the file does not hold that key, nothing silently begins anew.

use std::rc::Rc;

use pgrx::{datum::DatumWithOid, pg_sys};

use crate::{
    crypto::{key_file, seal::Keys},
    error::Error,
    gucs,
    pg::{row::Row, values::text},
    store::{
        StoreTransaction,
        columns::sealing_key as column,
        prepared::statements,
        scan::{scan, scan_at_once},
        transaction::Failure,
    },
};

statements! {
    select_keys() "SELECT id FROM otp_gateway_internal.sealing_key"

    delete_keys() "DELETE FROM otp_gateway_internal.sealing_key"

    insert_key(pg_sys::TEXTOID) "INSERT INTO otp_gateway_internal.sealing_key (id) VALUES ($1)"
}

/// Returns the keys of the file, for a session; fails if those that this database needs are not among them.
pub fn keys() -> Result<Rc<Keys>, Error> {
    checked(|each| scan(c"sealing_key", None, [], each))
}

/// Returns the keys as [`keys`] does, but fails instead of waiting if somebody has the table locked.
pub fn keys_at_once() -> Result<Rc<Keys>, Error> {
    checked(|each| scan_at_once(c"sealing_key", [], each))
}

fn checked(read: impl FnOnce(&mut dyn FnMut(Row)) -> Result<(), Error>) -> Result<Rc<Keys>, Error> {
    let keys = key_file::keys()?;
    let mut needed = Vec::new();
    read(&mut |row| needed.extend(row.get::<String>(column::ID)))?;
    check(&keys, &needed)?;
    Ok(keys)
}

/// Fails if a needed key is missing. One key is needed; more if rows of two databases were brought together.
pub fn check(keys: &Keys, needed: &[String]) -> Result<(), Error> {
    match needed.iter().find(|id| !keys.ids().any(|held| held == **id)) {
        None => Ok(()),
        Some(missing) => Err(Error::not_in_prerequisite_state(
            format!(
                "this database was sealed under the key {missing}, which otp_gateway.key_file {} does not hold",
                gucs::key_file().display()
            ),
            "Add to it the lines of the otp_gateway.key_file of the server that this database comes from: pg_upgrade, \
            pg_dump and a standby do not bring the file along. If that key is lost for good: DELETE FROM \
            otp_gateway_internal.sealing_key; then what it sealed stays sealed, and limits, idempotency keys and \
            otp_gateway.find forget.",
        )),
    }
}

impl StoreTransaction<'_, '_> {
    pub fn sealing_keys(&mut self) -> Result<Vec<String>, Failure> {
        let table = self.client.update(&self.store.sealing_key.select_keys, None, &[])?;
        table.map(|row| Ok(row.get::<String>(1)?.unwrap_or_default())).collect()
    }

    /// Notes the key that seals from now on, in place of the keys before it, which the file still holds.
    pub fn note_sealing_key(&mut self, id: &str) -> Result<(), Failure> {
        self.client.update(&self.store.sealing_key.delete_keys, None, &[])?;
        let arguments: [DatumWithOid; 1] = [text(id)];
        self.client.update(&self.store.sealing_key.insert_key, None, &arguments)?;
        Ok(())
    }
}
