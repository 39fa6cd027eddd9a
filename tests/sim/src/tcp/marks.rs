//! What a sender makes of congestion marks (CE).
//!
//! A classic one yields to a mark as to a loss, once in a round trip (RFC 3168, section 6.1.2). A scalable one yields
//! in proportion to the share of marked segments of late (RFC 9331; the arithmetic is that of DCTCP, RFC 8257, section
//! 3.3). How the receiver tells is left out: it counts marked segments, as with accurate feedback.

use super::congestion::Algorithm;

/// The weight of a round trip in the share of marked segments: 1/16, as in Linux.
const GAIN: f64 = 1.0 / 16.0;

/// How a sender yields to a mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Yield {
    /// As to a loss.
    AsToLoss,
    /// Its window shrinks to this share.
    To(f64),
}

#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// The share of marked segments; None: a classic sender.
    share: Option<f64>,
    /// Marked segments that the receiver has told of.
    told: u64,
    /// What came of this round trip's segments, and where it ends.
    delivered: u64,
    marked: u64,
    round_ends: u64,
    /// It has yielded for everything below.
    yielded_up_to: u64,
}

impl Marks {
    pub fn new(algorithm: Algorithm) -> Self {
        Marks {
            // Linux begins with the worst, so that the first mark ends slow start.
            share: (algorithm == Algorithm::Prague).then_some(1.0),
            told: 0,
            delivered: 0,
            marked: 0,
            round_ends: 0,
            yielded_up_to: 0,
        }
    }

    /// An acknowledgement said that `told` segments were marked so far and that `delivered` more have arrived;
    /// `una` is the first segment not acknowledged, `next` the first not sent.
    pub fn on_ack(&mut self, told: u64, delivered: u64, una: u64, next: u64) -> Option<Yield> {
        let news = told.saturating_sub(self.told);
        self.told += news;
        self.delivered += delivered;
        self.marked += news;
        if una >= self.round_ends && self.delivered > 0 {
            if let Some(share) = &mut self.share {
                *share += GAIN * (self.marked as f64 / self.delivered as f64 - *share);
            }
            (self.delivered, self.marked) = (0, 0);
            self.round_ends = next;
        }
        if news == 0 || una < self.yielded_up_to {
            return None;
        }
        self.yielded_up_to = next;
        let to = |share: f64| Yield::To(1.0 - share.clamp(0.0, 1.0) / 2.0);
        Some(self.share.map_or(Yield::AsToLoss, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classic_sender_yields_once_in_a_round_trip() {
        let mut marks = Marks::new(Algorithm::CubicEcn);
        assert_eq!(marks.on_ack(0, 2, 2, 12), None);
        assert_eq!(marks.on_ack(1, 2, 4, 14), Some(Yield::AsToLoss));
        assert_eq!(marks.on_ack(3, 2, 6, 16), None, "the same round trip");
        assert_eq!(marks.on_ack(3, 8, 14, 24), None, "nothing new");
        assert_eq!(marks.on_ack(4, 2, 16, 26), Some(Yield::AsToLoss));
    }

    #[test]
    fn a_scalable_sender_yields_little_to_few_marks() {
        let mut marks = Marks::new(Algorithm::Prague);
        let mut last = None;
        // One segment of ten is marked, for many round trips.
        for round in 1..=200 {
            last = marks.on_ack(round, 10, 10 * round, 10 * (round + 1));
        }
        let Some(Yield::To(share)) = last else {
            panic!("each of these round trips had a mark: {last:?}");
        };
        assert!((share - 0.95).abs() < 0.01, "{share}");
    }
}
