//! The response policy: which order has which effects, who must approve them, and for how long.

use qualm_model::level::Level;
use serde::Serialize;

use crate::{
    config::HookConfig,
    hook::{Reach, WayBack},
    ledger::{Rules, Wanted},
    order::Order,
};

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
#[derive(Debug, Clone, Copy, Default)]
pub enum Policy {
    /// By each hook's own `from`.
    #[default]
    BuiltIn,
}

impl Policy {
    /// The effects that an order is to have.
    pub fn decide(self, order: &Order, hooks: &[HookFact]) -> Vec<Wanted> {
        let wanted = |hook: &HookFact| Wanted {
            hook: hook.name.clone(),
            order: order.clone(),
            needs: None,
            approvers: Vec::new(),
            until: None,
        };
        let Self::BuiltIn = self;
        hooks.iter().filter(|hook| hook.may(order) && order.level >= hook.from).map(wanted).collect()
    }
}
