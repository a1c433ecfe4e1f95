//! Event time: what the record says, never what the clock says.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// A point in time, nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

/// A span of time in nanoseconds; may be negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub i64);

impl Span {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);
    /// One minute.
    pub const MINUTE: Self = Self(60 * Self::SECOND.0);
    /// One hour.
    pub const HOUR: Self = Self(60 * Self::MINUTE.0);
    /// One day of 24 hours.
    pub const DAY: Self = Self(24 * Self::HOUR.0);

    /// `seconds` as a span.
    #[inline]
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds * Self::SECOND.0)
    }

    /// This span in seconds.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / Self::SECOND.0 as f64
    }
}

impl Timestamp {
    /// Seconds since 1970 as a timestamp.
    #[inline]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * Span::SECOND.0)
    }

    /// The index of the window of length `window` that holds this time; windows are aligned to 1970.
    #[inline]
    pub const fn window(self, window: Span) -> i64 {
        self.0.div_euclid(window.0)
    }

    /// Seconds since 1970, fractions kept.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / Span::SECOND.0 as f64
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    #[inline]
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    #[inline]
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Span;
    #[inline]
    fn sub(self, other: Self) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

/// Wall time as it is handed in from outside: this workspace's libraries never read a clock themselves.
///
/// The binary passes the system's clock, tests and `qualm demo` one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_before_1970_are_not_folded_onto_those_after() {
        assert_eq!(Timestamp(-1).window(Span::MINUTE), -1);
        assert_eq!(Timestamp(0).window(Span::MINUTE), 0);
    }
}
