//! One credential in use: when it may be used, whether it was taken back, and where it was.

use qualm_model::{
    detector::Question,
    event::{Event, Filter},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    Broken, Ground, SKEW, Shown,
    custom::Counted,
    issuer::{Invariant, Issuer, Revocation},
    kept::Kept,
    sharing::Place,
};

/// Credentials remembered.
const CREDENTIALS: usize = 1 << 15;
/// A connection lives as long as calls on it are no further apart: what it was opened with may have ended since. Envoy
/// closes one that is idle for an hour.
const IDLE: Span = Span::HOUR;
/// Calls that were under way when a credential was taken back.
const UNDER_WAY: Span = Span::SECOND;

/// All of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Usage(Kept<Used, CREDENTIALS>);

/// One credential.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Used {
    /// Where it was, the first place first.
    pub(super) places: Vec<Place>,
    /// A bit for every invariant that it was found to break.
    counted: u8,
    /// Its life was prolonged: when it ends is not known.
    is_renewed: bool,
    is_known: bool,
}

impl Usage {
    /// What is known of a credential that is shown, and whether that is for the first time.
    pub(super) fn of(&mut self, shown: &Shown, event: Event<'_>, issuer: &mut Issuer) -> (&mut Used, bool) {
        let used = self.0.at(shown.key, event.report());
        let is_first = !std::mem::replace(&mut used.is_known, true);
        // The token that is renewed, not the certificate of the connection over which that is asked.
        used.is_renewed |= !shown.is_certificate && event.operation().contains("auth/token/renew");
        if is_first {
            issuer.custom(Invariant::Revoked).hold();
            if let Some(end) = shown.not_after {
                issuer.custom(Invariant::Expired).hold();
                if let Some(begin) = shown.not_before.filter(|begin| *begin < end) {
                    issuer.note_life(end - begin);
                }
            }
            if shown.not_before.is_some() {
                issuer.custom(Invariant::Premature).hold();
            }
        }
        (used, is_first)
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.0.values().map(|used| used.places.capacity() * size_of::<Place>()).sum();
        self.0.bytes() + places
    }
}

impl Used {
    /// What it means that it breaks an invariant; `observed` says by how much.
    pub(super) fn breaks(
        &mut self,
        issuer: &mut Issuer,
        invariant: Invariant,
        question: Question,
        observed: f64,
    ) -> Broken {
        let counted = self.count(invariant);
        issuer.custom(invariant).answer(question, counted, observed)
    }

    /// Notes that it breaks an invariant.
    pub(super) fn count(&mut self, invariant: Invariant) -> Counted {
        let bit = 1 << invariant as u8;
        let before = self.counted & bit != 0;
        self.counted |= bit;
        if before { Counted::Before } else { Counted::Now }
    }

    /// Whether it is used although it was taken back, by an input that may lead as far as this event.
    pub(super) fn after_revocation(
        &mut self,
        shown: &Shown,
        revoked: Option<Revocation>,
        issuer: &mut Issuer,
        ground: &Ground,
    ) -> Option<Broken> {
        let revoked = revoked.filter(|revoked| revoked.by_input >= ground.most)?;
        let since = shown.at - revoked.at;
        (since > UNDER_WAY)
            .then(|| self.breaks(issuer, Invariant::Revoked, Question::AfterRevocation, in_seconds(since)))
    }

    /// Whether it is used although it has ended. A connection may outlive the certificate that it was opened with; what
    /// was used at the same place a moment ago goes on.
    pub(super) fn after_expiry(
        &mut self,
        shown: &Shown,
        event: Event<'_>,
        issuer: &mut Issuer,
        ground: &Ground,
    ) -> Option<Broken> {
        let over = shown.at - shown.not_after?;
        if over <= SKEW || self.is_renewed {
            return None;
        }
        if shown.is_certificate && !self.must_be_a_new_connection(shown, event, ground) {
            return None;
        }
        Some(self.breaks(issuer, Invariant::Expired, Question::AfterExpiry, in_seconds(over)))
    }

    fn must_be_a_new_connection(&self, shown: &Shown, event: Event<'_>, ground: &Ground) -> bool {
        let began = shown.at - IDLE;
        let is_covered =
            ground.birth <= began && ground.lost.is_none_or(|lost| lost < began) && ground.filter == Filter::None;
        let here = self.places.iter().find(|place| place.is_at(event.source().ip()));
        is_covered && here.is_none_or(|here| here.last < began)
    }

    /// Whether it is used although its validity, or its issue, is still to come.
    pub(super) fn before_issuance(
        &mut self,
        shown: &Shown,
        event: Event<'_>,
        issued: Option<Timestamp>,
        issuer: &mut Issuer,
    ) -> Option<Broken> {
        // What was given out in this very record is told of when it is complete.
        let issued = issued.filter(|_| event.issued().is_empty());
        let begin = shown.not_before.max(issued.filter(|issued| *issued > event.report()))?;
        let early = begin - shown.at;
        (early > SKEW).then(|| self.breaks(issuer, Invariant::Premature, Question::BeforeIssuance, in_seconds(early)))
    }
}

fn in_seconds(span: Span) -> f64 {
    span.0 as f64 / Span::SECOND.0 as f64
}
