//! What a policy is to say of which orders: a user's own tests of it.

use std::{fs, path::Path};

use qualm_model::{level::Level, time::Timestamp};
use serde::Deserialize;

use super::{HookFact, Policy, rego::Response};
use crate::order::{Order, Sign, Subject};

/// A case of a file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    order: Said,
    expect: Vec<Response>,
}

/// An order, as far as a case says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    principal: String,
    level: Level,
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    workload: Option<String>,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default = "yes")]
    acts: bool,
    #[serde(default)]
    evidence_bits: f64,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    provenance: Option<String>,
    #[serde(default)]
    evidence: Vec<Sign>,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    instances: Vec<String>,
    #[serde(default)]
    co_owners: Vec<String>,
    #[serde(default)]
    leaking: bool,
}

const fn yes() -> bool {
    true
}

/// An order that nobody has given, to try a policy with.
pub(crate) fn made_up(level: Level) -> Order {
    of(Said {
        principal: "spiffe://example.org/ns/none/sa/made-up".to_owned(),
        level,
        cluster: None,
        workload: None,
        instance: None,
        acts: true,
        evidence_bits: 30.0,
        by: None,
        provenance: Some("verified".to_owned()),
        evidence: Vec::new(),
        reasons: Vec::new(),
        instances: Vec::new(),
        co_owners: Vec::new(),
        leaking: false,
    })
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// What the policy said instead; `None` where it said what was expected.
    pub problem: Option<String>,
}

/// Runs a file of cases.
///
/// # Errors
/// The file cannot be read.
pub fn run(policy: &Policy, file: &Path, hooks: &[HookFact]) -> Result<Vec<Ran>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let cases: Vec<Case> = serde_json::from_str(&text).map_err(|error| {
        format!(
            "{}: {error}; a list of {{name, order: {{principal, level, …}}, expect: [{{hook, …}}]}}",
            file.display()
        )
    })?;
    Ok(cases.into_iter().map(|case| ran(policy, case, hooks)).collect())
}

fn ran(policy: &Policy, case: Case, hooks: &[HookFact]) -> Ran {
    let Case { name, order, mut expect } = case;
    expect.sort();
    let problem = match policy.responses(&of(order), hooks) {
        Ok(said) if said == expect => None,
        Ok(said) => {
            let json = |of: &Vec<Response>| serde_json::to_string(of).unwrap_or_default();
            Some(format!("says {}, and {} is expected", json(&said), json(&expect)))
        }
        Err(error) => Some(error),
    };
    Ran { name, problem }
}

fn of(said: Said) -> Order {
    let Said { principal, level, cluster, workload, instance, .. } = said;
    Order {
        decision: "case".to_owned(),
        subject: Subject { principal, cluster, workload, instance },
        level,
        acts: said.acts,
        decided: Timestamp(0),
        expires: Timestamp(0),
        evidence_bits: said.evidence_bits,
        by: said.by,
        provenance: said.provenance,
        evidence: said.evidence,
        reasons: said.reasons,
        instances: said.instances,
        co_owners: said.co_owners,
        leaking: said.leaking,
    }
}
