//! Attackers who know that they are watched: each tries to teach the judgement to accept them, or to hide from it. A story
//! is a file of `stories/`: what happens, in words and in lines that are played, and what is said of it, which is held to
//! the letter. `QUALM_BLESS=1` writes the latter anew: read it critically.
//!
//! A line that is played says `day D HH:MM, for N h: SOURCE calls DESTINATION OPERATION every N s`, and then, as needed,
//! `N bytes`, `N % more often each hour`, `daily` (again at that time each day until the end). A name that ends in `*N` is
//! N names in turn. Lines that begin with `aside:` are left out of a second playing, and both are told.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use mesh::{Call, START, batch, call, mixed};
use qualm_model::{
    event::{Event, Outcome},
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::Scorer,
    verdict::{Cause, Verdict},
};

/// One call of the mesh.
const BEAT: Span = Span::seconds(4);
const SERVICES: u64 = 20;
const DAY: i64 = 24 * Span::HOUR.0;
/// What is found later is found of something else.
const AFTER: Span = Span(6 * Span::HOUR.0);

/// What an attacker does.
#[derive(Debug, Clone)]
struct Act {
    is_aside: bool,
    begin: i64,
    length: i64,
    source: String,
    destination: String,
    operation: String,
    every: f64,
    bytes: u64,
    growth: f64,
    is_daily: bool,
}

impl Act {
    fn read(line: &str) -> Option<Self> {
        let (is_aside, line) = line.strip_prefix("aside: ").map_or((false, line), |line| (true, line));
        let (when, what) = line.strip_prefix("day ")?.split_once(": ")?;
        let (at, length) = when.split_once(", for ")?;
        let (day, clock) = at.split_once(' ')?;
        let (hour, minute) = clock.split_once(':')?;
        let hours: f64 = length.strip_suffix(" h")?.parse().ok()?;
        let (source, rest) = what.split_once(" calls ")?;
        let (called, how) = rest.split_once(" every ")?;
        let (destination, operation) = called.split_once(' ')?;
        let mut hows = how.split(", ");
        let mut act = Self {
            is_aside,
            begin: day.parse::<i64>().ok()? * DAY
                + hour.parse::<i64>().ok()? * Span::HOUR.0
                + minute.parse::<i64>().ok()? * Span::MINUTE.0,
            length: (hours * Span::HOUR.0 as f64) as i64,
            source: source.to_owned(),
            destination: destination.to_owned(),
            operation: operation.to_owned(),
            every: hows.next()?.strip_suffix(" s")?.parse().ok()?,
            bytes: 700,
            growth: 0.0,
            is_daily: false,
        };
        for how in hows {
            if let Some(bytes) = how.strip_suffix(" bytes") {
                act.bytes = bytes.parse().ok()?;
            } else if let Some(growth) = how.strip_suffix(" % more often each hour") {
                act.growth = growth.parse::<f64>().ok()? / 100.0;
            } else if how == "daily" {
                act.is_daily = true;
            } else {
                return None;
            }
        }
        Some(act)
    }

    fn play(&self, end: i64, out: &mut Vec<Call>) {
        let (mut begin, mut number) = (self.begin, 0);
        loop {
            let mut at = begin as f64;
            while at < (begin + self.length).min(end) as f64 {
                let time = Timestamp(START + at as i64);
                let made = call(time, &name(&self.source, number), &name(&self.destination, number));
                out.push(Call { operation: named(&self.operation, number), bytes: self.bytes, ..made });
                let hours = (at - begin as f64) / Span::HOUR.0 as f64;
                at += self.every * Span::SECOND.0 as f64 / (1.0 + self.growth).powf(hours);
                number += 1;
            }
            begin += DAY;
            if !self.is_daily || begin >= end {
                return;
            }
        }
    }

    /// Who does it, where that is one.
    fn actor(&self) -> Option<String> {
        (!self.source.contains('*')).then(|| name(&self.source, 0))
    }
}

fn named(text: &str, number: u64) -> String {
    match text.split_once('*') {
        Some((begin, many)) => format!("{begin}{}", mixed(number, 9) % many.parse::<u64>().unwrap()),
        None => text.to_owned(),
    }
}

fn name(short: &str, number: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/{}", named(short, number))
}

fn short(identity: &str) -> &str {
    identity.rsplit('/').next().unwrap_or(identity)
}

/// The mesh as it is without anybody's doing: twenty services, each with three it calls and three things it asks of them,
/// and now and then one of them looks around.
fn usual(days: i64) -> Vec<Call> {
    let beat = |i: i64| {
        let number = i as u64;
        let source = mixed(number, 1) % SERVICES;
        let looks_around = mixed(number, 6).is_multiple_of(300);
        let peers = if looks_around { SERVICES - 1 } else { 3 };
        let destination = (source + 1 + mixed(number, 2) % peers) % SERVICES;
        let operation = mixed(number, 3) % if looks_around { 50 } else { 3 };
        Call {
            operation: format!("GET /{operation}"),
            bytes: 500 + mixed(number, 4) % 400,
            address: if i % 2 == 0 { "10.0.0.1" } else { "10.0.0.2" },
            outcome: if mixed(number, 5).is_multiple_of(50) { Outcome::Failure } else { Outcome::Success },
            ..call(Timestamp(START + i * BEAT.0), &name(&format!("s{source}"), 0), &name(&format!("s{destination}"), 0))
        }
    };
    (0..days * DAY / BEAT.0).map(beat).collect()
}

fn judged(calls: &[Call]) -> Vec<Verdict> {
    let enforce = EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() };
    let mut scorer = Scorer::new(ScorerConfig { enforce, ..ScorerConfig::default() });
    let (mut verdicts, mut minute) = (Vec::new(), 0);
    for chunk in calls.chunks(4000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            let wall = event.report();
            if minute != wall.window(Span::MINUTE) {
                minute = wall.window(Span::MINUTE);
                scorer.tick(wall, &mut verdicts);
            }
            scorer.observe(event, wall, &mut verdicts);
        });
    }
    verdicts
}

struct Story {
    days: i64,
    acts: Vec<Act>,
}

impl Story {
    fn read(told: &str) -> Self {
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        let days = lines.iter().find_map(|line| line.strip_prefix("The mesh is watched for ")?.split_once(' '));
        let days = days.expect("`The mesh is watched for N days.`").0.parse().unwrap();
        let played = lines.iter().filter(|line| line.starts_with("day ") || line.starts_with("aside: "));
        let acts = played.map(|line| Act::read(line).unwrap_or_else(|| panic!("`{line}` cannot be played"))).collect();
        Self { days, acts }
    }

    /// What is said of those who did something, in the order in which it is.
    fn outcome(&self, acts: &[Act]) -> String {
        let mut calls = usual(self.days);
        acts.iter().for_each(|act| act.play(self.days * DAY, &mut calls));
        calls.sort_by_key(|call| call.time);
        let verdicts = judged(&calls);
        let mut told = String::new();
        for act in acts.iter().filter(|act| act.actor().is_some()) {
            // What comes after the same one has begun something else is said of that.
            let next = acts.iter().filter(|next| next.source == act.source && next.begin > act.begin);
            let until = next.map(|next| next.begin).min().unwrap_or(i64::MAX);
            told.push_str(&of_act(act, until, &verdicts));
        }
        let actors: Vec<String> = acts.iter().filter_map(Act::actor).collect();
        let others = verdicts.iter().filter(|verdict| is_entry(verdict) && !actors.contains(&verdict.identity));
        let mut entries: BTreeMap<Level, usize> = BTreeMap::new();
        others.for_each(|verdict| *entries.entry(verdict.level).or_default() += 1);
        let entries: Vec<String> = entries.iter().map(|(level, many)| format!("{many} into {level}")).collect();
        let entries = if entries.is_empty() { "none".to_owned() } else { entries.join(", ") };
        let _ = writeln!(told, "  Entries of others in {} days: {entries}.", self.days);
        told
    }

    fn told(&self) -> String {
        let mut told = self.outcome(&self.acts);
        let apart: Vec<Act> = self.acts.iter().filter(|act| !act.is_aside).cloned().collect();
        if apart.len() < self.acts.len() {
            let _ = write!(told, "\n  Without what is aside:\n{}", self.outcome(&apart));
        }
        told
    }
}

fn is_entry(verdict: &Verdict) -> bool {
    verdict.cause == Cause::Evidence && verdict.level > verdict.previous
}

/// When each level was first entered from the begin of what was done until six hours after it, and before `until`.
fn of_act(act: &Act, until: i64, verdicts: &[Verdict]) -> String {
    let actor = act.actor().unwrap();
    let is_of_it = |at: i64| {
        let since = if act.is_daily { (at - act.begin).rem_euclid(DAY) } else { at - act.begin };
        (act.begin..until).contains(&at) && since < act.length + AFTER.0
    };
    let mut told = format!("  {} calls {} {}:\n", act.source, act.destination, act.operation);
    let mut reached = Level::Trusted;
    for verdict in verdicts.iter().filter(|verdict| is_entry(verdict) && verdict.identity == actor) {
        let at = verdict.time.0 - START;
        if !is_of_it(at) || verdict.level <= reached {
            continue;
        }
        reached = verdict.level;
        let (day, hour, minute) = (at / DAY, at % DAY / Span::HOUR.0, at % Span::HOUR.0 / Span::MINUTE.0);
        let reasons: Vec<&str> = verdict.reasons.iter().take(2).map(|reason| reason.detector.name()).collect();
        let after = (at - act.begin) as f64 / Span::MINUTE.0 as f64;
        let after = if after < 120.0 { format!("{after:.0} min") } else { format!("{:.0} h", after / 60.0) };
        let _ = writeln!(
            told,
            "    day {day} {hour:02}:{minute:02}  {:<4} {:<12} after {after}: {}",
            short(&verdict.identity),
            verdict.level.to_string(),
            reasons.join(", ")
        );
    }
    if reached == Level::Trusted {
        told.push_str("    nothing: it is not found\n");
    }
    told
}

const SAID: &str = "\nWhat is said of it\n";

/// Holds a story's file to what comes of it.
fn holds(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stories/{name}.txt"));
    let written = fs::read_to_string(&file).unwrap();
    let (happens, said) = written.split_once(SAID).unwrap_or((&written, ""));
    let told = Story::read(happens).told();
    if std::env::var_os("QUALM_BLESS").is_some() {
        fs::write(&file, format!("{}\n{SAID}{told}", happens.trim_end())).unwrap();
        return;
    }
    assert_eq!(said, told, "{}: something else came of it", file.display());
}

#[test]
fn a_slow_boil_over_days() {
    holds("slow-boil");
}

#[test]
fn what_is_interleaved_with_everyday_calls() {
    holds("interleaving");
}

#[test]
fn an_estate_that_was_compromised_before_it_was_watched() {
    holds("warm-up");
}

#[test]
fn a_flood_of_new_entities_around_an_attack() {
    holds("flooding");
}

#[test]
fn known_calls_alone_on_known_edges() {
    holds("mimicry");
}

#[test]
fn noise_for_two_weeks_to_raise_thresholds() {
    holds("inflation");
}

#[test]
fn noise_for_two_weeks_that_is_not_kept_low() {
    holds("loud-noise");
}
