//! The scorer: observe an event, score it, decide, then perhaps learn.

use std::collections::BTreeMap;

use qualm_model::{
    baseline::FirstTimes,
    detector::{Observation, Question},
    event::{Event, EventBatch, Filter, Reporter},
    evidence::{Pace, Questions},
    level::Level,
    stats::Exposure,
    time::{Span, Timestamp},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::ScorerConfig,
    door::{Door, Ids},
    estate::{Broken, Estate, Part, Report, Tenancies},
    guard::HeldBy,
    incidents::Incidents,
    limiting::Knowns,
    mesh::{DESTINATION_BYTES, Mesh, SourceKey},
    operator::{accepted::Acceptances, announced::Announcements, orders::Orders},
    order::Order,
    peers::PeerGroups,
    shard::{SHARDS, Shard},
    snapshot::{Changes, Reach},
    standings::Standings,
    verdict::Verdict,
    watermark::Watermark,
    withheld::Statistics,
    workloads::Workloads,
};
pub use crate::{
    estate::{Clocks, LeftOut, PodAddresses, WrongClock},
    parting::SharedPrincipals,
};

/// An edge whose destination's proxy reported within this time is judged by those reports alone.
const DESTINATION_REPORTS: Span = Span(10 * Span::MINUTE.0);

/// What Envoy says of a call that was one too many, and of one that was refused because somebody was asked; what Kafka's
/// authorizer says of one that a rule refused which denies its caller everything.
const OUR_REFUSALS: [&str; 3] = ["local_rate_limited", "ext_authz_denied", "DenyAllAcl"];

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observed {
    /// It was scored.
    Scored {
        /// Bits of the event: the one number by which events are ranked. Finite, never clipped.
        bits: f64,
        /// Evidence against its source with this event in it.
        identity_bits: f64,
        /// The question with the strongest answer.
        leading: Option<Question>,
    },
    /// It shows an action of Qualm: used to verify, never scored or learned.
    OwnAction,
    /// The destination's own report of this call is the one that counts.
    Duplicate,
    /// A stream goes on, and nothing has come since its last record.
    Part,
    /// It names no source.
    NoSource,
}

/// Counts that operators see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Identities held.
    pub identities: u64,
    /// Edges held.
    pub edges: u64,
    /// Bytes of baselines, summaries, filters and standings, as they count towards the bound.
    pub bytes: u64,
    /// Keys folded away to stay within the bound.
    pub folded: u64,
    /// Events too far behind the watermark to be learned.
    pub late: u64,
    /// Events that showed Qualm's own actions.
    pub own_actions: u64,
    /// Readings that would have led into *watched* while the table was full.
    pub unlisted: u64,
    /// Records that were lost on the way.
    pub lost: u64,
    /// Steps up the ladder that an operator's hold has kept identities from.
    #[serde(skip)]
    pub held_back: u64,
}

/// Of one source, the records that count for nothing new, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// Later than its `lateness_s`: judged, and not learned.
    pub late: u64,
    /// Delivered again.
    pub repeated: u64,
    /// The other end's report of a call that has counted, or will by its own.
    pub confirming: u64,
}

/// All state of the judgement. Deterministic: the same events and commands in the same order give the same verdicts.
#[derive(Debug)]
pub struct Scorer {
    pub(crate) config: ScorerConfig,
    pub(crate) max_levels: Vec<Level>,
    pub(crate) filters: Vec<Filter>,
    /// Calls that a record stands for.
    pub(crate) calls_a_record: f64,
    pub(crate) latenesses: Vec<Span>,
    /// Names of the sources, for people.
    pub(crate) inputs: Vec<String>,
    /// Questions that are not asked; none but in measurements.
    pub(crate) left_aside: Questions,
    pub(crate) shards: Vec<Shard>,
    pub(crate) mesh: Mesh,
    pub(crate) watermark: Watermark,
    pub(crate) standings: Standings,
    /// Deployments that were announced.
    pub(crate) announced: Announcements,
    /// What was too odd to be learned.
    pub(crate) withheld: Statistics,
    /// What of that was accepted.
    pub(crate) accepted: Acceptances,
    /// What a bound holds back, and which.
    pub(crate) waiting: BTreeMap<SourceKey, HeldBy>,
    /// When that was weighed again last, wall time.
    pub(crate) weighed: Option<Timestamp>,
    /// Which episodes are one.
    pub(crate) incidents: Incidents,
    /// What operators have set, held and paused.
    pub(crate) orders: Orders,
    pub(crate) used: usize,
    /// What `used` may grow to.
    pub(crate) limit: usize,
    pub(crate) tally: Tally,
    /// By the source's number.
    came: BTreeMap<u16, Came>,
    /// The snapshot that is being taken.
    pub(crate) collecting: Option<Changes>,
    /// What the next snapshot replaces.
    pub(crate) reach: Reach,
    /// Keys were folded, and names they used may be let go.
    pub(crate) sweep_due: bool,
    pub(crate) order: Order,
    pub(crate) estate: Estate,
    pub(crate) tenancies: Tenancies,
    pub(crate) workloads: Workloads,
    /// What limited subjects may still do.
    pub(crate) knowns: Knowns,
    /// Hash of the configuration in force, for what decisions are replayed from.
    pub(crate) config_hash: String,
    /// Who behaves like whom.
    pub(crate) peers: PeerGroups,
    door: Door,
}

/// What a source does for the first time in a window of ten minutes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FirstInWindow {
    /// Calls this destination.
    pub(crate) peer: bool,
    /// Uses this operation there.
    pub(crate) operation: bool,
}

/// One event with all that is needed to judge it, within its shard.
pub(crate) struct Case<'a> {
    pub(crate) event: Event<'a>,
    pub(crate) ids: Ids,
    pub(crate) seen: Observation,
    /// Calls that it is to the destination.
    pub(crate) received: f64,
    /// How many of these are of the destination's open minute.
    pub(crate) made: f64,
    /// Since when its edge could have been seen.
    pub(crate) edge_since: Timestamp,
    pub(crate) first: FirstTimes,
    pub(crate) edge_is_excused: bool,
    /// What its source does for the first time in this window, where windows are looked at.
    pub(crate) in_window: Option<FirstInWindow>,
    /// How long its source had been silent.
    pub(crate) rest: Span,
    /// What of its credential does not add up.
    pub(crate) broken: Option<Broken>,
}

impl Case<'_> {
    /// The event as its edge sees it, which may be younger than the mesh.
    #[inline]
    pub(crate) fn edge_seen(&self) -> Observation {
        let exposure = Exposure { birth: self.edge_since, ..self.seen.exposure };
        Observation { exposure, ..self.seen }
    }
}

impl Scorer {
    /// A scorer that knows nothing yet.
    pub fn new(config: ScorerConfig) -> Self {
        let mut mesh = Mesh::default();
        mesh.set_learning(&config.learning);
        Self {
            limit: config.memory.baselines_mib << 20,
            config,
            max_levels: Vec::new(),
            filters: Vec::new(),
            calls_a_record: 1.0,
            latenesses: Vec::new(),
            inputs: Vec::new(),
            left_aside: Questions::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            mesh,
            watermark: Watermark::default(),
            standings: Standings::default(),
            announced: Announcements::default(),
            withheld: Statistics::default(),
            accepted: Acceptances::default(),
            waiting: BTreeMap::new(),
            weighed: None,
            incidents: Incidents::default(),
            orders: Orders::default(),
            used: 0,
            tally: Tally::default(),
            came: BTreeMap::new(),
            collecting: None,
            reach: Reach::default(),
            sweep_due: false,
            order: Order::default(),
            estate: Estate::default(),
            tenancies: Tenancies::default(),
            workloads: Workloads::default(),
            knowns: Knowns::default(),
            config_hash: String::new(),
            peers: PeerGroups::default(),
            door: Door::default(),
        }
    }

    /// Gives no weight to the answers to these questions: what one is worth is what is lost without it. Not in a snapshot,
    /// as it is for measurements alone.
    pub fn leave_aside(&mut self, questions: impl IntoIterator<Item = Question>) {
        self.left_aside = questions.into_iter().collect();
    }

    /// The highest level that records of each source (by its index) may lead to; all, where not said.
    pub fn limit_sources(&mut self, max_levels: Vec<Level>) {
        self.max_levels = max_levels;
    }

    /// What is left out of each source (by its index) before it comes here; nothing, where not said.
    pub fn filter_sources(&mut self, filters: Vec<Filter>) {
        self.filters = filters;
    }

    /// How many calls a record stands for, 1 where not said: a number of calls that leaves Qualm, as what proxies let pass
    /// of a throttled caller, is that of the records times this. Nothing is judged by it: what is usual of a sample was
    /// learned of a sample. Infinite where nobody knows: then no number is told that could be too small.
    pub fn scale_counts(&mut self, calls_a_record: f64) {
        self.calls_a_record = calls_a_record;
    }

    /// How far behind the watermark the events of each source (by its index) may come and still be learned, and still be
    /// laid beside the other end's report of the same call; five minutes, where not said.
    pub fn wait_for_sources(&mut self, latenesses: Vec<Span>) {
        self.estate.wait_for(&latenesses);
        self.latenesses = latenesses;
    }

    /// What each source (by its index) is called where records are named.
    pub fn name_sources(&mut self, names: Vec<String>) {
        self.inputs = names;
    }

    /// What inputs of which nothing is said seem to leave out: questions that this makes meaningless are not asked.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let is_said = |of: &LeftOut| self.filters.get(usize::from(of.source)).is_some_and(|said| *said != Filter::None);
        self.estate.left_out().into_iter().filter(|of| !is_said(of)).collect()
    }

    /// Reporters whose clocks are wrong, by both ends' reports of the same calls; the worst first.
    pub fn wrong_clocks(&self) -> Vec<WrongClock> {
        self.estate.wrong_clocks()
    }

    /// Takes note that so many records are missing from what was read: for a while nobody's silence means anything.
    pub fn lose(&mut self, records: u64) {
        self.tally.lost += records;
        self.estate.lose(self.watermark.now());
    }

    /// What the operator decided.
    pub fn config(&self) -> &ScorerConfig {
        &self.config
    }

    /// Calls that a destination of this name has received, as of the last summary; those that were odd count less.
    pub fn received(&self, destination: &str) -> f64 {
        let known = self.mesh.destination_id(destination).and_then(|id| self.mesh.destination(id));
        known.map_or(0.0, |(baseline, _)| baseline.volume())
    }

    /// How far event time has come.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.watermark.now()
    }

    /// The first watermark.
    pub fn birth(&self) -> Option<Timestamp> {
        self.mesh.birth()
    }

    /// Levels that can be entered now.
    pub fn armed(&self) -> Vec<Level> {
        self.mesh.armed()
    }

    /// Entries a day into a level, as the measured curve has them at its threshold; 0 where it is not armed.
    pub fn realised_per_day(&self, level: Level) -> f64 {
        let threshold = self.mesh.threshold(level);
        let rate = |pace, m: Option<f64>| m.map_or(0.0, |m| self.mesh.per_day(pace, m));
        rate(Pace::Fast, threshold.fast) + rate(Pace::Slow, threshold.slow)
    }

    /// Counts for operators.
    pub fn tally(&self) -> Tally {
        let sum = |count: fn(&Shard) -> usize| self.shards.iter().map(count).sum::<usize>() as u64;
        Tally {
            identities: sum(|shard| shard.sources.len()),
            edges: sum(|shard| shard.edges.len()),
            bytes: (self.used + self.beside()) as u64,
            ..self.tally
        }
    }

    /// Makes ready for a batch: dictionary keys of the one before mean nothing any more. Only now may names be let
    /// go: within a batch the door holds their ids.
    pub fn open(&mut self, _batch: &EventBatch) {
        self.door.open();
        self.workloads.open();
        let due = std::mem::take(&mut self.sweep_due);
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if due || shard.has_idle_names() {
                let standing = self.standings.iter().map(|(key, _)| *key);
                shard.sweep(standing.filter(|key| usize::from(key.0) == index).map(|key| key.1));
            }
        }
    }

    /// Notes, for the next snapshot, that the events of a batch are taken now, at `wall`.
    pub fn note_order(&mut self, batch: &EventBatch, wall: Timestamp) {
        self.order.note(batch, wall);
    }

    /// Observes one event of the opened batch: scores it, decides, learns. `wall` is the wall time; verdicts are
    /// added to `verdicts`.
    pub fn observe(&mut self, event: Event<'_>, wall: Timestamp, verdicts: &mut Vec<Verdict>) -> Observed {
        let time = event.report();
        if self.mesh.birth().is_none() {
            self.mesh.begin(time);
        }
        if !event.decision_id().is_empty() {
            self.tell_time(event, wall, verdicts);
            self.tally.own_actions += 1;
            self.hear_denied(event);
            return Observed::OwnAction;
        }
        if self.estate.is_repeated(event) {
            self.came_of(event).repeated += 1;
            return Observed::Duplicate;
        }
        self.estate.learn(event);
        if let Some(address) = self.estate.take_named() {
            self.forget_young(&address, time);
        }
        self.estate.note_input(event);
        let part = self.estate.part(event);
        let mut share = match part {
            Part::First(share) | Part::More(share) => share,
            Part::Confirming => {
                self.came_of(event).confirming += 1;
                return Observed::Duplicate;
            }
            Part::Nothing => {
                self.tell_time(event, wall, verdicts);
                return Observed::Part;
            }
        };
        let resolved = self.estate.resolve(event, &mut self.tenancies);
        let from = self.workloads.caller(event, &resolved, &self.tenancies);
        let ids = self.door.ids(event, &resolved, from.workload.as_deref(), &mut self.shards);
        let Some(ids) = ids else { return Observed::NoSource };
        // Not every form of a log names the decision behind such a refusal.
        if OUR_REFUSALS.contains(&event.denial_reason()) && self.is_throttled((ids.shard, ids.source)) {
            self.tell_time(event, wall, verdicts);
            self.tally.own_actions += 1;
            self.hear_denied(event);
            return Observed::OwnAction;
        }
        let is_reported = share.calls > 0.0 && self.is_reported(event, ids);
        if event.reporter() == Reporter::Gateway && self.destination_reports(ids, event.report()) {
            // The called's proxy tells of the same call as the gateway's own.
            share.received = 0.0;
        }
        if self.estate.has_alone() {
            self.look_at_disagreements(wall, verdicts);
        }
        if is_reported {
            self.estate.yield_to_other(event);
            self.came_of(event).confirming += 1;
            return Observed::Duplicate;
        }
        // Only now: what repeats or confirms moves nothing, not even the clocks.
        self.tell_time(event, wall, verdicts);
        if self.is_late(event) {
            self.tally.late += 1;
            self.came_of(event).late += 1;
        } else if from.is_counted() {
            let seen = Observation {
                more: share.calls,
                duration_ns: event.duration_ns(),
                ..Observation::at(self.mesh.exposure(time))
            };
            self.workloads.count(&from, seen);
        }
        let caller = resolved.source.as_deref().unwrap_or(event.source().principal());
        let broken = if share.calls > 0.0 { self.look_at_credential(event, caller) } else { None };
        let observed = self.judge((event, caller), (ids, share), broken, wall, verdicts);
        if self.estate.has_unissued() {
            self.look_at_unissued(wall, verdicts);
        }
        if self.used > self.limit {
            self.make_room();
        }
        observed
    }

    fn came_of(&mut self, event: Event<'_>) -> &mut Came {
        self.came.entry(event.position().source).or_default()
    }

    /// Of each source, by its index, the records that counted for nothing new since the process began.
    pub fn came(&self) -> impl Iterator<Item = (u16, Came)> {
        self.came.iter().map(|(&source, &came)| (source, came))
    }

    /// Moves the watermark, and with it the clocks.
    #[inline]
    fn tell_time(&mut self, event: Event<'_>, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        if let Some(watermark) = self.watermark.see(event.position(), event.report().min(wall), wall)
            && watermark >= self.mesh.next_close()
        {
            self.mesh.skip_gap(watermark);
            self.close_summary(watermark, wall, verdicts);
        }
    }

    /// Whether the other end's report of the same call is the one that counts.
    #[inline]
    fn is_reported(&mut self, event: Event<'_>, ids: Ids) -> bool {
        if let Some(counted) = self.estate.other_side(event) {
            self.agree(ids);
            return counted || event.reporter() == Reporter::Source;
        }
        if event.reporter() == Reporter::Gateway {
            // It tells for whom the gateway calls. That the gateway calls is for the called's proxy to tell.
            self.estate.confirm(event);
            return false;
        }
        if event.reporter() == Reporter::Source && self.destination_reports(ids, event.report()) {
            if self.estate.confirm(event) {
                self.agree(ids);
            }
            return true;
        }
        let report = self.estate.count(event);
        if report != Report::First {
            self.agree(ids);
        }
        let again = report == Report::Again;
        // Where the called's reports come too late to be learned, the callers' go on standing in.
        if again && event.reporter() == Reporter::Destination && !self.is_late(event) {
            self.shards[usize::from(ids.shard)].hear(ids.destination, &self.mesh);
        }
        again
    }

    /// Both proxies have told of a call: what those that only one told of are measured by.
    fn agree(&mut self, ids: Ids) {
        self.shards[usize::from(ids.shard)].delta.sample(Question::Unwitnessed, 1.0);
    }

    /// Whether the destination's own proxy reports its calls, so that the caller's report only confirms.
    fn destination_reports(&self, ids: Ids, now: Timestamp) -> bool {
        let shard = &self.shards[usize::from(ids.shard)];
        let link = shard.links.get(&ids.destination);
        if link.is_some_and(|link| link.reported) {
            return true;
        }
        // A caller that is new here may call whom others have called for long.
        let known = link.and_then(|link| link.mesh);
        let known = known.or_else(|| self.mesh.destination_id(shard.names.text(ids.destination)));
        let last = known.and_then(|id| self.mesh.destination(id)).map(|(_, reported)| reported);
        last.is_some_and(|reported| now - reported <= DESTINATION_REPORTS)
    }

    fn close_summary(&mut self, watermark: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let windows = |time: Timestamp| time.window(Span(10 * Span::MINUTE.0));
        let before = self.mesh.closed();
        let ten_minutes_ended = windows(before) < windows(watermark);
        if ten_minutes_ended {
            self.look_for_silence(wall, verdicts);
            self.look_at_windows(wall, verdicts);
        }
        for shard in &mut self.shards {
            shard.gather_destinations();
        }
        self.mesh.close(watermark, self.shards.iter_mut().map(|shard| &mut shard.delta), &self.config.budget);
        for pause in self.mesh.pauses_ended_since(before) {
            self.used = self.used.saturating_sub(self.shards.iter_mut().map(|shard| shard.unlearn(pause)).sum());
        }
        self.end_history(watermark, verdicts);
        self.announced.end(watermark);
        self.accepted.end(watermark);
        self.withheld.age(watermark);
        self.part_workloads(watermark, wall, verdicts);
        // They may take a quarter of the memory bound.
        let most = (self.config.memory.baselines_mib << 20) / 4 / DESTINATION_BYTES;
        let folded = self.mesh.fold_destinations(most);
        self.tally.folded += folded as u64;
        if folded > 0 {
            self.shards.iter_mut().for_each(|shard| shard.unresolve(&self.mesh));
        }
        self.set_limit();
        for shard in &mut self.shards {
            shard.resolve(&self.mesh);
        }
    }
}
