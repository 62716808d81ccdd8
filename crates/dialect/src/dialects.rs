//! The list of vendors, one file each. Whatever depends on the vendor goes by this list.

use crate::{dialect::Dialect, rest};

pub mod hyperverge;
pub mod ideamart;
pub mod iserveu;
pub mod msg91;
pub mod paytm;
pub mod relid;
pub mod sandbox;
pub mod twilio;

/// Every vendor that the gateway speaks to.
pub static DIALECTS: &[&Dialect] = &[
    &iserveu::DIALECT,
    &hyperverge::DIALECT,
    &paytm::DIALECT,
    &relid::DIALECT,
    &ideamart::DIALECT,
    &twilio::DIALECT,
    &msg91::DIALECT,
    &rest::DIALECT,
    &sandbox::DIALECT,
];

/// Returns the dialect of that name (`ideamart`), or None if there is none.
pub fn by_name(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}
