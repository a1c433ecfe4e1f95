//! From a request on the wire to its caller being denied before three real Envoys, one of them far away, and to the proof
//! of it; and what happens at one that is down meanwhile and comes back.
//!
//! A few runs show what must hold whatever the machine does. `tests/run --long` makes fifty and prints how long each step
//! took; it asserts no time, as a loaded machine proves nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the figures are what it is for")]

mod support;

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use qualm_model::time::{Span, Timestamp};
use serde_json::Value;
use support::{
    caller::{Caller, Connection},
    discovery::now,
    envoy::{Envoy, QualmPorts},
    measure::at_share,
    mesh::{Mesh, Settings, Telemetry},
    operator::{Person, journalled},
    parts::{Part, is_long, present},
    relay,
    wait::{PATIENCE, until, until_true},
};

/// How much later what it says reaches the Envoy that is far away, and back.
const FAR: Duration = Duration::from_millis(150);
/// Between two calls of one connection while they are served: what is found out is so exact.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two calls of one that is denied and goes on trying.
const DENIED_PAUSE: Duration = Duration::from_millis(100);
/// Where the one who strays calls from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// A few odd calls lead to a quarantine: what is timed is what follows from the one that crosses the threshold.
const BUDGET: &str = "[budget]\nquarantined_per_month = 3000";
/// Enough for a percentile.
const MANY: usize = 50;
const FEW: usize = 2;

/// A call of one who strays: when it was sent and when answered, wall time.
#[derive(Debug, Clone, Copy)]
struct Call {
    sent: Timestamp,
    answered: Timestamp,
    status: u16,
}

/// One run: the calls at each Envoy, and what Qualm tells of the decision.
struct Run {
    calls: Vec<Vec<Call>>,
    contained: Value,
    ended: Value,
}

#[test]
fn who_strays_is_denied_before_every_envoy_near_and_far_and_before_one_that_was_down_as_soon_as_it_is_back() {
    if present(&[Part::Envoy]) {
        contain(Telemetry::Direct, "ALS, flushed every 0.2 s");
    }
}

#[test]
fn who_strays_is_denied_before_every_envoy_whose_log_is_shipped_to_kafka() {
    if present(&[Part::Envoy, Part::Kafka]) {
        contain(Telemetry::Shipped, "log file, shipper and Kafka, each flushed every second");
    }
}

fn contain(telemetry: Telemetry, words: &str) {
    let (runs, services) = if is_long() { (MANY, 160) } else { (FEW, 24) };
    let settings =
        Settings { lease: "20m", judgement: BUDGET, max_share: "1.0", services, telemetry, ..Settings::default() };
    let mut mesh = Mesh::start(settings);
    let far = relay::delayed(mesh.ports.xds, FAR);
    let far = QualmPorts { xds: far, als: mesh.ports.als.map(|_| far), ..mesh.ports.clone() };
    let far = mesh.replica(settings, 7, far);
    let ports = mesh.ports.clone();
    let mut third = mesh.replica(settings, 8, ports);
    let otto = Person::new(&mesh.authority, "otto", mesh.qualm.folder());
    let mut straying = std::mem::take(&mut mesh.others).into_iter();

    let mut shown = Vec::new();
    let mut held = 0;
    while shown.len() < runs {
        let identity = straying.next().expect("the mesh has services enough");
        match one_run(&mesh, &[&mesh.sidecar, &far, &third], &identity, &otto) {
            Some(run) => {
                holds(&run);
                shown.push(run);
            }
            None => held += 1,
        }
    }
    if is_long() {
        eprintln!("{held} more were held at a lower level, to spare the last replica of a service");
    }
    tell(words, &shown);
    one_is_down(&mut mesh, &far, &mut third, &mut straying, &otto);
    mesh.qualm.check_metrics();
}

/// Lets an identity stray before all these Envoys until it is proven that it is denied; it is lifted then. `None` where a
/// bound holds it at a lower level.
fn one_run(mesh: &Mesh, envoys: &[&Envoy], identity: &str, otto: &Person) -> Option<Run> {
    let caller = Caller::new(&mesh.authority, identity, SOURCE, &mesh.pair.called);
    let is_over = AtomicBool::new(false);
    let (calls, contained): (Vec<_>, _) = thread::scope(|scope| {
        let stray = |(number, envoy): (usize, &&Envoy)| {
            let (connection, is_over) = (caller.connect(envoy.http()).unwrap(), &is_over);
            scope.spawn(move || stray(connection, number, is_over))
        };
        let each: Vec<_> = envoys.iter().enumerate().map(stray).collect();
        let _ends = Ends(&is_over);
        let contained = proof(mesh, identity);
        is_over.store(true, Ordering::Release);
        (each.into_iter().map(|one| one.join().unwrap()).collect(), contained)
    });
    let Some(contained) = contained else {
        otto.done(&["lift", identity, "--reason", "it is held"]);
        return None;
    };
    // All that it has done is told of by now, however it is shipped.
    thread::sleep(Duration::from_secs(4));
    otto.done(&["lift", identity, "--reason", "the next run"]);
    let ended = until("its end is told", PATIENCE, || told(mesh, identity, "ended"));
    Some(Run { calls, contained, ended })
}

/// What is told of an identity's quarantine once it is proven that it holds; `None` where a bound holds it at a lower
/// level, as it does to spare the last healthy replica of a service.
fn proof(mesh: &Mesh, identity: &str) -> Option<Value> {
    until("it is proven that it is denied", PATIENCE, || {
        thread::sleep(DENIED_PAUSE);
        let records = journalled(mesh.qualm.folder(), identity);
        let is_held = || records.iter().any(|record| record["payload"]["held"].is_string()).then_some(None);
        told(mesh, identity, "contained").map(Some).or_else(is_held)
    })
}

/// Ends those who stray also where the test fails, or nobody would hear of it.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks for what nobody has ever asked for, every time another one; who is denied asks less often.
fn stray(mut connection: Connection, number: usize, is_over: &AtomicBool) -> Vec<Call> {
    let mut calls = Vec::new();
    while !is_over.load(Ordering::Acquire) {
        let path = format!("/internal/{}/export/{}", ["users", "cards", "keys"][number % 3], word(calls.len()));
        let sent = now();
        let status = connection.request("POST", &path).unwrap().status;
        calls.push(Call { sent, answered: now(), status });
        thread::sleep(if status == 200 { PAUSE } else { DENIED_PAUSE });
    }
    calls
}

fn word(n: usize) -> String {
    let of = |n: usize| ["all", "new", "old", "raw", "audit", "ledgers", "tokens", "backups"][n % 8];
    format!("{}/{}", of(n), of(n / 8))
}

/// What the journal tells last of an identity's quarantine at such a moment.
fn told(mesh: &Mesh, identity: &str, moment: &str) -> Option<Value> {
    let records = journalled(mesh.qualm.folder(), identity);
    let mut timelines = records.iter().map(|record| &record["payload"]["timeline"]);
    timelines.rfind(|of| of["moment"] == moment && of["level"] == "quarantined" && !of["event"].is_null()).cloned()
}

fn time(of: &Value, key: &str) -> Timestamp {
    Timestamp(of[key].as_i64().unwrap_or_else(|| panic!("no {key} in {of}")))
}

/// What must hold of every run, however slow the machine is.
fn holds(run: &Run) {
    let (contained, ended) = (&run.contained, &run.ended);
    let at = |key: &str| time(contained, key);
    assert_eq!(contained["decision"], ended["decision"]);
    assert!(at("event") <= at("crossed") && at("crossed") <= at("pushed"), "{contained}");
    assert!(at("pushed") <= at("first_acknowledged"), "{contained}");
    assert!(
        at("first_acknowledged") <= at("last_acknowledged") && at("first_denied") <= at("contained"),
        "{contained}"
    );
    assert_eq!(contained["nodes"]["effective"], run.calls.len(), "each Envoy has shown it: {contained}");
    for calls in &run.calls {
        let first = calls.iter().position(|call| call.status == 403).expect("each Envoy denies");
        assert!(calls[..first].iter().all(|call| matches!(call.status, 200 | 429)), "{calls:?}");
        assert!(calls[first..].iter().all(|call| call.status == 403), "who is denied stays so: {calls:?}");
    }
    let (counted, (least, most)) = (served_by_count(run), served_by_sight(run));
    assert!(counted <= most && (counted > 0 || least < 10), "{counted} are counted as served, {least} to {most} were");
}

/// Calls that Qualm counts as served after the threshold was crossed.
fn served_by_count(run: &Run) -> usize {
    run.ended["served"].as_u64().unwrap() as usize
}

/// How many there were: those sent after it was crossed certainly began later, those answered before certainly did not.
fn served_by_sight(run: &Run) -> (usize, usize) {
    let crossed = time(&run.contained, "crossed");
    let served = |when: fn(&Call) -> Timestamp| {
        let calls = run.calls.iter().flatten().filter(|call| call.status == 200);
        calls.filter(|call| when(call) > crossed).count()
    };
    (served(|call| call.sent), served(|call| call.answered))
}

/// One Envoy is down while an identity comes to be denied, and comes back.
fn one_is_down(
    mesh: &mut Mesh,
    far: &Envoy,
    third: &mut Envoy,
    straying: &mut impl Iterator<Item = String>,
    otto: &Person,
) {
    let sidecar = third.sidecar().clone();
    third.kill();
    let nodes = |mesh: &Mesh| mesh.qualm.metric("qualm_enforcement_nodes{enforcer=\"xds\"}");
    until_true("its end is seen", PATIENCE, || nodes(mesh) == Some(3.0));
    let coverage = |mesh: &Mesh, of: &str| mesh.qualm.metric(&format!("qualm_proxies_{of}")).unwrap_or(f64::NAN);
    until_true("coverage says so", PATIENCE, || coverage(mesh, "enforcing") < coverage(mesh, "reporting"));
    let (caller, contained) = straying.find_map(|identity| denied_before_two(mesh, far, &identity)).unwrap();
    assert_eq!(contained["nodes"]["effective"], 2, "{contained}");
    let (reporting, enforcing) = (coverage(mesh, "reporting"), coverage(mesh, "enforcing"));
    let begun = Instant::now();
    let back = mesh.start_sidecar(sidecar);
    let live = begun.elapsed();
    let mut connection = caller.connect(back.http()).unwrap();
    let mut served = 0;
    until_true("the one that is back denies", PATIENCE, || {
        let is_denied = connection.request("POST", "/internal/keys/export/all").unwrap().status == 403;
        served += usize::from(!is_denied);
        is_denied
    });
    let denies = begun.elapsed();
    until_true("it enforces again", PATIENCE, || nodes(mesh) == Some(4.0));
    if is_long() {
        eprintln!("while one is down: {reporting} proxies report, {enforcing} enforce");
        eprintln!("back: live after {live:.0?}, denies after {denies:.0?}, {served} calls served meanwhile");
    }
    otto.done(&["lift", contained["identity"].as_str().unwrap(), "--reason", "the drill is over"]);
}

/// Lets an identity stray before the two Envoys that are up until it is proven that it is denied.
fn denied_before_two(mesh: &Mesh, far: &Envoy, identity: &str) -> Option<(Caller, Value)> {
    let caller = Caller::new(&mesh.authority, identity, SOURCE, &mesh.pair.called);
    let is_over = &AtomicBool::new(false);
    let contained = thread::scope(|scope| {
        for (number, envoy) in [&mesh.sidecar, far].into_iter().enumerate() {
            let connection = caller.connect(envoy.http()).unwrap();
            scope.spawn(move || stray(connection, number, is_over));
        }
        let _ends = Ends(is_over);
        proof(mesh, identity)
    });
    contained.map(|contained| (caller, contained))
}

/// Prints how long each step took.
fn tell(words: &str, runs: &[Run]) {
    if !is_long() {
        return;
    }
    eprintln!("== {words}; {} runs", runs.len());
    let denied = |run: &Run| {
        let first = |calls: &Vec<Call>| calls.iter().find(|call| call.status == 403).unwrap().answered;
        run.calls.iter().map(first).collect::<Vec<_>>()
    };
    let spans = |what: &str, since: &str, until: &dyn Fn(&Run) -> Timestamp| {
        quantiles(what, runs.iter().map(|run| span(until(run) - time(&run.contained, since))).collect());
    };
    spans("request on the wire to read and judged", "event", &|run| time(&run.contained, "crossed"));
    spans("judged to pushed", "crossed", &|run| time(&run.contained, "pushed"));
    spans("pushed to first acknowledgement", "pushed", &|run| time(&run.contained, "first_acknowledged"));
    spans("pushed to last acknowledgement", "pushed", &|run| time(&run.contained, "last_acknowledged"));
    spans("read and judged to first denial", "crossed", &|run| *denied(run).iter().min().unwrap());
    spans("read and judged to last denial", "crossed", &|run| *denied(run).iter().max().unwrap());
    let first = |run: &Run| *denied(run).iter().min().unwrap();
    spans("request on the wire to first denial", "event", &first);
    for (number, name) in ["the near Envoy", "the Envoy 150 ms away", "the third"].into_iter().enumerate() {
        spans(&format!("request on the wire to denial before {name}"), "event", &|run| denied(run)[number]);
    }
    spans("request on the wire to last denial", "event", &|run| *denied(run).iter().max().unwrap());
    spans("request on the wire to verified before all", "event", &|run| time(&run.contained, "contained"));
    for (number, name) in ["near", "150 ms away", "third"].into_iter().enumerate() {
        let crossed = |run: &Run| time(&run.contained, "crossed");
        let served = |run: &Run, call: &Call| call.status == 200 && call.sent > crossed(run);
        let of = |run: &Run| run.calls[number].iter().filter(|call| served(run, call)).count();
        shares(&format!("calls served after crossing, {name}"), runs.iter().map(of).collect());
    }
    shares("all of them", runs.iter().map(|run| served_by_sight(run).0).collect());
    shares("all of them, as Qualm counts", runs.iter().map(served_by_count).collect());
}

fn shares(what: &str, mut counts: Vec<usize>) {
    counts.sort_unstable();
    let at = |share| at_share(&counts, share);
    eprintln!("{what}: p50 {}, p99 {}, most {}", at(0.5), at(0.99), at(1.0));
}

fn span(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.0).unwrap_or(0))
}

fn quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share| at_share(&took, share).as_secs_f64() * 1000.0;
    eprintln!("{what}: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, most {:.0} ms", at(0.5), at(0.9), at(0.99), at(1.0));
}
