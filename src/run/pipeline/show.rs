//! What the loop shows of itself: metrics, readiness, coverage.

use std::time::Duration;

use qualm_ingest::source::Batch;
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{config::arms_at, operator::orders::Pause};

use super::{Pipeline, journal::Command};
use crate::{
    observability::{Arming, Readiness},
    run::intake,
};

/// A snapshot is old after this many times the length between two, and not before the other.
const OLD: (u32, Duration) = (6, Duration::from_secs(60));
/// Until event time has once been closer to the wall than this, history is being read.
const BEHIND: Span = Span::MINUTE;

/// Brokers that do not answer for so long are told of.
const AWAY: Span = Span::MINUTE;
const NO_TELEMETRY: &str = "no telemetry yet";

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
        metrics.unlisted.inc_by(tally.unlisted - std::mem::replace(&mut self.unlisted, tally.unlisted));
        self.show_shared();
        let metrics = &self.metrics;
        let backlog = self.inputs.backlog();
        metrics.lag_records.set(i64::try_from(backlog.records).unwrap_or(i64::MAX));
        let mut notes = unreachable(self.inputs.unreachable(), wall);
        metrics.unreachable.set(i64::try_from(notes.len()).unwrap_or(i64::MAX));
        let is_away = !notes.is_empty();
        notes.extend(self.show_held_up(is_away));
        let metrics = &self.metrics;
        if let Some(shown) = self.quirks.look(&self.state.scorer, &self.setup.config.source_names(), wall) {
            metrics.wrong_clocks.set(i64::try_from(shown.wrong_clocks).unwrap_or(i64::MAX));
            metrics.clock_skew.set(shown.worst.as_seconds());
            metrics.filtered.set(i64::try_from(shown.filtered).unwrap_or(i64::MAX));
            let names = self.setup.config.source_names();
            self.shown = shown;
            self.take_intake();
            self.shown.notes.extend(self.formats.words(&names));
            self.shown.notes.extend(self.intakes.notes(&names));
            let saved = self.intakes.saved(&names);
            self.shown.inputs = saved.iter().map(|(name, intake)| intake::told(name, intake)).collect();
            self.shown.clustered = intake::clustered(&saved);
        }
        let metrics = &self.metrics;
        notes.extend_from_slice(&self.shown.notes);
        notes.extend(self.hooks.notes());
        notes.extend(self.pods.show(self.state.scorer.pod_addresses(), wall));
        metrics.held_back.inc_by(tally.held_back.saturating_sub(self.held_back));
        self.held_back = tally.held_back;
        let hidden = self.state.scorer.hidden();
        metrics.accepted.inc_by(hidden.0.saturating_sub(self.hidden.0));
        metrics.withheld_left_out.inc_by(hidden.1.saturating_sub(self.hidden.1));
        self.hidden = hidden;
        let standing = self.state.scorer.acceptances().count();
        metrics.acceptances.set(i64::try_from(standing).unwrap_or(i64::MAX));
        let broken = self.state.scorer.circuit_breaker(wall);
        let was_broken = metrics.circuit_breaker.get() > 0;
        metrics.circuit_breaker.set(broken.map_or(0, |many| i64::try_from(many).unwrap_or(i64::MAX)));
        if let Some(many) = broken.filter(|_| !was_broken) {
            tracing::error!(
                many,
                "the circuit breaker is open: too many identities came to be limited at once, and nobody more is"
            );
        }
        notes.extend(broken.map(|many| {
            format!(
                "the circuit breaker is open: {many} identities came to be limited within 10 minutes; none of them is"
            )
        }));
        let pause = self.state.scorer.pause();
        metrics.paused.set(i64::from(pause.is_some()));
        notes.extend(pause.map(paused));
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
        } else if self.setup.config.listen.address.is_some() && backlog.is_read() {
            // Who is not ready is not called, and proxies that are to report would wait for a first report.
            notes.push(NO_TELEMETRY.to_owned());
        } else {
            reasons.push(NO_TELEMETRY.to_owned());
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
            if let Some(counted) = self.state.realised.of(arming.level, wall) {
                metrics.counted(arming.level, counted.per_day(), counted.window);
            }
        }
        self.readiness.send_if_modified(|readiness| {
            let next = Readiness {
                reasons,
                notes,
                levels: armings,
                inputs: self.shown.inputs.clone(),
                clustered: self.shown.clustered.clone(),
            };
            let changed = *readiness != next;
            *readiness = next;
            changed
        });
        self.show_coverage(wall);
    }

    /// Partitions whose records are there and do not come, or whole clusters that are `away`: who writes to them may seem
    /// silent and is not.
    fn show_held_up(&mut self, is_away: bool) -> Vec<String> {
        let of: Vec<(String, u64)> = self.inputs.held_up().map(|(brokers, many)| (brokers.to_owned(), many)).collect();
        let partitions: u64 = of.iter().map(|(_, many)| many).sum();
        let before = self.metrics.held_up.get();
        self.metrics.held_up.set(i64::try_from(partitions).unwrap_or(i64::MAX));
        if partitions > 0 || is_away {
            // Nothing is lost; what is not here yet tells no more of anybody's silence.
            self.state.scorer.lose(0);
        }
        if i64::try_from(partitions).is_ok_and(|now| now != before) {
            self.journal_command(&Command::HeldUp { partitions });
        }
        let note = |(brokers, many): (String, u64)| {
            let what = if many == 1 { "1 partition has".to_owned() } else { format!("{many} partitions have") };
            format!(
                "{brokers}: {what} records of which none was read for 20 s or more; until ten minutes after they are, \
                 nobody's silence is asked"
            )
        };
        of.into_iter().map(note).collect()
    }

    /// Principals that several workloads share.
    fn show_shared(&self) {
        let shared = self.state.scorer.shared_principals();
        let metrics = &self.metrics;
        metrics.shared_principals.set(i64::try_from(shared.principals).unwrap_or(i64::MAX));
        metrics.shared_workloads.set(i64::try_from(shared.workloads).unwrap_or(i64::MAX));
        metrics.shared_beyond.set(i64::try_from(shared.beyond).unwrap_or(i64::MAX));
        metrics.shared_forgotten.set(i64::try_from(shared.forgotten).unwrap_or(i64::MAX));
    }

    /// Takes note of the formats of a batch, and journals and tells of a change.
    pub(super) fn note_formats(&mut self, batch: &Batch, wall: Timestamp) {
        for change in self.formats.count(batch, wall) {
            let names = self.setup.config.source_names();
            let input = names.get(usize::from(change.source)).map_or("an input", String::as_str);
            let (before, after) = (change.before.as_str(), change.after.as_str());
            let since = jiff::Timestamp::from_nanosecond(i128::from(change.since.0)).unwrap_or_default().to_string();
            tracing::warn!(input, before, after, since, "the format has changed");
            self.metrics.format_changes.inc();
            self.journal_command(&Command::Format { input, before, after, since });
        }
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
        // Where there is no port nobody could enforce, and `check` has said so.
        if self.setup.config.listen.address.is_some() {
            self.laggards.tell(uncovered, coverage.reporting, wall);
        }
        self.coverage.send_if_modified(|shown| std::mem::replace(shown, coverage) != coverage);
    }
}

/// What is to be known of clusters that have been away for long. It is no reason not to be ready: what stands is still
/// served, its leases end, and what Envoys report themselves is still judged.
fn unreachable<'a>(clusters: impl Iterator<Item = (&'a str, Timestamp)>, wall: Timestamp) -> Vec<String> {
    let away = clusters.filter(|(_, since)| wall - *since >= AWAY);
    let note = |(brokers, since): (&str, Timestamp)| {
        let since =
            jiff::Timestamp::from_nanosecond(i128::from(since.0)).map_or_else(|_| String::new(), |t| t.to_string());
        format!(
            "{brokers}: no broker has answered since {since}; what stands is served and ends with its lease, nothing new is read"
        )
    };
    away.map(note).collect()
}

/// That nothing is denied although it may stand so.
fn paused(pause: &Pause) -> String {
    let until = jiff::Timestamp::from_nanosecond(i128::from(pause.until.0)).unwrap_or_default();
    format!("all enforcement is paused by {} until {until:.0}: whatever stands is a shadow", pause.by)
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
    fn brokers_that_are_away_are_told_of_after_a_minute_and_not_before() {
        let away = [("kafka:9092", Timestamp::from_seconds(100))];
        let told = |at: i64| unreachable(away.into_iter(), Timestamp::from_seconds(at));
        assert!(told(159).is_empty());
        let [note] = told(160).try_into().expect("one");
        assert!(note.contains("kafka:9092: no broker has answered since 1970-01-01T00:01:40Z"), "{note}");
    }

    #[test]
    fn a_snapshot_that_has_long_not_been_written_is_a_reason_not_to_be_ready() {
        let every = Duration::from_secs(10);
        assert_eq!(old_snapshot(Duration::from_secs(59), every, Some("disk full")), None);
        let said = old_snapshot(Duration::from_secs(61), every, Some("disk full")).expect("it is old");
        assert!(said.contains("no snapshot for 1 min") && said.contains("disk full"), "{said}");
        assert_eq!(old_snapshot(Duration::from_secs(299), Duration::from_secs(60), None), None);
    }
}
