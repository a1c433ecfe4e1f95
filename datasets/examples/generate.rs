//! Writes a generated mesh to files: `generate SEED DAYS SERVICES OUT [CALLS_PER_SECOND] [CHURN_PER_DAY]
//! [ATTACKS_PER_DAY] [KIND,KIND…] [INTENSITY] [PACE]`.
//!
//! `OUT` gets `events.jsonl` (Istio JSON access log), `labels.jsonl` (the attacks, for `qualm backtest --labels`)
//! and `changes.jsonl` (the honest changes, in the same form). Attacks begin after the first half of the time.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
    str::FromStr,
    sync::Arc,
};

use qualm_datasets::{
    AccessLog, AttackKind, ChangeKind, MeshConfig, Millis, Scenario, Strength, Traffic, write_labels,
};

/// Monday, 2026-01-05T00:00:00Z.
const START: Millis = Millis::from_seconds(1_767_571_200);
const USAGE: &str = "usage: generate SEED DAYS SERVICES OUT [CALLS_PER_SECOND=2] [CHURN_PER_DAY=3] [ATTACKS_PER_DAY=2] [KIND,KIND…=all] [INTENSITY=1] [PACE=1]";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(message) => {
            let _ = writeln!(io::stdout(), "{message}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<String, Box<dyn std::error::Error>> {
    let [seed, days, services, out, rest @ ..] = args else { return Err("four arguments are needed".into()) };
    let days: f64 = parse("DAYS", days)?;
    let config = MeshConfig {
        seed: parse("SEED", seed)?,
        services: parse("SERVICES", services)?,
        calls_per_second: rest.first().map_or(Ok(2.0), |rate| parse("CALLS_PER_SECOND", rate))?,
    };
    let churn = rest.get(1).map_or(Ok(3.0), |churn| parse("CHURN_PER_DAY", churn))?;
    let attacks = rest.get(2).map_or(Ok(2.0), |attacks| parse("ATTACKS_PER_DAY", attacks))?;
    let kinds = match rest.get(3).map(String::as_str) {
        None | Some("all") => AttackKind::ALL.to_vec(),
        Some(names) => names
            .split(',')
            .map(|name| AttackKind::from_name(name).ok_or_else(|| format!("`{name}` is no kind of attack")))
            .collect::<Result<_, _>>()?,
    };
    let strength = Strength {
        intensity: rest.get(4).map_or(Ok(1.0), |factor| parse("INTENSITY", factor))?,
        pace: rest.get(5).map_or(Ok(1.0), |factor| parse("PACE", factor))?,
        ..Strength::USUAL
    };
    let mut scenario = Scenario::estate(config, START, days)?;
    let end = scenario.end();
    let middle = START + (end - START) / 2;
    scenario.churn_of(&ChangeKind::ALL, churn, START, end).attacks_of(&kinds, strength, attacks, middle, end);
    write(&Arc::new(scenario), Path::new(out))
}

fn write(scenario: &Arc<Scenario>, out: &Path) -> Result<String, Box<dyn std::error::Error>> {
    fs::create_dir_all(out)?;
    write_labels(scenario.attacks(), File::create(out.join("labels.jsonl"))?)?;
    write_labels(scenario.changes(), File::create(out.join("changes.jsonl"))?)?;
    let mut events = BufWriter::with_capacity(1 << 20, File::create(out.join("events.jsonl"))?);
    let log = AccessLog::with_validity(scenario.mesh());
    let (mut line, mut calls, mut attacks) = (Vec::new(), 0_u64, 0_u64);
    for call in Traffic::new(Arc::clone(scenario)) {
        line.clear();
        log.push_inbound(&call, &mut line);
        line.push(b'\n');
        events.write_all(&line)?;
        calls += 1;
        attacks += u64::from(call.is_attack());
    }
    events.flush()?;
    Ok(format!(
        "{calls} calls, {attacks} of them in {} attacks; {} honest changes; in {}",
        scenario.attacks().len(),
        scenario.changes().len(),
        out.display()
    ))
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name}: `{text}` is not a number"))
}
