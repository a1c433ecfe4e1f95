//! What an e-value was read from last, so that it need not be worked out again for every event.

use super::ETable;

/// The range of counts over which the surprise of an open window stays where it is: exactly (below the mean, or below
/// the surprise held from the window before), or within one bin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The least and the greatest count.
    pub(super) from: f64,
    pub(super) upto: f64,
    /// `1 + surprise` at `from`.
    pub(super) x: f64,
    /// Whether `x` is the same over the whole range, not its bin alone.
    pub(super) level: bool,
    pub(super) told: Told,
}

/// An e-value, and the table that it was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    e: f64,
    fitted: f64,
}

impl Default for Step {
    /// Over no count at all.
    fn default() -> Self {
        Self { from: f64::INFINITY, upto: f64::NEG_INFINITY, x: 1.0, level: false, told: Told::default() }
    }
}

impl Default for Told {
    /// By no table.
    fn default() -> Self {
        Self { e: f64::NAN, fitted: f64::NAN }
    }
}

impl PartialEq for Step {
    /// A step follows from the count that it stands in: two equal counts are equal whatever was asked of them.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl PartialEq for Told {
    /// What was told follows from what was asked.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Step {
    #[inline]
    pub(super) fn holds(&self, a: f64) -> bool {
        self.from <= a && a <= self.upto
    }
}

impl Told {
    /// What `table` said of `x`.
    #[inline]
    pub(crate) fn by(table: &ETable, x: f64) -> Self {
        Self { e: table.e(x), fitted: table.fitted() }
    }

    /// The e-value, where it is this table's.
    #[inline]
    pub(crate) fn still(&self, table: &ETable) -> Option<f64> {
        (self.fitted == table.fitted()).then_some(self.e)
    }

    /// The e-value.
    #[inline]
    pub(crate) fn e(&self) -> f64 {
        self.e
    }
}
