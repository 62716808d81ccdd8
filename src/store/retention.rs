//! Erases what is sealed when its time is over; deletes old verifications; forgets recipients; seals anew.

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

    // An empty key is nobody's, but still counts for provider_limit: the send has been paid for. What went to a
    // provider of somebody else's goes on counting there.
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

    // Attempts that are left of verifications which the owner of a route has had forgotten.
    forget_keys(pg_sys::BYTEAARRAYOID, pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway_internal.attempt_record
       SET recipient_key = ''::pg_catalog.bytea, vendor_message = NULL, response = NULL
       WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1) AND provider_id OPERATOR(pg_catalog.=) ANY ($2)
         AND reason IS NULL"

    // $5 is how many rows are looked at, not found: a page takes the same time whoever asks.
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

    // $3 is how many rows are looked at, not found: a page takes the same time however few are sealed.
    select_sealed(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT v.id, coalesce(v.expires_at, v.created_at OPERATOR(pg_catalog.+) interval '1 day'),
              CASE WHEN v.status OPERATOR(pg_catalog.<>) 'queued' THEN pg_catalog.substr(v.sealed, 1, 4) END,
              v.status OPERATOR(pg_catalog.=) 'sending'
       FROM (SELECT * FROM otp_gateway_internal.verification_record
             WHERE id OPERATOR(pg_catalog.<) $1 AND id OPERATOR(pg_catalog.>=) $2 ORDER BY id DESC LIMIT $3) AS v
       ORDER BY v.id DESC"

    // A row that somebody has locked is left for later, and holds up no other.
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
    /// Returns what is sealed of the `most` verifications before that one, the latest first, that began at or after
    /// `since`.
    pub fn sealed(&mut self, before: Uuid, since: Uuid, most: i64) -> Result<Vec<OpenVerification>, Failure> {
        let arguments = [uuid(before), uuid(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.retention.select_sealed, None, &arguments)?;
        table.map(|row| OpenVerification::read(&row)).collect()
    }

    /// Ends those verifications that are past their time and still open, and erases what was sealed for them. Returns
    /// the others of `ids` that are still open, each with the end of its time.
    pub fn expire(&mut self, ids: &[Uuid], now: Timestamp) -> Result<Vec<(Uuid, Timestamp)>, Failure> {
        let arguments = [uuids(ids), values::time(now)];
        let expired = self.client.update(&self.store.retention.expire, None, &arguments)?;
        let expired = expired.map(|row| rows::uuid(&row, 1)).collect::<Result<Vec<_>, _>>()?;
        self.announce(|| expired)?;
        let table = self.client.select(&self.store.retention.select_sealed_of, None, &[uuids(ids)])?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, rows::timestamp(&row, 2)?.unwrap_or_default()))).collect()
    }

    /// Returns the verifications of a recipient at a provider or route.
    pub fn of_recipient(&mut self, provider: &[Identity], recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Failure> {
        let arguments = [numbers(provider), values::byteas(recipient_keys)];
        let table = self.client.select(&self.store.retention.select_of_recipient, None, &arguments)?;
        table.map(|row| rows::uuid(&row, 1)).collect()
    }

    /// Removes whatever leads to a person from these verifications; an open one is canceled with it. What went to other
    /// providers than `owned` goes on counting there.
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

    /// Removes the keys of a recipient from what these providers have on record of it.
    pub fn forget_keys(&mut self, recipient_keys: &[Vec<u8>], providers: &[Identity]) -> Result<(), Failure> {
        let arguments = [values::byteas(recipient_keys), numbers(providers)];
        self.client.update(&self.store.retention.forget_keys, None, &arguments)?;
        Ok(())
    }

    /// Returns the next `most` verifications after `from` that began before a time, and whether each may be deleted: it
    /// is of these providers, not on its way, and nothing has happened with it since that time.
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

    /// Deletes verifications with everything that is on record of them.
    pub fn delete(&mut self, ids: &[Uuid]) -> Result<(), Failure> {
        let statements = &self.store.retention;
        for statement in [&statements.delete_attempts, &statements.delete_references, &statements.delete_verifications]
        {
            self.client.update(statement, None, &[uuids(ids)])?;
        }
        Ok(())
    }

    /// Returns when the oldest verification began.
    pub fn oldest(&mut self) -> Result<Option<Timestamp>, Failure> {
        let table = self.client.select(&self.store.retention.select_oldest, Some(1), &[])?;
        Ok(table.map(|row| rows::timestamp(&row, 1)).next().transpose()?.flatten())
    }

    /// Returns the next `most` verifications after `from`, with what is sealed of each.
    pub fn sealed_rows(&mut self, from: Uuid, most: i64) -> Result<Vec<SealedRow>, Failure> {
        let arguments = [uuid(from), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.retention.select_seals, None, &arguments)?;
        table.map(|row| SealedRow::read(&row)).collect()
    }

    /// Replaces the seals of these verifications.
    pub fn reseal(&mut self, seals: &[(Uuid, Vec<u8>)]) -> Result<(), Failure> {
        let ids: Vec<Uuid> = seals.iter().map(|(id, _)| *id).collect();
        let sealed: Vec<Vec<u8>> = seals.iter().map(|(_, sealed)| sealed.clone()).collect();
        self.client.update(&self.store.retention.reseal, None, &[uuids(&ids), values::byteas(&sealed)])?;
        Ok(())
    }
}

/// Returns when what is sealed for a verification is of no more use.
pub fn erase_at(created_at: Timestamp, state: &Verification) -> Timestamp {
    state.expires_at.unwrap_or(created_at + NO_EXPIRY)
}

/// How long what is sealed is kept if neither vendor nor provider says how long a code lives: a day, in microseconds.
pub const NO_EXPIRY: Micros = 86_400_000_000;
