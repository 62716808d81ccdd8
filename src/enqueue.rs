//! Sending after COMMIT, the session's part: a queued verification is written in the caller's own transaction, and its
//! commit tells the worker. If the transaction is rolled back, the verification never existed.

pub mod committed_rows;
pub mod enqueued_row;
pub mod mapping;
pub mod row_lookup;
pub mod transaction;

use dialect::Operation;
use pgrx::pg_sys;
use policy::Verification;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    crypto::seal::Place,
    enqueue::transaction::{candidates, count},
    error::Error,
    ipc::{identify::identity, message::ResultRow, segment},
    job::prepare::JobSpec,
    pg::{clock, roles::Role},
    provider::lookup::VENDOR_NOT_CHOSEN,
    store::{
        identity::{Identity, Kind, Subject},
        replica,
        rows::{IdempotencyHashes, NewVerification},
        session_writes,
    },
};

/// Checks payload and rights now, writes the verification as queued, and returns its row.
pub fn enqueue(
    role: Role,
    provider: &str,
    payload: &Map<String, Value>,
    idempotency: Option<IdempotencyHashes>,
) -> Result<ResultRow, Error> {
    let (verification, row) = prepare(Uuid::now_v7(), role, provider, payload, idempotency)?;
    count()?;
    insert(&verification)?;
    Ok(row)
}

/// Replaces the send that this transaction has enqueued under that id for that role.
pub fn replace(id: Uuid, role: Role, provider: &str, payload: &Map<String, Value>) -> Result<(), Error> {
    let (verification, _) = prepare(id, role, provider, payload, None)?;
    session_writes::withdraw(&[id])?;
    insert(&verification)
}

/// Writes it, and has the commit tell the worker.
fn insert(verification: &NewVerification) -> Result<(), Error> {
    session_writes::insert_queued(verification)?;
    if segment::check().is_ok() {
        transaction::tell_at_commit();
    }
    Ok(())
}

fn prepare(
    id: Uuid,
    role: Role,
    provider: &str,
    payload: &Map<String, Value>,
    idempotency: Option<IdempotencyHashes>,
) -> Result<(NewVerification, ResultRow), Error> {
    let candidates = candidates(provider, role.oid)?;
    replica::must_be_original()?;
    let wanted = JobSpec {
        operation: Operation::Send,
        attempt: id,
        verification: id,
        recorded: None,
        role: role.oid.to_u32(),
        created_by: &role.name,
        code: None,
        payload,
        idempotency: None,
    };
    let (first, prepared) = wanted.check(&candidates)?;
    let keys = transaction::keys()?;
    let mut state = Verification::queued(prepared.max_checks.unwrap_or(first.options.max_checks));
    let is_test = first.is_test_number(&prepared);
    state.reference = prepared.reference;
    let row = ResultRow::without_attempt(id, &state);
    // A route's provider is chosen when the send has its turn.
    let (server, vendor) = match &candidates.route {
        Some(route) => (route.server, VENDOR_NOT_CHOSEN),
        None => (first.server, first.dialect.name),
    };
    let (provider_id, role_id) = identities(provider, server, vendor, &role)?;
    let verification = NewVerification {
        id,
        provider: provider.to_owned(),
        provider_id,
        vendor: vendor.to_owned(),
        route: candidates.route.as_ref().map(|route| (route.name.clone(), provider_id)),
        role_id,
        created_at: clock::clock(),
        country: prepared.recipient.as_ref().and_then(|recipient| dialect::calling_code(recipient.reveal())),
        recipient_masked: prepared.recipient_masked,
        recipient_key: prepared.recipient.as_ref().and_then(|recipient| keys.recipients(recipient).into_iter().next()),
        // The payload is sealed, not what a verify needs: the message is written when the send has its turn.
        sealed: Some(keys.seal(&Place::Queued(id, transaction::home()?), payload)),
        is_test,
        idempotency,
        state,
    };
    Ok((verification, row))
}

/// Returns the identities under which a server and a role are put on record.
fn identities(name: &str, server: pg_sys::Oid, vendor: &str, role: &Role) -> Result<(Identity, Identity), Error> {
    let server =
        Subject { kind: Kind::Server, object: server.to_u32(), name: name.to_owned(), vendor: Some(vendor.to_owned()) };
    let role = Subject { kind: Kind::Role, object: role.oid.to_u32(), name: role.name.clone(), vendor: None };
    Ok((identity(&server)?, identity(&role)?))
}
