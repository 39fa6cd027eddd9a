//! What the best path does not keep up with and nobody waits for in order: it takes another path.

use std::time::Duration;

use super::pick::Pick;
use super::{Bond, Context};
use crate::classify::Class;
use crate::flow::Flow;
use crate::time::Time;

/// What needs no order takes another path when it waited this long for the best one, beside a packet's time: below the
/// target at which CoDel begins to drop.
const OVERFLOWS_AFTER: Duration = Duration::from_millis(3);

impl Bond {
    /// What nobody waits for in order leaves over another path when the best one does not keep up with it. These are
    /// the acknowledgements of a download that is faster than a thin, quick uplink can bear: they would wait there ever
    /// longer, and the download with them.
    pub(super) fn pick_overflow(
        &mut self,
        now: Time,
        only: Option<usize>,
        ctx: &mut Context<'_>,
    ) -> Option<(u8, Pick)> {
        if !self.queue.has(Class::Interactive) {
            return None;
        }
        let best = *self.order.best()?;
        // A packet that is on its way holds up the next one on any path.
        let packet = Duration::from_secs_f64(1_500.0 / best.capacity.max(1.0));
        let patience = OVERFLOWS_AFTER + packet;
        for at in 1..self.order.usable.len() {
            let view = self.order.usable[at];
            let index = view.index;
            let spared = view.role != best.role || self.order.trial == Some(index);
            if spared || only.is_some_and(|o| o != index) || !self.can_send(now, index) {
                continue;
            }
            let may = |flow: &mut Flow| {
                let first = flow.queue.front();
                first.is_some_and(|q| !q.ordered && now.since(q.since) >= patience)
            };
            if let Some(pick) = self.pop(now, Class::Interactive, may, ctx) {
                return Some((self.paths[index].tag, pick));
            }
        }
        None
    }
}
