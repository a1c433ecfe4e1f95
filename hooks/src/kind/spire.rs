//! SPIRE: how long the SVIDs of an identity live is shortened, or its entries are deleted, so that it gets no new ones; the
//! agents of its nodes are banned; the authority is rotated, which is the one thing that ends SVIDs already issued.
//!
//! # Layout
//! - this file: the hook; `rotation`: an authority is replaced, step by step
//! - `server`: SPIRE's server over gRPC; `api`: what is said to it

mod api;
mod rotation;
mod server;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::server::ServerConfig;
use self::{
    api::{
        BAN_AGENT, CREATE_ENTRIES, CreateEntries, DELETE_ENTRIES, DeleteEntries, Entries, Entry, EntryFilter,
        EntryMask, GET_AGENT, LIST_ENTRIES, ListEntries, OneAgent, Results, SpiffeId, UPDATE_ENTRIES, UpdateEntries,
    },
    rotation::Rotation,
    server::Server,
};
use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    order::Order,
};

/// Entries of one identity; with so many, nothing is done.
const MOST_ENTRIES: i32 = 500;
/// What gRPC calls something that is not there, and something that is there already.
const NOT_FOUND: i32 = 5;
const ALREADY_EXISTS: i32 = 6;
/// Paths of agents begin so.
const AGENTS: &str = "/spire/agent/";

/// SPIRE as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpireConfig {
    /// Its server.
    pub server: ServerConfig,
    /// What is done.
    #[serde(default)]
    pub act: SpireAct,
    /// Seconds that new SVIDs live, for `shorten-ttl`.
    #[serde(default = "ttl_s")]
    pub ttl_s: i32,
    /// Seconds until all agents and proxies have heard of a change, for `rotate-authority`.
    #[serde(default = "spread_s")]
    pub spread_s: u64,
}

fn ttl_s() -> i32 {
    60
}

fn spread_s() -> u64 {
    60
}

/// What is done at SPIRE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpireAct {
    /// New SVIDs of the identity live for seconds.
    #[default]
    ShortenTtl,
    /// The identity's entries are deleted, and made again as they were.
    DeleteEntries,
    /// The agents of the nodes on which it is entered are banned.
    BanAgents,
    /// The trust domain's authority is replaced, and the one that has signed so far is revoked.
    RotateAuthority,
}

/// The hook.
#[derive(Debug)]
pub struct Spire {
    server: Server,
    act: SpireAct,
    ttl_s: i32,
    rotation: Rotation,
}

impl Spire {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &SpireConfig, timeout: Duration) -> Result<Self, String> {
        if !(10..=3600).contains(&of.ttl_s) {
            return Err("spire.ttl_s: from 10 to 3600 seconds".to_owned());
        }
        if !(1..=600).contains(&of.spread_s) {
            return Err("spire.spread_s: from 1 to 600 seconds".to_owned());
        }
        let server = Server::new(&of.server, timeout).map_err(|problem| format!("spire.server.{problem}"))?;
        Ok(Self { server, act: of.act, ttl_s: of.ttl_s, rotation: Rotation::new(Duration::from_secs(of.spread_s)) })
    }

    /// The entries of an identity, as the server has them.
    fn entries(&self, id: &str) -> Result<Vec<Kept>, Failure> {
        let filter = EntryFilter { by_spiffe_id: Some(self.own(id)?) };
        let request = ListEntries { filter: Some(filter), page_size: MOST_ENTRIES };
        let Entries { entries } = self.server.call(&LIST_ENTRIES, request)?;
        // A page is named that follows also where nothing does.
        if i32::try_from(entries.len()).is_ok_and(|entries| entries >= MOST_ENTRIES) {
            let why = format!("{id} has {MOST_ENTRIES} entries or more: a template made them; act on that");
            return Err(Failure::Refused(why));
        }
        entries.into_iter().map(|raw| Kept::of(raw, self.server.address())).collect()
    }

    /// The identity, where it is one of the server's trust domain.
    fn own(&self, id: &str) -> Result<SpiffeId, Failure> {
        let own = SpiffeId::parse(id).filter(|id| id.trust_domain == self.server.trust_domain());
        own.ok_or_else(|| Failure::Refused(format!("{id} is not of the trust domain {}", self.server.trust_domain())))
    }

    fn set_ttls(&self, entries: Vec<Entry>) -> Result<(), Failure> {
        let input_mask = Some(EntryMask { x509_svid_ttl: true, jwt_svid_ttl: true });
        let Results { results } = self.server.call(&UPDATE_ENTRIES, UpdateEntries { entries, input_mask })?;
        // One that somebody deletes meanwhile gives out nothing either.
        self.all_done(Results { results }, NOT_FOUND)
    }

    /// Holds every answer of a batch against `fine`, the failure that is none.
    fn all_done(&self, of: Results, fine: i32) -> Result<(), Failure> {
        let mut became = of.results.into_iter().filter_map(|one| one.status);
        match became.find(|status| status.code != 0 && status.code != fine) {
            None => Ok(()),
            Some(status) => {
                Err(Failure::again(format!("{}: {} (code {})", self.server.address(), status.message, status.code)))
            }
        }
    }

    fn read_agents(&self, id: &str, entries: &[Kept]) -> Result<Found, Failure> {
        let mut agents = Vec::new();
        for parent in entries.iter().filter_map(|kept| kept.entry.parent_id.as_ref()) {
            if !parent.path.starts_with(AGENTS) {
                return Ok(Found::Nothing(format!(
                    "{id} is entered beneath {}, which may stand for many nodes: ban the agent that is meant by hand",
                    parent.path
                )));
            }
            if !agents.contains(&parent.path) && !self.is_banned(&parent.path)? {
                agents.push(parent.path.clone());
            }
        }
        if agents.is_empty() {
            return Ok(Found::Nothing("the agents of its nodes are banned or gone already".to_owned()));
        }
        Ok(Found::Target { name: format!("agents {}", agents.join(", ")), before: json!({ "agents": agents }) })
    }

    fn agent(&self, path: &str) -> OneAgent {
        OneAgent { id: Some(SpiffeId { trust_domain: self.server.trust_domain().to_owned(), path: path.to_owned() }) }
    }

    /// Whether the agent is banned, or gone.
    fn is_banned(&self, path: &str) -> Result<bool, Failure> {
        match self.server.call(&GET_AGENT, self.agent(path)) {
            Ok(agent) => Ok(agent.banned),
            Err(Failure::Refused(why)) if why.contains("NotFound") => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    /// Gives each entry its time back where it has the one that Qualm has set.
    fn lengthen(&self, before: &Value) -> Result<Undone, Failure> {
        let (now, set) = (self.entries(text(&before["id"]))?, number(&before["set"]));
        let (mut back, mut foreign) = (Vec::new(), Vec::new());
        for was in before["entries"].as_array().into_iter().flatten() {
            let id = text(&was["id"]);
            let was = Entry {
                id: id.to_owned(),
                x509_svid_ttl: number(&was["x509_svid_ttl"]),
                jwt_svid_ttl: number(&was["jwt_svid_ttl"]),
                ..Entry::default()
            };
            match now.iter().find(|kept| kept.entry.id == id) {
                None => foreign.push(format!("{id} was deleted")),
                Some(kept) if kept.has_ttl(set) => back.push(was),
                Some(kept) if kept.has_ttls_of(&was) => {}
                Some(kept) => foreign.push(format!("{id} has {} s by now", kept.entry.x509_svid_ttl)),
            }
        }
        if !back.is_empty() {
            self.set_ttls(back)?;
        }
        Ok(undone(&foreign, "its entries were changed meanwhile, and stay so"))
    }

    /// Makes the entries again that are not there, byte by byte as they were.
    fn make_again(&self, before: &Value) -> Result<Undone, Failure> {
        let now = self.entries(text(&before["id"]))?;
        let (mut gone, mut ids) = (Vec::new(), Vec::new());
        for raw in before["entries"].as_array().into_iter().flatten() {
            let raw = STANDARD.decode(text(raw));
            let raw = raw.map_err(|error| Failure::Refused(format!("the outbox holds no entry: {error}")))?;
            let kept = Kept::of(raw, "the outbox")?;
            if now.iter().all(|there| there.entry.id != kept.entry.id) {
                ids.push(kept.entry.id.clone());
                gone.push(kept.raw);
            }
        }
        if gone.is_empty() {
            return Ok(Undone::Nothing("somebody has made its entries again already".to_owned()));
        }
        let Results { results } = self.server.call(&CREATE_ENTRIES, CreateEntries { entries: gone })?;
        let there = results
            .iter()
            .zip(&ids)
            .filter(|(one, _)| one.status.as_ref().is_some_and(|status| status.code == ALREADY_EXISTS));
        let foreign: Vec<String> = there.map(|(_, id)| format!("one like {id} is there")).collect();
        self.all_done(Results { results }, ALREADY_EXISTS)?;
        Ok(undone(&foreign, "somebody has made entries like its own, and they stay"))
    }
}

/// An entry: what is read of it, and all of it.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    entry: Entry,
    raw: Vec<u8>,
}

impl Kept {
    fn of(raw: Vec<u8>, from: &str) -> Result<Self, Failure> {
        let entry = Entry::decode(raw.as_slice());
        let entry = entry.map_err(|error| Failure::again(format!("{from} gives an entry that is none: {error}")))?;
        Ok(Self { entry, raw })
    }

    fn has_ttl(&self, ttl: i32) -> bool {
        self.entry.x509_svid_ttl == ttl && self.entry.jwt_svid_ttl == ttl
    }

    fn has_ttls_of(&self, other: &Entry) -> bool {
        self.entry.x509_svid_ttl == other.x509_svid_ttl && self.entry.jwt_svid_ttl == other.jwt_svid_ttl
    }
}

fn undone(foreign: &[String], words: &str) -> Undone {
    if foreign.is_empty() { Undone::Restored } else { Undone::Foreign(format!("{words}: {}", foreign.join(", "))) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|number| number.try_into().ok()).unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect()
}

impl Hook for Spire {
    fn nature(&self) -> Nature {
        let (cuts, way_back) = match self.act {
            SpireAct::ShortenTtl => {
                ("SVIDs that live for longer than some seconds, from its next one on", WayBack::Exact)
            }
            SpireAct::DeleteEntries => ("every renewal of its SVIDs", WayBack::Exact),
            SpireAct::BanAgents => ("every renewal on its nodes, for everybody there", WayBack::None),
            SpireAct::RotateAuthority => ("every SVID signed so far, of everybody in the trust domain", WayBack::None),
        };
        // Agents ask every five seconds.
        let latency_ms = if self.act == SpireAct::RotateAuthority { 180_000 } else { 5_000 };
        Nature {
            latency_ms,
            cuts,
            reach: Reach::Principal,
            way_back,
            repeat: Repeat::Safe,
            when_gone: WhenGone::Say(60),
        }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        let id = order.subject.principal.as_str();
        if SpiffeId::parse(id).is_none_or(|id| id.trust_domain != self.server.trust_domain()) {
            let domain = self.server.trust_domain();
            return Ok(Found::Nothing(format!("{id} is no SPIFFE ID of {domain}, and SPIRE does not issue to it")));
        }
        if self.act == SpireAct::RotateAuthority {
            return self.rotation.read(&self.server);
        }
        let mut entries = self.entries(id)?;
        if entries.is_empty() {
            return Ok(Found::Nothing(format!("SPIRE has no entry for {id}")));
        }
        let name = format!("entries of {id}");
        match self.act {
            SpireAct::BanAgents => self.read_agents(id, &entries),
            SpireAct::DeleteEntries => {
                let raw: Vec<String> = entries.iter().map(|kept| STANDARD.encode(&kept.raw)).collect();
                let ids: Vec<&str> = entries.iter().map(|kept| kept.entry.id.as_str()).collect();
                Ok(Found::Target { name, before: json!({ "id": id, "ids": ids, "entries": raw }) })
            }
            _ => {
                let is_short = |ttl: i32| (1..=self.ttl_s).contains(&ttl);
                entries.retain(|kept| !is_short(kept.entry.x509_svid_ttl) || !is_short(kept.entry.jwt_svid_ttl));
                let ttls = |kept: &Kept| {
                    let Entry { id, x509_svid_ttl, jwt_svid_ttl, .. } = &kept.entry;
                    json!({ "id": id, "x509_svid_ttl": x509_svid_ttl, "jwt_svid_ttl": jwt_svid_ttl })
                };
                if entries.is_empty() {
                    return Ok(Found::Nothing(format!("its SVIDs live for {} s at most already", self.ttl_s)));
                }
                let entries: Vec<Value> = entries.iter().map(ttls).collect();
                Ok(Found::Target { name, before: json!({ "id": id, "set": self.ttl_s, "entries": entries }) })
            }
        }
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        match self.act {
            SpireAct::ShortenTtl => {
                let set = number(&before["set"]);
                let short = |was: &Value| Entry {
                    id: text(&was["id"]).to_owned(),
                    x509_svid_ttl: set,
                    jwt_svid_ttl: set,
                    ..Entry::default()
                };
                self.set_ttls(before["entries"].as_array().into_iter().flatten().map(short).collect())
            }
            SpireAct::DeleteEntries => {
                let results = self.server.call(&DELETE_ENTRIES, DeleteEntries { ids: texts(&before["ids"]) })?;
                self.all_done(results, NOT_FOUND)
            }
            SpireAct::BanAgents => {
                for path in texts(&before["agents"]) {
                    if !self.is_banned(&path)? {
                        self.server.call(&BAN_AGENT, self.agent(&path))?;
                    }
                }
                Ok(())
            }
            SpireAct::RotateAuthority => self.rotation.act(&self.server, text(&before["active"])),
        }
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        let is_in_place = match self.act {
            SpireAct::ShortenTtl => {
                let (now, set) = (self.entries(text(&before["id"]))?, number(&before["set"]));
                let ids = before["entries"].as_array().into_iter().flatten().map(|was| text(&was["id"]));
                // One that is gone gives out nothing.
                ids.filter_map(|id| now.iter().find(|kept| kept.entry.id == id)).all(|kept| kept.has_ttl(set))
            }
            SpireAct::DeleteEntries => self.entries(text(&before["id"]))?.is_empty(),
            SpireAct::BanAgents => {
                let mut is_banned = true;
                for path in texts(&before["agents"]) {
                    is_banned &= self.is_banned(&path)?;
                }
                is_banned
            }
            SpireAct::RotateAuthority => self.rotation.is_revoked(&self.server, text(&before["active"]))?,
        };
        Ok(if is_in_place { Effect::InPlace } else { Effect::Absent })
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        match self.act {
            SpireAct::ShortenTtl => self.lengthen(before),
            SpireAct::DeleteEntries => self.make_again(before),
            SpireAct::BanAgents => Ok(Undone::Nothing("delete the agent, and attest its node anew".to_owned())),
            SpireAct::RotateAuthority => Ok(Undone::Nothing("a revoked authority signs nothing more".to_owned())),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        self.server.call(&LIST_ENTRIES, ListEntries { filter: None, page_size: 1 })?;
        if self.act == SpireAct::RotateAuthority {
            self.rotation.probe(&self.server)?;
        }
        Ok(format!("{} answers, and knows us as an admin", self.server.address()))
    }

    fn survives(&self, _: &Order, _: &Value) -> String {
        match self.act {
            SpireAct::ShortenTtl => "SVIDs already issued, until their own end; new ones for as long as its entry says",
            SpireAct::DeleteEntries => {
                "SVIDs already issued, until their own end: an hour unless the entry said otherwise"
            }
            SpireAct::BanAgents => "SVIDs already issued on those nodes, until their own end",
            SpireAct::RotateAuthority => "connections that are open",
        }
        .to_owned()
    }
}
