//! The arguments of a SQL function, read with errors that name the argument and never its value.

use std::ffi::CStr;

use pgrx::{FromDatum, PgList, pg_sys};
use policy::Micros;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::{Private, Secret, json_depth_exceeds};
use zeroize::Zeroizing;

use crate::{misuse::Misuse, provider::options, statement::Print};

/// A longer payload is refused: no vendor takes one.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// A deeper payload is refused.
const MAX_PAYLOAD_DEPTH: usize = 32;
/// What is longer is no code, and is not looked at: the longest that any vendor makes has 9 characters.
const MAX_CODE_BYTES: usize = 256;

/// A value that a function takes.
pub trait Argument: Sized {
    /// As what it is declared.
    const TYPE: pg_sys::Oid;

    /// # Safety
    /// The datum is of this type; none: null.
    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse>;

    /// Into the fingerprint of the call.
    fn note(&self, print: &mut Print);
}

/// The code as the user typed it.
pub struct Code(pub Secret);

/// A time span in microseconds, months taken for 30 days; not negative.
pub struct Interval(pub Micros);

/// A payload: an object.
#[derive(Default)]
pub struct Payload(Private<Map<String, Value>>);

impl Payload {
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Options of a server or a user mapping, as a validator is given them.
pub struct Options(pub Vec<(String, String)>);

impl Argument for String {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let null = || Misuse::invalid(format!("{name} is null"), format!("Give {name} a value."));
        let datum = datum.ok_or_else(null)?;
        // SAFETY: as the caller promises, text.
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

    fn note(&self, print: &mut Print) {
        print.add(Some(self.as_bytes()));
    }
}

/// One that may be null.
impl<T: Argument> Argument for Option<T> {
    const TYPE: pg_sys::Oid = T::TYPE;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        // SAFETY: as the caller promises.
        datum.map(|datum| unsafe { T::read(Some(datum), name) }).transpose()
    }

    fn note(&self, print: &mut Print) {
        match self {
            Some(value) => value.note(print),
            None => print.add(None),
        }
    }
}

impl Argument for Secret {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        // SAFETY: as the caller promises.
        unsafe { String::read(datum, name) }.map(Secret::new)
    }

    fn note(&self, print: &mut Print) {
        print.add(Some(self.reveal().as_bytes()));
    }
}

impl Argument for Code {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        // SAFETY: as the caller promises, text; its length is looked at before it is unpacked.
        unsafe {
            if datum.is_some_and(|datum| pg_sys::toast_raw_datum_size(datum) > MAX_CODE_BYTES) {
                return Ok(Self(Secret::default()));
            }
            Secret::read(datum, name).map(Self)
        }
    }

    fn note(&self, print: &mut Print) {
        self.0.note(print);
    }
}

impl Argument for Uuid {
    const TYPE: pg_sys::Oid = pg_sys::UUIDOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let datum = datum.ok_or_else(|| {
            Misuse::invalid(format!("{name} is null"), "Give the verification_id that otp_send returned.")
        })?;
        // SAFETY: as the caller promises, a uuid: sixteen bytes by reference.
        Ok(Self::from_bytes(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read() }))
    }

    fn note(&self, print: &mut Print) {
        print.add(Some(self.as_bytes()));
    }
}

impl Argument for Interval {
    const TYPE: pg_sys::Oid = pg_sys::INTERVALOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let refuse = |what: &str| Misuse::invalid(format!("{name} {what}"), format!("For example: {name} => '5s'."));
        let datum = datum.ok_or_else(|| refuse("is null"))?;
        // SAFETY: as the caller promises, an interval, by reference.
        let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
        const DAY: i64 = 86_400_000_000;
        let days = i64::from(interval.month) * 30 + i64::from(interval.day);
        let micros = days.saturating_mul(DAY).saturating_add(interval.time);
        if micros < 0 { Err(refuse("is negative")) } else { Ok(Self(micros)) }
    }

    fn note(&self, print: &mut Print) {
        print.add(Some(&self.0.to_le_bytes()));
    }
}

impl Argument for Payload {
    const TYPE: pg_sys::Oid = pg_sys::JSONBOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let refuse = |what: &str| {
            Misuse::invalid(
                format!("{name} {what}"),
                r#"payload is a JSON object of the vendor's fields, such as {"mobile": "..."}."#,
            )
        };
        let datum = datum.ok_or_else(|| refuse("is null"))?;
        let too_long = || {
            Misuse::invalid(
                format!("{name} is longer than {MAX_PAYLOAD_BYTES} bytes"),
                "No vendor takes a payload of that size: give the documented fields alone.",
            )
        };
        // SAFETY: as the caller promises, jsonb; its length is looked at before it is unpacked.
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
            Ok(Value::Object(fields)) => Ok(Self(fields.into())),
            Ok(Value::String(text)) if is_an_object(&text) => {
                Err(refuse("is a JSON string that holds an object: encode it once"))
            }
            Ok(_) => Err(refuse("is not an object")),
            Err(_) => Err(refuse("holds a number or a text that cannot be read")),
        }
    }

    fn note(&self, print: &mut Print) {
        // jsonb keeps its members in an order of its own: equal values have equal texts.
        let text = Zeroizing::new(serde_json::to_vec(self.fields()).unwrap_or_default());
        print.add(Some(&text));
    }
}

/// Whether a text is a JSON object; nothing of it is kept.
fn is_an_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

impl Argument for Options {
    const TYPE: pg_sys::Oid = pg_sys::TEXTARRAYOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let datum =
            datum.ok_or_else(|| Misuse::invalid(format!("{name} is null"), "Give an array of 'name=value'."))?;
        // SAFETY: as the caller promises, text[]; an element that is null is an error of Postgres'.
        let list = unsafe { pg_sys::untransformRelOptions(datum) };
        // SAFETY: a list of DefElem. For one without a value Postgres' own error has its name, in words of its own.
        let has_values =
            unsafe { PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr().all(|one| !(*one).arg.is_null()) };
        if !has_values {
            return Err(Misuse::invalid(format!("{name} has an element without a value"), "Each is 'name=value'."));
        }
        // SAFETY: a list of DefElem with text values.
        Ok(Self(unsafe { options(list) }))
    }

    fn note(&self, print: &mut Print) {
        for (name, value) in &self.0 {
            print.add(Some(name.as_bytes()));
            print.add(Some(value.as_bytes()));
        }
    }
}

impl Argument for pg_sys::Oid {
    const TYPE: pg_sys::Oid = pg_sys::OIDOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Misuse> {
        let datum = datum.ok_or_else(|| Misuse::invalid(format!("{name} is null"), format!("Give {name} a value.")))?;
        // SAFETY: as the caller promises, an oid: a number by value.
        let oid = unsafe { pg_sys::Oid::from_datum(datum, false) };
        Ok(oid.unwrap_or(pg_sys::InvalidOid))
    }

    fn note(&self, print: &mut Print) {
        print.add(Some(&self.to_u32().to_le_bytes()));
    }
}
