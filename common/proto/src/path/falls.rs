//! How often a path went out of service of late.
//!
//! Any path may die once, and that says little of what it will do when it is back: it proves itself before it is used
//! again, and a death is noticed in time anyway. One that goes twice within a short while will go a third time.

use std::time::Duration;

use crate::time::Time;

/// Two falls within this time are many.
const LATELY: Duration = Duration::from_secs(20);

/// The last two falls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Falls {
    last: Option<Time>,
    before: Option<Time>,
}

impl Falls {
    /// It goes out of service now.
    pub fn note(&mut self, now: Time) {
        self.before = self.last.replace(now);
    }

    /// When it last did.
    pub fn last(&self) -> Option<Time> {
        self.last
    }

    /// Whether there were two lately.
    pub fn are_many(&self, now: Time) -> bool {
        self.before.is_some_and(|at| now.since(at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fall_is_none_and_two_are_many_for_a_while() {
        let mut falls = Falls::default();
        let at = |s: u64| Time::from_millis(s * 1_000);
        assert!(!falls.are_many(at(1)));
        falls.note(at(5));
        assert!(!falls.are_many(at(6)));
        falls.note(at(9));
        assert!(falls.are_many(at(10)));
        assert!(!falls.are_many(at(26)));
    }
}
