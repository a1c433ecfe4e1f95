//! From a surprise to a p-value by its rank over the whole mesh, and from there to an e-value.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Bins;

/// Samples below which nothing is known: p = 1. A cold mesh is silent, never guessing from a parametric form.
const IGNORANT_BELOW: f64 = 100.0;
/// Share of the samples that the Pareto tail is fitted to, and the least number of them.
const TAIL_SHARE: f64 = 0.005;
const TAIL_LEAST: f64 = 20.0;
/// Prior of the tail: this many samples of mean excess 2 (in ln x), so that few samples do not decide alone.
const PRIOR_WEIGHT: f64 = 20.0;
const PRIOR_EXCESS: f64 = 2.0;
/// A tail thinner than this would turn any new maximum into certainty.
const LEAST_EXCESS: f64 = 0.3;
/// A table is fitted again when it rests on this much less than what is there now.
const REFIT_GROWTH: f64 = 1.01;

/// Bins beyond the greatest with a sample that a table still has at hand: a new maximum is seldom far from the last.
const AHEAD: usize = 40;

/// One detector's histogram of `x = 1 + surprise` for the whole mesh.
///
/// `p(x)` is the share of samples in bins above that of `x`, with half of its own bin: many samples are of one value
/// (every new edge has the same rarity), so that a place within a bin says nothing. In the upper half per cent a
/// Pareto tail in `x` (exponential in
/// `y = ln x`) with the mean excess of the samples there:
/// `p = (above(u) + 1)/(N + 1) · exp(−(y − u)/m)`, `m = (m̂·c + 2·20)/(c + 20) ≥ 0.3`.
/// The e-value is `e(p) = (1 − p + p ln p)/(p (ln p)²)` (Vovk & Wang, *E-values: calibration, combination and
/// applications*, Ann. Stat. 49, 2021, eq. 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    counts: Vec<f64>,
    total: f64,
    fitted_at: f64,
}

/// The e-values of a calibration by bin: constant in the body, rising within the bin in the tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ETable {
    /// e at the lower edge, and how much it rises to the upper, up to a little beyond the greatest bin with a sample: a
    /// table is fitted often, and what lies farther out is seldom asked.
    bins: Vec<(f64, f64)>,
    beyond: Tail,
    /// Total weight that it rests on, which tells it from the tables before and after.
    fitted: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { counts: vec![0.0; Bins::COUNT], total: 0.0, fitted_at: 0.0 }
    }
}

impl Default for ETable {
    fn default() -> Self {
        Self { bins: vec![(e_value(0.0), 0.0); Bins::COUNT], beyond: Tail::default(), fitted: 0.0 }
    }
}

impl Calibration {
    /// Adds a sample of the given weight to the bin of `x = 1 + surprise`.
    pub fn add(&mut self, x: f64, weight: f64) {
        self.counts[Bins::locate(x).0] += weight;
        self.total += weight;
    }

    /// Adds to a bin by its number (see [`Bins::locate`]).
    pub fn add_to_bin(&mut self, bin: usize, weight: f64) {
        self.counts[bin] += weight;
        self.total += weight;
    }

    /// Total weight of the samples.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// A fresh table when at least 1 % was added since the last one, else `None`.
    pub fn refit(&mut self) -> Option<ETable> {
        if self.total < IGNORANT_BELOW || self.total < self.fitted_at * REFIT_GROWTH {
            return None;
        }
        self.fitted_at = self.total;
        Some(self.fit())
    }

    /// The table for what is known now.
    pub fn fit(&self) -> ETable {
        if self.total < IGNORANT_BELOW {
            return ETable::default();
        }
        let tail = self.tail();
        let seen = self.counts.iter().rposition(|&count| count > 0.0).map_or(0, |last| last + 1);
        let mut bins = Vec::with_capacity(seen);
        let mut above = self.total;
        // Empty bins share the value of the one before them.
        let mut last = (f64::NAN, 0.0);
        for &count in self.counts.iter().take(tail.bin.min(seen)) {
            above -= count;
            let p = (above + 0.5 * count + 1.0) / (self.total + 1.0);
            if p != last.0 {
                last = (p, e_value(-libm::log(p.min(1.0))));
            }
            bins.push((last.1, 0.0));
        }
        let mut low = tail.e(bins.len());
        for bin in bins.len()..seen {
            above -= self.counts[bin];
            let (high, most) = (tail.e(bin + 1), most_for_lump(above + 0.5 * self.counts[bin], self.total));
            bins.push((low.min(most), high.min(most) - low.min(most)));
            low = high;
        }
        for bin in seen..(seen + AHEAD).min(Bins::COUNT) {
            let high = tail.e(bin + 1);
            bins.push((low, high - low));
            low = high;
        }
        ETable { bins, beyond: tail, fitted: self.total }
    }

    /// Where the tail begins: the lowest edge with few enough samples above it.
    fn tail(&self) -> Tail {
        let few = (TAIL_SHARE * self.total).max(TAIL_LEAST);
        let (mut bin, mut above) = (0, self.total);
        while above > few && bin < Bins::COUNT {
            above -= self.counts[bin];
            bin += 1;
        }
        let y = LOGARITHMS.edges[bin];
        let excess: f64 = (bin..Bins::COUNT)
            .filter(|&bin| self.counts[bin] > 0.0)
            .map(|bin| self.counts[bin] * (LOGARITHMS.middles[bin] - y))
            .sum();
        let excess = ((excess + PRIOR_EXCESS * PRIOR_WEIGHT) / (above.max(0.0) + PRIOR_WEIGHT)).max(LEAST_EXCESS);
        let surprise = -libm::log((above.max(0.0) + 1.0) / (self.total + 1.0));
        Tail { bin, y, excess, surprise }
    }
}

/// The greatest e-value where `reached` of `total` samples were as far out: a lump in the tail (timeouts all last as
/// long) is as frequent as it was seen to be, whatever the fitted form says. `(√k − 1)²` is the lower bound of a Poisson
/// count `k` at about one standard error (Anscombe's root), so that a sample or two, which may be the attack itself,
/// bound nothing.
fn most_for_lump(reached: f64, total: f64) -> f64 {
    if reached <= 1.0 {
        return f64::INFINITY;
    }
    let at_least = libm::sqrt(reached) - 1.0;
    e_value(-libm::log((at_least * at_least / (total + 1.0)).min(1.0)))
}

/// Logarithms of the edges and of the middles of the bins.
struct Logarithms {
    edges: Vec<f64>,
    middles: Vec<f64>,
}

static LOGARITHMS: LazyLock<Logarithms> = LazyLock::new(|| Logarithms {
    edges: (0..=Bins::COUNT).map(|bin| libm::log(Bins::edge(bin))).collect(),
    middles: (0..Bins::COUNT).map(|bin| libm::log(0.5 * (Bins::edge(bin) + Bins::edge(bin + 1)))).collect(),
});

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Tail {
    bin: usize,
    y: f64,
    excess: f64,
    surprise: f64,
}

impl Tail {
    /// The e-value at the lower edge of a bin.
    fn e(&self, bin: usize) -> f64 {
        e_value((self.surprise + (LOGARITHMS.edges[bin] - self.y) / self.excess).max(0.0))
    }
}

impl ETable {
    /// The e-value of `x = 1 + surprise`.
    #[inline]
    pub fn e(&self, x: f64) -> f64 {
        let (bin, place) = Bins::locate(x);
        let (low, rise) = self.bin(bin);
        low + place * rise
    }

    /// Total weight that the table rests on.
    #[inline]
    pub(crate) fn fitted(&self) -> f64 {
        self.fitted
    }

    /// The e-value at the lower edge of a bin, and how much it rises within.
    #[inline]
    pub fn bin(&self, bin: usize) -> (f64, f64) {
        match self.bins.get(bin) {
            Some(&found) => found,
            None => self.beyond(bin),
        }
    }

    #[cold]
    fn beyond(&self, bin: usize) -> (f64, f64) {
        let low = self.beyond.e(bin);
        (low, self.beyond.e(bin + 1) - low)
    }
}

/// `e(p)` for `p = e^(−surprise)`, computed without cancellation: with `l = −ln p`,
/// `e = (1 − e^(−l)(1 + l)) / (e^(−l) l²)`; at `p = 1` it is ½.
pub fn e_value(surprise: f64) -> f64 {
    let l = surprise;
    if l < 1e-3 {
        return 0.5 + l / 6.0;
    }
    let p = libm::exp(-l);
    (-libm::expm1(-l) - p * l) / (p * l * l)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ignorance_is_p_equal_to_one() {
        let mut cold = Calibration::default();
        for _ in 0..50 {
            cold.add(3.0, 1.0);
        }
        assert_eq!(cold.fit().e(1e9), 0.5);
    }

    #[test]
    fn the_calibrated_e_value_has_mean_one_at_most_on_its_own_samples() {
        // Averaged over the distribution it was fitted to, a valid e-value has expectation at most 1.
        let mut calibration = Calibration::default();
        for i in 0..100_000 {
            let u = (f64::from(i) + 0.5) / 100_000.0;
            calibration.add(1.0 + -libm::log(u), 1.0);
        }
        let curve = calibration.fit();
        let mean: f64 =
            (0..100_000).map(|i| curve.e(1.0 - libm::log((f64::from(i) + 0.5) / 100_000.0))).sum::<f64>() / 100_000.0;
        assert!((0.5..=1.05).contains(&mean), "{mean}");
    }

    #[test]
    fn a_lump_in_the_tail_is_no_rarer_than_it_was_seen_to_be() {
        let with_lump_of = |lump: u32| {
            let mut calibration = Calibration::default();
            for i in 0..100_000 {
                calibration.add(1.0 - libm::log((f64::from(i) + 0.5) / 100_000.0), 1.0);
            }
            (0..lump).for_each(|_| calibration.add(1e6, 1.0));
            calibration.fit()
        };
        let timeouts = with_lump_of(30);
        assert!(timeouts.e(1e6) < 100_000.0 / 30.0, "{}", timeouts.e(1e6));
        assert!(timeouts.e(1e12) > 10.0 * timeouts.e(1e6), "what lies beyond is as rare as ever");
        let few = with_lump_of(2);
        assert!(few.e(1e6) > 100_000.0, "two samples, which may be the attack itself, bound nothing: {}", few.e(1e6));
    }

    proptest! {
        #[test]
        fn e_never_falls_as_surprise_rises(samples in prop::collection::vec(1.0..1e6, 100..400), a in 1.0..1e12, b in 1.0..1e12) {
            let mut calibration = Calibration::default();
            for x in samples {
                calibration.add(x, 1.0);
            }
            let curve = calibration.fit();
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(curve.e(low) <= curve.e(high));
            prop_assert!(curve.e(high).is_finite());
        }

        #[test]
        fn the_two_forms_of_the_e_value_agree(l in 0.01_f64..200.0) {
            let p = libm::exp(-l);
            let direct = (1.0 - p + p * libm::log(p)) / (p * l * l);
            prop_assert!((e_value(l) / direct - 1.0).abs() < 1e-6);
        }
    }
}
