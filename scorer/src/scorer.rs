//! The scorer: observe an event, score it, decide, then perhaps learn.
//!
//! # Layout
//! - this file: the state, and the way of one event through it
//! - `case`: one event with all that is needed to judge it
//! - `setup`: a new one, and what it is told of its inputs
//! - `told`: what it tells

mod case;
mod setup;
mod told;

use std::collections::BTreeMap;

use qualm_model::{
    detector::{Observation, Question},
    event::{Event, EventBatch, Filter, Reporter},
    evidence::Questions,
    level::Level,
    time::{Span, Timestamp},
};

pub(crate) use self::case::{Case, FirstInWindow};
pub use self::told::{Came, Observed, Tally};

use crate::{
    config::ScorerConfig,
    door::{Door, Ids},
    estate::{Estate, Part, Report, Tenancies},
    guard::HeldBy,
    incidents::Incidents,
    limiting::Knowns,
    mesh::{DESTINATION_BYTES, Mesh, SourceKey},
    operator::{accepted::Acceptances, announced::Announcements, orders::Orders},
    order::Order,
    peers::PeerGroups,
    shard::Shard,
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

impl Scorer {
    /// Takes note that so many records are missing from what was read: for a while nobody's silence means anything.
    pub fn lose(&mut self, records: u64) {
        self.tally.lost += records;
        self.estate.lose(self.watermark.now());
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
            self.used = self.used.saturating_sub(self.shards.iter_mut().map(|shard| shard.unlearn(&pause)).sum());
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
