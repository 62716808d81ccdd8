//! What the limits look back on: sends and checks of one recipient, sends through one provider.

use pgrx::{
    datum::DatumWithOid,
    pg_sys,
    spi::{OwnedPreparedStatement, SpiHeapTupleData},
};
use policy::Timestamp;
use uuid::Uuid;

use crate::{
    pg::values::{self, argument, number, uuid},
    store::{
        Store, StoreTransaction,
        identity::Identity,
        prepared::statements,
        rows::{self, RecipientEvent},
        transaction::Failure,
    },
};

statements! {
    // What counts, by the index on it: messages that went out, or may have.
    // What is dated ahead was written while the clock was wrong: it would block its recipient until then.
    select_sends(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZARRAYOID, pg_sys::INT8ARRAYOID)
      "SELECT n.question, e.started_at
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
            WITH ORDINALITY AS n(provider_id, recipient_key, since, most, question)
       CROSS JOIN LATERAL (
           SELECT a.started_at FROM otp_gateway_internal.attempt_record AS a
           WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key
             -- Not by the index on providers, of whose sends there are many.
             AND a.provider_id OPERATOR(pg_catalog.+) 0 OPERATOR(pg_catalog.=) n.provider_id
             AND a.started_at OPERATOR(pg_catalog.>) n.since AND a.reason IS NULL
             AND a.started_at OPERATOR(pg_catalog.<)
                 (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
             AND a.operation IN ('send', 'resend') AND (a.outcome IS NULL OR a.outcome IN ({sent}))
           ORDER BY a.started_at DESC LIMIT n.most) AS e"

    // Codes that were compared, or may have been, at an account or a provider; and who has sent something there.
    select_checks(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZARRAYOID,
                  pg_sys::TIMESTAMPTZARRAYOID, pg_sys::INT8ARRAYOID)
      "SELECT n.question, e.id, e.operation, e.outcome, e.started_at, e.role_id, e.provider_id, e.is_of_account
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6))
            WITH ORDINALITY AS n(provider_id, account, recipient_key, since, sent_since, most, question)
       CROSS JOIN LATERAL (
           (SELECT a.id, a.operation, a.outcome, a.started_at, a.role_id, a.provider_id,
                   coalesce(a.account OPERATOR(pg_catalog.=) n.account,
                            a.provider_id OPERATOR(pg_catalog.=) n.provider_id) AS is_of_account
            FROM otp_gateway_internal.attempt_record AS a
            WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key
              AND a.started_at OPERATOR(pg_catalog.>) n.since
              AND a.started_at OPERATOR(pg_catalog.<)
                 (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
              AND a.reason IS NULL AND a.operation OPERATOR(pg_catalog.=) 'verify'
              AND (a.provider_id OPERATOR(pg_catalog.=) n.provider_id
                   OR coalesce(a.account OPERATOR(pg_catalog.=) n.account, false))
              AND (a.outcome IS NULL OR a.outcome NOT IN ({uncompared}))
            ORDER BY a.started_at DESC LIMIT n.most)
           UNION ALL
           (SELECT a.id, a.operation, a.outcome, a.started_at, a.role_id, a.provider_id, true
            FROM otp_gateway_internal.attempt_record AS a
            WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key
              AND a.started_at OPERATOR(pg_catalog.>) n.sent_since
              AND a.reason IS NULL AND a.operation IN ('send', 'resend')
              AND (a.outcome IS NULL OR a.outcome IN ({sent}))
              AND coalesce(a.account OPERATOR(pg_catalog.=) n.account,
                           a.provider_id OPERATOR(pg_catalog.=) n.provider_id)
            ORDER BY a.started_at DESC LIMIT 1000)) AS e"

    select_provider_sends(pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID)
      "SELECT started_at, id FROM otp_gateway_internal.attempt_record
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND started_at OPERATOR(pg_catalog.>) $2 AND reason IS NULL
         AND started_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
         AND recipient_key IS NOT NULL AND operation IN ('send', 'resend')
         AND (outcome IS NULL OR outcome IN ({sent}))
       ORDER BY started_at DESC LIMIT $3"

    select_started_at(pg_sys::UUIDOID)
      "SELECT started_at FROM otp_gateway_internal.attempt_record WHERE id OPERATOR(pg_catalog.=) $1"
}

/// What is asked of the record about sends to one recipient through one provider.
pub struct SendQuery<'a> {
    pub provider: Identity,
    pub recipient_key: &'a [u8],
    pub since: Timestamp,
    pub most: i64,
}

/// What is asked of the record about checks of one recipient's codes.
pub struct CheckQuery<'a> {
    pub provider: Identity,
    pub account: &'a [u8],
    pub recipient_key: &'a [u8],
    pub since: Timestamp,
    /// Who has sent something since then is no stranger.
    pub sent_since: Timestamp,
    pub most: i64,
}

impl StoreTransaction<'_, '_> {
    /// When the sends began, the newest first: one answer to each question.
    pub fn sends(&mut self, questions: &[SendQuery]) -> Result<Vec<Vec<Timestamp>>, Failure> {
        let each = |value: fn(&SendQuery) -> i64| questions.iter().map(value).collect::<Vec<_>>();
        let keys: Vec<&[u8]> = questions.iter().map(|question| question.recipient_key).collect();
        let since: Vec<_> = questions.iter().map(|question| values::Time(question.since)).collect();
        let arguments = [
            argument(each(|question| question.provider), pg_sys::INT8ARRAYOID),
            argument(keys, pg_sys::BYTEAARRAYOID),
            argument(since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(each(|question| question.most), pg_sys::INT8ARRAYOID),
        ];
        self.answers(
            questions.len(),
            |store| &store.limits.select_sends,
            &arguments,
            |row| Ok(rows::timestamp(row, 2)?.unwrap_or_default()),
        )
    }

    /// What counts when codes are checked: one answer to each question.
    pub fn checks(&mut self, questions: &[CheckQuery]) -> Result<Vec<Vec<RecipientEvent>>, Failure> {
        let each = |value: fn(&CheckQuery) -> i64| questions.iter().map(value).collect::<Vec<_>>();
        let accounts: Vec<&[u8]> = questions.iter().map(|question| question.account).collect();
        let keys: Vec<&[u8]> = questions.iter().map(|question| question.recipient_key).collect();
        let since: Vec<_> = questions.iter().map(|question| values::Time(question.since)).collect();
        let sent_since: Vec<_> = questions.iter().map(|question| values::Time(question.sent_since)).collect();
        let arguments = [
            argument(each(|question| question.provider), pg_sys::INT8ARRAYOID),
            argument(accounts, pg_sys::BYTEAARRAYOID),
            argument(keys, pg_sys::BYTEAARRAYOID),
            argument(since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(sent_since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(each(|question| question.most), pg_sys::INT8ARRAYOID),
        ];
        self.answers(questions.len(), |store| &store.limits.select_checks, &arguments, RecipientEvent::read)
    }

    /// The rows of a statement that numbers its questions from 1, in the first column.
    fn answers<T>(
        &mut self,
        questions: usize,
        statement: fn(&Store) -> &OwnedPreparedStatement,
        arguments: &[DatumWithOid],
        read: fn(&SpiHeapTupleData) -> Result<T, Failure>,
    ) -> Result<Vec<Vec<T>>, Failure> {
        let mut answers: Vec<Vec<T>> = std::iter::repeat_with(Vec::new).take(questions).collect();
        if questions > 0 {
            for row in self.client.select(statement(self.store), None, arguments)? {
                let number = rows::value::<i64>(&row, 1)?.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
                if let Some(answer) = number.checked_sub(1).and_then(|index| answers.get_mut(index)) {
                    answer.push(read(&row)?);
                }
            }
        }
        Ok(answers)
    }

    /// When the newest sends through a provider began, and which they are, those after `since`, `most` of them.
    pub fn provider_sends(
        &mut self,
        provider: Identity,
        since: Timestamp,
        most: i64,
    ) -> Result<Vec<(Timestamp, Uuid)>, Failure> {
        let arguments = [number(provider), values::time(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.limits.select_provider_sends, None, &arguments)?;
        table.map(|row| Ok((rows::timestamp(&row, 1)?.unwrap_or_default(), rows::uuid(&row, 2)?))).collect()
    }

    /// When an attempt began, as the record has it.
    pub fn started_at(&mut self, attempt: Uuid) -> Result<Option<Timestamp>, Failure> {
        let table = self.client.select(&self.store.limits.select_started_at, Some(1), &[uuid(attempt)])?;
        Ok(table.map(|row| rows::timestamp(&row, 1)).next().transpose()?.flatten())
    }
}
