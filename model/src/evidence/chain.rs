//! One event's evidence: a product along the chain *who · to whom · what · from where · how · how much · when · with which
//! papers*, a mean inside each link.

use crate::{detector::Question, stats::log2};

/// How many questions there are.
pub const QUESTIONS: usize = Question::ALL.len();

/// A constant 1 ("cash") of this weight stands in each mean, so that silent detectors do not dilute a loud one.
const CASH: f64 = 0.8;

const COUNTS: Link = Link::of(&[
    Question::Rate1m,
    Question::Rate10m,
    Question::Rate1h,
    Question::EdgeRate,
    Question::OperationRate,
    Question::DestinationRate,
    Question::Spread10m,
    Question::Spread1h,
    Question::FanIn,
]);
const WHAT: Link =
    Link::of(&[Question::NewOperation, Question::RareOperation, Question::NewCredential, Question::NewFingerprint]);
const WHERE_FROM: Link = Link::of(&[Question::NewNetwork, Question::LoneReplica]);
const HOW: Link = Link::of(&[Question::Failing, Question::Refused]);
const HOW_BIG: Link = Link::of(&[Question::Bigger, Question::Oversized, Question::Longer]);
const WHEN: Link = Link::of(&[Question::Rhythm]);
/// How much it weighs, beside cash, that it is unlike the caller to meet somebody new: as much as the rarity of the peer
/// beside that of the caller.
const UNLIKE_CALLER: f64 = 0.05;
const PAPERS: Link = Link::of(&[
    Question::AfterRevocation,
    Question::AfterExpiry,
    Question::BeforeIssuance,
    Question::OutsideSharing,
    Question::NoCertificate,
    Question::LoginElsewhere,
]);
/// What is found out later than at the event that it is about; a credential's issue may be told of after its use, and a
/// window is whole when it has ended.
const ABSENCE: Link = Link::of(&[
    Question::Silence,
    Question::Lull,
    Question::Unwitnessed,
    Question::NeverIssued,
    Question::BeforeIssuance,
    Question::UnlikePeers,
]);

/// The e-values of one event by question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EValues {
    /// No opinion is 0, which no answer is, and which adds nothing to a sum.
    values: [f64; QUESTIONS],
    /// A bit for every answer.
    answers: u64,
}

/// A set of questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Questions(u64);

impl FromIterator<Question> for Questions {
    fn from_iter<I: IntoIterator<Item = Question>>(questions: I) -> Self {
        Self(questions.into_iter().fold(0, |set, question| set | 1 << question as u32))
    }
}

impl Questions {
    /// Whether it has none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    #[inline]
    pub const fn holds(self, question: Question) -> bool {
        self.0 & (1 << question as u32) != 0
    }
}

/// The questions of one link of the chain.
struct Link {
    questions: &'static [Question],
    bits: u64,
}

impl Link {
    const fn of(questions: &'static [Question]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < questions.len() {
            bits |= 1_u64 << questions[next] as u32;
            next += 1;
        }
        Self { questions, bits }
    }
}

impl Default for EValues {
    fn default() -> Self {
        Self { values: [0.0; QUESTIONS], answers: 0 }
    }
}

impl EValues {
    /// Sets the answer to one question.
    #[inline]
    pub fn set(&mut self, question: Question, e: f64) {
        self.values[question as usize] = e;
        self.answers |= 1_u64 << question as u32;
    }

    /// Takes back the answers to all questions of a set.
    #[inline]
    pub fn take_back(&mut self, questions: Questions) {
        for question in Question::ALL {
            if questions.holds(question) {
                self.unset(question);
            }
        }
    }

    /// Takes back the answer to one question.
    #[inline]
    pub fn unset(&mut self, question: Question) {
        self.values[question as usize] = 0.0;
        self.answers &= !(1_u64 << question as u32);
    }

    /// Lets the answer to one question count for no more than `most`.
    #[inline]
    pub fn limit(&mut self, question: Question, most: f64) {
        let e = &mut self.values[question as usize];
        if *e > most {
            *e = most;
        }
    }

    /// The answer to one question, `None` where there is no opinion.
    #[inline]
    pub fn answer(&self, question: Question) -> Option<f64> {
        (self.answers & (1_u64 << question as u32) != 0).then_some(self.values[question as usize])
    }

    /// Every answer there is, in the order of the questions.
    pub fn answers(&self) -> impl Iterator<Item = (Question, f64)> {
        Question::ALL.into_iter().filter_map(|question| Some((question, self.answer(question)?)))
    }

    #[inline]
    fn or_one(&self, question: Question) -> f64 {
        self.answer(question).unwrap_or(1.0)
    }

    /// `0.8 + 0.2 · mean` of the answers there are; 1 without any.
    #[inline]
    fn link(&self, link: &Link) -> f64 {
        let answers = self.answers & link.bits;
        if answers == 0 {
            return 1.0;
        }
        let mut sum = 0.0;
        for &question in link.questions {
            sum += self.values[question as usize];
        }
        CASH + (1.0 - CASH) * sum / f64::from(answers.count_ones())
    }

    /// Evidence of the event in bits: `log2` of the product along the chain.
    ///
    /// *Who* and *to whom* are `0.9 A + 0.1 B` with `A = e_source (0.8 + 0.2 (¼ e_peer + ¾ e_destination))` and
    /// `B = e_destination (0.7 + 0.3 e_peer)`: `B` finds what happens to a rare destination by a common source.
    /// The rarity of a peer is the same for whoever calls it first; how unlike the caller that is stands beside, as
    /// `0.95 + 0.05 e_strange`, as far as [something else is odd](Self::hold_meeting).
    /// The weights were measured in the prototype (../shared/design/prototype.md, section 2).
    #[inline]
    pub fn bits(&self) -> f64 {
        let source = self.or_one(Question::RareSource);
        let peer = self.or_one(Question::RarePeer);
        let destination = self.or_one(Question::RareDestination);
        let by_source = source * (0.8 + 0.2 * (0.25 * peer + 0.75 * destination));
        let by_destination = destination * (0.7 + 0.3 * peer);
        let who = 0.9 * by_source + 0.1 * by_destination;
        let what = self.link(&WHAT) * self.link(&WHERE_FROM);
        log2(
            who * what
                * self.link(&HOW)
                * self.link(&COUNTS)
                * self.link(&HOW_BIG)
                * self.link(&WHEN)
                * (1.0 + UNLIKE_CALLER * (self.or_one(Question::StrangePeer) - 1.0))
                * self.link(&PAPERS),
        )
    }

    /// Lets it count that the caller hardly ever meets anybody new for at most twice the bits of what else is odd: how rare
    /// the destination is to everybody, where the call comes from, how it ended, how big or long it was. A service that is
    /// given one more peer of those that are there does meet somebody new, and shows nothing else. (What counts calls and
    /// contacts is no other oddity: a first contact is in all of it.)
    #[inline]
    pub fn hold_meeting(&mut self) {
        if self.answer(Question::StrangePeer).is_none() {
            return;
        }
        let destination = self.or_one(Question::RareDestination).max(1.0);
        let how = [&WHERE_FROM, &HOW, &HOW_BIG].iter().map(|link| self.link(link).max(1.0)).product::<f64>();
        let other = destination * how;
        self.limit(Question::StrangePeer, other * other);
    }

    /// Evidence in bits of something that did not happen.
    pub fn bits_of_absence(&self) -> f64 {
        libm::log2(self.link(&ABSENCE))
    }

    /// The question with the strongest answer; ties go to the earlier link of the chain.
    #[inline]
    pub fn leading(&self) -> Option<Question> {
        let (mut leading, mut most) = (QUESTIONS, 0.0);
        for (question, &e) in self.values.iter().enumerate() {
            // Both are chosen, not jumped over: which answer is the strongest cannot be guessed.
            leading = if e > most { question } else { leading };
            most = if e > most { e } else { most };
        }
        Question::ALL.get(leading).copied()
    }

    /// Questions with their bits (`log2 e`), strongest first, only what speaks against the source; a rhythm is named also
    /// where it adds nothing.
    pub fn reasons(&self) -> Vec<(Question, f64)> {
        let mut reasons: Vec<_> = Question::ALL
            .into_iter()
            .filter_map(|question| Some((question, libm::log2(self.answer(question)?))))
            .filter(|&(question, bits)| bits > 0.0 || question == Question::Rhythm)
            .collect();
        reasons.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_opinion_there_is_no_evidence_either_way() {
        assert_eq!(EValues::default().bits(), 0.0);
    }

    #[test]
    fn a_silent_detector_does_not_dilute_a_loud_one_by_more_than_its_share_of_the_mean() {
        let mut loud = EValues::default();
        loud.set(Question::Rate1m, 1024.0);
        let alone = loud.bits();
        for question in [Question::Rate10m, Question::Rate1h, Question::EdgeRate] {
            loud.set(question, 0.5);
        }
        assert!(alone - loud.bits() < 2.01, "{alone} {}", loud.bits());
    }

    #[test]
    fn what_is_taken_back_counts_no_more_and_leads_nowhere() {
        let mut values = EValues::default();
        values.set(Question::Failing, 8.0);
        let without = values;
        values.set(Question::NewOperation, 64.0);
        values.set(Question::Rate1m, 32.0);
        values.take_back([Question::NewOperation, Question::Rate1m].into_iter().collect());
        assert_eq!(values, without);
        values.take_back(Questions::default());
        assert_eq!(values.bits(), without.bits());
    }

    #[test]
    fn that_a_caller_meets_somebody_new_counts_with_something_else_and_never_alone() {
        let meeting = |of: &[(Question, f64)]| {
            let mut values = EValues::default();
            of.iter().for_each(|&(question, e)| values.set(question, e));
            let without = values.bits();
            values.set(Question::StrangePeer, 4096.0);
            values.hold_meeting();
            (values.bits() - without, values.leading())
        };
        let known = [(Question::RarePeer, 32.0), (Question::RareDestination, 0.5), (Question::Spread10m, 64.0)];
        assert_eq!(meeting(&known), (0.0, Some(Question::Spread10m)), "a peer that others call");
        let (bits, leading) = meeting(&[(Question::RarePeer, 32.0), (Question::RareDestination, 48.0)]);
        assert!(bits > 6.0 && leading == Some(Question::StrangePeer), "nobody calls it: {bits}");
        let (some, _) = meeting(&[(Question::RarePeer, 32.0), (Question::RareDestination, 4.0)]);
        assert!((0.5..1.5).contains(&some), "{some}");
    }

    #[test]
    fn the_strongest_answer_leads_and_heads_the_reasons() {
        let mut values = EValues::default();
        values.set(Question::Failing, 8.0);
        values.set(Question::NewOperation, 64.0);
        values.set(Question::Rate1m, 0.5);
        assert_eq!(values.leading(), Some(Question::NewOperation));
        assert_eq!(values.reasons(), vec![(Question::NewOperation, 6.0), (Question::Failing, 3.0)]);
    }
}
