//! The row that the otp_ functions and `otp_gateway.wait` return, of the composite type `otp_gateway.result`.

use std::ffi::CString;

use dialect::Outcome;
use pgrx::{IntoDatum, pg_sys};
use policy::BlockReason;

use crate::{
    api::{
        function::{Call, Returned, declared_otherwise},
        repeated_call,
    },
    error::Error,
    ipc::{message::ResultRow, segment, session},
    pg::{fingerprint::Fingerprint, relation::result_type, writable::may_write},
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
        let row = Row::of(call)?;
        if let Some(result) = repeated_call::recall(&fingerprint) {
            return Ok(row.fill(&result));
        }
        let result = body()?;
        let datum = row.fill(&result);
        repeated_call::remember(fingerprint, result);
        Ok(datum)
    }
}

/// The type of the row, found through the function itself, not through search_path. Nothing of it is looked up again,
/// so that a call during which the extension is dropped still returns its row.
struct Row {
    descriptor: pg_sys::TupleDesc,
}

const COLUMNS: [pg_sys::Oid; 13] = [
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

impl Row {
    fn of(call: &Call) -> Result<Self, Error> {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        // SAFETY: a call that is under way, of a function that is declared to return our type. Its columns are checked:
        // somebody may have changed them.
        unsafe {
            let class = pg_sys::get_call_result_type(call.fcinfo(), std::ptr::null_mut(), &mut descriptor);
            let fits = class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
                && !descriptor.is_null()
                && usize::try_from((*descriptor).natts) == Ok(COLUMNS.len())
                && (1..).zip(COLUMNS).all(|(number, of)| pg_sys::SPI_gettypeid(descriptor, number) == of);
            if !fits {
                return Err(declared_otherwise());
            }
            Ok(Self { descriptor: pg_sys::BlessTupleDesc(descriptor) })
        }
    }

    fn fill(&self, result: &ResultRow) -> pg_sys::Datum {
        // SAFETY: every datum is of its column's type, as COLUMNS has them.
        let values: [Option<pg_sys::Datum>; COLUMNS.len()] = unsafe {
            [
                pgrx::datum::Uuid::from_bytes(*result.verification.as_bytes()).into_datum(),
                result.attempt.map(|id| pgrx::datum::Uuid::from_bytes(*id.as_bytes())).into_datum(),
                result.status.as_str().into_datum(),
                result.outcome.map(Outcome::as_str).into_datum(),
                result.retryable.into_datum(),
                i32::try_from(result.attempts_left).unwrap_or(i32::MAX).into_datum(),
                result.retry_after.map(interval),
                result.expires_at.map(|at| pg_sys::Datum::from(at.0)),
                result.reference.as_deref().into_datum(),
                result.vendor_code.as_deref().into_datum(),
                result.vendor_message.as_deref().into_datum(),
                result.response.as_deref().and_then(|json| jsonb(json)),
                result.reason.map(BlockReason::as_str).into_datum(),
            ]
        };
        let mut nulls = values.map(|value| value.is_none());
        let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
        // SAFETY: the arrays have as many elements as the descriptor has attributes.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

fn interval(micros: i64) -> pg_sys::Datum {
    // SAFETY: allocated in the caller's memory context, where the row is formed.
    unsafe {
        let interval = pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        (*interval).time = micros;
        pg_sys::Datum::from(interval)
    }
}

/// # Safety
/// On the main thread; the text is JSON that jsonb can hold, which the worker made sure of.
unsafe fn jsonb(json: &str) -> Option<pg_sys::Datum> {
    let text = CString::new(json).ok()?;
    // SAFETY: jsonb_in reads a C string.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()]) }
}
