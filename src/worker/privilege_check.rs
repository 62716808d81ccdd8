//! Looks for privileges and triggers that others have on the tables of the record: the worker writes with a superuser's
//! rights, and warns of them when it starts.

use crate::{store::transaction::Durability, worker::state::Worker};

impl Worker {
    pub fn warn_of_foreign_objects(&mut self) {
        // If the catalog cannot be read now, the next start reads it.
        let Ok(found) = self.store.write(Durability::Deferred, |writer| writer.foreign_triggers_and_grants()) else {
            return;
        };
        if found.is_empty() {
            return;
        }
        let list = found.join("; ");
        pgrx::ereport!(
            pgrx::PgLogLevel::WARNING,
            pgrx::PgSqlErrorCode::ERRCODE_WARNING,
            format!("otp_gateway: the tables of the record have what the extension did not put there: {list}"),
            "Triggers of others are not fired by its worker. REVOKE what nobody should have: whoever may write here \
            decides what counts."
        );
    }
}
