//! What benches read: Envoy's JSON lines of a generated mesh, as its inbound proxies write them.

use std::sync::Arc;

use qualm_datasets::{AccessLog, MeshConfig, Millis, Scenario, Traffic};

/// The first `count` lines of a quiet mesh of 60 services.
pub(crate) fn of_quiet_mesh(count: usize) -> Vec<Vec<u8>> {
    let config = MeshConfig { seed: 1, services: 60, calls_per_second: 4.0 };
    let scenario = Arc::new(Scenario::quiet(config, Millis(1_790_000_000_000), 2.0).unwrap());
    let log = AccessLog::new(scenario.mesh());
    Traffic::new(Arc::clone(&scenario))
        .take(count)
        .map(|call| {
            let mut line = Vec::with_capacity(1200);
            log.push_inbound(&call, &mut line);
            line
        })
        .collect()
}
