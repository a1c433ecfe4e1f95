//! What did not happen: who should have called and did not, and which calls only one of two proxies told of.

use std::collections::BTreeSet;

use qualm_model::{
    detector::{Deviation, Question},
    event::{Event, Reporter},
    evidence::EValues,
    level::Level,
    time::{Span, Timestamp},
};

use crate::{
    estate::Broken,
    grounds::{Of, Weighed},
    judge::Chance,
    mesh::SourceKey,
    papers::{Invariant, at_once},
    scorer::Scorer,
    shard::{Source, shard_of},
    standing::{Cause as OddIn, Kind, reached},
    verdict::{Reason, Verdict},
    workloads,
};

/// Where more than this share of those who should have called were silent, the telemetry is what is missing.
const SHARED: f64 = 0.2;

/// Something that did not happen, or that is seen only when a window has ended.
pub(crate) struct Absence<'a> {
    question: Question,
    deviation: Deviation,
    /// Address of the caller that it is about.
    from: Option<&'a str>,
    /// The destination.
    to: Option<&'a str>,
    /// The highest level that it may lead to.
    most: Level,
    /// That a credential does not add up.
    broken: Option<Broken>,
}

impl Absence<'_> {
    /// Of the identity as a whole.
    pub(crate) fn of(question: Question, deviation: Deviation, most: Level) -> Self {
        Self { question, deviation, from: None, to: None, most, broken: None }
    }
}

impl Source {
    /// Whether it is silent for longer than it ever was.
    fn score_lull(&self, now: Timestamp) -> Option<Deviation> {
        let is_timely = self.baseline.is_timely();
        self.slow.lull.score(now, now - self.last, self.baseline.volume()).filter(|_| is_timely)
    }
}

impl Scorer {
    /// Asks, when ten minutes have ended, who should have called and did not, and who has never been silent for so long.
    pub(crate) fn look_for_silence(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let length = Span(10 * Span::MINUTE.0);
        let end = Timestamp((self.mesh.closed().window(length) + 1) * length.0 - 1);
        if self.estate.is_blind(end) {
            return;
        }
        let exposure = self.mesh.exposure(end).calm();
        let silent = self.asked(end, |source| source.baseline.score_silence(source.exposure(exposure)));
        self.weigh_unless_shared((Question::Silence, silent), |of| of.observed == 0.0, (end, wall), verdicts);
        let resting = self.asked(end, |source| source.score_lull(end));
        self.weigh_unless_shared((Question::Lull, resting), |of| of.x > 1.0, (end, wall), verdicts);
    }

    /// What is answered of everybody whose silence is their own doing.
    fn asked(&self, end: Timestamp, answer: impl Fn(&Source) -> Option<Deviation>) -> Vec<(SourceKey, Deviation)> {
        let mut asked = Vec::new();
        let ordered: BTreeSet<String> = self
            .orders
            .iter()
            .filter(|order| order.level >= Level::Throttled)
            .map(|order| order.subject.identity())
            .collect();
        for (shard, sources) in self.shards.iter().enumerate().map(|(shard, s)| (shard as u8, &s.sources)) {
            for (&id, source) in sources {
                let Some(deviation) = answer(source) else { continue };
                if self.may_be_heard_as_another((shard, id), end) {
                    continue;
                }
                let is_seen_in_part = source.filtered.is_some_and(|last| end - last <= Span::DAY);
                if is_seen_in_part || source.class_may_reach() == Level::Trusted {
                    continue;
                }
                // Whoever is held is silent because of us.
                let is_free = self.standings.get(&(shard, id)).is_none_or(|of| of.level < Level::Throttled);
                if is_free && !ordered.contains(self.identity_of((shard, id))) {
                    asked.push(((shard, id), deviation));
                }
            }
        }
        asked
    }

    /// Weighs what is odd, unless it is of so many that it is not their doing.
    fn weigh_unless_shared(
        &mut self,
        (question, asked): (Question, Vec<(SourceKey, Deviation)>),
        is_odd: impl Fn(&Deviation) -> bool,
        (end, wall): (Timestamp, Timestamp),
        verdicts: &mut Vec<Verdict>,
    ) {
        let odd = asked.iter().filter(|(_, deviation)| is_odd(deviation)).count();
        if odd as f64 > SHARED * asked.len() as f64 {
            return;
        }
        let (mut odd, usual): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, deviation)| deviation.x > 1.0);
        // What is weighed is sampled there.
        for (key, deviation) in usual {
            self.shards[usize::from(key.0)].delta.sample(question, deviation.x);
        }
        // By name, since the order of a map is nobody's business.
        odd.sort_by(|a, b| self.identity_of(a.0).cmp(self.identity_of(b.0)));
        for (key, deviation) in odd {
            let absence = Absence::of(question, deviation, Level::Watched);
            self.weigh_absence(key, &absence, end, wall, verdicts);
        }
    }

    /// Takes note that somebody calls whom an enforcement point denied: whoever is held is not silent.
    pub(crate) fn hear_denied(&mut self, event: Event<'_>) {
        let party = event.source();
        let cluster = Some(party.cluster()).filter(|cluster| !cluster.is_empty());
        let name = workloads::name(party.principal(), cluster, None);
        let shard = &mut self.shards[usize::from(shard_of(&name))];
        if let Some(source) = shard.names.known(&name).and_then(|id| shard.source_to_change(id)) {
            source.last = source.last.max(event.report());
        }
    }

    /// Whether calls of the source may be taken for another's: those that come from addresses of which it is not known
    /// whose they are belong to the principal that several workloads share, and may be any one's.
    fn may_be_heard_as_another(&self, key: SourceKey, end: Timestamp) -> bool {
        let shard = &self.shards[usize::from(key.0)];
        let Some(source) = shard.sources.get(&key.1) else { return false };
        if source.workload.is_none() {
            return self.workloads.is_shared(&source.principal, source.cluster.as_deref());
        }
        let whole = workloads::name(&source.principal, source.cluster.as_deref(), None);
        let whole = shard.names.known(&whole).and_then(|id| shard.sources.get(&id));
        whole.is_some_and(|whole| end - whole.last <= Span(10 * Span::MINUTE.0))
    }

    /// Looks at calls of which only one of the two proxies has told in time.
    pub(crate) fn look_at_disagreements(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let Some(now) = self.watermark.now() else { return };
        for (call, deviation) in self.estate.disagreements(now) {
            let shard = shard_of(&call.source);
            let part = self.workloads.part_at(&call.source, &call.places[0], now, &self.tenancies);
            let name = workloads::name(&call.source, None, part.as_deref());
            let id = self.shards[usize::from(shard)].names.id(&name);
            // The called's proxy has verified who calls; a caller's proxy says so itself.
            let most = if call.by == Reporter::Destination { Level::Restricted } else { Level::Watched };
            let absence = Absence {
                question: Question::Unwitnessed,
                deviation,
                from: Some(&call.places[0]).filter(|address| !address.is_empty()).map(|address| &**address),
                to: Some(&call.destination),
                most,
                broken: None,
            };
            self.weigh_absence((shard, id), &absence, now, wall, verdicts);
        }
    }

    /// Looks at uses of credentials that were found to be nobody's issue.
    pub(crate) fn look_at_unissued(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        for unissued in self.estate.unissued() {
            let shard = shard_of(&unissued.identity);
            let id = self.shards[usize::from(shard)].names.id(&unissued.identity);
            let absence = Absence {
                question: unissued.broken.question,
                deviation: unissued.broken.deviation,
                from: Some(&*unissued.from).filter(|address| !address.is_empty()),
                to: Some(&unissued.to),
                most: unissued.most,
                broken: Some(unissued.broken),
            };
            // It weighs now that it is known, and is about then.
            let now = self.watermark.now().unwrap_or(unissued.at).max(unissued.at);
            self.weigh_absence((shard, id), &absence, now, wall, verdicts);
        }
    }

    pub(crate) fn weigh_absence(
        &mut self,
        key: SourceKey,
        absence: &Absence<'_>,
        at: Timestamp,
        wall: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) {
        let Absence { question, deviation, most, .. } = *absence;
        let mut values = EValues::default();
        values.set(question, self.mesh.e(question, deviation.x));
        values.take_back(self.left_aside);
        let shard = &mut self.shards[usize::from(key.0)];
        if !question.is_invariant() {
            shard.delta.sample(question, deviation.x);
        }
        let bits = values.bits_of_absence();
        if bits <= 0.0 {
            return;
        }
        let cause = OddIn { question: question as u8, destination: u32::MAX };
        let level = || self.standings.level(&key);
        let from = absence.from.map(|address| shard.names.id(address));
        let Some(source) = shard.sources.get_mut(&key.1) else { return };
        let reach = most.min(source.class_may_reach());
        shard.changed.touch_source(key.1, source);
        let told = source.add_evidence(
            &mut shard.delta,
            (&self.mesh, &level),
            at,
            (bits, cause, Kind::Another),
            (most, reach, Chance::of(absence.broken.as_ref())),
        );
        if let Some(address) = from {
            source.attribute(address, at, bits);
        }
        let most = most.min(source.class_may_reach());
        let by_evidence = told.and_then(|reading| reached(self.mesh.thresholds(), reading, most, 1.0));
        let Some(reached) = at_once(&self.mesh, absence.broken.as_ref(), most, by_evidence) else { return };
        if !self.standings.is_news(&key, reached.level, || self.is_historic(at, wall))
            || self.is_held_back(key, reached.level, at, wall)
            || self.is_unlisted(key, reached.level, at)
        {
            return;
        }
        let usual = self.shards[usize::from(key.0)].sources.get(&key.1).and_then(|of| of.baseline.usual(question));
        let reason = Reason {
            detector: question,
            bits,
            observed: deviation.observed,
            expected: deviation.expected,
            n: deviation.n,
            usual: usual.filter(|_| question == Question::Silence),
            familiar: None,
            destination: absence.to.unwrap_or_default().to_owned(),
            operation: None,
        };
        let weighed = Weighed {
            of: Of::Absence,
            answers: values.answers().collect(),
            habit: 0.0,
            context: 0.0,
            most,
            has_moved: true,
            invariant: Invariant::of(absence.broken.as_ref(), most),
            reasons: vec![reason],
        };
        verdicts.extend(self.enter(key, (at, wall), reached, weighed));
    }
}
