//! The row that the otp_ functions and `otp_gateway.wait` return, of the composite type `otp_gateway.result`.

use dialect::Outcome;
use pgrx::pg_sys;
use policy::BlockReason;

use crate::{
    api::{
        function::{Call, Returned},
        repeated_call,
    },
    error::Error,
    ipc::{message::ResultRow, segment, session},
    pg::{fingerprint::Fingerprint, relation::result_type, row_array::Columns, writable::may_write},
    store::columns::result as column,
};

/// The frame of every function that returns a row: checks what must hold first, and runs once in a statement.
impl Returned for ResultRow {
    fn declared() -> pg_sys::Oid {
        result_type()
    }

    fn answer(
        call: &Call,
        fingerprint: Fingerprint,
        body: impl FnOnce() -> Result<Self, Error>,
    ) -> Result<pg_sys::Datum, Error> {
        segment::check()?;
        may_write()?;
        session::await_launcher()?;
        // The row's type is looked up before the call: after it, nothing may fail for a look-up in the catalog.
        let row = call.returned_row(&TYPES)?;
        if let Some(result) = repeated_call::recall(&fingerprint) {
            return Ok(row.filled(|columns| fill(&result, columns)));
        }
        let result = body()?;
        let datum = row.filled(|columns| fill(&result, columns));
        repeated_call::remember(fingerprint, result);
        Ok(datum)
    }
}

/// The types of the columns of `otp_gateway.result`.
const TYPES: [pg_sys::Oid; 13] = [
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::BOOLOID,
    pg_sys::INT4OID,
    pg_sys::INTERVALOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::JSONBOID,
    pg_sys::TEXTOID,
];

fn fill(result: &ResultRow, columns: &mut Columns) {
    columns.uuid(column::VERIFICATION_ID, result.verification);
    if let Some(attempt) = result.attempt {
        columns.uuid(column::ATTEMPT_ID, attempt);
    }
    columns.text(column::STATUS, Some(result.status.as_str()));
    columns.text(column::OUTCOME, result.outcome.map(Outcome::as_str));
    columns.boolean(column::RETRYABLE, result.retryable);
    columns.count(column::ATTEMPTS_LEFT, result.attempts_left);
    columns.interval(column::RETRY_AFTER, result.retry_after);
    columns.time(column::EXPIRES_AT, result.expires_at);
    columns.text(column::REFERENCE, result.reference.as_deref());
    columns.text(column::VENDOR_CODE, result.vendor_code.as_deref());
    columns.text(column::VENDOR_MESSAGE, result.vendor_message.as_deref());
    columns.json(column::RESPONSE, result.response.as_deref());
    columns.text(column::REASON, result.reason.map(BlockReason::as_str));
}
