//! Two clocks: Postgres' own, which the record has, and one that nobody sets.

use std::ops::Add;

use pgrx::pg_sys;
use policy::{Micros, Timestamp};

/// Returns the time of Postgres' clock, which moves inside a transaction.
pub fn clock() -> Timestamp {
    // SAFETY: reads the clock.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// An instant by a clock that nobody sets, the same for all processes: microseconds since the machine has started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SinceBoot(pub i64);

impl SinceBoot {
    /// Returns how long after the other instant this one is, in microseconds; negative if it is before.
    pub fn since(self, earlier: Self) -> Micros {
        self.0.saturating_sub(earlier.0)
    }
}

/// Saturates: a timeout may be of any length.
impl Add<Micros> for SinceBoot {
    type Output = Self;

    fn add(self, length: Micros) -> Self {
        Self(self.0.saturating_add(length))
    }
}

/// Returns the time of the clock that nobody sets; never 0.
pub fn since_boot() -> SinceBoot {
    // SAFETY: fills in the struct that it is given; the clock is there on every system that Postgres runs on.
    let now = unsafe {
        let mut now = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    #[allow(clippy::unnecessary_cast)]
    let micros = now.tv_sec as i64 * 1_000_000 + now.tv_nsec as i64 / 1000;
    SinceBoot(micros.max(1))
}

/// How many seconds lie between 1970, from which others count, and 2000, from which Postgres does.
const EPOCHS_APART: i64 = 946_684_800;

pub fn at_unix_seconds(seconds: i64) -> Timestamp {
    Timestamp(seconds.saturating_sub(EPOCHS_APART).saturating_mul(1_000_000))
}

/// Returns the seconds from 1970, as to_timestamp takes them. An infinite time becomes the furthest that it takes.
pub fn unix_seconds(at: Timestamp) -> f64 {
    const FURTHEST: i64 = 9_200_000_000_000_000_000;
    at.0.clamp(-FURTHEST / 50, FURTHEST) as f64 / 1e6 + EPOCHS_APART as f64
}
