//! The vendors' dialects, pure: JSON in, an HTTP message out; an HTTP answer in, an outcome out.
//!
//! No Postgres, no I/O, no clock: that is what lets thousands of tests run in a second, and the crate's
//! dependencies keep it so. Each vendor is one file of one shape (`ideamart.rs` is the shortest). To add one, copy a
//! file and list its `DIALECT` in [`DIALECTS`].

mod answer;
mod call;
mod code;
mod dialect;
mod extra;
mod field;
mod filled;
mod hyperverge;
mod ideamart;
mod iserveu;
mod mobile;
mod operation;
mod outcome;
mod paytm;
mod redact;
mod relid;
mod rule;
mod sandbox;
mod secret;
mod words;

pub use answer::{Answer, MAX_ANSWER_BYTES, MAX_ANSWER_DEPTH, Reading, json_depth_exceeds, read};
pub use call::{Call, FindBy, Prepared, Request, TIMEOUT};
pub use code::CodeForm;
pub use dialect::Dialect;
pub use field::{Field, Invalid, nearest};
pub use filled::check_defaults;
pub use operation::Operation;
pub use outcome::Outcome;
pub use redact::{redact, redact_text};
pub use relid::{Token, read_token, token_request};
pub use rule::Rule;
pub use secret::{Private, Secret, Wipe};

/// Every vendor that the gateway speaks to. A vendor is added here, and nowhere else.
pub static DIALECTS: &[&Dialect] =
    &[&iserveu::DIALECT, &hyperverge::DIALECT, &paytm::DIALECT, &relid::DIALECT, &ideamart::DIALECT, &sandbox::DIALECT];

/// The dialect of that name (`ideamart`), or none.
pub fn dialect(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}
