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

/// Whom the caller acts for, as the view otp_gateway.verification has it: whether all is shown to them, the foreign
/// servers that they own, and the roles whose rights they have.
const READER: &str = "
    SELECT EXISTS (
               SELECT FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
           ),
           ARRAY(SELECT s.oid FROM pg_catalog.pg_foreign_server AS s WHERE pg_catalog.pg_has_role(s.srvowner, 'USAGE')),
           ARRAY(SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))";

/// The numbers of these foreign servers, and of these roles.
const IDENTITIES: &str = "
    SELECT ARRAY(SELECT i.id FROM otp_gateway_internal.identity AS i
                 WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) $3
                   AND i.object OPERATOR(pg_catalog.=) ANY ($1)),
           ARRAY(SELECT i.id FROM otp_gateway_internal.identity AS i
                 WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND i.home OPERATOR(pg_catalog.=) $3
                   AND i.object OPERATOR(pg_catalog.=) ANY ($2))";

/// By the index, in which the roles come before the provider: rows of others are not even passed.
const OF_ROLES: &str = "
    SELECT id FROM otp_gateway_internal.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1) AND role_id OPERATOR(pg_catalog.=) ANY ($2)";

/// The same, at one provider or route.
const OF_ROLES_AT: &str = "
    SELECT id FROM otp_gateway_internal.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1) AND role_id OPERATOR(pg_catalog.=) ANY ($2)
      AND (provider_id OPERATOR(pg_catalog.=) ANY ($3) OR route_id OPERATOR(pg_catalog.=) ANY ($3))";

/// Of whomever, at these providers or routes.
const AT: &str = "
    SELECT id FROM otp_gateway_internal.verification_record
    WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1)
      AND (provider_id OPERATOR(pg_catalog.=) ANY ($2) OR route_id OPERATOR(pg_catalog.=) ANY ($2))";

const ALL: &str = "
    SELECT id FROM otp_gateway_internal.verification_record WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1)";

/// Whose rows a look-up shows.
struct Reader {
    sees_all: bool,
    owned: Vec<pg_sys::Oid>,
    roles: Vec<pg_sys::Oid>,
}

/// The verifications of a recipient at a provider or route, or wherever, of those that the caller may see.
pub fn visible_verifications(provider: Option<pg_sys::Oid>, recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Error> {
    let reader: Result<Reader, SpiError> = Spi::connect(|client| {
        let row = client.select(READER, Some(1), &[])?.first();
        Ok(Reader {
            sees_all: row.get(1)?.unwrap_or(false),
            owned: row.get(2)?.unwrap_or_default(),
            roles: row.get(3)?.unwrap_or_default(),
        })
    });
    let _role = ActsAs::owner_of_the_record()?;
    let found = reader.and_then(|reader| find(provider, recipient_keys, reader));
    found.map_err(|error| Error::internal(format!("the record could not be read: {error}"), "Report it."))
}

fn find(provider: Option<pg_sys::Oid>, recipient_keys: &[Vec<u8>], reader: Reader) -> Result<Vec<Uuid>, SpiError> {
    let sees_all = reader.sees_all || provider.is_some_and(|provider| reader.owned.contains(&provider));
    let has_servers = provider.is_some() || !reader.owned.is_empty();
    let servers = provider.map_or(reader.owned, |provider| vec![provider]);
    Spi::connect(|client| {
        let named =
            [argument(servers, pg_sys::OIDARRAYOID), argument(reader.roles, pg_sys::OIDARRAYOID), number(home())];
        let row = client.select(IDENTITIES, Some(1), &named)?.first();
        let (servers, roles): (Vec<i64>, Vec<i64>) = (row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default());
        let keys = || byteas(recipient_keys);
        let looks = match (provider, sees_all) {
            (Some(_), true) => vec![(AT, vec![keys(), numbers(&servers)])],
            (Some(_), false) => vec![(OF_ROLES_AT, vec![keys(), numbers(&roles), numbers(&servers)])],
            (None, true) => vec![(ALL, vec![keys()])],
            (None, false) if has_servers => {
                vec![(OF_ROLES, vec![keys(), numbers(&roles)]), (AT, vec![keys(), numbers(&servers)])]
            }
            (None, false) => vec![(OF_ROLES, vec![keys(), numbers(&roles)])],
        };
        let mut found = Vec::new();
        for (statement, arguments) in looks {
            for row in client.select(statement, None, &arguments)? {
                let id: Option<pgrx::datum::Uuid> = row.get(1)?;
                found.extend(id.map(|id| Uuid::from_bytes(*id.as_bytes())));
            }
        }
        Ok(found)
    })
}
