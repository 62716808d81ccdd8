//! The state of an account's breaker: whether sends with the account's credentials are let through. `otp_gateway.check`
//! and the view `otp_gateway.provider` both read it here, from the record and by what the worker would compare.

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
    /// Options or credentials have changed since calls failed: the next call is tried, and closes the breaker.
    Mended,
    Open(OpenBreaker),
    /// The breaker's time is over: the next call is a probe.
    HalfOpen(OpenBreaker),
}

impl AccountBreaker {
    /// Returns the breaker of a foreign server and a user mapping (0: none is needed). `configuration` returns what
    /// their calls depend on, and is called only if calls have failed; None: it cannot be read now, and counts as
    /// unchanged.
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
