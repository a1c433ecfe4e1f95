//! Not part of the repository: evaluates all sets at once.
#![allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unused,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::disallowed_methods
)]
#[allow(dead_code, unreachable_pub)]
#[path = "../src/backtest/sort.rs"]
mod sort;
#[allow(dead_code, unreachable_pub)]
#[path = "../src/backtest/spill.rs"]
mod spill;

use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use qualm_ingest::{
    config::read_mapping,
    file::FileReader,
    parse::{Format, Parser},
};
use qualm_model::{
    detector::Question,
    event::EventBatch,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    verdict::Verdict,
};
use sort::Sorter;
use std::fmt::Write as _;
use std::{
    collections::*,
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

const DATA: &str = "judge-data";
const MIN: i64 = 60_000_000_000;

fn prep(name: &str, kind: &str, paths: Vec<PathBuf>, labelcol: Option<usize>) {
    let parser = if kind.ends_with(".toml") {
        let m = read_mapping(Path::new(kind)).unwrap();
        Parser::for_format(Format::Mapped, Some(m)).unwrap()
    } else {
        Parser::for_format(Format::default(), None).unwrap()
    };
    let mut reader = FileReader::new(paths.clone(), parser, 0);
    let mut sorter = Sorter::new(Path::new(DATA), 6 << 30);
    let (mut n, mut rej) = (0, 0);
    while let Some(batch) = reader.next_batch().unwrap() {
        rej += batch.rejected.len();
        n += batch.events.len();
        sorter.push(&batch.events).unwrap();
    }
    let mut sorted = sorter.finish().unwrap();
    let file = File::create(format!("{DATA}/{name}.arrow")).unwrap();
    let mut w: Option<StreamWriter<BufWriter<File>>> = None;
    let mut file = Some(file);
    while let Some(b) = sorted.next_batch().unwrap() {
        let rb = b.as_record_batch();
        let w = w.get_or_insert_with(|| StreamWriter::try_new_buffered(file.take().unwrap(), &rb.schema()).unwrap());
        w.write(rb).unwrap();
    }
    w.unwrap().finish().unwrap();
    if let Some(header) = labelcol {
        let mut out = BufWriter::new(File::create(format!("{DATA}/{name}.labels")).unwrap());
        for p in &paths {
            let r = BufReader::new(zstd::stream::read::Decoder::new(File::open(p).unwrap()).unwrap());
            for l in r.lines().skip(header) {
                let l = l.unwrap();
                writeln!(out, "{}", l.rsplit(',').next().unwrap()).unwrap();
            }
        }
    }
    println!("{name}: {n} events {rej} rejected");
}

fn batches(name: &str) -> impl Iterator<Item = EventBatch> {
    let f = File::open(format!("{DATA}/{name}.arrow")).unwrap();
    StreamReader::try_new_buffered(f, None).unwrap().map(|b| EventBatch::try_from(b.unwrap()).unwrap())
}

pub(crate) fn auc(items: impl IntoIterator<Item = (f64, bool)>) -> f64 {
    let mut items: Vec<(f64, bool)> = items.into_iter().collect();
    items.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut at) = (0.0, 0);
    while at < items.len() {
        let end = at + items[at..].partition_point(|item| item.0 <= items[at].0);
        let rank = (at + 1 + end) as f64 / 2.0;
        ranks += rank * items[at..end].iter().filter(|item| item.1).count() as f64;
        at = end;
    }
    let odd = items.iter().filter(|item| item.1).count() as f64;
    let usual = items.len() as f64 - odd;
    (ranks - odd * (odd + 1.0) / 2.0) / (odd * usual)
}
fn tpr(items: &[(f64, bool)], rate: f64) -> f64 {
    let mut usual: Vec<f64> = items.iter().filter(|i| !i.1).map(|i| i.0).collect();
    usual.sort_by(|a, b| b.total_cmp(a));
    let t = usual[(rate * usual.len() as f64) as usize];
    let odd: Vec<f64> = items.iter().filter(|i| i.1).map(|i| i.0).collect();
    odd.iter().filter(|&&s| s > t).count() as f64 / odd.len() as f64
}

struct Run {
    entries: [u64; 4],
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    cpu: f64,
    state: String,
}
impl Run {
    fn days(&self) -> f64 {
        match (self.first, self.last) {
            (Some(a), Some(b)) => (b - a).0 as f64 / (1440.0 * MIN as f64),
            _ => 0.0,
        }
    }
}

fn cpu() -> f64 {
    let s = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let r = s.rsplit(')').next().unwrap();
    let f: Vec<&str> = r.split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}

fn run(
    name: &str,
    filter: impl Fn(i64) -> bool,
    until: i64,
    mut on: impl FnMut(i64, &qualm_model::event::Event<'_>, Observed),
    mut verdict: impl FnMut(&Verdict),
) -> Run {
    let mut config = ScorerConfig::default();
    let mut s = Scorer::new(config);
    s.limit_sources(vec![Level::Quarantined]);
    if let Ok(w) = std::env::var("WITHOUT") {
        without(&mut s, &w);
    }
    let mut verdicts = Vec::new();
    let mut r = Run { entries: [0; 4], first: None, last: None, cpu: 0.0, state: String::new() };
    let mut minute = None;
    let mut c = 0.0;
    let mut handle = |vs: &mut Vec<Verdict>, r: &mut Run| {
        for v in vs.drain(..) {
            if v.level > v.previous {
                for (n, l) in Level::BY_BEHAVIOUR.iter().enumerate() {
                    if *l <= v.level && *l > v.previous {
                        r.entries[n] += 1;
                    } else if *l <= v.level {
                        r.entries[n] += 1;
                    }
                }
            }
            verdict(&v);
        }
    };
    for b in batches(name) {
        let c0 = cpu();
        s.open(&b);
        for e in b.events() {
            let row = e.position().offset;
            if !filter(row) {
                continue;
            }
            let t = e.report();
            if t.0 >= until {
                continue;
            }
            let m = t.0.div_euclid(MIN);
            if minute != Some(m) {
                let next = minute.map_or(m, |l: i64| (l + 1).max(m - 2880));
                for p in next..=m {
                    s.tick(Timestamp(p * MIN), &mut verdicts);
                }
                minute = Some(m);
            }
            let o = s.observe(e, t, &mut verdicts);
            on(row, &e, o);
            handle(&mut verdicts, &mut r);
            r.first.get_or_insert(t);
            r.last = Some(t);
        }
        s.forget_changes();
        c += cpu() - c0;
    }
    if let Some(l) = r.last {
        s.tick(Timestamp(l.0 + 70 * MIN), &mut verdicts);
        handle(&mut verdicts, &mut r);
    }
    r.cpu = c;
    let t = s.tally();
    r.state = format!("{} ids {} edges {:.1} MB", t.identities, t.edges, t.bytes as f64 / 1e6);
    r
}
fn without(s: &mut Scorer, w: &str) {
    let qs: Vec<Question> = Question::ALL.into_iter().filter(|q| w.split(',').any(|x| x == q.name())).collect();
    s.mute(&qs);
}

fn labels(name: &str) -> Vec<String> {
    fs::read_to_string(format!("{DATA}/{name}.labels")).unwrap().lines().map(str::to_owned).collect()
}

fn ratio(r: &Run) -> String {
    let d = r.days();
    let b = [10.0, 1.0, 1.0 / 7.0, 1.0 / 30.0];
    let mut s = format!("days {d:.2} entries ");
    for n in 0..4 {
        let _ = write!(s, "{} (x{:.2}) ", r.entries[n], r.entries[n] as f64 / (d * b[n]));
    }
    s
}

fn darpa() -> String {
    let ls = labels("darpa");
    let mut items: Vec<(f64, u32)> = vec![(f64::MIN, 0); ls.len()];
    let mut classes: HashMap<String, u32> = HashMap::new();
    classes.insert("-".into(), 0);
    let cls: Vec<u32> = ls
        .iter()
        .map(|l| {
            let l = l.split('-').next().unwrap();
            let l = if l.is_empty() { "-" } else { l };
            let n = classes.len() as u32;
            *classes.entry(l.to_owned()).or_insert(n)
        })
        .collect();
    let mut coll: HashMap<(i64, u64), (f64, bool)> = HashMap::new();
    let mut hosts: HashMap<String, u32> = HashMap::new();
    let mut lead: HashMap<(u32, Option<Question>), u64> = HashMap::new();
    let mut top: Vec<(f64, i64, String, String, i64, Option<Question>)> = Vec::new();
    let r = run(
        "darpa",
        |_| true,
        i64::MAX,
        |row, e, o| {
            if let Observed::Scored { bits, leading, .. } = o {
                let c = cls[row as usize];
                items[row as usize] = (bits, c);
                let n = hosts.len() as u32;
                let a = *hosts.entry(e.source().principal().to_owned()).or_insert(n);
                let n = hosts.len() as u32;
                let b = *hosts.entry(e.destination().principal().to_owned()).or_insert(n);
                let k = (e.report().0.div_euclid(MIN), ((a as u64) << 32) | b as u64);
                let x = coll.entry(k).or_insert((bits, c != 0));
                *x = (x.0.max(bits), x.1 | (c != 0));
                *lead.entry((c, leading)).or_default() += 1;
                if c == 0 && bits > 1.0 {
                    top.push((
                        bits,
                        row,
                        e.source().principal().to_owned(),
                        e.destination().principal().to_owned(),
                        e.report().0 / MIN,
                        leading,
                    ));
                }
            }
        },
        |_| (),
    );
    for (row, i) in items.iter_mut().enumerate() {
        i.1 = cls[row];
    }
    let all: Vec<(f64, bool)> = items.iter().map(|i| (i.0, i.1 != 0)).collect();
    let usual: Vec<(f64, bool)> = all.iter().copied().filter(|i| !i.1).collect();
    let mut out = String::new();
    let quiet = ["portsweep", "nmap", "dict", "warezclient", "guest", "httptunnel"];
    let mut per = String::new();
    let mut mean = 0.0;
    for q in quiet.iter().chain(["snmpgetattack", "ipsweep", "smurf", "neptune"].iter()) {
        let c = classes[*q];
        let a = auc(usual.iter().copied().chain(items.iter().filter(|i| i.1 == c).map(|i| (i.0, true))));
        if quiet.contains(q) {
            mean += a / 6.0;
        }
        let _ = write!(per, "{q} {a:.3} ");
    }
    let _ = write!(
        out,
        "darpa event {:.4} collapsed {:.4} TPR {:.3} quiet {:.3} cpu {:.1}s {}\n   {per}\n   {} {}\n",
        auc(all.iter().copied()),
        auc(coll.into_values()),
        tpr(&all, 0.001),
        mean,
        r.cpu,
        r.state,
        ratio(&r),
        ""
    );
    // what are the false rows at TPR .83
    let mut odd: Vec<f64> = all.iter().filter(|i| i.1).map(|i| i.0).collect();
    odd.sort_by(|a, b| b.total_cmp(a));
    let t83 = odd[(0.83 * odd.len() as f64) as usize];
    let mut by: HashMap<(String, String, i64, Option<Question>), (u64, f64)> = HashMap::new();
    let mut n = 0;
    for (b, _, s, d, m, l) in &top {
        if *b > t83 {
            n += 1;
            let x = by.entry((s.clone(), d.clone(), m / 1440, *l)).or_default();
            x.0 += 1;
            x.1 = x.1.max(*b);
        }
    }
    let mut v: Vec<_> = by.into_iter().collect();
    v.sort_by_key(|x| std::cmp::Reverse(x.1.0));
    let _ = write!(
        out,
        "   threshold for TPR .83: {t83:.2} bits, false rows above {n} of {} allowed {}\n",
        usual.len(),
        usual.len() / 1000
    );
    for x in v.iter().take(14) {
        let _ = write!(out, "      {:?} {}\n", x.0, format!("{} rows max {:.1}", x.1.0, x.1.1));
    }
    if std::env::var("TOPS").is_ok() {
        // attack rows below threshold by class
        let names: HashMap<u32, &String> = classes.iter().map(|(a, b)| (*b, a)).collect();
        let mut below: HashMap<u32, (u64, u64)> = HashMap::new();
        for i in &items {
            if i.1 != 0 {
                let x = below.entry(i.1).or_default();
                x.1 += 1;
                if i.0 <= t83 {
                    x.0 += 1;
                }
            }
        }
        let mut v: Vec<_> = below.into_iter().collect();
        v.sort_by_key(|x| std::cmp::Reverse(x.1.0));
        for (c, (a, b)) in v.iter().take(10) {
            let _ = write!(out, "      missed at .83: {} {a} of {b}\n", names[c]);
        }
    }
    out
}

fn benign(name: &str) -> (String, Run) {
    let ls = labels("darpa");
    let r = run("darpa", |row| ls[row as usize] == "-", i64::MAX, |_, _, _| (), |_| ());
    (format!("darpa-benign {} {}\n", ratio(&r), r.state), r)
}

fn ait() -> String {
    let mut out = String::new();
    let (mut ma, mut mt) = (0.0, 0.0);
    for bed in ["fox", "russellmitchell", "shaw", "wardbeck"] {
        let name = format!("ait-{bed}");
        let ls = labels(&name);
        let mut rows: Vec<(String, i64, f64, usize)> = Vec::new();
        let mut first_attack = i64::MAX;
        let r = run(
            &name,
            |_| true,
            i64::MAX,
            |row, e, o| {
                let b = if let Observed::Scored { bits, .. } = o { bits } else { f64::MIN };
                if ls[row as usize] != "-" {
                    first_attack = first_attack.min(e.report().0);
                }
                rows.push((e.source().principal().to_owned(), e.report().0.div_euclid(5 * MIN), b, row as usize));
            },
            |_| (),
        );
        let aside: HashSet<(String, i64)> =
            rows.iter().filter(|r| ls[r.3] == "dnsteal").map(|r| (r.0.clone(), r.1)).collect();
        let mut coll: HashMap<(String, i64), (f64, bool)> = HashMap::new();
        for x in &rows {
            let k = (x.0.clone(), x.1);
            if aside.contains(&k) {
                continue;
            }
            let odd = ls[x.3] != "-";
            let y = coll.entry(k).or_insert((x.2, odd));
            *y = (y.0.max(x.2), y.1 | odd);
        }
        let w: Vec<_> = coll.into_values().collect();
        let (a, t) = (auc(w.iter().copied()), tpr(&w, 0.01));
        ma += a / 4.0;
        mt += t / 4.0;
        let q = run(&name, |_| true, first_attack, |_, _, _| (), |_| ());
        let _ = write!(out, "{name} AUC {a:.4} TPR {t:.3} | before attacks: {}\n", ratio(&q));
    }
    let _ = write!(out, "ait mean AUC {ma:.4} mean TPR {mt:.3}\n");
    out
}

#[derive(Clone)]
struct Lab {
    start: i64,
    end: i64,
    kind: String,
    ids: Vec<String>,
}
fn read_labels(path: &str) -> Vec<Lab> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|l| {
            let v: serde_json::Value = serde_json::from_str(l).unwrap();
            let t = |k: &str| v[k].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_nanosecond() as i64;
            Lab {
                start: t("start"),
                end: t("end"),
                kind: v["kind"].as_str().unwrap().to_owned(),
                ids: v["identities"].as_array().unwrap().iter().map(|x| x.as_str().unwrap().to_owned()).collect(),
            }
        })
        .collect()
}

/// Which questions name a kind truly.
fn truly(kind: &str) -> &'static [&'static str] {
    match kind {
        "lateral_move" => &[
            "new-peer",
            "spread-10m",
            "spread-1h",
            "rare-destination",
            "lone-replica",
            "fan-in",
            "new-operation",
            "edge-rate",
        ],
        "peer_scan" | "slow_scan" => &[
            "spread-10m",
            "spread-1h",
            "spread-1d",
            "new-peer",
            "failing",
            "refused",
            "lone-replica",
            "rare-destination",
            "fan-in",
            "new-operation",
        ],
        "operation_enumeration" => &[
            "new-operation",
            "failing",
            "refused",
            "operation-rate",
            "rare-operation",
            "spread-operations",
            "lone-replica",
        ],
        "exfiltration" | "slow_exfiltration" => &["bigger", "oversized", "longer", "volume", "volume-1h", "volume-1d"],
        "flood" => &["rate-1m", "rate-10m", "rate-1h", "edge-rate", "operation-rate", "destination-rate"],
        "beacon" | "night_beacon" => &[
            "new-peer",
            "rhythm",
            "rare-destination",
            "lone-replica",
            "spread-1h",
            "spread-10m",
            "new-operation",
            "edge-rate",
        ],
        "tunnelling" | "cryptomining" => &[
            "new-peer",
            "rare-destination",
            "longer",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "new-operation",
            "edge-rate",
            "rhythm",
            "new-port",
        ],
        "stolen_identity" => &[
            "new-fingerprint",
            "new-network",
            "new-credential",
            "outside-sharing",
            "unwitnessed",
            "lone-replica",
            "never-issued",
        ],
        "replayed_credential" => &["outside-sharing", "new-network", "unwitnessed", "lone-replica", "new-fingerprint"],
        "credential_brute_force" | "password_spraying" => {
            &["failing", "refused", "login-elsewhere", "operation-rate", "edge-rate", "rate-1m"]
        }
        "refused_burst" | "privilege_enumeration" => &[
            "refused",
            "new-operation",
            "operation-rate",
            "rare-operation",
            "failing",
            "spread-operations",
            "lone-replica",
        ],
        "data_pull" => &[
            "new-peer",
            "bigger",
            "oversized",
            "rare-destination",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "fan-in",
            "edge-rate",
            "volume",
            "longer",
        ],
        "destruction" => &["new-operation", "operation-rate", "rare-operation", "lone-replica", "edge-rate"],
        "slow_boil" => &["rate-1m", "rate-10m", "rate-1h", "edge-rate", "operation-rate", "drift", "rate-1d"],
        "off_hours" => &["off-hours", "rate-1m", "rate-10m", "rate-1h", "edge-rate", "rare-source", "operation-rate"],
        "unusual_sequence" => &["sequence", "operation-rate", "rare-operation", "edge-rate", "rate-10m"],
        "object_enumeration" => &[
            "operation-rate",
            "failing",
            "edge-rate",
            "rate-1m",
            "rate-10m",
            "rate-1h",
            "sequence",
            "destination-rate",
            "refused",
        ],
        "secrets_harvest" => &[
            "new-operation",
            "operation-rate",
            "rare-operation",
            "refused",
            "edge-rate",
            "spread-operations",
            "failing",
            "lone-replica",
        ],
        "role_chain" => &[
            "new-operation",
            "operation-rate",
            "rare-operation",
            "new-peer",
            "edge-rate",
            "sequence",
            "spread-1h",
            "spread-10m",
            "lone-replica",
            "rare-destination",
            "fan-in",
        ],
        "internal_proxy" => &[
            "new-operation",
            "new-peer",
            "operation-rate",
            "edge-rate",
            "rate-1m",
            "rate-10m",
            "rate-1h",
            "spread-10m",
            "spread-1h",
            "sequence",
            "rare-operation",
            "lone-replica",
        ],
        "encryption_burst" => &[
            "operation-rate",
            "new-operation",
            "edge-rate",
            "rate-1m",
            "rate-10m",
            "rate-1h",
            "bigger",
            "oversized",
            "rare-operation",
            "volume",
            "lone-replica",
            "sequence",
            "destination-rate",
        ],
        "foreign_queue" => &[
            "new-peer",
            "rare-destination",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "fan-in",
            "edge-rate",
            "longer",
            "bigger",
        ],
        "expired_certificate" => &["after-expiry"],
        "premature_certificate" => &["before-issuance"],
        "forged_certificate" => &["never-issued", "new-credential", "new-fingerprint", "before-issuance"],
        "plain_text" => &["no-certificate", "new-fingerprint"],
        "rogue_replica" => &[
            "new-fingerprint",
            "new-network",
            "new-credential",
            "lone-replica",
            "never-issued",
            "outside-sharing",
            "unwitnessed",
            "new-peer",
            "new-operation",
            "spread-10m",
            "spread-1h",
        ],
        "silenced" | "bypassed_proxy" => &["silence", "unwitnessed"],
        "stolen_token" => &["outside-sharing", "new-network", "new-fingerprint"],
        "expired_token" => &["after-expiry"],
        "forged_token" => &["never-issued"],
        "revoked_token" => &["after-revocation", "refused"],
        _ => &[],
    }
}

#[derive(Default, Clone)]
struct Sum {
    attacks: u32,
    watched: u32,
    throttled: u32,
    restricted: u32,
    named: u32,
    delays: Vec<f64>,
    fw: u64,
    ft: u64,
    fr: u64,
    fq: u64,
    days: f64,
    by: BTreeMap<String, [u32; 4]>,
    fby: BTreeMap<String, u32>,
    ftby: BTreeMap<String, u32>,
    roc: Vec<String>,
}

fn generated(name: &str, sum: &mut Sum) -> String {
    let labs = read_labels(&format!("{DATA}/{name}/labels.jsonl"));
    let changes = read_labels(&format!("{DATA}/{name}/changes.jsonl"));
    let mut by: HashMap<String, Vec<usize>> = HashMap::new();
    for (n, l) in labs.iter().enumerate() {
        for i in &l.ids {
            by.entry(i.clone()).or_default().push(n);
        }
    }
    let mut found = vec![[None::<i64>; 4]; labs.len()];
    let mut reason: Vec<Option<Vec<(String, f64)>>> = vec![None; labs.len()];
    let mut best: Vec<(f64, f64, Option<Question>)> = vec![(f64::MIN, 0.0, None); labs.len()];
    let mut false_entries = [0u64; 4];
    let mut notes = String::new();
    let grace = 5 * MIN;
    let mut first_seen = i64::MAX;
    let mut honest: HashMap<(String, i64), f64> = HashMap::new();
    let first_day = {
        let b = batches(name).next().unwrap();
        b.event(0).report().0 + 1440 * MIN
    };
    let r = {
        let best = &mut best;
        let by2 = &by;
        let labs2 = &labs;
        run(
            name,
            |_| true,
            i64::MAX,
            |_, e, o| {
                if let Observed::Scored { bits, identity_bits, leading } = o {
                    let tt = e.report().0;
                    let lab = by2
                        .get(e.source().principal())
                        .is_some_and(|ns| ns.iter().any(|&n| tt >= labs2[n].start && tt <= labs2[n].end + 60 * MIN));
                    if !lab && tt > first_day {
                        let k = (e.source().principal().to_owned(), tt / (1440 * MIN));
                        let x = honest.entry(k).or_insert(0.0f64);
                        *x = x.max(identity_bits);
                    }
                    if let Some(ns) = by2.get(e.source().principal()) {
                        let t = e.report().0;
                        for &n in ns {
                            if t >= labs2[n].start && t <= labs2[n].end + grace {
                                let b = &mut best[n];
                                b.1 = b.1.max(identity_bits);
                                if bits > b.0 {
                                    b.0 = bits;
                                    b.2 = leading;
                                }
                            }
                        }
                    }
                }
            },
            |v| {
                if v.level <= v.previous {
                    return;
                }
                let at = v.decided.0;
                let p = v.subject.principal.clone();
                let ns: Vec<usize> = by
                    .get(&p)
                    .map(|ns| {
                        ns.iter().copied().filter(|&n| at >= labs[n].start && at <= labs[n].end + grace).collect()
                    })
                    .unwrap_or_default();
                let lv = Level::BY_BEHAVIOUR.iter().take_while(|l| **l <= v.level).count();
                for &n in &ns {
                    for l in 0..lv {
                        found[n][l].get_or_insert(at);
                    }
                    if reason[n].is_none() {
                        reason[n] =
                            Some(v.reasons.iter().take(3).map(|r| (r.detector.name().to_owned(), r.bits)).collect());
                    }
                }
                if ns.is_empty() {
                    for l in 0..lv {
                        false_entries[l] += 1;
                    }
                    let who = p.clone();
                    let c: Vec<&str> = changes
                        .iter()
                        .filter(|c| c.ids.contains(&who) && at >= c.start - MIN && at <= c.end.max(c.start) + 60 * MIN)
                        .map(|c| c.kind.as_str())
                        .collect();
                    let after: Vec<&str> = labs
                        .iter()
                        .filter(|c| c.ids.contains(&who) && at >= c.start && at <= c.end + 1440 * MIN)
                        .map(|c| c.kind.as_str())
                        .collect();
                    let any: Vec<&str> = changes
                        .iter()
                        .filter(|c| {
                            ["campaign_peak", "dependency_outage", "issuer_rotation", "inventory"]
                                .contains(&c.kind.as_str())
                                && at >= c.start - MIN
                                && at <= c.end.max(c.start) + 30 * MIN
                        })
                        .map(|c| c.kind.as_str())
                        .collect();
                    let cause = if !c.is_empty() {
                        c.join("+")
                    } else if !after.is_empty() {
                        format!("after {}", after.join("+"))
                    } else if !any.is_empty() {
                        format!("amid {}", any.join("+"))
                    } else {
                        "nothing".into()
                    };
                    let rs: Vec<String> =
                        v.reasons.iter().take(4).map(|r| format!("{} {:.1}", r.detector.name(), r.bits)).collect();
                    *sum.fby
                        .entry(format!("{cause} / {}", v.reasons.first().map_or("-", |r| r.detector.name())))
                        .or_default() += 1;
                    if lv >= 2 {
                        *sum.ftby
                            .entry(format!("{cause} / {}", v.reasons.first().map_or("-", |r| r.detector.name())))
                            .or_default() += 1;
                    }
                    let _ = writeln!(
                        notes,
                        "    FALSE {} {} {} m {:.1} thr {:.1} [{}] {} {}",
                        Timestamp(at).0 / MIN,
                        v.level,
                        v.pace.map_or("-".into(), |p| format!("{p:?}")),
                        v.m,
                        v.threshold,
                        rs.join(", "),
                        cause,
                        p
                    );
                }
            },
        )
    };
    let d = r.days();
    {
        let mut h: Vec<f64> = honest.into_values().collect();
        h.sort_by(|a, b| b.total_cmp(a));
        let mut roc = String::from("    ROC by shown bits: ");
        for per in [0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0] {
            let n = (per * (d - 1.0)) as usize;
            if n < h.len() {
                let t = h[n];
                let a = best.iter().filter(|b| b.1 > t).count();
                let _ = write!(roc, "{per}/day: >{t:.1} {a}/{} | ", labs.len());
            }
        }
        sum.roc.push(roc.clone());
        let _ = writeln!(notes, "{roc}");
    }
    sum.days += d;
    sum.attacks += labs.len() as u32;
    sum.fw += false_entries[0];
    sum.ft += false_entries[1];
    sum.fr += false_entries[2];
    sum.fq += false_entries[3];
    let mut out = String::new();
    let (mut w, mut t, mut rs, mut nm) = (0, 0, 0, 0);
    for (n, l) in labs.iter().enumerate() {
        let e = sum.by.entry(l.kind.clone()).or_default();
        e[0] += 1;
        if found[n][0].is_some() {
            w += 1;
            e[1] += 1;
            sum.delays.push((found[n][0].unwrap() - l.start) as f64 / 1e9);
        }
        if found[n][1].is_some() {
            t += 1;
            e[2] += 1;
        }
        if found[n][2].is_some() {
            rs += 1;
        }
        let ok = reason[n].as_ref().is_some_and(|r| r.first().is_some_and(|r| truly(&l.kind).contains(&r.0.as_str())));
        if ok {
            nm += 1;
            e[3] += 1;
        }
        let why = reason[n]
            .as_ref()
            .map_or("-".into(), |r| r.iter().map(|r| format!("{} {:.1}", r.0, r.1)).collect::<Vec<_>>().join(", "));
        let lev = found[n]
            .iter()
            .rposition(Option::is_some)
            .map_or("MISSED", |p| ["watched", "throttled", "restricted", "quarantined"][p]);
        let _ = writeln!(
            notes,
            "    {} {} {lev} delay {:?}s best bits {:.1} {:?} shown {:.1} | {why} {}",
            l.start / MIN,
            l.kind,
            found[n][0].map(|f| (f - l.start) / 1_000_000_000),
            best[n].0,
            best[n].2.map(|q| q.name()),
            best[n].1,
            if ok { "" } else { "MISNAMED" }
        );
    }
    sum.watched += w;
    sum.throttled += t;
    sum.restricted += rs;
    sum.named += nm;
    let _ = write!(
        out,
        "{name} {d:.1}d attacks {} watched {w} throttled {t} restricted {rs} named {nm} | false/day watched {:.2} throttled {:.2} restricted {} quarantined {} | {} cpu {:.1}\n",
        labs.len(),
        false_entries[0] as f64 / d,
        false_entries[1] as f64 / d,
        false_entries[2],
        false_entries[3],
        r.state,
        r.cpu
    );
    fs::create_dir_all("judge-out").unwrap();
    fs::write(format!("judge-out/{name}{}.txt", std::env::var("TAG").unwrap_or_default()), notes).unwrap();
    out
}

fn simple(name: &str) -> String {
    let r = run(name, |_| true, i64::MAX, |_, _, _| (), |_| ());
    format!("{name} {} {} cpu {:.1}\n", ratio(&r), r.state, r.cpu)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Ok(k) = std::env::var("KNOBS") {
        for kv in k.split(',').filter(|x| !x.is_empty()) {
            let (i, v) = kv.split_once(':').unwrap();
            qualm_model::knob::set(i.parse().unwrap(), v.parse().unwrap());
        }
    }
    if args[0] == "prep" {
        let lab = if args[1].starts_with("ait") {
            Some(1)
        } else if args[1] == "darpa" {
            Some(0)
        } else {
            None
        };
        prep(&args[1], &args[2], args[3..].iter().map(PathBuf::from).collect(), lab);
        return;
    }
    let mut names: Vec<String> = Vec::new();
    for a in &args {
        if a == "gen" {
            for n in 1..=30 {
                let m = format!("m{n}");
                if Path::new(&format!("{DATA}/{m}.arrow")).exists() {
                    names.push(m);
                }
            }
        } else if a == "q" {
            for m in ["m1", "m2", "m5"] {
                names.push(m.into());
            }
        } else {
            names.push(a.clone());
        }
    }
    let next = std::sync::Mutex::new(names.into_iter().enumerate().collect::<VecDeque<_>>());
    let outs = std::sync::Mutex::new(BTreeMap::new());
    let sum = std::sync::Mutex::new(Sum::default());
    let threads: usize = std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2);
    std::thread::scope(|sc| {
        for _ in 0..threads {
            sc.spawn(|| {
                let mut mine = Sum::default();
                loop {
                    let Some((i, n)) = next.lock().unwrap().pop_front() else { break };
                    let o = match n.as_str() {
                        "darpa" => darpa(),
                        "benign" => benign("").0,
                        "ait" => ait(),
                        n if n.starts_with('m') => generated(n, &mut mine),
                        n => simple(n),
                    };
                    outs.lock().unwrap().insert(i, o);
                }
                let mut s = sum.lock().unwrap();
                s.attacks += mine.attacks;
                s.watched += mine.watched;
                s.throttled += mine.throttled;
                s.restricted += mine.restricted;
                s.named += mine.named;
                s.delays.extend(mine.delays);
                s.fw += mine.fw;
                s.ft += mine.ft;
                s.fr += mine.fr;
                s.fq += mine.fq;
                s.days += mine.days;
                for (k, v) in mine.by {
                    let e = s.by.entry(k).or_default();
                    for j in 0..4 {
                        e[j] += v[j];
                    }
                }
                for (k, v) in mine.fby {
                    *s.fby.entry(k).or_default() += v;
                }
                s.roc.extend(mine.roc);
                for (k, v) in mine.ftby {
                    *s.ftby.entry(k).or_default() += v;
                }
            });
        }
    });
    for o in outs.lock().unwrap().values() {
        print!("{o}");
    }
    let mut s = sum.into_inner().unwrap();
    if s.attacks + s.fw as u32 > 0 {
        s.delays.sort_by(f64::total_cmp);
        let a = s.attacks as f64;
        println!(
            "GENERATED {:.0} days, {} attacks: watched {:.1} % throttled {:.1} % restricted {} named {:.1} % of found, median delay {:?}; false a day watched {:.2} throttled {:.2}; restricted {} quarantined {}",
            s.days,
            s.attacks,
            100.0 * s.watched as f64 / a,
            100.0 * s.throttled as f64 / a,
            s.restricted,
            100.0 * s.named as f64 / s.watched.max(1) as f64,
            s.delays.get(s.delays.len() / 2),
            s.fw as f64 / s.days,
            s.ft as f64 / s.days,
            s.fr,
            s.fq
        );
        for r in &s.roc {
            println!("{r}");
        }
        for (k, v) in &s.by {
            println!("  {k}: {} watched {} throttled {} named {}", v[0], v[1], v[2], v[3]);
        }
        let mut f: Vec<_> = s.fby.iter().collect();
        f.sort_by_key(|x| std::cmp::Reverse(x.1));
        println!("  false watched by cause / reason:");
        for x in f.iter().take(40) {
            println!("    {} {}", x.1, x.0);
        }
        let mut f: Vec<_> = s.ftby.iter().collect();
        f.sort_by_key(|x| std::cmp::Reverse(x.1));
        println!("  false throttled by cause / reason:");
        for x in f.iter().take(40) {
            println!("    {} {}", x.1, x.0);
        }
    }
}
