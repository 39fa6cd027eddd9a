//! A first guess of a path's rate, before anything depends on it.
//!
//! Which paths a long flow needs is to be known when its first packet comes
//! ([`crate::span`]), and the link that carries the most may lie far behind the
//! others. So a path that has just shaken hands sends short trains of pings, padded
//! to the size of data, back to back. Each is answered at once, and the stamps of the
//! answers tell how far apart they arrived: as far as the narrowest link on the way
//! lets them, however the answers fare on their way back.
//!
//! The first train is so short that a thin uplink is blocked for a moment only. If it
//! went by quickly, a second one is long enough for the link's jitter to matter less.
//! What the jitter may have done stays in the guess: it is two rates, between which the
//! true one is expected.
//!
//! Both trains are 92 kB at most (12 kB on a link below 8 Mbit/s), once in a path's life.
//! A backup sends none.

use crate::stamp;

/// Pings of the first train: 100 ms on a link of 1 Mbit/s.
const FIRST: u32 = 10;
/// Pings of the second train at most: 6 ms on a link of 100 Mbit/s.
const SECOND_MAX: u32 = 64;
/// How long the second train is to last, seconds. A first one that lasted longer is enough.
const LAST_FOR_S: f64 = 0.012;
/// Bytes of each ping before sealing: every path carries them (IPv6 promises 1,280 with all headers).
const TRAIN_PING_LEN: usize = 1_180;
/// The same on the wire, with WireGuard's header and tag, UDP and IPv4.
const WIRE_LEN: f64 = 1_240.0;
/// Beyond 100 Mbit/s even the long train is over before it tells anything.
const GUESS_MAX: f64 = 12.5e6;
/// Sets their numbers apart from those of other pings.
const ID_BASE: u32 = 0x8000_0000;

/// Bytes per second between which a rate lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// Hardly less.
    pub low: f64,
    /// Hardly more.
    pub high: f64,
    /// How far apart the delays of the train's pings were, milliseconds.
    pub scatter_ms: f64,
}

/// Where a path stands with its trains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeTrain {
    /// Whether the first was begun, and the second.
    begun: bool,
    second: bool,
    /// Numbers of the present train: the first, the next to be sent, the end.
    start: u32,
    next: u32,
    end: u32,
    /// Place in the train, and stamp of its answer.
    answers: Vec<(u32, u32)>,
    guess: Option<Guess>,
}

impl ProbeTrain {
    /// The path works: the first train may leave.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.end = FIRST;
        }
    }

    /// Whether a ping waits to be sent.
    pub fn has_next(&self) -> bool {
        self.next < self.end
    }

    /// The number of the next ping to be sent.
    pub fn poll_next(&mut self) -> Option<u32> {
        let id = self.has_next().then_some(ID_BASE + self.next)?;
        self.next += 1;
        Some(id)
    }

    /// An answer, with the stamp at which it left.
    pub fn on_pong(&mut self, id: u32, sent: u32) {
        let Some(n) = id.checked_sub(ID_BASE) else {
            return;
        };
        if !(self.start..self.end).contains(&n) {
            return;
        }
        self.answers.push((n - self.start, sent));
        let length = self.end - self.start;
        let Some(guess) = guess(&self.answers, length) else {
            return;
        };
        self.guess = Some(guess);
        let wanted = (guess.high * LAST_FOR_S / WIRE_LEN) as u32;
        let over = !self.has_next() && n + 3 >= self.end;
        if over && !self.second && wanted > FIRST {
            self.second = true;
            (self.start, self.next) = (self.end, self.end);
            self.end += wanted.min(SECOND_MAX);
            self.answers.clear();
        }
    }

    /// What they found.
    pub fn guess(&self) -> Option<Guess> {
        self.guess
    }
}

/// What the answers of a train of `length` pings tell. Less than half of it says less than a guess is worth.
fn guess(answers: &[(u32, u32)], length: u32) -> Option<Guess> {
    let (&(first, start), &(last, end)) = (answers.first()?, answers.last()?);
    let places = last.checked_sub(first).filter(|&p| p * 2 >= length)?;
    let apart = |stamp| f64::from(stamp::difference(stamp, start));
    let span = apart(end).max(0.0);
    // How far the arrivals lie off the even beat of the link.
    let off = answers.iter().map(|&(place, at)| {
        apart(at) - span * f64::from(place.saturating_sub(first)) / f64::from(places)
    });
    let (least, most) = off.fold((0.0f64, 0.0f64), |(l, m), o| (l.min(o), m.max(o)));
    let scatter = most - least;
    let rate = |units: f64| {
        let seconds = units.max(1.0) * stamp::UNIT_NS as f64 / 1e9;
        (f64::from(places) * WIRE_LEN / seconds).min(GUESS_MAX)
    };
    Some(Guess {
        low: rate(span + scatter),
        high: rate(span - scatter),
        scatter_ms: scatter * stamp::UNIT_NS as f64 / 1e6,
    })
}

/// Lengthens an encoded ping to the size of data (docs/protocol.md, section 8). The other side does not read the zeros.
pub fn lengthen(ping: &mut Vec<u8>) {
    ping.resize(TRAIN_PING_LEN, 0);
    ping[2..4].copy_from_slice(&(TRAIN_PING_LEN as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the trains over a link where a ping takes `apart` stamp units. Returns the guess and the pings sent.
    fn play(apart: u32, lost: &[u32], jitter: &[u32]) -> (Option<Guess>, u32) {
        let mut train = ProbeTrain::default();
        assert!(!train.has_next());
        train.begin();
        let (mut at, mut sent) = (0, 0);
        while let Some(id) = train.poll_next() {
            at += apart;
            if !lost.contains(&sent) {
                train.on_pong(id, at + jitter.get(sent as usize).unwrap_or(&0));
            }
            sent += 1;
        }
        train.begin();
        assert!(!train.has_next(), "once in a path's life");
        (train.guess(), sent)
    }

    #[test]
    fn the_rate_is_that_at_which_the_train_arrived() {
        // 1,240 bytes per 8 ms.
        let (found, sent) = play(1_000, &[], &[]);
        assert_eq!(sent, FIRST, "a thin link is not asked twice");
        let found = found.expect("every ping was answered");
        assert!((found.low - 155_000.0).abs() < 1.0, "{found:?}");
        assert!((found.high - 155_000.0).abs() < 1.0, "{found:?}");
        assert_eq!(
            play(1_000, &[3, 6], &[]).0,
            Some(found),
            "lost ones took their time, too"
        );
    }

    #[test]
    fn a_quick_link_is_asked_twice() {
        // 1,240 bytes per 160 µs: 7.75 MB/s.
        let (found, sent) = play(20, &[], &[]);
        assert_eq!(sent, FIRST + SECOND_MAX);
        assert!(
            (found.expect("it was answered").low - 7.75e6).abs() < 1e3,
            "{found:?}"
        );
    }

    #[test]
    fn what_jitter_may_have_done_stays_in_the_guess() {
        let (found, _) = play(1_000, &[], &[0, 0, 0, 900, 0, 0, 0, 0, 0, 0]);
        let found = found.expect("every ping was answered");
        assert!(found.low < 145_000.0 && found.high > 165_000.0, "{found:?}");
    }

    #[test]
    fn half_a_train_says_nothing() {
        let late: Vec<u32> = (5..FIRST).collect();
        assert_eq!(play(1_000, &late, &[]).0, None);
        let mut train = ProbeTrain::default();
        train.on_pong(3, 9);
        assert_eq!(train.guess(), None, "an answer to something else");
    }
}
