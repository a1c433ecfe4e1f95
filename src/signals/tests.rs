//! Tokens made and believed, streams kept.

use qualm_model::{level::Level, time::Span};
use serde_json::{Value, json};

use super::{
    book::MOST_WAITING,
    receive::{Word, verified},
    *,
};
use crate::finding::tests::verdict;

const NOW: Timestamp = Timestamp(1_795_311_928_000_000_000);

fn signing(folder: &tempfile::TempDir) -> Signing {
    Signing::open(&folder.path().join("signals.key"), true).unwrap()
}

/// A transmitter whose keys are those of `signing`, as it is read from a configuration.
fn known(folder: &tempfile::TempDir, signing: &Signing) -> Vec<Known> {
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, signing.jwks().to_string()).unwrap();
    let text = format!(
        "issuer = \"https://idp.test\"\naudience = \"https://qualm.test\"\njwks_file = {file:?}\nlease = \"5m\""
    );
    vec![Known::read(&toml::from_str(&text).unwrap()).unwrap()]
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.test", "aud": "https://qualm.test", "jti": "1", "iat": NOW.0 / 1_000_000_000,
        "sub_id": { "format": "uri", "uri": "spiffe://mesh.test/ns/shop/sa/cart" },
        "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} },
    })
}

fn code(token: &str, from: &[Known]) -> &'static str {
    verified(token, from, NOW).map_or_else(|No(_, code, _)| code, |_| "believed")
}

#[test]
fn a_token_of_the_transmitters_key_is_believed_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let signing = signing(&folder);
    let from = known(&folder, &signing);
    let token = signing.token(&claims()).unwrap();
    let word = verified(&token, &from, NOW).unwrap_or_else(|No(_, _, words)| panic!("{words}"));
    let expected = Word {
        issuer: "https://idp.test".to_owned(),
        jti: "1".to_owned(),
        identity: "spiffe://mesh.test/ns/shop/sa/cart".to_owned(),
        event: "session-revoked".to_owned(),
        level: Some(Level::Watched),
        lease: Span(5 * Span::MINUTE.0),
    };
    assert_eq!(word, expected);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        code(&signing.token(&claims).unwrap(), &from)
    };
    assert_eq!(changed(&|claims| claims["iss"] = "https://other.test".into()), "invalid_issuer");
    assert_eq!(changed(&|claims| claims["aud"] = json!(["https://other.test"])), "invalid_audience");
    assert_eq!(changed(&|claims| claims["aud"] = json!(["x", "https://qualm.test"])), "believed");
    assert_eq!(changed(&|claims| claims["iat"] = 1.into()), "invalid_request");
    assert_eq!(changed(&|claims| claims["iat"] = i64::MAX.into()), "invalid_request");
    assert_eq!(changed(&|claims| claims["exp"] = 1.into()), "invalid_request");
    assert_eq!(changed(&|claims| claims["jti"] = "x".repeat(300).into()), "invalid_request");
    assert_eq!(changed(&|claims| claims["events"] = json!({})), "invalid_request");
    assert_eq!(changed(&|claims| claims["events"]["https://x.test/y"] = json!({})), "invalid_request");
    assert_eq!(changed(&|claims| claims["sub_id"] = json!({ "format": "email", "email": "a@b.c" })), "invalid_request");
    // Every byte of it is signed, and an algorithm of the token's own choice is none.
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).unwrap();
        // The last digit has bits that belong to no byte.
        assert!(code(&forged, &from) != "believed" || at == token.len() - 1, "byte {at}");
    }
    let [_, body, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let none = "eyJ0eXAiOiJzZWNldmVudCtqd3QiLCJhbGciOiJub25lIn0";
    assert_eq!(code(&format!("{none}.{body}."), &from), "authentication_failed");
    let other = tempfile::tempdir().unwrap();
    assert_eq!(code(&self::signing(&other).token(&claims()).unwrap(), &from), "invalid_key");
    for wrong in ["", ".", "..", "a.b", "a.b.c.d", "%.%.%"] {
        assert_eq!(code(wrong, &from), "invalid_request", "{wrong}");
    }
}

#[test]
fn a_risk_that_is_not_high_is_heard_and_leads_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let signing = signing(&folder);
    let from = known(&folder, &signing);
    let risk = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";
    for (current, level) in [("HIGH", Some(Level::Watched)), ("MEDIUM", None), ("LOW", None)] {
        let mut claims = claims();
        claims["events"] = json!({ risk: { "principal": "APPLICATION", "current_level": current } });
        let word = verified(&signing.token(&claims).unwrap(), &from, NOW);
        assert_eq!(word.ok().map(|word| word.level), Some(level), "{current}");
    }
}

#[test]
fn each_step_is_told_as_the_risk_that_it_means_and_only_what_acts_revokes() {
    let kinds = |verdict: &Verdict| -> Vec<String> {
        event::events(verdict).iter().map(|event| event.kind.rsplit('/').next().unwrap().to_owned()).collect()
    };
    let step = |from, to| verdict(1, from, to, qualm_scorer::verdict::Cause::Evidence);
    let quarantine = Verdict { enforce: true, ..step(Level::Trusted, Level::Quarantined) };
    assert_eq!(kinds(&quarantine), ["risk-level-change", "session-revoked"]);
    assert_eq!(kinds(&Verdict { enforce: false, ..quarantine.clone() }), ["risk-level-change"]);
    assert_eq!(kinds(&Verdict { paused: true, ..quarantine.clone() }), ["risk-level-change"]);
    assert_eq!(kinds(&Verdict { historic: true, ..quarantine }), Vec::<String>::new());
    assert_eq!(kinds(&step(Level::Throttled, Level::Restricted)), Vec::<String>::new(), "no news to others");
    let back = event::events(&step(Level::Quarantined, Level::Trusted));
    assert_eq!((&back[0].claims["current_level"], &back[0].claims["previous_level"]), (&json!("LOW"), &json!("HIGH")));
    assert_eq!(back[0].claims["principal"], "APPLICATION");
}

#[test]
fn a_receiver_that_never_comes_takes_no_more_than_its_place_and_a_book_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signals.json");
    let mut book = Book::open(file.clone()).unwrap();
    let stream: Stream = serde_json::from_value(json!({
        "id": "1", "audience": "a", "delivered": [], "requested": [], "push": null, "description": null,
        "status": "enabled", "why": null, "verified": null, "waiting": [], "lost": 0,
    }))
    .unwrap();
    book.streams.insert("r".to_owned(), stream);
    let stream = book.streams.get_mut("r").unwrap();
    let dropped = (0..MOST_WAITING + 10).filter(|n| stream.queue(n.to_string(), "t".to_owned())).count();
    assert_eq!((dropped, stream.lost, stream.waiting.len()), (10, 10, MOST_WAITING));
    assert!(!stream.queue("500".to_owned(), "t".to_owned()), "one id is one token");
    assert!(stream.settle("500") && !stream.settle("500"));
    book.told = 7;
    book.save().unwrap();
    assert_eq!(Book::open(file.clone()).unwrap(), book);
    std::fs::write(&file, r#"{"version":9,"told":0,"streams":{}}"#).unwrap();
    assert!(Book::open(file).unwrap_err().to_string().contains("start the release that wrote it"));
}
