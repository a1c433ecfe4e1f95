//! The figures by which rankings are compared.

use std::{collections::HashMap, hash::Hash};

/// The probability that an odd item scores above a usual one, ties counted half (Mann and Whitney).
pub(crate) fn auc(items: impl IntoIterator<Item = (f64, bool)>) -> f64 {
    let mut items: Vec<(f64, bool)> = items.into_iter().collect();
    items.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut at) = (0.0, 0);
    while at < items.len() {
        let end = at + items[at..].partition_point(|item| item.0 <= items[at].0);
        let rank = (at + 1 + end) as f64 / 2.0;
        ranks += rank * items[at..end].iter().filter(|item| item.1).count() as f64;
        at = end;
    }
    let odd = items.iter().filter(|item| item.1).count() as f64;
    let usual = items.len() as f64 - odd;
    (ranks - odd * (odd + 1.0) / 2.0) / (odd * usual)
}

/// The share of odd items above the score that `rate` of the usual ones exceed.
pub(crate) fn tpr(items: &[(f64, bool)], rate: f64) -> f64 {
    let mut usual: Vec<f64> = items.iter().filter(|item| !item.1).map(|item| item.0).collect();
    usual.sort_by(|a, b| b.total_cmp(a));
    let threshold = usual[(rate * usual.len() as f64) as usize];
    let odd: Vec<f64> = items.iter().filter(|item| item.1).map(|item| item.0).collect();
    odd.iter().filter(|&&score| score > threshold).count() as f64 / odd.len() as f64
}

/// One item a key: the highest score, and whether any was odd.
pub(crate) fn collapsed<K: Eq + Hash>(items: impl IntoIterator<Item = (K, f64, bool)>) -> Vec<(f64, bool)> {
    let mut by_key: HashMap<K, (f64, bool)> = HashMap::new();
    for (key, score, odd) in items {
        let item = by_key.entry(key).or_insert((score, odd));
        *item = (item.0.max(score), item.1 | odd);
    }
    by_key.into_values().collect()
}

#[test]
fn a_perfect_ranking_has_one_and_ties_count_half() {
    assert!((auc([(1.0, false), (2.0, true), (3.0, true)]) - 1.0).abs() < 1e-12);
    assert!((auc([(1.0, false), (1.0, true)]) - 0.5).abs() < 1e-12);
    assert!((auc([(1.0, true), (2.0, false), (2.0, true), (3.0, false)]) - 0.125).abs() < 1e-12);
    assert_eq!(collapsed([("a", 1.0, true), ("a", 2.0, false)]), [(2.0, true)]);
}
