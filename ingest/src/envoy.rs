//! Envoy's own telemetry streams as a source: access logs over gRPC (ALS), and OTLP logs.
//!
//! # Layout
//! - [`als`], [`otlp`]: the two services
//! - [`entry`]: an ALS entry in the words of all access logs
//! - `lanes`: a lane for each peer, so that none is late or early because of another
//!
//! Neither protocol keeps what it has sent: what was received and is in no snapshot when Qualm dies is lost, and
//! the gap is reported. Between the services and the loop stands a queue that is bounded in bytes; while it is full,
//! nothing is read from any stream, and the senders feel it.

use std::{fmt, sync::Arc};

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogServiceServer;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsServiceServer;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use qualm_model::{
    event::{EventBuilder, Position, Positions},
    identity::{Peer, SpiffeId},
    time::{Clock, Span, Timestamp},
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use self::{als::AccessLogs, lanes::Lanes, otlp::OtlpLogs};
use crate::{
    parse::{Row, access::AccessEntry},
    source::{Batch, Incoming, Invalid, Rejected, Rejection, Source, SourceError},
};

pub mod als;
pub mod entry;
mod lanes;
pub mod otlp;

/// Messages that may wait; their bytes are what really bounds the queue.
const WAITING_MESSAGES: usize = 1_024;
/// Rows at which a batch is handed on.
const BATCH_ROWS: usize = 4_096;

/// Bounds on what telemetry streams may take of this process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryLimits {
    /// Bytes, as they came, of messages that wait for the loop.
    pub queue_bytes: u32,
    /// Bytes of one message; the first of an ALS stream carries some 70 KB about the proxy.
    pub message_bytes: usize,
    /// Bytes of one entry.
    pub entry_bytes: usize,
    /// ALS streams and OTLP calls at once.
    pub streams: usize,
    /// Entries that were older than this on arrival are invalid.
    #[serde(skip)]
    pub max_age: Option<Span>,
}

impl Default for TelemetryLimits {
    fn default() -> Self {
        Self { queue_bytes: 16 << 20, message_bytes: 4 << 20, entry_bytes: 64 << 10, streams: 16_384, max_age: None }
    }
}

/// Who may report calls of which it is no end itself: node agents and collectors, by explicit grant.
#[derive(Clone)]
pub struct Grants(Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>);

impl Grants {
    /// Grants decided by `granted`.
    pub fn new(granted: impl Fn(&SpiffeId) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(granted))
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grants")
    }
}

/// What is counted of telemetry streams.
#[derive(Debug, Clone)]
pub struct TelemetryMetrics {
    entries: IntCounterVec,
    rejected: IntCounterVec,
    refused: IntCounterVec,
    streams: IntGauge,
}

impl TelemetryMetrics {
    /// Creates and registers them.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let streams = IntGauge::new("qualm_telemetry_streams", "Open telemetry streams and calls.")?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self {
            entries: counter("qualm_telemetry_entries_total", "Log entries received over gRPC.", "protocol")?,
            rejected: counter("qualm_telemetry_rejected_total", "Log entries that became no event.", "reason")?,
            refused: counter("qualm_telemetry_refused_total", "Telemetry streams refused.", "reason")?,
            streams,
        })
    }
}

/// The way from the services to the source.
#[derive(Debug, Clone)]
struct Queue {
    parcels: mpsc::Sender<Parcel>,
    /// Permits are bytes.
    room: Arc<Semaphore>,
    limits: TelemetryLimits,
    places: Arc<Semaphore>,
    grants: Grants,
    metrics: TelemetryMetrics,
}

/// One message on its way, with the bytes that it takes up.
#[derive(Debug)]
struct Parcel {
    message: Message,
    origin: Arc<Origin>,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Message {
    Als(als::Entries),
    Otlp(Box<otlp::Request>),
}

/// Who sent it, and in what capacity.
#[derive(Debug)]
struct Origin {
    reporter: Capacity,
    node_id: String,
}

impl Origin {
    /// Who this is among all peers.
    fn peer(&self) -> (&str, &str) {
        match &self.reporter {
            Capacity::Party(id) => (id.as_str(), &self.node_id),
            Capacity::Collector => ("", &self.node_id),
        }
    }
}

/// Whose calls a peer may report.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Capacity {
    /// Its own.
    Party(SpiffeId),
    /// Anybody's: by explicit grant, or on a loopback port without TLS.
    Collector,
}

/// A place among the open streams.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    streams: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

impl Queue {
    fn capacity(&self, peer: Option<&Peer>) -> Result<Capacity, Status> {
        match peer {
            Some(Peer::Loopback) => Ok(Capacity::Collector),
            Some(Peer::Verified(id)) if (self.grants.0)(id) => Ok(Capacity::Collector),
            Some(Peer::Verified(id)) => Ok(Capacity::Party(id.clone())),
            None => {
                self.metrics.refused.with_label_values(&["unauthenticated"]).inc();
                Err(Status::unauthenticated("no verified peer; connect through Qualm's mTLS listener"))
            }
        }
    }

    fn place(&self) -> Result<Place, Status> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused.with_label_values(&["too_many"]).inc();
            return Err(Status::resource_exhausted(
                "too many telemetry streams; raise the limit in Qualm's configuration",
            ));
        };
        self.metrics.streams.inc();
        Ok(Place { _permit: permit, streams: self.metrics.streams.clone() })
    }

    /// Waits until there is room for `bytes`.
    async fn send(&self, message: Message, bytes: usize, origin: &Arc<Origin>) -> Result<(), Status> {
        let ended = || Status::unavailable("Qualm is stopping");
        // A message larger than the whole queue passes when it has it for itself.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limits.queue_bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| ended())?;
        let parcel = Parcel { message, origin: Arc::clone(origin), _room: room };
        self.parcels.send(parcel).await.map_err(|_| ended())
    }
}

/// The services and the source that they feed. `index` is the source's place in the configuration; `clock` is wall
/// time, against which entries from the future are refused.
pub fn telemetry(
    index: u16,
    limits: &TelemetryLimits,
    grants: Grants,
    clock: Clock,
    metrics: TelemetryMetrics,
) -> (AccessLogServiceServer<AccessLogs>, LogsServiceServer<OtlpLogs>, EnvoySource) {
    let (sender, parcels) = mpsc::channel(WAITING_MESSAGES);
    let queue = Queue {
        parcels: sender,
        room: Arc::new(Semaphore::new(limits.queue_bytes as usize)),
        places: Arc::new(Semaphore::new(limits.streams.min(Semaphore::MAX_PERMITS))),
        limits: limits.clone(),
        grants,
        metrics: metrics.clone(),
    };
    let als = AccessLogServiceServer::new(AccessLogs::new(queue.clone()));
    let otlp = LogsServiceServer::new(OtlpLogs::new(queue));
    let source = EnvoySource {
        parcels,
        index,
        received: 0,
        clock,
        builder: EventBuilder::new(),
        operation: String::new(),
        scratch: entry::Scratch::default(),
        entry_bytes: limits.entry_bytes,
        max_age: limits.max_age,
        lanes: Lanes::default(),
        metrics,
    };
    (als.max_decoding_message_size(limits.message_bytes), otlp.max_decoding_message_size(limits.message_bytes), source)
}

/// What the services received, as batches. A batch is what is there when the loop asks for one: nothing waits for
/// more to come, and under load batches grow by themselves.
#[derive(Debug)]
pub struct EnvoySource {
    parcels: mpsc::Receiver<Parcel>,
    index: u16,
    received: i64,
    clock: Clock,
    builder: EventBuilder,
    operation: String,
    scratch: entry::Scratch,
    entry_bytes: usize,
    max_age: Option<Span>,
    lanes: Lanes,
    metrics: TelemetryMetrics,
}

impl Source for EnvoySource {
    async fn next(&mut self) -> Result<Incoming, SourceError> {
        let Some(mut parcel) = self.parcels.recv().await else { return Ok(Incoming::End) };
        // No await below: what is taken from the queue is in the batch.
        let arrival = self.clock.now();
        let mut rejected = Vec::new();
        let mut positions = Positions::new();
        loop {
            let lane = self.lanes.of(parcel.origin.peer());
            self.read(parcel, lane, arrival, &mut rejected);
            positions.insert((self.index, lane), self.received);
            if self.builder.len() + rejected.len() >= BATCH_ROWS {
                break;
            }
            match self.parcels.try_recv() {
                Ok(next) => parcel = next,
                Err(_) => break,
            }
        }
        Ok(Incoming::Batch(Batch {
            events: self.builder.finish(),
            rejected,
            positions,
            lag: None,
            lost: Vec::new(),
            unvouched: Vec::new(),
            read: Vec::new(),
        }))
    }

    /// Neither protocol can be asked to send something again: there is nothing to commit.
    async fn commit(&mut self, _positions: &Positions) -> Result<(), SourceError> {
        Ok(())
    }
}

impl EnvoySource {
    fn read(&mut self, parcel: Parcel, lane: i32, arrival: Timestamp, rejected: &mut Vec<Rejected>) {
        let Parcel { message, origin, .. } = parcel;
        let mut sink = Sink {
            builder: &mut self.builder,
            operation: &mut self.operation,
            origin: &origin,
            index: self.index,
            lane,
            received: &mut self.received,
            arrival,
            max_age: self.max_age,
            entry_bytes: self.entry_bytes,
            rejected,
            metrics: &self.metrics,
        };
        match message {
            Message::Als(entries) => entries.read(&mut self.scratch, &mut sink),
            Message::Otlp(request) => otlp::read(&request, &mut sink),
        }
    }
}

/// Where the entries of one message go.
struct Sink<'s> {
    builder: &'s mut EventBuilder,
    operation: &'s mut String,
    origin: &'s Origin,
    index: u16,
    lane: i32,
    received: &'s mut i64,
    arrival: Timestamp,
    max_age: Option<Span>,
    entry_bytes: usize,
    rejected: &'s mut Vec<Rejected>,
    metrics: &'s TelemetryMetrics,
}

impl Sink<'_> {
    /// Takes one entry of `bytes`, as it could be understood.
    fn take(&mut self, protocol: &str, bytes: usize, entry: Result<AccessEntry<'_>, Rejection>) {
        self.metrics.entries.with_label_values(&[protocol]).inc();
        let position = Position { source: self.index, partition: self.lane, offset: *self.received };
        *self.received += 1;
        let pushed = match entry {
            _ if bytes > self.entry_bytes => Err(Invalid::TooLong.into()),
            Ok(entry) => self.push(entry, position),
            Err(why) => Err(why),
        };
        if let Err(why) = pushed {
            let reason = if let Rejection::Invalid(invalid) = why { invalid.as_str() } else { why.as_str() };
            self.metrics.rejected.with_label_values(&[reason]).inc();
            self.rejected.push(Rejected { position, why });
        }
    }

    fn push(&mut self, entry: AccessEntry<'_>, position: Position) -> Result<(), Rejection> {
        let own = match &self.origin.reporter {
            Capacity::Party(id) => Some(id.as_str()),
            Capacity::Collector => None,
        };
        // Where the entry does not say whose proxy wrote it, it is the one that sent it.
        let nameless = entry.downstream_local_uri_san.is_empty() && entry.upstream_local_uri_san.is_empty();
        let entry = AccessEntry {
            node_id: if entry.node_id.is_empty() { &self.origin.node_id } else { entry.node_id },
            downstream_local_uri_san: own.filter(|_| nameless).unwrap_or(entry.downstream_local_uri_san),
            ..entry
        };
        let draft = entry.draft(self.operation)?;
        let reporting = match draft.reporter {
            qualm_model::event::Reporter::Source => draft.source.principal,
            _ => draft.destination.principal,
        };
        if own.is_some_and(|own| own != reporting) {
            return Err(Invalid::NotItsOwn.into());
        }
        Row::new(self.builder, position, Some(self.arrival))
            .with_max_age(self.max_age)
            .stored_at(Some(self.arrival))
            .push(draft)
    }
}

#[cfg(test)]
mod tests;
