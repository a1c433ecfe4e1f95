//! Log-linear bins: eight to an octave, found without a logarithm.

/// Number of bins: `1 ≤ x < 2^60`.
const BINS: usize = 60 * PER_OCTAVE;
const PER_OCTAVE: usize = 8;
/// Bits of the mantissa below those that choose the bin within its octave.
const FRACTION_BITS: u32 = 52 - 3;

/// The binning of a number `x ≥ 1`, the way HDR histograms do it: the exponent and the first three bits of the
/// mantissa are the bin, the rest of the mantissa is the place within it. Relative width 9 to 12.5 %.
#[derive(Debug, Clone, Copy)]
pub struct Bins;

impl Bins {
    /// How many there are.
    pub const COUNT: usize = BINS;

    /// The bin of `x` and the place within it, `0 ≤ place < 1`. Less than 1 (and NaN) counts as 1; from 2^60 on
    /// everything is in the last bin, at its upper end.
    #[inline]
    pub fn locate(x: f64) -> (usize, f64) {
        if x.is_nan() || x <= 1.0 {
            return (0, 0.0);
        }
        let above_one = x.to_bits() - 1.0_f64.to_bits();
        let bin = (above_one >> FRACTION_BITS) as usize;
        if bin >= BINS {
            return (BINS - 1, 1.0);
        }
        let place = (above_one & ((1 << FRACTION_BITS) - 1)) as f64 / (1_u64 << FRACTION_BITS) as f64;
        (bin, place)
    }

    /// The lower edge of a bin; `Bins::edge(Bins::COUNT)` is the upper end of the last.
    #[inline]
    pub fn edge(bin: usize) -> f64 {
        f64::from_bits(1.0_f64.to_bits() + ((bin as u64) << FRACTION_BITS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_lies_between_the_edges_of_its_bin(x in 1.0..1e17) {
            let (bin, place) = Bins::locate(x);
            let (low, high) = (Bins::edge(bin), Bins::edge(bin + 1));
            prop_assert!(low <= x && x < high);
            prop_assert!((low + place * (high - low) - x).abs() <= 1e-9 * x);
        }
    }

    #[test]
    fn what_is_out_of_range_is_in_the_first_or_last_bin() {
        assert_eq!(Bins::locate(f64::NAN).0, 0);
        assert_eq!(Bins::locate(0.2).0, 0);
        assert_eq!(Bins::locate(f64::INFINITY).0, Bins::COUNT - 1);
    }
}
