//! Google Cloud: a service account disabled; its tokens are refused from then on, and work again when it is enabled.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown},
    order::Order,
    template::{Escape, Template, in_url},
};

/// Google Cloud as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcpConfig {
    /// IAM's, `https://iam.googleapis.com`; `token_file`, or else `token_url`.
    pub endpoint: Endpoint,
    /// Where a token is had: the metadata server's `…/computeMetadata/v1/instance/service-accounts/default/token`.
    #[serde(default)]
    pub token_url: Option<String>,
    /// E-mail address of the service account, as `{service}@project.iam.gserviceaccount.com`.
    pub email: String,
}

/// The hook.
#[derive(Debug)]
pub struct Gcp {
    http: Http,
    token_url: Option<String>,
    email: Template,
}

impl Gcp {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &GcpConfig, timeout: Duration) -> Result<Self, String> {
        if of.token_url.is_some() == of.endpoint.token_file.is_some() {
            return Err("gcp.token_url: either it or endpoint.token_file is needed".to_owned());
        }
        Ok(Self {
            http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("gcp.endpoint.{problem}"))?,
            token_url: of.token_url.clone(),
            email: Template::parse(&of.email).map_err(|error| format!("gcp.email: {error}"))?,
        })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let Some(url) = &self.token_url else { return self.http.json(method, path, body) };
        let given = self.http.send_to(url, "GET", Shown::Nothing, &[("metadata-flavor", "Google")], None);
        // To ask for a token changes nothing.
        let given: Value = given.map_err(|failure| Failure::again(failure.to_string()))?.ok(url)?.parsed(url)?;
        let bearer = format!("Bearer {}", given["access_token"].as_str().unwrap_or_default());
        let body = body.map(|body| body.to_string().into_bytes());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.http.send(method, path, Shown::Nothing, &headers, body.as_deref())
    }

    fn account(&self, email: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask("GET", &path(email, ""), None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer.ok(self.http.url())?.parsed(self.http.url()).map(Some)
    }

    fn set(&self, email: &str, verb: &str) -> Result<(), Failure> {
        self.ask("POST", &path(email, verb), Some(&json!({})))?.ok(self.http.url()).map(drop)
    }
}

fn path(email: &str, verb: &str) -> String {
    format!("/v1/projects/-/serviceAccounts/{}{verb}", in_url(email))
}

fn email(before: &Value) -> &str {
    before["email"].as_str().unwrap_or_default()
}

impl Hook for Gcp {
    fn nature(&self) -> Nature {
        Nature {
            // Not measured here: Google says seconds.
            latency_ms: 10_000,
            cuts: "new tokens, and those that were given out",
            reach: Reach::Principal,
            way_back: WayBack::Exact,
            repeat: Repeat::Safe,
            when_gone: WhenGone::Say(300),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let missing = |name| Failure::Refused(format!("{} has no {name}", order.subject));
        let email = self.email.fill(order, "", Escape::None).map_err(missing)?;
        let Some(account) = self.account(&email)? else {
            return Ok(Found::Nothing(format!("there is no service account {email}")));
        };
        let was = account["disabled"].as_bool().unwrap_or(false);
        Ok(Found::Target {
            name: format!("service account {email}"),
            before: json!({ "email": email, "disabled": was }),
        })
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        self.set(email(before), ":disable")
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        let account = self.account(email(before))?;
        // One that was deleted can do nothing either.
        let is_in_place = account.is_none_or(|account| account["disabled"] == true);
        Ok(if is_in_place { Effect::InPlace } else { Effect::Absent })
    }

    fn undo(&mut self, order: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        if before["disabled"] == true {
            return Ok(Undone::Nothing("it was disabled before Qualm, and stays so".to_owned()));
        }
        if self.account(email(before))?.is_none() {
            return Ok(Undone::Foreign("the service account was deleted meanwhile".to_owned()));
        }
        if self.look(order, before)? == Effect::Absent {
            return Ok(Undone::Nothing("somebody has enabled it already".to_owned()));
        }
        self.set(email(before), ":enable").map(|()| Undone::Restored)
    }

    fn probe(&mut self) -> Result<String, Failure> {
        self.account("qualm-check@example.iam.gserviceaccount.com")?;
        Ok(format!("{} answers, and may be read", self.http.url()))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        "signed URLs and JWTs that the account's keys have signed, where Google does not check them; for seconds, all"
            .to_owned()
    }
}
