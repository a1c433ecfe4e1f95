//! Seeded streams of random numbers that are the same on every machine.
//!
//! Every edge, attack and change draws from a stream of its own: adding an attack to a scenario leaves the benign
//! traffic as it was, so that two runs can be compared call by call. Transcendental functions come from the pinned
//! pure-Rust `libm`, never from the platform.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// One stream of pseudo-random numbers.
#[derive(Debug)]
pub(crate) struct Stream {
    rng: StdRng,
    /// The second normal deviate of the last Box-Muller pair.
    spare: Option<f64>,
}

impl Stream {
    /// The stream of `purpose` number `index` under `seed`.
    pub(crate) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mixed = scramble(scramble(seed ^ scramble(purpose as u64)).wrapping_add(index));
        Self { rng: StdRng::seed_from_u64(mixed), spare: None }
    }

    /// 64 uniform bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [`low`, `high`).
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..`count`; 0 for an empty range.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * count as u128) >> 64) as usize
    }

    /// True with probability `probability`.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of `items`, or `None` when there is none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// The first `count` of `items` in random order (all, when there are fewer).
    pub(crate) fn sample<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut pool = items.to_vec();
        let count = count.min(pool.len());
        for i in 0..count {
            let j = i + self.below(pool.len() - i);
            pool.swap(i, j);
        }
        pool.truncate(count);
        pool
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        let (sin, cos) = libm::sincos(core::f64::consts::TAU * self.uniform());
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Log-normal with the given median and the standard deviation `sigma` of its logarithm.
    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }

    /// Poisson with the given mean (Knuth 1969, in chunks of 20 so that the product never underflows).
    pub(crate) fn poisson(&mut self, mut mean: f64) -> u32 {
        const CHUNK: f64 = 20.0;
        let mut count = 0;
        while mean > CHUNK {
            count += self.poisson_chunk(CHUNK);
            mean -= CHUNK;
        }
        count + self.poisson_chunk(mean)
    }

    fn poisson_chunk(&mut self, mean: f64) -> u32 {
        let limit = libm::exp(-mean);
        let mut product = self.uniform();
        let mut count = 0;
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }
}

/// What a stream is for; each purpose has streams of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    Topology = 1,
    Edge,
    Service,
    Attack,
    Change,
    Train,
    Schedule,
    Platform,
    Auth,
    Accounts,
    Users,
    Chain,
}

/// Steele, Lea and Flood's SplitMix64 finaliser: a bijection of 64 bits without visible structure.
pub(crate) const fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_has_the_mean_and_the_variance_it_promises() {
        let mut stream = Stream::new(1, Purpose::Edge, 0);
        for mean in [0.3, 4.0, 73.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(stream.poisson(mean))).collect();
            let average = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - average) * (x - average)).sum::<f64>() / draws.len() as f64;
            assert!((average / mean - 1.0).abs() < 0.03, "mean {average} for {mean}");
            assert!((variance / mean - 1.0).abs() < 0.06, "variance {variance} for {mean}");
        }
    }

    #[test]
    fn streams_of_one_seed_differ_by_purpose_and_index() {
        let first = |purpose, index| Stream::new(7, purpose, index).bits();
        assert_ne!(first(Purpose::Edge, 0), first(Purpose::Edge, 1));
        assert_ne!(first(Purpose::Edge, 0), first(Purpose::Attack, 0));
        assert_eq!(first(Purpose::Edge, 3), first(Purpose::Edge, 3));
    }

    #[test]
    fn a_sample_holds_no_item_twice() {
        let mut stream = Stream::new(2, Purpose::Edge, 0);
        let mut drawn = stream.sample(&(0..50).collect::<Vec<_>>(), 30);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 30);
    }
}
