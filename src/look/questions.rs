//! Which questions the records can answer, and which lines to add for the others.

use qualm_ingest::parse::Format;
use qualm_scorer::notify::plain;
use serde::Serialize;

use super::survey::{Present, Survey};

/// With this share of the events a question is answered; below a twentieth of it, it is not asked at all.
const ANSWERED: f64 = 0.5;
const PARTLY: f64 = 0.05;

/// How far a question can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Yes,
    Partly,
    No,
}

/// A question, as far as it can be answered.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Asked {
    pub(super) question: &'static str,
    pub(super) answer: Answer,
    /// Share of the events that have what it needs.
    pub(super) share: f64,
    /// What to add where it cannot.
    pub(super) add: Vec<String>,
}

/// What is asked, what it needs, and how Envoy writes that.
struct Question {
    text: &'static str,
    needs: fn(&Present) -> u64,
    /// Whether it is believed of proxies and issuers alone.
    is_proof: bool,
    /// What to call it where the format is not Envoy's.
    field: &'static str,
    /// The keys of a mapping that hold it.
    mapped: &'static [&'static str],
    envoy: &'static [&'static str],
}

const QUESTIONS: [Question; 9] = [
    Question {
        text: "who calls, proven by a certificate or vouched for by a mapping (without it: watched at most)",
        needs: |present| present.vouched,
        is_proof: true,
        field: "the verified peer identity",
        mapped: &["source"],
        envoy: &[
            r#""downstream_peer_uri_san": "%DOWNSTREAM_PEER_URI_SAN%""#,
            r#""downstream_local_uri_san": "%DOWNSTREAM_LOCAL_URI_SAN%""#,
            r#""upstream_peer_uri_san": "%UPSTREAM_PEER_URI_SAN%""#,
            r#""upstream_local_uri_san": "%UPSTREAM_LOCAL_URI_SAN%""#,
        ],
    },
    Question {
        text: "which replica calls (without it a whole service is judged and denied)",
        needs: |present| present.address,
        is_proof: false,
        field: "the caller's direct address",
        mapped: &["source_ip"],
        envoy: &[r#""downstream_direct_remote_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%""#],
    },
    Question {
        text: "what is asked for: new operations",
        needs: |present| present.operation,
        is_proof: false,
        field: "method and path, or another name of the operation",
        mapped: &["operation"],
        envoy: &[r#""method": "%REQ(:METHOD)%""#, r#""path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%""#],
    },
    Question {
        text: "does it fail, is it refused, unlike before",
        needs: |present| present.outcome,
        is_proof: false,
        field: "the status or outcome",
        mapped: &["status", "outcome"],
        envoy: &[
            r#""response_code": "%RESPONSE_CODE%""#,
            r#""grpc_status_number": "%GRPC_STATUS_NUMBER%""#,
            r#""response_flags": "%RESPONSE_FLAGS%""#,
        ],
    },
    Question {
        text: "is it bigger than usual",
        needs: |present| present.bytes,
        is_proof: false,
        field: "bytes in both directions",
        mapped: &["bytes_in", "bytes_out"],
        envoy: &[r#""bytes_received": "%BYTES_RECEIVED%""#, r#""bytes_sent": "%BYTES_SENT%""#],
    },
    Question {
        text: "does it last longer than usual",
        needs: |present| present.duration,
        is_proof: false,
        field: "the duration",
        mapped: &["duration_s"],
        envoy: &[r#""duration": "%DURATION%""#],
    },
    Question {
        text: "does it speak with another TLS stack",
        needs: |present| present.fingerprint,
        is_proof: false,
        field: "a JA4 or JA3 fingerprint",
        mapped: &[],
        envoy: &[
            r#""tls_ja4_fingerprint": "%TLS_JA4_FINGERPRINT%""#,
            r"(and the listener's tls_inspector with enable_ja4_fingerprinting: true)",
        ],
    },
    Question {
        text: "does it show a new credential",
        needs: |present| present.credential,
        is_proof: false,
        field: "the certificate's serial, or the id of the token",
        mapped: &["credential"],
        envoy: &[
            r#""downstream_peer_serial": "%DOWNSTREAM_PEER_SERIAL%""#,
            r#""downstream_peer_cert_v_start": "%DOWNSTREAM_PEER_CERT_V_START%""#,
            r#""downstream_peer_cert_v_end": "%DOWNSTREAM_PEER_CERT_V_END%""#,
        ],
    },
    Question {
        text: "is it one call that both proxies report, is it a repetition",
        needs: |present| present.record_id,
        is_proof: false,
        field: "a request id",
        mapped: &["record_id"],
        envoy: &[r#""request_id": "%REQ(X-REQUEST-ID)%""#],
    },
];

/// Asks them all.
pub(super) fn ask(survey: &Survey) -> Vec<Asked> {
    let format = survey.formats().first().map(|&(format, _)| format);
    let events = survey.events.max(1) as f64;
    let strangers: Vec<&str> = survey.strangers.keys().filter(|name| !name.is_empty()).map(AsRef::as_ref).collect();
    let asked = |question: &Question| {
        let share = (question.needs)(&survey.present) as f64 / events;
        let answer = match share {
            share if share >= ANSWERED => Answer::Yes,
            share if share >= PARTLY => Answer::Partly,
            _ => Answer::No,
        };
        let add = match answer {
            Answer::Yes => Vec::new(),
            // The lines are there, and not believed of whoever wrote them.
            _ if question.is_proof && !strangers.is_empty() => vec![format!(
                "proxies = [{}] at the topic or file, if these containers are proxies: the lines are there",
                strangers.iter().map(|name| format!("\"{}\"", plain(name))).collect::<Vec<_>>().join(", ")
            )],
            _ => lines(question, format),
        };
        Asked { question: question.text, answer, share, add }
    };
    QUESTIONS.iter().map(asked).collect()
}

fn lines(question: &Question, format: Option<Format>) -> Vec<String> {
    match format {
        Some(Format::IstioJson) => question.envoy.iter().map(|&line| line.to_owned()).collect(),
        Some(Format::IstioText) => {
            let mut lines = vec!["JSON in place of text (meshConfig.accessLogEncoding: JSON), with".to_owned()];
            lines.extend(question.envoy.iter().map(|&line| line.to_owned()));
            lines
        }
        Some(Format::Mapped) if question.mapped.is_empty() => vec![format!("{}: no mapping reads it", question.field)],
        Some(Format::Mapped) => {
            let key = |key: &&str| format!("{key} = \"{{column}}\"");
            let keys: Vec<String> = question.mapped.iter().map(key).collect();
            vec![format!("to the mapping, under [fields], where there is such a column: {}", keys.join(", "))]
        }
        Some(other) => vec![format!("{}, which {other} records do not carry here", question.field)],
        None => Vec::new(),
    }
}
