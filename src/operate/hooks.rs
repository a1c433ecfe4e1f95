//! `qualm hooks list`, `approve`, `reject`, `undo`: what hooks have done, and what is said to it.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use qualm_proto::operator::v1::{Effect, EffectReceipt, EffectRequest, ListEffectsRequest, ListEffectsResponse};
use qualm_scorer::notify::plain;
use serde_json::{Value, json};

use super::{
    answered,
    args::{EffectArgs, HooksCommand},
    print,
    tell::{level, plain_note, time},
};

/// What is said of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Approve,
    Reject,
    Undo,
}

/// `qualm hooks list`.
///
/// # Errors
/// The instance cannot be reached, or refuses.
pub(crate) fn run(command: &HooksCommand) -> Result<ExitCode> {
    let HooksCommand::List(args) = command;
    let identity = args.identity.clone().unwrap_or_default();
    let request = ListEffectsRequest { identity, ended: args.all, limit: 0 };
    let answer = answered(&args.server, async |client| client.list_effects(request).await)?;
    print(&if args.server.json { json_of_list(&answer) } else { list(&answer)? })
}

/// `qualm approve`, `reject`, `undo`.
///
/// # Errors
/// As [`run`].
pub(crate) fn say(args: &EffectArgs, word: Word) -> Result<ExitCode> {
    let request = EffectRequest { id: args.id.clone(), reason: args.reason.clone() };
    let answer = answered(&args.server, async |client| match word {
        Word::Approve => client.approve(request).await,
        Word::Reject => client.reject(request).await,
        Word::Undo => client.undo(request).await,
    })?;
    print(&if args.server.json { json_of_receipt(&answer) } else { receipt(&answer)? })
}

fn list(answer: &ListEffectsResponse) -> Result<String> {
    let mut text = String::new();
    if answer.effects.is_empty() {
        writeln!(text, "no hook has anything in effect, and nothing waits")?;
    }
    for effect in &answer.effects {
        self::effect(&mut text, effect)?;
    }
    if answer.left_out > 0 {
        writeln!(text, "and {} more: ask for a part of a name", answer.left_out)?;
    }
    Ok(text)
}

fn receipt(answer: &EffectReceipt) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "done, as {}: record {} of the journal", plain(&answer.by), answer.record)?;
    if let Some(of) = &answer.effect {
        effect(&mut text, of)?;
    }
    Ok(text)
}

fn effect(text: &mut String, of: &Effect) -> Result<()> {
    let instance = if of.instance.is_empty() { String::new() } else { format!(" at {}", plain(&of.instance)) };
    writeln!(
        text,
        "{}  {:<17} {}  {}{instance}, {}",
        plain(&of.id),
        of.state,
        of.hook,
        plain(&of.identity),
        level(of.level)
    )?;
    let since = of.effective.as_ref().map(|at| format!("since {}, ", time(Some(at)))).unwrap_or_default();
    let until = time(of.until.as_ref());
    let end = of
        .ended
        .as_ref()
        .map_or_else(|| format!("{since}until {until}"), |at| format!("over since {}", time(Some(at))));
    writeln!(text, "    {end}, decision {}", of.decision_id)?;
    let told = [
        ("target", &of.target),
        ("needs approval", &of.needs),
        ("problem", &of.problem),
        ("survives", &of.survives),
        ("by", &of.by),
        ("reason", &of.reason),
    ];
    for (what, words) in told.into_iter().filter(|(_, words)| !words.is_empty()) {
        writeln!(text, "    {what}: {}", plain_note(words))?;
    }
    Ok(())
}

fn json_of_list(answer: &ListEffectsResponse) -> String {
    let effects: Vec<Value> = answer.effects.iter().map(json_of_effect).collect();
    json!({ "effects": effects, "left_out": answer.left_out }).to_string()
}

fn json_of_receipt(answer: &EffectReceipt) -> String {
    let effect = answer.effect.as_ref().map(json_of_effect);
    json!({ "record": answer.record, "by": answer.by, "effect": effect }).to_string()
}

fn json_of_effect(of: &Effect) -> Value {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    json!({
        "id": of.id, "hook": of.hook, "identity": of.identity, "instance": said(&of.instance),
        "level": level(of.level), "decision": of.decision_id, "state": of.state, "target": said(&of.target),
        "needs": said(&of.needs), "problem": said(&of.problem), "survives": said(&of.survives), "by": said(&of.by),
        "reason": said(&of.reason), "wanted": time(of.wanted.as_ref()),
        "effective": of.effective.as_ref().map(|at| time(Some(at))),
        "ended": of.ended.as_ref().map(|at| time(Some(at))), "until": time(of.until.as_ref()),
    })
}
