//! The row that every function returns: `otp_gateway.result`.

use std::ffi::{CStr, CString};

use pgrx::{IntoDatum, pg_sys};

use crate::letter::Done;

/// The type of the row, found through the function itself, not through search_path.
pub struct Row {
    descriptor: pg_sys::TupleDesc,
}

const COLUMNS: usize = 12;

impl Row {
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        // SAFETY: fcinfo is Postgres' own for this call; our functions are declared to return a composite type.
        unsafe {
            pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            Self { descriptor: pg_sys::BlessTupleDesc(descriptor) }
        }
    }

    fn type_of(&self, column: usize) -> pg_sys::Oid {
        // SAFETY: the descriptor has COLUMNS attributes.
        unsafe { pg_sys::SPI_gettypeid(self.descriptor, column as i32 + 1) }
    }

    pub fn fill(&self, done: &Done) -> pg_sys::Datum {
        // SAFETY: every datum is of its column's type, as the install script declares them.
        let values: [Option<pg_sys::Datum>; COLUMNS] = unsafe {
            [
                pgrx::datum::Uuid::from_bytes(*done.verification.as_bytes()).into_datum(),
                pgrx::datum::Uuid::from_bytes(*done.attempt.as_bytes()).into_datum(),
                enum_label(done.status.as_str(), self.type_of(2)),
                enum_label(done.outcome.as_str(), self.type_of(3)),
                done.retryable.into_datum(),
                i32::try_from(done.attempts_left).unwrap_or(i32::MAX).into_datum(),
                done.retry_after.map(interval),
                done.expires_at.map(pg_sys::Datum::from),
                done.reference.as_deref().into_datum(),
                done.vendor_code.as_deref().into_datum(),
                done.vendor_message.as_deref().into_datum(),
                done.response.as_deref().and_then(|json| jsonb(json)),
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

/// # Safety
/// `of` is an enum type that has the label.
unsafe fn enum_label(label: &str, of: pg_sys::Oid) -> Option<pg_sys::Datum> {
    let label = CString::new(label).ok()?;
    // SAFETY: as the caller promises.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::enum_in, &[label.as_c_str().into_datum(), of.into_datum()]) }
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
    let text: &CStr = &text;
    // SAFETY: jsonb_in reads a C string.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.into_datum()]) }
}
