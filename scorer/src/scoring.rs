//! One event judged: every question asked, the answers weighed, a decision where they lead to one, and then what it
//! teaches. What comes too late is judged alone.

use qualm_model::{
    detector::{Deviation, Question},
    event::{Event, Filter},
    evidence::EValues,
    time::Timestamp,
};

use crate::{
    door::Ids,
    estate::{Broken, LATENESS, Share},
    judge::{Chance, is_news},
    mesh::Mesh,
    operator::accepted::Excuse,
    papers::at_once,
    scorer::{Case, Observed, Scorer},
    shard::Source,
    verdict::{Reason, Verdict},
    withheld::ODD,
};

/// Share of neighbours' evidence that lifts a doubtful event.
const CONTEXT_SHARE: f64 = 0.1;

impl Scorer {
    /// Admits, scores, decides, learns.
    pub(crate) fn judge(
        &mut self,
        (event, caller): (Event<'_>, &str),
        (ids, share): (Ids, Share),
        broken: Option<Broken>,
        wall: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) -> Observed {
        let now = event.report();
        let (most, filter, is_late) = (self.most(event), self.filter(event), self.is_late(event));
        let excuse = self.accepted.excuse(&self.shards[usize::from(ids.shard)].names, ids, now);
        let asks = self.peers.asks();
        let mesh = &self.mesh;
        let shard = &mut self.shards[usize::from(ids.shard)];
        let (case, mut place, taken) = shard.admit(mesh, (event, caller), (ids, share), mesh.exposure(now));
        self.used += taken;
        let case = &Case { broken, in_window: case.in_window.filter(|_| asks), ..case };
        if is_late {
            return self.judge_late(case, share, excuse.as_ref(), wall, verdicts);
        }
        let mut values = EValues::default();
        let mut weight = place.answer(mesh, case, &mut values);
        if !case.seen.exposure.is_learned() {
            weight = 0.0;
        }
        strike(filter, place.source, now, &mut values);
        strike_old_news(share, &mut values);
        if !self.left_aside.is_empty() {
            values.take_back(self.left_aside);
        }
        if let Some(excuse) = excuse.as_ref().filter(|excuse| excuse.may_hide(&values)) {
            let hidden = excuse.take_off(&mut values, &self.shards[usize::from(ids.shard)].surprises(mesh, case));
            if hidden > 0.0 {
                self.accepted.note(excuse, hidden, now);
                // What is accepted is learned in full; whoever shows what does not add up is not learned from.
                weight = if Chance::of(case.broken.as_ref()) == Chance::None { weight } else { 1.0 };
            }
            let Some(again) = self.shards[usize::from(ids.shard)].place(ids) else { return Observed::NoSource };
            place = again;
        }
        values.hold_meeting();
        let raw = values.bits();
        let bits = forgiven(mesh, place.source, case, raw);
        let leading = values.leading();
        let reach = most.min(place.source.class_may_reach());
        let most = reach.min(place.source.newcomer_may_reach(ids.address, now, &values));
        if !self.announced.is_empty() && place.source.first == now {
            place.source.announced = self.announced.span_of(place.source);
        }
        let most = most.min(place.source.announced_may_reach(now));
        let reached = place.weigh((mesh, &self.standings), case, (bits, leading), (most, reach));
        let reached = at_once(mesh, case.broken.as_ref(), most, reached);
        if bits >= ODD {
            self.note_withheld(case, &values);
            let Some(again) = self.shards[usize::from(ids.shard)].place(ids) else { return Observed::NoSource };
            place = again;
        }
        let Some(reached) = reached.filter(|reached| is_news(&self.standings, &self.config, case, *reached, wall))
        else {
            // As nearly all events: nothing is to be decided.
            place.learn(case, weight, raw);
            return Observed::Scored { bits, identity_bits: place.source.shown_bits, leading };
        };
        verdicts.extend(self.decide(case, &values, (reached, most), wall));
        let Some(mut place) = self.shards[usize::from(ids.shard)].place(ids) else { return Observed::NoSource };
        place.learn(case, weight, raw);
        Observed::Scored { bits, identity_bits: place.source.shown_bits, leading }
    }

    /// Remembers what is too odd to be learned, before it is learned as far as it is.
    fn note_withheld(&mut self, case: &Case<'_>, values: &EValues) {
        let shard = &self.shards[usize::from(case.ids.shard)];
        let of = (shard.names.text(case.ids.source), shard.names.text(case.ids.destination));
        if self.withheld.leaves_out(of.0, values) {
            return;
        }
        let surprises = shard.surprises(&self.mesh, case);
        self.withheld.note(of, (case.event.position(), case.seen.exposure.now), (values, &surprises));
    }

    /// Whether the event is further behind than its source may be. Nodes ship at different paces into one partition, and
    /// what is a little out of order is no less usual for it.
    #[inline]
    pub(crate) fn is_late(&self, event: Event<'_>) -> bool {
        let closed = self.mesh.closed();
        let now = event.report();
        now < closed
            && closed - now > self.latenesses.get(usize::from(event.position().source)).map_or(LATENESS, |&most| most)
    }

    /// Scores and decides on what comes late: it is not learned, and closes nothing.
    fn judge_late(
        &mut self,
        case: &Case<'_>,
        share: Share,
        excuse: Option<&Excuse>,
        wall: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) -> Observed {
        let mut values = EValues::default();
        let mesh = &self.mesh;
        let shard = &self.shards[usize::from(case.ids.shard)];
        shard.ask(mesh, case, &mut |question, deviation| values.set(question, mesh.e(question, deviation.x)));
        shard.blame(case, &mut values);
        self.filter(case.event).silences().iter().for_each(|&question| values.unset(question));
        strike_old_news(share, &mut values);
        values.take_back(self.left_aside);
        if let Some(excuse) = excuse.filter(|excuse| excuse.may_hide(&values)) {
            let hidden = excuse.take_off(&mut values, &shard.surprises(mesh, case));
            if hidden > 0.0 {
                self.accepted.note(excuse, hidden, case.seen.exposure.now);
            }
        }
        values.hold_meeting();
        let bits = forgiven(mesh, &shard.sources[&case.ids.source], case, values.bits());
        let leading = values.leading();
        let may = shard.sources[&case.ids.source].newcomer_may_reach(case.ids.address, case.seen.exposure.now, &values);
        let source = &shard.sources[&case.ids.source];
        let may = may.min(source.announced_may_reach(case.seen.exposure.now));
        let reach = self.most(case.event).min(source.class_may_reach());
        let most = may.min(reach);
        let shard = &mut self.shards[usize::from(case.ids.shard)];
        let Some(mut place) = shard.place(case.ids) else { return Observed::NoSource };
        let reached = place.weigh((&self.mesh, &self.standings), case, (bits, leading), (most, reach));
        let reached = at_once(&self.mesh, case.broken.as_ref(), most, reached);
        let identity_bits = place.source.shown_bits;
        if let Some(reached) = reached.filter(|reached| is_news(&self.standings, &self.config, case, *reached, wall)) {
            verdicts.extend(self.decide(case, &values, (reached, most), wall));
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
                usual: shard.usual(&self.mesh, case.ids, question),
                familiar: self.familiar(case, question),
                destination: destination.to_owned(),
                operation: (!case.event.operation().is_empty()).then(|| case.event.operation().to_owned()),
            })
        };
        let told: Vec<Reason> = values.reasons().into_iter().filter_map(reason).take(8).collect();
        // A surprise is held over the edge of a window, what was counted is not: nobody is told that too few are too many.
        let is_sound = |reason: &Reason| !reason.detector.counts() || reason.observed > reason.expected;
        if told.iter().any(is_sound) { told.into_iter().filter(is_sound).collect() } else { told }
    }
}

/// Takes back the answers to questions that what an input leaves out makes meaningless.
#[inline]
fn strike(filter: Filter, source: &mut Source, now: Timestamp, values: &mut EValues) {
    if filter != Filter::None {
        source.filtered = source.filtered.max(Some(now));
        filter.silences().iter().for_each(|&question| values.unset(question));
    }
}

/// What may be asked of the later records of a call; who calls whom, how often and what for was asked at its first.
const OF_LATER_RECORDS: [Question; 5] =
    [Question::Bigger, Question::Oversized, Question::Longer, Question::Failing, Question::Refused];

/// Takes back the answers that were given at the first record of the same call.
#[inline]
fn strike_old_news(share: Share, values: &mut EValues) {
    if share.calls == 0.0 {
        let others = Question::ALL.iter().filter(|question| !OF_LATER_RECORDS.contains(question));
        others.for_each(|&question| values.unset(question));
    }
}

/// Bits of an event as they count: habit is forgiven, and what the neighbours go through lifts what is doubtful.
#[inline]
fn forgiven(mesh: &Mesh, source: &Source, case: &Case<'_>, raw: f64) -> f64 {
    let now = case.seen.exposure.now;
    lifted(source.baseline.habit.forgive(now, raw), context(mesh, case, raw))
}

/// The evidence of neighbours that bears on an event of so many bits.
#[inline]
pub(crate) fn context(mesh: &Mesh, case: &Case<'_>, raw: f64) -> f64 {
    if raw > -1.0 { mesh.context((case.ids.shard, case.ids.source), case.seen.exposure.now) } else { 0.0 }
}

/// What is left after forgiveness, lifted by the neighbours' evidence.
#[inline]
pub(crate) fn lifted(forgiven: f64, context: f64) -> f64 {
    forgiven + CONTEXT_SHARE * context * (forgiven + 1.0).clamp(0.0, 1.0)
}
