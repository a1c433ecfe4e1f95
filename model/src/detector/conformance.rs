//! What every detector must hold to, whatever its question.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    peers::{FEATURES, Group, Peers, WINDOW},
    time::Timestamp,
};

/// One call of a made-up stream.
#[derive(Debug, Clone, Copy)]
struct Call {
    gap_s: i64,
    outcome: u8,
    bytes: u64,
    novel: bool,
    weight: f64,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (0_i64..200, 0_u8..4, 0_u64..1 << 40, prop::bool::weighted(0.05), 0.0..=1.0_f64)
        .prop_map(|(gap_s, outcome, bytes, novel, weight)| Call { gap_s, outcome, bytes, novel, weight });
    prop::collection::vec(call, 1..300)
}

fn observations(calls: &[Call]) -> Vec<Observation> {
    let mut now = Timestamp::from_seconds(1_000_000);
    calls
        .iter()
        .map(|call| {
            now = now + Span::seconds(call.gap_s);
            let outcome = [Outcome::Unknown, Outcome::Success, Outcome::Failure, Outcome::Refused];
            Observation {
                exposure: Exposure::since(Timestamp::from_seconds(1_000_000), now),
                weight: call.weight,
                outcome: outcome[usize::from(call.outcome)],
                first_contact: call.novel,
                novel: Some(call.novel),
                bytes: Some(call.bytes),
                duration_ns: Some(call.bytes as i64),
                more: 1.0,
                crowd: 1.0,
            }
        })
        .collect()
}

fn conforms<D>(calls: &[Call])
where
    D: Detector + Default + Clone + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let stream = observations(calls);
    let (mut detector, mut twin) = (D::default(), D::default());
    for (step, seen) in stream.iter().enumerate() {
        let before = detector.clone();
        let answer = detector.score_one(seen);
        assert_eq!(detector, before, "scoring changes nothing");
        assert_eq!(answer.map(|d| d.x.to_bits()), detector.score_one(seen).map(|d| d.x.to_bits()), "twice the same");
        if let Some(deviation) = answer {
            assert!(deviation.x >= 1.0 && deviation.x.is_finite(), "x = {} at {step}", deviation.x);
            assert!(deviation.n >= 0.0, "the ground of an opinion is never negative");
        }
        let sample = detector.learn_one(seen);
        assert!(sample.is_none_or(|x| x >= 1.0 && x.is_finite()), "sample {sample:?}");
        assert_eq!(twin.learn_one(seen).map(f64::to_bits), sample.map(f64::to_bits), "the same stream, the same state");
        if step == stream.len() / 2 {
            let bytes = postcard::to_allocvec(&twin).expect("a state can be written");
            assert!(bytes.len() < 2048, "memory is bounded: {} bytes", bytes.len());
            twin = postcard::from_bytes(&bytes).expect("and read again");
        }
    }
    assert_eq!(detector, twin, "a restart in the middle changes nothing");
}

/// [`Unlike`] beside fixed peers: a window is judged while it is open, and learned when a call comes after its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
struct UnlikeFixedPeers {
    unlike: Unlike,
    window: i64,
}

impl UnlikeFixedPeers {
    fn peers() -> Peers {
        let everybody = Group { centre: [0.0; FEATURES], members: 9, windows: 900.0, axes: Vec::new(), rest: 0.1 };
        Peers { mean: [0.0; FEATURES], spread: [1.0; FEATURES], groups: vec![everybody] }
    }
}

impl Detector for UnlikeFixedPeers {
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        self.unlike.score(&Self::peers(), seen.exposure.tide)
    }

    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let window = seen.exposure.now.window(WINDOW);
        let mut sample = None;
        if window > self.window {
            sample = self.score_one(seen).map(|deviation| deviation.x);
            self.unlike.close(Some(&Self::peers()), seen.exposure.tide);
            self.window = window;
        }
        self.unlike.count(seen, seen.first_contact, seen.novel == Some(true));
        sample
    }
}

macro_rules! conformance {
    ($($name:ident: $detector:ty),* $(,)?) => {
        $(
            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]
                #[test]
                fn $name(calls in calls()) {
                    conforms::<$detector>(&calls);
                }
            }
        )*
    };
}

conformance! {
    rate_of_a_minute_conforms: Rate<60>,
    rate_of_an_hour_conforms: Rate<3600>,
    spread_conforms: Spread<600>,
    rarity_conforms: Rarity,
    novelty_conforms: Novelty,
    failing_conforms: Failing,
    oversized_conforms: Oversized,
    refused_conforms: Refused,
    bigger_conforms: Bigger,
    longer_conforms: Longer,
    silence_conforms: Silence,
    rhythm_conforms: Rhythm,
    unlike_conforms: UnlikeFixedPeers,
}

/// A stationary stream: 20 calls a minute, 2 % failing, constant size, nothing new.
fn stationary<D: Detector + Default>(minutes: i64, mut each: impl FnMut(i64, Option<Deviation>)) {
    let birth = Timestamp::from_seconds(0);
    let mut detector = D::default();
    for i in 0..minutes * 20 {
        let seen = Observation {
            outcome: if i % 50 == 7 { Outcome::Failure } else { Outcome::Success },
            novel: Some(false),
            bytes: Some(5000 + (i % 2) as u64),
            duration_ns: Some(2_000_000),
            ..Observation::at(Exposure::since(birth, Timestamp::from_seconds(i * 3)))
        };
        each(i / 20, detector.score_one(&seen));
        detector.learn_one(&seen);
    }
}

/// A bound on the surprise that a detector may show on such a stream once it has learned for fifteen hours.
fn is_calm<D: Detector + Default>() {
    let mut worst: f64 = 1.0;
    stationary::<D>(1400, |minute, deviation| {
        if let (true, Some(deviation)) = (minute > 900, deviation) {
            worst = worst.max(deviation.x);
        }
    });
    assert!(worst < 6.0, "x = {worst} on a stationary stream");
}

#[test]
fn ten_minutes_unlike_any_before_are_a_deviation_when_they_have_ended_and_a_steady_stream_is_none() {
    let (mut unlike, peers) = (Unlike::default(), UnlikeFixedPeers::peers());
    let at = Observation::at(Exposure::since(Timestamp(0), Timestamp(0)));
    let window = |unlike: &mut Unlike, calls: i32, bytes: u64| {
        (0..calls).for_each(|call| unlike.count(&Observation { bytes: Some(bytes), ..at }, call == 0, false));
        let answer = unlike.score(&peers, 1.0);
        unlike.close(Some(&peers), 1.0);
        answer.map(|deviation| deviation.x)
    };
    for number in 0..20 {
        let answer = window(&mut unlike, 100 + number % 5, 5_000);
        assert_eq!(answer.is_some(), number >= 6, "no opinion before an hour of its own");
        assert!(answer.is_none_or(|x| x < 1.5), "{answer:?} in window {number}");
    }
    assert_eq!(unlike.score(&peers, 1.0), None, "who did nothing did nothing odd");
    let odd = window(&mut unlike, 100, 5_000_000).expect("it has grounds");
    assert!(odd > 100.0, "{odd}");
    // It was not learned: the next one is as odd.
    let again = window(&mut unlike, 100, 5_000_000).expect("it has grounds");
    assert!(again > 0.9 * odd, "{again} after {odd}");
}

#[test]
fn a_stationary_stream_is_no_deviation_for_anybody() {
    is_calm::<Rate<60>>();
    is_calm::<Rate<600>>();
    is_calm::<Rate<3600>>();
    is_calm::<Spread<600>>();
    is_calm::<Novelty>();
    is_calm::<Failing>();
    is_calm::<Refused>();
    is_calm::<Bigger>();
    is_calm::<Longer>();
}

#[test]
fn a_silence_is_seen_when_its_window_has_ended_and_not_before_there_was_noise() {
    let birth = Timestamp::from_seconds(0);
    let at = |seconds| Observation::at(Exposure::since(birth, Timestamp::from_seconds(seconds)));
    let mut silence = Silence::default();
    for second in 0..199_800 {
        silence.learn_one(&at(second));
    }
    let full = Observation { more: 0.0, ..at(199_799) };
    assert!(silence.score_one(&full).expect("600 calls are expected").x < 2.0);
    let empty = Observation { more: 0.0, ..at(200_399) };
    assert!(silence.score_one(&empty).expect("600 calls are expected").x > 10.0);
    assert_eq!(Silence::default().score_one(&empty), None);
}
