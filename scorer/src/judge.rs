//! From bits to levels: evidence, scope, leases.

use std::collections::HashMap;

use qualm_model::{
    detector::Question,
    event::{Event, Filter},
    evidence::EValues,
    identity::Class,
    level::Level,
    time::{Span, Timestamp},
};

use crate::{
    carriers::Odd,
    config::ScorerConfig,
    estate::{Broken, Weight},
    grounds::{Of, Step, Weighed},
    mesh::{Delta, Mesh, SourceKey},
    operator::orders::Order,
    papers::Invariant,
    scorer::{Case, Scorer},
    scoring::context,
    shard::{Source, shard_of},
    standing::{Cause as OddIn, Evidence, Kind, News, Reached, Reading, Standing, reached},
    standings::{Historic, Standings},
    table::TrustEntry,
    verdict::{Cause, Verdict},
};

/// An event with fewer bits says nothing about which instance is odd.
const TELLING_BITS: f64 = 1.0;
/// Beyond, one event would outweigh all others by rounding.
const MOST_TELLING_BITS: f64 = 60.0;

fn is_historic(config: &ScorerConfig, now: Timestamp, wall: Timestamp) -> bool {
    wall - now > config.enforce.max_age.0
}

/// Whether reaching a level changes where the source of a case stands.
#[inline]
pub(crate) fn is_news(
    standings: &Standings,
    config: &ScorerConfig,
    case: &Case<'_>,
    reached: Reached,
    wall: Timestamp,
) -> bool {
    let (key, now) = ((case.ids.shard, case.ids.source), case.seen.exposure.now);
    standings.is_news(&key, reached.level, || is_historic(config, now, wall))
}

/// Whether what is odd may be so by chance. The curve measures how often chance leads how far; a credential that does not
/// add up for certain is no chance, and would only buy the next attacker room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chance {
    Possible,
    None,
}

impl Chance {
    /// Whether an event that shows this of its credential may be odd by chance.
    #[inline]
    pub(crate) fn of(broken: Option<&Broken>) -> Self {
        if broken.is_some_and(|broken| broken.weight == Weight::Firm) { Self::None } else { Self::Possible }
    }
}

impl Source {
    /// How far an identity of its class may be downgraded: only workloads and credentials carry trust.
    #[inline]
    pub(crate) fn class_may_reach(&self) -> Level {
        if Class::of(&self.principal).carries_trust() { Level::Quarantined } else { Level::Trusted }
    }

    /// Notes which instance, by its address, the odd events of this episode come from.
    #[inline]
    pub(crate) fn attribute(&mut self, address: u32, now: Timestamp, bits: f64) {
        if bits <= TELLING_BITS {
            return;
        }
        let episode = self.evidence.episode_since();
        if self.episode != episode {
            self.episode = episode;
            self.instances.iter_mut().for_each(|instance| instance.odds = 0.0);
            if let Some(carriers) = &mut self.carriers {
                carriers.clear();
            }
        }
        let (place, _) = self.instance(address, now);
        self.instances[place].odds += libm::exp2(bits.min(MOST_TELLING_BITS));
    }

    /// Adds an event's bits to the evidence against the source. Returns the level that it reaches, where that has moved.
    #[inline]
    pub(crate) fn weigh(
        &mut self,
        delta: &mut Delta,
        (mesh, standings): (&Mesh, &Standings),
        case: &Case<'_>,
        (bits, leading, kind): (f64, Option<Question>, Kind),
        (most, reach): (Level, Level),
    ) -> Option<Reached> {
        let now = case.seen.exposure.now;
        let key = (case.ids.shard, case.ids.source);
        let question = leading.map_or(u8::MAX, |question| question as u8);
        let cause = OddIn { question, destination: case.ids.destination };
        let level = || standings.level(&key);
        let chance = Chance::of(case.broken.as_ref());
        let reading = self.add_evidence(delta, (mesh, &level), now, (bits, cause, kind), (most, reach, chance));
        self.attribute(case.ids.address, now, bits);
        if bits > TELLING_BITS {
            let odd = Odd {
                position: case.event.position(),
                at: now,
                bits,
                question: leading,
                destination: case.ids.destination,
            };
            self.carriers.get_or_insert_default().note(&odd);
        }
        let reading = reading?;
        if bits > TELLING_BITS {
            delta.context(key, now.window(Span::MINUTE), bits);
        }
        let only_more = most >= Level::Quarantined && !self.other.is_main(self.evidence.slow_before(now), reading.slow);
        reached(mesh.thresholds(), reading, if only_more { Level::Restricted } else { most }, 1.0)
    }

    /// Adds bits to the evidence, which may lead to `most` now and, for all that is known of where it comes from, as far as
    /// `reach` in time.
    #[inline]
    pub(crate) fn add_evidence(
        &mut self,
        delta: &mut Delta,
        (mesh, level): (&Mesh, &impl Fn() -> Level),
        now: Timestamp,
        (bits, cause, kind): (f64, OddIn, Kind),
        (most, reach, chance): (Level, Level, Chance),
    ) -> Option<Reading> {
        let claimed_only = most <= Level::Watched;
        let evidence: &mut Evidence = match (claimed_only, &mut self.claimed) {
            (false, _) => &mut self.evidence,
            (true, claimed) => claimed.get_or_insert_default(),
        };
        let other = &mut self.other;
        let (reading, news) = evidence.add(mesh, now, bits, cause, &mut |ended| {
            delta.minute(ended.best, level());
            if !claimed_only {
                other.end_minute(ended);
            }
        })?;
        if !claimed_only {
            other.lead(kind);
        }
        if news == News::Moved {
            evidence.follow(now, reading, &mut |pace, climb| {
                if chance == Chance::Possible {
                    delta.climb(pace, climb, reach);
                }
            });
            *evidence.shown_bits() = mesh.most_shown_bits(reading.fast, reading.slow);
        }
        self.shown_bits = *evidence.shown_bits();
        Some(reading)
    }
}

impl Scorer {
    /// Decides on an event that reached a level, before it is learned.
    pub(crate) fn decide(
        &mut self,
        case: &Case<'_>,
        values: &EValues,
        (reached, most): (Reached, Level),
        wall: Timestamp,
    ) -> Option<Verdict> {
        let (key, now) = ((case.ids.shard, case.ids.source), case.seen.exposure.now);
        if self.is_held_back(key, reached.level, now, wall) || self.is_unlisted(key, reached.level, now) {
            return None;
        }
        let raw = values.bits();
        let habit = &self.shards[usize::from(key.0)].sources.get(&key.1)?.baseline.habit;
        let weighed = Weighed {
            of: Of::Event,
            answers: values.answers().collect(),
            habit: habit.kept(now, raw),
            context: context(&self.mesh, case, raw),
            most,
            has_moved: true,
            invariant: Invariant::of(case.broken.as_ref(), most),
            reasons: self.reasons(case, values),
        };
        self.enter(key, (now, wall), reached, weighed)
    }

    /// The highest level that this event may lead to, by where it comes from.
    #[inline]
    pub(crate) fn most(&self, event: Event<'_>) -> Level {
        let by_source = self.most_of_input(event);
        if event.source().provenance().may_enforce() { by_source } else { by_source.min(Level::Watched) }
    }

    /// The highest level that records of this event's input may lead to.
    #[inline]
    pub(crate) fn most_of_input(&self, event: Event<'_>) -> Level {
        let by_source = self.max_levels.get(usize::from(event.position().source)).copied();
        by_source.unwrap_or(Level::Quarantined).min(Level::Quarantined)
    }

    /// What is left out of the input that this event comes from: what its operator says, or else what it looks like.
    #[inline]
    pub(crate) fn filter(&self, event: Event<'_>) -> Filter {
        match self.filters.get(usize::from(event.position().source)) {
            Some(&said) if said != Filter::None => said,
            _ => self.estate.filter(event.position()),
        }
    }

    /// Whether an entry is not made for want of a place in the table. Whoever has been there for longer, and whoever
    /// reaches more than *watched*, always has a place.
    pub(crate) fn is_unlisted(&mut self, key: SourceKey, level: Level, now: Timestamp) -> bool {
        let is_newcomer = || {
            let source = self.shards[usize::from(key.0)].sources.get(&key.1);
            source.is_some_and(|source| now - source.first <= Span::HOUR)
        };
        let unlisted =
            level <= Level::Watched && self.is_table_full() && self.standings.get(&key).is_none() && is_newcomer();
        self.tally.unlisted += u64::from(unlisted);
        unlisted
    }

    pub(crate) fn is_historic(&self, now: Timestamp, wall: Timestamp) -> bool {
        is_historic(&self.config, now, wall)
    }

    /// Enters a level: what follows from the grounds.
    pub(crate) fn enter(
        &mut self,
        key: SourceKey,
        (now, wall): (Timestamp, Timestamp),
        reached: Reached,
        weighed: Weighed,
    ) -> Option<Verdict> {
        let standing = self.standings.get(&key).cloned();
        let mut grounds = self.grounds(key, (now, wall), standing, Step::Reached(Box::new(weighed)));
        grounds.settle(reached);
        self.look_up(&mut grounds)?;
        let source = self.shards[usize::from(key.0)].sources.get_mut(&key.1)?;
        if reached.level >= Level::Restricted {
            source.baseline.habit.spoil();
        }
        let ordinal = source.next_ordinal(grounds.episode());
        grounds.ordinal = ordinal;
        let mut verdict = grounds.decide()?;
        self.tell_more(key, now, &mut verdict);
        let standing = Standing::after(&verdict, ordinal)?;
        self.standings.insert(key, standing);
        self.note_held(key, verdict.held_by);
        Some(verdict)
    }

    /// Adds what only people read: which records carried it, to which incident it belongs where the episode begins, and what
    /// was announced meanwhile. History is told to nobody.
    fn tell_more(&mut self, key: SourceKey, now: Timestamp, verdict: &mut Verdict) {
        let shard = &self.shards[usize::from(key.0)];
        let Some(source) = shard.sources.get(&key.1) else { return };
        verdict.carried_by = source.carriers.as_ref().map(|of| of.told(&shard.names, &self.inputs)).unwrap_or_default();
        verdict.announced = self.announced.of(source, now).cloned();
        if verdict.level.limits() && !verdict.historic {
            verdict.dependants = Some(self.dependants(&verdict.subject, now));
        }
        let begins = verdict.previous == Level::Trusted && !verdict.historic;
        verdict.incident = begins.then(|| self.incidents.join(&verdict.subject, now, &verdict.reasons));
    }

    pub(crate) fn live_instances(&self, shard: u8, source: &Source, now: Timestamp) -> Vec<String> {
        let live = source.live(now);
        let names = &self.shards[usize::from(shard)].names;
        let mut instances: Vec<String> = (0..source.instances.len())
            .filter(|place| live & (1 << place) != 0)
            .map(|place| names.text(source.instances[place].address).to_owned())
            .collect();
        instances.sort_unstable();
        instances
    }

    /// How many identities may be denied at once.
    pub(crate) fn most_denied(&self, now: Timestamp) -> usize {
        ((self.vouched_for(now) as f64 * self.config.enforce.max_share) as usize).max(1)
    }

    /// Identities of the last day that a certificate or the operator vouches for: those that can be denied. Names and
    /// addresses that anybody may put into a log do not make room for more denials.
    fn vouched_for(&self, now: Timestamp) -> usize {
        let sources = self.shards.iter().flat_map(|shard| shard.sources.values());
        sources.filter(|source| source.vouched.is_some_and(|last| now - last <= Span::DAY)).count()
    }

    /// Ends or renews leases that have run out by `wall`.
    pub fn tick(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        for key in self.standings.ended(wall, Historic::No) {
            verdicts.extend(self.end_lease(key, wall));
        }
        self.end_orders(wall, verdicts);
        self.hold_many(wall, verdicts);
        self.weigh_held(wall, verdicts);
    }

    /// Ends in event time what was decided on history.
    pub(crate) fn end_history(&mut self, watermark: Timestamp, verdicts: &mut Vec<Verdict>) {
        for key in self.standings.ended(watermark, Historic::Yes) {
            verdicts.extend(self.end_lease(key, watermark));
        }
    }

    fn end_lease(&mut self, key: SourceKey, wall: Timestamp) -> Option<Verdict> {
        let standing = self.standings.remove(&key)?;
        let now = self.watermark.now().unwrap_or(standing.episode);
        // Whoever was folded away, or is known from the journal only, has no evidence: the lease was all there was.
        // Without telemetry nothing speaks for a renewal either: the identity is unobserved, and its lease ends.
        let mut grounds = self.grounds(key, (now, wall), Some(standing.clone()), Step::LeaseEnded);
        let level = self.look_up(&mut grounds).unwrap_or_default();
        if level != standing.level && level > Level::Trusted {
            let source = self.shards[usize::from(key.0)].source_to_change(key.1);
            grounds.ordinal = source.map_or(standing.ordinal + 1, |source| source.next_ordinal(standing.episode));
        }
        let ordinal = grounds.ordinal;
        let verdict = grounds.decide()?;
        if verdict.level == Level::Trusted {
            self.incidents.leave(&verdict.identity);
        }
        if let Some(expires) = verdict.expires {
            let (decision, held) = (verdict.decision.clone(), verdict.held.is_some());
            self.standings.insert(key, Standing { level, decision, ordinal, held, expires, ..standing });
        }
        self.note_held(key, verdict.held_by);
        Some(verdict)
    }

    /// Evidence that bears on an entry: claims that may not lead further count for *watched* only.
    pub(crate) fn reading_for(&self, standing: &Standing, source: &Source, now: Timestamp) -> Reading {
        let reading = source.evidence.reading(&self.mesh, now);
        let claimed = source.claimed.as_deref().filter(|_| standing.level == Level::Watched);
        claimed.map_or(reading, |claimed| {
            let claimed = claimed.reading(&self.mesh, now);
            Reading { fast: reading.fast.max(claimed.fast), slow: reading.slow.max(claimed.slow) }
        })
    }

    pub(crate) fn identity_of(&self, key: SourceKey) -> &str {
        self.shards[usize::from(key.0)].names.text(key.1)
    }

    /// Takes over a verdict of the journal that is younger than the snapshot: after a crash the journal, not
    /// re-derivation, is the truth for decisions already made.
    pub fn take_over(&mut self, verdict: &Verdict) {
        if verdict.cause == Cause::Ordered {
            self.orders.take_over(verdict);
            return;
        }
        self.incidents.take_over(verdict);
        let shard = shard_of(&verdict.identity);
        let key = (shard, self.shards[usize::from(shard)].names.id(&verdict.identity));
        let source = self.shards[usize::from(shard)].source_to_change(key.1);
        // A renewal and a return to *trusted* are no decisions with a number of their own.
        let is_decision = verdict.level != verdict.previous && verdict.level > Level::Trusted;
        let ordinal = source.filter(|_| is_decision).map_or(0, |source| source.next_ordinal(verdict.episode));
        match Standing::after(verdict, ordinal).filter(|standing| standing.level > Level::Trusted) {
            Some(standing) => self.standings.insert(key, standing),
            None => self.standings.remove(&key),
        };
        self.note_held(key, verdict.held_by);
    }

    /// When what led to each decision began, event time.
    fn begins(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let standings = self.standings.values().map(|standing| (standing.decision.as_str(), standing.episode));
        standings.chain(self.orders.iter().map(|order| (order.decision.as_str(), order.event)))
    }

    /// Every line of the trust table that stands now, ordered by subject. Where evidence and an operator have a line each
    /// for one subject, the one that acts, and of two the higher, is in the table. While all is paused nothing acts.
    pub fn entries(&self) -> Vec<TrustEntry> {
        let standings = self.standings.iter();
        let mut entries: Vec<_> = standings.filter_map(|(key, standing)| self.entry_of(*key, standing)).collect();
        entries.iter_mut().for_each(|entry| entry.co_owners = self.co_owners(&entry.subject));
        // A person may mean all who share a principal.
        entries.extend(self.orders.iter().map(Order::entry));
        // An episode has an entry of its own for each level, and all of them one begin.
        let begins: HashMap<&str, Timestamp> = self.begins().collect();
        self.tell_known(&mut entries, |entry| begins.get(entry.decision.as_str()).copied().unwrap_or(entry.decided));
        entries.sort_by(|a, b| {
            let by_subject = (&a.subject, &a.object).cmp(&(&b.subject, &b.object));
            by_subject.then_with(|| (b.enforce, b.level, &b.decision).cmp(&(a.enforce, a.level, &a.decision)))
        });
        entries.dedup_by(|next, kept| (&next.subject, &next.object) == (&kept.subject, &kept.object));
        entries.into_iter().map(|entry| self.as_in_force(entry)).collect()
    }
}
