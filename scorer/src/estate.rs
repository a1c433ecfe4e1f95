//! What is known of the estate beyond single events: which records and calls were seen already, whose address is
//! whose, and under which name a destination goes.

mod addresses;
mod clocks;
mod credentials;
mod left_out;
mod reports;
mod stood_in;
mod streams;
mod tenancies;
mod witnesses;

use std::{borrow::Cow, sync::Arc};

use qualm_model::{
    detector::Deviation,
    event::{Activity, Event, Filter, Position, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use self::{
    addresses::Addresses,
    left_out::Inputs,
    reports::{APART, Alone, Counted, Left, Meeting, Reports},
    stood_in::StoodIn,
    streams::Streams,
    witnesses::Witnesses,
};
pub use self::{
    clocks::{Clocks, WrongClock},
    left_out::LeftOut,
    tenancies::PodAddresses,
};
pub(crate) use self::{
    credentials::{Broken, Credentials, Ground, Unissued, Weight},
    streams::{Part, Share},
    tenancies::{Sitting, Tenancies},
};

/// Everything of it; saved with every snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Estate {
    reports: Reports,
    streams: Streams,
    addresses: Addresses,
    callers: Witnesses,
    called: Witnesses,
    inputs: Inputs,
    #[serde(skip)]
    clocks: Clocks,
    /// Calls of which only one end has told in time, not looked at yet.
    #[serde(skip)]
    alone: Vec<Alone>,
    /// When records were last known to be missing.
    lost: Option<Timestamp>,
    /// The last of what is saved under the estate's key: a release before had none.
    credentials: Credentials,
    /// Saved under a key of its own, which releases before did not have.
    #[serde(skip)]
    stood_in: StoodIn,
    /// How late reports may be: configured.
    #[serde(skip, default = "lateness")]
    patience: Span,
}

/// How far behind the watermark events of a source may be where nobody has said otherwise: shippers flush every few
/// seconds, and make up for minutes after a restart.
pub(crate) const LATENESS: Span = Span(5 * Span::MINUTE.0);

const fn lateness() -> Span {
    LATENESS
}

impl Default for Estate {
    fn default() -> Self {
        Self {
            reports: Reports::default(),
            streams: Streams::default(),
            addresses: Addresses::default(),
            callers: Witnesses::default(),
            called: Witnesses::default(),
            inputs: Inputs::default(),
            clocks: Clocks::default(),
            alone: Vec::new(),
            lost: None,
            credentials: Credentials::default(),
            stood_in: StoodIn::default(),
            patience: LATENESS,
        }
    }
}

/// After a loss nobody's silence means anything for so long.
const BLIND: Span = Span(10 * Span::MINUTE.0);

/// Who is at the ends of a call, where that is somebody else than the record names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) source: Option<Arc<str>>,
    pub(crate) destination: Option<Arc<str>>,
}

/// What a record is to the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The first of its call.
    First,
    /// The one that counts, after one that did not.
    Confirmed,
    /// The same record again, or the other end's report of a call that was counted.
    Again,
}

impl Estate {
    /// Whether the record was read before, by what identifies it. Records without an id are never taken for repeated.
    #[inline]
    pub(crate) fn is_repeated(&mut self, event: Event<'_>) -> bool {
        self.reports.is_repeated(event)
    }

    /// Notes a report that is to count: whether the other end's of the same call has counted already.
    #[inline]
    pub(crate) fn count(&mut self, event: Event<'_>) -> Report {
        match self.join(event, Counted::Yes) {
            Meeting::First => Report::First,
            Meeting::Counted => Report::Again,
            Meeting::Joined(joined) if joined.counted => Report::Again,
            Meeting::Joined(_) => Report::Confirmed,
        }
    }

    /// How late the reports of a call may come after the other end's, which is as late as any source may be.
    pub(crate) fn wait_for(&mut self, latenesses: &[Span]) {
        self.patience = latenesses.iter().copied().max().unwrap_or(LATENESS).max(APART);
    }

    /// Notes a report that only confirms the other end's. Whether that has come already.
    #[inline]
    pub(crate) fn confirm(&mut self, event: Event<'_>) -> bool {
        self.join(event, Counted::No) != Meeting::First
    }

    /// What the record is to the ones of its stream before it.
    #[inline]
    pub(crate) fn part(&mut self, event: Event<'_>) -> Part {
        if event.activity() == Activity::Whole { Part::First(Share::whole(event)) } else { self.streams.part(event) }
    }

    /// Takes note that a stream's first record does not count, since the other end's do.
    pub(crate) fn yield_to_other(&mut self, event: Event<'_>) {
        self.streams.yield_to_other(event);
    }

    /// Of a long call that has ended, whether the other end's records of it have counted while it went on; `None` where
    /// that told nothing.
    #[inline]
    pub(crate) fn other_side(&self, event: Event<'_>) -> Option<bool> {
        self.streams.other_side(event)
    }

    #[inline]
    fn join(&mut self, event: Event<'_>, counted: Counted) -> Meeting {
        let mut left = Left { alone: &mut self.alone, stood_in: &mut self.stood_in };
        let joined = match self.reports.join(event, counted, self.patience, &mut left) {
            Meeting::Joined(joined) => joined,
            other => return other,
        };
        let ([source, destination], [from, to]) = (&joined.seen, &joined.places);
        self.callers.agree(source, from, event.report());
        self.called.agree(destination, to, event.report());
        self.inputs.agree(event.position(), event.report());
        if !event.activity().goes_on() {
            self.clocks.compare(from, to, joined.later);
        }
        if let Some((alias, name)) = &joined.alias {
            self.addresses.alias(alias, name, event.report());
        }
        Meeting::Joined(joined)
    }

    /// The calls of which only one end has told, where that means something: who made them, where from, to whom.
    pub(crate) fn disagreements(&mut self, now: Timestamp) -> Vec<(Alone, Deviation)> {
        let alone = std::mem::take(&mut self.alone);
        let is_blind = self.is_blind(now);
        let look = |call: Alone| {
            let [from, to] = &call.places;
            let tells = match call.by {
                Reporter::Destination => self.callers.tells(&call.source, from, now),
                _ => self.called.tells(&call.destination, to, now),
            };
            if tells && !is_blind {
                self.inputs.miss(call.position, now);
            }
            let missing = match call.by {
                Reporter::Destination => self.callers.miss(&call.source, from, now),
                _ => self.called.miss(&call.destination, to, now),
            };
            Some((call, missing.filter(|_| !is_blind)?))
        };
        alone.into_iter().filter_map(look).collect()
    }

    /// Whether there are calls to look at.
    #[inline]
    pub(crate) fn has_alone(&self) -> bool {
        !self.alone.is_empty()
    }

    /// Takes note that records are missing from what was read up to `now`.
    pub(crate) fn lose(&mut self, now: Option<Timestamp>) {
        self.lost = self.lost.max(now);
    }

    /// Whether so much is missing from the ten minutes that end at `end` that silence means nothing.
    pub(crate) fn is_blind(&self, end: Timestamp) -> bool {
        self.lost.is_some_and(|last| end - last <= BLIND)
    }

    /// Looks at what the input of a record leaves out.
    #[inline]
    pub(crate) fn note_input(&mut self, event: Event<'_>) {
        self.inputs.note(event);
    }

    /// What the input of a record seems to leave out.
    #[inline]
    pub(crate) fn filter(&self, position: Position) -> Filter {
        self.inputs.filter(position)
    }

    /// All inputs that seem to leave something out.
    pub(crate) fn left_out(&self) -> Vec<LeftOut> {
        self.inputs.found()
    }

    /// Reporters whose clocks are wrong, the worst first.
    pub(crate) fn wrong_clocks(&self) -> Vec<WrongClock> {
        self.clocks.wrong()
    }

    /// Gives the sources the numbers that they have now; those without one are let go.
    pub(crate) fn renumber(&mut self, number: impl Fn(u16) -> Option<u16>) {
        self.inputs.renumber(number);
    }

    /// As a release before credentials had it.
    #[cfg(test)]
    pub(crate) fn without_credentials(self) -> Self {
        Self { credentials: Credentials::default(), ..self }
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.inputs.bytes()
            + self.clocks.bytes()
            + self.reports.bytes()
            + self.streams.bytes()
            + self.addresses.bytes()
            + self.callers.bytes()
            + self.called.bytes()
            + self.credentials.bytes()
            + self.stood_in.bytes()
    }

    /// What is saved under a key of its own.
    pub(crate) fn stood_in(&self) -> &impl Serialize {
        &self.stood_in
    }

    /// Works out anew what is not saved.
    pub(crate) fn restore_waiting(&mut self) {
        self.reports.restore_waiting();
    }

    /// Takes back what was saved under a key of its own.
    pub(crate) fn restore_stood_in(&mut self, saved: &[u8]) -> Result<(), postcard::Error> {
        self.stood_in = postcard::from_bytes(saved)?;
        Ok(())
    }

    /// Whether the credential that a record shows adds up, and what it tells of others; `ground` as far as the scorer
    /// knows it.
    #[inline]
    pub(crate) fn look_at_credential(&mut self, event: Event<'_>, caller: &str, ground: &Ground) -> Option<Broken> {
        let source = event.source();
        let is_certificate = source.provenance() == Provenance::Certificate;
        let owner = if is_certificate || event.credential().is_empty() {
            None
        } else {
            self.addresses.owner(&source, event.report()).cloned()
        };
        let identity = match source.cluster() {
            "" => Cow::Borrowed(caller),
            cluster => Cow::Owned(format!("{caller}@{cluster}")),
        };
        let ground = Ground { lost: self.lost, owner, ..ground.clone() };
        self.credentials.look(event, &identity, (&ground, &self.addresses))
    }

    /// Uses of credentials of which their issuers have not told although their logs have passed them.
    pub(crate) fn unissued(&mut self) -> Vec<Unissued> {
        self.credentials.unissued()
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn has_unissued(&self) -> bool {
        self.credentials.has_unissued()
    }

    /// Learns whose addresses the record shows.
    #[inline]
    pub(crate) fn learn(&mut self, event: Event<'_>) {
        self.addresses.learn(event);
    }

    /// The address that the latest record has given a name, of which nothing was known before.
    #[inline]
    pub(crate) fn take_named(&mut self) -> Option<Box<str>> {
        self.addresses.take_named()
    }

    /// Who calls and who is called, as far as the stream itself, or `tenancies`, have taught more than the record says.
    #[inline]
    pub(crate) fn resolve(&mut self, event: Event<'_>, tenancies: &mut Tenancies) -> Resolved {
        let mut resolve = |party| {
            let learned = self.addresses.resolve(&party, event.report()).cloned();
            tenancies.resolve(&party, event.start(), learned)
        };
        Resolved { source: resolve(event.source()), destination: resolve(event.destination()) }
    }
}
