//! Logarithms, where they are taken several times an event.
//!
//! To the bit what `libm` gives (FreeBSD's `e_log.c` and `e_log2.c`, the same operations in the same order), without its
//! questions about what is no positive normal number, and inlined: those that do not depend on each other are worked out
//! side by side.

const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
const INVERSE_LN2_HIGH: f64 = f64::from_bits(0x3FF7_1547_6520_0000);
const INVERSE_LN2_LOW: f64 = f64::from_bits(0x3DE7_05FC_2EEF_A200);
const L1: f64 = f64::from_bits(0x3FE5_5555_5555_5593);
const L2: f64 = f64::from_bits(0x3FD9_9999_9997_FA04);
const L3: f64 = f64::from_bits(0x3FD2_4924_9422_9359);
const L4: f64 = f64::from_bits(0x3FCC_71C5_1D8E_78AF);
const L5: f64 = f64::from_bits(0x3FC7_4664_96CB_03DE);
const L6: f64 = f64::from_bits(0x3FC3_9A09_D078_C69F);
const L7: f64 = f64::from_bits(0x3FC2_F112_DF3E_5244);

const LEAST_NORMAL: u64 = f64::MIN_POSITIVE.to_bits();
const NORMALS: u64 = f64::INFINITY.to_bits() - LEAST_NORMAL;
/// The high words of 1 and of `√½`.
const ONE: u64 = 0x3FF0_0000 << 32;
const ROOT: u64 = 0x3FE6_A09E << 32;
const MANTISSA: u64 = (1 << 52) - 1;

/// `x = 2^k (1 + f)` with `√½ < 1 + f < √2`, and what both logarithms make of `f`.
struct Reduced {
    k: f64,
    f: f64,
    half_square: f64,
    s: f64,
    r: f64,
}

impl Reduced {
    /// `None` for what is no positive normal number.
    #[inline]
    fn of(x: f64) -> Option<Self> {
        let bits = x.to_bits();
        if bits.wrapping_sub(LEAST_NORMAL) >= NORMALS {
            return None;
        }
        let reduced = bits + (ONE - ROOT);
        let k = f64::from((reduced >> 52) as i32 - 0x3FF);
        let f = f64::from_bits((reduced & MANTISSA) + ROOT) - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let w = z * z;
        let even = w * (L2 + w * (L4 + w * L6));
        let odd = z * (L1 + w * (L3 + w * (L5 + w * L7)));
        Some(Self { k, f, half_square: 0.5 * f * f, s, r: odd + even })
    }
}

/// The natural logarithm.
#[inline]
pub(super) fn ln(x: f64) -> f64 {
    let Some(Reduced { k, f, half_square, s, r }) = Reduced::of(x) else { return libm::log(x) };
    s * (half_square + r) + k * LN2_LOW - half_square + f + k * LN2_HIGH
}

/// The logarithm to the base of 2, as `libm` has it.
#[inline]
pub fn log2(x: f64) -> f64 {
    let Some(Reduced { k, f, half_square, s, r }) = Reduced::of(x) else { return libm::log2(x) };
    let high = f - half_square;
    let high = f64::from_bits(high.to_bits() & !u64::from(u32::MAX));
    let low = f - high - half_square + s * (half_square + r);
    let value = high * INVERSE_LN2_HIGH;
    let rest = (low + high) * INVERSE_LN2_LOW + low * INVERSE_LN2_HIGH;
    let sum = k + value;
    rest + ((k - sum) + value) + sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_and_the_ends_of_the_range_have_the_library_s_logarithm() {
        let ends = [0.0, -0.0, -1.0, f64::MIN_POSITIVE, f64::MIN_POSITIVE / 2.0, f64::MAX, f64::INFINITY, f64::NAN];
        for x in (0..100_000).map(f64::from).chain(ends) {
            assert_eq!(ln(x).to_bits(), libm::log(x).to_bits(), "{x:e}");
            assert_eq!(log2(x).to_bits(), libm::log2(x).to_bits(), "{x:e}");
        }
    }

    proptest! {
        #[test]
        fn every_number_has_the_library_s_logarithm(bits: u64, near in -1e-3..1e-3) {
            for x in [f64::from_bits(bits), 1.0 + near, core::f64::consts::SQRT_2 + near, core::f64::consts::FRAC_1_SQRT_2 + near] {
                prop_assert_eq!(ln(x).to_bits(), libm::log(x).to_bits());
                prop_assert_eq!(log2(x).to_bits(), libm::log2(x).to_bits());
            }
        }
    }
}
