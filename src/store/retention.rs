//! What is erased when its time is over, deleted, forgotten, or sealed anew.

use pgrx::pg_sys;
use policy::{Micros, Timestamp, Verification};
use uuid::Uuid;

use crate::{
    pg::{
        uuid_time::first_id_of,
        values::{self, argument, numbers, uuid, uuids},
    },
    store::{
        StoreTransaction,
        identity::Identity,
        prepared::statements,
        rows::{self, OpenVerification, SealedRow},
        transaction::Failure,
    },
};

statements! {
    select_of_recipient(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID)
      "SELECT id FROM otp_gateway_internal.verification_record
       WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
         AND (provider_id OPERATOR(pg_catalog.=) ANY ($1) OR route_id OPERATOR(pg_catalog.=) ANY ($1))"

    // An empty key is nobody's, and still counts for provider_limit: the bill was run up.
    // What went to a provider of somebody else's goes on counting there.
    forget_attempts(pg_sys::UUIDARRAYOID, pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway_internal.attempt_record
       SET recipient_key = CASE WHEN recipient_key IS NOT NULL THEN ''::pg_catalog.bytea END, vendor_message = NULL,
           response = NULL
       WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)
         AND ($2 IS NULL OR provider_id OPERATOR(pg_catalog.=) ANY ($2))"

    forget_verifications(pg_sys::UUIDARRAYOID)
      "UPDATE otp_gateway_internal.verification_record
       SET recipient_masked = NULL, recipient_key = NULL, reference = NULL, idempotency_key = NULL, payload_hash = NULL,
           sealed = NULL,
           status = CASE WHEN status IN ({terminal}) THEN status ELSE 'canceled' END
       WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    delete_references(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway_internal.reference WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)"

    // What is left of verifications that the owner of a route had forgotten.
    forget_keys(pg_sys::BYTEAARRAYOID, pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway_internal.attempt_record
       SET recipient_key = ''::pg_catalog.bytea, vendor_message = NULL, response = NULL
       WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1) AND provider_id OPERATOR(pg_catalog.=) ANY ($2)
         AND reason IS NULL"

    // So many are looked at, not found: a page takes the same time whoever asks.
    select_old(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8ARRAYOID, pg_sys::INT8OID)
      "SELECT v.id,
              v.created_at OPERATOR(pg_catalog.<) $3 AND v.status NOT IN ('queued', 'sending')
              AND ($4 IS NULL OR coalesce(v.provider_id OPERATOR(pg_catalog.=) ANY ($4), false)
                   OR coalesce(v.route_id OPERATOR(pg_catalog.=) ANY ($4), false))
              AND NOT EXISTS (SELECT FROM otp_gateway_internal.attempt_record AS a
                              WHERE a.verification_id OPERATOR(pg_catalog.=) v.id
                                AND a.started_at OPERATOR(pg_catalog.>=) $3)
       FROM (SELECT * FROM otp_gateway_internal.verification_record
             WHERE id OPERATOR(pg_catalog.>) $1 AND id OPERATOR(pg_catalog.<) $2 ORDER BY id LIMIT $5) AS v
       ORDER BY v.id"

    delete_attempts(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway_internal.attempt_record WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)"

    delete_verifications(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway_internal.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    select_oldest()
      "SELECT created_at FROM otp_gateway_internal.verification_record ORDER BY id"

    select_seals(pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT id, status OPERATOR(pg_catalog.=) 'queued', sealed FROM otp_gateway_internal.verification_record
       WHERE id OPERATOR(pg_catalog.>) $1 ORDER BY id LIMIT $2"

    reseal(pg_sys::UUIDARRAYOID, pg_sys::BYTEAARRAYOID)
      "UPDATE otp_gateway_internal.verification_record AS v SET sealed = n.sealed
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS n (id, sealed)
       WHERE v.id OPERATOR(pg_catalog.=) n.id"

    // So many are looked at, as above.
    select_sealed(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT v.id, coalesce(v.expires_at, v.created_at OPERATOR(pg_catalog.+) interval '1 day'),
              CASE WHEN v.status OPERATOR(pg_catalog.<>) 'queued' THEN pg_catalog.substr(v.sealed, 1, 4) END,
              v.status OPERATOR(pg_catalog.=) 'sending'
       FROM (SELECT * FROM otp_gateway_internal.verification_record
             WHERE id OPERATOR(pg_catalog.<) $1 AND id OPERATOR(pg_catalog.>=) $2 ORDER BY id DESC LIMIT $3) AS v
       ORDER BY v.id DESC"

    // One that somebody has locked is left for later, and holds up nobody.
    expire(pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID)
      "UPDATE otp_gateway_internal.verification_record SET status = 'expired', sealed = NULL
       WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(
               SELECT v.id FROM otp_gateway_internal.verification_record AS v WHERE v.id OPERATOR(pg_catalog.=) ANY ($1)
               FOR NO KEY UPDATE SKIP LOCKED))
         AND sealed IS NOT NULL AND status OPERATOR(pg_catalog.<>) 'queued'
         AND coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day') OPERATOR(pg_catalog.<=) $2
       RETURNING id"

    select_sealed_of(pg_sys::UUIDARRAYOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway_internal.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL"
}

impl StoreTransaction<'_, '_> {
    /// The `most` verifications before that one, the latest first, that began at or after `since`: what is sealed of
    /// them.
    pub fn sealed(&mut self, before: Uuid, since: Uuid, most: i64) -> Result<Vec<OpenVerification>, Failure> {
        let arguments = [uuid(before), uuid(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.retention.select_sealed, None, &arguments)?;
        table.map(|row| OpenVerification::read(&row)).collect()
    }

    /// Ends those that are past their time and still open, and erases what was sealed for them. Returns the others of
    /// `ids` that are still open, with their time.
    pub fn expire(&mut self, ids: &[Uuid], now: Timestamp) -> Result<Vec<(Uuid, Timestamp)>, Failure> {
        let arguments = [uuids(ids), values::time(now)];
        let expired = self.client.update(&self.store.retention.expire, None, &arguments)?;
        let expired = expired.map(|row| rows::uuid(&row, 1)).collect::<Result<Vec<_>, _>>()?;
        self.announce(|| expired)?;
        let table = self.client.select(&self.store.retention.select_sealed_of, None, &[uuids(ids)])?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, rows::timestamp(&row, 2)?.unwrap_or_default()))).collect()
    }

    /// The verifications of a recipient at a provider or route.
    pub fn of_recipient(&mut self, provider: &[Identity], recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Failure> {
        let arguments = [numbers(provider), values::byteas(recipient_keys)];
        let table = self.client.select(&self.store.retention.select_of_recipient, None, &arguments)?;
        table.map(|row| rows::uuid(&row, 1)).collect()
    }

    /// Removes from these whatever leads to a person; an open one is canceled with it. What went to providers other
    /// than these goes on counting there.
    pub fn forget(&mut self, ids: &[Uuid], owned: Option<&[Identity]>) -> Result<(), Failure> {
        let open = self.verifications(ids)?;
        let open = open.iter().filter(|stored| !stored.state.status.is_terminal()).map(|stored| stored.id);
        let open: Vec<Uuid> = open.collect();
        let statements = &self.store.retention;
        let owned = owned.map_or_else(|| values::null(pg_sys::INT8ARRAYOID), numbers);
        self.client.update(&statements.forget_attempts, None, &[uuids(ids), owned])?;
        for statement in [&statements.forget_verifications, &statements.delete_references] {
            self.client.update(statement, None, &[uuids(ids)])?;
        }
        self.announce(|| open)
    }

    /// Removes the keys of a recipient from what is on record of it at these providers.
    pub fn forget_keys(&mut self, recipient_keys: &[Vec<u8>], providers: &[Identity]) -> Result<(), Failure> {
        let arguments = [values::byteas(recipient_keys), numbers(providers)];
        self.client.update(&self.store.retention.forget_keys, None, &arguments)?;
        Ok(())
    }

    /// The next `most` verifications after `from` of those that began before a time, and whether each may be deleted:
    /// it is of these providers, not on its way, and nothing has happened with it since.
    pub fn old(
        &mut self,
        from: Uuid,
        before: Timestamp,
        providers: Option<&[Identity]>,
        most: i64,
    ) -> Result<Vec<(Uuid, bool)>, Failure> {
        let providers = providers.map_or_else(|| values::null(pg_sys::INT8ARRAYOID), numbers);
        let arguments =
            [uuid(from), uuid(first_id_of(before)), values::time(before), providers, argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.retention.select_old, None, &arguments)?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, rows::flag(&row, 2)?))).collect()
    }

    /// Deletes verifications with all that is on record of them.
    pub fn delete(&mut self, ids: &[Uuid]) -> Result<(), Failure> {
        let statements = &self.store.retention;
        for statement in [&statements.delete_attempts, &statements.delete_references, &statements.delete_verifications]
        {
            self.client.update(statement, None, &[uuids(ids)])?;
        }
        Ok(())
    }

    /// When the oldest verification began.
    pub fn oldest(&mut self) -> Result<Option<Timestamp>, Failure> {
        let table = self.client.select(&self.store.retention.select_oldest, Some(1), &[])?;
        Ok(table.map(|row| rows::timestamp(&row, 1)).next().transpose()?.flatten())
    }

    /// The next `most` verifications after `from`, with what is sealed of each.
    pub fn sealed_rows(&mut self, from: Uuid, most: i64) -> Result<Vec<SealedRow>, Failure> {
        let arguments = [uuid(from), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.retention.select_seals, None, &arguments)?;
        table.map(|row| SealedRow::read(&row)).collect()
    }

    /// Puts other seals in the place of those that are there.
    pub fn reseal(&mut self, seals: &[(Uuid, Vec<u8>)]) -> Result<(), Failure> {
        let ids: Vec<Uuid> = seals.iter().map(|(id, _)| *id).collect();
        let sealed: Vec<Vec<u8>> = seals.iter().map(|(_, sealed)| sealed.clone()).collect();
        self.client.update(&self.store.retention.reseal, None, &[uuids(&ids), values::byteas(&sealed)])?;
        Ok(())
    }
}

/// When what is sealed for a verification is of no more use.
pub fn erase_at(created_at: Timestamp, state: &Verification) -> Timestamp {
    state.expires_at.unwrap_or(created_at + NO_EXPIRY)
}

/// Where neither vendor nor provider says how long a code lives, what is sealed is kept for a day.
pub const NO_EXPIRY: Micros = 86_400_000_000;
