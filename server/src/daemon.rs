//! Start and stop of the server, in order, each step with its undo.
//!
//! | step | undone by |
//! |---|---|
//! | control socket: also finds out whether another daemon runs | closing it |
//! | settings, key, peers and the machine are read; nothing is changed | – |
//! | UDP sockets | closing them |
//! | TUN, and the workers that own both | stopping them; the TUN goes with the last, and its addresses and routes with the TUN |
//! | journal, nftables table, sysctls | [`nat::apply::undo`] |
//! | inner addresses | go with the TUN |
//! | peers are admitted | – |
//!
//! Whatever can fail without having changed anything comes first. Each worker, a
//! driver with its part of the peers, has a thread of its own, so that a slow disk or a
//! large status never delays a packet. When one ends, the server does.
//!
//! A daemon that is killed leaves the table, the sysctls and the journal behind, on purpose:
//! the next one takes them over in place and connections through it go on. What
//! a final `marline-server restore` is for is a server that will not start again.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marline_io::clock::Clock;
use marline_io::control::{Answer, ControlServer};
use marline_io::driver::{Driver, Handle};
use marline_io::failure::{Class, Context, Failure};
use marline_io::netlink::Netlink;
use marline_io::tun::{Tun, TunOptions};
use marline_io::udp::UplinkSocket;
use marline_io::{key, signal};
use marline_proto::{
    BondSnapshot, Detail, Endpoint, Event, Key, PeerConfig, ServerConfig, SocketId,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, Notify, broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::admission::{Admission, on_disk};
use crate::control::{PeerView, Reply, Request, Status};
use crate::invitation::{self, For};
use crate::nat::{self, Plan, Wanted};
use crate::peers::{self, Moment, PeerStore, PublicKey};
use crate::settings::Settings;

/// Packets that the kernel keeps for us while the loop is busy elsewhere: some milliseconds at a
/// gigabit per second. More would be latency, since fair queueing starts only behind it.
const TUN_QUEUE_PACKETS: u32 = 1000;

/// The shortest time between two replies to a watcher, milliseconds.
const WATCH_INTERVAL_MS_MIN: u64 = 100;

/// The longest time between two replies to a watcher, milliseconds.
const WATCH_INTERVAL_MS_MAX: u64 = 60_000;

/// How long an unreadable peer store is left alone.
const RETRY_STORE_AFTER: Duration = Duration::from_secs(10);

/// Where the journal is.
pub fn journal_file(state_dir: &Path) -> PathBuf {
    state_dir.join("undo.json")
}

/// Looks at the machine and says what [`run`] would change.
pub async fn plan(settings: &Settings) -> Result<Plan, Failure> {
    nat::plan(&Wanted::by(settings), &nat::apply::facts().await?)
}

/// Runs the server until it is asked to stop.
pub async fn run(settings: Settings, state_dir: &Path, control: &Path) -> Result<(), Failure> {
    let asked_to_stop = signal::shutdown()?;
    let control = ControlServer::bind(control, 0o600).map_err(|failure| match failure.class() {
        Class::Privilege => failure.with_advice("start the server as root"),
        _ => failure,
    })?;
    let secret = settings.secret()?;
    warn_of_readable_key(&settings);
    let store = PeerStore::at(&settings.peers);
    store.read()?;
    let plan = plan(&settings).await?;
    plan.warnings.iter().for_each(|warning| warn!("{warning}"));

    let data_plane = DataPlane::start(&settings, secret).await?;
    let journal = journal_file(state_dir);
    let served = async {
        apply(plan, journal.clone()).await?;
        give_addresses(&settings, data_plane.tun_index).await?;
        // From before the first peer is admitted, so that no first appearance is missed.
        let events = data_plane.handle.events();
        let mut admission = Admission::new(store, data_plane.handle.clone());
        admission.sync(Moment::now()).await?;
        info!(
            interface = settings.interface,
            listen = ?data_plane.listen,
            workers = settings.workers,
            peers = admission.known(),
            public_key = %PublicKey(key::public_of(&secret)),
            "the server is running"
        );
        let server = Arc::new(Server {
            public_key: PublicKey(key::public_of(&secret)),
            settings,
            handle: data_plane.handle.clone(),
            listen: data_plane.listen.clone(),
            started: Instant::now(),
            admission: Mutex::new(admission),
            calendar_changed: Notify::new(),
        });
        server
            .serve(control, asked_to_stop, events, data_plane.ended)
            .await
    }
    .await;

    data_plane.handle.stop().await;
    let undone = on_disk(move || nat::apply::undo(&journal)).await;
    match &undone {
        Ok(done) => done.iter().for_each(|sentence| debug!("{sentence}")),
        Err(failure) => warn!("not everything was put back: {failure}"),
    }
    served.and(undone.map(drop))
}

async fn apply(plan: Plan, journal: PathBuf) -> Result<(), Failure> {
    on_disk(move || nat::apply::apply(&plan, &journal)).await
}

async fn give_addresses(settings: &Settings, tun_index: u32) -> Result<(), Failure> {
    let netlink = Netlink::connect()?;
    for (address, prefix) in settings.own_addresses() {
        let added = netlink.add_address(tun_index, address, prefix).await;
        added.map_err(|failure| {
            let what = format!("cannot give {address} to {}", settings.interface);
            match address {
                IpAddr::V4(_) => failure.while_doing(what),
                IpAddr::V6(_) => failure
                    .while_doing(what)
                    .with_advice("if IPv6 is switched off on this machine, remove \"pool_v6\""),
            }
        })?;
    }
    Ok(())
}

fn warn_of_readable_key(settings: &Settings) {
    #[cfg(unix)]
    if let Some(file) = settings.secret_file() {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(file)
            .map(|meta| meta.permissions().mode())
            .unwrap_or(0);
        if mode & 0o077 != 0 {
            let file = file.display();
            warn!("others on this machine can read the private key: run \"chmod 600 {file}\"");
        }
    }
    #[cfg(not(unix))]
    let _ = settings;
}

/// The workers on their threads, with the TUN and the sockets.
struct DataPlane {
    handle: Handle,
    tun_index: u32,
    listen: Vec<SocketAddr>,
    /// Why a worker ended, if one did so by itself.
    ended: Ended,
}

/// Gives what the first worker to end says of it; nothing when its thread died.
type Ended = JoinSet<Option<std::io::Result<()>>>;

impl DataPlane {
    /// Opens everything and starts to move packets.
    ///
    /// Sockets first: a port in use is the likeliest hindrance and costs nothing to find out.
    async fn start(settings: &Settings, secret: Key) -> Result<Self, Failure> {
        let sockets = listen(settings)?;
        let listen = sockets
            .iter()
            .map(|together| together[0].local_addr())
            .collect::<Result<_, _>>()
            .context("cannot ask a socket for its address")?;
        let options = TunOptions {
            name: settings.interface.clone(),
            mtu: settings.mtu,
            txqueuelen: TUN_QUEUE_PACKETS,
            offload: settings.offload,
        };
        let queues = Tun::open_queues(&options, settings.workers).await?;
        let tun_index = queues[0].index();
        let clock = Clock::start();
        let config = ServerConfig {
            secret,
            mtu: settings.mtu,
        };
        let seeds = queues.iter().map(|_| key::fresh_seed());
        let seeds: Vec<_> = seeds.collect::<Result<_, _>>()?;
        let endpoints = Endpoint::workers(&config, &seeds);
        let workers = endpoints.into_iter().zip(queues).collect();
        let (drivers, handle) = Driver::workers(workers, clock);
        let mut ended = Ended::new();
        for (number, driver) in drivers.into_iter().enumerate() {
            let ending = start_worker(number, driver)?;
            ended.spawn(async move { ending.await.ok() });
        }
        for (id, together) in (0..).map(SocketId).zip(sockets) {
            handle.add_sockets(id, together).await;
        }
        Ok(DataPlane {
            handle,
            tun_index,
            listen,
            ended,
        })
    }
}

/// Runs a driver on a thread of its own, which says how it ended.
fn start_worker(
    number: usize,
    driver: Driver,
) -> Result<oneshot::Receiver<std::io::Result<()>>, Failure> {
    let what = "cannot start the data plane";
    let (ending, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(what)?;
    std::thread::Builder::new()
        .name(format!("data-{number}"))
        .spawn(move || {
            // Nobody listens any more when the daemon is stopping anyway.
            let _ = ending.send(runtime.block_on(driver.run()));
        })
        .context(what)?;
    Ok(ended)
}

/// For each address the sockets of all workers, in their order.
fn listen(settings: &Settings) -> Result<Vec<Vec<UplinkSocket>>, Failure> {
    let mut sockets = Vec::new();
    let mut refused = None;
    for address in &settings.listen {
        match UplinkSocket::listen_together(*address, settings.workers) {
            Ok(together) => {
                let trains = settings.offload.trains();
                let together = together
                    .into_iter()
                    .map(|socket| socket.with_trains(trains));
                sockets.push(together.collect());
            }
            // "Every IPv6 address" on a machine without IPv6 is none, which is no mistake.
            Err(error)
                if address.is_ipv6() && address.ip().is_unspecified() && no_family(&error) =>
            {
                warn!("not listening on {address}: this machine has no IPv6");
                refused.get_or_insert(cannot_listen(*address, &error));
            }
            Err(error) => return Err(cannot_listen(*address, &error)),
        }
    }
    match refused {
        Some(failure) if sockets.is_empty() => Err(failure),
        _ => Ok(sockets),
    }
}

/// Whether the kernel lacks the address's IP version.
fn no_family(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrNotAvailable
        || error.kind() == std::io::ErrorKind::Unsupported
        || error.to_string().contains("Address family not supported")
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::io(format_args!("cannot listen on UDP {address}"), error);
    let port = address.port();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => failure.with_advice(format!(
            "see who has it with \"ss -ulpn 'sport = :{port}'\", or choose another port in \"listen\""
        )),
        std::io::ErrorKind::PermissionDenied => failure.with_advice(
            "start the server as root or with CAP_NET_BIND_SERVICE, or choose a port above 1023 in \"listen\"",
        ),
        std::io::ErrorKind::AddrNotAvailable => failure.in_class(Class::Usage).with_advice(
            "\"listen\" takes addresses that this machine has, or \"0.0.0.0\" and \"[::]\" for all",
        ),
        _ => failure,
    }
}

/// What the control socket and the core's events work on.
struct Server {
    settings: Settings,
    public_key: PublicKey,
    handle: Handle,
    listen: Vec<SocketAddr>,
    started: Instant,
    admission: Mutex<Admission>,
    /// The store changed, and with it the moment at which the next join code expires.
    calendar_changed: Notify,
}

impl Server {
    async fn serve(
        self: Arc<Self>,
        control: ControlServer,
        asked_to_stop: impl Future<Output = &'static str>,
        events: broadcast::Receiver<Event>,
        mut ended: Ended,
    ) -> Result<(), Failure> {
        let answering = control.serve({
            let server = self.clone();
            move |request| server.clone().answer(request)
        });
        tokio::select! {
            reason = asked_to_stop => {
                info!("stopping: {reason}");
                Ok(())
            }
            answered = answering => answered,
            () = self.follow_events(events) => Err(data_plane_ended(None)),
            () = self.follow_calendar() => Ok(()),
            () = self.follow_hangups() => Ok(()),
            ended = ended.join_next() => {
                let said = ended.and_then(Result::ok).flatten();
                Err(data_plane_ended(said.and_then(Result::err)))
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Answer<Reply>, Failure> {
        let life = Duration::from_secs;
        let reply = match request {
            Request::Status => Reply::Status(Box::new(self.status(None).await?)),
            Request::StatusOf { peer } => Reply::Status(Box::new(self.status(Some(&peer)).await?)),
            Request::Watch { interval_ms, peer } => {
                return Ok(Answer::Stream(self.watch(interval_ms, peer)));
            }
            Request::PeerList => Reply::Peers(self.peer_list().await?),
            Request::PeerAdd { name, code_life_s } => {
                self.invite(name, false, life(code_life_s)).await?
            }
            Request::PeerRenew { name, code_life_s } => {
                self.invite(name, true, life(code_life_s)).await?
            }
            Request::PeerRemove { name } => self.remove(name).await?,
            Request::Reload => Reply::Reloaded {
                admitted: self.reload().await?,
            },
        };
        Ok(Answer::Once(reply))
    }

    /// How everything stands; of one peer alone, with its flows, when one is named.
    async fn status(&self, of: Option<&str>) -> Result<Status, Failure> {
        let detail = of.map_or(Detail::Paths, |peer| Detail::FlowsOf(peer.to_owned()));
        let mut snapshot = self
            .handle
            .snapshot(&detail)
            .await
            .ok_or_else(|| data_plane_ended(None))?;
        let driver = self
            .handle
            .stats()
            .await
            .ok_or_else(|| data_plane_ended(None))?;
        let admission = self.admission.lock().await;
        if let Some(name) = of {
            let peer = admission.named(name).ok_or_else(|| {
                Failure::usage(format!("there is no peer \"{name}\" that may connect"))
            })?;
            snapshot.bonds.retain(|bond| bond.name == name);
            if snapshot.bonds.is_empty() {
                snapshot.bonds.push(yet_to_come(peer, self.settings.mtu));
            }
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            public_key: self.public_key,
            interface: self.settings.interface.clone(),
            addresses: self
                .settings
                .own_addresses()
                .into_iter()
                .map(|(a, _)| a)
                .collect(),
            mtu: self.settings.mtu,
            nat: self.settings.nat,
            listen: self.listen.clone(),
            endpoints: self.settings.endpoints.clone(),
            peers: admission.known(),
            peers_admitted: admission.admitted(),
            workers: self.settings.workers,
            driver,
            snapshot,
        })
    }

    fn watch(self: Arc<Self>, interval_ms: u64, of: Option<String>) -> mpsc::Receiver<Reply> {
        // One reply may wait for a slow reader; more would only grow old.
        let (sender, receiver) = mpsc::channel(1);
        let interval = interval_ms.clamp(WATCH_INTERVAL_MS_MIN, WATCH_INTERVAL_MS_MAX);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(interval));
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = sender.closed() => return,
                }
                let Ok(status) = self.status(of.as_deref()).await else {
                    return;
                };
                if sender.send(Reply::Status(Box::new(status))).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    async fn peer_list(&self) -> Result<Vec<PeerView>, Failure> {
        let store = self.admission.lock().await.store().clone();
        let all = on_disk(move || store.read()).await?;
        let snapshot = self
            .handle
            .snapshot(&Detail::Paths)
            .await
            .unwrap_or_default();
        let up = |public: &PublicKey| {
            let public = public.to_string();
            snapshot
                .bonds
                .iter()
                .any(|bond| bond.up && bond.peer == public)
        };
        let now = Moment::now();
        Ok(all
            .iter()
            .map(|peer| PeerView::of(peer, now, Some(up(&peer.public_key))))
            .collect())
    }

    async fn invite(
        &self,
        name: String,
        known: bool,
        code_life: Duration,
    ) -> Result<Reply, Failure> {
        let mut admission = self.admission.lock().await;
        let settings = self.settings.clone();
        let logged = name.clone();
        let invitation = on_disk(move || {
            let whom = if known {
                For::Known(&name)
            } else {
                For::New(&name)
            };
            invitation::invite(&settings, whom, code_life, Moment::now())
        })
        .await?;
        admission.sync(Moment::now()).await?;
        self.calendar_changed.notify_one();
        info!(peer = logged, "a join code was made");
        Ok(Reply::Invitation(Box::new(invitation)))
    }

    async fn remove(&self, name: String) -> Result<Reply, Failure> {
        let mut admission = self.admission.lock().await;
        let store = admission.store().clone();
        let removed = on_disk(move || store.change(|all| peers::remove(all, &name))).await?;
        admission.sync(Moment::now()).await?;
        info!(peer = removed.name, "a peer was removed");
        Ok(Reply::Removed(PeerView::of(
            &removed,
            Moment::now(),
            Some(false),
        )))
    }

    async fn reload(&self) -> Result<usize, Failure> {
        let mut admission = self.admission.lock().await;
        admission.sync(Moment::now()).await?;
        self.calendar_changed.notify_one();
        info!(
            admitted = admission.admitted(),
            "the peer store was read again"
        );
        Ok(admission.admitted())
    }

    /// Logs what happens to bonds, and remembers who was seen. Returns when the driver is gone.
    async fn follow_events(&self, mut events: broadcast::Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(event) => self.handle_event(event).await,
                // What was missed matters only where it was a first appearance.
                Err(RecvError::Lagged(_)) => self.catch_up().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn handle_event(&self, event: Event) {
        match event {
            Event::PeerSeen { peer } => self.note_seen(peer).await,
            Event::BondUp { peer } => info!(peer = self.name(peer).await, "connected"),
            Event::BondDown { peer } => info!(peer = self.name(peer).await, "disconnected"),
            Event::PathUp { peer, path, reason } => {
                debug!(peer = self.name(peer).await, path, ?reason, "a path is up");
            }
            Event::PathDown { peer, path, reason } => {
                debug!(
                    peer = self.name(peer).await,
                    path,
                    ?reason,
                    "a path is down"
                );
            }
            Event::PeerRestarted { peer } => {
                info!(peer = self.name(peer).await, "started anew");
            }
        }
    }

    async fn catch_up(&self) {
        let Some(snapshot) = self.handle.snapshot(&Detail::Paths).await else {
            return;
        };
        for bond in snapshot.bonds.iter().filter(|bond| bond.up) {
            if let Ok(public) = key::decode(&bond.peer) {
                self.note_seen(public).await;
            }
        }
    }

    async fn note_seen(&self, public: Key) {
        let noted = self
            .admission
            .lock()
            .await
            .peer_seen(public, Moment::now())
            .await;
        if let Err(failure) = noted {
            warn!("cannot note in the peer store that a peer was seen: {failure}");
        }
    }

    async fn name(&self, public: Key) -> String {
        let admission = self.admission.lock().await;
        // A peer that was just removed is known by its key only.
        admission
            .name(&public)
            .map_or_else(|| key::encode(&public), str::to_owned)
    }

    /// Takes away peers whose join codes expire unused.
    async fn follow_calendar(&self) {
        loop {
            let wait = self.admission.lock().await.until_next_expiry(Moment::now());
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    if let Err(failure) = self.admission.lock().await.sync(Moment::now()).await {
                        warn!("cannot read the peer store: {failure}");
                        tokio::time::sleep(RETRY_STORE_AFTER).await;
                    }
                }
                () = self.calendar_changed.notified() => {}
            }
        }
    }

    /// Reads the peer store again on SIGHUP.
    async fn follow_hangups(&self) {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            match signal(SignalKind::hangup()) {
                Ok(mut hangups) => {
                    while hangups.recv().await.is_some() {
                        if let Err(failure) = self.reload().await {
                            warn!("the peer store was not read again: {failure}");
                        }
                    }
                }
                Err(error) => warn!("cannot catch SIGHUP: {error}"),
            }
        }
        std::future::pending().await
    }
}

/// The bond of a peer that may connect and has not.
fn yet_to_come(peer: &PeerConfig, mtu: u16) -> BondSnapshot {
    BondSnapshot {
        name: peer.name.clone(),
        peer: PublicKey(peer.public).to_string(),
        addresses: peer.addresses().collect(),
        mtu,
        ..BondSnapshot::default()
    }
}

fn data_plane_ended(error: Option<std::io::Error>) -> Failure {
    match error {
        Some(error) => Failure::io("the data plane ended", &error),
        None => Failure::new(Class::Other, "the data plane ended"),
    }
}
