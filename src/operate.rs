//! What a person asks and decides at the command line, over the operator's interface of a running instance.
//!
//! # Layout
//! - [`args`]: what can be typed
//! - [`channel`]: where the instance is, and who it and we are
//! - [`tell`]: its answers for people and as JSON
//! - [`confirm`]: a quarantine is rehearsed and asked about before it is made
//! - [`mod@rehearsed`]: what a level would have denied
//! - [`mod@accepted`]: what an acceptance would have hidden
//! - [`hooks`]: what hooks have done, and what is said to it

mod accepted;
pub(crate) mod args;
mod channel;
mod confirm;
pub(crate) mod hooks;
mod rehearsed;
mod tell;

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, Write as _},
    net::IpAddr,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use qualm_model::{level::Level, time::Span};
use qualm_proto::{
    operator::v1::{
        AcceptRequest, AnnounceRequest, LiftRequest, ListRequest, Override as WireOverride, PauseRequest,
        RehearseAcceptanceRequest, RehearseRequest, RehearseResponse, ResumeRequest, SetRequest, ShowRequest,
        ShowResponse,
    },
    trust::v1::Level as WireLevel,
};
use qualm_scorer::notify::plain;
use tonic::{Code, Status};

use self::{
    args::{
        AcceptArgs, AnnounceArgs, LiftArgs, ListArgs, Overriding, PauseArgs, Reasoned, RehearseArgs, ResumeArgs,
        ServerArgs, SetArgs, ShowArgs,
    },
    channel::Client,
};
use crate::{clock, operator::wire::wire_level};

/// There was no answer, or one that says that it failed there: exit code 1 instead of 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAnswered(String);

/// `qualm list`.
///
/// # Errors
/// The instance cannot be reached, or refuses.
pub(crate) fn list(args: &ListArgs) -> Result<ExitCode> {
    let request = ListRequest {
        at_least: args.level.map_or(WireLevel::Unspecified, wire_level).into(),
        identity: args.identity.clone().unwrap_or_default(),
        limit: 0,
    };
    let answer = answered(&args.server, async |client| client.list(request).await)?;
    print(&if args.server.json { tell::json_of_list(&answer) } else { tell::list(&answer)? })
}

/// `qualm show`.
///
/// # Errors
/// As [`list`].
pub(crate) fn show(args: &ShowArgs) -> Result<ExitCode> {
    let answer = shown(&args.server, &args.identity)?;
    print(&if args.server.json { tell::json_of_show(&answer) } else { tell::show(&answer)? })
}

/// `qualm rehearse`.
///
/// # Errors
/// As [`list`].
pub(crate) fn rehearse(args: &RehearseArgs) -> Result<ExitCode> {
    let answer = rehearsed(&args.server, &args.identity, args.instance, args.level)?;
    print(&if args.server.json { rehearsed::json(&answer) } else { rehearsed::told(&answer, usize::MAX)? })
}

/// `qualm announce`.
///
/// # Errors
/// As [`list`].
pub(crate) fn announce(args: &AnnounceArgs) -> Result<ExitCode> {
    let request = AnnounceRequest {
        service: args.service.clone(),
        cluster: args.cluster.clone().unwrap_or_default(),
        lasts: Some(duration(args.lasts)),
        reason: args.reasoned.reason.clone(),
        idempotency_key: key(&args.reasoned),
    };
    let answer = answered(&args.server, async |client| client.announce(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

/// `qualm accept`.
///
/// # Errors
/// As [`list`]; or it is not confirmed.
pub(crate) fn accept(args: &AcceptArgs) -> Result<ExitCode> {
    let (question, object) = (args.question.clone().unwrap_or_default(), args.object.clone().unwrap_or_default());
    let request = RehearseAcceptanceRequest {
        identity: args.identity.clone(),
        question: question.clone(),
        object: object.clone(),
    };
    let preview = answered(&args.server, async |client| client.rehearse_acceptance(request).await)?;
    if !args.withdraw {
        io::stderr().write_all(accepted::told(&preview)?.as_bytes())?;
        if !args.yes && !preview.withheld.is_empty() {
            confirm::yes(&format!("accept it for {}? type yes: ", tell::length(args.expires)))?;
        }
    }
    let request = AcceptRequest {
        identity: preview.identity,
        question,
        object,
        expires: Some(duration(args.expires)),
        reason: args.reasoned.reason.clone(),
        idempotency_key: key(&args.reasoned),
        withdraw: args.withdraw,
    };
    let answer = answered(&args.server, async |client| client.accept(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

/// `qualm quarantine`, `restrict`, `throttle`, `watch`.
///
/// # Errors
/// As [`list`]; or it is not confirmed.
pub(crate) fn set(args: &SetArgs, level: Level) -> Result<ExitCode> {
    let known = shown(&args.server, &args.identity)?;
    if level == Level::Quarantined {
        // Whoever has never called has nothing that could be rehearsed, and can be denied all the same.
        let rehearsal = match known.first_seen {
            Some(_) => Some(rehearsed(&args.server, &known.identity, args.instance, level)?),
            None => None,
        };
        confirm::ask(&known.identity, rehearsal.as_ref(), args)?;
    }
    let overriding = |of: &Overriding| match of {
        Overriding::Protected => WireOverride::Protected.into(),
        Overriding::MaxShare => WireOverride::MaxShare.into(),
    };
    let request = SetRequest {
        identity: known.identity,
        instance: args.instance.map(|instance| instance.to_string()).unwrap_or_default(),
        level: wire_level(level).into(),
        lease: Some(duration(args.lease)),
        reason: args.reasoned.reason.clone(),
        idempotency_key: key(&args.reasoned),
        act_in_shadow_mode: args.act_in_shadow_mode,
        overrides: args.overriding.iter().map(overriding).collect(),
    };
    let answer = answered(&args.server, async |client| client.set(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

/// `qualm lift`.
///
/// # Errors
/// As [`list`].
pub(crate) fn lift(args: &LiftArgs) -> Result<ExitCode> {
    let known = shown(&args.server, &args.identity)?;
    let request = LiftRequest {
        identity: known.identity,
        instance: args.instance.map(|instance| instance.to_string()).unwrap_or_default(),
        reason: args.reasoned.reason.clone(),
        idempotency_key: key(&args.reasoned),
        hold: args.hold.map(duration),
    };
    let answer = answered(&args.server, async |client| client.lift(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

/// `qualm pause`.
///
/// # Errors
/// As [`list`].
pub(crate) fn pause(args: &PauseArgs) -> Result<ExitCode> {
    let request = PauseRequest {
        lease: Some(duration(args.lease)),
        reason: args.reasoned.reason.clone(),
        idempotency_key: key(&args.reasoned),
    };
    let answer = answered(&args.server, async |client| client.pause(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

/// `qualm resume`.
///
/// # Errors
/// As [`list`].
pub(crate) fn resume(args: &ResumeArgs) -> Result<ExitCode> {
    let request = ResumeRequest { reason: args.reasoned.reason.clone(), idempotency_key: key(&args.reasoned) };
    let answer = answered(&args.server, async |client| client.resume(request).await)?;
    print(&if args.server.json { tell::json_of_receipt(&answer) } else { tell::receipt(&answer)? })
}

fn shown(server: &ServerArgs, identity: &str) -> Result<ShowResponse> {
    let request = ShowRequest { identity: identity.to_owned() };
    answered(server, async |client| client.show(request).await)
}

fn rehearsed(server: &ServerArgs, identity: &str, instance: Option<IpAddr>, level: Level) -> Result<RehearseResponse> {
    let request = RehearseRequest {
        identity: identity.to_owned(),
        instance: instance.map(|instance| instance.to_string()).unwrap_or_default(),
        level: wire_level(level).into(),
    };
    answered(server, async |client| client.rehearse(request).await)
}

/// Connects, asks, and tells why there is no answer.
fn answered<T>(
    server: &ServerArgs,
    ask: impl AsyncFnOnce(&mut Client) -> Result<tonic::Response<T>, Status>,
) -> Result<T> {
    let route = channel::Route::of(server)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let mut client = route.connect().await.map_err(NotAnswered)?;
        match ask(&mut client).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(refused(&status, &route)),
        }
    })
}

/// What a status says to whoever has typed the command.
fn refused(status: &Status, route: &channel::Route) -> anyhow::Error {
    // Names in it may be anybody's; its lines are ours.
    let words: Vec<String> = status.message().lines().map(plain).collect();
    let words = words.join("\n");
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unauthenticated
        | Code::ResourceExhausted => anyhow::Error::msg(words),
        Code::Unavailable if std::error::Error::source(status).is_none() => NotAnswered(words).into(),
        _ => NotAnswered(format!("{}: {}", route.closed(), words)).into(),
    }
}

/// The key that was given, or a new one: random keys of the process, and the moment.
fn key(reasoned: &Reasoned) -> String {
    reasoned.key.clone().unwrap_or_else(|| {
        let of = (clock::system().now().0, std::process::id());
        let half = || RandomState::new().hash_one(of);
        format!("{:016x}{:016x}", half(), half())
    })
}

fn duration(span: Span) -> prost_types::Duration {
    prost_types::Duration { seconds: span.0 / Span::SECOND.0, nanos: 0 }
}

fn print(text: &str) -> Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
