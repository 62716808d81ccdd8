//! The arguments `otp` and `payload`, and their limits.

use std::ffi::CStr;

use dialect::{Private, Secret, json_depth_exceeds};
use pgrx::pg_sys;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    pg::{
        arguments::{Argument, Unread},
        fingerprint::FingerprintBuilder,
    },
};

/// Longest payload that is accepted, in bytes: no vendor takes a longer one.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// Deepest nesting of a payload that is accepted.
pub const MAX_PAYLOAD_DEPTH: usize = 32;

/// Longest text, in bytes, that is looked at as a code: the longest code that any vendor makes has 9 characters.
pub const MAX_CODE_BYTES: usize = 256;

/// The code as the user typed it.
pub struct Code(pub Secret);

impl Argument for Code {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        // The length is looked at before the text is unpacked.
        if value.size() > MAX_CODE_BYTES {
            return Ok(Self(Secret::default()));
        }
        Secret::read(value, name).map(Self)
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        self.0.note(fingerprint);
    }
}

/// A payload: a JSON object.
#[derive(Default)]
pub struct Payload(Private<Map<String, Value>>);

impl Payload {
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl Argument for Payload {
    const TYPE: pg_sys::Oid = pg_sys::JSONBOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let refuse = |what: &str| {
            Error::invalid_parameter(
                format!("{name} {what}"),
                r#"payload is a JSON object of the vendor's fields, such as {"mobile": "..."}."#,
            )
        };
        if value.is_null() {
            return Err(refuse("is null"));
        }
        let too_long = || {
            Error::invalid_parameter(
                format!("{name} is longer than {MAX_PAYLOAD_BYTES} bytes"),
                "No vendor takes a payload of that size: give the documented fields alone.",
            )
        };
        // The length is looked at before the jsonb is unpacked.
        if value.size() > 2 * MAX_PAYLOAD_BYTES {
            return Err(too_long());
        }
        let bytes = value.json().map(CStr::to_bytes).unwrap_or_default();
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

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        // jsonb keeps its members in an order of its own: equal values have equal texts.
        let text = Zeroizing::new(serde_json::to_vec(self.fields()).unwrap_or_default());
        fingerprint.add(Some(&text));
    }
}

/// Returns whether a text is a JSON object; nothing of the text is kept.
pub fn is_an_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}
