//! The other workers of a server, as one of them sees them.
//!
//! Each has a channel to each other one for what arrived at the wrong worker
//! ([`Handover`]). A channel holds a bounded number; a worker that is too busy to
//! empty its own loses what comes on top, which is counted where it came from, and
//! holds up nobody. A lone driver has no neighbours and never asks.

use std::task::{Context, Poll};

use marline_proto::{Handover, limits};
use tokio::sync::mpsc;

/// What one worker has of the others.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// By their numbers; our own place is empty.
    to: Vec<Option<mpsc::Sender<Handover>>>,
    from: mpsc::Receiver<Handover>,
    /// What ended the last wait.
    first: Option<Handover>,
}

impl Neighbours {
    /// As many workers as `count` that know each other.
    pub(super) fn among(count: usize) -> Vec<Self> {
        let channels = (0..count).map(|_| mpsc::channel(limits::HANDOVERS));
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        let neighbours = |(own, from)| Neighbours {
            to: senders
                .iter()
                .enumerate()
                .map(|(number, sender)| (number != own).then(|| sender.clone()))
                .collect(),
            from,
            first: None,
        };
        receivers.into_iter().enumerate().map(neighbours).collect()
    }

    /// Gives the worker with this number something; returns it where there is no room.
    pub(super) fn give(&self, worker: u8, handover: Handover) -> Option<Handover> {
        let Some(Some(to)) = self.to.get(usize::from(worker)) else {
            return Some(handover);
        };
        match to.try_send(handover) {
            Ok(()) => None,
            Err(
                mpsc::error::TrySendError::Full(handover)
                | mpsc::error::TrySendError::Closed(handover),
            ) => Some(handover),
        }
    }

    /// The next thing that another worker had for us.
    pub(super) fn take(&mut self) -> Option<Handover> {
        self.first.take().or_else(|| self.from.try_recv().ok())
    }

    /// Whether there is something to take; the task is woken when there will be.
    pub(super) fn poll_any(&mut self, cx: &mut Context<'_>) -> bool {
        if self.first.is_none()
            // A closed channel only means that the others stopped before us.
            && let Poll::Ready(Some(handover)) = self.from.poll_recv(cx)
        {
            self.first = Some(handover);
        }
        self.first.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marline_proto::PacketBuf;

    fn packet(number: u8) -> Handover {
        Handover::Packet(PacketBuf::copy_of(&[number]))
    }

    fn number(handover: &Handover) -> u8 {
        match handover {
            Handover::Packet(packet) => packet.bytes()[0],
            Handover::Datagram { .. } => panic!("only packets were given"),
        }
    }

    #[test]
    fn a_full_queue_gives_back_what_does_not_fit_and_takes_again_when_it_was_emptied() {
        let [one, mut two] = <[_; 2]>::try_from(Neighbours::among(2)).expect("two");
        for _ in 0..limits::HANDOVERS {
            assert!(one.give(1, packet(1)).is_none(), "there is room");
        }
        let back = one.give(1, packet(2));
        assert_eq!(back.as_ref().map(number), Some(2), "there is none");
        let taken = std::iter::from_fn(|| two.take()).count();
        assert_eq!(taken, limits::HANDOVERS);
        assert!(one.give(1, packet(3)).is_none(), "there is room again");
        assert_eq!(two.take().as_ref().map(number), Some(3));
        assert!(two.take().is_none());
    }

    #[test]
    fn nobody_gives_to_himself_or_to_a_worker_that_is_not_there() {
        let [one, _two] = <[_; 2]>::try_from(Neighbours::among(2)).expect("two");
        assert!(one.give(0, packet(1)).is_some(), "that is itself");
        assert!(one.give(2, packet(1)).is_some(), "there are two");
    }

    #[tokio::test]
    async fn what_is_given_wakes_who_waits_and_a_neighbour_that_left_does_not() {
        let [one, mut two] = <[_; 2]>::try_from(Neighbours::among(2)).expect("two");
        let waiting = tokio::spawn(async move {
            std::future::poll_fn(|cx| match two.poll_any(cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            let first = two.take().as_ref().map(number);
            (two, first)
        });
        tokio::task::yield_now().await;
        assert!(one.give(1, packet(7)).is_none(), "there is room");
        let (mut two, first) = waiting.await.expect("no panic");
        assert_eq!(first, Some(7));
        drop(one);
        let asked = std::future::poll_fn(|cx| Poll::Ready(two.poll_any(cx))).await;
        assert!(!asked, "nothing is there, and nothing will be");
    }
}
