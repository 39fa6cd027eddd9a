//! Time on the wire: 24 bits in units of 8 µs, and numbers that wrap.
//!
//! A stamp wraps after 134 s. Two stamps are compared by their distance the
//! short way round, so they must lie less than 67 s apart; paths that were
//! silent for longer are treated as unknown before their stamps are compared.

use crate::time::Time;

/// Nanoseconds per unit of a stamp.
pub const UNIT_NS: u64 = 8_000;
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;

/// The stamp of a moment.
pub fn stamp(now: Time) -> u32 {
    (now.as_nanos() / UNIT_NS) as u32 & MASK
}

/// `a - b` the short way round, in units.
pub fn difference(a: u32, b: u32) -> i32 {
    let shift = 32 - BITS;
    ((a.wrapping_sub(b) << shift) as i32) >> shift
}

/// Units to milliseconds.
pub fn millis(units: i32) -> f64 {
    f64::from(units) * (UNIT_NS as f64 / 1e6)
}

/// `stamp + units`, wrapped.
pub fn add(stamp: u32, units: i32) -> u32 {
    stamp.wrapping_add(units as u32) & MASK
}

/// Extends the low `bits` of a counter to the full value nearest to `near`.
pub fn extend(low: u64, bits: u32, near: u64) -> u64 {
    let span = 1u64 << bits;
    let base = near & !(span - 1) | (low & (span - 1));
    if base + span / 2 < near {
        base + span
    } else if base > near + span / 2 && base >= span {
        base - span
    } else {
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_right_across_the_wrap() {
        assert_eq!(difference(5, MASK), 6);
        assert_eq!(difference(MASK, 5), -6);
        assert_eq!(add(MASK, 6), 5);
    }

    #[test]
    fn a_counter_is_extended_to_the_nearest_value() {
        assert_eq!(extend(0x02, 8, 0x1fe), 0x202);
        assert_eq!(extend(0xfe, 8, 0x202), 0x1fe);
        assert_eq!(extend(0xfe, 8, 3), 0xfe);
        for near in [0u64, 1, 127, 128, 129, 255, 256, 1000, 65_535] {
            for distance in -100i64..100 {
                let Some(v) = near.checked_add_signed(distance) else {
                    continue;
                };
                assert_eq!(
                    extend(v & 0xff, 8, near),
                    v,
                    "near {near} distance {distance}"
                );
            }
        }
    }
}
