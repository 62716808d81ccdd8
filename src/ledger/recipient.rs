//! Finding a recipient's verifications without storing the recipient: by keys that the caller never sees.

use pgrx::{
    Spi,
    spi::{SpiError, SpiTupleTable},
};
use uuid::Uuid;

use super::{
    column::{byteas, text, uuids},
    owner::ActsAs,
};
use crate::misuse::Misuse;

/// The verifications of a recipient at a provider or route, of those that the caller may see.
pub fn visible_verifications(provider: &str, recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Misuse> {
    let all = {
        let _role = ActsAs::owner_of_the_record()?;
        let statement = "
            SELECT id FROM otp_gateway.verification_record
            WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
              AND (provider OPERATOR(pg_catalog.=) $1 OR route OPERATOR(pg_catalog.=) $1)";
        Spi::connect(|client| ids(client.select(statement, None, &[text(provider), byteas(recipient_keys)])?))
    };
    let visible = all.and_then(|all| {
        let statement = "SELECT id FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
        Spi::connect(|client| ids(client.select(statement, None, &[uuids(&all)])?))
    });
    visible.map_err(|error| Misuse::internal(format!("the record could not be read: {error}"), "Report it."))
}

fn ids(table: SpiTupleTable) -> Result<Vec<Uuid>, SpiError> {
    let id = |id: Option<pgrx::datum::Uuid>| id.map_or(Uuid::nil(), |id| Uuid::from_bytes(*id.as_bytes()));
    table.map(|row| Ok(id(row.get(1)?))).collect()
}
