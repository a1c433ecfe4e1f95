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
}

impl Exposure {
    /// For what does not rise and fall with the mesh's calls.
    #[must_use]
    #[inline]
    pub fn calm(self) -> Self {
        Self { tide: 1.0, ..self }
    }
}
