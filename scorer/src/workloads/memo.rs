//! What is known of an event without being looked up again: nearly all events show nothing that was not shown before.
//!
//! A sight that is held stands for one that would change nothing: whatever could make it change something else makes the
//! memo forget all. So what a batch holds, and where it ends, makes no difference.

use qualm_model::event::{Event, Reporter};

use super::hour;

const ABSENT: u32 = u32::MAX;

/// What of an event is looked at, as keys of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    kind: Kind,
    ip: u32,
    instance: u32,
    version: u32,
    principal: u32,
    cluster: u32,
    provenance: u8,
    reporter: u8,
    hour: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Caller,
    OwnSource,
    OwnDestination,
}

/// The latest sight of each kind by the address, and the instance, that it is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo {
    callers: Vec<Option<Sight>>,
    sources: Vec<Option<Sight>>,
    destinations: Vec<Option<Sight>>,
}

impl Sight {
    /// Of who calls.
    #[inline]
    pub(super) fn of_caller(event: Event<'_>) -> Self {
        Self::of(event, Kind::Caller)
    }

    /// Of the reporter's own end, where it names its pod.
    #[inline]
    pub(super) fn of_own_end(event: Event<'_>) -> Option<Self> {
        let (batch, row) = (event.batch, event.row);
        match event.reporter() {
            Reporter::Source | Reporter::Ztunnel if batch.source.instance.key(row).is_some() => {
                Some(Self::of(event, Kind::OwnSource))
            }
            Reporter::Destination if batch.destination.instance.key(row).is_some() => {
                Some(Self::of(event, Kind::OwnDestination))
            }
            _ => None,
        }
    }

    #[inline]
    fn of(event: Event<'_>, kind: Kind) -> Self {
        let (batch, row) = (event.batch, event.row);
        let (columns, party) = match kind {
            Kind::OwnDestination => (&batch.destination, event.destination()),
            Kind::Caller | Kind::OwnSource => (&batch.source, event.source()),
        };
        let key = |key: Option<usize>| key.map_or(ABSENT, |key| key as u32);
        Self {
            kind,
            ip: key(columns.ip.key(row)),
            instance: key(columns.instance.key(row)),
            version: key(columns.version.key(row)),
            principal: key(columns.principal.key(row)),
            cluster: key(columns.cluster.key(row)),
            provenance: party.provenance() as u8,
            reporter: event.reporter() as u8,
            hour: hour(event.report()),
        }
    }

    pub(super) fn is_source(&self) -> bool {
        self.kind == Kind::OwnSource
    }

    /// Where it is kept: by its instance where it has one.
    #[inline]
    fn slot(&self) -> Option<usize> {
        let key = if self.kind == Kind::Caller { self.ip } else { self.instance };
        (key != ABSENT).then_some(key as usize)
    }
}

impl Memo {
    /// Keys mean something else in the batch that comes.
    pub(super) fn open(&mut self) {
        self.forget();
    }

    /// Something has changed.
    pub(super) fn forget(&mut self) {
        self.callers.clear();
        self.sources.clear();
        self.destinations.clear();
    }

    #[inline]
    fn of(&self, kind: Kind) -> &Vec<Option<Sight>> {
        match kind {
            Kind::Caller => &self.callers,
            Kind::OwnSource => &self.sources,
            Kind::OwnDestination => &self.destinations,
        }
    }

    /// Whether it is known that this changes nothing.
    #[inline]
    pub(super) fn holds(&self, sight: &Sight) -> bool {
        let Some(slot) = sight.slot() else { return false };
        self.of(sight.kind).get(slot).is_some_and(|known| known.as_ref() == Some(sight))
    }

    /// Notes that the same again changes nothing.
    pub(super) fn note(&mut self, sight: Sight) {
        let Some(slot) = sight.slot() else { return };
        let places = match sight.kind {
            Kind::Caller => &mut self.callers,
            Kind::OwnSource => &mut self.sources,
            Kind::OwnDestination => &mut self.destinations,
        };
        if places.len() <= slot {
            places.resize(slot + 1, None);
        }
        places[slot] = Some(sight);
    }
}
