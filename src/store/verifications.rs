//! Verifications as the worker writes, finds and locks them.

use std::{borrow::Borrow, collections::HashSet};

use dialect::FindBy;
use pgrx::pg_sys;
use policy::{Timestamp, Verification};
use uuid::Uuid;

use crate::{
    pg::{
        row_array::Columns,
        scan::{By, Key, scan_table},
        table_write,
        values::{self, number, text, uuids},
    },
    store::{
        StoreTransaction,
        columns::{reference, verification},
        identity::Identity,
        prepared::statements,
        rows::{self, NewReference, NewVerification, StoredVerification, VerificationUpdate},
        transaction::Failure,
    },
};

statements! {

    select_verifications(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at, provider_id, recipient_key, role_id, route_id, country, is_test
       FROM otp_gateway_internal.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    // The role's own verification comes before another role's; then one of this provider before one of another provider
    // of the account: the vendor knows the reference at all of them.
    find_by_reference(pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::BYTEAARRAYOID, pg_sys::INT8OID)
      "SELECT r.verification_id FROM otp_gateway_internal.reference AS r
       LEFT JOIN otp_gateway_internal.verification_record AS v ON v.id OPERATOR(pg_catalog.=) r.verification_id
       WHERE r.reference OPERATOR(pg_catalog.=) $2
         AND (r.provider_id OPERATOR(pg_catalog.=) $1
              OR EXISTS (SELECT FROM otp_gateway_internal.attempt_record AS a
                         WHERE a.verification_id OPERATOR(pg_catalog.=) r.verification_id
                           AND a.account OPERATOR(pg_catalog.=) ANY ($3)))
       ORDER BY (v.role_id OPERATOR(pg_catalog.=) $4) IS TRUE DESC, r.provider_id OPERATOR(pg_catalog.=) $1 DESC,
                r.verification_id DESC"

    find_by_recipient(pg_sys::INT8OID, pg_sys::BYTEAARRAYOID, pg_sys::INT8OID)
      "SELECT id FROM otp_gateway_internal.verification_record
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND recipient_key OPERATOR(pg_catalog.=) ANY ($2)
         AND role_id OPERATOR(pg_catalog.=) $3
       ORDER BY id DESC"

    find_by_idempotency_key(pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID)
      "SELECT id FROM otp_gateway_internal.verification_record
       WHERE idempotency_key OPERATOR(pg_catalog.=) ANY ($1) AND created_at OPERATOR(pg_catalog.>) $2
         AND role_id OPERATOR(pg_catalog.=) $3"

    // Fails also if somebody has a whole table locked.
    lock_tables()
      "LOCK TABLE otp_gateway_internal.verification_record, otp_gateway_internal.attempt_record,
                  otp_gateway_internal.reference
       IN ROW EXCLUSIVE MODE NOWAIT"

    // Selects the locked rows without waiting for anybody. A row that does not exist is not locked.
    select_locked_verifications(pg_sys::UUIDARRAYOID)
      "WITH free AS MATERIALIZED (
           SELECT id FROM otp_gateway_internal.verification_record
           WHERE id OPERATOR(pg_catalog.=) ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
       SELECT id FROM otp_gateway_internal.verification_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND id OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT free.id FROM free))"

    select_locked_attempts(pg_sys::UUIDARRAYOID)
      "WITH free AS MATERIALIZED (
           SELECT id FROM otp_gateway_internal.attempt_record
           WHERE id OPERATOR(pg_catalog.=) ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
       SELECT id FROM otp_gateway_internal.attempt_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND id OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT free.id FROM free))"
}

impl StoreTransaction<'_, '_> {
    pub fn insert_verifications(&mut self, rows: &[NewVerification]) -> Result<(), Failure> {
        table_write::insert(&self.store.verification, rows, fill);
        self.announce(|| rows.iter().map(|row| row.id).collect())
    }

    /// Writes the new states. `sealed` replaces what is sealed; the end of a verification erases it, whatever else
    /// happens.
    pub fn update_verifications(&mut self, rows: &[impl Borrow<VerificationUpdate>]) -> Result<(), Failure> {
        let id = |row: &_| Borrow::<VerificationUpdate>::borrow(row).id;
        table_write::update(&self.store.verification, verification::ID, rows, id, |row, columns| {
            let row: &VerificationUpdate = row.borrow();
            if let Some(to) = &row.moved_to {
                columns.text(verification::PROVIDER, Some(&to.provider));
                columns.bigint(verification::PROVIDER_ID, Some(to.provider_id));
                columns.text(verification::VENDOR, Some(&to.vendor));
            }
            if row.sealed.is_some() || row.state.status.is_terminal() {
                let sealed = row.sealed.as_deref().filter(|_| !row.state.status.is_terminal());
                columns.bytea(verification::SEALED, sealed);
            }
            state(columns, &row.state);
            true
        });
        self.announce(|| {
            rows.iter()
                .map(Borrow::borrow)
                .filter(|row: &&VerificationUpdate| row.before != row.state.status)
                .map(|row| row.id)
                .collect()
        })
    }

    /// Notes by which references verifications are known; one that goes by it already goes on doing so.
    pub fn insert_references(&mut self, rows: &[NewReference]) {
        let mut known: HashSet<(Uuid, String, Identity)> = HashSet::new();
        for row in rows {
            let of_verification = [Key::Uuid(reference::VERIFICATION_ID, row.verification)];
            scan_table(self.store.reference.relation(), By::PrimaryKey, of_verification, |other| {
                let name = other.get::<String>(reference::REFERENCE).zip(other.get(reference::PROVIDER_ID));
                known.extend(name.map(|(reference, provider)| (row.verification, reference, provider)));
            });
        }
        let mut is_new =
            |row: &&NewReference| known.insert((row.verification, row.reference.to_owned(), row.provider_id));
        let new: Vec<&NewReference> = rows.iter().filter(&mut is_new).collect();
        table_write::insert(&self.store.reference, &new, |row, columns| {
            columns.text(reference::REFERENCE, Some(row.reference));
            columns.uuid(reference::VERIFICATION_ID, row.verification);
            columns.bigint(reference::PROVIDER_ID, Some(row.provider_id));
        });
    }

    /// Returns the verifications of these ids, as far as they exist.
    pub fn verifications(&mut self, ids: &[Uuid]) -> Result<Vec<StoredVerification>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.client.select(&self.store.verifications.select_verifications, None, &[uuids(ids)])?;
        table.map(|row| StoredVerification::read(&row)).collect()
    }

    /// Returns the latest verification that a reference names at this provider or account, one that this role began
    /// before those of others, because whoever has the reference was given it; or the latest of a recipient, whom
    /// anybody may know, among those that this role began. Guesses are counted by the recipient, whoever makes them.
    pub fn latest(
        &mut self,
        by: FindBy,
        provider: Identity,
        account_keys: &[Vec<u8>],
        reference: Option<&str>,
        recipient_keys: &[Vec<u8>],
        role: Identity,
    ) -> Result<Option<StoredVerification>, Failure> {
        let found = match (by, reference) {
            (FindBy::Reference, Some(reference)) => self.client.select(
                &self.store.verifications.find_by_reference,
                Some(1),
                &[number(provider), text(reference), values::byteas(account_keys), number(role)],
            )?,
            (FindBy::Recipient, _) if !recipient_keys.is_empty() => self.client.select(
                &self.store.verifications.find_by_recipient,
                Some(1),
                &[number(provider), values::byteas(recipient_keys), number(role)],
            )?,
            _ => return Ok(None),
        };
        let Some(id) = found.map(|row| rows::uuid(&row, 1)).next().transpose()? else { return Ok(None) };
        Ok(self.verifications(&[id])?.pop())
    }

    /// Returns whether an idempotency key of that role stands for a verification that began after `since`. `keys` has
    /// the key's fingerprint under each key of the key file.
    pub fn has_key(&mut self, keys: &[Vec<u8>], since: Timestamp, role: Identity) -> Result<bool, Failure> {
        let arguments = [values::byteas(keys), values::time(since), number(role)];
        Ok(!self.client.select(&self.store.verifications.find_by_idempotency_key, Some(1), &arguments)?.is_empty())
    }

    /// Returns those of these verifications and attempts that somebody else has locked just now. Fails with
    /// `Failure::Busy` if somebody has a whole table locked.
    pub fn locked(&mut self, verifications: &[Uuid], attempts: &[Uuid]) -> Result<HashSet<Uuid>, Failure> {
        let statements = &self.store.verifications;
        self.client.update(&statements.lock_tables, None, &[])?;
        let mut locked = HashSet::new();
        for (statement, ids) in
            [(&statements.select_locked_verifications, verifications), (&statements.select_locked_attempts, attempts)]
        {
            if !ids.is_empty() {
                for row in self.client.update(statement, None, &[uuids(ids)])? {
                    locked.insert(rows::uuid(&row, 1)?);
                }
            }
        }
        Ok(locked)
    }
}

/// The columns of a verification that begins.
pub fn fill(row: &NewVerification, columns: &mut Columns) {
    let idempotency = row.idempotency.as_ref();
    columns.uuid(verification::ID, row.id);
    columns.text(verification::PROVIDER, Some(&row.provider));
    columns.text(verification::VENDOR, Some(&row.vendor));
    columns.text(verification::RECIPIENT_MASKED, row.recipient_masked.as_deref());
    columns.bytea(verification::RECIPIENT_KEY, row.recipient_key.as_deref());
    columns.time(verification::CREATED_AT, Some(row.created_at));
    columns.bytea(verification::SEALED, row.sealed.as_deref());
    let key = idempotency.and_then(|one| one.keys.first());
    let payload = idempotency.and_then(|one| one.payloads.first());
    columns.bytea(verification::IDEMPOTENCY_KEY, key.map(Vec::as_slice));
    columns.bytea(verification::PAYLOAD_HASH, payload.map(Vec::as_slice));
    columns.boolean(verification::IS_TEST, row.is_test);
    columns.text(verification::ROUTE, row.route.as_ref().map(|(name, _)| name.as_str()));
    columns.bigint(verification::PROVIDER_ID, Some(row.provider_id));
    columns.bigint(verification::ROLE_ID, Some(row.role_id));
    columns.bigint(verification::ROUTE_ID, row.route.as_ref().map(|(_, id)| *id));
    columns.integer(verification::COUNTRY, row.country);
    state(columns, &row.state);
}

/// Fills the columns of a verification's state.
pub fn state(columns: &mut Columns, state: &Verification) {
    columns.text(verification::STATUS, Some(state.status.as_str()));
    columns.text(verification::REFERENCE, state.reference.as_deref());
    columns.time(verification::EXPIRES_AT, state.expires_at);
    columns.time(verification::APPROVED_AT, state.approved_at);
    columns.count(verification::SEND_COUNT, state.send_count);
    columns.count(verification::CHECK_COUNT, state.check_count);
    columns.count(verification::MAX_CHECKS, state.max_checks);
}
