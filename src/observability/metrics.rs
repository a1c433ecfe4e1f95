//! What the pipeline counts. Sources, enforcement points, journal and alerts register metrics of their own.

use std::fs;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    exponential_buckets,
    proto::MetricFamily,
};
use qualm_model::{level::Level, time::Span};

/// The pipeline's metrics; handles are cheap to clone and to set.
#[derive(Debug, Clone)]
pub(crate) struct PipelineMetrics {
    /// Events scored.
    pub scored: IntCounter,
    /// Events that were our own denials: not scored, not learned.
    pub own_actions: IntCounter,
    /// Records still to be read, where the source can say.
    pub lag_records: IntGauge,
    /// Wall time minus the watermark.
    pub lag_seconds: Gauge,
    /// Proxies that reported calls lately.
    pub proxies_reporting: IntGauge,
    /// Of these, the ones that hold a trust table.
    pub proxies_enforcing: IntGauge,
    /// From an event being read to the verdict that it caused.
    pub event_to_verdict: Histogram,
    /// From a verdict to its acknowledgement by an enforcement point.
    pub verdict_to_ack: Histogram,
    /// Identities with a state.
    pub identities: IntGauge,
    /// Principals that several workloads share.
    pub shared_principals: IntGauge,
    /// Workloads that are judged on their own because of that.
    pub shared_workloads: IntGauge,
    /// Calls of workloads for which there was no room; judged with their principal.
    pub shared_beyond: IntGauge,
    /// Addresses and principals forgotten for want of room.
    pub shared_forgotten: IntGauge,
    /// Edges with a state.
    pub edges: IntGauge,
    /// Bytes of all states.
    pub state_bytes: IntGauge,
    /// Bytes that the states may have.
    pub state_limit_bytes: IntGauge,
    /// Keys folded into their parent for want of memory.
    pub folded: IntCounter,
    /// Entries not made for want of a place in the trust table.
    pub unlisted: IntCounter,
    /// Steps up the ladder that an operator's hold has kept identities from.
    pub held_back: IntCounter,
    /// Events of which an acceptance has hidden something.
    pub accepted: IntCounter,
    /// Acceptances that stand.
    pub acceptances: IntGauge,
    /// Odd answers that there was no room to remember.
    pub withheld_left_out: IntCounter,
    /// Whether all enforcement is paused.
    pub paused: IntGauge,
    /// Identities that came to be limited within ten minutes, where these are too many; 0 otherwise.
    pub circuit_breaker: IntGauge,
    /// Reporters whose clocks are wrong by two seconds or more.
    pub wrong_clocks: IntGauge,
    /// By how much the worst of them is.
    pub clock_skew: Gauge,
    /// Inputs that seem to leave calls out, without their operator saying so.
    pub filtered: IntGauge,
    /// Times that an input began to have another format.
    pub format_changes: IntCounter,
    /// Kafka clusters of which no broker answers.
    pub unreachable: IntGauge,
    /// Kafka partitions that have records and give none.
    pub held_up: IntGauge,
    /// Snapshots written.
    pub snapshots: IntCounter,
    /// Snapshots that could not be written.
    pub snapshot_failures: IntCounter,
    /// Seconds since one was written.
    pub snapshot_age: Gauge,
    /// Reports of enforcement points without a journal record of their own.
    pub reports_unrecorded: IntCounter,
    /// How long the loop stood still for a snapshot.
    pub snapshot_pause: Histogram,
    entries: IntGaugeVec,
    late: IntCounterVec,
    repeated: IntCounterVec,
    confirming: IntCounterVec,
    transitions: IntCounterVec,
    armed: IntGaugeVec,
    budget: GaugeVec,
    realised: GaugeVec,
    counted: GaugeVec,
    counted_window: Gauge,
}

impl PipelineMetrics {
    /// Creates and registers them, with those of the process.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        registry.register(Box::new(ResidentMemory::new()?))?;
        let maker = Maker(registry);
        let metrics = Self {
            scored: maker.counter("qualm_events_scored_total", "Events scored.")?,
            late: maker.counters_of(
                "source",
                "qualm_events_late_total",
                "Events further behind the others than lateness_s: scored, not learned.",
            )?,
            repeated: maker.counters_of(
                "source",
                "qualm_events_repeated_total",
                "Events that were delivered again, by their ids: counted once.",
            )?,
            confirming: maker.counters_of(
                "source",
                "qualm_events_confirming_total",
                "Reports of calls that the other end's reports count.",
            )?,
            own_actions: maker.counter(
                "qualm_events_own_action_total",
                "Events that were Qualm's own denials: neither scored nor learned.",
            )?,
            lag_records: maker.gauge("qualm_lag_records", "Records still to be read, where the source can say.")?,
            lag_seconds: maker.measure("qualm_lag_seconds", "Wall time minus the watermark.")?,
            proxies_reporting: maker.gauge("qualm_proxies_reporting", "Proxies that reported calls lately.")?,
            proxies_enforcing: maker
                .gauge("qualm_proxies_enforcing", "Of these, the ones that have acknowledged a trust table.")?,
            event_to_verdict: maker.histogram(
                "qualm_event_to_verdict_seconds",
                "From an event being read to the verdict that it caused.",
            )?,
            verdict_to_ack: maker.histogram(
                "qualm_verdict_to_ack_seconds",
                "From a verdict to its acknowledgement by an enforcement point.",
            )?,
            identities: maker.gauge("qualm_identities", "Identities with a state.")?,
            shared_principals: maker
                .gauge("qualm_shared_principals", "Principals that several workloads share, as sa/default.")?,
            shared_workloads: maker.gauge(
                "qualm_shared_principals_workloads",
                "Workloads that are judged on their own because of that.",
            )?,
            shared_beyond: maker.gauge(
                "qualm_shared_principals_beyond",
                "Calls of workloads for which there was no room: they are judged with their principal.",
            )?,
            shared_forgotten: maker.gauge(
                "qualm_workload_addresses_forgotten",
                "Addresses of pods, and principals, forgotten for want of room.",
            )?,
            edges: maker.gauge("qualm_edges", "Edges with a state.")?,
            state_bytes: maker.gauge("qualm_state_bytes", "Bytes of all states.")?,
            state_limit_bytes: maker.gauge("qualm_state_limit_bytes", "Bytes that the states may have.")?,
            folded: maker
                .counter("qualm_keys_folded_total", "Keys folded into their parent because memory is bounded.")?,
            unlisted: maker.counter(
                "qualm_trust_entries_unlisted_total",
                "Times that a newcomer reached watched and was not entered because the trust table was full.",
            )?,
            held_back: maker.counter(
                "qualm_trust_entries_held_back_total",
                "Steps up the ladder that an operator's hold has kept identities from.",
            )?,
            accepted: maker.counter(
                "qualm_accepted_events_total",
                "Events of which something was hidden because an operator has accepted it.",
            )?,
            acceptances: maker.gauge("qualm_acceptances", "Acceptances of odd behaviour that stand.")?,
            withheld_left_out: maker.counter(
                "qualm_withheld_left_out_total",
                "Odd answers that there was no room to remember, and that cannot be accepted.",
            )?,
            circuit_breaker: maker.gauge(
                "qualm_circuit_breaker_identities",
                "Identities that came to be limited within 10 minutes where these are too many, and none of them is; else 0.",
            )?,
            paused: maker
                .gauge("qualm_enforcement_paused", "1 while an operator has paused all enforcement, else 0.")?,
            wrong_clocks: maker.gauge(
                "qualm_reporters_clock_wrong",
                "Reporters whose clocks seem to be wrong by two seconds or more.",
            )?,
            clock_skew: maker.measure("qualm_clock_skew_seconds", "By how much the worst of these clocks is wrong.")?,
            filtered: maker.gauge(
                "qualm_inputs_filtered",
                "Inputs that seem to leave calls out although their `filter` does not say so.",
            )?,
            format_changes: maker
                .counter("qualm_input_format_changes_total", "Times that an input began to have another format.")?,
            unreachable: maker.gauge(
                "qualm_kafka_clusters_unreachable",
                "Kafka clusters of which no broker has answered for a minute or more.",
            )?,
            held_up: maker.gauge(
                "qualm_kafka_partitions_held_up",
                "Kafka partitions that have records and have given none for 20 s: nobody's silence is asked.",
            )?,
            snapshots: maker.counter("qualm_snapshots_total", "Snapshots written.")?,
            snapshot_failures: maker.counter(
                "qualm_snapshot_failures_total",
                "Snapshots that could not be written; the next one is of everything.",
            )?,
            snapshot_age: maker.measure(
                "qualm_snapshot_age_seconds",
                "Time since a snapshot was written; since the start, where none was.",
            )?,
            reports_unrecorded: maker.counter(
                "qualm_enforcement_reports_unrecorded_total",
                "Comings, goings, refusals and acknowledgements of enforcement points that have no journal record of their own.",
            )?,
            snapshot_pause: maker
                .histogram("qualm_snapshot_pause_seconds", "How long the loop stood still for a snapshot.")?,
            entries: maker.gauges("qualm_trust_entries", "Entries of the trust table by level.")?,
            transitions: maker.counters("qualm_trust_transitions_total", "Entries into a level.")?,
            armed: maker.gauges("qualm_level_armed", "1 where the level can be entered on behaviour, else 0.")?,
            budget: maker.rates(
                "qualm_budget_entries_per_day",
                "Wrongful entries into the level that the configuration allows a day.",
            )?,
            realised: maker.rates(
                "qualm_realised_entries_per_day",
                "Entries into the level a day, as the measured curve has them.",
            )?,
            counted: maker.rates(
                "qualm_counted_entries_per_day",
                "Entries into the level a day, as they were decided in the last seven days, or since anything is known.",
            )?,
            counted_window: maker.measure("qualm_counted_window_seconds", "Time over which entries into levels were counted.")?,
        };
        for level in Level::BY_BEHAVIOUR {
            metrics.standing(level, 0);
            metrics.transitions.with_label_values(&[level.as_str()]);
        }
        Ok(metrics)
    }

    /// So many entries stand at this level.
    pub(crate) fn standing(&self, level: Level, entries: i64) {
        self.entries.with_label_values(&[level.as_str()]).set(entries);
    }

    /// So many events of a source came late, again, or to confirm.
    pub(crate) fn came(&self, source: &str, late: u64, repeated: u64, confirming: u64) {
        for (counter, more) in [(&self.late, late), (&self.repeated, repeated), (&self.confirming, confirming)] {
            counter.with_label_values(&[source]).inc_by(more);
        }
    }

    /// An entry into this level.
    pub(crate) fn entered(&self, level: Level) {
        self.transitions.with_label_values(&[level.as_str()]).inc();
    }

    /// The level can, or cannot yet, be entered on behaviour.
    pub(crate) fn arming(&self, arming: &super::Arming) {
        self.armed.with_label_values(&[arming.level.as_str()]).set(i64::from(arming.armed));
    }

    /// What it has come to: entries a day over so long a time.
    pub(crate) fn counted(&self, level: Level, per_day: f64, window: Span) {
        self.counted.with_label_values(&[level.as_str()]).set(per_day);
        self.counted_window.set(window.as_seconds());
    }

    /// What is allowed and what is measured, entries a day.
    pub(crate) fn budget(&self, level: Level, configured: f64, realised: f64) {
        self.budget.with_label_values(&[level.as_str()]).set(configured);
        self.realised.with_label_values(&[level.as_str()]).set(realised);
    }
}

/// Creates metrics and registers them in one go.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn put<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> prometheus::Result<C> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.put(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.put(IntGauge::new(name, help))
    }

    fn measure(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.put(Gauge::new(name, help))
    }

    /// From 50 microseconds to 26 seconds.
    fn histogram(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        let buckets = exponential_buckets(0.000_05, 2.0, 20)?;
        self.put(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn counters(&self, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
        self.counters_of("level", name, help)
    }

    fn counters_of(&self, label: &str, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
        self.put(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn gauges(&self, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
        self.put(IntGaugeVec::new(Opts::new(name, help), &["level"]))
    }

    fn rates(&self, name: &str, help: &str) -> prometheus::Result<GaugeVec> {
        self.put(GaugeVec::new(Opts::new(name, help), &["level"]))
    }
}

/// Resident memory, read when the page is asked for.
struct ResidentMemory(IntGauge);

impl ResidentMemory {
    fn new() -> prometheus::Result<Self> {
        IntGauge::new("process_resident_memory_bytes", "Resident memory size in bytes.").map(Self)
    }
}

impl Collector for ResidentMemory {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match resident_bytes() {
            Some(bytes) => {
                self.0.set(bytes);
                self.0.collect()
            }
            None => Vec::new(),
        }
    }
}

/// Resident memory of this process, where the system has `/proc`.
pub(crate) fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
