//! Holds the wire to what earlier releases said.

use prost::Message;
use qualm_proto::{
    operator::v1::{LiftRequest, Override, PauseRequest, SetRequest},
    trust::v1::{ConfidenceLevel, Coverage, Level, Mode, Object, Scope, SubjectKind, TrustUpdate},
};

/// The bytes of version 0.1.0, written down once: a later release must read them to the same record.
const GOLDEN: &str = "082a10011a700a02613110011a197370696666653a2f2f6d2e746573742f6e732f732f73612f63220263312a08 \
                      31302e302e302e3730033a0a0a016412054745542078400548025100000000000038405a0508e8071005620308 \
                      cc0c6a0308e40472037768797a026431820104080210038a01026d3122026132";

#[test]
fn what_release_0_1_0_said_is_still_understood() {
    let bytes = hex(GOLDEN);
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

/// What an operator of version 0.1.0 says must go on to mean the same.
#[test]
fn what_an_operator_of_release_0_1_0_asked_for_is_still_understood() {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let set = SetRequest {
        identity: "a".into(),
        instance: "b".into(),
        level: Level::Quarantined.into(),
        lease: seconds(10),
        reason: "c".into(),
        idempotency_key: "d".into(),
        act_in_shadow_mode: true,
        overrides: vec![Override::Protected.into(), Override::MaxShare.into()],
    };
    assert_eq!(set.encode_to_vec(), hex("0a0161 120162 1805 2202080a 2a0163 320164 3801 42020102"));
    let lift = LiftRequest {
        identity: "a".into(),
        instance: "b".into(),
        reason: "c".into(),
        idempotency_key: "d".into(),
        hold: seconds(1),
    };
    assert_eq!(lift.encode_to_vec(), hex("0a0161 120162 1a0163 220164 2a020801"));
    let pause = PauseRequest { lease: seconds(10), reason: "c".into(), idempotency_key: "d".into() };
    assert_eq!(pause.encode_to_vec(), hex("0a02080a 120163 1a0164"));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("the bytes of a request"))
        .collect()
}
