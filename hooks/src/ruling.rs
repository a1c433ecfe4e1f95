//! The policy that rules now, and what becomes of one that fails: it is told once, and loosens nothing.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    effect::Stored,
    ledger::Wanted,
    order::Order,
    policy::{HookFact, Policy, ResponseConfig, Source},
};

/// What has become of the policy, for journal and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyTold {
    /// `rules`: it holds from now on. `refused`: the last good one goes on. `failing`: it cannot say what is to be done;
    /// what stands keeps standing. `recovered`.
    pub state: &'static str,
    /// The file; `None` is each hook's own `from`.
    pub file: Option<String>,
    /// Hash of its texts.
    pub hash: Option<String>,
    /// What is wrong: file, line, why.
    pub problem: Option<String>,
}

/// The policy that rules.
#[derive(Debug)]
pub struct Ruling {
    policy: Policy,
    source: Option<Source>,
    directory: PathBuf,
    /// Why what is configured does not rule.
    refused: Option<String>,
    /// Why the one that rules could not say.
    failing: Option<String>,
    told: Vec<PolicyTold>,
}

impl Ruling {
    /// Takes what is configured, or, where that is broken, the last good one of this directory.
    ///
    /// # Errors
    /// What is configured is broken, and there is no last good one.
    pub fn start(config: &ResponseConfig, directory: PathBuf, hooks: &[HookFact]) -> Result<Self, String> {
        let mut ruling = match usable(config, std::iter::empty(), hooks) {
            Ok((source, policy)) => Self::of(source, policy, directory),
            Err(problem) => {
                let kept = Source::kept(&directory).ok_or_else(|| problem.clone())?;
                // It was tried with the hooks of then; one that is gone shows when it is named.
                let policy = Policy::compile(Some(&kept)).map_err(|_| problem.clone())?;
                let mut ruling = Self::of(Some(kept), policy, directory);
                ruling.refuse(problem);
                return Ok(ruling);
            }
        };
        ruling.keep();
        ruling.tell("rules", None);
        Ok(ruling)
    }

    fn of(source: Option<Source>, policy: Policy, directory: PathBuf) -> Self {
        Self { policy, source, directory, refused: None, failing: None, told: Vec::new() }
    }

    /// Takes what is configured now, if it can say something of everything that stands.
    pub fn reload(&mut self, config: &ResponseConfig, standing: &[Order], hooks: &[HookFact]) {
        match usable(config, standing.iter(), hooks) {
            Ok((source, _)) if source == self.source && self.refused.is_none() => {}
            Ok((source, policy)) => {
                (self.source, self.policy, self.refused) = (source, policy, None);
                self.keep();
                self.tell("rules", None);
            }
            Err(problem) => self.refuse(problem),
        }
    }

    fn refuse(&mut self, problem: String) {
        tracing::error!(problem, "the response policy is refused; the last good one goes on");
        self.refused = Some(problem.clone());
        self.tell("refused", Some(problem));
    }

    fn keep(&self) {
        if let Err(error) = Source::keep(self.source.as_ref(), &self.directory) {
            tracing::error!(%error, "the response policy rules, and could not be kept for the case that its file breaks");
        }
    }

    /// The effects that everything that stands is to have. Where the policy cannot say, what stands keeps standing and
    /// nothing new is triggered; it is then not asked about the rest, as each may take as long.
    pub fn decide<'a>(
        &mut self,
        standing: &[Order],
        hooks: &[HookFact],
        effects: &(impl Iterator<Item = &'a Stored> + Clone),
    ) -> Vec<Wanted> {
        let (mut wanted, mut problem) = (Vec::new(), None);
        for order in standing {
            let of = |of: &&Stored| {
                of.key.subject == order.subject && (!of.state.is_ended() || of.order.decision == order.decision)
            };
            let begun =
                |hook: &str| effects.clone().filter(of).find(|of| of.key.hook == hook).map(|of| of.times.wanted);
            let said = match &problem {
                None => self.policy.decide(order, hooks, begun),
                Some(_) => Err(String::new()),
            };
            match said {
                Ok(said) => wanted.extend(said),
                Err(error) => {
                    wanted.extend(effects.clone().filter(of).map(|of| Policy::keep(of, order)));
                    problem.get_or_insert(error);
                }
            }
        }
        match (&problem, &self.failing) {
            (Some(new), None) => {
                tracing::error!(
                    problem = new,
                    "the response policy fails: what stands stands, nothing new is triggered"
                );
                self.tell("failing", problem.clone());
            }
            (None, Some(_)) => self.tell("recovered", None),
            _ => {}
        }
        self.failing = problem;
        wanted
    }

    /// Whether something is wrong with it.
    pub fn is_troubled(&self) -> bool {
        self.refused.is_some() || self.failing.is_some()
    }

    /// What there is to know, for `/readyz`.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.as_ref().map(|problem| {
            let rules = self.source.as_ref().map_or("each hook's own `from`", |source| source.policy_file.as_str());
            format!("[response] policy is refused, {rules} as it was goes on: {problem}; mend it and `qualm reload`")
        });
        let failing = self.failing.as_ref().map(|problem| {
            format!("[response] policy fails, what stands keeps standing and nothing new is triggered: {problem}")
        });
        refused.into_iter().chain(failing)
    }

    /// What has happened since the last time.
    pub fn told(&mut self) -> Vec<PolicyTold> {
        std::mem::take(&mut self.told)
    }

    fn tell(&mut self, state: &'static str, problem: Option<String>) {
        let source = self.source.as_ref();
        let (file, hash) = (source.map(|source| source.policy_file.clone()), source.map(Source::hash));
        self.told.push(PolicyTold { state, file, hash, problem });
    }
}

/// What is configured, compiled and tried.
fn usable<'a>(
    config: &ResponseConfig,
    standing: impl Iterator<Item = &'a Order>,
    hooks: &[HookFact],
) -> Result<(Option<Source>, Policy), String> {
    let source = config.read()?;
    let policy = Policy::compile(source.as_ref())?;
    policy.try_out(standing, hooks)?;
    Ok((source, policy))
}
