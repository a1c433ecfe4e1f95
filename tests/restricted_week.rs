//! A week in which everybody is *restricted*: how many honest requests of a generated mesh would have been refused, of whom,
//! and whether anything passes that was never seen. Prints figures; `tests/run --long` runs it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the figures are what it is for")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use qualm_datasets::{AccessLog, Millis, Scenario, Traffic, mesh::MeshConfig};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::{
    event::{EventBuilder, Position},
    identity::SpiffeId,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Fallback, Mode, ScorerConfig},
    enforce::xds::policy::{Call, Policies},
    operator::{Ask, InShadow, Instruction, Override},
    scorer::Scorer,
    table::{Known, TrustEntry},
};
use serde_json::Value;
use support::parts::long_run;

/// 2026-01-05 00:00 UTC, a Monday.
const MONDAY: Millis = Millis::from_seconds(1_767_571_200);
/// What is learned before.
const BEFORE: i64 = 15;
const WEEK: i64 = 7;

/// The scorer after the days of learning, and the lines of the week to come.
struct Learned {
    scorer: Scorer,
    now: Timestamp,
    week: Vec<u8>,
}

fn config() -> ScorerConfig {
    let path = Fallback {
        from: "spiffe://mesh.test/*".to_owned(),
        to: "spiffe://mesh.test/ns/spare/sa/spare".to_owned(),
        operations: vec!["GET /v1/spare/{id}".to_owned()],
    };
    let enforce = EnforceConfig { mode: Mode::Enforce, fallback: vec![path], ..EnforceConfig::default() };
    ScorerConfig { enforce, ..ScorerConfig::default() }
}

fn learn(seed: u64) -> Learned {
    let mesh = MeshConfig { seed, services: 40, calls_per_second: 1.0 };
    let scenario = Arc::new(Scenario::quiet(mesh, MONDAY, (BEFORE + WEEK) as f64).unwrap());
    let access = AccessLog::new(scenario.mesh());
    let until = MONDAY + BEFORE * 86_400_000;
    let (mut scorer, mut parser) =
        (Scorer::new(config()), Parser::for_format("istio_json".parse::<Format>().unwrap(), None).unwrap());
    let (mut builder, mut line, mut week) = (EventBuilder::new(), Vec::new(), Vec::new());
    let (mut offset, mut verdicts) = (0, Vec::new());
    for call in Traffic::new(Arc::clone(&scenario)) {
        line.clear();
        access.push_inbound(&call, &mut line);
        if call.report() >= until {
            week.extend_from_slice(&line);
            week.push(b'\n');
            continue;
        }
        for line in line.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            // What is no event of its own is none here either.
            let _ = parser.parse(line, Position { offset, ..Position::default() }, &mut builder);
            offset += 1;
        }
        if builder.len() >= 2000 {
            judge(&mut scorer, &mut builder, &mut verdicts);
        }
    }
    judge(&mut scorer, &mut builder, &mut verdicts);
    let now = scorer.watermark().unwrap();
    Learned { scorer, now, week }
}

fn judge(scorer: &mut Scorer, builder: &mut EventBuilder, verdicts: &mut Vec<qualm_scorer::verdict::Verdict>) {
    let batch = builder.finish();
    scorer.open(&batch);
    for event in batch.events() {
        // History: nothing acts, and nobody is held.
        scorer.observe(event, event.report() + Span::HOUR, verdicts);
    }
    verdicts.clear();
}

/// Has a person restrict everybody whom a person may.
fn restrict_all(of: &mut Learned, callers: &BTreeSet<String>) -> Vec<TrustEntry> {
    let mut verdicts = Vec::new();
    for (number, identity) in callers.iter().enumerate() {
        let instruction = Instruction {
            by: "spiffe://mesh.test/ns/soc/sa/ann".to_owned(),
            why: "a drill".to_owned(),
            key: format!("k{number}"),
            at: of.now,
            event: of.now,
            ask: Ask::Set {
                identity: identity.clone(),
                instance: None,
                level: Level::Restricted,
                lease: Span(WEEK * Span::DAY.0),
                in_shadow: InShadow::Acts,
                overrides: vec![Override::MaxShare, Override::Protected],
            },
        };
        // Addresses and people outside carry no trust.
        let _ = of.scorer.obey(&instruction, &mut verdicts);
    }
    of.scorer.entries().into_iter().filter(|entry| entry.level == Level::Restricted && entry.enforce).collect()
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default()
}

/// Calls that are left of a minute's, as a bucket of a proxy has them.
struct Bucket {
    left: f64,
    at: f64,
}

#[derive(Default)]
struct Counted {
    honest: u64,
    refused: BTreeMap<String, u64>,
    too_many: BTreeMap<String, u64>,
    examples: BTreeMap<String, u64>,
}

#[test]
fn nearly_every_honest_request_of_a_restricted_week_passes_and_nothing_that_was_never_seen() {
    if !long_run() {
        return;
    }
    let mut counted = Counted::default();
    for seed in [101, 102, 103] {
        of_mesh(seed, &mut counted);
    }
    let sum = |of: &BTreeMap<String, u64>| of.values().sum::<u64>();
    let (refused, too_many) = (sum(&counted.refused), sum(&counted.too_many));
    let share = |passed: u64| passed as f64 / counted.honest as f64 * 100.0;
    eprintln!(
        "{} honest requests of restricted identities: {refused} refused ({:.5} % pass), {too_many} too many in a minute \
         ({:.5} % pass both)",
        counted.honest,
        share(counted.honest - refused),
        share(counted.honest - refused - too_many)
    );
    eprintln!("refused by service: {:#?}", counted.refused);
    eprintln!("too many by service: {:#?}", counted.too_many);
    eprintln!("refused by operation: {:#?}", counted.examples);
    assert!(counted.honest > 1_000_000, "{}", counted.honest);
    assert!(share(counted.honest - refused) >= 99.9, "far from what is promised");
}

fn of_mesh(seed: u64, counted: &mut Counted) {
    let mut learned = learn(seed);
    let week = std::mem::take(&mut learned.week);
    let lines: Vec<Value> = week
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let callers: BTreeSet<String> =
        lines.iter().map(|line| text(line, "downstream_peer_uri_san").to_owned()).filter(|of| !of.is_empty()).collect();
    let entries = restrict_all(&mut learned, &callers);
    let known: BTreeMap<&str, Arc<Known>> =
        entries.iter().map(|entry| (entry.subject.principal.as_str(), entry.known.clone().unwrap())).collect();
    let mut policies = Policies::new(learned.scorer.reachable());
    assert!(entries.iter().all(|entry| policies.add(entry)) && entries.len() >= 20, "{}", entries.len());
    let mut buckets: BTreeMap<(String, String), Bucket> = BTreeMap::new();
    for line in &lines {
        let (from, to) = (text(line, "downstream_peer_uri_san"), text(line, "downstream_local_uri_san"));
        let Some(known) = known.get(from) else { continue };
        counted.honest += 1;
        let (method, path) = (text(line, "method"), text(line, "path"));
        let view = policies.view(Some(&to.parse::<SpiffeId>().unwrap()));
        let is_refused = match method {
            // A connection has no operations.
            "" => known.at(to).is_none() && !learned.scorer.reachable().covers(to),
            _ => policies.answer(&view, &Call { principal: from, address: None, method, path }).denied.is_some(),
        };
        if is_refused {
            *counted.refused.entry(from.to_owned()).or_default() += 1;
            *counted.examples.entry(format!("{from} -> {to} {method} {path}")).or_default() += 1;
            continue;
        }
        let at = text(line, "start_time").parse::<jiff::Timestamp>().unwrap().as_millisecond() as f64 / 1000.0;
        let (a_minute, most) = (f64::from(known.calls_a_minute), f64::from(known.at_once));
        let replica = text(line, "downstream_local_address").to_owned();
        let bucket = buckets.entry((from.to_owned(), replica)).or_insert(Bucket { left: most, at });
        bucket.left = (bucket.left + (at - bucket.at).max(0.0) * a_minute / 60.0).min(most);
        bucket.at = bucket.at.max(at);
        if method.is_empty() {
            continue;
        }
        if bucket.left < 1.0 {
            *counted.too_many.entry(from.to_owned()).or_default() += 1;
        } else {
            bucket.left -= 1.0;
        }
    }
    never_seen_never_passes(&policies, &known, &callers);
}

/// Whoever is restricted reaches nobody whom it never called, and does nothing that it never did, but for declared ways.
fn never_seen_never_passes(policies: &Policies, known: &BTreeMap<&str, Arc<Known>>, everybody: &BTreeSet<String>) {
    let asks = |from: &str, to: &str, method: &str, path: &str| {
        let view = policies.view(Some(&to.parse::<SpiffeId>().unwrap()));
        policies.answer(&view, &Call { principal: from, address: None, method, path }).denied.is_none()
    };
    let (mut asked, mut passed) = (0, 0);
    for (&from, known) in known {
        for to in everybody.iter().filter(|to| known.at(to).is_none()) {
            asked += 2;
            passed += u32::from(asks(from, to, "GET", "/v1/anything/1")) + u32::from(asks(from, to, "POST", "/"));
        }
        for to in known.peers.keys().filter(|to| to.starts_with("spiffe://")) {
            let is_told_apart = matches!(known.at(to), Some(qualm_scorer::table::Operations::Only(_)));
            asked += u32::from(is_told_apart);
            passed += u32::from(is_told_apart && asks(from, to, "DELETE", "/never/seen/by/anybody"));
        }
        assert!(asks(from, "spiffe://mesh.test/ns/spare/sa/spare", "GET", "/v1/spare/7"), "the declared way");
        assert!(!asks(from, "spiffe://mesh.test/ns/spare/sa/spare", "POST", "/v1/spare/7"), "and nothing else there");
    }
    let open = everybody
        .iter()
        .filter(|to| policies.view(Some(&to.parse().unwrap())) == qualm_scorer::enforce::xds::policy::View::Reachable);
    eprintln!(
        "{asked} calls that were never seen: {passed} pass ({} destinations stay open to everybody)",
        open.count()
    );
    assert!(asked > 500 && passed * 20 < asked, "{passed} of {asked}");
}
