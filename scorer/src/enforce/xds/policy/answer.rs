//! What is answered to one call before one node: what the filters of that node would do, said by Qualm itself.

use std::net::IpAddr;

use qualm_model::level::Level;

use super::{Denial, Policies, Slot, THROTTLE_PREFIX, View, paths, rate};

/// One call as a proxy describes it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The verified principal of the caller; empty where it has shown no certificate.
    pub principal: &'a str,
    /// Its direct address.
    pub address: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
}

/// What follows for one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The level in force for the caller: *trusted* where nothing acts.
    pub level: Level,
    /// The decision that acts; empty where none does.
    pub decision: String,
    /// The decision that is only noted; empty where none is.
    pub noted: String,
    /// The policy by which it is denied.
    pub denied: Option<String>,
    /// By which it is one of so many calls a minute.
    pub limited: Option<Limit>,
}

/// How many calls pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The policy.
    pub policy: String,
    /// Calls a minute.
    pub a_minute: u32,
    /// Calls at once.
    pub at_once: u32,
}

impl Policies {
    /// What a node that sees the table as `view` does with a call.
    pub fn answer(&self, view: &View, call: &Call<'_>) -> Answer {
        let Some(branch) = self.branches.get(call.principal) else { return Answer::default() };
        let own = call.address.and_then(|address| branch.addresses.get(&address.to_canonical()));
        let slot = own.map_or_else(|| branch.whole.clone(), |own| own.within(&branch.whole));
        let noted = slot.marks.as_ref().map(|leaf| leaf.decision.clone()).unwrap_or_default();
        let Some(acts) = slot.acts.clone() else { return Answer { noted, ..Answer::default() } };
        let answer = Answer { level: acts.level, decision: acts.decision.clone(), noted, ..Answer::default() };
        // Open to everybody at every level.
        if self.reachable.paths.iter().any(|path| path == call.path) {
            return answer;
        }
        Answer { denied: slot.denies(view, call), limited: slot.limits(view), ..answer }
    }
}

impl Slot {
    fn denies(&self, view: &View, call: &Call<'_>) -> Option<String> {
        let Denial { policy, but } = self.denial(view)?;
        let is_known = but.is_some_and(|(_, operations)| paths::allows(&operations, call.method, call.path));
        (!is_known).then_some(policy)
    }

    fn limits(&self, view: &View) -> Option<Limit> {
        let leaf = self.throttle(view)?;
        let (a_minute, at_once) = rate::allowance(leaf);
        Some(Limit { policy: format!("{THROTTLE_PREFIX}{}", leaf.decision), a_minute, at_once })
    }
}
