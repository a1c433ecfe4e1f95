//! What is counted of hooks.

use std::collections::BTreeMap;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::{effect::Stored, ledger::Told};

/// Seconds from a call to its effect.
const BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// What is counted of hooks.
#[derive(Debug, Clone)]
pub struct HookMetrics {
    steps: IntCounterVec,
    effects: IntGaugeVec,
    took: HistogramVec,
    troubled: IntGauge,
    policy: IntGauge,
}

impl HookMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// The registry already has metrics of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let steps = IntCounterVec::new(
            Opts::new("qualm_hook_steps_total", "What hooks have done, by hook and by what an effect has become."),
            &["hook", "state"],
        )?;
        let effects = IntGaugeVec::new(
            Opts::new("qualm_hook_effects", "Effects of hooks that are not over, by hook and state."),
            &["hook", "state"],
        )?;
        let help = "Seconds from the first call of a hook until it was seen to be in effect.";
        let took = HistogramVec::new(
            HistogramOpts::new("qualm_hook_effect_seconds", help).buckets(BUCKETS.to_vec()),
            &["hook"],
        )?;
        let troubled = IntGauge::new("qualm_hook_effects_failing", "Effects of hooks whose last try has failed.")?;
        let help =
            "1 while the response policy is refused (the last good one goes on) or fails (what stands keeps standing).";
        let policy = IntGauge::new("qualm_response_policy_failing", help)?;
        registry.register(Box::new(steps.clone()))?;
        registry.register(Box::new(effects.clone()))?;
        registry.register(Box::new(took.clone()))?;
        registry.register(Box::new(troubled.clone()))?;
        registry.register(Box::new(policy.clone()))?;
        Ok(Self { steps, effects, took, troubled, policy })
    }

    /// Counts something that has happened.
    pub fn told(&self, told: &Told) {
        self.steps.with_label_values(&[told.hook.as_str(), told.state]).inc();
        if let Some(took) = told.took_ms {
            self.took.with_label_values(&[told.hook.as_str()]).observe(took as f64 / 1000.0);
        }
    }

    /// Shows where effects are, and whether something is wrong with the policy.
    pub fn show<'a>(&self, effects: impl Iterator<Item = &'a Stored>, policy_is_troubled: bool) {
        let (mut counts, mut troubled) = (BTreeMap::new(), 0);
        for effect in effects.filter(|effect| !effect.state.is_ended()) {
            *counts.entry((effect.key.hook.as_str(), effect.state.as_str())).or_insert(0) += 1;
            troubled += i64::from(effect.problem.is_some());
        }
        self.effects.reset();
        for ((hook, state), count) in counts {
            self.effects.with_label_values(&[hook, state]).set(count);
        }
        self.troubled.set(troubled);
        self.policy.set(i64::from(policy_is_troubled));
    }
}
