//! One key, one verification: a call with a key holds a lock on the key until its verification can be found. The worker
//! never waits for a session, so the sessions hold the lock themselves.

use std::panic::UnwindSafe;

use pgrx::{PgSqlErrorCode, PgTryBuilder};
use policy::{IDEMPOTENCY_WINDOW, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    ipc::{call::interrupted_wait, identify::identity},
    pg::{
        advisory_lock::{SessionLock, Tag},
        clock::clock,
        database, foreign_servers,
        roles::current_role,
    },
    provider::lookup,
    store::{
        identity::{Kind, Subject},
        rows::IdempotencyHashes,
        sealing_key,
        session_reads::{KeyedVerification, find_by_key},
    },
};

/// Longest key that is accepted, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// The class of the advisory locks for keys.
const LOCK_CLASS: u16 = 7;

/// A key in use; when this is dropped, others may use the key.
pub struct Claim {
    pub idempotency: IdempotencyHashes,
    _lock: Option<SessionLock>,
}

/// How long a claim is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Until the worker has answered: by then the verification is committed.
    Call,
    /// Until the end of the transaction, with which the verification is committed or not.
    Transaction,
}

/// Returns the time before which verifications have lost their keys.
pub fn since() -> Timestamp {
    clock() - IDEMPOTENCY_WINDOW
}

/// Waits for whoever has the key now, and then returns the verification that the key stands for, if there is one.
pub fn claim(
    provider: &str,
    key: &str,
    payload: &Map<String, Value>,
    hold: Hold,
) -> Result<(Claim, Option<KeyedVerification>), Error> {
    let refuse = |what: &str| {
        Err(Error::invalid_parameter(
            format!("idempotency_key {what}"),
            "Give a text of your own choice, unique to this send: a request id.",
        ))
    };
    if key.is_empty() {
        return refuse("is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return refuse("is longer than 256 bytes");
    }
    // Checked before the wait: a role that may not send must not learn that a key is in use.
    let role = current_role().oid;
    let server = lookup::named(provider)?;
    lookup::check_usage(&server, role)?;
    // By the server's identity, not its name: a new server that takes over a name takes over no key.
    let provider = identity(&Subject {
        kind: Kind::Server,
        object: server.oid.to_u32(),
        vendor: Some(foreign_servers::vendor_of(&server)),
        name: server.name,
    })?;
    let text = Zeroizing::new(serde_json::to_string(payload).unwrap_or_default());
    let recognise = || -> Result<IdempotencyHashes, Error> {
        let secrets = sealing_key::keys()?;
        Ok(IdempotencyHashes {
            keys: secrets.fingerprints("idempotency key", &format!("{provider}\0{key}")),
            payloads: secrets.fingerprints("payload", &text),
        })
    };
    // Each role has locks of its own: nobody waits for another role's key. The lock's name is made with the oldest key
    // of the file: a new key, which comes before it, changes nothing for those who wait.
    let names = sealing_key::keys()?.fingerprints("idempotency lock", &format!("{}\0{provider}\0{key}", role.to_u32()));
    let under_way = || find_by_key(&recognise()?.keys, since()).map(|found| found.map(|found| found.id));
    let lock = lock(names.last().map_or(&[], Vec::as_slice), hold, under_way)?;
    // Computed again after the wait: the verification may be recorded under a key that is new since.
    let claim = Claim { idempotency: recognise()?, _lock: lock };
    let found = find_by_key(&claim.idempotency.keys, since())?;
    if found.as_ref().is_some_and(|found| claim.idempotency.payloads.get(found.key) != Some(&found.payload_hash)) {
        return Err(Error::invalid_parameter(
            "idempotency_key was used for another payload at this provider within 24 hours",
            "Use a new key for a new send.",
        ));
    }
    Ok((claim, found))
}

/// Takes the lock on a key. Returns the lock if it is released by hand, and None if the transaction releases it.
fn lock(
    key: &[u8],
    hold: Hold,
    under_way: impl FnOnce() -> Result<Option<Uuid>, Error>,
) -> Result<Option<SessionLock>, Error> {
    let key = key.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let tag = Tag { class: LOCK_CLASS, database: database::current().to_u32(), key };
    match hold {
        Hold::Call => match tag.lock_at_once() {
            Some(lock) => Ok(Some(lock)),
            None => Ok(Some(wait(under_way()?, move || tag.lock()))),
        },
        Hold::Transaction => {
            if !tag.lock_for_transaction_at_once() {
                wait(under_way()?, move || tag.lock_for_transaction());
            }
            Ok(None)
        }
    }
}

/// Waits for a lock. The verification under way is read before: after an interrupt nothing can be read.
fn wait<T>(under_way: Option<Uuid>, lock: impl FnOnce() -> T + UnwindSafe) -> T {
    let waited = PgTryBuilder::new(|| Ok(lock()))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| Err(Box::new(error)))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |error| Err(Box::new(error)))
        .execute();
    waited.unwrap_or_else(|error| interrupted_wait(&error, under_way))
}
