//! What may be asked of a verification, and what an answer makes of it. Pure: values in, values out, the clock is an
//! argument. The worker asks [`admit`] before it records an intent and [`conclude`] when it records an outcome; both
//! see the record as it is on disk, so that no race and no rollback gets round them.
#![forbid(unsafe_code)]

mod admit;
mod conclude;
mod status;
mod verification;

pub use admit::{admit, from_record};
pub use conclude::{Conclusion, conclude, retryable};
pub use status::Status;
pub use verification::{Micros, Verification};
