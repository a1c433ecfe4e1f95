//! The service `qualm.operator.v1.Operator`: who may ask for what, and when it is answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prometheus::{IntCounterVec, Opts, Registry};
use qualm_hooks::engine::{Hooks, Verb};
use qualm_model::{identity::Peer, level::Level, time::Span};
use qualm_proto::operator::v1::{
    AcceptRequest, AnnounceRequest, EffectReceipt, EffectRequest, LiftRequest, ListEffectsRequest, ListEffectsResponse,
    ListRequest, ListResponse, PauseRequest, Receipt, RehearseAcceptanceRequest, RehearseAcceptanceResponse,
    RehearseRequest, RehearseResponse, ResumeRequest, SetRequest, ShowRequest, ShowResponse,
    operator_server::{Operator, OperatorServer},
};
use qualm_scorer::{
    journal::Journal,
    operator::{Ask, InShadow, LONGEST_NAME, Refusal, accepted},
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::{
    Call, Done,
    allowance::{Allowances, Effort},
    wire,
};
use crate::listen::roles::{Authority, Roles};

/// Bytes of a request; none needs a tenth of it.
pub(super) const LARGEST_REQUEST: usize = 16 << 10;
/// Entries in one answer.
pub(super) const LISTED: usize = 1_000;
/// Whoever is on this machine, where the port is without TLS.
const LOOPBACK: &str = "loopback";

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    roles: Arc<Roles>,
    calls: mpsc::Sender<Call>,
    pub(super) journal: Journal,
    pub(super) hooks: Option<Hooks>,
    allowances: Arc<Mutex<Allowances>>,
    counted: IntCounterVec,
}

/// A call as it came in.
pub(super) struct Asked<'a> {
    pub(super) call: &'static str,
    pub(super) identity: Option<&'a str>,
    pub(super) needs: Authority,
    pub(super) effort: Effort,
}

impl Desk {
    /// A service that asks the loop at the other end of `calls`, and answers once `journal` has on disk what was done.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub(crate) fn new(
        roles: Arc<Roles>,
        calls: mpsc::Sender<Call>,
        (journal, hooks): (Journal, Option<Hooks>),
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let help = "Calls at the operator's interface by what became of them: done, repeated, refused, failed.";
        let counted = IntCounterVec::new(Opts::new("qualm_operator_calls_total", help), &["call", "outcome"])?;
        registry.register(Box::new(counted.clone()))?;
        Ok(Self { roles, calls, journal, hooks, allowances: Arc::default(), counted })
    }

    /// The service for the port.
    pub(crate) fn service(self) -> OperatorServer<Self> {
        OperatorServer::new(self).max_decoding_message_size(LARGEST_REQUEST)
    }

    /// Who asks, if they may. What is refused is told to the loop, which journals it.
    pub(super) fn caller<T>(&self, request: &Request<T>, asked: &Asked<'_>) -> Result<String, Status> {
        let (who, authority) = match request.extensions().get::<Peer>() {
            Some(Peer::Loopback) => (LOOPBACK.to_owned(), Some(Authority::Admin)),
            Some(Peer::Verified(id)) => (id.to_string(), self.roles.authority(id)),
            None => return Err(Status::unauthenticated("no verified peer; connect with a client certificate")),
        };
        let taken =
            self.allowances.lock().unwrap_or_else(PoisonError::into_inner).take(&who, asked.effort, Instant::now());
        if let Err(wait) = taken {
            let why = format!("{who} asks too often; wait {:.1} s", wait.as_secs_f64());
            return Err(self.refuse(&who, asked, Status::resource_exhausted(why)));
        }
        if authority < Some(asked.needs) {
            let key = asked.needs.key();
            let why = format!(
                "{who} may not `{}`: it is not listed in listen.{key} of Qualm's configuration, nor in a list above",
                asked.call
            );
            return Err(self.refuse(&who, asked, Status::permission_denied(why)));
        }
        Ok(who)
    }

    fn refuse(&self, by: &str, asked: &Asked<'_>, status: Status) -> Status {
        self.count(asked.call, "refused");
        let refused = Call::Refused {
            by: by.to_owned(),
            call: asked.call,
            identity: asked.identity.map(|identity| identity.chars().take(LONGEST_NAME).collect()),
            why: status.message().to_owned(),
        };
        // While the loop is that far behind refusals are counted only.
        let _ = self.calls.try_send(refused);
        status
    }

    pub(super) fn count(&self, call: &str, outcome: &str) {
        self.counted.with_label_values(&[call, outcome]).inc();
    }

    /// Hands a call to the loop and waits for its answer.
    pub(super) async fn ask<T>(&self, call: Call, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        let gone = || Status::unavailable("Qualm is stopping; ask again when it runs");
        self.calls.send(call).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Has something done, and answers once that is on disk.
    async fn carry_out(&self, by: String, (why, key): (String, String), ask: Ask) -> Result<Response<Receipt>, Status> {
        let name = ask.name();
        let request = super::Request { by: by.clone(), why, key, ask };
        let (answer, answered) = oneshot::channel();
        let done = self.ask(Call::Do(Box::new(request), answer), answered).await?;
        let done = done.map_err(|refusal| {
            self.count(name, "refused");
            status_of(&refusal)
        })?;
        if let Err(problem) = self.on_disk(&done).await {
            self.count(name, "failed");
            return Err(Status::unavailable(format!(
                "the journal could not take it ({problem}): it is not answered for, and a restart may forget it; mend \
                 the disk, see `show` or `list`, and call again under a new idempotency key"
            )));
        }
        self.count(name, if done.repeated { "repeated" } else { "done" });
        Ok(Response::new(wire::receipt(by, &done)))
    }

    async fn on_disk(&self, done: &Done) -> Result<(), String> {
        let record = done.record.ok_or_else(|| "no record".to_owned())?;
        self.journal.durable(record).await.map_err(|error| error.to_string())
    }
}

#[tonic::async_trait]
impl Operator for Desk {
    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let asked = Asked { call: "list", identity: None, needs: Authority::Viewer, effort: Effort::Look };
        self.caller(&request, &asked)?;
        let ListRequest { identity, limit, .. } = request.get_ref();
        if identity.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("the name has more than {LONGEST_NAME} bytes; shorten it")));
        }
        let at_least = wire::level(request.get_ref().at_least())?;
        let (answer, answered) = oneshot::channel();
        let table = self.ask(Call::Table(answer), answered).await?;
        let limit = usize::try_from(*limit).ok().filter(|limit| (1..=LISTED).contains(limit)).unwrap_or(LISTED);
        self.count("list", "done");
        Ok(Response::new(wire::table(&table, at_least, identity, limit)))
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowResponse>, Status> {
        let part = request.get_ref().identity.clone();
        let asked = Asked { call: "show", identity: Some(&part), needs: Authority::Viewer, effort: Effort::Look };
        self.caller(&request, &asked)?;
        if part.is_empty() || part.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("name an identity, in 1 to {LONGEST_NAME} bytes")));
        }
        let (answer, answered) = oneshot::channel();
        let shown = self.ask(Call::Show { part, answer }, answered).await?;
        let portrait = shown.map_err(|not_one| {
            self.count("show", "refused");
            Status::not_found(not_one.to_string())
        })?;
        self.count("show", "done");
        Ok(Response::new(wire::portrait(&portrait)))
    }

    async fn rehearse(&self, request: Request<RehearseRequest>) -> Result<Response<RehearseResponse>, Status> {
        let part = request.get_ref().identity.clone();
        let asked = Asked { call: "rehearse", identity: Some(&part), needs: Authority::Viewer, effort: Effort::Look };
        self.caller(&request, &asked)?;
        if part.is_empty() || part.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("name an identity, in 1 to {LONGEST_NAME} bytes")));
        }
        let level = wire::level(request.get_ref().level())?;
        if !Level::BY_BEHAVIOUR.contains(&level) {
            let what = "one of watched, throttled, restricted, quarantined can be rehearsed";
            return Err(Status::invalid_argument(what));
        }
        let instance = Some(request.get_ref().instance.clone()).filter(|instance| !instance.is_empty());
        let (answer, answered) = oneshot::channel();
        let rehearsed = self.ask(Call::Rehearse { part, instance, level, answer }, answered).await?;
        let rehearsal = rehearsed.map_err(|not_one| {
            self.count("rehearse", "refused");
            Status::not_found(not_one.to_string())
        })?;
        self.count("rehearse", "done");
        Ok(Response::new(wire::rehearsal(&rehearsal)))
    }

    async fn accept(&self, request: Request<AcceptRequest>) -> Result<Response<Receipt>, Status> {
        let identity = Some(request.get_ref().identity.as_str());
        let asked = Asked { call: "accept", identity, needs: Authority::Operator, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let AcceptRequest { identity, question, object, expires, reason, idempotency_key, withdraw } =
            request.into_inner();
        let ask = Ask::Accept {
            identity,
            question: wire::question(&question)?,
            object: (!object.is_empty()).then_some(object),
            lasts: (!withdraw).then(|| wire::span(expires).unwrap_or(accepted::LASTS.1)),
            parts: Vec::new(),
        };
        self.carry_out(by, (reason, idempotency_key), ask).await
    }

    async fn rehearse_acceptance(
        &self,
        request: Request<RehearseAcceptanceRequest>,
    ) -> Result<Response<RehearseAcceptanceResponse>, Status> {
        let RehearseAcceptanceRequest { identity: part, question, object } = request.get_ref().clone();
        let call = "rehearse_acceptance";
        let asked = Asked { call, identity: Some(&part), needs: Authority::Viewer, effort: Effort::Look };
        self.caller(&request, &asked)?;
        if part.is_empty() || part.len() > LONGEST_NAME || object.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("name an identity, in 1 to {LONGEST_NAME} bytes")));
        }
        let (question, object) = (wire::question(&question)?, (!object.is_empty()).then_some(object));
        let (answer, answered) = oneshot::channel();
        let previewed = self.ask(Call::Preview { part, question, object, answer }, answered).await?;
        let previewed = previewed.map_err(|not_one| {
            self.count(call, "refused");
            Status::not_found(not_one.to_string())
        })?;
        self.count(call, "done");
        let (preview, decisions) = *previewed;
        Ok(Response::new(wire::preview(&preview, &decisions)))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<Receipt>, Status> {
        let asked = Asked { call: "announce", identity: None, needs: Authority::Announcer, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let AnnounceRequest { service, cluster, lasts, reason, idempotency_key } = request.into_inner();
        let ask = Ask::Announce {
            service,
            cluster: Some(cluster).filter(|cluster| !cluster.is_empty()),
            lasts: wire::span(lasts).unwrap_or(Span(0)),
        };
        self.carry_out(by, (reason, idempotency_key), ask).await
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<Receipt>, Status> {
        let SetRequest { identity, overrides, .. } = request.get_ref();
        let needs = if overrides.is_empty() { Authority::Operator } else { Authority::Admin };
        let asked = Asked { call: "set", identity: Some(identity), needs, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let level = request.get_ref().level();
        let overrides = wire::overrides(request.get_ref().overrides())?;
        let SetRequest { identity, instance, lease, reason, idempotency_key, act_in_shadow_mode, .. } =
            request.into_inner();
        let ask = Ask::Set {
            identity,
            instance: (!instance.is_empty()).then_some(instance),
            level: wire::level(level)?,
            lease: wire::span(lease).unwrap_or(Span(0)),
            in_shadow: if act_in_shadow_mode { InShadow::Acts } else { InShadow::Marks },
            overrides,
        };
        self.carry_out(by, (reason, idempotency_key), ask).await
    }

    async fn lift(&self, request: Request<LiftRequest>) -> Result<Response<Receipt>, Status> {
        let identity = Some(request.get_ref().identity.as_str());
        let asked = Asked { call: "lift", identity, needs: Authority::Operator, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let LiftRequest { identity, instance, reason, idempotency_key, hold } = request.into_inner();
        let instance = (!instance.is_empty()).then_some(instance);
        let ask = Ask::Lift { identity, instance, hold: wire::span(hold) };
        self.carry_out(by, (reason, idempotency_key), ask).await
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<Receipt>, Status> {
        let asked = Asked { call: "pause", identity: None, needs: Authority::Approver, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let PauseRequest { lease, reason, idempotency_key } = request.into_inner();
        let ask = Ask::Pause { lease: wire::span(lease).unwrap_or(Span(0)) };
        self.carry_out(by, (reason, idempotency_key), ask).await
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<Receipt>, Status> {
        let asked = Asked { call: "resume", identity: None, needs: Authority::Approver, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let ResumeRequest { reason, idempotency_key } = request.into_inner();
        self.carry_out(by, (reason, idempotency_key), Ask::Resume).await
    }

    async fn list_effects(
        &self,
        request: Request<ListEffectsRequest>,
    ) -> Result<Response<ListEffectsResponse>, Status> {
        self.effects(&request)
    }

    async fn approve(&self, request: Request<EffectRequest>) -> Result<Response<EffectReceipt>, Status> {
        self.word(Verb::Approve, request).await
    }

    async fn reject(&self, request: Request<EffectRequest>) -> Result<Response<EffectReceipt>, Status> {
        self.word(Verb::Reject, request).await
    }

    async fn undo(&self, request: Request<EffectRequest>) -> Result<Response<EffectReceipt>, Status> {
        self.word(Verb::Undo, request).await
    }
}

fn status_of(refusal: &Refusal) -> Status {
    let words = refusal.to_string();
    match refusal {
        Refusal::Invalid(_) => Status::invalid_argument(words),
        Refusal::Unknown(_) => Status::not_found(words),
        Refusal::KeyUsed(_) => Status::already_exists(words),
        Refusal::TooMany(_) => Status::resource_exhausted(words),
        Refusal::CarriesNoTrust(_)
        | Refusal::Shared(_)
        | Refusal::Protected(_)
        | Refusal::BlastRadius { .. }
        | Refusal::NothingStands(_)
        | Refusal::NothingWithheld(_)
        | Refusal::NothingAccepted(_)
        | Refusal::NotPaused => Status::failed_precondition(words),
    }
}
