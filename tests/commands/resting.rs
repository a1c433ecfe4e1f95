//! The operator's interface as JSON over HTTP: the same calls, roles, bounds and journal as over gRPC.

use std::fs;

use serde_json::{Value, json};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PrivateKey, TlsConfig, TlsProvider},
};

use crate::{
    operating::Estate,
    place::CART,
    support::operator::{Person, journalled},
};

/// Somebody who has but an HTTP client, and the address.
pub(crate) struct Caller {
    agent: Agent,
    url: String,
}

impl Caller {
    pub(crate) fn new(estate: &Estate, person: Option<&Person>) -> Self {
        let read = |file| fs::read(file).unwrap();
        let certificate = person.map(|person| {
            let chain = [Certificate::from_pem(&read(&person.svid.certificate)).unwrap().to_owned()];
            ClientCert::new_with_certs(&chain, PrivateKey::from_pem(&read(&person.svid.key)).unwrap())
        });
        // The server proves a SPIFFE ID, and no name in the DNS: that it does is tested elsewhere.
        let tls =
            TlsConfig::builder().provider(TlsProvider::Rustls).disable_verification(true).client_cert(certificate);
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = tls.unversioned_rustls_crypto_provider(provider).build();
        let agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).build().into();
        Self { agent, url: format!("https://127.0.0.1:{}", estate.grpc) }
    }

    /// The same, all of whose paths are below this one.
    fn under(self, path: &str) -> Self {
        Self { url: self.url + path, ..self }
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.agent.get(format!("{}{path}", self.url)).call().expect("an answer");
        read(answer)
    }

    pub(crate) fn post(&self, path: &str, message: &Value) -> (u16, Value) {
        self.send(path, "application/json", &message.to_string())
    }

    pub(crate) fn send(&self, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let answer = self.agent.post(format!("{}{path}", self.url)).header("Content-Type", kind).send(body);
        read(answer.expect("an answer"))
    }
}

impl Caller {
    /// [`Self::get`] of whoever may be starting yet.
    pub(crate) fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        self.agent.get(format!("{}{path}", self.url)).call().ok().map(read)
    }

    /// A request with nothing in it; its status.
    pub(crate) fn delete(&self, path: &str) -> u16 {
        self.agent.delete(format!("{}{path}", self.url)).call().expect("an answer").status().as_u16()
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = answer.body_mut().read_to_string().expect("a text");
    if text.is_empty() {
        return (answer.status().as_u16(), Value::Null);
    }
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn quarantine(key: &str) -> Value {
    json!({
        "identity": CART, "level": "LEVEL_QUARANTINED", "lease": "600s", "reason": "incident 7", "idempotency_key": key,
    })
}

#[test]
fn what_is_set_by_json_stands_for_all_and_is_journalled_with_who() {
    let estate = Estate::start("enforce");
    let [vera, otto] = ["vera", "otto"].map(|account| estate.person(account));
    let [viewer, operator] = [&vera, &otto].map(|person| Caller::new(&estate, Some(person)).under("/v1"));

    let (status, calls) = viewer.get("");
    let paths: Vec<&str> =
        calls["calls"].as_array().unwrap().iter().map(|call| call["path"].as_str().unwrap()).collect();
    assert!(status == 200 && paths.contains(&"/v1/set") && paths.contains(&"/v1/show"), "{calls}");

    let (status, refused) = viewer.post("/set", &quarantine("k1"));
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("PermissionDenied")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("listen.operators"));

    let (status, receipt) = operator.post("/set", &quarantine("k1"));
    assert_eq!((status, &receipt["by"], &receipt["repeated"]), (200, &json!(otto.id), &json!(false)), "{receipt}");
    let entry = &receipt["entries"][0];
    assert_eq!((&entry["identity"], &entry["level"]), (&json!(CART), &json!("LEVEL_QUARANTINED")));
    let (status, again) = operator.post("/set", &quarantine("k1"));
    assert_eq!((status, &again["repeated"], &again["record"]), (200, &json!(true), &receipt["record"]));

    // The same table, asked for in three ways.
    let (_, listed) = viewer.get("/list?at_least=LEVEL_QUARANTINED&identity=cart");
    assert_eq!(listed["entries"][0]["decision_id"], entry["decision_id"], "{listed}");
    let (_, shown) = viewer.get("/show?identity=shop%2Fsa%2Fcart");
    assert_eq!(shown["identity"], CART, "{shown}");
    assert_eq!(vera.done(&["show", "cart"])["entries"][0]["decision"], entry["decision_id"]);

    let by: Vec<(Value, Value)> = journalled(estate.qualm.folder(), "cart")
        .iter()
        .filter(|record| record["kind"] == "command")
        .map(|record| {
            let of = &record["payload"];
            (of["command"].clone(), of["by"].as_str().map_or_else(|| of["instruction"]["by"].clone(), Value::from))
        })
        .collect();
    assert_eq!(by, [(json!("refused"), json!(vera.id)), (json!("operator"), json!(otto.id))]);
}

#[test]
fn what_is_not_well_said_is_refused_with_the_remedy() {
    let estate = Estate::start("enforce");
    let otto = estate.person("otto");
    let operator = Caller::new(&estate, Some(&otto)).under("/v1");
    let said =
        |(status, answer): (u16, Value)| (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned());
    for ((status, words), expected, part) in [
        (said(operator.get("/set?identity=cart")), 405, "send it as POST"),
        (said(operator.get("/nothing")), 404, "one of"),
        (said(operator.send("/set", "text/plain", &quarantine("k").to_string())), 400, "application/json"),
        (said(operator.send("/set", "application/json", "{")), 400, "no JSON"),
        (said(operator.post("/set", &json!({ "identity": CART, "lvel": 1 }))), 400, "lvel"),
        (said(operator.post("/set", &json!({ "identity": CART, "reason": "x".repeat(20_000) }))), 400, "16384 bytes"),
        (
            said(operator.post("/set", &json!({ "identity": CART, "level": "LEVEL_WATCHED" }))),
            400,
            "a reason is missing",
        ),
        (
            said(operator.post("/lift", &json!({ "identity": "nobody", "reason": "x", "idempotency_key": "k" }))),
            404,
            "not known",
        ),
        (said(operator.get("/list?limit=many")), 400, "invalid digit"),
    ] {
        assert!(status == expected && words.contains(part), "{status} {words}, expected {expected} {part}");
    }
    let refusal = said(operator.post("/pause", &json!({ "lease": "60s", "reason": "x", "idempotency_key": "k" })));
    assert!(refusal.0 == 403 && refusal.1.contains("listen.approvers"), "{refusal:?}");
    // Whoever asks for ever is held up, in the same measure as over gRPC.
    let statuses: Vec<u16> = (0..80)
        .map(|n| {
            operator.post("/lift", &json!({ "identity": CART, "reason": "x", "idempotency_key": format!("n{n}") })).0
        })
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    let nobody = Caller::new(&estate, None).agent.get(format!("https://127.0.0.1:{}/v1", estate.grpc)).call();
    assert!(nobody.is_err(), "nobody comes in without a certificate");
}
