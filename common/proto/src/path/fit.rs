//! How long the datagrams of a train are, so that most of them fit into one.
//!
//! The kernel cuts a train into equal pieces; only its last may be shorter. Squeezed headers
//! make equal packets unequal by a byte or two: a flag that the last segment of a stretch
//! carries, a number that needs another byte. Each of these would end a train, and on a fast
//! path a system call and a way through the kernel's stack for every few datagrams cost more
//! than a byte does. So a datagram that is a little shorter than its train is padded with zeros, as
//! WireGuard itself does to full 16 bytes; the length in the frame's header says where they begin.
//! And as the first datagram decides how long the others may be, it is padded to what was
//! lately too long for the train it came to.
//!
//! A path that sends a few datagrams per train gains nothing by that; there, every byte is one
//! of the link's.

/// Bytes added at most: what WireGuard may add.
const PAD_MAX: usize = 16;
/// A path pads if it may send this much at once: sixteen full datagrams, from 190 Mbit/s on.
const PAD_FROM: usize = 16 * 1_500;
/// Trains after which a length is forgotten that no datagram has needed.
const KEPT_FOR: u8 = 8;

/// The lengths of late, in bytes of sealed datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fit {
    /// The length that was too long for a train.
    len: usize,
    /// Trains for which it is kept.
    left: u8,
}

impl Fit {
    /// The length of a train's first datagram, which needs `len` and may have `most`. `train` is how much may leave
    /// in one train.
    pub fn first(&mut self, len: usize, most: usize, train: usize) -> usize {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || train < PAD_FROM || self.len > most {
            return len;
        }
        self.padded(len, self.len)
    }

    /// The length of a further datagram, which needs `len`, where all have `segment`.
    pub fn next(&mut self, len: usize, segment: usize, train: usize) -> usize {
        if train < PAD_FROM {
            return len;
        }
        self.padded(len, segment)
    }

    /// A datagram of `len` ended a train of datagrams of `segment`, as it was too long.
    pub fn was_too_long(&mut self, len: usize, segment: usize) {
        if len - segment <= PAD_MAX {
            self.len = len;
            self.left = KEPT_FOR;
        }
    }

    fn padded(&mut self, len: usize, to: usize) -> usize {
        if len == self.len {
            self.left = KEPT_FOR;
        }
        match to.checked_sub(len) {
            Some(0..=PAD_MAX) => to,
            _ => len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: usize = 65_000;
    const MOST: usize = 1_472;

    #[test]
    fn a_train_takes_datagrams_that_are_a_little_shorter() {
        let mut fit = Fit::default();
        assert_eq!(fit.first(1_402, MOST, FAST), 1_402);
        assert_eq!(fit.next(1_401, 1_402, FAST), 1_402);
        assert_eq!(fit.next(1_386, 1_402, FAST), 1_402);
        // The wire is not filled with zeros: the end of a stretch ends the train.
        assert_eq!(fit.next(1_385, 1_402, FAST), 1_385);
        assert_eq!(fit.next(1_403, 1_402, FAST), 1_403);
    }

    #[test]
    fn what_was_too_long_once_fits_the_trains_that_follow() {
        let mut fit = Fit::default();
        fit.was_too_long(1_402, 1_401);
        for _ in 0..100 {
            assert_eq!(fit.first(1_401, MOST, FAST), 1_402);
            assert_eq!(fit.next(1_402, 1_402, FAST), 1_402);
        }
        // A length that nobody needs any more is forgotten.
        let padded = (0..100).filter(|_| fit.first(1_401, MOST, FAST) > 1_401);
        assert!(padded.count() < 10);
        // One that was far too long is no guide.
        fit.was_too_long(1_402, 69);
        assert_eq!(fit.first(1_401, MOST, FAST), 1_401);
    }

    #[test]
    fn nothing_is_padded_beyond_what_the_path_carries() {
        let mut fit = Fit::default();
        fit.was_too_long(1_402, 1_401);
        assert_eq!(fit.first(1_401, 1_401, FAST), 1_401);
    }

    #[test]
    fn a_slow_path_sends_no_zeros() {
        let mut fit = Fit::default();
        fit.was_too_long(1_402, 1_401);
        assert_eq!(fit.first(1_401, MOST, 12_500), 1_401);
        assert_eq!(fit.next(1_401, 1_402, 12_500), 1_401);
    }
}
