//! The simulator's clock: the machine's, plus what a test has advanced it by. Codes and tokens expire by it.

use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Default)]
pub struct Clock {
    advanced_ms: u64,
}

impl Clock {
    pub fn now_ms(&self) -> u64 {
        real_ms() + self.advanced_ms
    }

    pub fn advance(&mut self, seconds: u64) {
        self.advanced_ms = self.advanced_ms.saturating_add(seconds.saturating_mul(1000));
    }

    pub fn advanced_seconds(&self) -> u64 {
        self.advanced_ms / 1000
    }
}

pub fn real_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
