//! What the operator lets standings do: a new configuration is in force at once, for what stands too.
//!
//! What may no longer act is a shadow from this moment on. What was a shadow, or held back, is weighed again when
//! `[enforce]` changes: it acts where the evidence that a renewal would ask for is still there and telemetry is of
//! today. No lease is lengthened by it, and the decision keeps its id: nothing new was found out about anybody.

use qualm_model::{level::Level, time::Timestamp};

use crate::{
    config::{Mode, ScorerConfig},
    grounds::Step,
    guard::{Usual, Withheld},
    mesh::SourceKey,
    operator::{InShadow, Refusal, orders::Order},
    scorer::Scorer,
    standing::{Reading, Standing},
    verdict::{Cause, Verdict},
};

/// Which way a configuration moves what operators have set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// What may no longer act is a shadow.
    Restrict,
    /// What was a shadow may act.
    LetAct,
}

impl Scorer {
    /// Replaces what the operator decides, between two batches. Where that changes what an entry may do, there is a
    /// verdict; `wall` is the wall time.
    pub fn reconfigure(&mut self, config: ScorerConfig, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        if config.budget != self.config.budget {
            self.mesh.read_curves(&config.budget);
        }
        let is_new = config.enforce != self.config.enforce;
        self.mesh.pauses.set(&config.learning);
        self.config = config;
        self.set_limit();
        self.restrict(wall, verdicts);
        if is_new && self.config.enforce.mode == Mode::Enforce {
            self.let_act(wall, verdicts);
        }
    }

    /// Makes a shadow of what stands and may not act under the configuration as it is: also at a start, which may have
    /// read another one than the last run. Never the other way round: a restart is no grounds to act.
    pub fn restrict(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let enforce = &self.config.enforce;
        // Who is protected is not denied; what is held back for that is so already.
        let may_act = |standing: &Standing| {
            let is_spared = standing.limits() && enforce.protects(&standing.subject.principal);
            enforce.mode == Mode::Enforce && !is_spared
        };
        let standings = self.standings.iter().filter(|(_, standing)| standing.enforce && !may_act(standing));
        let keys: Vec<SourceKey> = standings.map(|(key, _)| *key).collect();
        for (key, _) in self.strongest_first(keys) {
            let Some(mut standing) = self.standings.remove(&key) else { continue };
            (standing.enforce, standing.held) = (false, false);
            verdicts.extend(self.mandated(key, &standing, (Cause::Operator, None), wall));
            self.standings.insert(key, standing);
        }
        self.weigh_orders(Change::Restrict, wall, verdicts);
    }

    /// Has operators' entries do what the configuration lets them. One that does something else from now on is told.
    fn weigh_orders(&mut self, change: Change, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let now = self.watermark.now().unwrap_or(wall);
        let subjects: Vec<_> = self.orders.iter().map(|order| order.subject.clone()).collect();
        for subject in subjects {
            let Some(order) = self.orders.get(&subject) else { continue };
            let by_mode = self.config.enforce.mode == Mode::Enforce || order.by.in_shadow == InShadow::Acts;
            let acting = Order { enforce: true, ..order.clone() };
            let may_act = by_mode && self.may_stand(&acting, now).is_ok();
            let next = match change {
                // Who already acts takes no further place of those who may be denied.
                Change::Restrict => {
                    order.enforce && by_mode && !matches!(self.may_stand(&acting, now), Err(Refusal::Protected(_)))
                }
                Change::LetAct => order.enforce || may_act,
            };
            if next != order.enforce {
                let told = Order { enforce: next, ..order.clone() };
                verdicts.push(self.ordered(&told, told.level, wall));
                self.orders.iter_mut().filter(|order| order.subject == subject).for_each(|order| order.enforce = next);
            }
        }
    }

    /// Weighs again what is a shadow or held back. The strongest first, as the blast radius is bounded.
    fn let_act(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        // A person's decision needs no telemetry of today.
        self.weigh_orders(Change::LetAct, wall, verdicts);
        let now = self.watermark.now().unwrap_or(wall);
        if wall - now > self.config.enforce.max_age.0 {
            return;
        }
        let passive = |standing: &Standing| !standing.historic && (!standing.enforce || standing.held);
        let standings = self.standings.iter().filter(|(_, standing)| passive(standing) && standing.expires > wall);
        let keys: Vec<SourceKey> = standings.map(|(key, _)| *key).collect();
        let usual = Usual::default();
        for (key, reading) in self.strongest_first(keys) {
            let Some(mut standing) = self.standings.remove(&key) else { continue };
            let is_known = self.shards[usize::from(key.0)].sources.contains_key(&key.1);
            let stands = !self.config.enforce.protects(&standing.subject.principal)
                && self.is_enforceable(&standing.subject)
                && standing.supported(self.mesh.thresholds(), reading) == standing.level;
            if is_known && stands {
                let held = self.held(&standing, (now, wall), &usual);
                let before = (standing.enforce, standing.held);
                (standing.enforce, standing.held) = (true, held.is_some());
                self.note_held(key, held.as_ref().map(|held| held.by));
                if before != (standing.enforce, standing.held) {
                    verdicts.extend(self.mandated(key, &standing, (Cause::Operator, held), wall));
                }
            }
            self.standings.insert(key, standing);
        }
    }

    /// Standings with the evidence behind them: the most first, and then by name, as the order of a map is nobody's
    /// business.
    pub(crate) fn strongest_first(&self, keys: Vec<SourceKey>) -> Vec<(SourceKey, Reading)> {
        let Some(now) = self.watermark.now() else {
            let mut keys = keys;
            keys.sort_by(|a, b| self.identity_of(*a).cmp(self.identity_of(*b)));
            return keys.into_iter().map(|key| (key, Reading::default())).collect();
        };
        let read = |key: SourceKey| {
            let source = self.shards[usize::from(key.0)].sources.get(&key.1);
            let standing = self.standings.get(&key);
            let reading = source.zip(standing).map(|(source, standing)| self.reading_for(standing, source, now));
            (key, reading.unwrap_or_default())
        };
        let mut read: Vec<_> = keys.into_iter().map(read).collect();
        let strength = |reading: &Reading| reading.fast.max(reading.slow);
        read.sort_by(|a, b| {
            let by_evidence = strength(&b.1).total_cmp(&strength(&a.1));
            by_evidence.then_with(|| self.identity_of(a.0).cmp(self.identity_of(b.0)))
        });
        read
    }

    /// What is to be told of a standing that may do something else from now on; nothing of history.
    pub(crate) fn mandated(
        &self,
        key: SourceKey,
        standing: &Standing,
        (cause, held): (Cause, Option<Withheld>),
        wall: Timestamp,
    ) -> Option<Verdict> {
        if standing.historic || standing.level == Level::Trusted {
            return None;
        }
        let now = self.watermark.now().unwrap_or(standing.episode);
        let (held, held_by) = held.map(|held| (held.why, held.by)).unzip();
        let step = Step::Mandate { cause, held, held_by };
        let mut grounds = self.grounds(key, (now, wall), Some(standing.clone()), step);
        self.look_up(&mut grounds)?;
        grounds.decide()
    }
}
