//! Azure: a service principal disabled at Microsoft Graph, the versions of a Key Vault secret disabled.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown, secret},
    order::Order,
    template::{Escape, Template, in_url},
};

/// Key Vault's version that is spoken.
const VAULT: &str = "api-version=7.4";

/// Azure as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// `https://graph.microsoft.com`, or the vault's, as `https://shop.vault.azure.net`.
    pub endpoint: Endpoint,
    /// Where tokens are had.
    #[serde(default = "login")]
    pub login_url: String,
    /// The tenant's id.
    pub tenant: String,
    /// Qualm's own application (client) id.
    pub client_id: String,
    /// File with its secret.
    pub client_secret_file: PathBuf,
    /// What is done.
    #[serde(default)]
    pub act: AzureAct,
    /// Display name of the service principal, or name of the secret.
    #[serde(default = "service")]
    pub name: String,
}

fn login() -> String {
    "https://login.microsoftonline.com".to_owned()
}

fn service() -> String {
    "{service}".to_owned()
}

/// What is done at Azure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AzureAct {
    /// The service principal is disabled.
    #[default]
    DisablePrincipal,
    /// All enabled versions of the secret are disabled.
    DisableSecret,
}

/// The hook.
#[derive(Debug)]
pub struct Azure {
    http: Http,
    of: AzureConfig,
    name: Template,
    /// The token that was given last.
    token: Option<String>,
}

impl Azure {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &AzureConfig, timeout: Duration) -> Result<Self, String> {
        Ok(Self {
            http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("azure.endpoint.{problem}"))?,
            name: Template::parse(&of.name).map_err(|error| format!("azure.name: {error}"))?,
            of: of.clone(),
            token: None,
        })
    }

    fn log_in(&self) -> Result<String, Failure> {
        let secret = secret(&self.of.client_secret_file).map_err(Failure::Refused)?;
        let scope = match self.of.act {
            AzureAct::DisablePrincipal => "https://graph.microsoft.com/.default",
            AzureAct::DisableSecret => "https://vault.azure.net/.default",
        };
        let body = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            in_url(&self.of.client_id),
            in_url(&secret),
            in_url(scope)
        );
        let url = format!("{}/{}/oauth2/v2.0/token", self.of.login_url, in_url(&self.of.tenant));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let given = self.http.send_to(&url, "POST", Shown::Nothing, &headers, Some(body.as_bytes()));
        // To ask for a token changes nothing.
        let given: Value = given.map_err(|failure| Failure::again(failure.to_string()))?.ok(&url)?.parsed(&url)?;
        given["access_token"].as_str().map(str::to_owned).ok_or_else(|| Failure::again(format!("{url} gives no token")))
    }

    /// Asks; once more with a new token where the last one has ended.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let body = body.map(|body| body.to_string().into_bytes());
        for _ in 0..2 {
            let token = match &self.token {
                Some(token) => token.clone(),
                None => self.token.insert(self.log_in()?).clone(),
            };
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let answer = self.http.send(method, path, Shown::Nothing, &headers, body.as_deref())?;
            if answer.status != 401 {
                return Ok(answer);
            }
            self.token = None;
        }
        Err(Failure::Refused(format!("{} refuses the token that it has just been given", self.http.url())))
    }

    fn get(&mut self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask("GET", path, None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer.ok(self.http.url())?.parsed(self.http.url()).map(Some)
    }

    /// What is patched, and to what.
    fn patch(&self, enabled: bool) -> Value {
        match self.of.act {
            AzureAct::DisablePrincipal => json!({ "accountEnabled": enabled }),
            AzureAct::DisableSecret => json!({ "attributes": { "enabled": enabled } }),
        }
    }

    fn set(&mut self, before: &Value, enabled: bool) -> Result<bool, Failure> {
        let (body, mut is_there) = (self.patch(enabled), false);
        for path in paths(before) {
            let answer = self.ask("PATCH", path, Some(&body))?;
            if answer.status != 404 {
                answer.ok(self.http.url())?;
                is_there = true;
            }
        }
        Ok(is_there)
    }

    fn enabled(&self, of: &Value) -> bool {
        match self.of.act {
            AzureAct::DisablePrincipal => of["accountEnabled"] == true,
            AzureAct::DisableSecret => of["attributes"]["enabled"] == true,
        }
    }
}

fn paths(before: &Value) -> impl Iterator<Item = &str> {
    before["paths"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

impl Hook for Azure {
    fn nature(&self) -> Nature {
        Nature {
            // Not measured here: minutes, where continuous access evaluation does not reach.
            latency_ms: 60_000,
            cuts: match self.of.act {
                AzureAct::DisablePrincipal => "new tokens of the service principal",
                AzureAct::DisableSecret => "every reading of the secret's versions",
            },
            reach: Reach::Principal,
            way_back: WayBack::Exact,
            repeat: Repeat::Safe,
            when_gone: WhenGone::Say(300),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let missing = |name| Failure::Refused(format!("{} has no {name}", order.subject));
        let name = self.name.fill(order, "", Escape::None).map_err(missing)?;
        let (what, path) = match self.of.act {
            AzureAct::DisablePrincipal => {
                let filter = in_url(&format!("displayName eq '{}'", name.replace('\'', "''")));
                ("service principal", format!("/v1.0/servicePrincipals?$select=id,accountEnabled&$filter={filter}"))
            }
            AzureAct::DisableSecret => ("secret", format!("/secrets/{}/versions?{VAULT}", in_url(&name))),
        };
        let found = self.get(&path)?.unwrap_or_default();
        let found = found["value"].as_array().cloned().unwrap_or_default();
        if found.len() > 1 && self.of.act == AzureAct::DisablePrincipal {
            return Ok(Found::Nothing(format!("several service principals are called `{name}`: none is touched")));
        }
        // What is disabled already stays out of it, and so stays disabled.
        let ours = found.iter().filter(|of| self.enabled(of)).filter_map(|of| {
            let id = of["id"].as_str()?;
            Some(match self.of.act {
                AzureAct::DisablePrincipal => format!("/v1.0/servicePrincipals/{}", in_url(id)),
                AzureAct::DisableSecret => {
                    format!("/secrets/{}/{}?{VAULT}", in_url(&name), in_url(id.rsplit('/').next().unwrap_or(id)))
                }
            })
        });
        let paths: Vec<String> = ours.collect();
        if paths.is_empty() {
            return Ok(Found::Nothing(format!("there is no enabled {what} `{name}`")));
        }
        Ok(Found::Target { name: format!("{what} {name}"), before: json!({ "paths": paths }) })
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        self.set(before, false).map(drop)
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        for path in paths(before) {
            // A disabled secret cannot be read, and says so.
            let answer = self.ask("GET", path, None)?;
            let is_enabled = match answer.status {
                404 => false,
                403 if self.of.act == AzureAct::DisableSecret => {
                    !String::from_utf8_lossy(&answer.body).contains("SecretDisabled")
                }
                _ => {
                    let of = answer.ok(self.http.url())?.parsed(self.http.url())?;
                    self.enabled(&of)
                }
            };
            if is_enabled {
                return Ok(Effect::Absent);
            }
        }
        Ok(Effect::InPlace)
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        if self.set(before, true)? {
            return Ok(Undone::Restored);
        }
        Ok(Undone::Foreign("it was deleted meanwhile".to_owned()))
    }

    fn probe(&mut self) -> Result<String, Failure> {
        let path = match self.of.act {
            AzureAct::DisablePrincipal => "/v1.0/servicePrincipals?$top=1&$select=id".to_owned(),
            AzureAct::DisableSecret => format!("/secrets?maxresults=1&{VAULT}"),
        };
        self.ask("GET", &path, None)?.ok(self.http.url())?;
        Ok(format!("{} answers, and may be read", self.http.url()))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        match self.of.act {
            AzureAct::DisablePrincipal => {
                "tokens that were given out, for an hour or so, where continuous access evaluation does not reach"
            }
            AzureAct::DisableSecret => "whoever has read the secret has it",
        }
        .to_owned()
    }
}
