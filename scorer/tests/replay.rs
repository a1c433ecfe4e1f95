//! A decision is recomputed bit for bit from its record, and a record in which any input was changed is found.

mod mesh;

use mesh::{Call, batch, call, calls, mixed};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Leases, Length, Mode, ScorerConfig},
    grounds::replay::{Replayed, is_of_this_model, replay, replay_order},
    operator::{Ask, InShadow, Instruction, Override},
    scorer::Scorer,
    verdict::{Cause, Verdict},
};
use serde_json::Value;

fn config(mode: Mode) -> ScorerConfig {
    let short = |minutes: i64| Length(Span(minutes * Span::MINUTE.0));
    ScorerConfig {
        enforce: EnforceConfig {
            mode,
            // Whoever comes to be denied is held back, and what is below acts.
            protected: vec!["*".to_owned()],
            ..EnforceConfig::default()
        },
        // Short leases: many ends and renewals.
        lease: Leases { watched: short(3), throttled: short(2), restricted: short(4), quarantined: short(5) },
        ..ScorerConfig::default()
    }
}

/// Ten days of twenty services, and then some of them go astray in turns, each for half an hour.
fn run() -> Vec<Verdict> {
    let mut scorer = Scorer::new(config(Mode::Shadow));
    scorer.name_config("first");
    let mut verdicts = Vec::new();
    let calm: Vec<Call> = (0..4)
        .flat_map(|turn| {
            let later = Span(turn * 3 * Span::DAY.0);
            let calm = calls().into_iter().take(55_000);
            calm.map(move |call| Call { time: call.time + later, ..call })
        })
        .collect();
    feed(&mut scorer, &calm, &mut verdicts);
    let mut from = calm[calm.len() - 1].time;
    scorer.reconfigure(config(Mode::Enforce), from, &mut verdicts);
    scorer.name_config("second");
    for turn in 0..8_u64 {
        feed(&mut scorer, &spree(from, turn), &mut verdicts);
        from = from + Span(90 * Span::MINUTE.0);
        // What stands becomes a shadow and acts again.
        for mode in [Mode::Shadow, Mode::Enforce] {
            scorer.reconfigure(config(mode), from - Span::HOUR, &mut verdicts);
        }
    }
    verdicts
}

/// Half an hour of a service that calls whom it never called, more and bigger than ever, and then an hour of calm.
fn spree(from: Timestamp, turn: u64) -> Vec<Call> {
    let odd = format!("spiffe://mesh.test/ns/shop/sa/s{}", 3 + turn % 5);
    let odd = (0..1800_u64).map(|i| Call {
        operation: format!("GET /admin/{}", mixed(i, 3) % 50),
        bytes: 5_000_000,
        address: if turn.is_multiple_of(3) || !i.is_multiple_of(9) { "10.0.0.1" } else { "10.0.0.2" },
        ..call(
            from + Span(i as i64 * Span::SECOND.0),
            &odd,
            &format!("spiffe://mesh.test/ns/shop/sa/t{}", mixed(i, turn) % 60),
        )
    });
    let calm = (0..3600_u64).map(|i| {
        let time = from + Span((1800 + i as i64) * Span::SECOND.0);
        let source = mixed(i, 1) % 20;
        call(
            time,
            &format!("spiffe://mesh.test/ns/shop/sa/s{source}"),
            &format!("spiffe://mesh.test/ns/shop/sa/s{}", (source + 1) % 20),
        )
    });
    odd.chain(calm).collect()
}

fn feed(scorer: &mut Scorer, calls: &[Call], verdicts: &mut Vec<Verdict>) {
    let mut minute = 0;
    for chunk in calls.chunks(1000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        for event in batch.events() {
            let wall = event.report();
            if minute != wall.window(Span::MINUTE) {
                minute = wall.window(Span::MINUTE);
                scorer.tick(wall, verdicts);
            }
            scorer.observe(event, wall, verdicts);
        }
    }
}

fn read_back(verdict: &Verdict) -> Verdict {
    serde_json::from_str(&serde_json::to_string(verdict).expect("plain data")).expect("what was written")
}

#[test]
fn a_hundred_decisions_of_a_run_are_recomputed_bit_for_bit_from_their_records() {
    let verdicts = run();
    let mut by_cause = [0; 3];
    for (n, verdict) in verdicts.iter().enumerate() {
        assert_eq!(replay(&read_back(verdict)), Replayed::Identical, "decision {n}: {verdict:?}");
        assert!(is_of_this_model(verdict));
        match verdict.cause {
            Cause::Evidence => by_cause[0] += 1,
            Cause::Renewed | Cause::Lease => by_cause[1] += 1,
            _ => by_cause[2] += 1,
        }
    }
    assert!(verdicts.len() >= 100 && by_cause.iter().all(|count| *count >= 5), "{} {by_cause:?}", verdicts.len());
    let levels: std::collections::BTreeSet<Level> = verdicts.iter().map(|verdict| verdict.level).collect();
    assert!(levels.len() == 5, "every level that behaviour leads to, and the way back: {levels:?}");
    assert!(verdicts.iter().any(|verdict| verdict.held.is_some()), "some were held back");
    assert!(verdicts.iter().any(|verdict| verdict.subject.instance.is_some()), "some are about one instance");
}

#[test]
fn a_record_in_which_any_input_was_changed_is_told_apart() {
    let verdicts = run();
    // One of each cause and level.
    let mut seen = std::collections::BTreeSet::new();
    let some = verdicts.iter().filter(|verdict| seen.insert((format!("{:?}", verdict.cause), verdict.level)));
    let mut changed = 0;
    for verdict in some {
        let sound = serde_json::to_value(verdict).expect("plain data");
        let mut paths = Vec::new();
        leaves(&sound["grounds"]["inputs"], &mut vec![], &mut paths);
        for path in paths {
            let mut altered = sound.clone();
            let leaf = altered["grounds"]["inputs"].pointer_mut(&path).expect("it was just there");
            alter(leaf);
            // What is no decision any more is found in reading it.
            let Ok(verdict) = serde_json::from_value::<Verdict>(altered) else { continue };
            changed += 1;
            assert!(!matches!(replay(&verdict), Replayed::Identical | Replayed::NoInputs), "{path}");
        }
        // And so is what was decided.
        for field in ["level", "m", "evidence_bits", "expires", "decision", "enforce", "subject"] {
            let mut altered = sound.clone();
            alter(&mut altered[field]);
            let Ok(verdict) = serde_json::from_value::<Verdict>(altered) else { continue };
            assert!(matches!(replay(&verdict), Replayed::Differs(_)), "{field}");
        }
    }
    assert!(changed > 500, "{changed}");
}

#[test]
fn a_threshold_that_was_raised_with_its_digest_leads_to_no_decision() {
    let verdicts = run();
    let entered = verdicts.iter().find(|verdict| verdict.cause == Cause::Evidence).expect("somebody");
    let mut altered = serde_json::to_value(entered).expect("plain data");
    for threshold in altered["grounds"]["inputs"]["thresholds"].as_array_mut().expect("four") {
        *threshold = serde_json::json!({ "fast": 1e9, "slow": 1e9 });
    }
    let verdict: Verdict = serde_json::from_value(altered).expect("a verdict");
    let Replayed::Differs(differences) = replay(&verdict) else { panic!("it was changed") };
    assert!(differences.iter().any(|of| of.recomputed == "no decision follows"), "{differences:?}");
}

#[test]
fn what_an_operator_has_set_follows_from_the_instruction() {
    let mut scorer = Scorer::new(config(Mode::Enforce));
    let mut verdicts = Vec::new();
    feed(&mut scorer, &calls()[..2000], &mut verdicts);
    let event = scorer.watermark().expect("events were read");
    let instruction = Instruction {
        by: "spiffe://mesh.test/ns/soc/sa/on-call".to_owned(),
        why: "incident 7".to_owned(),
        key: "k1".to_owned(),
        at: event + Span::SECOND,
        event,
        ask: Ask::Set {
            identity: "spiffe://mesh.test/ns/shop/sa/s4".to_owned(),
            instance: None,
            level: Level::Quarantined,
            lease: Span::HOUR,
            in_shadow: InShadow::Marks,
            overrides: vec![Override::Protected],
        },
    };
    let mut verdicts = Vec::new();
    scorer.obey(&instruction, &mut verdicts).expect("it may be");
    assert_eq!(replay_order(&instruction, &verdicts[0]), Replayed::Identical);
    let longer = Verdict { expires: verdicts[0].expires.map(|end| end + Span::HOUR), ..verdicts[0].clone() };
    assert!(matches!(replay_order(&instruction, &longer), Replayed::Differs(of) if of[0].field == "expires"));
    assert_eq!(replay(&verdicts[0]), Replayed::NoInputs);
}

/// Pointers to everything below `value` that is no list and no object.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    let mut into = |key: String, value: &Value| {
        path.push(key);
        leaves(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| into(key.clone(), value)),
        Value::Array(values) => values.iter().enumerate().for_each(|(at, value)| into(at.to_string(), value)),
        _ => found.push(path.iter().map(|key| format!("/{key}")).collect()),
    }
}

fn alter(leaf: &mut Value) {
    *leaf = match &*leaf {
        Value::Bool(is) => Value::Bool(!is),
        Value::Number(number) if number.is_f64() => {
            serde_json::json!(number.as_f64().expect("a float").next_up())
        }
        Value::Number(number) => serde_json::json!(number.as_i64().map_or(0, |number| number.wrapping_add(1))),
        Value::String(text) => match text.parse::<Level>() {
            Ok(Level::Watched) => Value::from("throttled"),
            Ok(_) => Value::from("watched"),
            Err(_) => Value::from(format!("{text}x")),
        },
        Value::Null => serde_json::json!(1.5),
        other => Value::from(format!("{other}x")),
    };
}
