use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A length of time, in microseconds.
pub type Micros = i64;

/// An instant by Postgres' clock: a `timestamptz` as it is stored, in microseconds from 2000 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MAX: Self = Self(i64::MAX);

    /// Returns how long after the other instant this one is, in microseconds; negative if it is before.
    pub fn since(self, earlier: Self) -> Micros {
        self.0.saturating_sub(earlier.0)
    }
}

/// Saturates: a length may come from an option or from a vendor.
impl Add<Micros> for Timestamp {
    type Output = Self;

    fn add(self, length: Micros) -> Self {
        Self(self.0.saturating_add(length))
    }
}

impl AddAssign<Micros> for Timestamp {
    fn add_assign(&mut self, length: Micros) {
        *self = *self + length;
    }
}

impl Sub<Micros> for Timestamp {
    type Output = Self;

    fn sub(self, length: Micros) -> Self {
        Self(self.0.saturating_sub(length))
    }
}
