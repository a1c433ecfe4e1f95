//! A policy in Rego: compiled, tried, and evaluated within bounds.
//!
//! It is a function of one order and the file `data`: the built-ins that are compiled in reach no network and no file.

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use regorus::{Engine, Value, utils::limits::ExecutionTimerConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{HookFact, Source};
use crate::order::{Order, Subject};

/// How long one evaluation may take; real policies take microseconds.
const LIMIT: Duration = Duration::from_secs(1);
/// Steps between two looks at the clock.
const STEPS: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");
/// Responses to one order.
const MOST: usize = 256;
/// Characters of an engine's words.
const WORDS: usize = 300;
/// The rule that is asked.
const RULE: &str = "data.qualm.response.hooks";
/// A built-in that makes, in one step, as much as it is asked for: nothing looks at the clock meanwhile.
const UNBOUNDED: &str = "numbers.range";

/// What a policy says of one hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The hook's name.
    pub hook: String,
    /// Why it needs approval, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Who may approve; empty means every approver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    /// Seconds after which it is taken back even while the order stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u32>,
}

impl Response {
    /// That a hook acts.
    pub fn of(hook: &str) -> Self {
        Self { hook: hook.to_owned(), approval: None, approvers: Vec::new(), lease_s: None }
    }
}

/// The policy.
pub struct Rego {
    engine: Engine,
    file: String,
}

impl std::fmt::Debug for Rego {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rego({})", self.file)
    }
}

impl Rego {
    /// Compiles a policy, with what is `data` to it.
    ///
    /// # Errors
    /// It does not compile, is of another package or has no rule `hooks`, or the data are no JSON object: file, line and
    /// what is wrong there.
    pub fn compile(source: &Source) -> Result<Self, String> {
        let file = &source.policy_file;
        let wrong = |problem: String| format!("{file}: {problem}");
        if let Some(line) = source.policy.lines().position(|line| code(line).contains(UNBOUNDED)) {
            let line = line + 1;
            return Err(wrong(format!(
                "line {line}: `{UNBOUNDED}` may make more than there is memory for; list the numbers in `data`"
            )));
        }
        let mut engine = Engine::new();
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: LIMIT, check_interval: STEPS });
        let package = guarded(|| engine.add_policy(file.clone(), source.policy.clone())).map_err(wrong)?;
        if package != "data.qualm.response" {
            let package = package.trim_start_matches("data.");
            return Err(wrong(format!("line 1: is of package `{package}`; `package qualm.response` is needed")));
        }
        if let Some((file, text)) = &source.data {
            engine.add_data(data(text).map_err(|problem| format!("{file}: {problem}"))?).map_err(|error| {
                format!("{file}: {}; it must be one JSON object without a key `qualm`", told(&error.to_string()))
            })?;
        }
        let rego = Self { engine, file: file.clone() };
        // Whether there is such a rule at all; what it says here does not matter.
        rego.evaluate(Value::from(json!({ "hooks": [], "rank": 0 })))?;
        Ok(rego)
    }

    /// Where it stands.
    pub fn file(&self) -> &str {
        &self.file
    }

    fn evaluate(&self, input: Value) -> Result<Value, String> {
        // Cheap: what is compiled is shared.
        let mut engine = self.engine.clone();
        engine.set_input(input);
        guarded(|| engine.eval_rule(RULE.to_owned())).map_err(|problem| match problem.as_str() {
            "not a valid rule path" => format!("{}: has no rule `hooks`; one is needed, a set of what acts", self.file),
            _ => format!("{}: {problem}", self.file),
        })
    }

    /// What it says of an order.
    ///
    /// # Errors
    /// It takes too long, says nothing, or something that is not understood.
    pub fn ask(&self, order: &Order, hooks: &[HookFact]) -> Result<Vec<Response>, String> {
        let wrong = |problem: String| format!("{}: {problem}", self.file);
        let said = self.evaluate(Value::from(input(order, hooks)))?;
        if said == Value::Undefined {
            return Err(wrong(
                "`hooks` is undefined for this order; an empty set says that nothing is to be done".to_owned(),
            ));
        }
        let said = said.to_json_str().map_err(|error| wrong(told(&error.to_string())))?;
        let mut responses: Vec<Response> = serde_json::from_str(&said)
            .map_err(|error| wrong(format!("`hooks` is no set of {{hook, approval, approvers, lease_s}}: {error}")))?;
        if responses.len() > MOST {
            return Err(wrong(format!("`hooks` has {} entries; at most {MOST}", responses.len())));
        }
        responses.sort();
        if let Some(pair) = responses.windows(2).find(|pair| pair[0].hook == pair[1].hook) {
            return Err(wrong(format!("it says two things of hook `{}`", pair[0].hook)));
        }
        Ok(responses)
    }
}

/// What `data` is to be.
fn data(text: &str) -> Result<Value, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("{error}; it must be one JSON object"))?;
    match value.as_object() {
        None => Err("is no JSON object, as { \"tiers\": { \"payments\": \"critical\" } } is".to_owned()),
        Some(of) if of.contains_key("qualm") => {
            Err("`qualm` in it would stand in the policy's own place; give it another name".to_owned())
        }
        Some(_) => Ok(Value::from(value)),
    }
}

/// What the engine says, on one line; also where it panics, as a policy must end no thread.
fn guarded<T, E: std::fmt::Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(said) => said.map_err(|error| told(&error.to_string())),
        Err(_) => Err("cannot be evaluated: the engine failed on it (more than there is memory for?)".to_owned()),
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once('#').map_or(line, |(code, _)| code)
}

/// An order as a policy sees it.
fn input(order: &Order, hooks: &[HookFact]) -> serde_json::Value {
    let (subject, place) = (&order.subject, order.subject.place());
    json!({
        "identity": Subject { instance: None, ..subject.clone() }.to_string(),
        "principal": subject.principal,
        "trust_domain": place.trust_domain,
        "namespace": place.namespace,
        "service": place.service,
        "cluster": subject.cluster,
        "workload": subject.workload,
        "instance": subject.instance,
        "level": order.level.as_str(),
        "rank": order.level as u8,
        "acts": order.acts,
        "evidence_bits": order.evidence_bits,
        "by": order.by,
        "provenance": order.provenance,
        "evidence": order.evidence,
        "reasons": order.reasons,
        "instances": order.instances,
        "co_owners": order.co_owners,
        "leaking": order.leaking,
        "hooks": hooks,
    })
}

/// An engine's words on one line: where, and what. It writes them over several, with the place in an arrow's line and the
/// words behind `error:`.
fn told(error: &str) -> String {
    let place = error.lines().find_map(|line| line.trim().strip_prefix("--> "));
    let mut place = place.into_iter().flat_map(|place| place.rsplitn(3, ':'));
    let (column, line) = (place.next(), place.next());
    let lines = || error.lines().map(str::trim).filter(|line| !line.is_empty());
    let words =
        lines().rev().find_map(|line| line.strip_prefix("error: ")).or_else(|| lines().next_back()).unwrap_or("?");
    let text = match (line, column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: {words}"),
        _ => lines().collect::<Vec<_>>().join(" "),
    };
    text.chars().take(WORDS).collect()
}
