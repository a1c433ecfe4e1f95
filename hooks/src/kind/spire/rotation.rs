//! The authority that signs SVIDs is replaced, and the one before is revoked: step by step, with time between for all to
//! hear of each. How far it has come is read at the server, so that whoever begins again goes on where it was.

use std::time::{Duration, Instant};

use serde_json::json;
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer as _};

use super::{
    api::{
        ACTIVATE, Authorities, Authority, GET_AUTHORITIES, GET_BUNDLE, Nothing, OneAuthority, PREPARE, REVOKE, Root,
        TAINT,
    },
    server::Server,
};
use crate::hook::{Failure, Found};

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no other authority.
    Begun,
    /// There is one that signs nothing yet.
    Prepared,
    /// It signs; what the one before has signed still holds.
    Activated,
    /// Agents renew what the one before has signed.
    Tainted,
    /// What the one before has signed is refused.
    Revoked,
}

/// A rotation under way.
#[derive(Debug)]
pub(super) struct Rotation {
    /// How long it takes until all have heard of a step.
    spread: Duration,
    /// Which stage was seen first when.
    since: Option<(Stage, Instant)>,
}

impl Rotation {
    pub(super) fn new(spread: Duration) -> Self {
        Self { spread, since: None }
    }

    /// The authority that is to be replaced.
    pub(super) fn read(&self, server: &Server) -> Result<Found, Failure> {
        let Some(active) = server.call(&GET_AUTHORITIES, Nothing {})?.active else {
            return Ok(Found::Nothing("the server has no active authority".to_owned()));
        };
        if !active.upstream_authority_subject_key_id.is_empty() {
            let why = "its authority is signed by another one upstream: SPIRE lets it be revoked there only";
            return Ok(Found::Nothing(why.to_owned()));
        }
        let name = format!("authority {} of {}", active.authority_id, server.trust_domain());
        Ok(Found::Target { name, before: json!({ "active": active.authority_id }) })
    }

    /// Takes the next step, once all have heard of the one before.
    ///
    /// # Errors
    /// There is one more (`Again`), or what the server refuses.
    pub(super) fn act(&mut self, server: &Server, old: &str) -> Result<(), Failure> {
        let (stage, prepared) = stage(server, old)?;
        let since = match self.since {
            Some((seen, since)) if seen == stage => since,
            // Also where it was begun before this process: nobody knows how long ago.
            _ => self.since.insert((stage, Instant::now())).1,
        };
        let wait = self.spread.saturating_sub(since.elapsed());
        if !wait.is_zero() && matches!(stage, Stage::Prepared | Stage::Activated | Stage::Tainted) {
            return Err(again(stage, wait));
        }
        let of = |authority_id: &str| OneAuthority { authority_id: authority_id.to_owned() };
        let next = match stage {
            Stage::Begun => server.call(&PREPARE, Nothing {}).map(|_| Stage::Prepared)?,
            Stage::Prepared => server.call(&ACTIVATE, of(&prepared)).map(|_| Stage::Activated)?,
            Stage::Activated => server.call(&TAINT, of(old)).map(|_| Stage::Tainted)?,
            Stage::Tainted => return server.call(&REVOKE, of(old)).map(drop),
            Stage::Revoked => return Ok(()),
        };
        self.since = Some((next, Instant::now()));
        Err(again(next, self.spread))
    }

    /// Whether what the authority has signed is refused.
    pub(super) fn is_revoked(&self, server: &Server, old: &str) -> Result<bool, Failure> {
        Ok(stage(server, old)?.0 == Stage::Revoked)
    }

    /// Whether we may ask about authorities.
    pub(super) fn probe(&self, server: &Server) -> Result<(), Failure> {
        server.call(&GET_AUTHORITIES, Nothing {}).map(drop)
    }
}

/// How far the replacement of an authority has come, and the one that is prepared.
fn stage(server: &Server, old: &str) -> Result<(Stage, String), Failure> {
    let Authorities { active, prepared } = server.call(&GET_AUTHORITIES, Nothing {})?;
    let id = |of: Option<Authority>| of.map(|of| of.authority_id).unwrap_or_default();
    let (active, prepared) = (id(active), id(prepared));
    let bundle = server.call(&GET_BUNDLE, Nothing {})?;
    let root = bundle.x509_authorities.iter().find(|root| key_id(root).as_deref() == Some(old));
    let stage = match root {
        // An authority that signs is in the bundle; it may be a moment behind.
        _ if active == old && prepared.is_empty() => Stage::Begun,
        _ if active == old => Stage::Prepared,
        None => Stage::Revoked,
        Some(root) if root.tainted => Stage::Tainted,
        Some(_) => Stage::Activated,
    };
    Ok((stage, prepared))
}

fn again(stage: Stage, wait: Duration) -> Failure {
    let (done, next) = match stage {
        Stage::Begun | Stage::Revoked => ("nothing", "prepared"),
        Stage::Prepared => ("prepared", "activated"),
        Stage::Activated => ("activated", "the one before is tainted"),
        Stage::Tainted => ("tainted", "the one before is revoked"),
    };
    let why = format!("the rotation goes on: {done}; next, when all have heard of it: {next}");
    Failure::Again { why, after_s: Some(wait.as_secs() + 1) }
}

/// The subject key id of a root, in hexadecimal digits, as SPIRE calls authorities.
fn key_id(root: &Root) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(&root.asn1).ok()?;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(const_hex::encode(id.0)),
        _ => None,
    })
}
