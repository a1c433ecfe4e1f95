//! Keycloak: a client or a user disabled, a client's tokens refused by not-before, sessions logged out.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown, secret},
    order::Order,
    template::{Escape, Template, in_url},
};

/// Keycloak as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeycloakConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The realm, of Qualm's own client and of those that are acted on.
    pub realm: String,
    /// Qualm's own client, with a service account and the roles manage-clients and manage-users of realm-management.
    pub client_id: String,
    /// File with that client's secret.
    pub client_secret_file: PathBuf,
    /// What is done.
    #[serde(default)]
    pub act: KeycloakAct,
    /// Client id, or user name, as `{service}`.
    #[serde(default = "service")]
    pub name: String,
}

fn service() -> String {
    "{service}".to_owned()
}

/// What is done at Keycloak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeycloakAct {
    /// The client is disabled.
    #[default]
    DisableClient,
    /// The user is disabled.
    DisableUser,
    /// Tokens of the client that were issued before are refused; it may get new ones.
    NotBefore,
    /// All sessions of the user are ended.
    Logout,
}

/// The hook.
#[derive(Debug)]
pub struct Keycloak {
    http: Http,
    realm: String,
    client_id: String,
    client_secret: PathBuf,
    act: KeycloakAct,
    name: Template,
    /// The token that was given last.
    token: Option<String>,
}

impl Keycloak {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &KeycloakConfig, timeout: Duration) -> Result<Self, String> {
        Ok(Self {
            http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("keycloak.endpoint.{problem}"))?,
            realm: in_url(&of.realm),
            client_id: of.client_id.clone(),
            client_secret: of.client_secret_file.clone(),
            act: of.act,
            name: Template::parse(&of.name).map_err(|error| format!("keycloak.name: {error}"))?,
            token: None,
        })
    }

    /// A token of Qualm's own client.
    fn log_in(&self) -> Result<String, Failure> {
        let secret = secret(&self.client_secret).map_err(Failure::Refused)?;
        let body = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            in_url(&self.client_id),
            in_url(&secret)
        );
        let path = format!("/realms/{}/protocol/openid-connect/token", self.realm);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.http.send("POST", &path, Shown::Nothing, &headers, Some(body.as_bytes()));
        // To ask for a token changes nothing.
        let answer = answer.map_err(|failure| Failure::again(failure.to_string()))?.ok(self.http.url())?;
        let answer: Value = answer.parsed(self.http.url())?;
        let token = answer["access_token"].as_str().map(str::to_owned);
        token.ok_or_else(|| Failure::again(format!("{} gives no token", self.http.url())))
    }

    /// Asks the admin interface; once more with a new token where the last one has ended.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let path = format!("/admin/realms/{}{path}", self.realm);
        let body = body.map(|body| body.to_string().into_bytes());
        for _ in 0..2 {
            let token = match &self.token {
                Some(token) => token.clone(),
                None => self.token.insert(self.log_in()?).clone(),
            };
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
            let answer = self.http.send(method, &path, Shown::Nothing, &headers, body.as_deref())?;
            if answer.status != 401 {
                return Ok(answer);
            }
            self.token = None;
        }
        Err(Failure::Refused(format!("{} refuses the token that it has just given", self.http.url())))
    }

    fn get(&mut self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask("GET", path, None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer.ok(self.http.url())?.parsed(self.http.url()).map(Some)
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<(), Failure> {
        self.ask("PUT", path, Some(body))?.ok(self.http.url()).map(drop)
    }

    /// What of it is changed, and to what, for a call at a second.
    fn change(&self, second: i64) -> (&'static str, Value) {
        match self.act {
            KeycloakAct::NotBefore => ("notBefore", json!(second)),
            _ => ("enabled", json!(false)),
        }
    }
}

impl Hook for Keycloak {
    fn nature(&self) -> Nature {
        let (cuts, way_back) = match self.act {
            KeycloakAct::DisableClient => {
                ("new tokens, and all its tokens where they are introspected", WayBack::Exact)
            }
            KeycloakAct::DisableUser => {
                ("new logins and tokens, and all tokens where they are introspected", WayBack::Exact)
            }
            KeycloakAct::NotBefore => ("its tokens issued before, where they are introspected", WayBack::Exact),
            KeycloakAct::Logout => ("its sessions and their refresh tokens", WayBack::None),
        };
        Nature {
            latency_ms: 84,
            cuts,
            reach: Reach::Principal,
            way_back,
            repeat: Repeat::Safe,
            when_gone: WhenGone::Say(60),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let missing = |name| Failure::Refused(format!("{} has no {name}", order.subject));
        let name = self.name.fill(order, "", Escape::None).map_err(missing)?;
        let (kind, query) = match self.act {
            KeycloakAct::DisableClient | KeycloakAct::NotBefore => {
                ("clients", format!("/clients?clientId={}", in_url(&name)))
            }
            KeycloakAct::DisableUser | KeycloakAct::Logout => {
                ("users", format!("/users?exact=true&username={}", in_url(&name)))
            }
        };
        let found = self.get(&query)?.unwrap_or_default();
        let of = match found.as_array().map(Vec::as_slice) {
            Some([of]) => of.clone(),
            _ => return Ok(Found::Nothing(format!("realm {} has no {kind} called `{name}`", self.realm))),
        };
        let id = of["id"].as_str().unwrap_or_default();
        let (key, _) = self.change(0);
        let was = of.get(key).cloned().unwrap_or(if key == "notBefore" { json!(0) } else { json!(true) });
        let target = format!("{kind} {name} ({id}) {key}");
        Ok(Found::Target { name: target, before: json!({ "path": format!("/{kind}/{}", in_url(id)), "was": was }) })
    }

    fn act(&mut self, _: &Order, before: &Value, call: &Call) -> Result<(), Failure> {
        let path = before["path"].as_str().unwrap_or_default();
        if self.act == KeycloakAct::Logout {
            return self.ask("POST", &format!("{path}/logout"), None)?.ok(self.http.url()).map(drop);
        }
        // What is issued within the second of the call is refused too.
        let (key, value) = self.change(call.now.0.div_euclid(1_000_000_000) + 1);
        self.put(path, &json!({ key: value }))
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        let path = before["path"].as_str().unwrap_or_default().to_owned();
        if self.act == KeycloakAct::Logout {
            let sessions = self.get(&format!("{path}/sessions"))?;
            let is_out = sessions.is_none_or(|sessions| sessions.as_array().is_none_or(Vec::is_empty));
            return Ok(if is_out { Effect::InPlace } else { Effect::Absent });
        }
        let Some(of) = self.get(&path)? else { return Ok(Effect::InPlace) };
        let is_in_place = match self.act {
            KeycloakAct::NotBefore => of["notBefore"].as_i64() > before["was"].as_i64(),
            _ => of["enabled"] == false,
        };
        Ok(if is_in_place { Effect::InPlace } else { Effect::Absent })
    }

    fn undo(&mut self, order: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        let path = before["path"].as_str().unwrap_or_default().to_owned();
        let (key, _) = self.change(0);
        if key == "enabled" && before["was"] == false {
            return Ok(Undone::Nothing("it was disabled before Qualm, and stays so".to_owned()));
        }
        if self.get(&path)?.is_none() {
            return Ok(Undone::Foreign("it was deleted meanwhile".to_owned()));
        }
        if self.look(order, before)? == Effect::Absent {
            return Ok(Undone::Nothing("somebody has taken it back already".to_owned()));
        }
        self.put(&path, &json!({ key: before["was"] })).map(|()| Undone::Restored)
    }

    fn probe(&mut self) -> Result<String, Failure> {
        let path = match self.act {
            KeycloakAct::DisableClient | KeycloakAct::NotBefore => "/clients?max=1",
            KeycloakAct::DisableUser | KeycloakAct::Logout => "/users?max=1",
        };
        self.ask("GET", path, None)?.ok(self.http.url())?;
        Ok(format!("{} answers, and realm {} may be read", self.http.url(), self.realm))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        match self.act {
            KeycloakAct::NotBefore => "tokens that are checked by their signature alone, until their exp; new tokens",
            KeycloakAct::Logout => {
                "access tokens that are checked by their signature alone, until their exp; a new login"
            }
            _ => "tokens that are checked by their signature alone, until their exp",
        }
        .to_owned()
    }
}
