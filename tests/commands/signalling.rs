//! Signals shared with others, over real TLS: a receiver with a stream, by poll and by push, and a transmitter's word.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use rcgen::{KeyPair, PublicKeyData as _};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::{
    operating::Estate,
    place::CART,
    recorder::{Server, ok},
    resting::Caller,
    support::{
        authority::Authority,
        operator::Person,
        qualm::sample,
        wait::{PATIENCE, until_true},
    },
};

const IDP: &str = "spiffe://mesh.test/ns/idp/sa/keycloak";
const LISTS: &str = "receivers = [\"spiffe://mesh.test/ns/idp/*\"]\ntransmitters = [\"spiffe://mesh.test/ns/idp/*\"]\n";

fn idp(estate: &Estate) -> Caller {
    Caller::new(estate, Some(&Person::with_id(&estate.authority, IDP, estate.qualm.folder())))
}

/// The claims of a token, whose signature is of the published key.
fn claims(token: &Value, keys: &Value) -> Value {
    let token = token.as_str().unwrap();
    let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let decoded = |part: &str| BASE64URL.decode(part).unwrap();
    let key = &keys["keys"][0];
    let coordinate = |name: &str| decoded(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(format!("{head}.{body}").as_bytes(), &decoded(signature)).expect("it is signed");
    let head: Value = serde_json::from_slice(&decoded(head)).unwrap();
    assert_eq!((&head["typ"], &head["alg"], &head["kid"]), (&json!("secevent+jwt"), &json!("ES256"), &key["kid"]));
    serde_json::from_slice(&decoded(body)).unwrap()
}

fn kind(claims: &Value) -> String {
    claims["events"].as_object().unwrap().keys().next().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// What waits, by poll.
fn polled(idp: &Caller, ack: &[String]) -> Vec<(String, Value)> {
    let (status, answer) = idp.post("/ssf/poll", &json!({ "returnImmediately": true, "ack": ack }));
    assert_eq!(status, 200, "{answer}");
    answer["sets"].as_object().unwrap().iter().map(|(jti, token)| (jti.clone(), token.clone())).collect()
}

#[test]
fn a_receiver_polls_what_was_decided_also_after_a_crash_and_once_it_is_acknowledged_no_more() {
    let mut estate = Estate::with("enforce", LISTS, |_, _| "[signals]\nissuer = \"https://qualm.test\"\n".to_owned());
    let idp = idp(&estate);
    let otto = estate.person("otto");
    let (status, metadata) = idp.get("/.well-known/ssf-configuration");
    assert_eq!(
        (status, &metadata["spec_version"], &metadata["issuer"]),
        (200, &json!("1_0"), &json!("https://qualm.test"))
    );
    let (_, keys) = idp.get("/ssf/jwks.json");
    let stranger = Caller::new(&estate, Some(&otto));
    assert_eq!(stranger.post("/ssf/streams", &json!({})).0, 403, "an operator is no receiver");

    let (status, stream) = idp.post("/ssf/streams", &json!({ "description": "the identity provider" }));
    assert_eq!((status, &stream["delivery"]["method"]), (201, &json!("urn:ietf:rfc:8936")), "{stream}");
    assert_eq!(idp.post("/ssf/streams", &json!({})).0, 409, "one stream each");
    let id = stream["stream_id"].clone();
    assert_eq!(idp.post("/ssf/verify", &json!({ "stream_id": id, "state": "s1" })).0, 204);
    assert_eq!(idp.post("/ssf/verify", &json!({ "stream_id": id })).0, 429, "not too often");
    let [(jti, token)] = &polled(&idp, &[])[..] else { panic!("one token") };
    let verification = claims(token, &keys);
    assert_eq!((kind(&verification), &verification["jti"]), ("verification".to_owned(), &json!(jti)));
    assert_eq!(verification["events"].as_object().unwrap().values().next().unwrap()["state"], "s1");
    assert_eq!(polled(&idp, std::slice::from_ref(jti)), []);

    otto.done(&["quarantine", "cart", "--for", "1h", "--reason", "a drill", "--yes"]);
    until_true("both tokens wait", PATIENCE, || polled(&idp, &[]).len() == 2);
    let waiting = polled(&idp, &[]);
    estate.qualm.kill();
    estate.qualm.start_again();
    until_true("it listens", PATIENCE, || idp.try_get("/ssf/jwks.json").is_some());
    assert_eq!(idp.get("/ssf/jwks.json").1, keys, "the same key");
    assert_eq!(polled(&idp, &[]), waiting, "nothing is lost, and nothing is told twice");
    let mut kinds: Vec<String> = waiting
        .iter()
        .map(|(_, token)| {
            let claims = claims(token, &keys);
            assert_eq!(claims["sub_id"], json!({ "format": "uri", "uri": CART }));
            assert_eq!((&claims["aud"], &claims["iss"]), (&json!(IDP), &json!("https://qualm.test")));
            kind(&claims)
        })
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["risk-level-change", "session-revoked"]);
    let all: Vec<String> = waiting.iter().map(|(jti, _)| jti.clone()).collect();
    assert_eq!(polled(&idp, &all), []);

    // Paused they wait; disabled there are none.
    let set = |status: &str| idp.post("/ssf/status", &json!({ "stream_id": id, "status": status }));
    assert_eq!(set("paused").0, 200);
    otto.done(&["lift", "cart", "--reason", "over"]);
    assert_eq!(polled(&idp, &[]), []);
    set("enabled");
    until_true("what was paused comes", PATIENCE, || polled(&idp, &[]).len() == 1);
    set("disabled");
    assert_eq!(polled(&idp, &[]), []);
    assert_eq!(idp.delete(&format!("/ssf/streams?stream_id={}", id.as_str().unwrap())), 204);
    assert_eq!(idp.post("/ssf/poll", &json!({ "returnImmediately": true })).0, 404);
}

/// A server that answers each request with the next of `statuses`, the last again and again; what was pushed to it.
fn pushed_to(authority: &Authority, statuses: &'static [u16]) -> (u16, mpsc::Receiver<String>) {
    let svid = authority.named("localhost");
    let chain = vec![CertificateDer::from_pem_slice(svid.certificate.as_bytes()).unwrap()];
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for (n, stream) in socket.incoming().enumerate() {
            let status = statuses[n.min(statuses.len() - 1)];
            let mut tls =
                rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(read) = tls.read(&mut buffer) {
                seen.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&seen).to_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |of| of.parse().unwrap());
                if body.len() >= length || read == 0 {
                    break;
                }
            }
            let _ = write!(tls, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            tls.conn.send_close_notify();
            let _ = tls.flush();
            if sender.send(format!("{status}\n{}", String::from_utf8_lossy(&seen))).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

#[test]
fn a_receiver_is_pushed_to_until_it_takes_it_and_only_where_the_configuration_says() {
    let mut server = None;
    let estate = Estate::with("enforce", LISTS, |authority, folder| {
        let (port, _) = server.insert(pushed_to(authority, &[503, 202]));
        format!(
            "[signals]\nissuer = \"https://qualm.test\"\npush_to = [\"https://localhost:{port}/ssf/\"]\npush_ca_file = {:?}\n",
            folder.join("svid").join("bundle.pem")
        )
    });
    let (port, pushed) = server.expect("it was started");
    let idp = idp(&estate);
    let (_, keys) = idp.get("/ssf/jwks.json");
    let push = |url: String| json!({ "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": url, "authorization_header": "Bearer b1" } });
    let (status, refused) = idp.post("/ssf/streams", &push("https://elsewhere.test/".to_owned()));
    assert!(status == 400 && refused["description"].as_str().unwrap().contains("push_to"), "{refused}");
    let (status, stream) = idp.post("/ssf/streams", &push(format!("https://localhost:{port}/ssf/events")));
    assert_eq!(status, 201, "{stream}");
    assert!(!stream.to_string().contains("b1"), "what proves us to them is not told again");
    estate.person("otto").done(&["watch", "cart", "--for", "1h", "--reason", "a drill"]);
    let attempts: Vec<String> = (0..2).map(|_| pushed.recv_timeout(PATIENCE).expect("an attempt")).collect();
    assert!(attempts[0].starts_with("503") && attempts[1].starts_with("202"), "{attempts:?}");
    for attempt in &attempts {
        let lower = attempt.to_lowercase();
        assert!(
            lower.contains("post /ssf/events") && lower.contains("content-type: application/secevent+jwt"),
            "{attempt}"
        );
        assert!(lower.contains("authorization: bearer b1"));
    }
    let token = attempts[1].rsplit("\r\n\r\n").next().unwrap();
    let claims = claims(&json!(token), &keys);
    let event = claims["events"].as_object().unwrap().values().next().unwrap();
    assert_eq!((kind(&claims).as_str(), &event["current_level"]), ("risk-level-change", &json!("MEDIUM")));
    let delivered = r#"qualm_signals_told_total{outcome="delivered"}"#;
    until_true("it is noted", PATIENCE, || sample(estate.http, delivered) == Some(1.0));
    assert!(pushed.recv_timeout(Duration::from_secs(3)).is_err(), "once it was taken it is not sent again");
}

#[test]
fn the_keys_of_a_transmitter_are_fetched_once_whatever_its_tokens_name() {
    let key = KeyPair::generate().unwrap();
    let point = key.der_bytes().to_vec();
    let jwks = json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "kid": "k1", "x": BASE64URL.encode(&point[1..33]), "y": BASE64URL.encode(&point[33..65]),
    }] });
    let server = Server::start(move |_, _| ok(jwks.to_string()));
    let url = format!("{}/jwks.json", server.url);
    let begun = std::time::Instant::now();
    let estate = Estate::with("enforce", LISTS, |_, _| {
        format!(
            "[[signals.from]]\nissuer = \"https://idp.test\"\naudience = \"https://qualm.test\"\njwks_url = {url:?}\n"
        )
    });
    let idp = idp(&estate);
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &SystemRandom::new()).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a token is dated")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let push = |kid: &str| {
        let head = json!({ "typ": "secevent+jwt", "alg": "ES256", "kid": kid });
        let claims = json!({
            "iss": "https://idp.test", "aud": "https://qualm.test", "jti": kid, "iat": now,
            "sub_id": { "format": "uri", "uri": CART },
            "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} },
        });
        let input = format!("{}.{}", BASE64URL.encode(head.to_string()), BASE64URL.encode(claims.to_string()));
        let signature = signer.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        let token = format!("{input}.{}", BASE64URL.encode(signature.as_ref()));
        let (status, answer) = idp.send("/ssf/events", "application/secevent+jwt", &token);
        (status, answer["err"].as_str().unwrap_or_default().to_owned())
    };
    until_true("its keys are there", PATIENCE, || {
        let (status, code) = push("k1");
        assert!(status == 202 || ["keys_awaited", "too_often"].contains(&code.as_str()), "{status} {code}");
        status == 202
    });
    assert_eq!(estate.person("vera").done(&["show", "cart"])["entries"][0]["by"], "https://idp.test");
    for n in 0..10 {
        // Where this machine is slow half a minute may pass, after which they may be fetched again.
        let (status, code) = push(&format!("other-{n}"));
        assert!(["invalid_key", "keys_awaited", "too_often"].contains(&code.as_str()), "{status} {code}");
    }
    let most = 1 + begun.elapsed().as_secs() / 30;
    let fetched = server.asked("GET").len() as u64;
    assert!((1..=most).contains(&fetched), "strange keys have them fetched {fetched} times");
}

#[test]
fn a_transmitters_word_sets_a_level_once_and_a_forged_one_nothing() {
    let key = KeyPair::generate().unwrap();
    let point = key.der_bytes().to_vec();
    let jwks = json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "kid": "k1", "x": BASE64URL.encode(&point[1..33]), "y": BASE64URL.encode(&point[33..65]),
    }] });
    let estate = Estate::with("enforce", LISTS, |_, folder| {
        let file = folder.join("idp-jwks.json");
        std::fs::write(&file, jwks.to_string()).unwrap();
        format!(
            "[[signals.from]]\nissuer = \"https://idp.test\"\naudience = \"https://qualm.test\"\njwks_file = {file:?}\nlevel = \"restricted\"\n"
        )
    });
    let idp = idp(&estate);
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &SystemRandom::new()).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a token is dated")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |jti: &str, subject: &str, audience: &str| {
        let head = json!({ "typ": "secevent+jwt", "alg": "ES256", "kid": "k1" });
        let claims = json!({
            "iss": "https://idp.test", "aud": audience, "jti": jti, "iat": now,
            "sub_id": { "format": "uri", "uri": subject },
            "events": { "https://schemas.openid.net/secevent/caep/event-type/risk-level-change": {
                "principal": "APPLICATION", "current_level": "HIGH" } },
        });
        let input = format!("{}.{}", BASE64URL.encode(head.to_string()), BASE64URL.encode(claims.to_string()));
        let signature = signer.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64URL.encode(signature.as_ref()))
    };
    let push = |token: &str| idp.send("/ssf/events", "application/secevent+jwt", token);
    let good = token("j1", CART, "https://qualm.test");
    assert_eq!(push(&good).0, 202);
    let vera = estate.person("vera");
    let shown = vera.done(&["show", "cart"]);
    let entry = &shown["entries"][0];
    assert_eq!((&entry["level"], &entry["by"]), (&json!("restricted"), &json!("https://idp.test")), "{shown}");
    let records = crate::support::operator::journalled(estate.qualm.folder(), "cart").len();

    // Again: taken, and nothing is done.
    assert_eq!(push(&good).0, 202);
    assert_eq!(crate::support::operator::journalled(estate.qualm.folder(), "cart").len(), records);
    let heard = |outcome: &str| sample(estate.http, &format!("qualm_signals_heard_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((heard("acted"), heard("replayed")), (Some(1.0), Some(1.0)));

    let at = good.len() - 10;
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    for (token, code) in [
        (forged, "authentication_failed"),
        (token("j2", CART, "https://other.test"), "invalid_audience"),
        ("x".repeat(70 << 10), "invalid_request"),
        ("no token".to_owned(), "invalid_request"),
    ] {
        let (status, answer) = push(&token);
        assert_eq!((status, answer["err"].as_str()), (400, Some(code)), "{answer}");
        assert!(heard(code).is_some());
    }
    // About somebody protected, and about nobody: heard, and no more.
    for subject in ["spiffe://mesh.test/ns/istio-system/sa/istiod", "spiffe://mesh.test/ns/shop/sa/nobody"] {
        assert_eq!(push(&token(subject, subject, "https://qualm.test")).0, 202);
    }
    assert_eq!(heard("not_acted"), Some(2.0));
    assert_eq!(vera.done(&["list"])["entries"].as_array().unwrap().len(), 1);
    let otto = Caller::new(&estate, Some(&estate.person("otto")));
    assert_eq!(otto.send("/ssf/events", "application/secevent+jwt", &good).0, 403, "an operator is no transmitter");
}
