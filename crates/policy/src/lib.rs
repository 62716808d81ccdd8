//! What may be asked of a verification, and what an answer makes of it; what a provider's options allow. Pure: values
//! in, values out, the clock and the random seeds are arguments. The worker asks [`admit()`] before it records an
//! intent and [`apply_result()`] when it records an outcome; both see the record as it is on disk, so that no race and
//! no rollback gets round them.
#![forbid(unsafe_code)]

mod admit;
mod allowed_prefixes;
mod apply_result;
mod breaker;
mod conversion;
mod expiries;
mod limit;
mod number_range;
mod parse_error;
mod ranges;
mod retry;
mod route;
mod rules;
mod status;
mod test_numbers;
mod time;
mod verification;

pub use admit::{admit, outcome_if_closed};
pub use allowed_prefixes::AllowedPrefixes;
pub use apply_result::{
    ResultContext, apply_result, counts_as_sent, may_have_compared, outcome_in_time, spends_a_check,
};
pub use breaker::{Breaker, BreakerPermit, BreakerState, is_fault};
pub use conversion::{Counts, HourlyCounts};
pub use expiries::{Expiries, Span};
pub use limit::cooldown;
pub use limit::{Limit, Limits, Refusal};
pub use number_range::{MinConversion, NumberRange};
pub use parse_error::ParseError;
pub use ranges::{Hold, Ranges, Slump};
pub use retry::backoff;
pub use retry::retry_delay;
pub use retry::retryable;
pub use route::{Strategy, fails_over, member_order};
pub use rules::{BlockReason, Blocked, History, LimitRules, PastCheck};
pub use status::Status;
pub use test_numbers::TestNumbers;
pub use time::{Micros, Timestamp};
pub use verification::Verification;

/// How long an idempotency key stands for its verification.
pub const IDEMPOTENCY_WINDOW: Micros = 86_400_000_000;
