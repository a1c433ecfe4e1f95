//! A policy in Rego: read whole, tried once, and evaluated within bounds.

use std::{fs, num::NonZeroU32, path::Path, time::Duration};

use regorus::{Engine, Value, utils::limits::ExecutionTimerConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::HookFact;
use crate::order::{Order, Subject};

/// How long one evaluation may take; real policies take microseconds.
const LIMIT: Duration = Duration::from_secs(1);
/// Steps between two looks at the clock.
const STEPS: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");
/// Bytes of a policy or its data.
const LONGEST: u64 = 4 << 20;
/// Responses to one order.
const MOST: usize = 256;
/// Characters of an engine's words.
const WORDS: usize = 300;
/// The rule that is asked.
const RULE: &str = "data.qualm.response.hooks";

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
    /// Reads a policy and its data.
    ///
    /// # Errors
    /// A file cannot be read, or the policy does not compile, or has no rule `hooks` in package `qualm.response`.
    pub fn read(policy: &Path, data: Option<&Path>) -> Result<Self, String> {
        let text = read("policy", policy)?;
        let data = data.map(|data| Ok::<_, String>((data, read("data", data)?))).transpose()?;
        let rego = Self::parse(&policy.display().to_string(), &text)?;
        let Some((file, data)) = data else { return Ok(rego) };
        let wrong = |error: String| format!("[response] data: {}: {error}; it must be one JSON object", file.display());
        let mut rego = rego;
        let value: serde_json::Value = serde_json::from_str(&data).map_err(|error| wrong(error.to_string()))?;
        if value.get("qualm").is_some() {
            return Err(wrong("`qualm` in it would be in the policy's own place".to_owned()));
        }
        rego.engine.add_data(Value::from(value)).map_err(|error| wrong(first_line(&error.to_string())))?;
        Ok(rego)
    }

    /// Reads a policy from a text.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let wrong = |error: String| format!("[response] policy: {file}: {error}");
        let mut engine = Engine::new();
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: LIMIT, check_interval: STEPS });
        let package =
            engine.add_policy(file.to_owned(), text.to_owned()).map_err(|error| wrong(told(&error.to_string())))?;
        if package != "data.qualm.response" {
            return Err(wrong(format!(
                "is of package `{}`; `package qualm.response` is needed",
                package.trim_start_matches("data.")
            )));
        }
        let rego = Self { engine, file: file.to_owned() };
        // What an order can be shows whether there is such a rule at all; what it says of it does not matter here.
        let mut tried = rego.engine.clone();
        tried.set_input(Value::from(json!({ "hooks": [], "rank": 0 })));
        tried.eval_rule(RULE.to_owned()).map_err(|error| wrong(told(&error.to_string())))?;
        Ok(rego)
    }

    /// What it says of an order.
    ///
    /// # Errors
    /// It takes too long, says nothing, or something that is not understood.
    pub fn ask(&self, order: &Order, hooks: &[HookFact]) -> Result<Vec<Response>, String> {
        let wrong = |error: String| format!("{}: {error}", self.file);
        // Cheap: what is compiled is shared.
        let mut engine = self.engine.clone();
        engine.set_input(Value::from(input(order, hooks)));
        let said = engine.eval_rule(RULE.to_owned()).map_err(|error| wrong(told(&error.to_string())))?;
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

fn read(key: &str, file: &Path) -> Result<String, String> {
    let wrong = |error: String| format!("[response] {key}: {}: {error}", file.display());
    let length = fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > LONGEST {
        return Err(wrong(format!("{length} bytes are too many; at most {LONGEST}")));
    }
    fs::read_to_string(file).map_err(|error| wrong(error.to_string()))
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
        "reasons": order.reasons,
        "instances": order.instances,
        "co_owners": order.co_owners,
        "hooks": hooks,
    })
}

/// An engine's words on one line; its place in the text stands before them.
fn told(error: &str) -> String {
    let lines: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "|").collect();
    lines.join(" ").chars().take(WORDS).collect()
}

fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use qualm_model::level::Level;

    use super::*;
    use crate::{
        order::tests::order,
        policy::{Policy, cases},
    };

    fn hook(name: &str, from: Level) -> HookFact {
        HookFact {
            name: name.to_owned(),
            kind: "vault",
            from,
            from_rank: from as u8,
            cluster: None,
            in_shadow: false,
            reversible: true,
            narrow: false,
            latency_ms: 5,
        }
    }

    fn hooks() -> Vec<HookFact> {
        vec![hook("opa", Level::Watched), hook("vault", Level::Quarantined)]
    }

    fn deployed(file: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy").join(file)
    }

    fn asked(text: &str) -> Result<Vec<Response>, String> {
        Rego::parse("test.rego", text)?.ask(&order("cart", Level::Quarantined), &hooks())
    }

    const HEAD: &str = "package qualm.response\nimport rego.v1\n";

    #[test]
    fn the_shipped_default_says_what_holds_without_a_policy_at_every_level() {
        let rego = Rego::read(&deployed("response.rego"), None).unwrap();
        for level in Level::ALL {
            let order = order("spiffe://mesh.test/ns/shop/sa/cart", level);
            let built_in = Policy::BuiltIn.responses(&order, &hooks()).unwrap();
            assert_eq!(rego.ask(&order, &hooks()).unwrap(), built_in, "{level}");
        }
    }

    #[test]
    fn the_shipped_example_passes_its_own_cases() {
        let rego = Rego::read(&deployed("tiers.rego"), Some(&deployed("tiers.json"))).unwrap();
        let vault = vec![hook("vault", Level::Quarantined)];
        let failed = cases::run(&Policy::Rego(Box::new(rego)), &deployed("tiers-cases.json"), &vault).unwrap();
        assert!(failed.iter().all(|case| case.problem.is_none()) && failed.len() == 5, "{failed:#?}");
    }

    #[test]
    fn a_policy_that_does_not_compile_or_is_another_is_refused_with_its_place() {
        for (text, words) in [
            (format!("{HEAD}hooks contains {{\"hook\": \"vault\"}} if {{"), "test.rego"),
            ("package other\nhooks := []".to_owned(), "package qualm.response` is needed"),
            (format!("{HEAD}other := []"), "hooks"),
        ] {
            let error = Rego::parse("test.rego", &text).unwrap_err();
            assert!(error.starts_with("[response] policy: test.rego: ") && error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_policy_that_says_nonsense_gets_a_clear_error() {
        for (rule, words) in [
            ("hooks := 7", "is no set of"),
            ("hooks := [{\"hok\": \"vault\"}]", "unknown field `hok`"),
            ("hooks := [{\"hook\": \"vault\"}, {\"hook\": \"vault\", \"lease_s\": 1}]", "two things of hook `vault`"),
            ("hooks := [] if input.rank == 0", "undefined"),
        ] {
            let error = asked(&format!("{HEAD}{rule}\n")).unwrap_err();
            assert!(error.contains(words), "{rule}: {error}");
        }
        let rego = Rego::parse("test.rego", &format!("{HEAD}hooks := [{{\"hook\": \"valt\"}}]\n")).unwrap();
        let policy = Policy::Rego(Box::new(rego));
        let error = policy.decide(&order("cart", Level::Quarantined), &hooks(), |_| None).unwrap_err();
        assert!(error.contains("`valt`, which is not configured"), "{error}");
    }

    #[test]
    fn a_policy_that_goes_on_and_on_is_stopped() {
        let rule = "hooks := [] if count({[a, b, c, d] | some a in numbers.range(0, 2000); some b in numbers.range(0, 2000); \
                    some c in numbers.range(0, 2000); some d in numbers.range(0, 2000); a + b + c + d == input.rank}) > 0\n\
                    hooks := [] if input.rank == 0\n";
        let begun = std::time::Instant::now();
        asked(&format!("{HEAD}{rule}")).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(120));
    }

    #[test]
    fn a_shadow_triggers_nothing_whatever_a_policy_says() {
        let rego = Rego::parse("test.rego", &format!("{HEAD}hooks := [{{\"hook\": \"vault\"}}]\n")).unwrap();
        let shadow = Order { acts: false, ..order("cart", Level::Watched) };
        assert_eq!(Policy::Rego(Box::new(rego)).decide(&shadow, &hooks(), |_| None), Ok(Vec::new()));
    }
}
