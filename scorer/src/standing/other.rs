//! How much of an identity's evidence is of another kind than more of the same: only that cuts anybody off.

use qualm_model::detector::Question;
use serde::{Deserialize, Serialize};

use super::Evidence;

/// A minute that has ended: the bits of its best event, and the slow clock before and with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) best: f64,
    pub(super) before: f64,
    pub(super) after: f64,
}

/// What kind of oddness an event shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Anything else: a new peer, operation, credential or TLS stack, a rare party, failures, refusals.
    #[default]
    Another,
    /// Calls as ever, on an edge and with an operation that are known, only more, bigger or longer ones: a service in
    /// demand looks like that.
    MoreOfTheSame,
}

impl Kind {
    /// What an event is of whose strongest answer is to `leading`, where its edge and operation are known.
    #[inline]
    pub(crate) fn of_known(leading: Option<Question>) -> Self {
        let is_more = leading.is_some_and(|question| {
            question.counts() && !matches!(question, Question::Spread10m | Question::Spread1h)
                || matches!(question, Question::Bigger | Question::Longer)
        });
        if is_more { Self::MoreOfTheSame } else { Self::Another }
    }
}

/// How much of the slow clock another kind than more of the same has given. More of the same is a reason to limit an
/// identity, and none to cut it off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Other {
    /// Share of the clock without the running minute; it decays as the clock does.
    share: f64,
    /// Of the running minute's best event.
    running: Kind,
}

impl Other {
    /// Whoever is cut off is so for another kind in the main.
    const MAIN: f64 = 0.5;

    /// As far as a release before could tell.
    pub(crate) fn of_before(evidence: &Evidence) -> Self {
        Self { share: f64::from(u8::from(evidence.showed_another_kind())), running: Kind::default() }
    }

    /// The running minute has a new best event.
    pub(crate) fn lead(&mut self, kind: Kind) {
        self.running = kind;
    }

    /// The running minute has ended.
    pub(crate) fn end_minute(&mut self, ended: Ended) {
        self.share = self.share_with(ended.before, ended.after);
    }

    /// Whether most of a slow clock that shows `with` the running minute and `before` it is of another kind.
    pub(crate) fn is_main(&self, before: f64, with: f64) -> bool {
        self.share_with(before, with) >= Self::MAIN
    }

    fn share_with(&self, before: f64, with: f64) -> f64 {
        // A calm minute takes from all alike.
        if with <= before {
            return self.share;
        }
        let own = if self.running == Kind::Another { with - before } else { 0.0 };
        (self.share * before + own) / with
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use qualm_model::{
        evidence::{Clock, Pace},
        time::{Span, Timestamp},
    };

    use super::*;

    /// Minutes of an identity, each with its bits and kind: a slow clock, and how much of it is of another kind.
    fn lived(minutes: &[(f64, bool)]) -> (f64, Other) {
        let (mut slow, mut other) = (Clock::default(), Other::default());
        for (minute, &(z, is_another)) in minutes.iter().enumerate() {
            let end = Timestamp((minute as i64 + 1) * Span::MINUTE.0 - 1);
            let before = slow.at(Pace::Slow, end);
            slow.commit(Pace::Slow, end, z);
            other.lead(if is_another { Kind::Another } else { Kind::MoreOfTheSame });
            other.end_minute(Ended { best: 0.0, before, after: slow.at(Pace::Slow, end) });
        }
        let last = Timestamp(minutes.len() as i64 * Span::MINUTE.0 - 1);
        (slow.at(Pace::Slow, last), other)
    }

    proptest! {
        #[test]
        fn another_kind_is_the_main_one_exactly_where_a_clock_of_its_own_would_show_half(
            minutes in prop::collection::vec((0.0..9.0_f64, any::<bool>()), 1..200),
        ) {
            let own: Vec<_> = minutes.iter().map(|&(z, is_another)| (if is_another { z } else { 0.0 }, true)).collect();
            let ((all, other), (of_another, _)) = (lived(&minutes), lived(&own));
            prop_assert!((other.share * all - of_another).abs() < 1e-6, "{} of {all} is not {of_another}", other.share);
            prop_assert_eq!(other.is_main(all, all), of_another >= 0.5 * all || (other.share - 0.5).abs() < 1e-9);
        }

        #[test]
        fn whatever_was_odd_before_more_of_the_same_alone_does_not_go_on_for_it(
            before in prop::collection::vec((-1.0..9.0_f64, any::<bool>()), 0..100),
            calm in 0..60_usize,
            more in prop::collection::vec(3.0..9.0_f64, 60..90),
        ) {
            let calm = std::iter::repeat_n((-1.0, true), calm);
            let minutes: Vec<_> =
                before.into_iter().chain(calm).chain(more.into_iter().map(|z| (z, false))).collect();
            let (all, other) = lived(&minutes);
            prop_assert!(!other.is_main(all, all), "{} of {all}", other.share);
        }
    }

    #[test]
    fn sizes_and_counts_on_what_is_known_are_more_of_the_same_and_new_contacts_are_not() {
        for question in [Question::Rate1m, Question::OperationRate, Question::FanIn, Question::Bigger, Question::Longer]
        {
            assert_eq!(Kind::of_known(Some(question)), Kind::MoreOfTheSame, "{question:?}");
        }
        for question in [Question::Spread10m, Question::RarePeer, Question::Refused, Question::NewFingerprint] {
            assert_eq!(Kind::of_known(Some(question)), Kind::Another, "{question:?}");
        }
    }
}
