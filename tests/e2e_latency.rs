//! How long from an event being read to its denial being acknowledged by a real Envoy. Prints figures and asserts none:
//! a loaded machine proves nothing. `tests/run --long` runs it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the figures are what it is for")]

mod support;

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    authority::{Authority, TRUST_DOMAIN, spiffe_id},
    discovery::now,
    envoy::{Envoy, QualmPorts, Sidecar},
    estate::{Estate, last_calls, misused},
    measure::at_share,
    mesh::{until_armed, until_enforcing},
    parts::{Part, long_run, present},
    ports,
    qualm::Qualm,
    wait::{PATIENCE, until},
};

/// Services of the mesh; most of them call others, and each that does is denied once.
const SERVICES: usize = 160;
/// Longer than what a denial takes: the next event finds an idle pipeline.
const PAUSE: Duration = Duration::from_millis(30);
/// Synced writes that are timed.
const SYNCS: usize = 300;

#[test]
fn from_an_event_to_its_acknowledged_denial() {
    if !long_run() || !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ports = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
    let _sidecar = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 0, Some(ports.clone())));
    let calls = write_past(folder.path());
    let mut log = File::create(folder.path().join("access.jsonl")).unwrap();
    let http = ports::free();
    let mut qualm = Qualm::start(folder.path(), &config(folder.path(), &authority, &ports, http), http);
    until_armed(&mut qualm);
    until_enforcing(&mut qualm, 1);

    let mut read = qualm.output().len();
    let mut micros = Vec::new();
    for call in calls {
        // One call is enough with such a budget; where it is not, a second adds to it.
        for n in 0..3 {
            log.write_all(&[misused(&call, n, now()), b"\n".to_vec()].concat()).unwrap();
            let taken = acknowledged(&qualm, &mut read);
            if let Some(taken) = taken {
                micros.push(taken);
                break;
            }
        }
        std::thread::sleep(PAUSE);
    }

    tell("event read to acknowledged denial, the journal's sync included", micros);
    tell("one synced write of 1 KiB beside the journal", (0..SYNCS).map(|_| synced(folder.path())).collect());
    qualm.check_metrics();
}

/// How long the denial took that the last event has led to, if it has led to one; in microseconds.
fn acknowledged(qualm: &Qualm, read: &mut usize) -> Option<u64> {
    let verdict = |output: &str| output.contains(r#"level="quarantined" previous="#);
    let given_up = Instant::now() + Duration::from_millis(500);
    let output = until("the event is judged", PATIENCE, || {
        let output = qualm.output();
        (verdict(&output[*read..]) || Instant::now() > given_up).then_some(output)
    });
    if !verdict(&output[*read..]) {
        *read = output.len();
        return None;
    }
    let taken = until("the denial is acknowledged", PATIENCE, || {
        let output = qualm.output();
        let after = &output[*read..];
        let after = &after[after.find(r#"level="quarantined""#)?..];
        let taken = after.split_once("since_event_us=")?.1.split_once('\n')?.0;
        *read = output.len();
        Some(taken.parse().unwrap())
    });
    Some(taken)
}

/// Writes the mesh's past; the last call of every caller in it.
fn write_past(folder: &Path) -> Vec<Value> {
    let present = now();
    let estate = Estate::of_services(SERVICES, 7, present);
    let mut past = std::io::BufWriter::new(File::create(folder.join("past.jsonl")).unwrap());
    let mut last_day = Vec::new();
    for line in estate.lines(present).take_while(|line| line.report.0 <= present.0 / 1_000_000) {
        past.write_all(&line.text).unwrap();
        past.write_all(b"\n").unwrap();
        if line.report.0 > present.0 / 1_000_000 - 86_400_000 {
            last_day.push(line);
        }
    }
    past.flush().unwrap();
    last_calls(&last_day).into_values().collect()
}

/// Microseconds of one appended and synced KiB.
fn synced(folder: &Path) -> u64 {
    let mut file = File::options().create(true).append(true).open(folder.join("synced")).unwrap();
    let begun = Instant::now();
    file.write_all(&[b'x'; 1024]).unwrap();
    file.sync_data().unwrap();
    begun.elapsed().as_micros() as u64
}

fn tell(what: &str, mut micros: Vec<u64>) {
    micros.sort_unstable();
    assert!(micros.len() >= 50, "too few for a percentile: {}", micros.len());
    let at = |share| at_share(&micros, share) as f64 / 1000.0;
    let most = at(1.0);
    eprintln!(
        "{what}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, most {most:.2} ms, n {}",
        at(0.5),
        at(0.9),
        at(0.99),
        micros.len()
    );
}

fn config(folder: &Path, authority: &Authority, ports: &QualmPorts, http: u16) -> String {
    let svid = authority.write_svid(&ports.id, &folder.join("qualm-svid"));
    format!(
        r#"
[[file]]
path = "../access.jsonl"
format = "istio_json"
follow = true

[listen]
address = "127.0.0.1:{grpc}"
certificate = {certificate:?}
key = {key:?}
client_roots = {bundle:?}
enforcement_points = ["spiffe://{TRUST_DOMAIN}/*"]

[observe]
address = "127.0.0.1:{http}"

[history]
files = ["../past.jsonl"]
format = "istio_json"

# The greatest budget there is: a single odd call is enough for a denial, which is what is timed here.
[budget]
quarantined_per_month = 300000

[enforce]
mode = "enforce"
max_share = 1.0

[state]
directory = "state"

[log]
level = "info,qualm=debug"
"#,
        grpc = ports.xds,
        certificate = svid.certificate,
        key = svid.key,
        bundle = svid.bundle,
    )
}
