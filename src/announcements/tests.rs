use qualm_model::time::Span;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000 * Span::HOUR.0);

fn asked(payload: &str, written: Timestamp) -> Result<Request, String> {
    let message = Message { payload: payload.into(), written: Some(written), partition: 3, offset: 42 };
    request(&message, "deployments", NOW)
}

#[test]
fn a_message_says_what_qualm_announce_would() {
    let request = asked(
        r#"{"service":"shop/cart","cluster":"north","for":"30m","reason":"release 42","by":"argocd","key":"cart-42"}"#,
        NOW,
    )
    .unwrap();
    assert_eq!((&*request.by, &*request.why, &*request.key), ("kafka deployments: argocd", "release 42", "cart-42"));
    let Ask::Announce { service, cluster, lasts } = request.ask else { panic!("{:?}", request.ask) };
    assert_eq!((&*service, cluster.as_deref(), lasts), ("shop/cart", Some("north"), Span::seconds(1800)));
}

#[test]
fn without_a_key_its_place_in_the_topic_is_its_key() {
    let request = asked(r#"{"service":"shop/cart","for":"30m","reason":"release 42"}"#, NOW).unwrap();
    assert_eq!((&*request.by, &*request.key), ("kafka deployments", "3-42-3600000000000"));
}

#[test]
fn what_was_over_before_it_was_read_announces_nothing() {
    let of = r#"{"service":"shop/cart","for":"30m","reason":"release 42"}"#;
    assert!(asked(of, NOW - Span::seconds(1799)).is_ok());
    assert!(asked(of, NOW - Span::seconds(1800)).unwrap_err().contains("over before it was read"));
}

#[test]
fn a_message_that_cannot_be_meant_says_which_field_and_how_it_is_written() {
    for (payload, field) in [
        ("", "EOF"),
        ("[]", "invalid"),
        (r#"{"service":"shop/cart","for":"30m"}"#, "`reason`"),
        (r#"{"service":"shop/cart","for":30,"reason":"x"}"#, "in quotes"),
        (r#"{"service":"shop/cart","for":"30 parsecs","reason":"x"}"#, "length of time"),
        (r#"{"service":"shop/cart","for":"30m","reason":"x","level":"trusted"}"#, "`level`"),
    ] {
        let problem = asked(payload, NOW).unwrap_err();
        assert!(problem.contains(field) && problem.contains("write {"), "{payload}: {problem}");
    }
    assert!(asked(&" ".repeat(MAX_BYTES + 1), NOW).unwrap_err().contains("more than"));
}
