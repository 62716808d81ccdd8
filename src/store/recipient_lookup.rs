//! Finding a recipient's verifications without storing the recipient: by keys that the caller never sees, and in a time
//! that does not tell of the rows of others.

use pgrx::{Spi, pg_sys, spi::SpiError};
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        roles::ActsAs,
        values::{argument, byteas, number, numbers},
    },
    store::identity::home,
};

/// Whom the caller acts for, as the view otp_gateway.verification has it: whether all of this provider is shown to
/// them, and the roles whose rights they have.
const READER: &str = "
    SELECT EXISTS (
               SELECT FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
           ) OR EXISTS (
               SELECT FROM pg_catalog.pg_foreign_server AS s
               WHERE s.oid OPERATOR(pg_catalog.=) $1 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')
           ),
           ARRAY(SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))";

/// The numbers of the provider or route, and of these roles.
const IDENTITIES: &str = "
    SELECT ARRAY(SELECT i.id FROM otp_gateway_internal.identity AS i
                 WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) $3
                   AND i.object OPERATOR(pg_catalog.=) $1),
           ARRAY(SELECT i.id FROM otp_gateway_internal.identity AS i
                 WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND i.home OPERATOR(pg_catalog.=) $3
                   AND i.object OPERATOR(pg_catalog.=) ANY ($2))";

/// By the index, in which the roles come before the provider: rows of others are not even passed.
const OF_ROLES: &str = "
    SELECT id FROM otp_gateway_internal.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
      AND (provider_id OPERATOR(pg_catalog.=) ANY ($1) OR route_id OPERATOR(pg_catalog.=) ANY ($1))
      AND role_id OPERATOR(pg_catalog.=) ANY ($3)";

const OF_ALL: &str = "
    SELECT id FROM otp_gateway_internal.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
      AND (provider_id OPERATOR(pg_catalog.=) ANY ($1) OR route_id OPERATOR(pg_catalog.=) ANY ($1))";

/// The verifications of a recipient at a provider or route, of those that the caller may see.
pub fn visible_verifications(provider: pg_sys::Oid, recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Error> {
    let reader: Result<(bool, Vec<pg_sys::Oid>), SpiError> = Spi::connect(|client| {
        let row = client.select(READER, Some(1), &[argument(provider, pg_sys::OIDOID)])?.first();
        Ok((row.get(1)?.unwrap_or(false), row.get(2)?.unwrap_or_default()))
    });
    let _role = ActsAs::owner_of_the_record()?;
    let found = reader.and_then(|(sees_all, roles)| {
        Spi::connect(|client| {
            let named = [argument(provider, pg_sys::OIDOID), argument(roles, pg_sys::OIDARRAYOID), number(home())];
            let row = client.select(IDENTITIES, Some(1), &named)?.first();
            let (providers, roles): (Vec<i64>, Vec<i64>) =
                (row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default());
            let mut arguments = vec![numbers(&providers), byteas(recipient_keys)];
            if !sees_all {
                arguments.push(numbers(&roles));
            }
            let table = client.select(if sees_all { OF_ALL } else { OF_ROLES }, None, &arguments)?;
            let id = |id: Option<pgrx::datum::Uuid>| id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
            table.map(|row| Ok(id(row.get(1)?))).collect()
        })
    });
    found.map_err(|error| Error::internal(format!("the record could not be read: {error}"), "Report it."))
}
