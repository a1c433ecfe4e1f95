//! How much of the mesh's calls is denied, and would be.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
};

use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{mesh::SourceKey, scorer::Scorer, table::Subject};

/// Shares are kept to a millionth.
const MILLIONTH: f64 = 1e6;

/// Shares of the calls that are usual in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Of others who are denied.
    pub(crate) denied: f64,
    /// Of whom the entry is about.
    pub(crate) own: f64,
    /// That may be denied.
    pub(crate) most: f64,
}

/// The calls a day that are usual of each source that called within a day: all edges of the mesh are gone through for
/// them, once for all who are weighed at one moment.
#[derive(Debug, Default)]
pub(crate) struct Usual(OnceCell<HashMap<SourceKey, f64>>);

impl Usual {
    fn of<'a>(&'a self, scorer: &Scorer, now: Timestamp) -> &'a HashMap<SourceKey, f64> {
        self.0.get_or_init(|| {
            let mut calls = HashMap::new();
            for (index, shard) in scorer.shards.iter().enumerate() {
                for ((from, _), edge) in shard.edges.iter().filter(|(_, edge)| now - edge.last <= Span::DAY) {
                    *calls.entry((index as u8, *from)).or_default() += edge.baseline.calls_a_day();
                }
            }
            calls
        })
    }
}

impl Scorer {
    /// What is usual counts and not what the last hour had: whoever floods the mesh would be too much of it to be denied.
    /// `None` where nobody else is denied.
    pub(super) fn traffic(
        &self,
        (key, subject): (SourceKey, &Subject),
        denied: &BTreeSet<String>,
        now: Timestamp,
        usual: &Usual,
    ) -> Option<Traffic> {
        let others: BTreeSet<SourceKey> = denied.iter().filter_map(|identity| self.key_of(identity)).collect();
        if others.is_empty() {
            return None;
        }
        let usual = usual.of(self, now);
        let of = |key: &SourceKey| usual.get(key).copied().unwrap_or_default();
        let all: f64 = usual.values().sum();
        let cut: f64 = others.iter().map(of).sum();
        let mut own = of(&key);
        if subject.instance.is_some() {
            let source = self.shards[usize::from(key.0)].sources.get(&key.1)?;
            own /= f64::from(source.live(now).count_ones().max(1));
        }
        // The order of a map is nobody's business, nor is the last digit of a sum.
        let share = |of: f64| if all > 0.0 { (of / all * MILLIONTH).round() / MILLIONTH } else { 0.0 };
        Some(Traffic { denied: share(cut), own: share(own), most: self.config.enforce.max_traffic_share })
    }
}
