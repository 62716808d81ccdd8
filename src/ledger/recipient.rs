//! Finding a recipient's verifications without storing the recipient: by keys that the caller never sees, and in a time
//! that does not tell of the rows of others.

use pgrx::{Spi, pg_sys::TEXTARRAYOID, spi::SpiError};
use uuid::Uuid;

use super::{
    column::{argument, byteas, text},
    owner::ActsAs,
};
use crate::misuse::Misuse;

/// Whom the caller acts for, as the view otp_gateway.verification has it: whether all of this provider is shown to them,
/// and the roles that they are members of.
const READER: &str = "
    SELECT EXISTS (
               SELECT FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
           ) OR EXISTS (
               SELECT FROM pg_catalog.pg_foreign_server AS s
               JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
               WHERE s.srvname::pg_catalog.text OPERATOR(pg_catalog.=) $1 AND w.fdwname OPERATOR(pg_catalog.~) '^otp_'
                 AND pg_catalog.pg_has_role(s.srvowner, 'MEMBER')
           ),
           ARRAY(SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER'))";

/// By the index, in which the roles come before the provider: rows of others are not even passed.
const OF_ROLES: &str = "
    SELECT id FROM otp_gateway.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
      AND (provider OPERATOR(pg_catalog.=) $1 OR route OPERATOR(pg_catalog.=) $1)
      AND created_by OPERATOR(pg_catalog.=) ANY ($3::pg_catalog.name[])";

const OF_ALL: &str = "
    SELECT id FROM otp_gateway.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
      AND (provider OPERATOR(pg_catalog.=) $1 OR route OPERATOR(pg_catalog.=) $1)";

/// The verifications of a recipient at a provider or route, of those that the caller may see.
pub fn visible_verifications(provider: &str, recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Misuse> {
    let reader: Result<(bool, Vec<String>), SpiError> = Spi::connect(|client| {
        let row = client.select(READER, Some(1), &[text(provider)])?.first();
        Ok((row.get(1)?.unwrap_or(false), row.get(2)?.unwrap_or_default()))
    });
    let _role = ActsAs::owner_of_the_record()?;
    let found = reader.and_then(|(sees_all, roles)| {
        let mut arguments = vec![text(provider), byteas(recipient_keys)];
        if !sees_all {
            arguments.push(argument(roles, TEXTARRAYOID));
        }
        Spi::connect(|client| {
            let table = client.select(if sees_all { OF_ALL } else { OF_ROLES }, None, &arguments)?;
            let id = |id: Option<pgrx::datum::Uuid>| id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
            table.map(|row| Ok(id(row.get(1)?))).collect()
        })
    });
    found.map_err(|error| Misuse::internal(format!("the record could not be read: {error}"), "Report it."))
}
