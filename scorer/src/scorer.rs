//! The scorer: observe an event, score it, decide, then perhaps learn.

use std::sync::Arc;

use qualm_model::{
    baseline::{FirstTimes, SourceBaseline},
    detector::{Deviation, Observation, Question},
    event::{Event, EventBatch, Reporter},
    evidence::{EValues, Pace},
    level::Level,
    stats::Exposure,
    time::{Span, Timestamp},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Mode, ScorerConfig},
    door::{Door, Ids},
    judge::is_news,
    mesh::{DESTINATION_BYTES, Mesh},
    order::Order,
    shard::{Attribute, EDGE_BYTES, INSTANCE_BYTES, SHARDS, SOURCE_BYTES, Shard, Source},
    snapshot::{Changes, Reach},
    standings::Standings,
    verdict::{Reason, Verdict},
    watermark::Watermark,
};

/// A service of the mesh inherits from its siblings, and its edges may be adopted, once the mesh is this old;
/// before, everything is new and everything is learned.
const SETTLED: Span = Span::DAY;
/// How long an adopted edge, recognised as the service's own change, is excused from being new.
const ADOPTED_FOR: Span = Span::DAY;
/// An edge whose destination's proxy reported within this time is judged by those reports alone.
const DESTINATION_REPORTS: Span = Span(10 * Span::MINUTE.0);
/// Share of neighbours' evidence that lifts a doubtful event.
const CONTEXT_SHARE: f64 = 0.1;

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
    /// Events behind the watermark.
    pub late: u64,
    /// Events that showed Qualm's own actions.
    pub own_actions: u64,
    /// Readings that would have led into *watched* while the table was full.
    pub unlisted: u64,
}

/// All state of the judgement. Deterministic: the same events and commands in the same order give the same verdicts.
#[derive(Debug)]
pub struct Scorer {
    pub(crate) config: ScorerConfig,
    pub(crate) max_levels: Vec<Level>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) mesh: Mesh,
    pub(crate) watermark: Watermark,
    pub(crate) standings: Standings,
    pub(crate) used: usize,
    /// What `used` may grow to.
    pub(crate) limit: usize,
    pub(crate) tally: Tally,
    /// The snapshot that is being taken.
    pub(crate) collecting: Option<Changes>,
    /// What the next snapshot replaces.
    pub(crate) reach: Reach,
    /// Keys were folded, and names they used may be let go.
    pub(crate) sweep_due: bool,
    pub(crate) order: Order,
    door: Door,
}

/// One event with all that is needed to judge it, within its shard.
pub(crate) struct Case<'a> {
    pub(crate) event: Event<'a>,
    pub(crate) ids: Ids,
    pub(crate) seen: Observation,
    pub(crate) edge_seen: Observation,
    pub(crate) first: FirstTimes,
    pub(crate) edge_is_excused: bool,
}

impl Scorer {
    /// A scorer that knows nothing yet.
    pub fn new(config: ScorerConfig) -> Self {
        Self {
            limit: config.memory.baselines_mib << 20,
            config,
            max_levels: Vec::new(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            mesh: Mesh::default(),
            watermark: Watermark::default(),
            standings: Standings::default(),
            used: 0,
            tally: Tally::default(),
            collecting: None,
            reach: Reach::default(),
            sweep_due: false,
            order: Order::default(),
            door: Door::default(),
        }
    }

    /// The highest level that records of each source (by its index) may lead to; all, where not said.
    pub fn limit_sources(&mut self, max_levels: Vec<Level>) {
        self.max_levels = max_levels;
    }

    /// Replaces what the operator decides. Enters the loop between two batches. What stands becomes a shadow where
    /// it may no longer act; what is a shadow stays one until it is decided anew.
    pub fn reconfigure(&mut self, config: ScorerConfig) {
        if config.budget != self.config.budget {
            self.mesh.read_curves(&config.budget);
        }
        self.config = config;
        self.set_limit();
        let enforce = &self.config.enforce;
        for standing in self.standings.values_mut() {
            standing.enforce &= enforce.mode == Mode::Enforce && !enforce.protects(&standing.subject.principal);
        }
    }

    /// What the operator decided.
    pub fn config(&self) -> &ScorerConfig {
        &self.config
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
        let armed = |level: &Level| {
            let threshold = self.mesh.threshold(*level);
            threshold.fast.is_some() || threshold.slow.is_some()
        };
        Level::BY_BEHAVIOUR.into_iter().filter(armed).collect()
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
        if let Some(watermark) = self.watermark.see(event.position(), time.min(wall), wall)
            && watermark >= self.mesh.next_close()
        {
            self.mesh.skip_gap(watermark);
            self.close_summary(watermark, wall, verdicts);
        }
        if !event.decision_id().is_empty() {
            self.tally.own_actions += 1;
            return Observed::OwnAction;
        }
        let Some(ids) = self.door.ids(event, &mut self.shards) else { return Observed::NoSource };
        if event.reporter() == Reporter::Source && self.destination_reports(ids, time) {
            return Observed::Duplicate;
        }
        if time < self.mesh.closed() {
            self.tally.late += 1;
        }
        let case = self.admit(event, ids, time);
        let observed = self.judge(&case, wall, verdicts);
        if self.used > self.limit {
            self.make_room();
        }
        observed
    }

    /// Whether the destination's own proxy reports its calls, so that the caller's report only confirms.
    fn destination_reports(&self, ids: Ids, now: Timestamp) -> bool {
        let shard = &self.shards[usize::from(ids.shard)];
        let Some(link) = shard.links.get(&ids.destination) else { return false };
        link.reported
            || link
                .mesh
                .and_then(|id| self.mesh.destination(id))
                .is_some_and(|(_, reported)| now - reported <= DESTINATION_REPORTS)
    }

    /// Makes place for what is new in the event, and notes that it was seen.
    fn admit<'a>(&mut self, event: Event<'a>, ids: Ids, now: Timestamp) -> Case<'a> {
        let exposure = self.mesh.exposure(now);
        let shard = &mut self.shards[usize::from(ids.shard)];
        let admitted = admit_edge(shard, &self.mesh, ids, now);
        let (edge, first_contact, bytes) = admitted.unwrap_or_else(|| {
            let source = new_source(event, shard, &self.mesh, exposure);
            self.used += SOURCE_BYTES;
            shard.delta.new_identities += 1;
            shard.sources.insert(ids.source, Box::new(source));
            admit_edge(shard, &self.mesh, ids, now).expect("the source was just made")
        });
        if event.source().provenance().may_enforce()
            && let Some(source) = shard.sources.get_mut(&ids.source)
        {
            source.vouched = source.vouched.max(Some(now));
        }
        let mut owned = bytes;
        let mut first_time = |attribute| {
            let (first, bytes) = shard.first_time(attribute, now);
            owned += bytes;
            first
        };
        let Ids { source, destination, .. } = ids;
        let operation =
            ids.operation.and_then(|operation| first_time(Attribute::Operation { source, destination, operation }));
        let credential = ids.credential.and_then(|credential| first_time(Attribute::Credential { source, credential }));
        let fingerprint =
            ids.fingerprint.and_then(|fingerprint| first_time(Attribute::Fingerprint { source, fingerprint }));
        if owned > 0 {
            self.used += owned;
            if let Some(source) = shard.sources.get_mut(&ids.source) {
                source.owned += owned;
            }
        }
        let adopted = edge.adopted.filter(|&since| now - since <= ADOPTED_FOR);
        let seen = Observation {
            outcome: event.outcome(),
            first_contact: first_contact && adopted.is_none(),
            bytes: sum(event.bytes_in(), event.bytes_out()),
            duration_ns: event.duration_ns(),
            ..Observation::at(exposure)
        };
        let since = edge.adopted.unwrap_or(exposure.birth);
        let edge_seen = Observation { exposure: Exposure { birth: since, ..exposure }, ..seen };
        // An operation on an edge that is itself new says nothing of its own.
        let operation = operation.filter(|_| !first_contact);
        let first = FirstTimes { operation, credential, fingerprint };
        Case { event, ids, seen, edge_seen, first, edge_is_excused: edge.returned || adopted.is_some() }
    }

    /// Scores, decides, learns.
    fn judge(&mut self, case: &Case<'_>, wall: Timestamp, verdicts: &mut Vec<Verdict>) -> Observed {
        let now = case.seen.exposure.now;
        if now < self.mesh.closed() {
            return self.judge_late(case, wall, verdicts);
        }
        let most = self.most(case);
        let mesh = &self.mesh;
        let shard = &mut self.shards[usize::from(case.ids.shard)];
        let Some(mut place) = shard.place(case.ids) else { return Observed::NoSource };
        let mut values = EValues::default();
        let weight = place.answer(mesh, case, &mut values);
        let raw = values.bits();
        let bits = forgiven(mesh, place.source, case, raw);
        let leading = values.leading();
        let most = most.min(place.source.newcomer_may_reach(case.ids.address, now, &values));
        let reached = place.weigh((mesh, &self.standings), case, (bits, leading), most);
        let Some(reached) = reached.filter(|reached| is_news(&self.standings, &self.config, case, *reached, wall))
        else {
            // As nearly all events: nothing is to be decided.
            place.learn(case, weight, raw);
            return Observed::Scored { bits, identity_bits: place.source.shown_bits, leading };
        };
        verdicts.extend(self.decide(case, &values, reached, wall));
        let Some(mut place) = self.shards[usize::from(case.ids.shard)].place(case.ids) else {
            return Observed::NoSource;
        };
        place.learn(case, weight, raw);
        Observed::Scored { bits, identity_bits: place.source.shown_bits, leading }
    }

    /// Scores and decides on what comes late: it is not learned, and closes nothing.
    fn judge_late(&mut self, case: &Case<'_>, wall: Timestamp, verdicts: &mut Vec<Verdict>) -> Observed {
        let mut values = EValues::default();
        let mesh = &self.mesh;
        let shard = &self.shards[usize::from(case.ids.shard)];
        shard.ask(mesh, case, &mut |question, deviation| values.set(question, mesh.e(question, deviation.x)));
        shard.blame(case, &mut values);
        let bits = forgiven(mesh, &shard.sources[&case.ids.source], case, values.bits());
        let leading = values.leading();
        let may = shard.sources[&case.ids.source].newcomer_may_reach(case.ids.address, case.seen.exposure.now, &values);
        let most = self.most(case).min(may);
        let shard = &mut self.shards[usize::from(case.ids.shard)];
        let Some(mut place) = shard.place(case.ids) else { return Observed::NoSource };
        let reached = place.weigh((&self.mesh, &self.standings), case, (bits, leading), most);
        let identity_bits = place.source.shown_bits;
        if let Some(reached) = reached.filter(|reached| is_news(&self.standings, &self.config, case, *reached, wall)) {
            verdicts.extend(self.decide(case, &values, reached, wall));
        }
        Observed::Scored { bits, identity_bits, leading }
    }

    /// Reasons of an event, strongest first, before it is learned.
    pub(crate) fn reasons(&self, case: &Case<'_>, values: &EValues) -> Vec<Reason> {
        let shard = &self.shards[usize::from(case.ids.shard)];
        let mut answers: Vec<(Question, Deviation)> = Vec::new();
        shard.ask(&self.mesh, case, &mut |question, deviation| answers.push((question, deviation)));
        let destination = shard.names.text(case.ids.destination);
        let reason = |(question, bits): (Question, f64)| {
            let (_, deviation) = answers.iter().find(|(asked, _)| *asked == question)?;
            Some(Reason {
                detector: question,
                bits,
                observed: deviation.observed,
                expected: deviation.expected,
                n: deviation.n,
                destination: destination.to_owned(),
                operation: (!case.event.operation().is_empty()).then(|| case.event.operation().to_owned()),
            })
        };
        values.reasons().into_iter().filter_map(reason).take(8).collect()
    }

    fn close_summary(&mut self, watermark: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let windows = |time: Timestamp| time.window(Span(10 * Span::MINUTE.0));
        let ten_minutes_ended = windows(self.mesh.closed()) < windows(watermark);
        if ten_minutes_ended {
            self.look_for_silence(wall, verdicts);
        }
        for shard in &mut self.shards {
            shard.gather_destinations();
        }
        self.mesh.close(watermark, self.shards.iter_mut().map(|shard| &mut shard.delta), &self.config.budget);
        self.end_history(watermark, verdicts);
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

/// Bits of an event as they count: habit is forgiven, and what the neighbours go through lifts what is doubtful.
#[inline]
fn forgiven(mesh: &Mesh, source: &Source, case: &Case<'_>, raw: f64) -> f64 {
    let now = case.seen.exposure.now;
    let context = if raw > -1.0 { mesh.context((case.ids.shard, case.ids.source), now) } else { 0.0 };
    let forgiven = source.baseline.habit.forgive(now, raw);
    forgiven + CONTEXT_SHARE * context * (forgiven + 1.0).clamp(0.0, 1.0)
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

fn new_source(event: Event<'_>, shard: &Shard, mesh: &Mesh, exposure: Exposure) -> Source {
    let party = event.source();
    let text = |text: &str| (!text.is_empty()).then(|| Arc::<str>::from(text));
    let namespace = text(party.namespace());
    let settled = exposure.now - exposure.birth >= SETTLED;
    let siblings = namespace.as_deref().filter(|_| settled).and_then(|namespace| mesh.siblings(namespace));
    let mark = (3_u8, party.principal(), party.cluster());
    Source {
        principal: Arc::from(party.principal()),
        cluster: text(party.cluster()),
        baseline: siblings.map_or_else(SourceBaseline::default, |rate| SourceBaseline::inheriting(exposure, rate)),
        namespace,
        first: exposure.now,
        last: exposure.now,
        returned: shard.forgotten.holds(mark),
        ..Source::default()
    }
}

/// What a case needs to know of its edge.
#[derive(Clone, Copy)]
struct EdgeState {
    adopted: Option<Timestamp>,
    returned: bool,
}

/// The edge, made where it is new; whether the two meet for the first time; bytes taken. `None` where there is no such
/// source.
#[inline]
fn admit_edge(shard: &mut Shard, mesh: &Mesh, ids: Ids, now: Timestamp) -> Option<(EdgeState, bool, usize)> {
    let source = shard.sources.get_mut(&ids.source)?;
    shard.changed.touch_source(ids.source, source);
    let known = source.instances.len();
    let place = source.instance(ids.address, now);
    let bytes = (source.instances.len() - known) * INSTANCE_BYTES;
    source.last = source.last.max(now);
    let key = (ids.source, ids.destination);
    if let Some(edge) = shard.edges.get_mut(&key) {
        shard.changed.touch_edge(key, edge);
        let is_new_user = edge.users & (1 << place) == 0;
        edge.users |= 1 << place;
        edge.last = edge.last.max(now);
        let is_young = edge.adopted.is_none() && now - edge.first <= SETTLED;
        if is_young
            && (is_new_user && edge.is_shared_by(source.serving(now))
                || now - edge.first <= Span::HOUR && source.was_succeeded(edge.first, now))
        {
            source.baseline.withdraw_contact(edge.first);
            edge.adopt(now);
        }
        return Some((EdgeState { adopted: edge.adopted, returned: edge.returned }, false, bytes));
    }
    let returned = shard.forgotten.holds((4_u8, shard.names.text(ids.source), shard.names.text(ids.destination)));
    shard.new_edge(key, now, 1 << place, returned, mesh);
    Some((EdgeState { adopted: None, returned }, !returned, EDGE_BYTES + bytes))
}
