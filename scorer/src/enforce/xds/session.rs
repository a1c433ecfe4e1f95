//! One node's stream: what it subscribed to, what it was sent, what it has acknowledged.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    google::protobuf::Duration as ProtoDuration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};

use super::{
    ENFORCER,
    policy::{Bodies, RESOURCES},
    snapshot::{Snapshot, body, ttl},
};
use crate::enforce::{metrics::EnforcementMetrics, nodes::Membership};

/// The type of the resources: an extension's configuration under its name.
const TYPE_URL: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Names one request may subscribe to or leave.
const NAMES_PER_REQUEST: usize = 64;
/// Unacknowledged pushes that are remembered.
const IN_FLIGHT: usize = 64;

/// On what kind of stream the resources travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A stream for ECDS alone: another type is an error.
    Own,
    /// ADS: another type belongs to another server of the same proxy, and is left unanswered.
    Aggregated,
}

/// What a push carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Bodies,
    Heartbeat,
    /// Nothing but the names that do not exist here.
    Absences,
}

#[derive(Debug)]
struct Push {
    nonce: u64,
    snapshot: Arc<Snapshot>,
    content: Content,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Session {
    form: Form,
    member: Membership,
    metrics: EnforcementMetrics,
    subscribed: BTreeSet<&'static str>,
    /// Names asked for that do not exist here: answered once as removed, so that the proxy need not wait for them.
    unknown: Vec<String>,
    nonces: u64,
    in_flight: VecDeque<Push>,
    /// What was sent last; `None` when everything is to be sent again.
    sent: Option<Arc<Snapshot>>,
    /// What the node has in force.
    accepted: Option<Arc<Snapshot>>,
    /// The revision that it refused last.
    refused: Option<String>,
}

impl Session {
    pub(super) fn new(form: Form, member: Membership, metrics: EnforcementMetrics) -> Self {
        Self {
            form,
            member,
            metrics,
            subscribed: BTreeSet::new(),
            unknown: Vec::new(),
            nonces: 0,
            in_flight: VecDeque::new(),
            sent: None,
            accepted: None,
            refused: None,
        }
    }

    /// Serves the stream until it ends. There is room for one message between this task and the connection: while
    /// the node does not read, nothing is queued, and the newest snapshot goes out when it does.
    pub(super) async fn run(
        mut self,
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        if let Err(refused) = self.receive(first) {
            responses.send(Err(refused)).await.ok();
            return;
        }
        loop {
            let due = snapshots.borrow_and_update().clone().filter(|snapshot| self.is_due(snapshot));
            let received = tokio::select! {
                permit = responses.reserve(), if due.is_some() => {
                    let (Ok(permit), Some(snapshot)) = (permit, due) else { return };
                    if let Some(response) = self.push(snapshot) {
                        permit.send(Ok(response));
                    }
                    continue;
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                received = requests.message() => received,
            };
            let received = match received {
                Ok(Some(request)) => self.receive(request),
                Ok(None) => return,
                // The connection's end, or a message beyond the bound.
                Err(status) => Err(status),
            };
            if let Err(refused) = received {
                responses.send(Err(refused)).await.ok();
                return;
            }
        }
    }

    fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if request.type_url != TYPE_URL {
            self.metrics.foreign_requests.with_label_values(&[ENFORCER]).inc();
            return match self.form {
                Form::Own => Err(Status::invalid_argument(format!("only {TYPE_URL} is served on this stream"))),
                Form::Aggregated => {
                    tracing::debug!(node = self.member.node(), type_url = request.type_url, "not served over ADS");
                    Ok(())
                }
            };
        }
        if request.resource_names_subscribe.len().max(request.resource_names_unsubscribe.len()) > NAMES_PER_REQUEST {
            return Err(Status::invalid_argument(format!("more than {NAMES_PER_REQUEST} names in one request")));
        }
        if let Ok(nonce) = request.response_nonce.parse() {
            self.answered(nonce, request.error_detail.map(|status| status.message));
        }
        for name in request.resource_names_subscribe {
            self.subscribe(name);
        }
        self.subscribed.retain(|name| !request.resource_names_unsubscribe.iter().any(|left| left == name));
        Ok(())
    }

    fn subscribe(&mut self, name: String) {
        let known: Vec<&'static str> =
            RESOURCES.into_iter().filter(|resource| name == "*" || name == *resource).collect();
        if !known.is_empty() {
            self.subscribed.extend(known);
            // Also on a second subscription: it says that the node no longer holds the resource.
            self.sent = None;
        } else if self.unknown.len() < NAMES_PER_REQUEST {
            self.unknown.push(name);
        }
    }

    fn answered(&mut self, nonce: u64, error: Option<String>) {
        let Some(at) = self.in_flight.iter().position(|push| push.nonce == nonce) else { return };
        let Some(push) = self.in_flight.drain(..=at).next_back() else { return };
        match error {
            _ if push.content == Content::Absences => {}
            None => {
                self.member.acknowledged(push.snapshot.version, push.at.elapsed());
                self.accepted = Some(push.snapshot);
            }
            // The node has lost what the heartbeat was to refresh.
            Some(_) if push.content == Content::Heartbeat => self.sent = None,
            Some(why) => {
                tracing::warn!(node = self.member.node(), version = push.snapshot.version, why, "Envoy refused");
                self.member.rejected(push.snapshot.version, &why);
                self.refused = Some(push.snapshot.revision.clone());
            }
        }
    }

    fn is_due(&self, snapshot: &Snapshot) -> bool {
        if !self.unknown.is_empty() {
            return true;
        }
        if self.subscribed.is_empty() {
            return false;
        }
        let Some(sent) = &self.sent else { return true };
        (sent.version, &sent.revision, sent.beat) != (snapshot.version, &snapshot.revision, snapshot.beat)
    }

    /// The message for `snapshot`; `None` when there is nothing to say to this node.
    fn push(&mut self, snapshot: Arc<Snapshot>) -> Option<DeltaDiscoveryResponse> {
        let now = Instant::now();
        let repeats = self.sent.as_ref().is_some_and(|sent| sent.revision == snapshot.revision);
        // A node that has refused this revision keeps the one it has, as long as that one's leases last.
        let stands = (self.refused.as_ref() == Some(&snapshot.revision) && repeats)
            .then(|| self.accepted.clone().filter(|old| old.ends.is_some_and(|ends| ends > now)));
        let content = if repeats && snapshot.ends.is_some() { Content::Heartbeat } else { Content::Bodies };
        let (meant, content) = match stands {
            // It holds nothing that could be kept up; who asked for another name still waits for an answer.
            Some(None) if self.unknown.is_empty() => {
                self.sent = Some(snapshot);
                return None;
            }
            Some(None) => (Arc::clone(&snapshot), Content::Absences),
            Some(Some(old)) => (old, content),
            None => (Arc::clone(&snapshot), content),
        };
        self.sent = Some(Arc::clone(&snapshot));
        let named = self.subscribed.iter().filter(|_| content != Content::Absences);
        let bodies = (content == Content::Bodies).then(|| meant.bodies(self.member.identity()));
        let resources = named.map(|name| resource(name, &meant, bodies.as_deref(), now)).collect();
        self.nonces += 1;
        if self.in_flight.len() == IN_FLIGHT {
            self.in_flight.pop_front();
        }
        let response = DeltaDiscoveryResponse {
            system_version_info: snapshot.version.to_string(),
            resources,
            type_url: TYPE_URL.to_owned(),
            removed_resources: std::mem::take(&mut self.unknown),
            nonce: self.nonces.to_string(),
            ..DeltaDiscoveryResponse::default()
        };
        self.in_flight.push_back(Push { nonce: self.nonces, snapshot: meant, content, at: now });
        Some(response)
    }
}

fn resource(name: &str, snapshot: &Snapshot, bodies: Option<&Bodies>, now: Instant) -> Resource {
    let ttl = snapshot.ends.map(|ends| {
        let rest = ttl(ends, now);
        ProtoDuration {
            seconds: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(rest.subsec_nanos()).unwrap_or(0),
        }
    });
    Resource {
        name: name.to_owned(),
        version: snapshot.revision.clone(),
        resource: bodies.and_then(|bodies| body(bodies, name)).cloned(),
        ttl,
        ..Resource::default()
    }
}
