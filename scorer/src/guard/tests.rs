use super::*;
use crate::config::Leases;

/// One under which everything may be done, far below every bound.
fn policy() -> Policy {
    Policy {
        mode: Mode::Enforce,
        lease: Leases::default(),
        max_age: Span::MINUTE,
        is_protected: false,
        reach: Some((0, 5)),
        is_paused: false,
        crowd: None,
        replicas: Some(Replicas { known: 3, healthy: 3, denied: 0, left: 2, most: 0.5 }),
        traffic: Some(Traffic { denied: 0.05, own: 0.1, most: 0.2 }),
        is_blind: false,
    }
}

fn held(policy: &Policy, level: Level) -> Option<HeldBy> {
    policy.withheld(level, false).map(|held| held.by)
}

#[test]
fn each_bound_holds_back_what_it_is_about_and_nothing_below() {
    let replicas = |healthy, denied, left| Some(Replicas { known: 3, healthy, denied, left, most: 0.5 });
    let (throttled, denying) = ([Level::Throttled], [Level::Restricted, Level::Quarantined]);
    for (policy, below, by) in [
        (policy(), None, None),
        (Policy { is_protected: true, ..policy() }, Some(HeldBy::Protected), Some(HeldBy::Protected)),
        (Policy { crowd: Some(9), ..policy() }, Some(HeldBy::CircuitBreaker), Some(HeldBy::CircuitBreaker)),
        (Policy { replicas: replicas(1, 0, 0), ..policy() }, None, Some(HeldBy::LastReplica)),
        // A person has denied the sibling.
        (Policy { replicas: replicas(2, 1, 0), ..policy() }, None, Some(HeldBy::LastReplica)),
        (Policy { is_blind: true, ..policy() }, None, Some(HeldBy::Gap)),
        (Policy { reach: Some((5, 5)), ..policy() }, None, Some(HeldBy::MaxShare)),
        (
            Policy { traffic: Some(Traffic { denied: 0.15, own: 0.1, most: 0.2 }), ..policy() },
            None,
            Some(HeldBy::TrafficShare),
        ),
    ] {
        assert!(throttled.iter().all(|level| held(&policy, *level) == below), "{policy:?}");
        assert!(denying.iter().all(|level| held(&policy, *level) == by), "{policy:?}");
        let watched = held(&policy, Level::Watched);
        assert_eq!((watched, held(&Policy { mode: Mode::Shadow, ..policy }, Level::Quarantined)), (None, None));
    }
}

#[test]
fn all_of_a_service_may_be_restricted_and_one_of_one_and_one_of_two_may_be_denied() {
    let whole = Policy { replicas: Some(Replicas { known: 3, healthy: 3, denied: 0, left: 0, most: 0.5 }), ..policy() };
    assert_eq!((held(&whole, Level::Restricted), held(&whole, Level::Quarantined)), (None, Some(HeldBy::ReplicaShare)));
    let one_of_two = Replicas { known: 2, healthy: 2, denied: 0, left: 1, most: 0.5 };
    let alone_ever = Replicas { known: 1, healthy: 1, denied: 0, left: 0, most: 0.5 };
    for replicas in [one_of_two, alone_ever] {
        assert_eq!(held(&Policy { replicas: Some(replicas), ..policy() }, Level::Quarantined), None, "{replicas:?}");
    }
}

#[test]
fn who_is_denied_already_rises_though_the_mesh_is_at_its_bounds_but_not_as_the_last_of_its_service() {
    let full = Policy { reach: Some((5, 5)), is_blind: true, ..policy() };
    assert_eq!(full.withheld(Level::Quarantined, true), None);
    let last = Replicas { known: 2, healthy: 1, denied: 0, left: 0, most: 0.5 };
    let last = Policy { replicas: Some(last), ..full };
    assert_eq!(last.withheld(Level::Quarantined, true).map(|held| held.by), Some(HeldBy::LastReplica));
}

#[test]
fn what_is_held_back_acts_at_a_lower_level_that_limits_or_not_at_all() {
    let all = [
        HeldBy::Protected,
        HeldBy::CircuitBreaker,
        HeldBy::MaxShare,
        HeldBy::LastReplica,
        HeldBy::ReplicaShare,
        HeldBy::TrafficShare,
        HeldBy::Gap,
    ];
    for by in all {
        assert!(by.instead().is_none_or(|level| level.limits() && level < Level::Quarantined), "{by:?}");
    }
}
