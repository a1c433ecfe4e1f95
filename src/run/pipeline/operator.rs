//! What a person asks and decides enters the loop here: as a command that is journalled at the event time of now.

use std::time::{Duration, Instant};

use qualm_model::{detector::Question, level::Level};
use qualm_scorer::{
    journal::Seq,
    operator::{Instruction, LONGEST_NAME, Refusal, look::Line, rehearsed::Rehearsal},
    verdict::{Cause, Reason, Verdict},
    withheld::Withheld,
};

use super::{Notice, Pipeline, journal::Command};
use crate::{
    identities::{Chosen, choose, listed, nearest},
    operator::{Call, Done, Foreseen, InForce, NotOne, Portrait, Request, Table},
    run::publish::{Owed, is_synced_first},
};

/// Records of refusals a second; the others are counted in the next one.
const REFUSALS_A_SECOND: u32 = 5;
/// Names among which it is looked for who is meant: the loop stands still meanwhile.
const FITTING: usize = 10_000;

/// How many refusals have records.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    second: Option<(Instant, u32)>,
    unrecorded: u64,
}

impl Refusals {
    /// Whether one more may have a record, and how many before it have none.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let (begin, written) =
            self.second.filter(|(begin, _)| now - *begin < Duration::from_secs(1)).unwrap_or((now, 0));
        if written >= REFUSALS_A_SECOND {
            self.unrecorded += 1;
            return None;
        }
        self.second = Some((begin, written + 1));
        Some(std::mem::take(&mut self.unrecorded))
    }
}

impl Pipeline {
    /// Answers a call. Whoever has asked may be gone: what was done is done.
    pub(super) fn take_call(&mut self, call: Call) {
        match call {
            Call::Table(answer) => {
                let lines = self.state.scorer.lines();
                let holds = self.state.scorer.holds(self.setup.clock.now());
                let announcements = self.state.scorer.announcements().cloned().collect();
                let acceptances = self.state.scorer.acceptances().cloned().collect();
                let in_force = self.in_force();
                let _ = answer.send(Table { lines, holds, announcements, acceptances, in_force });
            }
            Call::Show { part, answer } => {
                let _ = answer.send(self.portrait(&part).map(Box::new));
            }
            Call::Rehearse { part, instance, level, answer } => {
                let _ = answer.send(self.rehearsal(&part, instance.as_deref(), level).map(Box::new));
            }
            Call::Preview { part, question, object, answer } => {
                let _ = answer.send(self.preview(&part, question, object.as_deref()).map(Box::new));
            }
            Call::Do(request, answer) => {
                let (by, call) = (request.by.clone(), request.ask.name());
                // One that is longer is refused.
                let identity =
                    request.ask.identity().map(|identity| identity.chars().take(LONGEST_NAME).collect::<String>());
                let done = self.carry_out(*request);
                if let Err(refusal) = &done {
                    self.journal_refusal((&by, call), identity.as_deref(), &refusal.to_string());
                }
                let _ = answer.send(done);
            }
            Call::Word { by, call, effect, why, answer } => {
                tracing::warn!(by, call, effect, why, "an operator has acted on a hook");
                let command = Command::HookWord { by: &by, call, effect: &effect, why: &why };
                let _ = answer.send(self.journal_command(&command));
            }
            Call::Refused { by, call, identity, why } => {
                self.journal_refusal((&by, call), identity.as_deref(), &why);
            }
        }
    }

    /// A pause has ended by itself: what stands acts again.
    pub(super) fn end_pause(&mut self) {
        tracing::warn!("the pause of all enforcement has ended: what stands acts again");
        self.journal_command(&Command::PauseEnded);
        self.publish(Vec::new(), None);
    }

    fn in_force(&self) -> InForce {
        InForce { mode: self.state.scorer.mode(), pause: self.state.scorer.pause().cloned() }
    }

    pub(super) fn carry_out(&mut self, request: Request) -> Result<Done, Refusal> {
        let Request { by, why, key, ask } = request;
        let at = self.setup.clock.now();
        let event = self.state.scorer.watermark().unwrap_or(at);
        let mut instruction = Instruction { by, why, key, at, event, ask };
        instruction.check()?;
        if let Some(record) = self.state.scorer.answered(&instruction)? {
            return Ok(self.done(&instruction, Some(Seq(record)), true));
        }
        self.state.scorer.complete(&mut instruction);
        let mut verdicts = Vec::new();
        let obeyed = self.state.scorer.obey(&instruction, &mut verdicts)?;
        let record = self.journal_command(&Command::Operator { instruction: &instruction, verdicts: &verdicts });
        if let Some(record) = record {
            self.state.scorer.note_answered(&instruction, record.0);
        }
        tracing::warn!(
            by = instruction.by,
            call = instruction.ask.name(),
            identity = instruction.ask.identity(),
            why = instruction.why,
            entries = verdicts.len(),
            "an operator has acted"
        );
        self.tell(verdicts, record);
        let done = self.done(&instruction, record, false);
        Ok(Done { ended: obeyed.ended, notes: obeyed.notes, ..done })
    }

    /// Has the verdicts of one record carried out, and the table told; also where there are none.
    fn tell(&mut self, verdicts: Vec<Verdict>, record: Option<Seq>) {
        if let (Some(signals), Some(record)) = (&self.signals, record) {
            signals.tell(record, verdicts.clone());
        }
        let mut owed = Vec::new();
        for verdict in verdicts {
            let seq = record.unwrap_or(Seq(self.last_seq));
            self.state.decisions.note(seq, &verdict);
            self.hooks.grounds.note(&verdict);
            self.alerts.verdict(seq, &verdict);
            if is_synced_first(verdict.level.max(verdict.previous)) {
                owed.push(Owed { verdict: verdict.clone(), seq: record });
            }
            self.notice(|_| Notice::Verdict(Box::new(verdict)));
        }
        self.publish(owed, None);
    }

    fn done(&self, of: &Instruction, record: Option<Seq>, repeated: bool) -> Done {
        let identity = of.ask.identity();
        let is_meant = |line: &Line| identity.is_some_and(|identity| line.subject().identity() == identity);
        let lines = self.state.scorer.lines().into_iter().filter(is_meant).collect();
        Done { record, repeated, ended: 0, notes: Vec::new(), lines, in_force: self.in_force() }
    }

    fn portrait(&self, part: &str) -> Result<Portrait, NotOne> {
        let wall = self.setup.clock.now();
        let shown = match self.state.scorer.show(part, wall) {
            Some(shown) => shown,
            None => {
                let identity = self.one_named(part)?;
                self.state.scorer.show(&identity, wall).ok_or_else(|| self.nobody(part))?
            }
        };
        let decisions = self.state.decisions.of(&shown.identity).iter().map(|(_, verdict)| verdict.clone()).collect();
        let accepted = self.state.scorer.acceptances().filter(|of| of.identity == shown.identity);
        let acceptances = accepted.cloned().collect();
        let contained = self.containment.about(&shown.identity, wall);
        Ok(Portrait { shown, decisions, acceptances, contained, in_force: self.in_force() })
    }

    fn preview(&self, part: &str, question: Option<Question>, object: Option<&str>) -> Result<Foreseen, NotOne> {
        let of = |identity: &str| self.state.scorer.preview(identity, question, object);
        let preview = match of(part) {
            Some(preview) => preview,
            None => of(&self.one_named(part)?).ok_or_else(|| self.nobody(part))?,
        };
        let is_hidden = |verdict: &&Verdict| {
            let first = verdict.reasons.first().filter(|_| verdict.cause == Cause::Evidence);
            let is_of = |reason: &Reason, of: &Withheld| {
                of.question == reason.detector && (of.object.is_empty() || of.object == reason.destination)
            };
            first.is_some_and(|reason| preview.withheld.iter().any(|of| is_of(reason, of)))
        };
        let all = self.state.decisions.of(&preview.identity).iter().map(|(_, verdict)| verdict);
        let decisions = all.filter(is_hidden).cloned().collect();
        Ok((preview, decisions))
    }

    fn rehearsal(&self, part: &str, instance: Option<&str>, level: Level) -> Result<Rehearsal, NotOne> {
        let rehearse = |identity: &str| self.state.scorer.rehearse(identity, instance, level);
        match rehearse(part) {
            Some(rehearsal) => Ok(rehearsal),
            None => rehearse(&self.one_named(part)?).ok_or_else(|| self.nobody(part)),
        }
    }

    /// The one whom a part of a name means.
    fn one_named(&self, part: &str) -> Result<String, NotOne> {
        let names = self.state.scorer.named(part, FITTING);
        match choose(part, &names.iter().collect::<Vec<_>>()) {
            Chosen::One(identity) => Ok(identity),
            Chosen::Several(several) => Err(NotOne::Several { part: part.to_owned(), listed: listed(several.iter()) }),
            Chosen::None => Err(self.nobody(part)),
        }
    }

    fn nobody(&self, part: &str) -> NotOne {
        let names = self.state.scorer.named("", FITTING);
        let nearest = nearest(part, names.iter());
        let known = self.state.scorer.tally().identities;
        NotOne::Nobody { part: part.to_owned(), known, nearest: listed(nearest.into_iter()) }
    }

    fn journal_refusal(&mut self, (by, call): (&str, &str), identity: Option<&str>, why: &str) {
        let Some(unrecorded) = self.refusals.take(Instant::now()) else { return };
        tracing::warn!(by, call, identity, why, "an operator's call is refused");
        self.journal_command(&Command::Refused { by, call, identity, why, unrecorded });
    }
}
