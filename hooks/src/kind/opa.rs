//! OPA: who stands at which level, as data under `data.qualm`, for policies to ask (`deploy/opa/qualm.rego`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Endpoint, Http},
    order::{Order, Subject},
    template::{in_url, rfc3339},
};

/// Seconds after which an OPA that was restarted is told again, at the latest.
const EVERY_S: u16 = 2;

/// OPA as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpaConfig {
    /// Where it is.
    pub endpoint: Endpoint,
}

/// The hook.
#[derive(Debug)]
pub struct Opa {
    http: Http,
}

impl Opa {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &OpaConfig, timeout: Duration) -> Result<Self, String> {
        Ok(Self { http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("opa.endpoint.{problem}"))? })
    }

    fn value(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer: Value = self.http.json("GET", path, None)?.ok(self.http.url())?.parsed(self.http.url())?;
        Ok(answer.get("result").cloned())
    }

    fn put(&self, path: &str, value: &Value) -> Result<(), Failure> {
        self.http.json("PUT", path, Some(value))?.ok(self.http.url()).map(drop)
    }

    /// Makes the roots, so that policies see an empty object and not nothing; what is there stays.
    fn make_roots(&self) -> Result<(), Failure> {
        for root in ["trust", "instances"] {
            let path = format!("/v1/data/qualm/{root}");
            let headers = [("content-type", "application/json"), ("if-none-match", "*")];
            let answer = self.http.send("PUT", &path, crate::http::Shown::Bearer, &headers, Some(b"{}"))?;
            if !answer.is_ok() && answer.status != 304 {
                return Err(answer.failure(self.http.url()));
            }
        }
        Ok(())
    }
}

/// Where a subject's document is: its identity's, or one of each instance.
fn path(subject: &Subject) -> String {
    let identity = in_url(&Subject { instance: None, ..subject.clone() }.to_string());
    match &subject.instance {
        None => format!("/v1/data/qualm/trust/{identity}"),
        Some(instance) => format!("/v1/data/qualm/instances/{identity}/{}", in_url(instance)),
    }
}

/// What policies see of an order.
fn document(order: &Order) -> Value {
    json!({
        "level": order.level.as_str(),
        "rank": order.level as u8,
        "mode": if order.acts { "enforce" } else { "shadow" },
        "bits": order.evidence_bits,
        "reason": order.reasons.first(),
        "decision": order.decision,
        "expires": rfc3339(order.expires),
    })
}

impl Hook for Opa {
    fn nature(&self) -> Nature {
        Nature {
            latency_ms: 1,
            cuts: "what policies that ask data.qualm deny, from the next decision on",
            reach: Reach::Instance,
            way_back: WayBack::Exact,
            repeat: Repeat::Safe,
            when_gone: WhenGone::TellAgain(EVERY_S),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let path = path(&order.subject);
        let was = self.value(&path)?;
        // What an earlier Qualm has left there is ours, not somebody's.
        let was = was.filter(|was| was.get("decision").is_none());
        Ok(Found::Target {
            name: path.trim_start_matches("/v1/").to_owned(),
            before: json!({ "path": path, "was": was }),
        })
    }

    fn act(&mut self, order: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        self.make_roots()?;
        self.put(before["path"].as_str().unwrap_or_default(), &document(order))
    }

    fn look(&mut self, order: &Order, before: &Value) -> Result<Effect, Failure> {
        let is = self.value(before["path"].as_str().unwrap_or_default())?;
        let expected = document(order);
        let same = |key: &str| is.as_ref().is_some_and(|is| is[key] == expected[key]);
        Ok(if ["level", "mode", "decision", "expires"].into_iter().all(same) {
            Effect::InPlace
        } else {
            Effect::Absent
        })
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        let path = before["path"].as_str().unwrap_or_default();
        if !before["was"].is_null() {
            return self.put(path, &before["was"]).map(|()| Undone::Restored);
        }
        let answer = self.http.json("DELETE", path, None)?;
        match answer.status {
            404 => Ok(Undone::Nothing("OPA has forgotten it already".to_owned())),
            _ => answer.ok(self.http.url()).map(|_| Undone::Restored),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        self.value("/v1/data/qualm/trust")?;
        Ok(format!("{} answers; that it may be written to shows with the first order", self.http.url()))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        "decisions that were made before, where enforcement points cache them; what OPA is not asked about".to_owned()
    }
}
