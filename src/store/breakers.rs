//! Breakers that are open: on record for whoever looks, and for the worker after this one.

use dialect::Outcome;
use pgrx::pg_sys;
use policy::Timestamp;

use crate::{
    error::Error,
    pg::{
        relation::of_extension,
        row::Row,
        scan::{By, Key, scan_table},
        values::{self, argument},
    },
    store::{
        StoreTransaction, columns::breaker as column, prepared::statements, scan::scan_at_once, transaction::Failure,
    },
};

statements! {
    open_breaker(
        pg_sys::OIDOID, pg_sys::OIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID,
        pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::BYTEAOID
    )
      "INSERT INTO otp_gateway_internal.breaker
         (server, mapping, open_until, opened_at, failed_at, outcome, vendor_code, configuration)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
       ON CONFLICT (server, mapping) DO UPDATE
       SET open_until = excluded.open_until, opened_at = excluded.opened_at, failed_at = excluded.failed_at,
         outcome = excluded.outcome, vendor_code = excluded.vendor_code, configuration = excluded.configuration"

    close_breaker(pg_sys::OIDOID, pg_sys::OIDOID)
      "DELETE FROM otp_gateway_internal.breaker
       WHERE server OPERATOR(pg_catalog.=) $1 AND mapping OPERATOR(pg_catalog.=) $2"

    close_past_breakers()
      "DELETE FROM otp_gateway_internal.breaker
       WHERE open_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
}

/// A breaker that is open, and why.
pub struct OpenBreaker {
    /// When the breaker first opened; since then no probe has found the provider well.
    pub opened_at: Timestamp,
    /// When the last call failed.
    pub failed_at: Timestamp,
    /// When the next call is let through, as a probe.
    pub open_until: Timestamp,
    pub outcome: Outcome,
    pub vendor_code: Option<String>,
    /// The fingerprint of what the account's calls depended on: it differs once somebody has mended that.
    pub configuration: Vec<u8>,
}

/// Returns the breaker of an account, as a session reads it, whatever its rights, without waiting for a lock. Returns
/// None if the breaker is closed.
pub fn open_breaker(server: pg_sys::Oid, mapping: pg_sys::Oid) -> Result<Option<OpenBreaker>, Error> {
    let mut found = None;
    let keys = [Key::Oid(column::SERVER, server), Key::Oid(column::MAPPING, mapping)];
    scan_at_once(c"breaker", keys, |row| found = read(row))?;
    Ok(found)
}

/// Returns the account of a breaker's row: server and mapping.
pub fn account(row: Row) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    Some((row.get(column::SERVER)?, row.get(column::MAPPING)?))
}

pub fn read(row: Row) -> Option<OpenBreaker> {
    Some(OpenBreaker {
        opened_at: row.time(column::OPENED_AT)?,
        failed_at: row.time(column::FAILED_AT)?,
        open_until: row.time(column::OPEN_UNTIL)?,
        outcome: Outcome::from_label(&row.get::<String>(column::OUTCOME)?)?,
        vendor_code: row.get(column::VENDOR_CODE),
        configuration: row.get(column::CONFIGURATION)?,
    })
}

impl StoreTransaction<'_, '_> {
    /// Puts the state of a breaker on record: open, or closed.
    pub fn set_breaker(&mut self, server: u32, mapping: u32, open: Option<&OpenBreaker>) -> Result<(), Failure> {
        let oid = |oid: u32| argument(pg_sys::Oid::from(oid), pg_sys::OIDOID);
        let statements = &self.store.breakers;
        match open {
            Some(open) => {
                let arguments = [
                    oid(server),
                    oid(mapping),
                    values::time(open.open_until),
                    values::time(open.opened_at),
                    values::time(open.failed_at),
                    values::text(open.outcome.as_str()),
                    argument(open.vendor_code.clone(), pg_sys::TEXTOID),
                    argument(open.configuration.clone(), pg_sys::BYTEAOID),
                ];
                self.client.update(&statements.open_breaker, None, &arguments)?
            }
            None => self.client.update(&statements.close_breaker, None, &[oid(server), oid(mapping)])?,
        };
        Ok(())
    }

    /// Returns the breakers that the worker before has left open, by server and mapping. Closes those whose time is
    /// over.
    pub fn open_breakers(&mut self) -> Result<Vec<(u32, u32, OpenBreaker)>, Failure> {
        self.client.update(&self.store.breakers.close_past_breakers, None, &[])?;
        let table = of_extension(c"breaker").ok_or(Failure::NotInstalled)?;
        let mut all = Vec::new();
        scan_table(table, By::Table, [], |row| {
            let of_one = account(row).zip(read(row));
            all.extend(of_one.map(|((server, mapping), open)| (server.to_u32(), mapping.to_u32(), open)));
        });
        Ok(all)
    }
}
