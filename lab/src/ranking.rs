//! How well a score ranks what is odd above what is usual.

use serde::{Deserialize, Serialize};

/// False-positive rates at which the true-positive rate is told.
pub(crate) const RATES: [(&str, f64); 3] = [("0.01 %", 1e-4), ("0.1 %", 1e-3), ("1 %", 1e-2)];

/// The figures of one ranking; `None` where there is nothing to rank.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Items that belong to an attack.
    pub(crate) odd: usize,
    /// The others.
    pub(crate) usual: usize,
    /// The probability that an odd item scores above a usual one, ties counted half (Mann and Whitney).
    pub(crate) auc: Option<f64>,
    /// Mean of the precision at each odd item, ties taken together.
    pub(crate) average_precision: Option<f64>,
    /// The share of odd items above the score that so many of the usual ones exceed, in the order of [`RATES`].
    pub(crate) tpr: [Option<f64>; RATES.len()],
}

/// The usual items, ready to be held against any number of odd ones.
#[derive(Debug)]
pub(crate) struct Usual(Vec<f64>);

impl Usual {
    /// Takes the scores in any order.
    pub(crate) fn new(mut scores: Vec<f64>) -> Self {
        scores.sort_unstable_by(f64::total_cmp);
        Self(scores)
    }

    /// The share of them that score at least so much.
    pub(crate) fn share_from(&self, score: f64) -> f64 {
        (self.0.len() - self.below(score)) as f64 / self.0.len().max(1) as f64
    }

    /// The figures of these odd items, in any order.
    pub(crate) fn rank(&self, mut odd: Vec<f64>) -> Figures {
        odd.sort_unstable_by(f64::total_cmp);
        let is_rankable = !odd.is_empty() && !self.0.is_empty();
        Figures {
            odd: odd.len(),
            usual: self.0.len(),
            auc: is_rankable.then(|| self.auc(&odd)),
            average_precision: is_rankable.then(|| self.average_precision(&odd)),
            tpr: RATES.map(|(_, rate)| is_rankable.then(|| self.tpr(&odd, rate))),
        }
    }

    fn below(&self, score: f64) -> usize {
        self.0.partition_point(|usual| *usual < score)
    }

    fn up_to(&self, score: f64) -> usize {
        self.0.partition_point(|usual| *usual <= score)
    }

    fn auc(&self, odd: &[f64]) -> f64 {
        let won = |&score: &f64| (self.below(score) + self.up_to(score)) as f64 / 2.0;
        odd.iter().map(won).sum::<f64>() / (odd.len() as f64 * self.0.len() as f64)
    }

    fn tpr(&self, odd: &[f64], rate: f64) -> f64 {
        let exceeding = (rate * self.0.len() as f64) as usize;
        let threshold = self.0[self.0.len() - 1 - exceeding];
        (odd.len() - odd.partition_point(|score| *score <= threshold)) as f64 / odd.len() as f64
    }

    fn average_precision(&self, odd: &[f64]) -> f64 {
        let (mut sum, mut end) = (0.0, odd.len());
        while end > 0 {
            let score = odd[end - 1];
            let begin = odd.partition_point(|other| *other < score);
            let (found, wrong) = (odd.len() - begin, self.0.len() - self.below(score));
            sum += (end - begin) as f64 * found as f64 / (found + wrong) as f64;
            end = begin;
        }
        sum / odd.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(usual: &[f64], odd: &[f64]) -> Figures {
        Usual::new(usual.to_vec()).rank(odd.to_vec())
    }

    #[test]
    fn a_perfect_ranking_has_one_everywhere() {
        let perfect = figures(&[0.0, 1.0], &[2.0, 3.0]);
        assert_eq!((perfect.auc, perfect.average_precision), (Some(1.0), Some(1.0)));
        assert_eq!(perfect.tpr, [Some(1.0); 3]);
    }

    #[test]
    fn ties_count_half_and_are_taken_together() {
        let tied = figures(&[1.0], &[1.0]);
        assert_eq!((tied.auc, tied.average_precision), (Some(0.5), Some(0.5)));
        // What only equals the threshold is not above it.
        assert_eq!(tied.tpr, [Some(0.0); 3]);
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // From the top: odd 9, usual 8, odd 7, usual 6, usual 5, odd 4.
        let by_hand = figures(&[8.0, 6.0, 5.0], &[9.0, 7.0, 4.0]);
        assert!((by_hand.auc.unwrap() - 5.0 / 9.0).abs() < 1e-12, "{by_hand:?}");
        let precision = (1.0 + 2.0 / 3.0 + 3.0 / 6.0) / 3.0;
        assert!((by_hand.average_precision.unwrap() - precision).abs() < 1e-12, "{by_hand:?}");
        assert_eq!(by_hand.tpr[2], Some(1.0 / 3.0));
    }

    #[test]
    fn a_share_of_false_positives_is_a_share_of_the_usual_items() {
        let usual: Vec<f64> = (0..1000).map(f64::from).collect();
        // One in a hundred of them exceeds 989; one in a thousand 998.
        let ranked = figures(&usual, &[989.5, 998.5, 2000.0]);
        assert_eq!(ranked.tpr[2], Some(1.0));
        assert_eq!(ranked.tpr[1], Some(2.0 / 3.0));
    }

    #[test]
    fn without_anything_to_rank_there_is_no_figure() {
        assert_eq!(figures(&[1.0], &[]).auc, None);
        assert_eq!(figures(&[], &[1.0]).average_precision, None);
    }
}
