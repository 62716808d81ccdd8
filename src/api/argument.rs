//! The arguments of a SQL function, read with errors that name the argument and never its value.

use std::ffi::CStr;

use pgrx::{FromDatum, pg_sys};
use policy::Micros;
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::{Private, Secret, json_depth_exceeds};
use zeroize::Zeroizing;

use crate::misuse::Misuse;

/// A longer payload is refused: no vendor takes one.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// A deeper payload is refused.
const MAX_PAYLOAD_DEPTH: usize = 32;
/// A longer code is refused: the longest that any vendor makes has 9 characters.
const MAX_CODE_BYTES: usize = 64;

/// The arguments of one call.
pub struct Arguments {
    fcinfo: pg_sys::FunctionCallInfo,
}

/// A payload: an object.
#[derive(Default)]
pub struct Payload(Private<Map<String, Value>>);

impl Payload {
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl Arguments {
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self { fcinfo }
    }

    /// How many the function was given.
    pub fn count(&self) -> usize {
        // SAFETY: fcinfo is Postgres' own for this call.
        unsafe { (*self.fcinfo).nargs as usize }
    }

    fn datum(&self, number: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the numbers are those of the function's declaration.
        unsafe {
            let argument = (*self.fcinfo).args.as_ptr().add(number);
            (!(*argument).isnull).then_some((*argument).value)
        }
    }

    /// The argument as text, whatever its type: for a fingerprint.
    pub fn bytes(&self, number: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Misuse> {
        let Some(datum) = self.datum(number) else { return Ok(None) };
        // SAFETY: fn_expr's type of the argument fits its datum.
        unsafe {
            let of = pg_sys::get_fn_expr_argtype((*self.fcinfo).flinfo, number as i32);
            // Both are sixteen bytes by reference.
            if of == pg_sys::UUIDOID || of == pg_sys::INTERVALOID {
                let bytes = std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), 16);
                return Ok(Some(Zeroizing::new(bytes.to_vec())));
            }
            // text and jsonb are both varlena: equal values have equal bytes once detoasted.
            let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Ok(Some(Zeroizing::new(pgrx::varlena_to_byte_slice(varlena).to_vec())))
        }
    }

    pub fn text(&self, number: usize, name: &str) -> Result<String, Misuse> {
        let null = || Misuse::invalid(format!("{name} is null"), format!("Give {name} a value."));
        let datum = self.datum(number).ok_or_else(null)?;
        // SAFETY: the argument is declared text and is not null.
        let bytes = unsafe {
            let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            pgrx::varlena_to_byte_slice(varlena)
        };
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            Misuse::invalid(
                format!("{name} is not UTF-8"),
                "otp_gateway takes text in UTF-8: use a database of that encoding.",
            )
        })
    }

    /// Text that nobody may see.
    pub fn secret(&self, number: usize, name: &str) -> Result<Secret, Misuse> {
        self.text(number, name).map(Secret::new)
    }

    /// None: null, or a function of an older version without this argument.
    pub fn optional_text(&self, number: usize, name: &str) -> Result<Option<String>, Misuse> {
        if number >= self.count() || self.datum(number).is_none() {
            return Ok(None);
        }
        self.text(number, name).map(Some)
    }

    pub fn uuid(&self, number: usize, name: &str) -> Result<Uuid, Misuse> {
        let datum = self.datum(number).ok_or_else(|| {
            Misuse::invalid(format!("{name} is null"), "Give the verification_id that otp_send returned.")
        })?;
        // SAFETY: the argument is declared uuid, sixteen bytes by reference, and is not null.
        let uuid = unsafe { pgrx::datum::Uuid::from_datum(datum, false) };
        uuid.map(|uuid| Uuid::from_bytes(*uuid.as_bytes()))
            .ok_or_else(|| Misuse::internal("an argument could not be read", "Report it."))
    }

    /// An interval in microseconds, months taken for 30 days; not null and not negative.
    pub fn interval(&self, number: usize, name: &str) -> Result<Micros, Misuse> {
        let refuse = |what: &str| Misuse::invalid(format!("{name} {what}"), format!("For example: {name} => '5s'."));
        let datum = self.datum(number).ok_or_else(|| refuse("is null"))?;
        // SAFETY: the argument is declared interval, by reference, and is not null.
        let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
        const DAY: i64 = 86_400_000_000;
        let days = i64::from(interval.month) * 30 + i64::from(interval.day);
        let micros = days.saturating_mul(DAY).saturating_add(interval.time);
        if micros < 0 { Err(refuse("is negative")) } else { Ok(micros) }
    }

    pub fn code(&self, number: usize) -> Result<Secret, Misuse> {
        let code = Zeroizing::new(self.text(number, "otp")?);
        let refuse =
            |what: &str| Misuse::invalid(format!("otp {what}"), "otp is the code as the user typed it, as text.");
        if code.is_empty() {
            return Err(refuse("is empty"));
        }
        if code.len() > MAX_CODE_BYTES {
            return Err(refuse("is longer than any code"));
        }
        if code.chars().any(char::is_control) {
            return Err(refuse("holds a control character"));
        }
        Ok(Secret::new(code.as_str()))
    }

    pub fn payload(&self, number: usize) -> Result<Payload, Misuse> {
        let refuse = |what: &str| {
            Misuse::invalid(
                format!("payload {what}"),
                r#"payload is a JSON object of the vendor's fields, such as {"mobile": "..."}."#,
            )
        };
        let datum = self.datum(number).ok_or_else(|| refuse("is null"))?;
        let too_long = || {
            Misuse::invalid(
                format!("payload is longer than {MAX_PAYLOAD_BYTES} bytes"),
                "No vendor takes a payload of that size: give the documented fields alone.",
            )
        };
        // SAFETY: the argument is declared jsonb and is not null; its length is looked at before it is unpacked.
        let text = unsafe {
            if pg_sys::toast_raw_datum_size(datum) > 2 * MAX_PAYLOAD_BYTES {
                return Err(too_long());
            }
            pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)])
        };
        let bytes = text.map(CStr::to_bytes).unwrap_or_default();
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(too_long());
        }
        if json_depth_exceeds(bytes, MAX_PAYLOAD_DEPTH) {
            return Err(refuse("is nested too deep"));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Payload(fields.into())),
            Ok(_) => Err(refuse("is not an object")),
            Err(_) => Err(refuse("holds a number or a text that cannot be read")),
        }
    }
}
