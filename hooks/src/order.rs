//! An order: who stands at which level and why, as hooks are told of it.

use std::fmt;

use qualm_model::{identity::Hierarchy, level::Level, time::Timestamp};
use serde::{Deserialize, Serialize};

/// Whom an order is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The principal, usually a SPIFFE ID.
    pub principal: String,
    /// Its cluster, where the deployment names clusters.
    pub cluster: Option<String>,
    /// The workload, where it is one of several that share the principal.
    pub workload: Option<String>,
    /// The one instance that is meant, by its address; `None` is every instance.
    pub instance: Option<String>,
}

impl Subject {
    /// Where the principal stands.
    pub fn place(&self) -> Hierarchy<'_> {
        Hierarchy::of(&self.principal)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.principal)?;
        let rest = [("@", &self.cluster), ("#", &self.workload), (" at ", &self.instance)];
        rest.into_iter().filter_map(|(mark, part)| Some((mark, part.as_ref()?))).try_for_each(|(mark, part)| {
            f.write_str(mark)?;
            f.write_str(part)
        })
    }
}

/// That a subject stands at a level. What stands is told again and again; what is not told any more has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Id of the decision.
    pub decision: String,
    /// Whom it is about.
    pub subject: Subject,
    /// The level.
    pub level: Level,
    /// Whether it acts; otherwise it is a shadow: told, and nothing is done.
    pub acts: bool,
    /// When it was decided, wall time.
    pub decided: Timestamp,
    /// When its lease ends, wall time.
    pub expires: Timestamp,
    /// Evidence behind it, bits.
    pub evidence_bits: f64,
    /// The operator behind it, where it was one.
    pub by: Option<String>,
    /// What vouches for it: `verified` (certificates at the called's proxy), `claimed` (records that may lead to
    /// *watched* only), `operator`; `None` where that is not known any more.
    #[serde(default)]
    pub provenance: Option<String>,
    /// The questions that carried it, strongest first.
    #[serde(default)]
    pub evidence: Vec<Sign>,
    /// Why, strongest first, in words.
    pub reasons: Vec<String>,
    /// Live instances of the identity, by address.
    pub instances: Vec<String>,
    /// The workloads that share the principal, where several do.
    pub co_owners: Vec<String>,
    /// Whether a proxy has served a call of its that it had acknowledged to deny.
    #[serde(default)]
    pub leaking: bool,
}

/// One question's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// The question, as `new-peer`.
    pub question: String,
    /// `log2` of its e-value.
    pub bits: f64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn order(principal: &str, level: Level) -> Order {
        Order {
            decision: format!("d-{principal}-{level}"),
            subject: Subject { principal: principal.to_owned(), ..Subject::default() },
            level,
            acts: true,
            decided: Timestamp::from_seconds(100),
            expires: Timestamp::from_seconds(3700),
            evidence_bits: 31.5,
            by: None,
            provenance: Some("verified".to_owned()),
            evidence: vec![Sign { question: "new-peer".to_owned(), bits: 12.0 }],
            reasons: vec!["calls whom it never called".to_owned()],
            instances: vec!["10.0.0.7".to_owned()],
            co_owners: Vec::new(),
            leaking: false,
        }
    }

    #[test]
    fn a_subject_says_how_narrow_it_is() {
        let subject = Subject {
            principal: "spiffe://mesh.test/ns/shop/sa/cart".to_owned(),
            cluster: Some("north".to_owned()),
            workload: None,
            instance: Some("10.0.0.7".to_owned()),
        };
        assert_eq!(subject.to_string(), "spiffe://mesh.test/ns/shop/sa/cart@north at 10.0.0.7");
    }
}
