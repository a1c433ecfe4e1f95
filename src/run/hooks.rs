//! Hooks: what stands is told to them as orders, and what they have done is journalled.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::Registry;
use qualm_hooks::{
    engine::{Hooks, Setting},
    ledger::Told,
    metrics::HookMetrics,
    order::{Order, Sign, Subject},
    policy::ResponseConfig,
    ruling::PolicyTold,
};
use qualm_model::time::Clock;
use qualm_scorer::{
    table::{SharedTable, TrustEntry},
    verdict::Verdict,
};
use tokio::sync::{mpsc, watch};

use super::state::State;
use crate::{config::Config, finding::in_words};

/// What hooks have done and the loop has not journalled yet; beyond, hooks wait.
const TOLD: usize = 1024;
/// Grounds of decisions that are remembered.
const GROUNDS: usize = 4096;

/// Why it was decided: what the trust table does not hold.
#[derive(Debug, Clone, Default)]
struct Ground {
    by: Option<String>,
    provenance: Option<String>,
    evidence: Vec<Sign>,
    reasons: Vec<String>,
    instances: Vec<String>,
}

/// The grounds of the latest decisions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grounds(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    of: BTreeMap<String, Ground>,
    oldest_first: VecDeque<String>,
}

impl Grounds {
    /// Takes in a verdict, before its table is published.
    pub(crate) fn note(&self, verdict: &Verdict) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = verdict.reasons.iter().map(in_words);
        let mut reasons: Vec<String> = told.map(|reason| format!("it {}", reason.observed)).collect();
        if let Some(order) = &verdict.order {
            reasons.insert(0, order.why.clone());
        }
        let by = verdict.order.as_ref().map(|order| order.by.clone());
        let provenance = verdict.provenance().map(str::to_owned);
        let evidence = verdict
            .reasons
            .iter()
            .map(|reason| Sign { question: reason.detector.name().to_owned(), bits: reason.bits })
            .collect();
        let mut ground = Ground { by, provenance, evidence, reasons, instances: verdict.instances.clone() };
        // A renewal has no reasons of its own: those of the decision that it renews hold.
        if let Some(before) = known.of.get(&verdict.decision).filter(|_| ground.reasons.is_empty()) {
            ground = Ground { instances: ground.instances, ..before.clone() };
        }
        if known.of.insert(verdict.decision.clone(), ground).is_none() {
            known.oldest_first.push_back(verdict.decision.clone());
        }
        while known.oldest_first.len() > GROUNDS {
            let oldest = known.oldest_first.pop_front();
            oldest.and_then(|oldest| known.of.remove(&oldest));
        }
    }

    fn order(&self, entry: &TrustEntry, leaking: bool) -> Order {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ground = known.of.get(&entry.decision).cloned().unwrap_or_default();
        let of = &entry.subject;
        let reasons = if ground.reasons.is_empty() { vec![entry.reason.clone()] } else { ground.reasons };
        Order {
            decision: entry.decision.clone(),
            subject: Subject {
                principal: of.principal.clone(),
                cluster: of.cluster.clone(),
                workload: of.workload.clone(),
                instance: of.instance.clone(),
            },
            level: entry.level,
            acts: entry.enforce,
            decided: entry.decided,
            expires: entry.expires,
            evidence_bits: entry.evidence_bits,
            by: ground.by,
            provenance: ground.provenance,
            evidence: ground.evidence,
            reasons,
            instances: ground.instances,
            co_owners: entry.co_owners.clone(),
            leaking,
        }
    }
}

/// What the hooks' thread tells the loop.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A hook has done something, or could not.
    Hook(Told),
    /// The response policy rules, was refused or fails.
    Policy(PolicyTold),
}

/// The hooks of a run.
#[derive(Debug, Default)]
pub(crate) struct Wired {
    /// `None` where none is configured and nothing is left to undo.
    pub(crate) hooks: Option<Hooks>,
    pub(crate) grounds: Grounds,
    told: Option<mpsc::Receiver<Heard>>,
}

impl Wired {
    /// Starts the configured hooks, which go on where they were, and tells them of every table.
    pub(crate) fn start(
        config: &Config,
        state: &State,
        clock: &Clock,
        registry: &Registry,
        mut tables: watch::Receiver<SharedTable>,
    ) -> anyhow::Result<Self> {
        let is_left = config.state.directory.join(qualm_hooks::outbox::FILE).exists();
        if config.hook.is_empty() && !is_left {
            return Ok(Self::default());
        }
        let grounds = Grounds::default();
        state.decisions.iter().for_each(|(_, verdict)| grounds.note(verdict));
        let (sender, told) = mpsc::channel(TOLD);
        let (news, policy_news) = (sender.clone(), sender);
        let tell = move |told: Told| {
            tracing::info!(
                hook = told.hook,
                effect = told.id,
                about = told.subject,
                state = told.state,
                target = told.target,
                why = told.words,
                took_ms = told.took_ms,
                "hook"
            );
            // The loop may have stopped.
            let _ = news.blocking_send(Heard::Hook(told));
        };
        let setting = Setting {
            clock: clock.clone(),
            jitter: Box::new(chance),
            told: Box::new(tell),
            policy_told: Box::new(move |told| {
                let _ = policy_news.blocking_send(Heard::Policy(told));
            }),
            metrics: HookMetrics::register(registry)?,
        };
        let hooks = Hooks::start(&config.hook, &config.response, &config.state.directory, setting)?;
        let (handle, of) = (hooks.clone(), grounds.clone());
        tokio::spawn(async move {
            loop {
                let table = tables.borrow_and_update().clone();
                // Of a principal that several have, only what is about one instance may be told to anybody.
                let told = table.entries.iter().filter(|entry| entry.is_tellable());
                let order = |entry: &TrustEntry| of.order(entry, table.leaking.contains(&entry.decision));
                handle.orders(told.map(order).collect());
                if tables.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { hooks: Some(hooks), grounds, told: Some(told) })
    }

    /// What hooks have done next.
    pub(crate) async fn told(&mut self) -> Heard {
        if let Some(told) = &mut self.told
            && let Some(told) = told.recv().await
        {
            return told;
        }
        std::future::pending().await
    }

    /// Has the response policy read again.
    pub(crate) fn follow(&self, response: &ResponseConfig) {
        self.hooks.iter().for_each(|hooks| hooks.policy(response));
    }

    /// Ends the threads. What is under way is looked at again at the next start.
    pub(crate) fn stop(&self) {
        self.hooks.iter().for_each(Hooks::stop);
    }

    /// For the readiness page.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.hooks.as_ref().map(Hooks::notes).unwrap_or_default()
    }
}

/// A number from 0 to 1, by the random keys of a hash.
fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}
