//! The response policy: which order has which effects, who must approve them, and for how long.
//!
//! # Layout
//! - [`rego`]: a policy in Rego, evaluated within bounds
//! - [`cases`]: what a policy is to say of which orders
//!
//! **Invariant:** a policy can ask for less than Qualm itself, never for more: what needs approval by its nature needs
//! it whatever the policy says, and a shadow triggers nothing.

pub mod cases;
pub mod rego;

use std::path::PathBuf;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use self::rego::{Rego, Response};
use crate::{
    config::HookConfig,
    effect::Stored,
    hook::{Reach, WayBack},
    ledger::{Rules, Wanted},
    order::Order,
};

/// `[response]`: the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseConfig {
    /// A file in Rego, of package `qualm.response`; without it each hook acts from its own `from` on.
    pub policy: Option<PathBuf>,
    /// A JSON file that is `data` to it.
    pub data: Option<PathBuf>,
}

impl ResponseConfig {
    /// The policy.
    ///
    /// # Errors
    /// It cannot be read, does not compile, or says nothing: file, place and why.
    pub fn build(&self) -> Result<Policy, String> {
        match (&self.policy, &self.data) {
            (None, None) => Ok(Policy::BuiltIn),
            (None, Some(_)) => Err("[response] data: goes with `policy`".to_owned()),
            (Some(policy), data) => Ok(Policy::Rego(Box::new(Rego::read(policy, data.as_deref())?))),
        }
    }
}

/// What the policy knows of a hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookFact {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// The lowest level at which it is to act, by its configuration.
    pub from: Level,
    /// The rank of that level.
    pub from_rank: u8,
    /// Only identities of this cluster.
    pub cluster: Option<String>,
    /// Whether it is also told of shadows.
    pub in_shadow: bool,
    /// Whether it can be undone.
    pub reversible: bool,
    /// Whether it can act on one instance alone.
    pub narrow: bool,
    /// Milliseconds from call to effect, measured.
    pub latency_ms: u32,
}

impl HookFact {
    /// What there is to know.
    pub fn of(config: &HookConfig, rules: &Rules) -> Self {
        Self {
            name: config.name.clone(),
            kind: rules.kind,
            from: config.from,
            from_rank: config.from as u8,
            cluster: config.cluster.clone(),
            in_shadow: config.in_shadow,
            reversible: rules.nature.way_back == WayBack::Exact,
            narrow: rules.nature.reach == Reach::Instance,
            latency_ms: rules.nature.latency_ms,
        }
    }

    /// Whether a hook may be told of an order at all: what is only a shadow changes nothing anywhere.
    fn may(&self, order: &Order) -> bool {
        (order.acts || self.in_shadow) && (self.cluster.is_none() || self.cluster == order.subject.cluster)
    }
}

/// How it is decided.
#[derive(Debug, Default)]
pub enum Policy {
    /// By each hook's own `from`.
    #[default]
    BuiltIn,
    /// By a policy in Rego.
    Rego(Box<Rego>),
}

impl Policy {
    /// What is to be done about an order.
    ///
    /// # Errors
    /// The policy cannot say.
    pub fn responses(&self, order: &Order, hooks: &[HookFact]) -> Result<Vec<Response>, String> {
        match self {
            Self::BuiltIn => {
                let due = hooks.iter().filter(|hook| order.level >= hook.from);
                Ok(due.map(|hook| Response::of(&hook.name)).collect())
            }
            Self::Rego(rego) => rego.ask(order, hooks),
        }
    }

    /// The effects that an order is to have.
    ///
    /// # Errors
    /// The policy cannot say.
    pub fn decide(
        &self,
        order: &Order,
        hooks: &[HookFact],
        begun: impl Fn(&str) -> Option<Timestamp>,
    ) -> Result<Vec<Wanted>, String> {
        let mut wanted = Vec::new();
        for response in self.responses(order, hooks)? {
            let Some(hook) = hooks.iter().find(|hook| hook.name == response.hook) else {
                return Err(format!("it names hook `{}`, which is not configured", response.hook));
            };
            if !hook.may(order) {
                continue;
            }
            // From when it was first asked for: an order that is told again does not begin it anew.
            let begin = begun(&response.hook).unwrap_or(order.decided);
            wanted.push(Wanted {
                hook: response.hook,
                order: order.clone(),
                needs: response.approval,
                approvers: response.approvers,
                until: response.lease_s.map(|lease| begin + Span::seconds(i64::from(lease))),
            });
        }
        Ok(wanted)
    }

    /// An effect goes on as it was decided, for as long as an order stands.
    pub fn keep(effect: &Stored, order: &Order) -> Wanted {
        Wanted {
            hook: effect.key.hook.clone(),
            order: order.clone(),
            needs: effect.needs.clone(),
            approvers: effect.approvers.clone(),
            until: None,
        }
    }
}
