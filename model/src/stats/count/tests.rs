use proptest::prelude::*;

use super::*;
use crate::stats::Calibration;

const BIRTH: Timestamp = Timestamp(0);

fn at(minute: i64) -> Exposure {
    Exposure::since(BIRTH, Timestamp(minute * Span::MINUTE.0))
}

/// A steady stream of `per_minute` for `minutes`.
fn steady(per_minute: u32, minutes: i64) -> WindowCount {
    let mut count = WindowCount::default();
    for minute in 0..minutes {
        for _ in 0..per_minute {
            count.add(at(minute), Span::MINUTE, 1.0);
        }
    }
    count
}

#[test]
fn one_more_on_a_constant_is_no_deviation() {
    let count = steady(10, 1000);
    assert!(count.too_many(at(1000), Span::MINUTE, 11.0) < 0.5);
}

#[test]
fn a_flood_is_a_surprise_and_stays_one_because_it_is_not_learned() {
    let mut count = steady(10, 3000);
    for minute in 3000..3100 {
        for _ in 0..200 {
            count.add(at(minute), Span::MINUTE, 1.0);
        }
    }
    assert!(count.mean() < 11.0, "{}", count.mean());
    assert!(count.too_many(at(3100), Span::MINUTE, 200.0) > 100.0);
}

#[test]
fn a_steady_stream_is_learned_whatever_its_rate() {
    for rate in [1, 20, 1000] {
        let count = steady(rate, 300);
        assert!(count.too_many(at(300), Span::MINUTE, f64::from(rate)) < 3.0, "{rate} a minute");
    }
}

#[test]
fn a_key_that_inherits_is_not_surprised_by_what_its_siblings_do() {
    let exposure = at(10_000);
    let heir = WindowCount::inheriting(exposure, Span::MINUTE, 50.0, 4000.0);
    assert!(heir.too_many(exposure, Span::MINUTE, 60.0) < 1.0);
    assert!(heir.too_many(exposure, Span::MINUTE, 5000.0) > THETA);
}

#[test]
fn what_the_whole_mesh_does_is_no_surprise_in_one_of_it() {
    let mut count = steady(10, 1000);
    let peak = Exposure { tide: 3.0, ..at(1000) };
    assert!(count.too_many(at(1000), Span::MINUTE, 30.0) > 5.0);
    assert!(count.too_many(peak, Span::MINUTE, 30.0) < 0.5);
    count.add(peak, Span::MINUTE, 30.0);
    assert!(count.too_many(peak, Span::MINUTE, 1.0) < 1.0);
    // The tide falls within the window.
    count.add(Exposure { tide: 1.0, ..peak }, Span::MINUTE, 0.0);
    assert!(count.current() > 5.0 && (count.mean() - count.calm_mean()).abs() < 1e-9);
}

#[test]
fn silence_is_a_surprise_only_where_there_was_noise() {
    let mut busy = steady(50, 1000);
    busy.add(at(1001), Span::MINUTE, 0.0);
    assert!(busy.too_few() > 10.0);
    let mut quiet = steady(0, 1);
    quiet.add(at(1001), Span::MINUTE, 0.0);
    assert!(quiet.too_few() < 0.1);
}

#[test]
fn a_key_never_seen_has_earned_its_surprise_from_the_age_of_the_mesh() {
    let new = WindowCount::default();
    assert!(new.too_many(at(10_000), Span::MINUTE, 1.0) > 7.0);
    assert!(new.too_many(at(5), Span::MINUTE, 1.0) < 2.0);
}

proptest! {
    /// The bound must lie above the exact tail: P(X ≥ a) ≤ e^(−s) for X ~ NB(μ, r).
    #[test]
    fn the_chernoff_bound_is_above_the_exact_negative_binomial_tail(
        per_minute in 1_u32..40, factor in 1.1_f64..6.0
    ) {
        let mut count = steady(per_minute, 500);
        count.add(at(500), Span::MINUTE, 0.0);
        let (mean, r) = (count.mean, count.dispersion);
        let a = libm::ceil(mean * factor);
        // P(X = k) by the recurrence P(k+1)/P(k) = (k+r)/(k+1) · μ/(μ+r)
        let mut probability = libm::exp(r * libm::log(r / (mean + r)));
        let mut below = 0.0;
        let mut k = 0.0;
        while k < a {
            below += probability;
            probability *= (k + r) / (k + 1.0) * mean / (mean + r);
            k += 1.0;
        }
        let exact = (1.0 - below).max(0.0);
        let bound = libm::exp(-count.tail_above(a));
        prop_assert!(bound >= exact - 1e-9, "bound {bound} exact {exact}");
    }

    /// What is kept from call to call must never show: not in a bit.
    #[test]
    fn an_e_value_read_in_steps_is_the_one_worked_out_anew(
        minutes in prop::collection::vec((0_u32..120, 1_i64..3, prop::sample::select(vec![1.0, 1.5])), 1..60),
        samples in prop::collection::vec(1.0..200.0_f64, 100..300)
    ) {
        let mut calibration = Calibration::default();
        let mut table = ETable::default();
        let mut samples = samples.into_iter().cycle();
        let mut count = WindowCount::default();
        let mut minute = 0;
        for (calls, gap, tide) in minutes {
            minute += gap;
            let exposure = Exposure { tide, ..at(minute) };
            count.add(exposure, Span::MINUTE, 0.0);
            for call in 0..calls {
                let more = f64::from(call % 7 != 0);
                let x = 1.0 + count.too_many(exposure, Span::MINUTE, more);
                prop_assert_eq!(count.e(more, &table).to_bits(), table.e(x).to_bits());
                prop_assert_eq!(count.trust(more).to_bits(), trust(x - 1.0).to_bits());
                count.add_open(more);
                calibration.add(samples.next().expect("a cycle never ends"), 1.0);
                table = calibration.refit().unwrap_or(table);
            }
        }
    }

    #[test]
    fn scoring_changes_nothing(counts in prop::collection::vec(0_u32..50, 1..60)) {
        let mut count = WindowCount::default();
        for (minute, n) in counts.iter().enumerate() {
            for _ in 0..*n {
                let before = count;
                let first = count.too_many(at(minute as i64), Span::MINUTE, 1.0);
                prop_assert_eq!(before, count);
                prop_assert_eq!(first, count.too_many(at(minute as i64), Span::MINUTE, 1.0));
                count.add(at(minute as i64), Span::MINUTE, 1.0);
            }
        }
    }
}
