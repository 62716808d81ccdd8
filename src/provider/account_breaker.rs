//! Whether sends with an account's credentials are let through: the same for `otp_gateway.check` and for the view
//! `otp_gateway.provider`, by the record and by what the worker would compare.

use dialect::Secret;
use pgrx::pg_sys;
use policy::Timestamp;

use crate::{
    error::Error,
    store::{
        breakers::{OpenBreaker, open_breaker},
        sealing_key,
    },
};

pub enum AccountBreaker {
    Closed,
    /// Options or credentials have changed since calls failed: the next call is tried, and closes it.
    Mended,
    Open(OpenBreaker),
    /// Its time is over: the next call is a probe.
    HalfOpen(OpenBreaker),
}

impl AccountBreaker {
    /// That of a foreign server and a user mapping (0: none is needed). `configuration`, which is asked for only where
    /// calls have failed, is what they depend on; None: it cannot be read now, and nobody can say that it has changed.
    pub fn of(
        server: pg_sys::Oid,
        mapping: pg_sys::Oid,
        configuration: impl FnOnce() -> Option<Secret>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Some(open) = open_breaker(server, mapping)? else { return Ok(Self::Closed) };
        let is_another = |configuration: Secret| {
            sealing_key::keys_at_once().is_ok_and(|keys| keys.configuration(&configuration) != open.configuration)
        };
        Ok(match configuration().is_some_and(is_another) {
            true => Self::Mended,
            false if open.open_until <= now => Self::HalfOpen(open),
            false => Self::Open(open),
        })
    }
}
