//! One subscriber's stream: what it subscribed to, what it was sent, what it has acknowledged.

use std::collections::{BTreeMap, HashSet, VecDeque};

use qualm_model::{identity::Hierarchy, time::Clock};
use qualm_proto::trust::v1::{SubscribeRequest, Subscription, TrustUpdate, subscribe_request::Message};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};

use super::record::{Coverage, key, record};
use crate::{
    enforce::nodes::Membership,
    table::{Object, SharedTable, Subject, TrustEntry},
};

/// Unacknowledged versions that are remembered.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct Session {
    member: Membership,
    trust_domains: HashSet<String>,
    namespaces: HashSet<String>,
    coverage: watch::Receiver<Coverage>,
    clock: Clock,
    /// The version sent last, whatever became of it.
    version: Option<u64>,
    /// What the subscriber holds; `None` when it is to be sent everything.
    held: Option<SharedTable>,
    in_flight: VecDeque<(u64, Instant)>,
}

impl Session {
    pub(super) fn new(
        member: Membership,
        subscription: Subscription,
        coverage: watch::Receiver<Coverage>,
        clock: Clock,
    ) -> Self {
        Self {
            member,
            trust_domains: subscription.trust_domains.into_iter().collect(),
            namespaces: subscription.namespaces.into_iter().collect(),
            coverage,
            clock,
            version: None,
            held: None,
            in_flight: VecDeque::new(),
        }
    }

    /// Serves the stream until it ends. There is room for one message between this task and the connection: while
    /// the subscriber does not read, nothing is queued, and the difference to the newest table goes out when it does.
    pub(super) async fn run(
        mut self,
        mut requests: Streaming<SubscribeRequest>,
        mut tables: watch::Receiver<Option<SharedTable>>,
        updates: mpsc::Sender<Result<TrustUpdate, Status>>,
    ) {
        loop {
            let due = tables.borrow_and_update().clone().filter(|table| self.version != Some(table.version));
            let received = tokio::select! {
                permit = updates.reserve(), if due.is_some() => {
                    let (Ok(permit), Some(table)) = (permit, due) else { return };
                    permit.send(Ok(self.update(table)));
                    continue;
                }
                changed = tables.changed() => {
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
                Err(status) => Err(status),
            };
            if let Err(refused) = received {
                updates.send(Err(refused)).await.ok();
                return;
            }
        }
    }

    fn receive(&mut self, request: SubscribeRequest) -> Result<(), Status> {
        let Some(Message::Acknowledgement(answer)) = request.message else {
            return Err(Status::invalid_argument("after the subscription, only acknowledgements are expected"));
        };
        let Some(at) = self.in_flight.iter().position(|(version, _)| *version == answer.version) else {
            return Ok(());
        };
        let Some((version, sent)) = self.in_flight.drain(..=at).next_back() else { return Ok(()) };
        match answer.rejection {
            None => self.member.acknowledged(version, sent.elapsed()),
            Some(why) => {
                tracing::warn!(node = self.member.node(), version, why, "a subscriber refused");
                self.member.rejected(version, &why);
                // It holds what it held before, and only it knows what that is.
                self.held = None;
            }
        }
        Ok(())
    }

    fn update(&mut self, table: SharedTable) -> TrustUpdate {
        let now = self.clock.now();
        let coverage = *self.coverage.borrow();
        let mut before: BTreeMap<(&Subject, &Object), &TrustEntry> = self
            .held
            .iter()
            .flat_map(|held| self.wanted(held))
            .map(|entry| ((&entry.subject, &entry.object), entry))
            .collect();
        let mut upserts = Vec::new();
        for entry in self.wanted(&table) {
            if before.remove(&(&entry.subject, &entry.object)) != Some(entry) {
                upserts.push(record(entry, &table.model_version, coverage, now));
            }
        }
        let removals = before.into_keys().map(|(subject, object)| key(subject, object)).collect();
        let update = TrustUpdate { version: table.version, full: self.held.is_none(), upserts, removals };
        if self.in_flight.len() == IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((table.version, Instant::now()));
        self.version = Some(table.version);
        self.held = Some(table);
        update
    }

    fn wanted<'a>(&self, table: &'a SharedTable) -> impl Iterator<Item = &'a TrustEntry> + use<'a, '_> {
        table.entries.iter().filter(|entry| {
            let place = Hierarchy::of(&entry.subject.principal);
            let is_wanted =
                passes(&self.trust_domains, place.trust_domain) && passes(&self.namespaces, place.namespace);
            is_wanted && entry.is_tellable()
        })
    }
}

fn passes(wanted: &HashSet<String>, name: Option<&str>) -> bool {
    wanted.is_empty() || name.is_some_and(|name| wanted.contains(name))
}
