//! Since when a key could have been seen.

use crate::time::Timestamp;

/// Since when a key could have been seen: usually the birth of the mesh, not of the key. A key never seen in
/// 10,000 windows has earned its surprise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exposure {
    /// The first watermark; for a key whose novelty was recognised as an honest change, the time of that.
    pub birth: Timestamp,
    /// Now, in event time.
    pub now: Timestamp,
    /// How much busier than usual the whole mesh is: a factor on every expected number of calls, at least 1.
    pub tide: f64,
    /// Windows that began before this are not learned: the end of the latest stretch of which nothing is to be, be it over
    /// or not.
    pub unlearned_until: Timestamp,
}

/// Nothing is left out.
pub const ALL_LEARNED: Timestamp = Timestamp(i64::MIN);

impl Exposure {
    /// Since `birth`, at the usual height of the tide, with nothing left out.
    pub const fn since(birth: Timestamp, now: Timestamp) -> Self {
        Self { birth, now, tide: 1.0, unlearned_until: ALL_LEARNED }
    }

    /// Whether what is seen now is to be learned.
    #[inline]
    pub fn is_learned(self) -> bool {
        self.learns_since(self.now)
    }

    /// Whether a window that began at `begin` is.
    #[inline]
    pub fn learns_since(self, begin: Timestamp) -> bool {
        begin >= self.unlearned_until
    }

    /// For what does not rise and fall with the mesh's calls.
    #[must_use]
    #[inline]
    pub fn calm(self) -> Self {
        Self { tide: 1.0, ..self }
    }
}
