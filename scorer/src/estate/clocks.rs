//! Whose clock is wrong: both reports of one call are written when it ends, and so at the same time.
//!
//! Of each reporter, by its address, the latest differences between its own time and that of the other ends are kept. A
//! reporter whose clock is right differs from few; one whose clock is wrong differs from all, and so the median tells.
//! This moves nothing that is judged: it is shown.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::time::Span;

/// Differences kept of one reporter: as many as say what is usual.
const KEPT: usize = 15;
/// Reporters kept; the oldest are forgotten first.
const REPORTERS: usize = 4096;
/// A clock that is wrong by less is not told of.
pub(super) const WRONG: Span = Span::seconds(2);

/// A reporter whose clock is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct WrongClock {
    /// The reporter: its address, or its own name for itself.
    pub reporter: String,
    /// How far it is ahead of the others; below 0 where it is behind.
    pub ahead: Span,
}

/// One reporter's time against others'.
#[derive(Debug, Clone, Default)]
struct Differences {
    ahead: VecDeque<i64>,
    /// The last two others that it was compared with.
    others: [Option<Arc<str>>; 2],
}

/// All reporters.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    by: HashMap<Arc<str>, Differences, FixedState>,
    order: VecDeque<Arc<str>>,
}

impl Differences {
    fn note(&mut self, other: &Arc<str>, ahead: Span) {
        if self.ahead.len() == KEPT {
            self.ahead.pop_front();
        }
        self.ahead.push_back(ahead.0);
        if !self.others.iter().flatten().any(|known| known == other) {
            self.others.swap(0, 1);
            self.others[0] = Some(Arc::clone(other));
        }
    }

    /// The median, where enough was compared, and with more than one other: of two that differ nobody can say which is
    /// wrong.
    fn usual(&self) -> Option<Span> {
        if self.ahead.len() < KEPT || self.others.iter().any(Option::is_none) {
            return None;
        }
        let mut sorted: Vec<i64> = self.ahead.iter().copied().collect();
        sorted.sort_unstable();
        Some(Span(sorted[KEPT / 2]))
    }
}

impl Clocks {
    /// Takes note that the caller's proxy at `from` reported a call so much later than the called's at `to`.
    pub fn compare(&mut self, from: &Arc<str>, to: &Arc<str>, later: Span) {
        if from.is_empty() || to.is_empty() || from == to {
            return;
        }
        self.of(from).note(to, later);
        self.of(to).note(from, Span(-later.0));
    }

    fn of(&mut self, reporter: &Arc<str>) -> &mut Differences {
        if !self.by.contains_key(reporter) {
            self.order.push_back(Arc::clone(reporter));
            if self.order.len() > REPORTERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.by.remove(&oldest);
            }
        }
        self.by.entry(Arc::clone(reporter)).or_default()
    }

    /// Those whose clocks are wrong, the worst first.
    pub fn wrong(&self) -> Vec<WrongClock> {
        let wrong = |(reporter, differences): (&Arc<str>, &Differences)| {
            let ahead = differences.usual().filter(|ahead| ahead.0.abs() >= WRONG.0)?;
            Some(WrongClock { reporter: reporter.to_string(), ahead })
        };
        let mut wrong: Vec<_> = self.by.iter().filter_map(wrong).collect();
        wrong.sort_by(|a, b| b.ahead.0.abs().cmp(&a.ahead.0.abs()).then_with(|| a.reporter.cmp(&b.reporter)));
        wrong
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.by.len() * (size_of::<Differences>() + KEPT * 8 + 160)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of ten compared often, where each clock is so many seconds ahead.
    fn compared(ahead: [i64; 10]) -> Vec<(String, i64)> {
        let mut clocks = Clocks::default();
        let address = |i: usize| Arc::from(format!("10.0.0.{i}"));
        for _ in 0..10 {
            for (from, to) in (0..10).flat_map(|from| (0..10).map(move |to| (from, to))) {
                clocks.compare(&address(from), &address(to), Span::seconds(ahead[from] - ahead[to]));
            }
        }
        clocks.wrong().into_iter().map(|wrong| (wrong.reporter, wrong.ahead.0 / Span::SECOND.0)).collect()
    }

    #[test]
    fn the_clock_that_differs_from_all_others_is_wrong() {
        assert_eq!(compared([0; 10]), []);
        assert_eq!(
            compared([0, 0, 0, 30, 0, 0, 0, 0, -4, 0]),
            [("10.0.0.3".to_owned(), 30), ("10.0.0.8".to_owned(), -4)]
        );
        assert_eq!(compared([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), [], "a second is nothing");
    }

    #[test]
    fn of_two_that_differ_nobody_says_which_is_wrong() {
        let mut clocks = Clocks::default();
        let [one, other] = [Arc::from("10.0.0.1"), Arc::from("10.0.0.2")];
        (0..100).for_each(|_| clocks.compare(&one, &other, Span::seconds(30)));
        assert_eq!(clocks.wrong(), []);
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_bound() {
        let mut clocks = Clocks::default();
        let other = Arc::from("10.0.0.1");
        (0..2 * REPORTERS).for_each(|i| clocks.compare(&Arc::from(i.to_string()), &other, Span(0)));
        assert!(clocks.by.len() <= REPORTERS);
    }
}
