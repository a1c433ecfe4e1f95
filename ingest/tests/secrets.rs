//! What the samples hold of secrets and of people is in no event.
#![allow(clippy::unwrap_used)]

use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBuilder, Position};

/// A format, and what its sample holds that must not be told.
const PLANTED: [(Format, &[&str]); 7] = [
    (Format::KeycloakJson, &["alice", "IKJ_SPAyAvA", "email profile"]),
    (Format::KeycloakText, &["alice", "jdoe", "prairielog.example"]),
    (Format::OpaDecision, &["hunter2", "token="]),
    (Format::Cloudtrail, &["IQoJb3JpZ2luX2VjEXAMPLE", "HIDDEN_DUE_TO_SECURITY_REASONS"]),
    (Format::Azure, &["alice@contoso.example", "username@outlook.com", "api-version"]),
    (Format::PostgresCsv, &["4111111111111111", "bob", "Parameters", "not logged"]),
    (Format::KafkaAuthorizer, &["48213"]),
];

#[test]
fn what_the_samples_hold_of_secrets_is_in_no_event() {
    for (format, planted) in PLANTED {
        let mut parser = Parser::for_format(format, None).unwrap();
        let mut builder = EventBuilder::new();
        for record in format.sample().lines() {
            let _ = parser.parse(record.as_bytes(), Position::default(), &mut builder);
        }
        let events = builder.finish();
        assert!(!events.is_empty(), "{format}");
        let told = format!("{:?}", events.as_record_batch());
        for secret in planted {
            assert!(format.sample().contains(secret), "{format} holds no {secret}");
            assert!(!told.contains(secret), "{format} tells {secret}");
        }
    }
}
