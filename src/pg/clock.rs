//! Two clocks: the one that the record has, and one that nobody sets.

use pgrx::pg_sys;
use policy::Micros;

/// Postgres' clock, now: it moves inside a transaction.
pub fn clock() -> Micros {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// A clock that nobody sets, the same for all processes: for durations. Never 0.
pub fn since_boot() -> Micros {
    // SAFETY: fills in the struct that it is given; the clock is there on every system that Postgres runs on.
    let now = unsafe {
        let mut now = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    #[allow(clippy::unnecessary_cast)]
    let micros = now.tv_sec as Micros * 1_000_000 + now.tv_nsec as Micros / 1000;
    micros.max(1)
}
