//! The row that every function returns: its OUT parameters.

use std::ffi::CString;

use pgrx::{IntoDatum, pg_sys};
use policy::Reason;
use vendor::Outcome;

use crate::letter::Done;

/// The type of the row, found through the function itself, not through search_path; nothing of it is looked up again.
pub struct Row {
    descriptor: pg_sys::TupleDesc,
}

const COLUMNS: usize = 13;

impl Row {
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        // SAFETY: fcinfo is Postgres' own for this call; our functions are declared with OUT parameters.
        unsafe {
            pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            Self { descriptor: pg_sys::BlessTupleDesc(descriptor) }
        }
    }

    pub fn fill(&self, done: &Done) -> pg_sys::Datum {
        // SAFETY: every datum is of its column's type, as the install script declares them.
        let values: [Option<pg_sys::Datum>; COLUMNS] = unsafe {
            [
                pgrx::datum::Uuid::from_bytes(*done.verification.as_bytes()).into_datum(),
                done.attempt.map(|id| pgrx::datum::Uuid::from_bytes(*id.as_bytes())).into_datum(),
                done.status.as_str().into_datum(),
                done.outcome.map(Outcome::as_str).into_datum(),
                done.retryable.into_datum(),
                i32::try_from(done.attempts_left).unwrap_or(i32::MAX).into_datum(),
                done.retry_after.map(interval),
                done.expires_at.map(pg_sys::Datum::from),
                done.reference.as_deref().into_datum(),
                done.vendor_code.as_deref().into_datum(),
                done.vendor_message.as_deref().into_datum(),
                done.response.as_deref().and_then(|json| jsonb(json)),
                done.reason.map(Reason::as_str).into_datum(),
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
