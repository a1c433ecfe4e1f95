//! Counts in windows against their own past: a negative binomial fitted by moments.

use serde::{Deserialize, Serialize};

use super::{
    Bins, ETable, Exposure, THETA,
    logarithm::ln,
    step::{Step, Told},
    trust,
};
use crate::time::{Span, Timestamp};

/// Dispersion below which one learned burst would make everything normal.
const LEAST_DISPERSION: f64 = 0.05;
const MOST_DISPERSION: f64 = 1e6;
/// Least ratio of variance to mean: the Poisson distribution, a hair above so that `r` is finite.
const LEAST_VARIANCE_RATIO: f64 = 1.0001;
const SMALL: usize = 1024;
/// Surprise of a count that one window of twenty exceeds, `ln 20`.
const USUAL: f64 = 2.995_732_273_553_991;
/// A bin that begins at or below this ends below [`THETA`]: bins are at most an eighth wide.
const TRUSTED_IN_FULL: f64 = (1.0 + THETA) / 1.125 / 1.125;
/// Whole numbers are exact up to here.
const MOST_COUNTED: f64 = 1e15;
/// Where a count has grown by no more than this since its surprise was worked out last, it is worked out ahead.
const LOOK_AHEAD_AFTER: f64 = 2.0;

/// Natural logarithms of the small whole numbers, which is what counts are.
#[inline]
fn ln_count(a: f64) -> f64 {
    use std::sync::LazyLock;
    static LN: LazyLock<Vec<f64>> = LazyLock::new(|| (0..SMALL).map(|i| ln(i as f64)).collect());
    let index = a as usize;
    if index < SMALL && index as f64 == a { LN[index] } else { ln(a) }
}

/// While exposure is younger than this, an odd window is learned up to what is just not odd instead of being
/// withheld: nothing could ever be learned otherwise that did not begin small.
const WARM_UP: Span = Span::DAY;

/// The count of one key in windows of one length.
///
/// With `n`, `q` the trusted sum and sum of squares over `w` windows of exposure and `a` the count so far:
/// `μ = (n+1)/(w+1)`, `v = max((q+1)/(w+1) − μ², 1.0001 μ)`, `r = clamp(μ²/(v−μ), 0.05, 10⁶)` and
/// `s = a ln(a/μ) − (a+r) ln((a+r)/(μ+r))`, the Chernoff bound of the negative-binomial tail in nats, on the side
/// of μ on which `a` lies. A closed window is learned with weight `ω =` [`trust`]`(s)`; what is withheld is
/// replaced by the mean. `μ` is multiplied by the tide at the time, `r` is not. In the first day of exposure the count is capped where `s = θ` instead (winsorised).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowCount {
    window: i64,
    count: f64,
    n: f64,
    q: f64,
    mean: f64,
    dispersion: f64,
    ln_mean: f64,
    ln_mean_r: f64,
    held: f64,
    /// The count that `held` is the surprise of.
    held_count: f64,
    /// Of `n`, what was learned in hindsight.
    past: f64,
    /// The tide that `mean` is for.
    tide: f64,
    #[serde(skip)]
    step: Step,
}

impl WindowCount {
    /// Surprise of having counted too many once `more` are added, nats; at least that of the window before, where
    /// it was adjacent ("hold"). Nothing is changed.
    #[inline]
    pub fn too_many(&self, exposure: Exposure, length: Span, more: f64) -> f64 {
        let window = exposure.now.window(length);
        if window <= self.window {
            if exposure.tide != self.tide && self.mean > 0.0 {
                let mut risen = *self;
                risen.rise(exposure.tide);
                return risen.tail_above(self.count + more).max(self.held);
            }
            return self.tail_above(self.count + more).max(self.held);
        }
        let mut next = *self;
        next.roll(exposure, length);
        next.too_many(exposure, length, more)
    }

    /// Surprise of the count of the open window being as low as it is, nats. For windows that have ended.
    #[inline]
    pub fn too_few(&self) -> f64 {
        if self.count >= self.mean {
            return 0.0;
        }
        self.surprise(self.count).max(0.0)
    }

    /// Counts `more`, after closing the windows that have ended. Returns the surprise of the window closed, for
    /// the mesh's histogram. What is behind the open window counts into it.
    #[inline]
    pub fn add(&mut self, exposure: Exposure, length: Span, more: f64) -> Option<f64> {
        let window = exposure.now.window(length);
        let closed = if window > self.window || self.mean == 0.0 {
            self.roll(exposure, length)
        } else {
            if exposure.tide != self.tide {
                self.rise(exposure.tide);
            }
            None
        };
        self.count += more;
        closed
    }

    /// Learns so many that belonged to windows of long ago and could not be counted in them: they are expected from the
    /// next window on. In which they were is not asked; they are taken to have come one by one.
    pub fn learn_past(&mut self, late: f64) {
        self.n += late;
        self.q += late * (2.0 * self.calm_mean() + 1.0);
        self.past += late;
    }

    /// Expected count of a window, without any tide, of what is counted while it is open.
    pub fn timely_mean(&self) -> f64 {
        self.calm_mean() * (1.0 - self.past / (self.n + 1.0))
    }

    /// Takes back one that was counted at `since` and turned out not to be what is counted here. What lies two windows
    /// back is learned and stays.
    pub fn withdraw(&mut self, since: Timestamp, length: Span) {
        let window = since.window(length);
        if window == self.window {
            self.count = (self.count - 1.0).max(0.0);
        } else if window + 1 == self.window {
            self.held = 0.0;
            self.step = Step::default();
        }
    }

    /// The e-value of having counted too many once `more` are added, as [`too_many`](Self::too_many) and `table` have
    /// it, for a time within the open window. Most calls change neither the bin nor what is held: those cost no
    /// logarithm.
    #[inline]
    pub fn e(&mut self, more: f64, table: &ETable) -> f64 {
        let a = self.count + more;
        if self.step.holds(a) {
            if let Some(e) = self.step.told.still(table) {
                return e;
            }
            let one_value = self.step.level || table.bin(Bins::locate(self.step.x).0).1 == 0.0;
            if one_value {
                self.step.told = Told::by(table, self.step.x);
                return self.step.told.e();
            }
        }
        self.take_step(a, table);
        self.step.told.e()
    }

    /// How far a call is to be learned while so much is counted: [`trust`] of the surprise once `more` are added.
    #[inline]
    pub fn trust(&self, more: f64) -> f64 {
        let a = self.count + more;
        let step = &self.step;
        if step.holds(a) && (step.level || step.x <= TRUSTED_IN_FULL) {
            return trust(step.x - 1.0);
        }
        trust(1.0 + self.tail_above(a).max(self.held) - 1.0)
    }

    /// Adds `more` to the open window, whatever the time.
    #[inline]
    pub fn add_open(&mut self, more: f64) {
        self.count += more;
    }

    /// Works out the surprise at a count of `a`, and the range over which it stays there.
    #[inline(never)]
    fn take_step(&mut self, a: f64, table: &ETable) {
        let logarithms = if a > self.mean { self.logarithms(a) } else { self.logarithms_of_mean() };
        let s = if a > self.mean { self.surprise_by(a, logarithms).max(0.0) } else { 0.0 };
        let x = 1.0 + s.max(self.held);
        // Only a count that goes on in small steps is worth looking ahead for.
        let goes_on = (a - self.step.from).abs() <= LOOK_AHEAD_AFTER;
        let (from, upto, level) = if a <= self.mean {
            let looks = self.held > 0.0 && goes_on;
            let upto = if looks { self.stays_below((self.mean, logarithms), 0.0, self.held) } else { self.mean };
            (f64::NEG_INFINITY, upto, true)
        } else if !goes_on {
            (a, a, true)
        } else if s <= self.held {
            (a, self.stays_below((a, logarithms), s, self.held), true)
        } else {
            let bin = Bins::locate(x).0;
            // Within the tail every count has an e-value of its own.
            let one_value = table.bin(bin).1 == 0.0;
            let upto = if one_value { self.stays_below((a, logarithms), s, Bins::edge(bin + 1) - 1.0) } else { a };
            (a, upto, !one_value)
        };
        self.step = Step { from, upto, x, level, told: Told::by(table, x) };
    }

    /// A count up to which the surprise, `s` at `a`, is sure to stay below `limit`. It is convex above the mean: on the
    /// way to `b` it rises nowhere faster than at `b`.
    fn stays_below(&self, (a, logarithms): (f64, (f64, f64)), s: f64, limit: f64) -> f64 {
        // What rounding may do to a surprise, many times over.
        let margin = 1e-9 * (1.0 + limit) + 1e-11 * (a + self.dispersion);
        let gap = limit - s - margin;
        if gap.is_nan() || gap <= 0.0 {
            return a;
        }
        let slope = |(ln_b, ln_b_r): (f64, f64)| (ln_b - self.ln_mean) - (ln_b_r - self.ln_mean_r);
        let flattest = slope(logarithms);
        // Where the tangent meets the limit the surprise is above it.
        let beyond = a + gap / flattest;
        if flattest > 0.0 && beyond < a + 1.0 {
            return a;
        }
        let steepest = self.ln_mean_r - self.ln_mean;
        let within = if flattest > 0.0 && beyond.is_finite() {
            slope((ln(beyond), ln(beyond + self.dispersion))).min(steepest)
        } else {
            steepest
        };
        let upto = a + gap / (within * (1.0 + 1e-6) + 1e-12);
        if upto.is_finite() { upto } else { a }
    }

    /// A count that starts with what is usual among its kind: mean and mean square of a window of its siblings.
    pub fn inheriting(exposure: Exposure, length: Span, mean: f64, mean_square: f64) -> Self {
        let windows = (exposure.now.window(length) - exposure.birth.window(length)) as f64;
        let mut count = Self {
            window: exposure.now.window(length),
            n: mean * windows,
            q: mean_square * windows,
            ..Self::default()
        };
        count.fit(windows, exposure.tide);
        count
    }

    /// The same without any tide.
    #[must_use]
    pub fn calm(mut self) -> Self {
        if self.tide != 1.0 {
            self.rise(1.0);
        }
        self
    }

    /// Trusted mean count a window, at the present tide.
    #[inline]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Trusted mean count a window, without any tide.
    #[inline]
    pub fn calm_mean(&self) -> f64 {
        if self.tide > 0.0 { self.mean / self.tide } else { self.mean }
    }

    /// What the surprise of `more` is about: the count with them, or that of the window before where it is held.
    pub fn telling(&self, more: f64) -> f64 {
        let count = self.count + more;
        if self.held > self.tail_above(count) { self.held_count } else { count }
    }

    /// Count of the open window.
    #[inline]
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Index of the open window.
    #[inline]
    pub fn window(&self) -> i64 {
        self.window
    }

    /// Trusted total.
    #[inline]
    pub fn total(&self) -> f64 {
        self.n
    }

    /// Surprise of the open window so far, without hold.
    #[inline]
    pub fn current(&self) -> f64 {
        self.tail_above(self.count)
    }

    /// Closes the open window and opens that of now; returns the surprise of the window closed. In place: to copy what was
    /// just written piece by piece is slow.
    fn roll(&mut self, exposure: Exposure, length: Span) -> Option<f64> {
        let window = exposure.now.window(length);
        let birth = exposure.birth.window(length);
        let mut closed = None;
        if self.mean > 0.0 {
            let s = self.tail_above(self.count);
            let before = ((self.window - birth) as f64).max(1.0);
            let (weight, count) = if s > THETA && exposure.now - exposure.birth < WARM_UP {
                (1.0, self.greatest_ordinary())
            } else {
                (trust(s), self.count)
            };
            let is_learned = exposure.learns_since(Timestamp(self.window * length.0));
            if is_learned {
                self.n += weight * count + (1.0 - weight) * self.n / before;
                self.q += weight * count * count + (1.0 - weight) * self.q / before;
            }
            (self.held, self.held_count) = if window == self.window + 1 { (s, self.count) } else { (0.0, 0.0) };
            closed = is_learned.then_some(s);
        }
        self.window = window;
        self.count = 0.0;
        self.step = Step::default();
        self.fit((window - birth) as f64, exposure.tide);
        closed
    }

    /// The count between the mean and the open count at which the surprise is θ, by bisection.
    fn greatest_ordinary(&self) -> f64 {
        let (mut low, mut high) = (self.mean, self.count);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if self.surprise(middle) > THETA { high = middle } else { low = middle }
        }
        low
    }

    fn fit(&mut self, windows: f64, tide: f64) {
        let windows = windows.max(0.0);
        let mean = (self.n + 1.0) / (windows + 1.0);
        let variance = ((self.q + 1.0) / (windows + 1.0) - mean * mean).max(LEAST_VARIANCE_RATIO * mean);
        self.mean = mean;
        self.dispersion = (mean * mean / (variance - mean)).clamp(LEAST_DISPERSION, MOST_DISPERSION);
        self.tide = 1.0;
        self.rise(tide);
    }

    /// Expects as much as the tide makes likely.
    fn rise(&mut self, tide: f64) {
        self.mean = self.calm_mean() * tide;
        self.tide = tide;
        self.ln_mean = ln(self.mean);
        self.ln_mean_r = ln(self.mean + self.dispersion);
        self.step = Step::default();
    }

    #[inline]
    fn tail_above(&self, a: f64) -> f64 {
        if a > self.mean { self.surprise(a).max(0.0) } else { 0.0 }
    }

    #[inline]
    fn surprise(&self, a: f64) -> f64 {
        self.surprise_by(a, self.logarithms(a))
    }

    #[inline]
    fn surprise_by(&self, a: f64, (ln_a, ln_a_r): (f64, f64)) -> f64 {
        let first = if a > 0.0 { a * (ln_a - self.ln_mean) } else { 0.0 };
        first - (a + self.dispersion) * (ln_a_r - self.ln_mean_r)
    }

    /// `ln a` and `ln (a + r)`.
    #[inline]
    fn logarithms(&self, a: f64) -> (f64, f64) {
        (ln_count(a), ln(a + self.dispersion))
    }

    /// Between which counts a window usually lies, at the present tide: where the surprise is at most `ln 20`, which is
    /// exceeded on each side by at most one window of twenty (Chernoff's bound). For people; nothing is decided by it.
    pub fn usual(&self) -> (f64, f64) {
        if self.mean <= 0.0 {
            return (0.0, 0.0);
        }
        let is_usual = |a: f64| self.surprise(a) <= USUAL;
        // Counts are whole: only these are tried.
        let between = |mut usual: f64, mut odd: f64| {
            while (odd - usual).abs() > 1.0 {
                let middle = (0.5 * (usual + odd)).floor();
                if is_usual(middle) { usual = middle } else { odd = middle }
            }
            usual
        };
        let mut beyond = (2.0 * self.mean).ceil() + 1.0;
        while is_usual(beyond) && beyond < MOST_COUNTED {
            beyond *= 2.0;
        }
        let low = if is_usual(0.0) { 0.0 } else { between(self.mean.ceil(), 0.0).min(self.mean) };
        (low, between(self.mean.floor(), beyond))
    }

    fn logarithms_of_mean(&self) -> (f64, f64) {
        (self.ln_mean, self.ln_mean_r)
    }
}

#[cfg(test)]
mod tests;
