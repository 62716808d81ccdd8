//! The vendors' dialects, pure: JSON in, an HTTP message out; an HTTP answer in, an outcome out.
//!
//! No Postgres, no I/O, no clock: that is what lets thousands of tests run in a second, and the crate's
//! dependencies keep it so. Each vendor is one file of one shape (`ideamart.rs` is the shortest). How to add one:
//! docs/adding-a-vendor.md.

#![forbid(unsafe_code)]

mod call;
mod dialect;
mod dialects;
mod oauth;
mod operation;
mod outcome;
mod payload;
mod redact;
mod response;
mod rest;
mod secret;
mod wording;

pub use call::{Call, FindBy, HttpRequest, Method, Prepared, TIMEOUT};
pub use dialect::{Dialect, ServerOption};
pub use dialects::{DIALECTS, by_name};
pub use oauth::{Token, read_token, token_request};
pub use operation::Operation;
pub use outcome::Outcome;
pub use payload::code::CodeForm;
pub use payload::fill::{check_defaults, no_operation};
pub use payload::payload_field::{DefaultsInForce, PayloadField, defaults_in_force, missing_defaults, payload_fields};
pub use payload::rule::Rule;
pub use payload::{
    field::{AnyField, Blame, Field, Invalid, is_identifier, plain},
    phone_number::{calling_code, is_phone_number},
    placeholder::is_placeholder,
    suggest::nearest,
};
pub use redact::{redact, redact_text};
pub use response::{CallResult, HttpResponse, MAX_RESPONSE_BYTES, MAX_RESPONSE_DEPTH, interpret, json_depth_exceeds};
pub use rest::{Description, MAX_DESCRIPTION_BYTES, described};
pub use secret::{Private, Secret, Wipe};
