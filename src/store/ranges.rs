//! Ranges of numbers: how many codes that went to each were typed in, and which convert too seldom. Counts, and nothing
//! of a person: a column of the attempts, beside the masked number, would leave two digits to guess.

use pgrx::pg_sys;
use policy::{Counts, HourlyCounts, Timestamp};

use crate::{
    pg::values::{self, argument, byteas, number, text},
    store::{StoreTransaction, identity::Identity, prepared::statements, rows, transaction::Failure},
};

statements! {
    count_range(
        pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT4ARRAYOID, pg_sys::INT4ARRAYOID
    )
      "INSERT INTO otp_gateway_internal.number_range (provider_id, range, counted_at, sends, converted)
       VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (provider_id, range) DO UPDATE
       SET counted_at = excluded.counted_at, sends = excluded.sends, converted = excluded.converted"

    forget_ranges(pg_sys::TIMESTAMPTZOID)
      "DELETE FROM otp_gateway_internal.number_range WHERE counted_at OPERATOR(pg_catalog.<) $1"

    select_ranges()
      "SELECT provider_id, range, counted_at, sends, converted FROM otp_gateway_internal.number_range"

    set_low_conversion(
        pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT4OID,
        pg_sys::INT4OID, pg_sys::FLOAT8OID, pg_sys::INT4OID, pg_sys::BOOLOID, pg_sys::INT8OID, pg_sys::INT8OID
    )
      "INSERT INTO otp_gateway_internal.low_conversion
         (provider_id, range, since, until, sends, converted, usual, percent, is_enforced, blocked, passed)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
       ON CONFLICT (provider_id, range) DO UPDATE
       SET since = excluded.since, until = excluded.until, sends = excluded.sends, converted = excluded.converted,
         usual = excluded.usual, percent = excluded.percent, is_enforced = excluded.is_enforced,
         blocked = excluded.blocked, passed = excluded.passed"

    end_low_conversion(pg_sys::INT8OID, pg_sys::TEXTOID)
      "DELETE FROM otp_gateway_internal.low_conversion
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND range OPERATOR(pg_catalog.=) $2"

    end_past_low_conversion()
      "DELETE FROM otp_gateway_internal.low_conversion
       WHERE until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"

    select_low_conversion()
      "SELECT provider_id, range, since, until, sends, converted, usual, percent, is_enforced, blocked, passed
       FROM otp_gateway_internal.low_conversion"

    // Of the latest that counts of a recipient. The sandbox takes a code that everybody knows.
    select_approved(pg_sys::BYTEAARRAYOID, pg_sys::INT8OID)
      "SELECT EXISTS (
           SELECT FROM pg_catalog.unnest($1) AS k (recipient_key)
           CROSS JOIN LATERAL (
               SELECT a.operation, a.outcome, a.provider_id FROM otp_gateway_internal.attempt_record AS a
               WHERE a.recipient_key OPERATOR(pg_catalog.=) k.recipient_key AND a.reason IS NULL
               ORDER BY a.started_at DESC LIMIT 1000) AS l
           WHERE l.operation OPERATOR(pg_catalog.=) 'verify' AND l.outcome OPERATOR(pg_catalog.=) 'approved'
             AND (l.provider_id OPERATOR(pg_catalog.=) $2 OR NOT EXISTS (
                 SELECT FROM otp_gateway_internal.identity AS i
                 WHERE i.id OPERATOR(pg_catalog.=) l.provider_id AND i.vendor OPERATOR(pg_catalog.=) 'sandbox')))"
}

/// What is counted of a range.
pub struct CountedRange {
    pub provider: Identity,
    pub range: String,
    pub hours: HourlyCounts,
}

/// What converts too seldom: a range; or, where `range` is empty, all that goes through the provider.
#[derive(Clone, Debug, PartialEq)]
pub struct LowConversion {
    pub provider: Identity,
    pub range: String,
    pub since: Timestamp,
    /// It is not so any more, unless it is written anew.
    pub until: Timestamp,
    /// By which it was found.
    pub counts: Counts,
    /// Of a range, its usual sends of an hour; of a provider, the share that was typed in before.
    pub usual: f64,
    /// Of a range: the share that it falls short of.
    pub percent: u8,
    /// Of a range: it is held back; else it would be.
    pub is_enforced: bool,
    pub blocked: u64,
    pub passed: u64,
}

fn integer(value: u32) -> pgrx::datum::DatumWithOid<'static> {
    argument(i32::try_from(value).unwrap_or(i32::MAX), pg_sys::INT4OID)
}

fn bigint(value: u64) -> pgrx::datum::DatumWithOid<'static> {
    number(i64::try_from(value).unwrap_or(i64::MAX))
}

impl StoreTransaction<'_, '_> {
    pub fn count_range(&mut self, counted: &CountedRange) -> Result<(), Failure> {
        let arguments = [
            number(counted.provider),
            text(&counted.range),
            values::time(counted.hours.counted_at),
            argument(counted.hours.sends.clone(), pg_sys::INT4ARRAYOID),
            argument(counted.hours.converted.clone(), pg_sys::INT4ARRAYOID),
        ];
        self.client.update(&self.store.ranges.count_range, None, &arguments)?;
        Ok(())
    }

    /// Those that nothing has gone to since then.
    pub fn forget_ranges(&mut self, before: Timestamp) -> Result<(), Failure> {
        self.client.update(&self.store.ranges.forget_ranges, None, &[values::time(before)])?;
        Ok(())
    }

    pub fn ranges(&mut self) -> Result<Vec<CountedRange>, Failure> {
        let table = self.client.update(&self.store.ranges.select_ranges, None, &[])?;
        let read = |row: pgrx::spi::SpiHeapTupleData| {
            Ok(CountedRange {
                provider: rows::value(&row, 1)?.unwrap_or(0),
                range: rows::value(&row, 2)?.unwrap_or_default(),
                hours: HourlyCounts {
                    counted_at: rows::timestamp(&row, 3)?.unwrap_or_default(),
                    sends: rows::value(&row, 4)?.unwrap_or_default(),
                    converted: rows::value(&row, 5)?.unwrap_or_default(),
                },
            })
        };
        table.map(read).collect()
    }

    pub fn set_low_conversion(&mut self, low: &LowConversion) -> Result<(), Failure> {
        let arguments = [
            number(low.provider),
            text(&low.range),
            values::time(low.since),
            values::time(low.until),
            integer(low.counts.sends),
            integer(low.counts.converted),
            argument(low.usual, pg_sys::FLOAT8OID),
            integer(u32::from(low.percent)),
            argument(low.is_enforced, pg_sys::BOOLOID),
            bigint(low.blocked),
            bigint(low.passed),
        ];
        self.client.update(&self.store.ranges.set_low_conversion, None, &arguments)?;
        Ok(())
    }

    pub fn end_low_conversion(&mut self, provider: Identity, range: &str) -> Result<(), Failure> {
        self.client.update(&self.store.ranges.end_low_conversion, None, &[number(provider), text(range)])?;
        Ok(())
    }

    /// As the worker before has left it; what is past is ended.
    pub fn low_conversions(&mut self) -> Result<Vec<LowConversion>, Failure> {
        self.client.update(&self.store.ranges.end_past_low_conversion, None, &[])?;
        let table = self.client.update(&self.store.ranges.select_low_conversion, None, &[])?;
        let read = |row: pgrx::spi::SpiHeapTupleData| {
            let count = |column| rows::value::<i64>(&row, column).map(|count| count.unwrap_or(0).max(0).unsigned_abs());
            Ok(LowConversion {
                provider: rows::value(&row, 1)?.unwrap_or(0),
                range: rows::value(&row, 2)?.unwrap_or_default(),
                since: rows::timestamp(&row, 3)?.unwrap_or_default(),
                until: rows::timestamp(&row, 4)?.unwrap_or_default(),
                counts: Counts { sends: rows::count(&row, 5)?, converted: rows::count(&row, 6)? },
                usual: rows::value(&row, 7)?.unwrap_or(0.0),
                percent: u8::try_from(rows::count(&row, 8)?).unwrap_or(u8::MAX),
                is_enforced: rows::flag(&row, 9)?,
                blocked: count(10)?,
                passed: count(11)?,
            })
        };
        table.map(read).collect()
    }

    /// Whether a code to this recipient was ever typed in, as far as the record goes back.
    pub fn was_approved(&mut self, recipient_keys: &[Vec<u8>], provider: Identity) -> Result<bool, Failure> {
        let arguments = [byteas(recipient_keys), number(provider)];
        let table = self.client.select(&self.store.ranges.select_approved, Some(1), &arguments)?;
        Ok(table.map(|row| rows::flag(&row, 1)).next().transpose()?.unwrap_or(false))
    }
}
