//! How much one caller may ask for: so much at once, and then so much a second.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Callers that are told apart; whoever has asked for nothing for the longest time is forgotten first.
const CALLERS: usize = 1_024;

/// What a call costs its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// It only looks.
    Look,
    /// It changes something.
    Change,
}

impl Effort {
    /// Calls at once, and the time after which there may be one more.
    const fn bounds(self) -> (u32, Duration) {
        match self {
            Self::Look => (100, Duration::from_millis(200)),
            Self::Change => (60, Duration::from_secs(1)),
        }
    }
}

/// What callers have left.
#[derive(Debug, Default)]
pub(crate) struct Allowances(HashMap<String, [Left; 2]>);

/// When all of an allowance will be there again; `None` is now.
#[derive(Debug, Clone, Copy, Default)]
struct Left(Option<Instant>);

impl Allowances {
    /// Takes one call off a caller's allowance.
    ///
    /// # Errors
    /// It is used up: for how long.
    pub(crate) fn take(&mut self, caller: &str, effort: Effort, now: Instant) -> Result<(), Duration> {
        if self.0.len() >= CALLERS && !self.0.contains_key(caller) {
            let full_at = |left: &[Left; 2]| left.iter().filter_map(|left| left.0).max();
            let idle = self.0.iter().min_by_key(|(_, left)| full_at(left)).map(|(caller, _)| caller.clone());
            idle.map(|caller| self.0.remove(&caller));
        }
        let (burst, every) = effort.bounds();
        let left = &mut self.0.entry(caller.to_owned()).or_default()[effort as usize].0;
        let full_at = left.filter(|at| *at > now).unwrap_or(now) + every;
        let most = now + every * burst;
        if full_at > most {
            return Err(full_at - most);
        }
        *left = Some(full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_change_sixty_things_at_once_and_then_one_a_second() {
        let (mut allowances, begin) = (Allowances::default(), Instant::now());
        for _ in 0..60 {
            assert_eq!(allowances.take("ann", Effort::Change, begin), Ok(()));
        }
        let wait = allowances.take("ann", Effort::Change, begin).expect_err("it is used up");
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(allowances.take("ann", Effort::Look, begin), Ok(()), "to look is another matter");
        assert_eq!(allowances.take("bob", Effort::Change, begin), Ok(()), "so is another caller");
        assert_eq!(allowances.take("ann", Effort::Change, begin + wait), Ok(()));
        assert!(allowances.take("ann", Effort::Change, begin + wait).is_err());
    }

    #[test]
    fn a_crowd_of_callers_takes_no_more_room_than_is_there_and_frees_nobody_who_is_at_the_end() {
        let (mut allowances, begin) = (Allowances::default(), Instant::now());
        (0..60).for_each(|_| allowances.take("ann", Effort::Change, begin).expect("allowed"));
        for n in 0..5_000 {
            allowances.take(&format!("caller-{n}"), Effort::Look, begin).expect("allowed");
        }
        assert!(allowances.0.len() <= CALLERS);
        assert!(allowances.take("ann", Effort::Change, begin).is_err());
    }
}
