//! Who behaves like whom, as data: what an identity does in ten minutes as a vector, and how the windows of peers vary.
//!
//! How it is fitted is not known here (`peers/src/fit.rs` does, with linfa); a fit is a handful of numbers.

use serde::{Deserialize, Serialize};

use crate::{event::Outcome, time::Span};

/// Features of a window.
pub const FEATURES: usize = 7;
/// Their names, in order.
pub const NAMES: [&str; FEATURES] = ["calls", "peers", "operations", "failed", "refused", "size", "length"];
/// How long a window is.
pub const WINDOW: Span = Span(10 * Span::MINUTE.0);
/// Entries of a symmetric matrix of features that are kept: its lower triangle, row by row.
pub const TRIANGLE: usize = FEATURES * (FEATURES + 1) / 2;
/// A vector of features.
pub type Vector = [f64; FEATURES];

/// Least variance in any direction: a tenth more or less (of calls, of bytes) is no deviation for anybody, however
/// constant it has been.
pub const LEAST_VARIANCE: f64 = 0.01;
/// Share of the variance that the axes of a group explain; what is left is taken as equal in all other directions.
pub const EXPLAINED: f64 = 0.9;

/// What one identity did in a window, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowSums {
    /// Calls made.
    pub calls: f64,
    /// Destinations called.
    pub peers: f64,
    /// Operations used, by destination.
    pub operations: f64,
    /// Calls that failed.
    pub failed: f64,
    /// Calls that were refused (401, 403).
    pub refused: f64,
    /// Bytes in both directions of the calls that told of any, and their number.
    pub bytes: f64,
    /// Calls that told of bytes.
    pub sized: f64,
    /// Milliseconds of the calls that told of a duration, and their number.
    pub lasted_ms: f64,
    /// Calls that told of a duration.
    pub timed: f64,
}

impl WindowSums {
    /// Counts `calls` calls that ended like this.
    #[inline]
    pub fn add(&mut self, calls: f64, outcome: Outcome, bytes: Option<u64>, duration_ns: Option<i64>) {
        self.calls += calls;
        match outcome {
            Outcome::Failure => self.failed += calls,
            Outcome::Refused => self.refused += calls,
            Outcome::Unknown | Outcome::Success => {}
        }
        if let Some(bytes) = bytes {
            self.bytes += bytes as f64;
            self.sized += calls;
        }
        if let Some(lasted) = duration_ns {
            self.lasted_ms += lasted as f64 / 1e6;
            self.timed += calls;
        }
    }

    /// The window as a vector: logarithms of counts and of mean sizes and lengths, since what doubles is as far from
    /// usual for the great as for the small; angles of shares (`asin √p`), whose variance does not depend on the share
    /// (Anscombe 1948). `tide` is how much busier than usual the whole mesh is.
    pub fn vector(&self, tide: f64) -> Vector {
        let log = |value: f64| libm::log1p(value.max(0.0));
        let share = |of: f64| libm::asin(libm::sqrt((of / self.calls.max(1.0)).clamp(0.0, 1.0)));
        let mean = |sum: f64, count: f64| if count > 0.0 { log(sum / count) } else { 0.0 };
        [
            log(self.calls / tide.max(1.0)),
            log(self.peers),
            log(self.operations),
            share(self.failed),
            share(self.refused),
            mean(self.bytes, self.sized),
            mean(self.lasted_ms, self.timed),
        ]
    }
}

/// Mean and scatter of windows: all of them that is needed to fit peers, and their bound in memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Weight of the windows.
    pub windows: f64,
    mean: [f32; FEATURES],
    /// `Σ w (v − mean)(v − mean)ᵀ`.
    scatter: [f32; TRIANGLE],
}

impl Default for Profile {
    fn default() -> Self {
        Self { windows: 0.0, mean: [0.0; FEATURES], scatter: [0.0; TRIANGLE] }
    }
}

impl Profile {
    /// The mean window.
    pub fn mean(&self) -> Vector {
        self.mean.map(f64::from)
    }

    /// The scatter around it, lower triangle row by row.
    pub fn scatter(&self) -> [f64; TRIANGLE] {
        self.scatter.map(f64::from)
    }

    /// Learns a window with a weight (West, *Updating mean and variance estimates*, CACM 22, 1979).
    pub fn learn(&mut self, window: &Vector, weight: f64) {
        if weight <= 0.0 {
            return;
        }
        self.windows += weight;
        let off: Vector = std::array::from_fn(|f| window[f] - f64::from(self.mean[f]));
        let step = weight / self.windows;
        let shrink = weight * (1.0 - step);
        let mut at = 0;
        for row in 0..FEATURES {
            for column in 0..=row {
                self.scatter[at] = (f64::from(self.scatter[at]) + shrink * off[row] * off[column]) as f32;
                at += 1;
            }
        }
        for (mean, off) in self.mean.iter_mut().zip(off) {
            *mean = (f64::from(*mean) + step * off) as f32;
        }
    }
}

/// How the windows of one group of peers vary around their own means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The middle of its members' means, in units of [`Peers::spread`].
    pub centre: Vector,
    /// Identities in it when it was fitted.
    pub members: u32,
    /// Windows that its axes rest on.
    pub windows: f64,
    /// Directions in which windows vary, each of length 1, and the variance along them.
    pub axes: Vec<(Vector, f64)>,
    /// The variance in every other direction.
    pub rest: f64,
}

/// A fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// The mean of all identities' means.
    pub mean: Vector,
    /// And their standard deviation.
    pub spread: Vector,
    /// The first is everybody, for those whose group is too small to tell.
    pub groups: Vec<Group>,
}

impl Group {
    /// Squared distance of a window from a mean, as far as peers' windows vary: the Mahalanobis distance under
    /// probabilistic principal components (Tipping & Bishop, *J. R. Stat. Soc. B* 61, 1999).
    pub fn distance(&self, window: &Vector, mean: &Vector) -> f64 {
        let off: Vector = std::array::from_fn(|f| window[f] - mean[f]);
        let mut left: f64 = off.iter().map(|x| x * x).sum();
        let mut distance = 0.0;
        for (axis, variance) in &self.axes {
            let along: f64 = axis.iter().zip(&off).map(|(a, x)| a * x).sum();
            left -= along * along;
            distance += along * along / variance.max(LEAST_VARIANCE);
        }
        distance + left.max(0.0) / self.rest.max(LEAST_VARIANCE)
    }
}

impl Peers {
    /// The group whose centre is nearest to a mean; everybody, where there is no other.
    pub fn group_of(&self, mean: &Vector) -> Option<&Group> {
        let place: Vector = std::array::from_fn(|f| (mean[f] - self.mean[f]) / self.spread[f]);
        let far = |group: &Group| -> f64 { group.centre.iter().zip(&place).map(|(c, x)| (c - x) * (c - x)).sum() };
        let (everybody, others) = self.groups.split_first()?;
        let mut nearest: Option<(f64, &Group)> = None;
        for group in others {
            let distance = far(group);
            if nearest.is_none_or(|(least, _)| distance < least) {
                nearest = Some((distance, group));
            }
        }
        Some(nearest.map_or(everybody, |(_, group)| group))
    }

    /// Whether its numbers can be reckoned with: a fit that was read from a file may hold anything.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let is_finite = |vector: &Vector| vector.iter().all(|x| x.is_finite());
        if !is_finite(&self.mean) || !self.spread.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err("`mean` and `spread` must be finite, `spread` positive".to_owned());
        }
        if self.groups.is_empty() || self.groups.len() > 64 {
            return Err(format!("{} groups, where 1 to 64 are possible", self.groups.len()));
        }
        for (number, group) in self.groups.iter().enumerate() {
            let axes_hold = group.axes.iter().all(|(axis, variance)| {
                let length: f64 = axis.iter().map(|x| x * x).sum();
                is_finite(axis) && (length - 1.0).abs() < 1e-3 && variance.is_finite() && *variance > 0.0
            });
            let holds = is_finite(&group.centre)
                && group.windows.is_finite()
                && group.rest.is_finite()
                && group.rest > 0.0
                && group.axes.len() <= FEATURES;
            if !holds || !axes_hold {
                return Err(format!("group {number}: axes of length 1 with positive variances are needed"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        let mut axis = [0.0; FEATURES];
        axis[0] = 1.0;
        Group { centre: [0.0; FEATURES], members: 3, windows: 100.0, axes: vec![(axis, 4.0)], rest: 0.25 }
    }

    #[test]
    fn a_profile_has_the_mean_and_the_scatter_of_its_windows() {
        let mut profile = Profile::default();
        for x in [1.0, 2.0, 3.0, 6.0] {
            let mut window = [0.0; FEATURES];
            (window[0], window[1]) = (x, -x);
            profile.learn(&window, 1.0);
        }
        assert_eq!((profile.windows, profile.mean()[0], profile.mean()[1]), (4.0, 3.0, -3.0));
        // 4 + 1 + 0 + 9, and the same below zero between the two.
        let scatter = profile.scatter();
        assert!((scatter[0] - 14.0).abs() < 1e-4 && (scatter[1] + 14.0).abs() < 1e-4, "{scatter:?}");
    }

    #[test]
    fn a_weight_of_nothing_teaches_nothing() {
        let mut profile = Profile::default();
        profile.learn(&[1.0; FEATURES], 1.0);
        let before = profile;
        profile.learn(&[9.0; FEATURES], 0.0);
        assert_eq!(profile, before);
    }

    #[test]
    fn what_peers_do_is_nearer_than_what_they_never_do() {
        let mean = [0.0; FEATURES];
        let (mut along, mut across) = (mean, mean);
        (along[0], across[1]) = (2.0, 2.0);
        assert!((group().distance(&along, &mean) - 1.0).abs() < 1e-12);
        assert!((group().distance(&across, &mean) - 16.0).abs() < 1e-12);
    }

    #[test]
    fn a_window_says_the_same_of_the_great_and_the_small() {
        let of = |calls: f64, failed: f64| WindowSums { calls, failed, ..WindowSums::default() }.vector(1.0);
        let step = of(2000.0, 0.0)[0] - of(1000.0, 0.0)[0];
        assert!((step - std::f64::consts::LN_2).abs() < 1e-3);
        assert_eq!(of(10.0, 10.0)[3], of(1000.0, 1000.0)[3]);
        // Twice as busy a mesh is nobody's deviation.
        let busy = WindowSums { calls: 2000.0, ..WindowSums::default() };
        assert!((busy.vector(2.0)[0] - of(1000.0, 0.0)[0]).abs() < 1e-12);
    }

    #[test]
    fn a_fit_that_cannot_be_reckoned_with_is_refused() {
        let peers = Peers { mean: [0.0; FEATURES], spread: [1.0; FEATURES], groups: vec![group()] };
        assert_eq!(peers.check(), Ok(()));
        let broken = |change: &dyn Fn(&mut Peers)| {
            let mut peers = peers.clone();
            change(&mut peers);
            peers.check().is_err()
        };
        assert!(broken(&|peers| peers.groups.clear()));
        assert!(broken(&|peers| peers.spread[2] = 0.0));
        assert!(broken(&|peers| peers.mean[0] = f64::NAN));
        assert!(broken(&|peers| peers.groups[0].rest = -1.0));
        assert!(broken(&|peers| peers.groups[0].axes[0].0 = [0.5; FEATURES]));
    }
}
