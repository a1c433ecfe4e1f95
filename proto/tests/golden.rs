//! Holds the wire to what earlier releases said.

use prost::Message;
use qualm_proto::trust::v1::{ConfidenceLevel, Coverage, Level, Mode, Object, Scope, SubjectKind, TrustUpdate};

/// The bytes of version 0.1.0, written down once: a later release must read them to the same record.
const GOLDEN: &str = "082a10011a700a02613110011a197370696666653a2f2f6d2e746573742f6e732f732f73612f63220263312a08 \
                      31302e302e302e3730033a0a0a016412054745542078400548025100000000000038405a0508e8071005620308 \
                      cc0c6a0308e40472037768797a026431820104080210038a01026d3122026132";

#[test]
fn what_release_0_1_0_said_is_still_understood() {
    let hex: String = GOLDEN.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    assert_eq!(TrustUpdate::decode(bytes.as_slice()).unwrap(), golden());
    assert_eq!(golden().encode_to_vec(), bytes);
}

fn golden() -> TrustUpdate {
    let record = ConfidenceLevel {
        key: "a1".into(),
        subject_kind: SubjectKind::Workload.into(),
        principal: "spiffe://m.test/ns/s/sa/c".into(),
        cluster: "c1".into(),
        instance: "10.0.0.7".into(),
        scope: Scope::Instance.into(),
        object: Some(Object { destination: "d".into(), operation: "GET x".into() }),
        level: Level::Quarantined.into(),
        mode: Mode::Enforce.into(),
        evidence_bits: 24.0,
        decided: Some(prost_types::Timestamp { seconds: 1000, nanos: 5 }),
        expires: Some(prost_types::Timestamp { seconds: 1612, nanos: 0 }),
        remaining: Some(prost_types::Duration { seconds: 612, nanos: 0 }),
        reason: "why".into(),
        decision_id: "d1".into(),
        coverage: Some(Coverage { enforcing: 2, reporting: 3 }),
        model_version: "m1".into(),
    };
    TrustUpdate { version: 42, full: true, upserts: vec![record], removals: vec!["a2".into()] }
}
