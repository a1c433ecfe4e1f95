//! A call of one's own: method, path, headers and body are templates, and it is signed.
//!
//! `x-qualm-signature: t=<seconds since 1970>,v1=<hex>`, where `v1` is HMAC-SHA256 with the key of `hmac_key_file` over
//! `<t>.<method>.<path>.<body>`; whoever checks it refuses what is older than some minutes. `idempotency-key` is the
//! same for every try of the same act.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown, secret},
    order::Order,
    template::{Escape, Template},
};

/// A webhook as it is configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What is sent.
    pub act: RequestConfig,
    /// What takes it back; without it every act needs approval.
    pub undo: Option<RequestConfig>,
    /// What tells whether it is in effect: `expect` says so, 404 says no.
    pub look: Option<RequestConfig>,
    /// File with the key that calls are signed with.
    pub hmac_key_file: Option<PathBuf>,
    /// The called takes a call once by its `idempotency-key`, or it says how things are to be.
    pub idempotent: bool,
    /// It only tells somebody: there is nothing to undo.
    pub notifies: bool,
    /// Whether it means one instance where an order does.
    pub per_instance: bool,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestConfig {
    /// The method.
    pub method: String,
    /// Path and query; names in it are percent-encoded.
    pub path: String,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// JSON; names in it are escaped for strings.
    pub body: Option<String>,
    /// Statuses that mean that it was done.
    pub expect: Vec<u16>,
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            method: "POST".to_owned(),
            path: String::new(),
            headers: BTreeMap::new(),
            body: None,
            expect: vec![200, 201, 202, 204],
        }
    }
}

/// The hook.
#[derive(Debug)]
pub struct Webhook {
    http: Http,
    act: Request,
    undo: Option<Request>,
    look: Option<Request>,
    key: Option<PathBuf>,
    nature: Nature,
}

/// A request with its templates read.
#[derive(Debug)]
struct Request {
    method: String,
    path: Template,
    headers: Vec<(String, Template)>,
    body: Option<Template>,
    expect: Vec<u16>,
}

impl Request {
    fn new(of: &RequestConfig, which: &str) -> Result<Self, String> {
        let template = |text: &str, key: &str| Template::parse(text).map_err(|error| format!("{which}.{key}: {error}"));
        if !of.path.starts_with('/') {
            return Err(format!("{which}.path: must begin with /"));
        }
        if of.method.is_empty() || !of.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("{which}.method: write it in capitals, as POST"));
        }
        let headers = of.headers.iter().map(|(name, value)| Ok((name.clone(), template(value, "headers")?)));
        Ok(Self {
            method: of.method.clone(),
            path: template(&of.path, "path")?,
            headers: headers.collect::<Result<_, String>>()?,
            body: of.body.as_deref().map(|body| template(body, "body")).transpose()?,
            expect: of.expect.clone(),
        })
    }
}

impl Webhook {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &WebhookConfig, timeout: Duration) -> Result<Self, String> {
        let undo = of.undo.as_ref().map(|undo| Request::new(undo, "webhook.undo")).transpose()?;
        let has_way_back = undo.is_some() || of.notifies;
        Ok(Self {
            http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("webhook.endpoint.{problem}"))?,
            act: Request::new(&of.act, "webhook.act")?,
            look: of.look.as_ref().map(|look| Request::new(look, "webhook.look")).transpose()?,
            undo,
            key: of.hmac_key_file.clone(),
            nature: Nature {
                latency_ms: 100,
                cuts: "whatever the called does with it",
                reach: if of.per_instance { Reach::Instance } else { Reach::Principal },
                way_back: if has_way_back { WayBack::Exact } else { WayBack::None },
                // Who can be asked whether it is in effect is asked first.
                repeat: if of.idempotent || of.look.is_some() { Repeat::Safe } else { Repeat::Never },
                when_gone: WhenGone::Say(60),
            },
        })
    }

    fn send(&self, request: &Request, order: &Order, call: Option<&Call>) -> Result<Answer, Failure> {
        let key = call.map_or("", |call| call.key.as_str());
        let missing =
            |name: String| Failure::Refused(format!("{} has no {name}, which the template asks for", order.subject));
        let path = request.path.fill(order, key, Escape::Url).map_err(missing)?;
        let body =
            request.body.as_ref().map(|body| body.fill(order, key, Escape::Json)).transpose().map_err(missing)?;
        let mut headers = Vec::new();
        for (name, value) in &request.headers {
            let value = value.fill(order, key, Escape::None).map_err(missing)?;
            headers.push((name.clone(), value.chars().filter(|c| !c.is_control()).collect()));
        }
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if let Some(call) = call {
            headers.push(("idempotency-key".to_owned(), call.key.clone()));
            if let Some(file) = &self.key {
                let secret = secret(file).map_err(Failure::Refused)?;
                let at = call.now.0.div_euclid(1_000_000_000);
                let signed = sign(&secret, at, &request.method, &path, body.as_deref().unwrap_or_default());
                headers.push(("x-qualm-signature".to_owned(), format!("t={at},v1={signed}")));
            }
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.http.send(&request.method, &path, Shown::Bearer, &headers, body.as_ref().map(String::as_bytes))
    }

    /// What an answer to a change means.
    fn taken(&self, request: &Request, answer: &Answer) -> Result<(), Failure> {
        if request.expect.contains(&answer.status) {
            return Ok(());
        }
        let failure = answer.failure(self.http.url());
        // A server or gateway that has failed may have done it before it did.
        let may_be_done = matches!(answer.status, 500 | 502 | 504 | 408) || answer.is_ok();
        Err(if may_be_done { Failure::Uncertain(failure.to_string()) } else { failure })
    }

    fn is_there(&self, order: &Order) -> Result<Option<bool>, Failure> {
        let Some(look) = &self.look else { return Ok(None) };
        let answer = self.send(look, order, None)?;
        match answer.status {
            status if look.expect.contains(&status) => Ok(Some(true)),
            404 | 410 => Ok(Some(false)),
            _ => Err(answer.failure(self.http.url())),
        }
    }
}

/// The signature of a call, hex.
pub fn sign(secret: &str, at: i64, method: &str, path: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{method}.{path}.{body}").as_bytes());
    const_hex::encode(tag)
}

impl Hook for Webhook {
    fn nature(&self) -> Nature {
        self.nature
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let missing =
            |name: String| Failure::Refused(format!("{} has no {name}, which the template asks for", order.subject));
        let path = self.act.path.fill(order, "", Escape::Url).map_err(missing)?;
        let was_there = self.is_there(order)?;
        // Two decisions about one subject are one thing there; their ids may stand in the path.
        let name =
            format!("{} {} about {}", self.act.method, path.split('?').next().unwrap_or_default(), order.subject);
        Ok(Found::Target { name, before: json!({ "there": was_there }) })
    }

    fn act(&mut self, order: &Order, before: &Value, call: &Call) -> Result<(), Failure> {
        if before["there"] == true {
            return Ok(());
        }
        let answer = self.send(&self.act, order, Some(call))?;
        self.taken(&self.act, &answer)
    }

    fn look(&mut self, order: &Order, _: &Value) -> Result<Effect, Failure> {
        Ok(match self.is_there(order)? {
            Some(true) => Effect::InPlace,
            Some(false) => Effect::Absent,
            None => Effect::Unknown,
        })
    }

    fn undo(&mut self, order: &Order, before: &Value, call: &Call) -> Result<Undone, Failure> {
        if before["there"] == true {
            return Ok(Undone::Nothing("it was there before Qualm, and stays".to_owned()));
        }
        let Some(undo) = &self.undo else { return Ok(Undone::Nothing("it only told somebody".to_owned())) };
        if self.is_there(order)? == Some(false) {
            return Ok(Undone::Nothing("somebody has taken it back already".to_owned()));
        }
        let answer = self.send(undo, order, Some(call))?;
        match answer.status {
            404 | 410 => Ok(Undone::Nothing("it was not there any more".to_owned())),
            _ => self.taken(undo, &answer).map(|()| Undone::Restored),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        if let Some(file) = &self.key {
            secret(file).map_err(Failure::Refused)?;
        }
        // Any answer shows that it is there; what it may do shows only when it is done.
        let answer = self.http.send("GET", "/", Shown::Bearer, &[], None)?;
        Ok(format!("{} answers ({})", self.http.url(), answer.status))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        "what the called has already let through; see its own documentation".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hmac_sha256_over_time_method_path_and_body() {
        // printf '1700000000.POST./v1/x.{}' | openssl dgst -sha256 -hmac key
        let expected = "32f99508df1c100694f032802db96749481a5babf44352626fb10ee6f3232f4b";
        assert_eq!(sign("key", 1_700_000_000, "POST", "/v1/x", "{}"), expected);
    }
}
