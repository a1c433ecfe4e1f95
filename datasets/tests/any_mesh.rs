//! What holds for every mesh that can be asked for.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use qualm_datasets::{Call, ChangeKind, Mesh, MeshConfig, Millis, Scenario, Traffic, calendar::DAY, mesh::Kind};

/// Monday, 2026-01-05T00:00:00Z.
const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

fn config(seed: u64) -> MeshConfig {
    MeshConfig { seed, ..MeshConfig::default() }
}

fn play(scenario: Scenario) -> (Arc<Scenario>, Vec<Call>) {
    let scenario = Arc::new(scenario);
    let calls = Traffic::new(Arc::clone(&scenario)).collect();
    (scenario, calls)
}

#[test]
fn a_mesh_out_of_range_is_refused_with_the_range() {
    let refusal = |config| Mesh::generate(config).unwrap_err().to_string();
    assert!(refusal(MeshConfig { services: 19, ..config(1) }).contains("between 20 and 2000"));
    assert!(refusal(MeshConfig { calls_per_second: f64::NAN, ..config(1) }).contains("calls_per_second"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn calls_come_in_report_order_within_the_scenario(
        seed in any::<u64>(), services in 20_usize..150, rate in 0.5_f64..60.0, offset in 0_i64..DAY,
    ) {
        let config = MeshConfig { seed, services, calls_per_second: rate };
        let start = MONDAY + offset;
        let mut scenario = Scenario::estate(config, start, 0.04).unwrap();
        scenario.add_users().chain(0.7);
        let end = scenario.end();
        scenario.churn_of(&ChangeKind::ALL, 40.0, start, end).attacks_at_random(100.0, start, end);
        let (scenario, calls) = play(scenario);
        prop_assert!(calls.is_sorted_by_key(Call::report));
        // A retry may begin after the last slot; nothing begins before the first.
        prop_assert!(calls.iter().all(|call| call.start >= scenario.start()));
    }

    #[test]
    fn identities_and_addresses_are_nobody_elses(seed in any::<u64>(), services in 20_usize..400) {
        let mesh = Mesh::generate(MeshConfig { seed, services, calls_per_second: 10.0 }).unwrap();
        prop_assert_eq!(mesh.services.len(), services);
        let identities: BTreeSet<_> = mesh.services.iter().map(|service| &service.spiffe_id).collect();
        prop_assert_eq!(identities.len(), services);
        let addresses: BTreeSet<_> = mesh.instances.iter().map(|instance| instance.address).collect();
        prop_assert_eq!(addresses.len(), mesh.instances.len());
        prop_assert!(mesh.services.iter().all(|service| (1..=5).contains(&service.replicas.len())));
        for kind in [Kind::Gateway, Kind::Api, Kind::Worker, Kind::Cron, Kind::Scraper, Kind::Egress, Kind::Database] {
            prop_assert!(mesh.of_kind(kind).next().is_some(), "no {:?}", kind);
        }
    }
}
