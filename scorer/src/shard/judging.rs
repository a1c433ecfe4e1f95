//! How one shard asks all questions about an event, and learns it.

use qualm_model::{
    baseline::{DestinationBaseline, SiblingRate},
    detector::{Detector, Deviation, Observation, Question},
    evidence::EValues,
    level::Level,
    stats::Exposure,
    time::{Span, Timestamp},
};

use super::{Attribute, Edge, Link, Operation, SETTLED, Shard, Slow, Source, TOUCHED, Users, View};
use crate::{
    door::Ids,
    estate::Weight,
    mesh::{Delta, Mesh},
    scorer::Case,
    standing::{Kind, Reached},
    standings::Standings,
};

impl Shard {
    /// Asks every question about a case; returns how far it is to be learned. What is answered counts as far as
    /// [`Shard::blame`] lets it.
    #[inline]
    pub(crate) fn ask(&self, mesh: &Mesh, case: &Case<'_>, answer: &mut impl FnMut(Question, Deviation)) -> f64 {
        let Ids { source: source_id, destination, .. } = case.ids;
        let source = &self.sources[&source_id];
        let own = Observation { exposure: source.exposure(case.seen.exposure), ..case.seen };
        let weight = source.baseline.score(&own, case.first, &mut |question, deviation| {
            if !(question == Question::RareSource && source.returned) {
                answer(question, deviation);
            }
        });
        let (mut sized, crowd) = (false, source.baseline.crowd());
        if let Some(edge) = self.edges.get(&(source_id, destination)) {
            edge.baseline.score(&Observation { crowd, ..case.edge_seen() }, &mut |question, deviation| {
                sized |= question == Question::Bigger;
                answer(question, deviation);
            });
        }
        let rhythm = self.edges.get(&(source_id, destination)).and_then(|edge| edge.rhythm.as_deref());
        if let Some(deviation) = rhythm.and_then(|rhythm| rhythm.score_one(&case.seen)) {
            answer(Question::Rhythm, deviation);
        }
        if !sized && let Some(deviation) = source.baseline.score_size(&case.seen) {
            answer(Question::Bigger, Observation { crowd, ..case.seen }.amid_crowd(deviation));
        }
        let edge = self.edges.get(&(source_id, destination));
        let is_settled = edge.is_some_and(|edge| case.seen.exposure.now - edge.users.first() > SETTLED);
        let operation = self.operation(case.ids).filter(|_| is_settled);
        if let Some(operation) = operation {
            operation.baseline.score(&operation.seen(case), answer);
        }
        let users = users(edge.map(|edge| &edge.users), operation.map(|operation| &operation.users));
        if let Some(deviation) = users.and_then(|users| users.score_lone(source, case.seen.exposure.now)) {
            answer(Question::LoneReplica, deviation);
        }
        if let Some(deviation) = source.score_meeting(&case.seen) {
            answer(Question::StrangePeer, deviation);
        }
        if let Some(broken) = &case.broken {
            answer(broken.question, broken.deviation);
        }
        let link = self.links.get(&destination);
        let (made, contacts) = link.map_or((0.0, 0.0), |link| (link.made, link.first_contacts));
        let made = made + case.made;
        let contacts = contacts + f64::from(u8::from(case.seen.first_contact));
        let known = link.and_then(|link| link.mesh).and_then(|id| mesh.destination(id));
        let baseline = known.map_or_else(DestinationBaseline::default, |(baseline, _)| *baseline);
        baseline.score(&case.seen, made, contacts, answer);
        weight
    }

    /// Every answer's surprise, as [`ask`](Self::ask) has it.
    pub(crate) fn surprises(&self, mesh: &Mesh, case: &Case<'_>) -> Vec<(Question, f64)> {
        let mut surprises = Vec::new();
        self.ask(mesh, case, &mut |question, deviation| surprises.push((question, deviation.x)));
        surprises
    }

    /// Where what is usual for the answer to a question lies, in the unit of that answer; `None` where it is no quantity.
    pub(crate) fn usual(&self, mesh: &Mesh, ids: Ids, question: Question) -> Option<(f64, f64)> {
        let source = self.sources.get(&ids.source)?;
        let edge = self.edges.get(&(ids.source, ids.destination)).map(|edge| &edge.baseline);
        let known = self.links.get(&ids.destination).and_then(|link| link.mesh).and_then(|id| mesh.destination(id));
        let usual = edge.and_then(|edge| edge.usual(question)).or_else(|| source.baseline.usual(question));
        // Of a destination that the mesh has not heard of nothing is usual.
        let usual = usual.or_else(|| known.map_or_else(DestinationBaseline::default, |(of, _)| *of).usual(question));
        usual.or_else(|| self.operation(ids).and_then(|operation| operation.baseline.usual(question)))
    }

    /// Lets the answers count as far as the edge is to blame.
    pub(crate) fn blame(&self, case: &Case<'_>, values: &mut EValues) {
        if let Some(edge) = self.edges.get(&(case.ids.source, case.ids.destination)) {
            let is_release = self.sources.get(&case.ids.source).is_some_and(|source| source.is_releasing(case));
            edge.blame((case.edge_is_excused, is_release), values);
        }
    }

    /// What is kept of the operation of an event.
    fn operation(&self, ids: Ids) -> Option<&Operation> {
        self.known.get(&operation_key(ids)?)?.operation.as_deref()
    }

    /// All that one event is judged by and teaches, found once.
    #[inline]
    pub(crate) fn place(&mut self, ids: Ids) -> Option<Place<'_>> {
        Some(Place {
            source: self.sources.get_mut(&ids.source)?,
            edge: self.edges.get_mut(&(ids.source, ids.destination)).map(|edge| &mut **edge),
            operation: operation_key(ids)
                .and_then(|key| self.known.get_mut(&key))
                .and_then(|seen| seen.operation.as_deref_mut()),
            link: self.links.entry(ids.destination).or_default(),
            views: &mut self.views,
            delta: &mut self.delta,
            touched: &mut self.touched,
        })
    }
}

/// The attribute that an event's operation is kept as, if it is.
fn operation_key(ids: Ids) -> Option<Attribute> {
    let Ids { source, destination, .. } = ids;
    ids.operation.map(|operation| Attribute::Operation { source, destination, operation })
}

/// Whose users are asked about: those of the edge while it is new, of the operation after that.
#[inline]
fn users<'a>(edge: Option<&'a Users>, operation: Option<&'a Users>) -> Option<&'a Users> {
    edge.filter(|users| users.is_lone()).or(operation)
}

fn learn_users(users: &mut Users, source: &Source, seen: &Observation, delta: &mut Delta) {
    // What only goes on is no call more by the one replica.
    if seen.more == 0.0 {
        return;
    }
    let now = seen.exposure.now;
    let answer = users.score_lone(source, now);
    if let Some(x) = users.learn(answer, now) {
        delta.sample(Question::LoneReplica, x);
    }
}

/// What of a shard one event is about.
pub(crate) struct Place<'a> {
    pub(crate) source: &'a mut Source,
    pub(super) edge: Option<&'a mut Edge>,
    pub(super) operation: Option<&'a mut Operation>,
    pub(super) link: &'a mut Link,
    pub(super) views: &'a mut Vec<View>,
    pub(super) delta: &'a mut Delta,
    pub(super) touched: &'a mut Vec<u32>,
}

impl Place<'_> {
    /// Judges a case that is going to be learned: the answers of [`Shard::ask`] as e-values; returns how far it is to
    /// be learned. Windows that have ended are closed first.
    #[inline]
    pub(crate) fn answer(&mut self, mesh: &Mesh, case: &Case<'_>, values: &mut EValues) -> f64 {
        let (seen, tables) = (&case.seen, mesh.tables());
        let Self { source, edge, operation, link, views, delta, .. } = self;
        let mut minute = SiblingRate::default();
        let own = source.exposure(seen.exposure);
        source.baseline.turn(own, &mut minute, &mut |question, x| delta.sample(question, x));
        if minute.windows > 0.0 {
            let usual = source.baseline.calls_a_minute();
            delta.lap(source.round.add(seen.exposure.now.window(Span::MINUTE), minute.sum, usual));
            if let Some(namespace) = &source.namespace {
                delta.siblings(namespace).merge(&minute);
            }
        }
        let mut weight = source.baseline.judge(seen, case.first, tables, values);
        if let Some(deviation) = source.score_meeting(seen) {
            values.set(Question::StrangePeer, mesh.e(Question::StrangePeer, deviation.x));
        }
        if source.returned {
            values.unset(Question::RareSource);
        }
        let crowd = source.baseline.crowd();
        if let Some(edge) = edge {
            let seen = Observation { crowd, ..case.edge_seen() };
            edge.baseline.turn(seen.exposure, &mut |question, x| delta.sample(question, x));
            edge.baseline.judge(&seen, tables, values);
        }
        let now = seen.exposure.now;
        let users = users(edge.as_ref().map(|edge| &edge.users), operation.as_ref().map(|operation| &operation.users));
        if let Some(deviation) = users.and_then(|users| users.score_lone(source, now)) {
            values.set(Question::LoneReplica, mesh.e(Question::LoneReplica, deviation.x));
        }
        if let Some(operation) = operation {
            operation.exchange(mesh, now, delta);
            let seen = operation.seen(case);
            operation.baseline.turn(seen.exposure, &mut |question, x| delta.sample(question, x));
            operation.baseline.judge(&seen, tables, values);
        }
        if values.answer(Question::Bigger).is_none()
            && let Some(deviation) = source.baseline.score_size(seen)
        {
            let deviation = Observation { crowd, ..*seen }.amid_crowd(deviation);
            values.set(Question::Bigger, mesh.e(Question::Bigger, deviation.x));
        }
        let contacts = link.first_contacts + f64::from(u8::from(seen.first_contact));
        let made = link.made + case.made;
        let called = link.view(views, mesh, case.ids.destination, seen.exposure);
        called.judge(made, contacts, tables, values);
        if let Some(broken) = &case.broken {
            values.set(broken.question, broken.deviation.x);
            // Whoever shows what does not add up is not learned from.
            weight = if broken.weight == Weight::Firm { 0.0 } else { weight };
        }
        if let Some(edge) = edge {
            edge.keep_time(called.volume(), now);
            if let Some(deviation) = edge.rhythm.as_deref().and_then(|rhythm| rhythm.score_one(seen)) {
                values.set(Question::Rhythm, mesh.e(Question::Rhythm, deviation.x));
            }
            edge.blame((case.edge_is_excused, source.is_releasing(case)), values);
        }
        weight
    }

    /// Adds the bits of a case to the evidence against its source; `may` is how far they may lead now, and how far by where
    /// they come from. Returns the level that it reaches, where that has moved.
    #[inline]
    pub(crate) fn weigh(
        &mut self,
        known: (&Mesh, &Standings),
        case: &Case<'_>,
        told: (f64, Option<Question>),
        may: (Level, Level),
    ) -> Option<Reached> {
        let kind = self.kind(told.1, case.seen.exposure.now);
        self.source.weigh(self.delta, known, case, (told.0, told.1, kind), may)
    }

    /// What kind of oddness an event shows whose strongest answer is to `leading`.
    fn kind(&self, leading: Option<Question>, now: Timestamp) -> Kind {
        let is_known = self.edge.as_ref().is_none_or(|edge| edge.is_known(now))
            && self.operation.as_ref().is_none_or(|operation| operation.is_known(now));
        if is_known { Kind::of_known(leading) } else { Kind::Another }
    }

    /// Learns a case that was [answered](Self::answer), whose windows are closed; `raw` are its bits before habit.
    #[inline]
    pub(crate) fn learn(&mut self, case: &Case<'_>, weight: f64, raw: f64) {
        if !case.seen.exposure.is_learned() {
            return self.count(case);
        }
        let Self { source, edge, operation, link, touched, delta, .. } = self;
        if let Some(first) = case.in_window {
            source.unlike.get_or_insert_default().count(&case.seen, first.peer, first.operation);
        }
        let seen = Observation { weight, ..case.seen };
        source.baseline.habit.learn(seen.exposure.now, raw);
        source.baseline.learn(&seen, case.first, &mut |question, x| delta.sample(question, x));
        if let Some(x) = source.slow.learn(&seen, case.rest) {
            delta.sample(Question::StrangePeer, x);
        }
        if let Some(edge) = edge {
            let seen = Observation { weight, crowd: source.baseline.crowd(), ..case.edge_seen() };
            edge.baseline.learn(&seen, &mut |question, x| source.baseline.remark(question, x));
            edge.hours.note(seen.exposure.now, seen.more);
            learn_users(&mut edge.users, source, &seen, delta);
            if let Some(x) = edge.rhythm.as_deref_mut().and_then(|rhythm| rhythm.learn_one(&seen)) {
                delta.sample(Question::Rhythm, x);
            }
        }
        if let Some(operation) = operation {
            learn_users(&mut operation.users, source, &seen, delta);
            operation.learn(&seen);
        }
        link.receive(case, weight, touched);
    }

    /// Counts a case of which nothing is to be learned.
    fn count(&mut self, case: &Case<'_>) {
        let seen = Observation { weight: 0.0, ..case.seen };
        self.source.baseline.count(&seen);
        if let Some(edge) = &mut self.edge {
            let seen = Observation { weight: 0.0, ..case.edge_seen() };
            edge.baseline.count(&seen);
            edge.hours.note(seen.exposure.now, seen.more);
        }
        if let Some(operation) = &mut self.operation {
            operation.baseline.learn(&seen);
        }
        self.link.receive(case, 0.0, self.touched);
    }
}

impl Link {
    /// Notes a call, of which `weight` is trusted, for the summary to come.
    #[inline]
    fn receive(&mut self, case: &Case<'_>, weight: f64, touched: &mut Vec<u32>) {
        if !self.is_touched() && case.received > 0.0 {
            if touched.len() == TOUCHED {
                return;
            }
            touched.push(case.ids.destination);
        }
        self.calls += case.received;
        self.made += case.made;
        self.weight += weight * case.received;
        self.first_contacts += f64::from(u8::from(case.seen.first_contact));
        // What only goes on is no call of its own, and the summary need not hear of it.
        self.reported |= case.seen.more > 0.0 && case.event.reporter().is_of_destination();
    }
}

impl Source {
    /// What it means that it meets somebody new; `None` where it does not.
    #[inline]
    fn score_meeting(&self, seen: &Observation) -> Option<Deviation> {
        if !seen.first_contact {
            return None;
        }
        // How many calls tell of it is nothing to the point.
        self.slow.meetings.score_one(&Observation { novel: Some(true), more: 1.0, ..*seen })
    }
}

impl Slow {
    /// Learns a call after `rest`. Returns the sample of a minute that has ended: whether it met somebody new.
    #[inline]
    fn learn(&mut self, seen: &Observation, rest: Span) -> Option<f64> {
        self.lull.learn(seen.exposure.now, rest);
        self.meetings.learn_one(&Observation { novel: Some(seen.first_contact), more: 1.0, ..*seen })
    }
}

impl Link {
    /// The destination as it stands now.
    #[inline]
    fn view<'a>(
        &mut self,
        views: &'a mut Vec<View>,
        mesh: &Mesh,
        id: u32,
        exposure: Exposure,
    ) -> &'a mut DestinationBaseline {
        let of = (id, mesh.closed(), exposure.now.window(Span::MINUTE));
        if views.get(self.view).is_none_or(|view| view.of != of) {
            let known = self.mesh.and_then(|id| mesh.destination(id));
            let view =
                View { of, baseline: known.map_or_else(DestinationBaseline::default, |(baseline, _)| *baseline) };
            // So many destinations at once that there is no place for one more take turns at the last.
            let is_own = views.get(self.view).is_some_and(|before| before.of.0 == id);
            if !is_own && views.len() < TOUCHED {
                self.view = views.len();
                views.push(view);
            } else {
                self.view = if is_own { self.view } else { TOUCHED - 1 };
                views[self.view] = view;
            }
            views[self.view].baseline.turn(exposure);
        }
        &mut views[self.view].baseline
    }
}
