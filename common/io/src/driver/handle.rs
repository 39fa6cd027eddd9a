//! How everybody else talks to the loops: as if there were one.
//!
//! A server with several workers has one handle. An order goes to all of them or to
//! the one that it concerns, and their answers are put together.
//!
//! Which worker a peer gets is decided here, when it is admitted: the one that has
//! the fewest, and it keeps it for as long as it is admitted. A restart deals them
//! out anew, which nobody can notice: all sessions are new then, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use marline_proto::{Command, Detail, Event, Key, Snapshot, SocketId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::DriverStats;
use crate::udp::UplinkSocket;

/// What a loop is asked for.
#[derive(Debug)]
pub(super) enum Order {
    AddSocket(SocketId, UplinkSocket),
    RemoveSocket(SocketId),
    Command(Command),
    Snapshot(Detail, oneshot::Sender<Snapshot>),
    Stats(oneshot::Sender<DriverStats>),
    Stop,
}

/// Talks to a running [`Driver`](super::Driver), or to all workers of a server. Calls to one that
/// has ended do nothing. When the last handle is dropped the drivers stop.
#[derive(Clone, Debug)]
pub struct Handle {
    workers: Vec<mpsc::Sender<Order>>,
    /// Whose each admitted peer is; asked for orders only, never for a packet.
    places: Arc<Mutex<Places>>,
    events: broadcast::WeakSender<Event>,
}

impl Handle {
    pub(super) fn new(
        workers: Vec<mpsc::Sender<Order>>,
        events: broadcast::WeakSender<Event>,
    ) -> Self {
        let places = Places {
            peers: vec![0; workers.len()],
            of: BTreeMap::new(),
        };
        Handle {
            workers,
            places: Arc::new(Mutex::new(places)),
            events,
        }
    }

    /// Gives the driver a socket. One with the same id is closed and replaced.
    pub async fn add_socket(&self, id: SocketId, socket: UplinkSocket) {
        self.add_sockets(id, vec![socket]).await;
    }

    /// Gives each worker its socket of one address, in their order.
    pub async fn add_sockets(&self, id: SocketId, sockets: Vec<UplinkSocket>) {
        for (worker, socket) in self.workers.iter().zip(sockets) {
            order(worker, Order::AddSocket(id, socket)).await;
        }
    }

    /// Takes a socket away and closes it.
    pub async fn remove_socket(&self, id: SocketId) {
        for worker in &self.workers {
            order(worker, Order::RemoveSocket(id)).await;
        }
    }

    /// Tells the core something.
    pub async fn command(&self, command: Command) {
        let place = match &command {
            Command::AddPeer(peer) => self.places().take(peer.public),
            Command::RemovePeer(key) => {
                self.places().give_up(key);
                0
            }
            _ => 0,
        };
        for (number, worker) in self.workers.iter().enumerate() {
            let told = match &command {
                Command::AddPeer(peer) if number != place => Command::NotePeer {
                    peer: peer.clone(),
                    worker: place as u8,
                },
                other => other.clone(),
            };
            order(worker, Order::Command(told)).await;
        }
    }

    /// A picture of everything, with flows as far as they are asked for; `None` when a driver has ended.
    pub async fn snapshot(&self, detail: &Detail) -> Option<Snapshot> {
        let mut whole = Snapshot::default();
        let order = |answer| Order::Snapshot(detail.clone(), answer);
        for part in self.ask(order).await {
            whole.add(part?);
        }
        Some(whole)
    }

    /// What the loops have counted; `None` when one has ended.
    pub async fn stats(&self) -> Option<DriverStats> {
        let mut whole = DriverStats::default();
        for part in self.ask(Order::Stats).await {
            whole.add(&part?);
        }
        Some(whole)
    }

    /// News from the core, from now on. The stream is closed when the last driver ends.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// Says goodbye on every path, and returns when all drivers have ended.
    pub async fn stop(&self) {
        for worker in &self.workers {
            order(worker, Order::Stop).await;
        }
        for worker in &self.workers {
            worker.closed().await;
        }
    }

    /// Asks all workers, then waits for their answers.
    pub(super) async fn ask<T>(
        &self,
        question: impl Fn(oneshot::Sender<T>) -> Order,
    ) -> Vec<Option<T>> {
        let mut asked = Vec::new();
        for worker in &self.workers {
            let (answer, answered) = oneshot::channel();
            order(worker, question(answer)).await;
            asked.push(answered);
        }
        let mut answers = Vec::new();
        for answered in asked {
            answers.push(answered.await.ok());
        }
        answers
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        // Nothing in there panics half way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn order(worker: &mpsc::Sender<Order>, order: Order) {
    // It only fails when the driver has ended, and then there is nothing to do.
    let _ = worker.send(order).await;
}

/// Whose the peers are.
#[derive(Debug)]
struct Places {
    /// How many peers each worker has.
    peers: Vec<usize>,
    of: BTreeMap<Key, usize>,
}

impl Places {
    /// The worker of a peer, which gets one if it has none.
    fn take(&mut self, peer: Key) -> usize {
        let peers = &mut self.peers;
        *self.of.entry(peer).or_insert_with(|| {
            let fewest = peers.iter().enumerate().min_by_key(|(_, count)| **count);
            let (place, _) = fewest.expect("there is a worker");
            peers[place] += 1;
            place
        })
    }

    fn give_up(&mut self, peer: &Key) {
        if let Some(place) = self.of.remove(peer) {
            self.peers[place] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_the_worker_that_has_the_fewest_and_keeps_it() {
        let mut places = Places {
            peers: vec![0; 3],
            of: BTreeMap::new(),
        };
        let taken: Vec<usize> = (0..6).map(|peer| places.take([peer; 32])).collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
        assert_eq!(places.take([4; 32]), 1, "it has one already");
        places.give_up(&[4; 32]);
        places.give_up(&[4; 32]);
        assert_eq!(places.take([9; 32]), 1, "the others have two");
        assert_eq!(places.peers, [2, 2, 2]);
    }
}
