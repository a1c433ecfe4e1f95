//! Vault: an entity disabled (its tokens work again when it is enabled), its tokens revoked, a prefix of leases revoked.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown},
    order::Order,
    template::{Escape, Template, in_url},
};

/// Tokens that are looked through for those of an entity.
const MOST_TOKENS: usize = 20_000;
const TOKEN: Shown = Shown::Header("x-vault-token");

/// Vault as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Where it is; `token_file` has a token of the least rights.
    pub endpoint: Endpoint,
    /// What is done.
    #[serde(default)]
    pub act: VaultAct,
    /// Name of the entity's alias, as `{service}`, with `mount_accessor`; or else `entity`.
    #[serde(default)]
    pub alias: Option<String>,
    /// Accessor of the auth method that the alias belongs to.
    #[serde(default)]
    pub mount_accessor: Option<String>,
    /// Name of the entity.
    #[serde(default)]
    pub entity: Option<String>,
    /// The prefix of leases, as `auth/approle/login` or `database/creds/{service}`.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// What is done at Vault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VaultAct {
    /// The entity is disabled.
    #[default]
    DisableEntity,
    /// All tokens of the entity are revoked.
    RevokeTokens,
    /// All leases under a prefix are revoked.
    RevokeLeases,
}

/// The hook.
#[derive(Debug)]
pub struct Vault {
    http: Http,
    act: VaultAct,
    entity: Entity,
    prefix: Option<Template>,
}

/// How an entity is found.
#[derive(Debug)]
enum Entity {
    Alias(Template, String),
    Name(Template),
    /// It is not needed.
    None,
}

impl Vault {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &VaultConfig, timeout: Duration) -> Result<Self, String> {
        let template = |text: &str, key: &str| Template::parse(text).map_err(|error| format!("vault.{key}: {error}"));
        let entity = match (&of.alias, &of.mount_accessor, &of.entity) {
            (Some(alias), Some(accessor), None) => Entity::Alias(template(alias, "alias")?, accessor.clone()),
            (None, None, Some(name)) => Entity::Name(template(name, "entity")?),
            (None, None, None) if of.act == VaultAct::RevokeLeases => Entity::None,
            _ => return Err("vault.alias: goes with mount_accessor, or `entity` alone names the entity".to_owned()),
        };
        let prefix = of.prefix.as_deref().map(|prefix| template(prefix, "prefix")).transpose()?;
        if prefix.is_some() != (of.act == VaultAct::RevokeLeases) {
            return Err("vault.prefix: goes with act = \"revoke-leases\", and only with it".to_owned());
        }
        let http = Http::new(&of.endpoint, timeout).map_err(|problem| format!("vault.endpoint.{problem}"))?;
        Ok(Self { http, act: of.act, entity, prefix })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.http.json_as(method, path, TOKEN, "application/json", body)
    }

    /// What is in `data` of an answer.
    fn data(&self, answer: Answer) -> Result<Value, Failure> {
        let answer: Value = answer.ok(self.http.url())?.parsed(self.http.url())?;
        Ok(answer["data"].clone())
    }

    fn find(&self, order: &Order) -> Result<Result<Value, String>, Failure> {
        let fill = |template: &Template, escape| {
            template
                .fill(order, "", escape)
                .map_err(|name| Failure::Refused(format!("{} has no {name}", order.subject)))
        };
        let (answer, called) = match &self.entity {
            Entity::Alias(alias, accessor) => {
                let alias = fill(alias, Escape::None)?;
                let body = json!({ "alias_name": alias, "alias_mount_accessor": accessor });
                (self.ask("POST", "/v1/identity/lookup/entity", Some(&body))?, alias)
            }
            Entity::Name(name) => {
                let path = format!("/v1/identity/entity/name/{}", fill(name, Escape::Url)?);
                (self.ask("GET", &path, None)?, fill(name, Escape::None)?)
            }
            Entity::None => return Ok(Err("no entity is named".to_owned())),
        };
        // An alias that is not known is answered by nothing, a name by 404.
        if matches!(answer.status, 204 | 404) {
            return Ok(Err(format!(
                "Vault knows no entity for `{called}`: it has never logged in, or is called otherwise"
            )));
        }
        self.data(answer).map(Ok)
    }

    fn is_disabled(&self, id: &str) -> Result<Option<bool>, Failure> {
        let answer = self.ask("GET", &format!("/v1/identity/entity/id/{}", in_url(id)), None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        Ok(self.data(answer)?["disabled"].as_bool())
    }

    fn set_disabled(&self, id: &str, disabled: bool) -> Result<(), Failure> {
        let path = format!("/v1/identity/entity/id/{}", in_url(id));
        self.ask("POST", &path, Some(&json!({ "disabled": disabled })))?.ok(self.http.url()).map(drop)
    }

    /// Accessors of the living tokens of an entity.
    fn accessors(&self, entity: &str) -> Result<Vec<String>, Failure> {
        let listed = self.ask("GET", "/v1/auth/token/accessors?list=true", None)?;
        if listed.status == 404 {
            return Ok(Vec::new());
        }
        let listed = self.data(listed)?;
        let all = listed["keys"].as_array().cloned().unwrap_or_default();
        if all.len() > MOST_TOKENS {
            let why = format!("{} tokens are too many to look through; disable the entity instead", all.len());
            return Err(Failure::Refused(why));
        }
        let mut found = Vec::new();
        for accessor in all.iter().filter_map(Value::as_str) {
            let answer = self.ask("POST", "/v1/auth/token/lookup-accessor", Some(&json!({ "accessor": accessor })))?;
            // It may have ended since.
            if answer.is_ok() && self.data(answer)?["entity_id"] == entity {
                found.push(accessor.to_owned());
            }
        }
        Ok(found)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Hook for Vault {
    fn nature(&self) -> Nature {
        let (cuts, way_back) = match self.act {
            VaultAct::DisableEntity => ("every use of its tokens and every login", WayBack::Exact),
            VaultAct::RevokeTokens => ("its living tokens; it may log in again", WayBack::None),
            VaultAct::RevokeLeases => ("everything leased under the prefix, whoever has it", WayBack::None),
        };
        Nature {
            latency_ms: 5,
            cuts,
            reach: Reach::Principal,
            way_back,
            repeat: Repeat::Safe,
            when_gone: WhenGone::Say(60),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        if let Some(prefix) = &self.prefix {
            let missing = |name| Failure::Refused(format!("{} has no {name}", order.subject));
            let prefix = prefix.fill(order, "", Escape::None).map_err(missing)?;
            return Ok(Found::Target { name: format!("leases {prefix}"), before: json!({ "prefix": prefix }) });
        }
        let entity = match self.find(order)? {
            Ok(entity) => entity,
            Err(why) => return Ok(Found::Nothing(why)),
        };
        let id = text(&entity["id"]).to_owned();
        let name = format!("entity {} ({id})", text(&entity["name"]));
        let before = match self.act {
            VaultAct::RevokeTokens => json!({ "id": id, "accessors": self.accessors(&id)? }),
            _ => json!({ "id": id, "disabled": entity["disabled"].as_bool().unwrap_or(false) }),
        };
        Ok(Found::Target { name, before })
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        match self.act {
            VaultAct::DisableEntity => self.set_disabled(text(&before["id"]), true),
            VaultAct::RevokeTokens => {
                for accessor in before["accessors"].as_array().into_iter().flatten() {
                    let body = json!({ "accessor": accessor });
                    let answer = self.ask("POST", "/v1/auth/token/revoke-accessor", Some(&body))?;
                    // One that has ended meanwhile is refused as invalid.
                    if !answer.is_ok() && answer.status != 400 {
                        return Err(answer.failure(self.http.url()));
                    }
                }
                Ok(())
            }
            VaultAct::RevokeLeases => {
                let path = format!("/v1/sys/leases/revoke-prefix/{}", text(&before["prefix"]));
                self.ask("POST", &path, Some(&json!({})))?.ok(self.http.url()).map(drop)
            }
        }
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        match self.act {
            VaultAct::DisableEntity => Ok(match self.is_disabled(text(&before["id"]))? {
                Some(false) => Effect::Absent,
                // An entity that was deleted can do nothing either.
                Some(true) | None => Effect::InPlace,
            }),
            VaultAct::RevokeTokens => {
                for accessor in before["accessors"].as_array().into_iter().flatten() {
                    let body = json!({ "accessor": accessor });
                    if self.ask("POST", "/v1/auth/token/lookup-accessor", Some(&body))?.is_ok() {
                        return Ok(Effect::Absent);
                    }
                }
                Ok(Effect::InPlace)
            }
            VaultAct::RevokeLeases => Ok(Effect::Unknown),
        }
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        if before["disabled"] == true {
            return Ok(Undone::Nothing("it was disabled before Qualm, and stays so".to_owned()));
        }
        let id = text(&before["id"]);
        match self.is_disabled(id)? {
            None => Ok(Undone::Foreign("the entity was deleted meanwhile".to_owned())),
            Some(false) => Ok(Undone::Nothing("somebody has enabled it already".to_owned())),
            Some(true) => self.set_disabled(id, false).map(|()| Undone::Restored),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        let paths = match self.act {
            VaultAct::DisableEntity => vec!["identity/entity/id/qualm-check"],
            VaultAct::RevokeTokens => {
                vec!["auth/token/accessors", "auth/token/lookup-accessor", "auth/token/revoke-accessor"]
            }
            VaultAct::RevokeLeases => vec!["sys/leases/revoke-prefix/qualm-check"],
        };
        let answer = self.ask("POST", "/v1/sys/capabilities-self", Some(&json!({ "paths": paths })))?;
        let answer: Value = answer.ok(self.http.url())?.parsed(self.http.url())?;
        let may = |path: &str| {
            let of = answer["data"][path].as_array().or_else(|| answer[path].as_array());
            of.into_iter().flatten().any(|can| matches!(text(can), "update" | "sudo" | "root" | "list"))
        };
        match paths.iter().find(|path| !may(path)) {
            Some(path) => Err(Failure::Refused(format!(
                "{}: the token may not update {path}; give it the policy that docs/hooks.md names",
                self.http.url()
            ))),
            None => Ok(format!("{} answers, and the token has the rights", self.http.url())),
        }
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        match self.act {
            VaultAct::DisableEntity => "secrets and certificates that it has read or been given, until their own end",
            VaultAct::RevokeTokens => "what it has read; it gets a new token by its next login",
            VaultAct::RevokeLeases => "what was read and is not leased, as keys and values",
        }
        .to_owned()
    }
}
