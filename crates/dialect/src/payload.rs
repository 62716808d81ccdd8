//! A vendor's payload: its fields, what may stand in them, and filling it.

pub mod code;
pub mod email_address;
pub mod example;
pub mod extra;
pub mod field;
pub mod fill;
pub mod payload_field;
pub mod phone_number;
pub mod placeholder;
pub mod rule;
pub mod suggest;
