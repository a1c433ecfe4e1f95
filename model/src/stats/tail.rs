//! The upper tail of a positive quantity: half-octave bins, decayed by halving.

use serde::{Deserialize, Serialize};

const BINS: usize = 64;
/// Fewer observations than this are no ground for an opinion.
const LEAST: u32 = 20;
/// What is not two bins (1.4 to 2 times) above the median is not bigger in any sense that matters.
const EFFECT_BINS: usize = 2;
/// Past this total all bins are halved: forgetting in proportion to use, not to time.
const HALVE_AT: u32 = 16_384;
/// Values this many bins beyond all seen are learned at an eighth of their weight, so that a handful of huge
/// transfers does not make the next one ordinary.
const FAR_BEYOND: usize = 4;

/// Sizes or durations of one edge, in 64 half-octave bins from 1 to 2^32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SizeTail {
    bins: Vec<u16>,
    total: u32,
    withheld: u8,
}

/// The tail at one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TailAt {
    /// `1 + surprise`: `(n + 1)/(above + 1)`, times `√2` for every bin beyond the greatest value seen.
    pub x: f64,
    /// Median of what was seen.
    pub median: f64,
    /// Observations it rests on.
    pub n: u32,
}

fn bin(value: f64) -> usize {
    let octave = (value.max(1.0).to_bits() >> 52) as usize - 1023;
    let upper_half = value.max(1.0) >= power_of_two(octave) * std::f64::consts::SQRT_2;
    (2 * octave + usize::from(upper_half)).min(BINS - 1)
}

fn power_of_two(exponent: usize) -> f64 {
    f64::from_bits((1023 + exponent as u64) << 52)
}

impl SizeTail {
    /// How far `value` is in the tail; `None` without 20 observations; `x = 1` below about twice the median.
    pub fn at(&self, value: f64) -> Option<TailAt> {
        if self.total < LEAST {
            return None;
        }
        let here = bin(value);
        let median = self.median_bin();
        let at = |x| TailAt { x, median: power_of_two(median / 2), n: self.total };
        if here < median + EFFECT_BINS {
            return Some(at(1.0));
        }
        let above: u32 = self.bins.iter().skip(here).map(|&count| u32::from(count)).sum();
        let beyond = here.saturating_sub(self.bins.len() - 1);
        let stretch = power_of_two(beyond / 2) * if beyond % 2 == 1 { std::f64::consts::SQRT_2 } else { 1.0 };
        Some(at(f64::from(self.total + 1) / f64::from(above + 1) * stretch))
    }

    /// Learns `value`.
    pub fn learn(&mut self, value: f64) {
        let here = bin(value);
        if self.total >= LEAST && here >= self.bins.len() + FAR_BEYOND {
            self.withheld += 1;
            if self.withheld < 8 {
                return;
            }
            self.withheld = 0;
        }
        if self.bins.len() <= here {
            self.bins.resize(here + 1, 0);
        }
        self.bins[here] = self.bins[here].saturating_add(1);
        self.total += 1;
        if self.total >= HALVE_AT {
            self.bins.iter_mut().for_each(|count| *count /= 2);
            self.total = self.bins.iter().map(|&count| u32::from(count)).sum();
        }
    }

    /// Between which values nineteen of twenty lie; `None` without 20 observations.
    pub fn usual(&self) -> Option<(f64, f64)> {
        let quantile = |share: f64| {
            let mut below = 0.0;
            let reached = self.bins.iter().position(|&count| {
                below += f64::from(count);
                below >= share * f64::from(self.total)
            });
            reached.unwrap_or(self.bins.len())
        };
        let begin = |bin: usize| power_of_two(bin / 2) * if bin % 2 == 1 { std::f64::consts::SQRT_2 } else { 1.0 };
        (self.total >= LEAST).then(|| (begin(quantile(0.025)), begin(quantile(0.975) + 1)))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bins.capacity() * size_of::<u16>()
    }

    fn median_bin(&self) -> usize {
        let mut below = 0;
        for (bin, &count) in self.bins.iter().enumerate() {
            below += u32::from(count);
            if 2 * below >= self.total {
                return bin;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(values: impl IntoIterator<Item = f64>) -> SizeTail {
        let mut tail = SizeTail::default();
        values.into_iter().for_each(|value| tail.learn(value));
        tail
    }

    #[test]
    fn there_is_no_opinion_before_twenty_observations() {
        assert_eq!(learned((0..19).map(f64::from)).at(1e9), None);
    }

    #[test]
    fn one_more_byte_on_a_constant_is_no_deviation() {
        let tail = learned(std::iter::repeat_n(1000.0, 5000));
        assert_eq!(tail.at(1001.0).map(|at| at.x), Some(1.0));
        assert_eq!(tail.at(1400.0).map(|at| at.x), Some(1.0));
    }

    #[test]
    fn the_farther_beyond_all_seen_the_greater_the_surprise() {
        let tail = learned((0..1000).map(|i| 1000.0 + f64::from(i % 100)));
        let x = |value| tail.at(value).expect("enough seen").x;
        assert!(x(1e5) > 1000.0);
        assert!(x(1e7) > 2.0 * x(1e5));
    }

    #[test]
    fn a_handful_of_huge_transfers_does_not_make_the_next_one_ordinary() {
        let mut tail = learned(std::iter::repeat_n(1000.0, 2000));
        let before = tail.at(1e9).expect("enough seen").x;
        (0..7).for_each(|_| tail.learn(1e9));
        assert_eq!(tail.at(1e9).expect("enough seen").x, before);
    }

    #[test]
    fn memory_and_totals_are_bounded() {
        let tail = learned((0..200_000).map(|i| f64::from(i) * 1e6));
        assert!(tail.heap_bytes() <= 256 && tail.total < HALVE_AT);
    }
}
