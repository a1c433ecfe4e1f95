//! What the loop shows of itself: metrics, readiness, coverage.

use std::time::Duration;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::config::arms_at;

use super::Pipeline;
use crate::{
    observability::{Arming, Readiness},
    run::coverage::Uncovered,
};

/// A snapshot is old after this many times the length between two, and not before the other.
const OLD: (u32, Duration) = (6, Duration::from_secs(60));
/// Until event time has once been closer to the wall than this, history is being read.
const BEHIND: Span = Span::MINUTE;

impl Pipeline {
    /// Metrics, readiness, coverage.
    pub(super) fn show(&mut self, wall: Timestamp) {
        let tally = self.state.scorer.tally();
        let metrics = &self.metrics;
        metrics.identities.set(i64::try_from(tally.identities).unwrap_or(i64::MAX));
        metrics.edges.set(i64::try_from(tally.edges).unwrap_or(i64::MAX));
        metrics.state_bytes.set(i64::try_from(tally.bytes).unwrap_or(i64::MAX));
        let limit = self.setup.config.memory.baselines_mib << 20;
        metrics.state_limit_bytes.set(i64::try_from(limit).unwrap_or(i64::MAX));
        metrics.folded.inc_by(tally.folded - std::mem::replace(&mut self.folded, tally.folded));
        metrics.late.inc_by(tally.late - std::mem::replace(&mut self.late, tally.late));
        let backlog = self.inputs.backlog();
        metrics.lag_records.set(i64::try_from(backlog.records).unwrap_or(i64::MAX));
        let mut reasons = Vec::new();
        if self.archives.is_some() {
            reasons.push("reading archived logs".to_owned());
        } else if let Some(watermark) = self.state.scorer.watermark() {
            let behind = wall - watermark;
            metrics.lag_seconds.set(behind.as_seconds().max(0.0));
            if !self.caught_up && behind > BEHIND && !backlog.is_read() {
                reasons.push(format!("reading history: {:.0} s behind, {backlog}", behind.as_seconds()));
            } else if !self.caught_up {
                self.caught_up = true;
                tracing::info!(identities = tally.identities, edges = tally.edges, armed = ?self.state.scorer.armed(), "first look: history is read");
            }
        } else {
            reasons.push("no telemetry yet".to_owned());
        }
        let age = self.last_snapshot.elapsed();
        metrics.snapshot_age.set(age.as_secs_f64());
        let every = super::duration(self.setup.config.state.snapshot_every.0);
        // While archives are read none is due.
        let age = if self.archives.is_some() { Duration::ZERO } else { age };
        reasons.extend(old_snapshot(age, every, self.snapshot_error.as_deref()));
        let armings = self.armings();
        for arming in &armings {
            metrics.arming(arming);
            let configured = self.setup.config.budget.per_day(arming.level);
            metrics.budget(arming.level, configured, self.state.scorer.realised_per_day(arming.level));
        }
        self.readiness.send_if_modified(|readiness| {
            let next = Readiness { reasons, levels: armings };
            let changed = *readiness != next;
            *readiness = next;
            changed
        });
        self.show_coverage(wall);
    }

    fn armings(&self) -> Vec<Arming> {
        let armed = self.state.scorer.armed();
        let birth = self.state.scorer.birth();
        let arming = |level| Arming {
            level,
            armed: armed.contains(&level),
            due: birth.map(|birth| arms_at(level, birth)).filter(|_| !armed.contains(&level)),
        };
        Level::BY_BEHAVIOUR.into_iter().map(arming).collect()
    }

    fn show_coverage(&mut self, wall: Timestamp) {
        let Some((coverage, uncovered)) = self.proxies.coverage(wall) else { return };
        self.metrics.proxies_reporting.set(i64::from(coverage.reporting));
        self.metrics.proxies_enforcing.set(i64::from(coverage.enforcing));
        let names: Vec<String> = uncovered.iter().map(|proxy| proxy.reporter.clone()).collect();
        if names != self.uncovered {
            // Both are sorted by name.
            let is_new = |proxy: &&Uncovered| self.uncovered.binary_search(&proxy.reporter).is_err();
            for proxy in uncovered.iter().filter(is_new).take(20) {
                tracing::warn!(proxy = proxy.reporter, why = proxy.why, "reports calls and is not enforcing");
            }
            self.uncovered = names;
        }
        self.coverage.send_if_modified(|shown| std::mem::replace(shown, coverage) != coverage);
    }
}

/// What there is to say of the last snapshot, written so long ago.
fn old_snapshot(age: Duration, every: Duration, error: Option<&str>) -> Option<String> {
    let (times, least) = OLD;
    if age <= (every * times).max(least) {
        return None;
    }
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    // To the minute: what is not news is not to look like it.
    Some(format!("no snapshot for {} min, after a crash all since then is read again{why}", age.as_secs() / 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_has_long_not_been_written_is_a_reason_not_to_be_ready() {
        let every = Duration::from_secs(10);
        assert_eq!(old_snapshot(Duration::from_secs(59), every, Some("disk full")), None);
        let said = old_snapshot(Duration::from_secs(61), every, Some("disk full")).expect("it is old");
        assert!(said.contains("no snapshot for 1 min") && said.contains("disk full"), "{said}");
        assert_eq!(old_snapshot(Duration::from_secs(299), Duration::from_secs(60), None), None);
    }
}
