//! The daemon's notice board: it pins up what it knows, and those who ask
//! through the control socket read it there, without disturbing its loop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use marline_io::control::Answer;
use marline_io::driver::Handle;
use marline_io::failure::Failure;
use marline_proto::{Class, Command, Detail, Mode, Modes};
use tokio::sync::{Notify, mpsc};

use crate::control::{News, Reply, Request, Status, Stopped, now_unix_s};
use crate::uplinks::UplinkReport;

/// News that are kept for `status`: enough for the story of a bad hour.
const NEWS_MAX: usize = 50;

/// How often a live status is sent: more would be faster than the eye.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What the daemon shows to those who ask.
#[derive(Debug)]
pub struct Board {
    handle: Handle,
    /// Everything but the core's counters.
    shown: Mutex<Shown>,
    /// Held while they are changed, so that the core hears of changes in their order.
    modes: tokio::sync::Mutex<Modes>,
    /// Somebody asked to stop.
    pub stop_wanted: Notify,
    /// What those who asked to stop are told.
    stop_askers: Mutex<Vec<mpsc::Sender<Reply>>>,
}

#[derive(Debug)]
struct Shown {
    status: Status,
    news: VecDeque<News>,
}

impl Board {
    /// A board for a client whose core answers through `handle`.
    pub fn new(handle: Handle, interface: &str, modes: Modes) -> Self {
        let status = Status {
            interface: interface.to_owned(),
            pid: std::process::id(),
            started_unix_s: now_unix_s(),
            ..Status::default()
        };
        Board {
            handle,
            shown: Mutex::new(Shown {
                status,
                news: VecDeque::new(),
            }),
            modes: tokio::sync::Mutex::new(modes),
            stop_wanted: Notify::new(),
            stop_askers: Mutex::default(),
        }
    }

    /// Shows these uplinks from now on.
    pub fn show_uplinks(&self, uplinks: Vec<UplinkReport>) {
        lock(&self.shown).status.uplinks = uplinks;
    }

    /// Shows whether the machine's traffic goes through the bond.
    pub fn show_routed(&self, routed: bool) {
        lock(&self.shown).status.routed = routed;
    }

    /// Adds a piece of news; the oldest makes room.
    pub fn tell(&self, text: String) {
        let mut shown = lock(&self.shown);
        if shown.news.len() == NEWS_MAX {
            shown.news.pop_front();
        }
        shown.news.push_back(News {
            at_unix_s: now_unix_s(),
            text,
        });
    }

    /// A picture of everything now.
    pub async fn status(&self) -> Status {
        let snapshot = self
            .handle
            .snapshot(&Detail::Flows)
            .await
            .unwrap_or_default();
        let driver = self.handle.stats().await.unwrap_or_default();
        let modes = *self.modes.lock().await;
        let shown = lock(&self.shown);
        Status {
            up: snapshot.bonds.iter().any(|bond| bond.up),
            modes,
            news: shown.news.iter().cloned().collect(),
            snapshot,
            driver,
            ..shown.status.clone()
        }
    }

    async fn set_mode(&self, class: Option<Class>, mode: Mode) -> Modes {
        let mut modes = self.modes.lock().await;
        let wanted = modes.with(class, mode);
        if *modes != wanted {
            *modes = wanted;
            self.handle.command(Command::SetModes(wanted)).await;
            self.tell(format!("the mode is {wanted} now"));
        }
        wanted
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request) -> Result<Answer<Reply>, Failure> {
        match request {
            Request::Status => Ok(Answer::Once(Reply::Status(Box::new(self.status().await)))),
            Request::Uplinks => Ok(Answer::Once(Reply::Uplinks(
                lock(&self.shown).status.uplinks.clone(),
            ))),
            Request::Modes => Ok(Answer::Once(Reply::Modes(*self.modes.lock().await))),
            Request::SetMode { mode, class } => {
                let modes = self.set_mode(class, mode).await;
                Ok(Answer::Once(Reply::Modes(modes)))
            }
            Request::Watch => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(async move {
                    let mut clock = tokio::time::interval(WATCH_EVERY);
                    loop {
                        clock.tick().await;
                        let status = Reply::Status(Box::new(self.status().await));
                        if sender.send(status).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Answer::Stream(receiver))
            }
            Request::Down => {
                let (sender, receiver) = mpsc::channel(1);
                lock(&self.stop_askers).push(sender);
                self.stop_wanted.notify_one();
                Ok(Answer::Stream(receiver))
            }
        }
    }

    /// Tells those who asked to stop that it is done. Their connections end with it.
    pub fn tell_stopped(&self, put_back: usize) {
        for asker in lock(&self.stop_askers).drain(..) {
            // An asker that hung up does not want to know.
            let _ = asker.try_send(Reply::Down(Stopped { put_back }));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
