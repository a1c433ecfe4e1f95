//! `qualm explain`: where an identity stands and why, from journal and snapshot. It only reads, also while an instance
//! runs.

mod by_hand;
mod contained;
mod grounds;
mod hooks;
mod trusted;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use qualm_model::{
    evidence::Pace,
    identity::Hierarchy,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    guard::HeldBy,
    incidents::Incident,
    journal::{Kind, Seq, read_from},
    notify::{cause, message, plain},
    snapshot::{Glance, glance},
    verdict::{Cause, Dependants, Verdict},
};

use self::{by_hand::ByHand, contained::Contained, hooks::ByHooks};
use crate::{
    cli::ExplainArgs,
    clock,
    config::Config,
    finding::{Findings, Setting},
    identities::{Chosen, choose, listed, nearest},
    reload::is_running,
    run::checkpoint::Reading,
};

/// So many members of an incident are named.
const NAMED: usize = 8;

/// Runs the command.
///
/// # Errors
/// Journal or snapshot cannot be read, or the name means nobody or several.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let (config, _) = Config::read(&args.config)?;
    let (directory, part) = (&config.state.directory, args.identity.as_str());
    let mut decisions = Decisions::read(&directory.join("journal"), part)?;
    // A snapshot that cannot be read matters only where the journal does not have the answer.
    let seen = glance(directory, &config.budget, |name| name.contains(part));
    let known = seen.as_ref().ok().and_then(|seen| seen.as_ref());
    if decisions.known.is_empty() && decisions.by_hand.is_empty() && matches!(seen, Ok(None)) {
        bail!(
            "nothing is known here yet ({} holds neither decisions nor a snapshot), or `directory` in [state] is \
             another one: name the configuration of the instance with --config, and run this where its relative paths \
             hold",
            directory.display()
        );
    }
    let mut names: BTreeSet<&String> = decisions.episodes.keys().collect();
    names.extend(known.into_iter().flat_map(|glance| &glance.known).map(|known| &known.identity));
    let ordered = decisions.by_hand.identities(part);
    names.extend(&ordered);
    let names: Vec<&String> = names.into_iter().collect();
    let identity = match choose(part, &names) {
        Chosen::One(identity) => identity,
        Chosen::None => bail!("{}", nobody(part, &decisions.known, seen?.as_ref(), directory)),
        Chosen::Several(names) => bail!("`{}` may be any of these; name one:\n{}", plain(part), listed(names.iter())),
    };
    let running = if is_running(directory) { Instance::Running } else { Instance::Stopped };
    let answer = match decisions.episodes.remove(&identity) {
        Some(episode) => {
            let episode: Vec<Verdict> = episode.into_values().collect();
            told(&episode, &decisions, clock::system().now(), running)?
        }
        None => known
            .and_then(|glance| Some((glance, glance.known.iter().find(|known| known.identity == identity)?)))
            .map_or_else(
                || Ok("nothing was ever decided.\n".to_owned()),
                |(glance, known)| trusted::told(known, glance),
            )?,
    };
    let shared = known.map_or_else(String::new, |glance| shared(&identity, &glance.names));
    let by_hand = decisions.by_hand.told(&identity, clock::system().now())?;
    let by_hooks = decisions.hooks.told(&identity)?;
    io::stdout().write_all((by_hand + &answer + &shared + &by_hooks).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Whether anybody keeps leases and decides now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instance {
    Running,
    Stopped,
}

/// What the journal holds about those whose name contains the words asked for.
struct Decisions {
    /// Everybody about whom anything was ever decided.
    known: BTreeSet<String>,
    /// The latest episode of each whose name fits, from *trusted* up, and down again: by number of record.
    episodes: BTreeMap<String, BTreeMap<Seq, Verdict>>,
    /// Whose episodes are one incident, by its id.
    incidents: BTreeMap<String, BTreeSet<String>>,
    /// What operators have brought about.
    by_hand: ByHand,
    /// Whether decisions hold.
    contained: Contained,
    /// What hooks have done.
    hooks: ByHooks,
}

impl Decisions {
    fn read(journal: &Path, part: &str) -> Result<Self> {
        let mut decisions = Self {
            known: BTreeSet::new(),
            episodes: BTreeMap::new(),
            incidents: BTreeMap::new(),
            by_hand: ByHand::default(),
            contained: Contained::default(),
            hooks: ByHooks::default(),
        };
        if !journal.is_dir() {
            return Ok(decisions);
        }
        let (mut reading, mut first) = (Reading::default(), None);
        for record in read_from(journal, Seq(0))? {
            let record = record?;
            let first = *first.get_or_insert(record.seq);
            let context = || format!("journal {} record {}", journal.display(), record.seq);
            if record.kind == Kind::Decision {
                decisions.note(record.seq, record.payload().with_context(context)?, part);
            }
            decisions.hooks.take(&record).with_context(context)?;
            for verdict in decisions.by_hand.take(&record).with_context(context)? {
                decisions.note(record.seq, verdict, part);
            }
            decisions.contained.take(&record, part).with_context(context)?;
            // What was decided in files that are gone.
            let Some(checkpoint) = reading.take(&record).with_context(context)? else { continue };
            decisions.by_hand.carry(checkpoint.kept);
            let gone = checkpoint.decisions.into_iter().filter(|(seq, _)| *seq < first);
            gone.for_each(|(seq, verdict)| decisions.note(seq, verdict, part));
        }
        Ok(decisions)
    }

    fn note(&mut self, seq: Seq, verdict: Verdict, part: &str) {
        if verdict.cause == Cause::Ordered {
            self.by_hand.note(&verdict);
            return;
        }
        if !self.known.contains(&verdict.identity) {
            self.known.insert(verdict.identity.clone());
        }
        if let Some(incident) = &verdict.incident {
            self.incidents.entry(incident.id.clone()).or_default().insert(verdict.identity.clone());
        }
        if !verdict.identity.contains(part) {
            return;
        }
        let episode = self.episodes.entry(verdict.identity.clone()).or_default();
        if episode.last_key_value().is_some_and(|(_, last)| last.level == Level::Trusted) {
            episode.clear();
        }
        episode.insert(seq, verdict);
    }
}

/// With whom it has its principal, where it is not the only one: `principal#workload` is how those are called that are
/// judged on their own.
fn shared(identity: &str, names: &[String]) -> String {
    let (principal, own) = identity.split_once('#').map_or((identity, None), |(of, workload)| (of, Some(workload)));
    let workload_of = |name: &String| Some(plain(name.strip_prefix(principal)?.strip_prefix('#')?));
    let workloads: BTreeSet<String> = names.iter().filter_map(workload_of).collect();
    if workloads.is_empty() {
        return String::new();
    }
    let listed = workloads.into_iter().collect::<Vec<_>>().join(", ");
    let about = match own {
        Some(_) => "this is one of them",
        None => {
            "each is known as `principal#workload`, and this is what is known of calls of which nobody knows whose they were"
        }
    };
    format!(
        "\nThe principal {} is shared by {listed}, which are judged each by its own past; {about}.\n",
        plain(principal)
    )
}

/// That nobody is called so, and who is called nearly so.
fn nobody(part: &str, decided: &BTreeSet<String>, glance: Option<&Glance>, directory: &Path) -> String {
    let mut names: BTreeSet<&String> = decided.iter().collect();
    names.extend(glance.into_iter().flat_map(|glance| &glance.names));
    let head = format!(
        "`{}` is not known: of {} in journal and snapshot of {} none is called so; it has made no call that was read \
         (the last snapshot may be some seconds old), or it has another name",
        plain(part),
        match names.len() {
            1 => "1 identity".to_owned(),
            many => format!("{many} identities"),
        },
        directory.display()
    );
    let nearest = nearest(part, names.into_iter());
    if nearest.is_empty() {
        return head;
    }
    format!("{head}; the nearest:\n{}", listed(nearest.into_iter()))
}

/// The whole answer.
fn told(episode: &[Verdict], decisions: &Decisions, now: Timestamp, instance: Instance) -> Result<String> {
    let Decisions { contained, incidents, .. } = decisions;
    let (Some(first), Some(last)) = (episode.first(), episode.last()) else { return Ok(String::new()) };
    let mut text = String::new();
    writeln!(text, "{}", headline(episode, now))?;
    writeln!(text, "\nidentity   {}", plain(&last.identity))?;
    writeln!(text, "stands at  {}", standing(last, now, instance))?;
    writeln!(text, "about      {}", scope(last))?;
    if !last.co_owners.is_empty() {
        let owners: Vec<String> = last.co_owners.iter().map(|workload| plain(workload)).collect();
        writeln!(text, "principal  {}, shared by {}", plain(&last.subject.principal), owners.join(", "))?;
    }
    if let Some(of) = episode.iter().rev().find_map(|verdict| verdict.dependants.as_ref()) {
        writeln!(text, "used by    {}", depending(of))?;
    }
    writeln!(text, "decision   {} (the policy's name at the enforcement points)", last.decision)?;
    text.push_str(&contained.told(&last.decision)?);
    if let Some(incident) = episode.iter().find_map(|verdict| verdict.incident.as_ref()) {
        writeln!(text, "alert      {}{}", incident.id, with_others(incident, last, incidents))?;
    }
    if let Some(of) = episode.iter().rev().find_map(|verdict| verdict.announced.as_ref()) {
        let (by, why, until) = (plain(&of.by), plain(&of.why), rfc3339(of.until));
        writeln!(text, "announced  a deployment of {} until {until}, by {by}: {why}", plain(&of.service))?;
    }
    writeln!(text, "\nits latest episode, from {} on:", rfc3339(first.episode))?;
    let mut steps = episode.iter().peekable();
    while let Some(verdict) = steps.next() {
        let mut renewed = 1;
        let mut latest = verdict;
        while let Some(next) = steps.next_if(|next| verdict.cause == Cause::Renewed && next.cause == Cause::Renewed) {
            (latest, renewed) = (next, renewed + 1);
        }
        step(&mut text, verdict, latest, renewed)?;
    }
    writeln!(text, "\nwhat to do next:")?;
    for hint in next(last, now) {
        writeln!(text, "  - {hint}")?;
    }
    Ok(text)
}

/// Whom it hurts where the service's calls are limited.
fn depending(of: &Dependants) -> String {
    if of.count == 0 {
        return "nobody who was seen to call it within a day".to_owned();
    }
    let named: Vec<String> = of.names.iter().map(|name| plain(name)).collect();
    let more = of.count.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}, which call it", named.join(", "))
}

/// Whose episodes are in the same alert, and why.
fn with_others(incident: &Incident, of: &Verdict, incidents: &BTreeMap<String, BTreeSet<String>>) -> String {
    let members = incidents.get(&incident.id).into_iter().flatten();
    let others: Vec<String> =
        members.filter(|identity| **identity != of.identity).map(|identity| plain(identity)).collect();
    if others.is_empty() {
        return String::new();
    }
    let named = others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shared = incident.shared.as_ref().map_or_else(
        || "they came later and share its cause".to_owned(),
        |shared| format!("what they share: {}", cause(shared)),
    );
    format!(", one incident with {named}{more} ({shared})")
}

/// The sentence of the episode's latest alert.
fn headline(episode: &[Verdict], now: Timestamp) -> String {
    let mut findings = Findings::new(Setting::Live);
    let last = episode.iter().filter_map(|verdict| findings.tell(verdict)).last();
    last.map_or_else(String::new, |mut finding| {
        if let Some(verdict) = episode.last() {
            // A renewal is no alert, but it has moved the end of the lease.
            finding.lease_until = verdict.expires;
            finding.decided = now;
        }
        finding.next = vec!["the steps and what to do are below".to_owned()];
        message(&finding)
    })
}

fn standing(last: &Verdict, now: Timestamp, instance: Instance) -> String {
    let Some(expires) = last.expires.filter(|_| last.level > Level::Trusted) else {
        return format!("trusted, since {}", rfc3339(last.decided));
    };
    let effect = match (&last.held, last.enforce, last.level) {
        (_, _, Level::Watched) => "which denies nothing".to_owned(),
        (_, true, Level::Throttled) => "enforced (over TCP it is marked only)".to_owned(),
        (_, true, _) => "enforced".to_owned(),
        (Some(held), false, _) => match last.held_by.and_then(HeldBy::instead) {
            Some(instead) => format!("acting as {instead} ({held})"),
            None => format!("in shadow only ({held})"),
        },
        (None, false, _) if last.is_beyond_scope() => {
            "in shadow only (not enforceable at this scope: it would cut off all who share the principal)".to_owned()
        }
        (None, false, _) => "in shadow only".to_owned(),
    };
    let until = match (expires > now, instance) {
        (true, _) => format!("until {} ({} from now)", rfc3339(expires), length(expires - now)),
        (false, Instance::Running) => format!("its lease ended at {} and is being weighed again", rfc3339(expires)),
        (false, Instance::Stopped) => {
            format!("its lease ended at {}; no instance is running to weigh it again", rfc3339(expires))
        }
    };
    format!("{}, {effect}, {until}", last.level)
}

fn scope(last: &Verdict) -> String {
    let live = match last.instances.len() {
        0 => "none known to be live".to_owned(),
        live => format!("{live} live: {}", last.instances.iter().map(|i| plain(i)).collect::<Vec<_>>().join(", ")),
    };
    match &last.subject.instance {
        Some(instance) => format!("its instance {} alone, not its siblings ({live})", plain(instance)),
        None => format!("all of its instances ({live})"),
    }
}

/// One step; renewals of the same lease in a row are one.
fn step(text: &mut String, verdict: &Verdict, latest: &Verdict, renewed: usize) -> Result<()> {
    let at = rfc3339(verdict.decided);
    match verdict.cause {
        Cause::Renewed => {
            let until = latest.expires.map_or_else(String::new, rfc3339);
            let bits = latest.evidence_bits;
            let times = if renewed == 1 { "once".to_owned() } else { format!("{renewed} times") };
            writeln!(text, "  {at}  lease of {} renewed {times}, to {until}: {bits:.1} bits left", verdict.level)?;
        }
        Cause::Held => {
            let why = verdict.held.as_deref().unwrap_or("too many at once");
            writeln!(text, "  {at}  {} is held back from now on: {}", verdict.level, plain(why))?;
        }
        Cause::Freed => {
            writeln!(text, "  {at}  {} acts from now on: what held it back has passed", verdict.level)?;
        }
        Cause::Shared => {
            let why = "it would act on others who share the principal or have the address now";
            writeln!(text, "  {at}  {} stands as a shadow from now on: {why}", verdict.level)?;
        }
        Cause::Operator => {
            let effect = match (&verdict.held, verdict.enforce) {
                (Some(held), _) => format!("would let it act, and it is held back ({held})"),
                (None, true) => "lets it act from now on".to_owned(),
                (None, false) => "makes it a shadow".to_owned(),
            };
            writeln!(text, "  {at}  {} stands: the configuration {effect}", verdict.level)?;
        }
        Cause::Lease => {
            let bits = verdict.evidence_bits;
            writeln!(text, "  {at}  {} -> {}: the lease ended, {bits:.1} bits left", verdict.previous, verdict.level)?;
        }
        Cause::Lifted => {
            let (by, why) = verdict.order.as_ref().map_or(("", ""), |of| (of.by.as_str(), of.why.as_str()));
            writeln!(
                text,
                "  {at}  {} -> {}: lifted by {}: {}",
                verdict.previous,
                verdict.level,
                plain(by),
                plain(why)
            )?;
        }
        // An operator's own entries are told apart.
        Cause::Ordered => {}
        Cause::Evidence => {
            let clock = match verdict.pace {
                Some(Pace::Fast) => ", on the fast clock",
                Some(Pace::Slow) => ", on the slow clock",
                None => "",
            };
            let lease = verdict.lease.map_or_else(String::new, |lease| format!(", lease {}", length(lease)));
            writeln!(
                text,
                "  {at}  {} -> {}: {:.1} bits, {:.1} are needed{clock}{lease}, decision {}",
                verdict.previous, verdict.level, verdict.evidence_bits, verdict.threshold_bits, verdict.decision
            )?;
            grounds::tell(text, verdict)?;
        }
    }
    Ok(())
}

fn next(last: &Verdict, now: Timestamp) -> Vec<String> {
    if last.level == Level::Trusted {
        let nothing =
            if last.cause == Cause::Lifted { "nothing: it was lifted" } else { "nothing: the evidence has decayed" };
        return vec![nothing.to_owned()];
    }
    let mut hints = vec![format!(
        "ask the owner of {} whether a change explains it: a deployment, a job, a person debugging",
        plain(last.subject.workload.as_deref().unwrap_or(Hierarchy::of(&last.subject.principal).service))
    )];
    if let Some(instance) = &last.subject.instance {
        hints.push(format!("look into the workload at {} before it is restarted", plain(instance)));
    }
    if last.enforce && last.level.limits() && last.expires.is_some_and(|expires| expires > now) {
        hints.push(format!("what was refused is in the mesh's access logs: look for {}", last.decision));
    }
    if !last.co_owners.is_empty() {
        hints.push(
            "give each of those who share the principal a service account of its own: then a rule can be about one"
                .to_owned(),
        );
    }
    if !last.enforce && last.held.is_none() && !last.is_beyond_scope() && last.level > Level::Watched {
        hints.push("it is in shadow; with `mode = \"enforce\"` in [enforce] `qualm reload` lets it act while its evidence stands".to_owned());
    }
    hints.push(format!("if it is a false alarm: qualm lift {} --reason \"…\"", plain(&last.identity)));
    hints.push("it ends by itself with its lease once the evidence has decayed".to_owned());
    hints
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).map_or_else(
        |_| format!("{} s after 1970", time.as_seconds()),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn length(span: Span) -> String {
    match span.as_seconds() {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use qualm_scorer::journal::{Journal, JournalLimits};
    use serde::Serialize;

    use super::*;
    use crate::{finding::tests::verdict, run::checkpoint};

    fn append<T: Serialize>(journal: &Journal, kind: Kind, payload: &T) -> Seq {
        let seq = journal.append(kind, Timestamp(0), Timestamp(0), payload).expect("appended");
        journal.wait_durable(seq).expect("written");
        seq
    }

    #[test]
    fn what_stands_is_explained_from_its_beginning_also_when_the_file_of_that_is_gone() {
        let place = tempfile::tempdir().expect("a directory");
        // Every record begins a file.
        let limits = JournalLimits { segment_bytes: 1, retain_bytes: 1, ..JournalLimits::default() };
        let journal = Journal::open(place.path(), &limits).expect("a journal").journal;
        let (rise, higher) = (
            verdict(1, Level::Trusted, Level::Watched, Cause::Evidence),
            verdict(2, Level::Watched, Level::Quarantined, Cause::Evidence),
        );
        let mut needed = checkpoint::Decisions::default();
        needed.note(append(&journal, Kind::Decision, &rise), &rise);
        let kept = append(&journal, Kind::Decision, &higher);
        needed.note(kept, &higher);
        for carried in checkpoint::records("hash", &[], &needed, Default::default()) {
            append(&journal, Kind::Checkpoint, &carried);
        }
        journal.release(kept);
        append(&journal, Kind::Command, &"the next record");
        let first = read_from(place.path(), Seq(0)).expect("a journal").next().expect("a record").expect("sound");
        assert_eq!(first.seq, kept, "the file with the beginning is gone");
        let mut decisions = Decisions::read(place.path(), "cart").expect("it can be read");
        let episode: Vec<Verdict> = decisions.episodes.remove("cart").expect("it is known").into_values().collect();
        assert_eq!(episode, [rise, higher]);
    }
}
