//! Does one replica alone do what is new, of several that serve?

use serde::{Deserialize, Serialize};

use super::Deviation;

/// Calls beyond which one more says nothing more.
const MOST: u32 = 64;

/// Calls of something new, all by one and the same replica so far.
///
/// What a service begins to do, its replicas do alike: that all of `k` calls come from one of `n` that serve has the
/// probability `n^(1−k)`, so the surprise is `(k − 1) ln n` nats. A second replica ends the question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lone {
    calls: u32,
}

impl Lone {
    /// What one more call by the replica that made all so far would mean, of `serving` replicas. `None` of a single one.
    pub fn score(self, serving: u32) -> Option<Deviation> {
        if serving < 2 {
            return None;
        }
        let replicas = f64::from(serving);
        Some(Deviation {
            x: 1.0 + f64::from(self.calls) * libm::log(replicas),
            observed: f64::from(self.calls + 1),
            expected: f64::from(self.calls + 1) / replicas,
            n: replicas,
        })
    }

    /// Learns one more call.
    pub fn learn(&mut self) {
        self.calls = (self.calls + 1).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_says_nothing_and_each_further_one_as_much_again() {
        let mut lone = Lone::default();
        let x = |lone: Lone| lone.score(4).expect("four serve").x - 1.0;
        assert_eq!(x(lone), 0.0);
        lone.learn();
        assert!((x(lone) - libm::log(4.0)).abs() < 1e-12);
        lone.learn();
        assert!((x(lone) - 2.0 * libm::log(4.0)).abs() < 1e-12);
        (0..1000).for_each(|_| lone.learn());
        assert!((x(lone) - f64::from(MOST) * libm::log(4.0)).abs() < 1e-12);
    }

    #[test]
    fn who_has_no_siblings_is_alone_in_everything() {
        assert_eq!(Lone { calls: 50 }.score(1), None);
    }
}
