//! AWS: sessions of a role that were begun before are denied, access keys made inactive, a secret rotated.
//!
//! IAM is eventually consistent: what it has taken holds everywhere within seconds, sometimes a minute.

pub mod sigv4;

use std::{path::PathBuf, time::Duration};

use qualm_model::time::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::sigv4::{Scope, Signed, amz_date, authorization};
use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown, secret},
    order::Order,
    template::{Escape, Template, in_url, rfc3339},
};

/// The inline policy by which AWS's own console revokes sessions.
const POLICY: &str = "AWSRevokeOlderSessions";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const JSON: &str = "application/x-amz-json-1.1";

/// AWS as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// IAM's or Secrets Manager's, as `https://iam.amazonaws.com`.
    pub endpoint: Endpoint,
    /// The region that is signed for; IAM's is us-east-1.
    #[serde(default = "region")]
    pub region: String,
    /// File with lines `aws_access_key_id=…`, `aws_secret_access_key=…`, and `aws_session_token=…` where there is one.
    pub credentials_file: PathBuf,
    /// What is done.
    #[serde(default)]
    pub act: AwsAct,
    /// Name of the role, the user or the secret.
    #[serde(default = "service")]
    pub name: String,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn service() -> String {
    "{service}".to_owned()
}

/// What is done at AWS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AwsAct {
    /// The role's sessions that were begun before are denied everything.
    #[default]
    RevokeSessions,
    /// The user's access keys are made inactive.
    DeactivateKeys,
    /// The secret is rotated.
    RotateSecret,
}

/// The hook.
#[derive(Debug)]
pub struct Aws {
    http: Http,
    host: String,
    region: String,
    credentials: PathBuf,
    act: AwsAct,
    name: Template,
    clock: Clock,
}

impl Aws {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &AwsConfig, timeout: Duration, clock: Clock) -> Result<Self, String> {
        let http = Http::new(&of.endpoint, timeout).map_err(|problem| format!("aws.endpoint.{problem}"))?;
        let host = of.endpoint.url.split_once("://").map_or("", |(_, host)| host);
        if host.contains('/') {
            return Err("aws.endpoint.url: has a path; AWS is asked at /".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            http,
            region: of.region.clone(),
            credentials: of.credentials_file.clone(),
            act: of.act,
            name: Template::parse(&of.name).map_err(|error| format!("aws.name: {error}"))?,
            clock,
        })
    }

    /// A signed call.
    fn ask(&self, content: &str, target: Option<&str>, body: &str) -> Result<Answer, Failure> {
        let text = secret(&self.credentials).map_err(Failure::Refused)?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == key));
            line.map(|(_, value)| value.trim().to_owned())
        };
        let (Some(key_id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) else {
            let file = self.credentials.display();
            return Err(Failure::Refused(format!("{file}: has no aws_access_key_id and aws_secret_access_key")));
        };
        let date = amz_date(self.clock.now());
        let token = value("aws_session_token");
        let mut headers = vec![("content-type", content), ("host", self.host.as_str()), ("x-amz-date", date.as_str())];
        headers.extend(token.as_deref().map(|token| ("x-amz-security-token", token)));
        headers.extend(target.map(|target| ("x-amz-target", target)));
        let service = if target.is_some() { "secretsmanager" } else { "iam" };
        let scope = Scope { key_id: &key_id, secret: &secret, region: &self.region, service };
        let request = Signed { method: "POST", path: "/", query: "", headers: &headers, body: body.as_bytes() };
        let signed = authorization(scope, request, &date);
        // The host's is the client's own.
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", &signed));
        self.http.send("POST", "/", Shown::Nothing, &headers, Some(body.as_bytes()))
    }

    /// A call of IAM; `None` where it says that there is no such thing.
    fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Option<String>, Failure> {
        let mut body = format!("Action={action}&Version=2010-05-08");
        parameters.iter().for_each(|(name, value)| body.push_str(&format!("&{name}={}", in_url(value))));
        let answer = self.ask(FORM, None, &body)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        match answer.status {
            404 if text.contains("NoSuchEntity") => Ok(None),
            400 if text.contains("Throttling") => Err(Failure::again(answer.failure(self.http.url()).to_string())),
            _ => answer.ok(self.http.url()).map(|_| Some(text)),
        }
    }

    fn secrets(&self, action: &str, body: &Value) -> Result<Option<Value>, Failure> {
        let answer = self.ask(JSON, Some(&format!("secretsmanager.{action}")), &body.to_string())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 400 && text.contains("ResourceNotFoundException") {
            return Ok(None);
        }
        answer.ok(self.http.url())?.parsed(self.http.url()).map(Some)
    }

    /// The role's inline policy of that name, where it has one.
    fn policy_of(&self, role: &str) -> Result<Option<String>, Failure> {
        let found = self.iam("GetRolePolicy", &[("RoleName", role), ("PolicyName", POLICY)])?;
        Ok(found
            .as_deref()
            .and_then(|xml| inner(xml, "PolicyDocument"))
            .map(|encoded| percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned()))
    }

    fn put_policy(&self, role: &str, document: &str) -> Result<(), Failure> {
        let of = [("RoleName", role), ("PolicyName", POLICY), ("PolicyDocument", document)];
        self.iam("PutRolePolicy", &of)?.map(drop).ok_or_else(|| Failure::Refused(format!("role {role} is gone")))
    }

    fn keys_of(&self, user: &str) -> Result<Option<Vec<(String, String)>>, Failure> {
        let Some(xml) = self.iam("ListAccessKeys", &[("UserName", user)])? else { return Ok(None) };
        let members = xml.split("<member>").skip(1);
        let key = |member: &str| Some((inner(member, "AccessKeyId")?.to_owned(), inner(member, "Status")?.to_owned()));
        Ok(Some(members.filter_map(key).collect()))
    }

    fn set_keys(&self, before: &Value, status: &str) -> Result<(), Failure> {
        for key in before["keys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let of = [("UserName", text(before)), ("AccessKeyId", key), ("Status", status)];
            self.iam("UpdateAccessKey", &of)?;
        }
        Ok(())
    }
}

/// What stands in an element of XML.
fn inner<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

fn text(before: &Value) -> &str {
    before["name"].as_str().unwrap_or_default()
}

/// Denies whatever has a token of before that time.
fn revocation(at: Timestamp) -> String {
    json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Deny", "Action": ["*"], "Resource": ["*"],
        "Condition": { "DateLessThan": { "aws:TokenIssueTime": rfc3339(at) } } }] })
    .to_string()
}

impl Hook for Aws {
    fn nature(&self) -> Nature {
        let (cuts, way_back, repeat) = match self.act {
            AwsAct::RevokeSessions => ("the role's sessions begun before", WayBack::Exact, Repeat::Safe),
            AwsAct::DeactivateKeys => ("every use of the user's access keys", WayBack::Exact, Repeat::Safe),
            // By its ClientRequestToken AWS takes it once.
            AwsAct::RotateSecret => {
                ("the secret's old value, once whoever checks it has the new one", WayBack::None, Repeat::Safe)
            }
        };
        // Not measured here: AWS says seconds.
        Nature { latency_ms: 15_000, cuts, reach: Reach::Principal, way_back, repeat, when_gone: WhenGone::Say(300) }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let missing = |name| Failure::Refused(format!("{} has no {name}", order.subject));
        let name = self.name.fill(order, "", Escape::None).map_err(missing)?;
        let target = |what: &str, before: Value| Ok(Found::Target { name: format!("{what} {name}"), before });
        match self.act {
            AwsAct::RevokeSessions => {
                if self.iam("GetRole", &[("RoleName", &name)])?.is_none() {
                    return Ok(Found::Nothing(format!("there is no role `{name}`")));
                }
                let was = self.policy_of(&name)?;
                target("role", json!({ "name": name, "was": was }))
            }
            AwsAct::DeactivateKeys => {
                let Some(keys) = self.keys_of(&name)? else {
                    return Ok(Found::Nothing(format!("there is no user `{name}`")));
                };
                let active: Vec<String> = keys.into_iter().filter(|(_, is)| is == "Active").map(|(id, _)| id).collect();
                if active.is_empty() {
                    return Ok(Found::Nothing(format!("user `{name}` has no active access key")));
                }
                target("user", json!({ "name": name, "keys": active }))
            }
            AwsAct::RotateSecret => match self.secrets("DescribeSecret", &json!({ "SecretId": name }))? {
                Some(_) => target("secret", json!({ "name": name })),
                None => Ok(Found::Nothing(format!("there is no secret `{name}`"))),
            },
        }
    }

    fn act(&mut self, _: &Order, before: &Value, call: &Call) -> Result<(), Failure> {
        match self.act {
            AwsAct::RevokeSessions => self.put_policy(text(before), &revocation(call.now)),
            AwsAct::DeactivateKeys => self.set_keys(before, "Inactive"),
            AwsAct::RotateSecret => {
                let token = &sigv4_hash(&call.key)[..32];
                let body = json!({ "SecretId": text(before), "ClientRequestToken": token, "RotateImmediately": true });
                let done = self.secrets("RotateSecret", &body)?;
                done.map(drop).ok_or_else(|| Failure::Refused(format!("secret {} is gone", text(before))))
            }
        }
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        let is_in_place = match self.act {
            AwsAct::RevokeSessions => {
                let is = self.policy_of(text(before))?;
                is.is_some_and(|is| Some(is.as_str()) != before["was"].as_str() && is.contains("aws:TokenIssueTime"))
            }
            AwsAct::DeactivateKeys => {
                let keys = self.keys_of(text(before))?.unwrap_or_default();
                let ours = |id: &String| before["keys"].as_array().is_some_and(|of| of.contains(&json!(id)));
                !keys.iter().any(|(id, status)| ours(id) && status == "Active")
            }
            AwsAct::RotateSecret => return Ok(Effect::Unknown),
        };
        Ok(if is_in_place { Effect::InPlace } else { Effect::Absent })
    }

    fn undo(&mut self, order: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        if self.act == AwsAct::DeactivateKeys {
            return self.set_keys(before, "Active").map(|()| Undone::Restored);
        }
        if self.look(order, before)? == Effect::Absent {
            return Ok(Undone::Nothing("somebody has taken it back already".to_owned()));
        }
        match before["was"].as_str() {
            Some(was) => self.put_policy(text(before), was)?,
            None => drop(self.iam("DeleteRolePolicy", &[("RoleName", text(before)), ("PolicyName", POLICY)])?),
        }
        Ok(Undone::Restored)
    }

    fn probe(&mut self) -> Result<String, Failure> {
        match self.act {
            AwsAct::RevokeSessions => drop(self.iam("GetRole", &[("RoleName", "qualm-check")])?),
            AwsAct::DeactivateKeys => drop(self.iam("ListAccessKeys", &[("UserName", "qualm-check")])?),
            AwsAct::RotateSecret => drop(self.secrets("DescribeSecret", &json!({ "SecretId": "qualm-check" }))?),
        }
        Ok(format!("{} answers, and may be read", self.http.url()))
    }

    fn survives(&self, _: &Order, before: &Value) -> String {
        match self.act {
            AwsAct::RevokeSessions => {
                "a role that is assumed again: narrow its trust policy; for seconds, up to a minute, all"
            }
            AwsAct::DeactivateKeys => {
                "sessions that were begun with the keys, until they end; for seconds, up to a minute, all"
            }
            AwsAct::RotateSecret => "the old value, until whoever checks it has the new one",
        }
        .to_owned()
            + if before["was"].is_string() { "; an older revocation was there, and comes back" } else { "" }
    }
}

/// A key as a token of AWS: 32 to 64 letters and digits.
fn sigv4_hash(key: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    const_hex::encode(hash)
}
