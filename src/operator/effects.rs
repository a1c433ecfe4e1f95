//! What hooks have done, and what people say to it.

use qualm_hooks::{
    effect::Stored,
    engine::{Hooks, Verb},
    ledger::Refusal,
};
use qualm_proto::operator::v1::{Effect, EffectReceipt, EffectRequest, ListEffectsRequest, ListEffectsResponse};
use qualm_scorer::operator::{LONGEST_NAME, LONGEST_REASON};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{
    Call,
    allowance::Effort,
    desk::{Asked, Desk, LISTED},
    wire::{time, wire_level},
};
use crate::listen::roles::Authority;

impl Desk {
    fn running(&self) -> Result<&Hooks, Status> {
        self.hooks.as_ref().ok_or_else(|| Status::failed_precondition("no [[hook]] is configured"))
    }

    /// What hooks have done.
    pub(super) fn effects(
        &self,
        request: &Request<ListEffectsRequest>,
    ) -> Result<Response<ListEffectsResponse>, Status> {
        let asked = Asked { call: "list_effects", identity: None, needs: Authority::Viewer, effort: Effort::Look };
        self.caller(request, &asked)?;
        let ListEffectsRequest { identity, ended, limit } = request.get_ref();
        if identity.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("the name has more than {LONGEST_NAME} bytes; shorten it")));
        }
        let mut effects = self.hooks.as_ref().map(|hooks| hooks.view().effects).unwrap_or_default();
        effects.retain(|of| (*ended || !of.state.is_ended()) && of.key.subject.to_string().contains(identity.as_str()));
        effects.sort_by_key(|of| std::cmp::Reverse(of.times.wanted));
        let limit = usize::try_from(*limit).ok().filter(|limit| (1..=LISTED).contains(limit)).unwrap_or(LISTED);
        self.count("list_effects", "done");
        Ok(Response::new(ListEffectsResponse {
            left_out: u32::try_from(effects.len().saturating_sub(limit)).unwrap_or(u32::MAX),
            effects: effects.iter().take(limit).map(effect).collect(),
        }))
    }

    /// A person's word about an effect: journalled, on disk, and then followed.
    pub(super) async fn word(
        &self,
        verb: Verb,
        request: Request<EffectRequest>,
    ) -> Result<Response<EffectReceipt>, Status> {
        let (call, needs) = match verb {
            Verb::Approve => ("approve", Authority::Approver),
            Verb::Reject => ("reject", Authority::Approver),
            Verb::Undo => ("undo", Authority::Operator),
        };
        let asked = Asked { call, identity: None, needs, effort: Effort::Change };
        let by = self.caller(&request, &asked)?;
        let hooks = self.running()?;
        let EffectRequest { id, reason } = request.into_inner();
        let is_plain =
            !reason.is_empty() && reason.chars().count() <= LONGEST_REASON && !reason.contains(char::is_control);
        if !is_plain || id.is_empty() || id.len() > 64 {
            let why = format!("an id, and a reason of 1 to {LONGEST_REASON} characters on one line are needed");
            return Err(Status::invalid_argument(why));
        }
        let (answer, journalled) = oneshot::channel();
        let word = Call::Word { by: by.clone(), call, effect: id.clone(), why: reason.clone(), answer };
        let record = self.ask(word, journalled).await?;
        let on_disk = match record {
            Some(record) => self.journal.durable(record).await.map_err(|error| error.to_string()),
            None => Err("no record".to_owned()),
        };
        if let Err(problem) = on_disk {
            self.count(call, "failed");
            return Err(Status::unavailable(format!(
                "the journal could not take it ({problem}), and nothing was done; mend the disk and call again"
            )));
        }
        let (answer, followed) = oneshot::channel();
        hooks.word(verb, id, (by.clone(), reason), move |became| {
            // Whoever has asked may be gone.
            let _ = answer.send(became);
        });
        let became = followed.await.map_err(|_| Status::unavailable("Qualm is stopping; ask again when it runs"))?;
        let became = became.map_err(|refusal| {
            self.count(call, "refused");
            status_of(&refusal)
        })?;
        self.count(call, "done");
        let record = record.map_or(0, |record| record.0);
        Ok(Response::new(EffectReceipt { record, by, effect: Some(effect(&became)) }))
    }
}

fn status_of(refusal: &Refusal) -> Status {
    let words = refusal.to_string();
    match refusal {
        Refusal::Unknown(_) | Refusal::Several(_) => Status::not_found(words),
        Refusal::State { .. } => Status::failed_precondition(words),
        Refusal::NotYou(_) => Status::permission_denied(words),
    }
}

fn effect(of: &Stored) -> Effect {
    let subject = &of.key.subject;
    let whole = qualm_hooks::order::Subject { instance: None, ..subject.clone() };
    let (by, reason) = of.word.as_ref().map(|word| (word.by.clone(), word.why.clone())).unwrap_or_default();
    Effect {
        id: of.id.clone(),
        hook: of.key.hook.clone(),
        identity: whole.to_string(),
        instance: subject.instance.clone().unwrap_or_default(),
        level: wire_level(of.order.level).into(),
        decision_id: of.order.decision.clone(),
        state: of.state.as_str().to_owned(),
        target: of.target.clone().unwrap_or_default(),
        needs: of.needs.clone().unwrap_or_default(),
        problem: of.problem.clone().unwrap_or_default(),
        survives: of.survives.clone(),
        by,
        reason,
        wanted: Some(time(of.times.wanted)),
        effective: of.times.effective.map(time),
        ended: of.times.ended.map(time),
        until: Some(time(of.until)),
    }
}
