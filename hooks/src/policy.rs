//! The response policy: which order has which effects, who must approve them, and for how long.
//!
//! # Layout
//! - [`source`]: where it is read from, and the last good one, which is kept
//! - [`rego`]: a policy in Rego, evaluated within bounds
//! - [`cases`]: what a policy is to say of which orders
//!
//! **Invariants:** a policy can ask for less than Qualm itself, never for more: what needs approval by its nature needs it
//! whatever the policy says, and a shadow triggers nothing. A policy that fails loosens nothing: the last good one goes
//! on, and where that cannot say either, what stands keeps standing.

pub mod cases;
pub mod rego;
pub mod source;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::Serialize;

use self::rego::{Rego, Response};
pub use self::source::{ResponseConfig, Source};
use crate::{
    config::{HookConfig, When},
    effect::Stored,
    hook::{Reach, WayBack},
    ledger::{GRACE, Rules, Wanted},
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
    /// Which orders it acts on.
    pub when: When,
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
            when: config.when,
            cluster: config.cluster.clone(),
            in_shadow: config.in_shadow,
            reversible: rules.nature.way_back == WayBack::Exact,
            narrow: rules.nature.reach == Reach::Instance,
            latency_ms: rules.nature.latency_ms,
        }
    }

    /// Whether a hook may be told of an order at all: what is only a shadow changes nothing anywhere, and what is kept for
    /// leaks acts on nothing else.
    fn may(&self, order: &Order) -> bool {
        let is_of_it = self.cluster.is_none() || self.cluster == order.subject.cluster;
        (order.acts || self.in_shadow) && is_of_it && self.is_due(order)
    }

    fn is_due(&self, order: &Order) -> bool {
        self.when == When::Always || order.leaking
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
    /// What a configuration names, compiled.
    ///
    /// # Errors
    /// A file cannot be read, or does not compile: file, line and what is wrong.
    pub fn compile(source: Option<&Source>) -> Result<Self, String> {
        source.map_or(Ok(Self::BuiltIn), |source| Ok(Self::Rego(Box::new(Rego::compile(source)?))))
    }

    /// What is to be done about an order, by the policy alone.
    ///
    /// # Errors
    /// The policy cannot say.
    pub fn responses(&self, order: &Order, hooks: &[HookFact]) -> Result<Vec<Response>, String> {
        let said = match self {
            Self::BuiltIn => {
                let due = hooks.iter().filter(|hook| order.level >= hook.from && hook.is_due(order));
                due.map(|hook| Response::of(&hook.name)).collect()
            }
            Self::Rego(rego) => rego.ask(order, hooks)?,
        };
        let is_known = |said: &&Response| hooks.iter().any(|hook| hook.name == said.hook);
        match (self, said.iter().find(|said| !is_known(said))) {
            (Self::Rego(rego), Some(Response { hook, .. })) => {
                let known = hooks.iter().map(|hook| hook.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(format!("{}: names hook `{hook}`, which is not configured; those there are: {known}", rego.file()))
            }
            _ => Ok(said),
        }
    }

    /// The effects that an order is to have. `begun` is when an effect of a hook was first asked for by the same decision.
    ///
    /// # Errors
    /// The policy cannot say.
    pub fn decide(
        &self,
        order: &Order,
        hooks: &[HookFact],
        begun: impl Fn(&str) -> Option<Timestamp>,
    ) -> Result<Vec<Wanted>, String> {
        let may = |said: &Response| hooks.iter().any(|hook| hook.name == said.hook && hook.may(order));
        let wanted = |said: Response| {
            // From when it was first asked for: an order that is told again does not begin it anew.
            let begin = begun(&said.hook).unwrap_or(order.decided);
            Wanted {
                hook: said.hook,
                order: order.clone(),
                needs: said.approval,
                approvers: said.approvers,
                until: said.lease_s.map(|lease| begin + Span::seconds(i64::from(lease))),
            }
        };
        Ok(self.responses(order, hooks)?.into_iter().filter(may).map(wanted).collect())
    }

    /// Whether it can say something of every one of these orders, and of one made up at each level.
    ///
    /// # Errors
    /// What it cannot say, of whom.
    pub fn try_out<'a>(&self, standing: impl Iterator<Item = &'a Order>, hooks: &[HookFact]) -> Result<(), String> {
        for order in Level::ALL.into_iter().map(cases::made_up) {
            self.responses(&order, hooks).map_err(|problem| format!("{problem} (asked about {})", order.level))?;
        }
        for order in standing {
            self.responses(order, hooks).map_err(|problem| format!("{problem} (asked about {})", order.subject))?;
        }
        Ok(())
    }

    /// An effect goes on as it was decided, for as long as the order stands, and no longer than its lease.
    pub fn keep(effect: &Stored, order: &Order) -> Wanted {
        let has_lease = effect.until < effect.order.expires + GRACE;
        Wanted {
            hook: effect.key.hook.clone(),
            order: order.clone(),
            needs: effect.needs.clone(),
            approvers: effect.approvers.clone(),
            until: has_lease.then_some(effect.until),
        }
    }
}
