//! Delivery by push (RFC 8935): each receiver in its own time, in order, with growing pauses while it does not take them.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use ureq::{
    Agent,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    Signals,
    book::{Push, Status, Waiting},
};

/// A receiver may take so long to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Tokens delivered one after the other before the book is looked at again.
const IN_A_ROW: usize = 32;
/// Bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 4 << 10;

/// What became of a token.
#[derive(Debug)]
enum Outcome {
    Taken,
    /// The receiver says that it never will.
    Refused(String),
    Failed(String),
}

/// A client for addresses that the configuration has; `key` is where it names the roots.
pub(super) fn agent(roots: Option<&Path>, key: &str) -> Result<Agent> {
    let roots = match roots {
        Some(file) => {
            let named = || format!("[signals] {key} {}", file.display());
            let pem = std::fs::read(file).with_context(named)?;
            let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&pem).collect();
            let items = items.with_context(|| format!("{}: no PEM", named()))?;
            let certificates = items.into_iter().filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate.to_owned()),
                _ => None,
            });
            RootCerts::new_with_certs(&certificates.collect::<Vec<_>>())
        }
        None => RootCerts::new_with_certs(&[]),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots).build();
    Ok(Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(TIMEOUT))
        // Where tokens go is what the configuration says and nothing else.
        .max_redirects(0)
        .proxy(None)
        .http_status_as_error(false)
        .user_agent(concat!("qualm/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent())
}

/// Delivers until the process ends.
pub(super) async fn run(signals: Arc<Signals>, agent: Agent) {
    let mut news = signals.news.subscribe();
    let mut pauses: HashMap<String, (Instant, Duration)> = HashMap::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut rounds = JoinSet::new();
    loop {
        let now = Instant::now();
        for (receiver, push, waiting) in due(&signals) {
            let is_paused = pauses.get(&receiver).is_some_and(|(until, _)| *until > now);
            if is_paused || !busy.insert(receiver.clone()) {
                continue;
            }
            let agent = agent.clone();
            rounds.spawn_blocking(move || {
                let outcomes = deliver(&agent, &push, waiting);
                (receiver, outcomes)
            });
        }
        tokio::select! {
            Some(round) = rounds.join_next() => {
                let Ok((receiver, outcomes)) = round else { continue };
                busy.remove(&receiver);
                note(&signals, &receiver, &outcomes, &mut pauses);
            }
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // A pause is over.
            () = tokio::time::sleep(PAUSES.0) => {}
        }
    }
}

fn due(signals: &Signals) -> Vec<(String, Push, Vec<Waiting>)> {
    signals.read(|book| {
        let served = book.streams.iter().filter(|(_, of)| of.status == Status::Enabled && !of.waiting.is_empty());
        served
            .filter_map(|(receiver, of)| {
                Some((receiver.clone(), of.push.clone()?, of.waiting.iter().take(IN_A_ROW).cloned().collect()))
            })
            .collect()
    })
}

/// Until one fails: those after it wait, so that a receiver hears of everything in order.
fn deliver(agent: &Agent, push: &Push, waiting: Vec<Waiting>) -> Vec<(String, Outcome)> {
    let mut outcomes = Vec::new();
    for Waiting { jti, token } in waiting {
        let outcome = send(agent, push, &token);
        let has_failed = matches!(outcome, Outcome::Failed(_));
        outcomes.push((jti, outcome));
        if has_failed {
            break;
        }
    }
    outcomes
}

fn send(agent: &Agent, push: &Push, token: &str) -> Outcome {
    let mut request =
        agent.post(&push.url).header("Content-Type", "application/secevent+jwt").header("Accept", "application/json");
    if let Some(authorization) = &push.authorization {
        request = request.header("Authorization", authorization);
    }
    match request.send(token) {
        Ok(mut answer) => match answer.status().as_u16() {
            200 | 202 => Outcome::Taken,
            400 => {
                let words = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
                Outcome::Refused(words.unwrap_or_default())
            }
            status => Outcome::Failed(format!("it answers {status}")),
        },
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn note(
    signals: &Signals,
    receiver: &str,
    outcomes: &[(String, Outcome)],
    pauses: &mut HashMap<String, (Instant, Duration)>,
) {
    let mut failed = None;
    let noted = signals.change(|book| {
        let Some(stream) = book.streams.get_mut(receiver) else { return Ok(()) };
        for (jti, outcome) in outcomes {
            match outcome {
                Outcome::Taken => {
                    stream.settle(jti);
                    signals.metrics.told("delivered", 1);
                }
                Outcome::Refused(words) => {
                    stream.settle(jti);
                    stream.lost += 1;
                    signals.metrics.told("refused", 1);
                    tracing::warn!(receiver, jti, words, "a receiver has refused a signal");
                }
                Outcome::Failed(why) => failed = Some(why.clone()),
            }
        }
        Ok(())
    });
    if noted.is_err() {
        tracing::warn!(receiver, "what was delivered could not be noted on disk; after a restart it is sent again");
    }
    match failed {
        Some(why) => {
            let pause = pauses.get(receiver).map_or(PAUSES.0, |(_, last)| (*last * 2).min(PAUSES.1));
            pauses.insert(receiver.to_owned(), (Instant::now() + pause, pause));
            signals.metrics.told("failed", 1);
            tracing::warn!(receiver, why, pause_s = pause.as_secs(), "a signal could not be pushed; it is tried again");
        }
        None => drop(pauses.remove(receiver)),
    }
}
