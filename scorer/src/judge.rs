//! From bits to levels: evidence, scope, leases.

use std::net::IpAddr;

use qualm_model::{
    detector::Question,
    event::{Event, Filter},
    evidence::{EValues, Pace},
    identity::Class,
    level::Level,
    time::{Span, Timestamp},
};

use crate::{
    carriers::Odd,
    config::{Mode, ScorerConfig},
    mesh::{Delta, Mesh, SourceKey},
    operator::orders::Order,
    scorer::{Case, Scorer},
    shard::{Source, shard_of},
    standing::{Cause as OddIn, Evidence, News, Reached, Reading, Standing, reached},
    standings::{Historic, Standings},
    table::{Object, Subject, TrustEntry},
    verdict::{Cause, Reason, Verdict, decision_id},
};

/// An event with fewer bits says nothing about which instance is odd.
const TELLING_BITS: f64 = 1.0;
/// Beyond, one event would outweigh all others by rounding.
const MOST_TELLING_BITS: f64 = 60.0;
/// Share of the evidence that one instance must have for the entry to be about it alone.
pub(crate) const NARROW_SHARE: f64 = 0.8;

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
        (bits, leading): (f64, Option<Question>),
        most: Level,
    ) -> Option<Reached> {
        let now = case.seen.exposure.now;
        let key = (case.ids.shard, case.ids.source);
        let question = leading.map_or(u8::MAX, |question| question as u8);
        let cause = OddIn { question, destination: case.ids.destination };
        let level = || standings.level(&key);
        let reading = self.add_evidence(delta, (mesh, &level), now, (bits, cause), most);
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
        let only_more = most >= Level::Quarantined && !self.evidence.shows_another_kind();
        reached(mesh, reading, if only_more { Level::Restricted } else { most }, 1.0)
    }

    #[inline]
    pub(crate) fn add_evidence(
        &mut self,
        delta: &mut Delta,
        (mesh, level): (&Mesh, &impl Fn() -> Level),
        now: Timestamp,
        (bits, cause): (f64, OddIn),
        most: Level,
    ) -> Option<Reading> {
        let claimed_only = most <= Level::Watched;
        let evidence: &mut Evidence = match (claimed_only, &mut self.claimed) {
            (false, _) => &mut self.evidence,
            (true, claimed) => claimed.get_or_insert_default(),
        };
        let (reading, news) = evidence.add(mesh, now, bits, cause, &mut |best| delta.minute(best, level()))?;
        if news == News::Moved {
            evidence.follow(now, reading, &mut |pace, climb| delta.climb(pace, climb));
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
        reached: Reached,
        wall: Timestamp,
    ) -> Option<Verdict> {
        let (key, now) = ((case.ids.shard, case.ids.source), case.seen.exposure.now);
        if self.is_held_back(key, reached.level, now, wall) || self.is_unlisted(key, reached.level, now) {
            return None;
        }
        let reasons = self.reasons(case, values);
        self.enter(key, now, wall, reached, reasons)
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

    /// Enters a level.
    pub(crate) fn enter(
        &mut self,
        key: SourceKey,
        now: Timestamp,
        wall: Timestamp,
        reached: Reached,
        reasons: Vec<Reason>,
    ) -> Option<Verdict> {
        let standing = self.standings.get(&key);
        let historic = self.is_historic(now, wall);
        // For today's enforcement points history is no level.
        let previous = standing.filter(|standing| standing.historic == historic);
        let previous = previous.map_or(Level::Trusted, |standing| standing.level);
        let source = self.shards[usize::from(key.0)].sources.get_mut(&key.1)?;
        if reached.level >= Level::Restricted {
            source.baseline.habit.spoil();
        }
        // Every step of one episode bears its begin, so that they are one alert.
        let begun = || source.evidence.episode_since().unwrap_or(now);
        let episode = standing.map_or_else(begun, |standing| standing.episode);
        let ordinal = source.next_ordinal(episode);
        let source = self.shards[usize::from(key.0)].sources.get(&key.1)?;
        let subject = self.subject(key.0, source, now);
        let is_enforceable = self.is_enforceable(&subject);
        let held = self.held(source, reached.level, now).filter(|_| is_enforceable);
        let decision = decision_id(&subject, reached.level, episode, ordinal);
        let lease = self.config.lease.of(reached.level);
        let names = &self.shards[usize::from(key.0)].names;
        // Said where the episode begins. History is told to nobody.
        let begins = previous == Level::Trusted && !historic;
        let incident = begins.then(|| self.incidents.join(&subject, now, &reasons));
        let verdict = Verdict {
            time: now,
            decided: wall,
            identity: subject.identity(),
            namespace: source.namespace.as_deref().map(str::to_owned),
            object: Object::Any,
            level: reached.level,
            previous,
            cause: Cause::Evidence,
            pace: Some(reached.pace),
            evidence_bits: self.mesh.shown_bits(reached.pace, reached.m),
            threshold_bits: self.mesh.shown_bits(reached.pace, reached.threshold),
            per_day: self.mesh.per_day(reached.pace, reached.m),
            m: reached.m,
            threshold: reached.threshold,
            lease: Some(lease),
            // What is decided on history has no lease: it stands in event time until then, for calibration only.
            expires: Some(if historic { now + lease } else { wall + lease }),
            decision,
            episode,
            historic,
            enforce: self.config.enforce.mode == Mode::Enforce && held.is_none() && is_enforceable,
            held,
            instances: self.live_instances(key.0, source, now),
            co_owners: self.co_owners(&subject),
            reasons,
            carried_by: source.carriers.as_ref().map(|of| of.told(names, &self.inputs)).unwrap_or_default(),
            incident,
            announced: self.announced.of(source, now).cloned(),
            order: None,
            paused: self.orders.is_paused(),
            subject,
        };
        let standing = Standing::after(&verdict, ordinal)?;
        self.standings.insert(key, standing);
        Some(verdict)
    }

    /// Whom an entry is about: one instance where nearly all of the evidence comes from it and others are live, of the
    /// same identity or of those who share the principal.
    fn subject(&self, shard: u8, source: &Source, now: Timestamp) -> Subject {
        let live = source.live(now).count_ones();
        let total: f64 = source.instances.iter().map(|instance| instance.odds).sum();
        let odd = source.instances.iter().find(|instance| instance.odds >= NARROW_SHARE * total && total > 0.0);
        let address = |id| self.shards[usize::from(shard)].names.text(id).to_owned();
        let is_shared = self.workloads.is_shared(&source.principal, source.cluster.as_deref());
        let has_others = live >= 2 || is_shared;
        // Where no address is known, a name stands in its place, by which nobody can be told from those who share it.
        let is_place = |place: &str| !is_shared || place.parse::<IpAddr>().is_ok();
        Subject {
            principal: source.principal.to_string(),
            cluster: source.cluster.as_deref().map(str::to_owned),
            workload: source.workload.as_deref().map(str::to_owned),
            instance: odd.filter(|_| has_others).map(|odd| address(odd.address)).filter(|place| is_place(place)),
        }
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

    /// Why an entry is to be a shadow although the mode says enforce.
    pub(crate) fn held(&self, source: &Source, level: Level, now: Timestamp) -> Option<String> {
        if level < Level::Quarantined || self.config.enforce.mode == Mode::Shadow {
            return None;
        }
        if self.config.enforce.protects(&source.principal) {
            return Some("protected by the operator".to_owned());
        }
        let (denied, most) = (self.denied().len(), self.most_denied(now));
        (denied >= most).then(|| format!("blast radius: {denied} of at most {most} identities are denied already"))
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
    }

    /// Ends in event time what was decided on history.
    pub(crate) fn end_history(&mut self, watermark: Timestamp, verdicts: &mut Vec<Verdict>) {
        for key in self.standings.ended(watermark, Historic::Yes) {
            verdicts.extend(self.end_lease(key, watermark));
        }
    }

    fn end_lease(&mut self, key: SourceKey, wall: Timestamp) -> Option<Verdict> {
        let mut standing = self.standings.remove(&key)?;
        let now = self.watermark.now().unwrap_or(standing.episode);
        // Whoever was folded away, or is known from the journal only, has no evidence: the lease was all there was.
        let source = self.shards[usize::from(key.0)].sources.get(&key.1);
        let reading = source.map_or_else(Reading::default, |source| self.reading_for(&standing, source, now));
        // Without telemetry nothing speaks for a renewal: the identity is unobserved, and its lease ends.
        let is_observed = standing.historic || !self.is_historic(now, wall);
        let level = if is_observed { standing.supported(&self.mesh, reading) } else { Level::Trusted };
        let previous = standing.level;
        let lease = (level > Level::Trusted).then(|| self.config.lease.of(level));
        let pace = if reading.slow >= reading.fast { Pace::Slow } else { Pace::Fast };
        let m = reading.slow.max(reading.fast);
        let subject = standing.subject.clone();
        if level != previous && level > Level::Trusted {
            let source = self.shards[usize::from(key.0)].source_to_change(key.1);
            standing.ordinal = source.map_or(standing.ordinal + 1, |source| source.next_ordinal(standing.episode));
            standing.decision = decision_id(&subject, level, standing.episode, standing.ordinal);
        }
        let source = self.shards[usize::from(key.0)].sources.get(&key.1);
        let verdict = Verdict {
            time: now,
            decided: wall,
            identity: subject.identity(),
            namespace: source.and_then(|source| source.namespace.as_deref()).map(str::to_owned),
            subject,
            object: Object::Any,
            level,
            previous,
            cause: if level == previous { Cause::Renewed } else { Cause::Lease },
            pace: None,
            evidence_bits: self.mesh.shown_bits(pace, m),
            threshold_bits: 0.0,
            per_day: self.mesh.per_day(pace, m),
            m,
            threshold: 0.0,
            lease,
            expires: lease.map(|lease| wall + lease),
            decision: standing.decision.clone(),
            episode: standing.episode,
            historic: standing.historic,
            enforce: standing.enforce && !standing.held,
            held: None,
            instances: source.map(|source| self.live_instances(key.0, source, now)).unwrap_or_default(),
            co_owners: self.co_owners(&standing.subject),
            reasons: Vec::new(),
            carried_by: Vec::new(),
            announced: None,
            incident: None,
            order: None,
            paused: self.orders.is_paused(),
        };
        if level == Level::Trusted {
            self.incidents.leave(&verdict.identity);
        }
        if let Some(lease) = lease {
            standing.level = level;
            standing.held &= level >= Level::Quarantined;
            standing.expires = wall + lease;
            self.standings.insert(key, standing);
        }
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
    }

    /// Every line of the trust table that stands now, ordered by subject. Where evidence and an operator have a line each
    /// for one subject, the one that acts, and of two the higher, is in the table. While all is paused nothing acts.
    pub fn entries(&self) -> Vec<TrustEntry> {
        let mut entries: Vec<_> = self.standings.values().filter_map(Standing::entry).collect();
        entries.iter_mut().for_each(|entry| entry.co_owners = self.co_owners(&entry.subject));
        // A person may mean all who share a principal.
        entries.extend(self.orders.iter().map(Order::entry));
        entries.sort_by(|a, b| {
            let by_subject = (&a.subject, &a.object).cmp(&(&b.subject, &b.object));
            by_subject.then_with(|| (b.enforce, b.level, &b.decision).cmp(&(a.enforce, a.level, &a.decision)))
        });
        entries.dedup_by(|next, kept| (&next.subject, &next.object) == (&kept.subject, &kept.object));
        entries.into_iter().map(|entry| self.as_in_force(entry)).collect()
    }
}
