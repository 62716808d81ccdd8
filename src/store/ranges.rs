//! Ranges of numbers: how many of the codes that went to each were typed in, and which ranges convert too seldom. Only
//! counts are kept, and nothing of a person: a column of the attempts, beside the masked number, would leave two digits
//! to guess.

use pgrx::pg_sys;
use policy::{Counts, HourlyCounts, Timestamp};

use crate::{
    pg::{
        relation::of_extension,
        row::Row,
        scan::{By, scan_table},
        values::{self, argument, byteas, number, text},
    },
    store::{
        StoreTransaction,
        columns::{low_conversion as column, number_range as of_range},
        identity::Identity,
        prepared::statements,
        rows,
        transaction::Failure,
    },
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

    // Of the latest attempts that count of a recipient. The sandbox's do not decide elsewhere: everybody knows its
    // code.
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

/// The counts of a range.
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
    /// When this is over, unless the row is written anew.
    pub until: Timestamp,
    /// The counts by which it was found.
    pub counts: Counts,
    /// Of a range, how many sends of an hour are people's; of a provider, the share that was typed in before.
    pub usual: f64,
    /// Of a range: the share that it falls short of.
    pub percent: u8,
    /// Of a range: whether it is held back; else it would be.
    pub is_enforced: bool,
    pub blocked: u64,
    pub passed: u64,
}

fn counted(row: Row) -> Option<CountedRange> {
    Some(CountedRange {
        provider: row.get(of_range::PROVIDER_ID)?,
        range: row.get(of_range::RANGE)?,
        hours: HourlyCounts {
            counted_at: row.time(of_range::COUNTED_AT)?,
            sends: row.get(of_range::SENDS)?,
            converted: row.get(of_range::CONVERTED)?,
        },
    })
}

pub fn low_conversion(row: Row) -> Option<LowConversion> {
    let count = |column| u32::try_from(row.get::<i32>(column)?).ok();
    let great = |column| u64::try_from(row.get::<i64>(column)?).ok();
    Some(LowConversion {
        provider: row.get(column::PROVIDER_ID)?,
        range: row.get(column::RANGE)?,
        since: row.time(column::SINCE)?,
        until: row.time(column::UNTIL)?,
        counts: Counts { sends: count(column::SENDS)?, converted: count(column::CONVERTED)? },
        usual: row.get(column::USUAL)?,
        percent: u8::try_from(count(column::PERCENT)?).ok()?,
        is_enforced: row.get(column::IS_ENFORCED)?,
        blocked: great(column::BLOCKED)?,
        passed: great(column::PASSED)?,
    })
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

    /// Deletes the ranges to which nothing has gone since `before`.
    pub fn forget_ranges(&mut self, before: Timestamp) -> Result<(), Failure> {
        self.client.update(&self.store.ranges.forget_ranges, None, &[values::time(before)])?;
        Ok(())
    }

    pub fn ranges(&mut self) -> Result<Vec<CountedRange>, Failure> {
        let table = of_extension(c"number_range").ok_or(Failure::NotInstalled)?;
        let mut all = Vec::new();
        scan_table(table, By::Table, [], |row| all.extend(counted(row)));
        Ok(all)
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

    pub fn end_past_low_conversions(&mut self) -> Result<(), Failure> {
        self.client.update(&self.store.ranges.end_past_low_conversion, None, &[])?;
        Ok(())
    }

    /// Returns whether a code to this recipient was ever typed in, as far as the record goes back.
    pub fn was_approved(&mut self, recipient_keys: &[Vec<u8>], provider: Identity) -> Result<bool, Failure> {
        let arguments = [byteas(recipient_keys), number(provider)];
        let table = self.client.select(&self.store.ranges.select_approved, Some(1), &arguments)?;
        Ok(table.map(|row| rows::flag(&row, 1)).next().transpose()?.unwrap_or(false))
    }
}
