//! The start of a path: what arrives raises the estimate, and twice as much is sent, until a queue shows.
//!
//! A delay above its base is a queue only if something filled it. What is said over an idle path, greetings, probes and pings,
//! is few and far between, and held up by jitter it looks like a queue on a very slow link. So a delay ends a start only when
//! the path was asked for all it gives, or when many datagrams arrived in a round trip; and where it jitters, only when it is far
//! above the noise. Until some acknowledgements have shown whether it jitters, it says nothing by itself. That the pings of a
//! train lie close together is no such look: all of them pass within some milliseconds.
//!
//! What always ends it is a queue beside a rate that falls short of what was asked of the path, and some round trips without
//! growth.

use crate::time::Time;

use super::{NOISY_SPAN_US, Phase, RateController, RateSample, STARTUP_GAIN};

/// How many round trips without 25 % growth end the start (BBR).
const FULL_PIPE_ROUNDS: u32 = 3;
/// While a path starts, its rate is taken over a span of so many times the usual scatter of its delay at least.
const SCATTERS: f64 = 25.0;
/// Datagrams in a round trip that can make a queue on a path that could have carried more: a sender's first window has ten
/// (RFC 6928), and what is said over an idle path, with its probes, comes in fewer.
const PUSHED: u32 = 8;

impl RateController {
    /// Takes in an acknowledgement.
    pub(super) fn startup(&mut self, now: Time, s: &RateSample, target: f64) {
        let span = (s.rtt_min.as_micros() as u64 / 2).clamp(8_000, 40_000);
        // The highest rate is believed, and jitter squeezes much into some short spans by chance. So they must be long.
        let scatter = (SCATTERS * self.delay.noise_ms() * 1e3) as u64;
        let span = span.max(scatter.min(NOISY_SPAN_US));
        let rates = self.delivery.rates(span, 0);
        if let Some(rates) = rates {
            self.seen = self.seen.max(rates.arrived);
            self.capacity = self.capacity.max(rates.arrived);
        }
        self.pace = self.capacity * STARTUP_GAIN;
        let threshold = (target + 1.5).max(s.rtt_min.as_secs_f64() * 1e3 / 8.0);
        let short = rates.is_some_and(|rates| self.falls_short(&rates));
        let noisy = self.is_noisy() || self.delay.is_scattered();
        let far_above = self.queue_ms() > threshold + self.far_ms();
        let pushed = !s.limited || self.round_acked >= PUSHED;
        let told = self.delay.knows_noise() && (!noisy || far_above);
        let sure = short && !s.limited || pushed && told;
        self.startup_over = if self.queue_ms() > threshold && sure {
            self.startup_over + 1
        } else {
            0
        };
        if self.startup_over >= 2 || self.flat_rounds >= FULL_PIPE_ROUNDS {
            // The queue proves that the link was busy: what arrived last is its rate.
            let span = if noisy { NOISY_SPAN_US } else { 15_000 };
            if let Some(rate) = self
                .delivery
                .rate(span, 0)
                .filter(|_| self.startup_over >= 2)
            {
                // A window that was half idle shows less than earlier ones did; the first guess shows nothing.
                self.capacity = rate.max(self.round_rate / 2.0);
            }
            self.phase = Phase::Cruise;
            self.pace = self.capacity;
            self.last_empty = now;
        }
    }
}
