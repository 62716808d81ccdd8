//! Breakers that are open, for the view of what is in force.

use pgrx::pg_sys;
use policy::Timestamp;

use crate::{
    pg::values::{self, argument},
    store::{StoreTransaction, prepared::statements, transaction::Failure},
};

statements! {
    open_breaker(pg_sys::OIDOID, pg_sys::OIDOID, pg_sys::TIMESTAMPTZOID)
      "INSERT INTO otp_gateway_internal.breaker (server, mapping, open_until) VALUES ($1, $2, $3)
       ON CONFLICT (server, mapping) DO UPDATE SET open_until = excluded.open_until"

    close_breaker(pg_sys::OIDOID, pg_sys::OIDOID)
      "DELETE FROM otp_gateway_internal.breaker
       WHERE server OPERATOR(pg_catalog.=) $1 AND mapping OPERATOR(pg_catalog.=) $2"

    close_all_breakers()
      "DELETE FROM otp_gateway_internal.breaker"
}

impl StoreTransaction<'_, '_> {
    /// Makes the state of a breaker visible: open until then, or closed.
    pub fn set_breaker(&mut self, server: u32, mapping: u32, open_until: Option<Timestamp>) -> Result<(), Failure> {
        let oid = |oid: u32| argument(pg_sys::Oid::from(oid), pg_sys::OIDOID);
        let statements = &self.store.breakers;
        match open_until {
            Some(until) => {
                let arguments = [oid(server), oid(mapping), values::time(until)];
                self.client.update(&statements.open_breaker, None, &arguments)?
            }
            None => self.client.update(&statements.close_breaker, None, &[oid(server), oid(mapping)])?,
        };
        Ok(())
    }

    /// They are kept in memory: a new worker's are closed.
    pub fn close_all_breakers(&mut self) -> Result<(), Failure> {
        self.client.update(&self.store.breakers.close_all_breakers, None, &[])?;
        Ok(())
    }
}
