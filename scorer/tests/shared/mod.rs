//! The made-up mesh with a principal beside it that two workloads share: `cart`, two pods that call two services all day,
//! and `report`, two pods that call two others now and then.
#![allow(dead_code, reason = "each test file uses its part")]

use qualm_model::{
    event::{EventBatch, EventBuilder, EventDraft, Outcome, Party, Position},
    identity::Provenance,
    time::{Span, Timestamp},
};

use crate::mesh::{Call, calls, mixed};

pub(crate) const DEFAULT: &str = "spiffe://mesh.test/ns/shop/sa/default";

/// Whose pods are where.
pub(crate) mod pods {
    pub(crate) const CART_IPS: [&str; 2] = ["10.1.0.1", "10.1.0.2"];
    pub(crate) const REPORT_IP: &str = "10.1.1.1";
    pub(crate) const REPORT_IP_2: &str = "10.1.1.2";

    /// The name of the pod with this number.
    pub(crate) fn name(of: &str, number: i64) -> String {
        let letters = b"bcdfghjklmnpqrstvwxz";
        let letter = |n: i64| char::from(letters[(n % 20) as usize]);
        format!("{of}-49{}{}t", letter(number), letter(number / 20))
    }
}

/// A record of the called's proxy.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) time: Timestamp,
    pub(crate) source: String,
    pub(crate) ip: &'static str,
    pub(crate) destination: String,
    pub(crate) called_ip: &'static str,
    /// The pod that wrote it, where the envelope names it.
    pub(crate) called_pod: String,
    pub(crate) operation: String,
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
}

fn service(n: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{n}")
}

fn record(time: Timestamp, ip: &'static str, destination: String) -> Record {
    Record {
        time,
        source: DEFAULT.to_owned(),
        ip,
        destination,
        called_ip: "",
        called_pod: String::new(),
        operation: "GET /0".to_owned(),
        bytes: 700,
        outcome: Outcome::Success,
    }
}

/// A call as `cart` makes it.
pub(crate) fn cart(i: u64, time: Timestamp) -> Record {
    Record {
        operation: format!("GET /cart/{}", mixed(i, 12) % 3),
        ..record(time, pods::CART_IPS[(mixed(i, 10) % 2) as usize], service(1 + mixed(i, 11) % 2))
    }
}

fn report(i: u64, time: Timestamp) -> Record {
    let ip = if mixed(i, 22).is_multiple_of(2) { pods::REPORT_IP } else { pods::REPORT_IP_2 };
    Record { operation: format!("GET /report/{}", mixed(i, 23) % 2), ..record(time, ip, service(5 + mixed(i, 21) % 2)) }
}

/// A call to one of the pods, by which its proxy tells where it is.
pub(crate) fn heard(i: u64, time: Timestamp) -> Record {
    let (called_ip, called_pod) = match i % 4 {
        0 => (pods::CART_IPS[0], pods::name("cart-7d6c6c7775", 1)),
        1 => (pods::CART_IPS[1], pods::name("cart-7d6c6c7775", 2)),
        2 => (pods::REPORT_IP, pods::name("report-5d6c6c7772", 1)),
        _ => (pods::REPORT_IP_2, pods::name("report-5d6c6c7772", 2)),
    };
    Record {
        source: service(0),
        called_ip,
        called_pod,
        operation: "GET /healthy".to_owned(),
        ..record(time, "10.0.0.1", DEFAULT.to_owned())
    }
}

/// The same call, as somebody makes it who takes all there is from whoever there is.
pub(crate) fn worse(i: u64, record: Record) -> Record {
    Record {
        destination: service(40 + mixed(i, 31) % 60),
        operation: format!("GET /admin/{}", mixed(i, 32) % 50),
        bytes: 5_000_000,
        ..record
    }
}

fn from_mesh(calls: &[Call]) -> Vec<Record> {
    let of = |call: &Call| Record {
        time: call.time,
        source: call.source.clone(),
        ip: call.address,
        destination: call.destination.clone(),
        called_ip: "",
        called_pod: String::new(),
        operation: call.operation.clone(),
        bytes: call.bytes,
        outcome: call.outcome,
    };
    calls.iter().map(of).collect()
}

/// Two and a half calm days of the mesh and of the two.
pub(crate) fn days() -> Vec<Record> {
    let mut records = Vec::new();
    for (i, call) in (0..).zip(from_mesh(&calls()[..52_000])) {
        let time = call.time;
        records.push(call);
        if mixed(i, 7) % 10 < 8 {
            records.push(cart(i, time + Span(1)));
        }
        if mixed(i, 8).is_multiple_of(8) {
            records.push(report(i, time + Span(2)));
        }
        if i % 30 == 0 {
            records.push(heard(i / 30, time + Span(3)));
        }
    }
    records
}

pub(crate) fn batch(records: &[Record], first: usize) -> EventBatch {
    let mut builder = EventBuilder::new();
    for (i, record) in records.iter().enumerate() {
        let party = |principal| Party { principal, provenance: Provenance::Certificate, ..Party::default() };
        builder.push(&EventDraft {
            start: record.time,
            report: record.time,
            source: Party { ip: record.ip, ..party(&record.source) },
            destination: Party { ip: record.called_ip, instance: &record.called_pod, ..party(&record.destination) },
            operation: &record.operation,
            bytes_in: Some(record.bytes),
            outcome: record.outcome,
            position: Position { offset: (first + i) as i64, ..Position::default() },
            ..EventDraft::default()
        });
    }
    builder.finish()
}
