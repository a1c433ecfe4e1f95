//! Through an ingress gateway a client calls a service: two callers, each with a past of its own, and one call.

mod mesh;

use mesh::{START, mixed};
use qualm_model::{
    event::{EventBuilder, EventDraft, Kind, Outcome, Party, Position, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
};

const GATEWAY: &str = "spiffe://mesh.test/ns/istio-system/sa/ingress";
const ORDERS: &str = "spiffe://mesh.test/ns/shop/sa/orders";
const ROUTE: &str = "orders.shop.svc.cluster.local";
const CLIENT: &str = "external:203.0.113.0/24";

/// Both records of a request: the gateway's, which knows the client, and the one of the called's sidecar, which knows the
/// gateway by its certificate.
fn push(builder: &mut EventBuilder, by: Reporter, call: u64) {
    let report = Timestamp(START) + Span(call as i64 * Span::SECOND.0);
    let id = format!("request-{call}");
    let at = Party { ip: "10.0.0.9", port: 8000, ..Party::default() };
    let (source, destination) = match by {
        Reporter::Gateway => {
            (Party { principal: CLIENT, ip: "10.0.0.1", ..Party::default() }, Party { principal: ROUTE, ..at })
        }
        _ => (
            Party {
                principal: GATEWAY,
                ip: "10.0.0.2",
                port: 40_000,
                provenance: Provenance::Certificate,
                ..Party::default()
            },
            Party { principal: ORDERS, provenance: Provenance::Certificate, ..at },
        ),
    };
    let operation = format!("GET /{}", mixed(call, 4) % 3);
    builder.push(&EventDraft {
        start: report,
        report,
        kind: Kind::Request,
        reporter: by,
        reporter_id: if by == Reporter::Gateway { "ingress" } else { ORDERS },
        record_id: &id,
        source,
        destination,
        operation: &operation,
        outcome: Outcome::Success,
        status: Some(200),
        duration_ns: Some(0),
        position: Position { source: 0, partition: 0, offset: call as i64 },
        ..EventDraft::default()
    });
}

/// An hour of requests, each told of by these in this order.
fn read(order: &[Reporter]) -> (Scorer, Vec<Observed>) {
    let (mut scorer, mut verdicts, mut observed) = (Scorer::new(ScorerConfig::default()), Vec::new(), Vec::new());
    let mut builder = EventBuilder::new();
    for minute in 0..60 {
        (minute * 60..(minute + 1) * 60).for_each(|call| order.iter().for_each(|&by| push(&mut builder, by, call)));
        let batch = builder.finish();
        scorer.open(&batch);
        observed.extend(batch.events().map(|event| scorer.observe(event, event.report(), &mut verdicts)));
    }
    assert!(verdicts.is_empty(), "{verdicts:?}");
    (scorer, observed)
}

fn scored(observed: &[Observed]) -> usize {
    observed.iter().filter(|of| matches!(of, Observed::Scored { .. })).count()
}

#[test]
fn the_client_and_the_gateway_are_judged_each_and_the_called_receives_one_call() {
    let (alone, of_alone) = read(&[Reporter::Destination]);
    assert_eq!((scored(&of_alone), alone.tally().edges), (3600, 1));
    let received = alone.received(ORDERS);
    assert!(received > 3000.0, "{received}");
    for order in [[Reporter::Destination, Reporter::Gateway], [Reporter::Gateway, Reporter::Destination]] {
        let (both, of_both) = read(&order);
        assert_eq!(scored(&of_both), 7200, "each caller has a past of its own");
        // Under the name of its route the service is known until the first call has shown who it is.
        assert!((2..=3).contains(&both.tally().edges), "{}", both.tally().edges);
        let twice = both.received(ORDERS) - received;
        assert!((0.0..=10.0).contains(&twice), "{twice} calls too many");
    }
}

#[test]
fn where_the_called_has_no_proxy_the_gateways_report_is_the_call() {
    let (scorer, observed) = read(&[Reporter::Gateway]);
    assert_eq!((scored(&observed), scorer.tally().edges), (3600, 1));
    assert!(scorer.received(ROUTE) > 3000.0);
}
