//! How often an invariant holds among the credentials of one issuer.

use qualm_model::detector::{Deviation, Question};
use serde::{Deserialize, Serialize};

use super::Broken;

/// Credentials that are needed before a break acts at once.
const FIRM_FROM: u32 = 100;
/// So many breaks, and beyond this share of all credentials, are the custom of the estate.
const SINGLE: u32 = 3;
const SHARE: u32 = 100;
/// The e-value of a break that is against all custom: 16 bits. It is set by policy.
const FIRM: f64 = 65_536.0;

/// How much a broken invariant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Bits of evidence.
    Telling,
    /// It acts at once.
    Firm,
}

/// The credentials of one issuer by which it is known whether an invariant holds in this estate.
///
/// Estates differ: in one every credential has one place, in another gateways show those of all. With `k` credentials of
/// `n` for which the invariant was broken before, a break has the e-value `(n + 1)/(k + 1)`, Laplace's rule as an inverse
/// share. From 100 credentials on, where fewer than three or at most one in a hundred was broken, it is firm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Custom {
    held: u32,
    broken: u32,
}

/// Whether a credential's break was counted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Before,
    Now,
}

impl Custom {
    /// One more credential for which it holds.
    pub(super) fn hold(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    /// A credential that was taken to hold does not.
    pub(super) fn break_one(&mut self) {
        self.held = self.held.saturating_sub(1);
        self.broken = self.broken.saturating_add(1);
    }

    /// Whether a break, were it the next, would act at once.
    pub(super) fn is_firm(&self) -> bool {
        firm(self.broken, self.held.saturating_add(self.broken))
    }

    /// What a break means; `observed` is how far it is off, in the question's own unit.
    pub(super) fn answer(&mut self, question: Question, counted: Counted, observed: f64) -> Broken {
        if counted == Counted::Now {
            self.break_one();
        }
        // A credential's own break is no custom.
        let (broken, all) = (self.broken.saturating_sub(1), self.held.saturating_add(self.broken));
        let weight = if firm(broken, all) { Weight::Firm } else { Weight::Telling };
        let share = (f64::from(broken) + 1.0) / (f64::from(all) + 1.0);
        let x = if weight == Weight::Firm { FIRM } else { 1.0 / share };
        Broken { question, deviation: Deviation { x, observed, expected: 0.0, n: f64::from(all) }, weight }
    }
}

fn firm(broken: u32, all: u32) -> bool {
    all >= FIRM_FROM && (broken < SINGLE || broken.saturating_mul(SHARE) <= all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(held: u32, breaks: u32) -> Broken {
        let mut custom = Custom::default();
        (0..held).for_each(|_| custom.hold());
        let mut last = custom.answer(Question::AfterExpiry, Counted::Now, 1.0);
        for _ in 0..breaks {
            last = custom.answer(Question::AfterExpiry, Counted::Now, 1.0);
        }
        last
    }

    #[test]
    fn what_always_held_for_a_hundred_is_firm_and_before_that_it_tells_as_much_as_was_seen() {
        assert_eq!(after(100, 0).weight, Weight::Firm);
        let few = after(30, 0);
        assert_eq!((few.weight, few.deviation.x), (Weight::Telling, 31.0));
    }

    #[test]
    fn what_is_often_broken_is_the_custom_of_the_estate() {
        let usual = after(200, 40);
        assert_eq!(usual.weight, Weight::Telling);
        assert!(usual.deviation.x < 5.0, "{usual:?}");
        assert_eq!(after(1000, 9).weight, Weight::Firm, "one in a hundred is not");
    }
}
