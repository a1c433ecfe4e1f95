//! A small client of the trust stream, for enforcement points written in Rust: it keeps the table, acknowledges each
//! version, and comes back when the connection is lost. What it holds stays in force until its leases end.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use qualm_proto::trust::v1::{
    Acknowledgement, ConfidenceLevel, SubscribeRequest, Subscription, TrustUpdate, subscribe_request::Message,
    trust_stream_client::TrustStreamClient,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// The first and the longest pause before a lost connection is tried again; each is twice the one before.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A full table may be large.
const LARGEST_UPDATE: usize = 256 << 20;
/// Longer than any lease: keeps the arithmetic of instants within bounds.
const LONGEST_LEASE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The records that an enforcement point holds.
#[derive(Debug, Clone, Default)]
pub struct HeldTable {
    version: u64,
    records: BTreeMap<String, HeldRecord>,
}

#[derive(Debug, Clone)]
struct HeldRecord {
    level: ConfidenceLevel,
    ends: Instant,
}

impl HeldTable {
    /// The version that is in force.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The records whose leases run at `now`.
    pub fn standing(&self, now: Instant) -> impl Iterator<Item = &ConfidenceLevel> {
        self.records.values().filter(move |record| record.ends > now).map(|record| &record.level)
    }

    /// The highest record about this principal calling anything from this address; `None`: trusted.
    pub fn of(&self, principal: &str, address: &str, now: Instant) -> Option<&ConfidenceLevel> {
        self.standing(now)
            .filter(|record| record.principal == principal)
            .filter(|record| record.instance.is_empty() || record.instance == address)
            .filter(|record| record.object.as_ref().is_none_or(|object| object.destination.is_empty()))
            .max_by_key(|record| record.level)
    }

    /// This table after `update`. Leases are counted from `now` by what the update says remains of them.
    fn after(&self, update: TrustUpdate, now: Instant) -> Self {
        let mut records = if update.full { BTreeMap::new() } else { self.records.clone() };
        for key in &update.removals {
            records.remove(key);
        }
        for level in update.upserts {
            let rest = level.remaining.and_then(|rest| Duration::try_from(rest).ok()).unwrap_or_default();
            records.insert(level.key.clone(), HeldRecord { level, ends: now + rest.min(LONGEST_LEASE) });
        }
        Self { version: update.version, records }
    }
}

/// A subscription to the trust stream.
#[derive(Debug, Clone)]
pub struct TrustClient {
    channel: Channel,
    subscription: Subscription,
    held: HeldTable,
}

impl TrustClient {
    /// Subscribes over `channel`, which brings the client's own mTLS. Nothing happens before [`Self::follow`].
    pub fn new(channel: Channel, subscription: Subscription) -> Self {
        Self { channel, subscription, held: HeldTable::default() }
    }

    /// Follows the stream until dropped. `apply` puts a new state in force: `Ok` acknowledges it, an error rejects it
    /// with that reason, and the state before stands.
    pub async fn follow(mut self, mut apply: impl FnMut(&HeldTable) -> Result<(), String>) -> Infallible {
        let mut pause = BACK_OFF.0;
        loop {
            let before = self.held.version;
            let ended = self.stream(&mut apply).await;
            if self.held.version != before {
                pause = BACK_OFF.0;
            }
            tracing::warn!(?ended, ?pause, "trust stream lost; what is held stands until its leases end");
            sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    async fn stream(&mut self, apply: &mut impl FnMut(&HeldTable) -> Result<(), String>) -> Result<(), Status> {
        let mut client = TrustStreamClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_UPDATE);
        let (say, requests) = mpsc::channel(8);
        let gone = |_| Status::unavailable("the stream has ended");
        let subscribe = Message::Subscription(self.subscription.clone());
        say.send(SubscribeRequest { message: Some(subscribe) }).await.map_err(gone)?;
        let mut updates: Streaming<TrustUpdate> = client.subscribe(ReceiverStream::new(requests)).await?.into_inner();
        while let Some(update) = updates.message().await? {
            let next = self.held.after(update, Instant::now());
            let version = next.version;
            let rejection = apply(&next).err();
            if rejection.is_none() {
                self.held = next;
            }
            let answer = Message::Acknowledgement(Acknowledgement { version, rejection });
            say.send(SubscribeRequest { message: Some(answer) }).await.map_err(gone)?;
        }
        Ok(())
    }
}
