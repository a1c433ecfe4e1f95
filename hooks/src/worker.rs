//! A hook at work, on a thread of its own: a system that hangs holds up nobody but itself.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use qualm_model::time::Clock;
use serde_json::Value;

use crate::{
    hook::{Effect, Failure, Hook, Repeat},
    ledger::{Job, Outcome, What},
};

/// How often, and after which pauses, it is looked whether an act has taken effect: what is eventually consistent needs
/// a moment.
const LOOKS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1500),
];

/// Starts a hook's thread; jobs go in, and `done` hears of each.
///
/// # Errors
/// The system has no thread left.
pub(crate) fn start(
    name: &str,
    mut hook: Box<dyn Hook>,
    clock: Clock,
    done: impl Fn(Job, Outcome) + Send + 'static,
) -> std::io::Result<SyncSender<Job>> {
    // One at a time: the ledger gives out no more.
    let (jobs, due): (_, Receiver<Job>) = sync_channel(1);
    thread::Builder::new().name(format!("hook {name}")).spawn(move || {
        while let Ok(job) = due.recv() {
            let outcome = run(hook.as_mut(), &job, &clock);
            done(job, outcome);
        }
    })?;
    Ok(jobs)
}

/// Does one job.
pub(crate) fn run(hook: &mut dyn Hook, job: &Job, clock: &Clock) -> Outcome {
    let order = &job.effect.order;
    let before = job.effect.before.as_ref().unwrap_or(&Value::Null);
    match job.what {
        What::Read => Outcome::Read(hook.read(order)),
        What::Act { begun } => Outcome::Acted(act(hook, job, begun, clock)),
        What::Look => Outcome::Looked(hook.look(order, before)),
        What::Undo => Outcome::Undone(hook.undo(order, before, &job.call)),
    }
}

fn act(
    hook: &mut dyn Hook,
    job: &Job,
    begun: bool,
    clock: &Clock,
) -> Result<(qualm_model::time::Timestamp, String), Failure> {
    let order = &job.effect.order;
    let before = job.effect.before.as_ref().unwrap_or(&Value::Null);
    let done = |hook: &mut dyn Hook| Ok((clock.now(), hook.survives(order, before)));
    if begun {
        match hook.look(order, before)? {
            Effect::InPlace => return done(hook),
            Effect::Unknown if hook.nature().repeat == Repeat::Never => {
                let why = "it was called, and it is not known whether that arrived";
                return Err(Failure::Uncertain(why.to_owned()));
            }
            Effect::Unknown | Effect::Absent | Effect::Partial => {}
        }
    }
    hook.act(order, before, &job.call)?;
    for pause in LOOKS {
        thread::sleep(pause);
        match hook.look(order, before)? {
            Effect::InPlace | Effect::Unknown => return done(hook),
            Effect::Absent | Effect::Partial => {}
        }
    }
    Err(Failure::again("it answered that it was done, and it is not in effect"))
}
