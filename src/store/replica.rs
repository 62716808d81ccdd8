//! Tells whether the record of this database is a subscription's target, so that another database writes it. Then
//! nothing is sent from here, and nothing is written about what was sent there.

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{
        database::has_extension,
        invalidation::Answer,
        relation::of_extension,
        scan::{SubscriptionRel, scan_catalog},
        transaction,
    },
};

/// Why nothing is done, and what to do about it.
pub const REPLICATED: (&str, &str) = (
    "the record of this database is replicated from another one, by a subscription",
    "Call at the publisher; or, to take over here, DROP SUBSCRIPTION first.",
);

/// Returns whether another database writes this record. In a transaction.
pub fn is_replicated() -> bool {
    static IS_REPLICATED: Answer = Answer::unknown();
    IS_REPLICATED.get(&[pg_sys::SysCacheIdentifier::SUBSCRIPTIONRELMAP], look)
}

/// Fails if another database writes this record, for a session that is about to write for this database's worker.
pub fn must_be_original() -> Result<(), Error> {
    if is_replicated() {
        Err(Error::not_in_prerequisite_state(format!("{}; nothing is sent", REPLICATED.0), REPLICATED.1))
    } else {
        Ok(())
    }
}

/// Returns whether a subscription has our table among its own.
fn look() -> bool {
    let Some(table) = of_extension(c"verification_record") else { return false };
    let mut found = false;
    scan_catalog(|of: &SubscriptionRel, _| found |= of.table == table);
    found
}

/// The state of a database in which the tables cannot be used.
pub enum Presence {
    /// The extension is not there, or its CREATE is not committed.
    Gone,
    /// The extension is there, and its tables are of another version.
    Here,
    Replicated,
}

/// Returns the state of this database. Outside a transaction.
pub fn presence() -> Presence {
    transaction::attempt(|| match has_extension(c"otp_gateway") {
        false => Presence::Gone,
        true if look() => Presence::Replicated,
        true => Presence::Here,
    })
    .unwrap_or(Presence::Gone)
}
