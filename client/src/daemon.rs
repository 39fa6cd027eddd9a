//! The running client: start and stop in order, each step with its undo, and
//! between them one loop that reacts to what happens.
//!
//! ```text
//! start   control socket ─► put back what a killed run left ─► TUN and driver ─► addresses
//!         ─► uplinks (sockets, paths) ─► first answer of the server ─► rules and routes ─► DNS
//! stop    DNS, routes, rules, kernel settings (the journal, backwards) ─► goodbye on every path
//!         ─► TUN gone ─► control socket gone
//! ```
//!
//! Routes are taken only when the server has answered: until then, and if it
//! never does, the machine keeps the internet it had. Once taken they stay while
//! the bond is down, so that nothing goes past it and connections inside wait
//! for its return.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use marline_io::control::{ControlClient, ControlServer};
use marline_io::failure::{Class, Context, Failure};
use marline_io::join_code::ServerEndpoint;
use marline_io::netlink::Netlink;
use marline_io::signal;
use marline_io::udp::{Family, UplinkSocket};
use marline_proto::{ClientConfig, Command, Detail, Event, PathState, Snapshot, SocketId};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::board::Board;
use crate::control::{Reply, Request, Status};
use crate::diagnose;
use crate::dns;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::routing::{self, RoutePlan, RouteWish, apply};
use crate::settings::Settings;
use crate::show::reason_in_words;
use crate::uplinks::select::{Facts, Wish};
use crate::uplinks::watch::{Watcher, facts};
use crate::uplinks::{Uplink, UplinkChange, Uplinks, report};

/// How often the slow matters are looked after while something has yet to work.
const TICK: Duration = Duration::from_secs(2);

/// How often it is looked whether our rules and routes are still there, which nobody announces, and names are tried
/// again. While everything works, all else waits for this as well: what changes is announced, and the machine is to sleep.
const REPAIR_EVERY: Duration = Duration::from_secs(10);

/// How long a path may shake hands in vain before the server's next address is tried on its
/// uplink: a handshake is repeated after 0.25, 0.5, 1 and 2 seconds, so four were lost.
const GIVE_UP_ADDRESS: Duration = Duration::from_secs(6);

/// When a client that waits for ever says for the first time why it waits.
const EXPLAIN_AFTER: Duration = Duration::from_secs(10);

/// How long the goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long a killed client may take to vanish.
const DYING: Duration = Duration::from_secs(2);

/// Where a client keeps its things.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of the undo journal and the log.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control: PathBuf,
}

/// Runs until it is told to stop. `patience` is how long the server may take to answer at the
/// start; without it, the client waits for ever. `on_start` is called when the client runs and
/// answers requests, `on_up` once, when traffic flows.
pub async fn run(
    settings: Settings,
    places: &Places,
    patience: Option<Duration>,
    on_start: impl FnOnce(),
    on_up: impl FnOnce(Status),
) -> Result<(), Failure> {
    let stop_signal = signal::shutdown()?;
    check_machine()?;
    refuse_if_running(&places.control).await?;
    let control = ControlServer::bind(&places.control, 0o600)?;
    let netlink = Netlink::connect()?;
    let mut journal = Journal::open(&places.state_dir)?;
    if !journal.is_empty() {
        let count = journal.undo_all(&netlink).await?;
        tracing::warn!("put back {count} changes that a run which was killed had left");
    }
    if netlink.link(&settings.interface).await?.is_some() {
        let name = &settings.interface;
        return Err(Failure::new(
            Class::Conflict,
            format!("there is an interface {name} already"),
        )
        .with_advice("remove it, or set `interface` in the configuration to another name"));
    }
    let watcher = Watcher::start(netlink.clone())?;
    // Finds a conflict before anything is changed, not when the server answers.
    RoutePlan::new(
        &route_wish(&settings, 0, &[], &[]),
        &apply::look(&netlink).await?,
    )?;
    let config = ClientConfig {
        secret: settings.secret,
        server: settings.server,
        modes: settings.modes,
        mtu: settings.mtu,
    };
    let engine = Engine::start(config, &settings.interface, settings.offload).await?;
    let board = Arc::new(Board::new(
        engine.handle.clone(),
        &settings.interface,
        settings.modes,
    ));
    let answers = Arc::clone(&board);
    let serving = tokio::spawn(control.serve(move |request| Arc::clone(&answers).answer(request)));
    let mut daemon = Daemon {
        names: Names::new(&settings.endpoints),
        wish: Wish {
            interface: settings.interface.clone(),
            endpoints: Vec::new(),
            roles: settings.roles.clone(),
            ignore: settings.ignore.clone(),
        },
        settings,
        netlink,
        engine,
        board: Arc::clone(&board),
        uplinks: Uplinks::default(),
        path_names: BTreeMap::new(),
        added: BTreeMap::new(),
        journal,
        routed: false,
        settled: false,
    };
    on_start();
    let result = daemon.work(watcher, stop_signal, patience, on_up).await;
    let undone = daemon.stop().await;
    board.tell_stopped(*undone.as_ref().unwrap_or(&0));
    // The tasks that carry the answer are ready now; they run before this one goes on.
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    serving.abort();
    // The control socket's file goes with the task: whoever starts next must not find it.
    let _ = serving.await;
    result.and(undone.map(|_| ()))
}

/// Fails when a client answers at `control`. One that was killed a moment ago can still be
/// connected to until the kernel has taken it apart; it gets the time to go.
pub async fn refuse_if_running(control: &Path) -> Result<(), Failure> {
    let end = Instant::now() + DYING;
    loop {
        let ask = ControlClient::call::<_, Reply>(control, &Request::Uplinks);
        match timeout(DYING, ask).await {
            Ok(Err(failure)) if failure.class() == Class::NotRunning => return Ok(()),
            Ok(Err(_)) if Instant::now() < end => sleep(Duration::from_millis(10)).await,
            Ok(_) | Err(_) => {
                return Err(Failure::new(Class::Conflict, "Marline is running already")
                    .with_advice(
                        "look at it with `marline status`, or stop it with `marline down`",
                    ));
            }
        }
    }
}

/// Finds out early, and in plain words, what the machine cannot or will not do.
pub fn check_machine() -> Result<(), Failure> {
    if !has_net_admin() {
        return Err(Failure::new(
            Class::Privilege,
            "changing routes and making a TUN interface needs CAP_NET_ADMIN, which this process \
             does not have",
        )
        .with_advice("run it as root, or let systemd start it"));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(
            Failure::new(Class::Facility, "this system has no /dev/net/tun").with_advice(
                "load the module with `modprobe tun`; in a container, pass the device in",
            ),
        );
    }
    Ok(())
}

/// Whether the process has CAP_NET_ADMIN, number 12, in its effective set. If the system does
/// not say, the first forbidden call will.
fn has_net_admin() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let set = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        })
        .is_none_or(|set| set >> CAP_NET_ADMIN & 1 == 1)
}

fn route_wish(
    settings: &Settings,
    index: u32,
    endpoints: &[SocketAddr],
    uplinks: &[String],
) -> RouteWish {
    RouteWish {
        interface: settings.interface.clone(),
        index,
        mark: settings.mark,
        table: settings.table,
        routes: settings.routes.clone(),
        addresses: settings.addresses.clone(),
        servers: endpoints.iter().map(SocketAddr::ip).collect(),
        uplinks: uplinks.to_vec(),
    }
}

/// What `up` would change on this machine now.
#[derive(Debug, serde::Serialize)]
pub struct Plan {
    /// The TUN interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<ipnet::IpNet>,
    /// The largest inner packet, bytes.
    pub mtu: u16,
    /// Rules, routes and kernel settings.
    pub routing: RoutePlan,
    /// The resolver's settings.
    pub dns: Option<dns::Change>,
    /// The interfaces and what would become of them.
    pub uplinks: Vec<crate::uplinks::UplinkReport>,
}

/// Finds out what `up` would change, and changes nothing.
pub async fn plan(settings: &Settings) -> Result<Plan, Failure> {
    let netlink = Netlink::connect()?;
    let facts = facts(&netlink).await?;
    let wish = wish_of(settings).await;
    let uplinks = report(&facts, &wish, &Uplinks::default());
    let names: Vec<String> = uplinks
        .iter()
        .filter(|uplink| uplink.used)
        .map(|uplink| uplink.name.clone())
        .collect();
    let routes = route_wish(settings, 0, &wish.endpoints, &names);
    let dns = dns::plan(
        &settings.dns,
        &settings.interface,
        Path::new(dns::RESOLV_CONF),
    )?;
    Ok(Plan {
        interface: settings.interface.clone(),
        addresses: settings.addresses.clone(),
        mtu: settings.mtu,
        routing: RoutePlan::new(&routes, &apply::look(&netlink).await?)?,
        dns,
        uplinks,
    })
}

/// The interfaces and what would become of them, for a client that does not run.
pub async fn uplinks(settings: &Settings) -> Result<Vec<crate::uplinks::UplinkReport>, Failure> {
    let facts = facts(&Netlink::connect()?).await?;
    Ok(report(
        &facts,
        &wish_of(settings).await,
        &Uplinks::default(),
    ))
}

/// Puts back what a killed run left, and returns how many changes that were.
pub async fn restore(places: &Places) -> Result<usize, Failure> {
    let netlink = Netlink::connect()?;
    Journal::open(&places.state_dir)?.undo_all(&netlink).await
}

/// What the configuration wants of uplinks, its names looked up once.
async fn wish_of(settings: &Settings) -> Wish {
    let mut names = Names::new(&settings.endpoints);
    names.look_up();
    while names.pending > 0 {
        if let Some(found) = names.found.recv().await {
            names.take(found);
        }
    }
    Wish {
        interface: settings.interface.clone(),
        endpoints: names.addresses(),
        roles: settings.roles.clone(),
        ignore: settings.ignore.clone(),
    }
}

/// One name's place in the list and the addresses that were found.
type Found = (usize, io::Result<Vec<SocketAddr>>);

/// The server's endpoints and what their names stand for.
#[derive(Debug)]
struct Names {
    endpoints: Vec<(ServerEndpoint, Vec<SocketAddr>)>,
    pending: usize,
    results: mpsc::UnboundedSender<Found>,
    found: mpsc::UnboundedReceiver<Found>,
}

impl Names {
    fn new(endpoints: &[ServerEndpoint]) -> Self {
        let (results, found) = mpsc::unbounded_channel();
        let known = |endpoint: &ServerEndpoint| match endpoint {
            ServerEndpoint::Address(address) => vec![*address],
            ServerEndpoint::Name { .. } => Vec::new(),
        };
        let endpoints = endpoints.iter().map(|e| (e.clone(), known(e))).collect();
        Names {
            endpoints,
            pending: 0,
            results,
            found,
        }
    }

    /// Starts to look up every name that has no address yet, unless that is going on.
    fn look_up(&mut self) {
        if self.pending > 0 {
            return;
        }
        for (at, (endpoint, addresses)) in self.endpoints.iter().enumerate() {
            if let ServerEndpoint::Name { host, port } = endpoint
                && addresses.is_empty()
            {
                let (host, port, results) = (host.clone(), *port, self.results.clone());
                self.pending += 1;
                tokio::spawn(async move {
                    let found = tokio::net::lookup_host((host, port)).await;
                    // Fails only when the client stopped meanwhile.
                    let _ = results.send((at, found.map(Iterator::collect)));
                });
            }
        }
    }

    fn take(&mut self, (at, found): Found) {
        self.pending -= 1;
        let (endpoint, addresses) = &mut self.endpoints[at];
        match found {
            Ok(found) => *addresses = found,
            Err(error) => tracing::warn!("cannot look up {endpoint}: {error}"),
        }
    }

    /// All addresses, in the order of the endpoints.
    fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints
            .iter()
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect()
    }
}

struct Daemon {
    settings: Settings,
    netlink: Netlink,
    engine: Engine,
    board: Arc<Board>,
    uplinks: Uplinks,
    wish: Wish,
    names: Names,
    /// The uplink's name of each path that was ever talked about.
    path_names: BTreeMap<u8, String>,
    /// When each socket was made.
    added: BTreeMap<SocketId, Instant>,
    journal: Journal,
    /// Whether rules and routes are taken.
    routed: bool,
    /// Whether every uplink's path was heard of when it was last looked at.
    settled: bool,
}

impl Daemon {
    /// Everything between start and stop.
    async fn work(
        &mut self,
        mut watcher: Watcher,
        stop_signal: impl Future<Output = &'static str>,
        patience: Option<Duration>,
        on_up: impl FnOnce(Status),
    ) -> Result<(), Failure> {
        let mut events = self.engine.handle.events();
        let mut on_up = Some(on_up);
        let mut ticked = Instant::now();
        let mut repaired = ticked;
        let explain_at = Instant::now() + patience.unwrap_or(EXPLAIN_AFTER);
        let mut explained = false;
        let board = Arc::clone(&self.board);
        tokio::pin!(stop_signal);

        self.set_up_interface().await?;
        self.names.look_up();
        self.wish.endpoints = self.names.addresses();
        self.look(&watcher.facts().await?).await?;
        loop {
            let tick_at = ticked + self.tick();
            tokio::select! {
                signal = &mut stop_signal => {
                    tracing::info!("stopping: {signal}");
                    return Ok(());
                }
                () = board.stop_wanted.notified() => {
                    tracing::info!("stopping: asked to");
                    return Ok(());
                }
                changed = watcher.changed() => {
                    changed?;
                    self.look(&watcher.facts().await?).await?;
                    self.names.look_up();
                }
                Some(found) = self.names.found.recv() => {
                    self.names.take(found);
                    self.wish.endpoints = self.names.addresses();
                    self.look(&watcher.facts().await?).await?;
                }
                event = events.recv() => match event {
                    Ok(event) => self.handle_event(&event).await?,
                    // Nothing hangs on a single event: the next tick sees what they led to.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    // The driver ended without being told to.
                    Err(broadcast::error::RecvError::Closed) => return Err(self.driver_ended()),
                },
                () = sleep_until(tick_at) => {
                    ticked = Instant::now();
                    self.look_after_paths().await?;
                    if ticked >= repaired + REPAIR_EVERY {
                        repaired = ticked;
                        self.names.look_up();
                        self.repair().await?;
                    }
                    // Tries again what did not work, a socket for instance.
                    self.look(&watcher.facts().await?).await?;
                }
                () = sleep_until(explain_at), if !explained && !self.routed => {
                    explained = true;
                    let why = self.why_not_up().await;
                    if patience.is_some() {
                        return Err(why);
                    }
                    self.tell(format!("still waiting: {why}"));
                }
            }
            if self.routed
                && let Some(on_up) = on_up.take()
            {
                on_up(self.board.status().await);
            }
        }
    }

    async fn set_up_interface(&mut self) -> Result<(), Failure> {
        if self
            .settings
            .addresses
            .iter()
            .any(|net| net.addr().is_ipv6())
        {
            // Where IPv6 is off by default, our own interface still has it. The setting goes
            // with the interface; a kernel without IPv6 has no such file and refuses the address.
            let name = &self.settings.interface;
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "0");
        }
        for net in &self.settings.addresses {
            self.netlink
                .add_address(self.engine.index, net.addr(), net.prefix_len())
                .await
                .context(format!(
                    "cannot give {} its address",
                    self.settings.interface
                ))?;
        }
        Ok(())
    }

    /// Compares the machine's interfaces with what is in use, and follows.
    async fn look(&mut self, facts: &Facts) -> Result<(), Failure> {
        for change in self.uplinks.update(facts, &self.wish) {
            match change {
                UplinkChange::Added(uplink) => self.add_uplink(uplink).await?,
                UplinkChange::Removed { socket, name, why } => {
                    self.tell(format!("uplink {name} is given up: {why}"));
                    self.added.remove(&socket);
                    self.engine
                        .handle
                        .command(Command::RemoveUplink { socket })
                        .await;
                    self.engine.handle.remove_socket(socket).await;
                }
                UplinkChange::Paused { socket, name, why } => {
                    self.tell(format!("uplink {name} is out of service: it {why}"));
                    let command = Command::UplinkCarrier { socket, up: false };
                    self.engine.handle.command(command).await;
                }
                UplinkChange::Resumed { socket, name } => {
                    self.tell(format!("uplink {name} is back in service"));
                    // One that was never heard of is looked after again.
                    self.settled = false;
                    let command = Command::UplinkCarrier { socket, up: true };
                    self.engine.handle.command(command).await;
                }
            }
        }
        self.board
            .show_uplinks(report(facts, &self.wish, &self.uplinks));
        Ok(())
    }

    /// How long after a look at the slow matters the next one is due.
    fn tick(&self) -> Duration {
        if self.settled && self.routed {
            REPAIR_EVERY
        } else {
            TICK
        }
    }

    async fn add_uplink(&mut self, uplink: Uplink) -> Result<(), Failure> {
        self.settled = false;
        let present = routing::Present {
            rp_filter: apply::rp_filters(),
            ..Default::default()
        };
        if let Some(step) = routing::loosen(&uplink.name, &present) {
            // Without it the answers of the server are dropped on this uplink; the others work.
            if let Err(failure) = self.journal.apply_step(&self.netlink, &step).await {
                tracing::warn!("uplink {} may stay deaf: {failure}", uplink.name);
            }
        }
        let Uplink {
            socket,
            name,
            mtu,
            role,
            way,
            ..
        } = uplink;
        let opened = UplinkSocket::bound_to_device(
            &name,
            Family::of(way.remote.ip()),
            Some(self.settings.mark),
        )
        .context(format!("cannot open a socket on {name}"));
        match opened {
            Ok(opened) => {
                let opened = opened.with_trains(self.settings.offload.trains());
                self.tell(format!(
                    "uplink {name}: from {} to {}",
                    way.source, way.remote
                ));
                self.added.insert(socket, Instant::now());
                self.engine.handle.add_socket(socket, opened).await;
                let remote = way.remote;
                let command = Command::AddUplink {
                    socket,
                    name,
                    remote,
                    mtu,
                    role,
                };
                self.engine.handle.command(command).await;
                Ok(())
            }
            Err(failure) if failure.class() == Class::Privilege => Err(failure),
            Err(failure) => {
                // The interface may just have gone; the next look tells.
                tracing::debug!("uplink {name} cannot be used yet: {failure}");
                self.uplinks.forget(&name);
                Ok(())
            }
        }
    }

    async fn handle_event(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::BondUp { .. } => {
                self.tell("the bond is up".to_owned());
                self.take_routes().await?;
            }
            Event::BondDown { .. } => {
                self.tell("the bond is down: no path works".to_owned());
            }
            Event::PathUp { path, reason, .. } => {
                let name = self.path_name(*path).await;
                self.tell(format!(
                    "the path over {name} works: {}",
                    reason_in_words(*reason)
                ));
            }
            Event::PathDown { path, reason, .. } => {
                let name = self.path_name(*path).await;
                self.tell(format!(
                    "the path over {name} stopped: {}",
                    reason_in_words(*reason)
                ));
            }
            Event::PeerRestarted { .. } => self.tell("the server was restarted".to_owned()),
            Event::PeerSeen { .. } => {}
        }
        Ok(())
    }

    /// Leads the machine's traffic into the bond, once.
    async fn take_routes(&mut self) -> Result<(), Failure> {
        if self.routed {
            return Ok(());
        }
        let names: Vec<String> = self
            .uplinks
            .held()
            .map(|uplink| uplink.name.clone())
            .collect();
        let wish = route_wish(
            &self.settings,
            self.engine.index,
            &self.wish.endpoints,
            &names,
        );
        let plan = RoutePlan::new(&wish, &apply::look(&self.netlink).await?)?;
        for step in &plan.steps {
            self.journal.apply_step(&self.netlink, step).await?;
        }
        let path = Path::new(dns::RESOLV_CONF);
        if let Some(change) = dns::plan(&self.settings.dns, &self.settings.interface, path)? {
            self.journal.apply_dns(&change)?;
        }
        self.routed = true;
        self.board.show_routed(true);
        tracing::info!(
            "the machine's traffic goes through {}",
            self.settings.interface
        );
        Ok(())
    }

    /// Tries another address of the server where one does not answer, and catches up on events
    /// that were missed.
    async fn look_after_paths(&mut self) -> Result<(), Failure> {
        let Some(snapshot) = self.engine.handle.snapshot(&Detail::Paths).await else {
            return Ok(());
        };
        let unheard = |uplink: &Uplink| {
            uplink.paused.is_none()
                && path_of(&snapshot, uplink.socket) == Some((PathState::Connecting, 0))
        };
        // An uplink whose socket could not be opened makes it false again, when it is looked at next.
        self.settled = !self.uplinks.held().any(unheard);
        let silent: Vec<String> = self
            .uplinks
            .held()
            .filter(|uplink| {
                let waited = self.added.get(&uplink.socket).map(Instant::elapsed);
                waited.is_some_and(|waited| waited > GIVE_UP_ADDRESS) && unheard(uplink)
            })
            .map(|uplink| uplink.name.clone())
            .collect();
        for name in silent {
            tracing::debug!("the server does not answer over {name} at this address");
            self.uplinks.try_next_way(&name);
        }
        if snapshot.bonds.iter().any(|bond| bond.up) {
            self.take_routes().await?;
        }
        Ok(())
    }

    /// Makes again what somebody removed.
    async fn repair(&mut self) -> Result<(), Failure> {
        if !self.routed {
            return Ok(());
        }
        let present = apply::look(&self.netlink).await?;
        for step in apply::missing(self.journal.steps(), &present) {
            self.tell(format!("somebody removed `{step}`; it is added again"));
            self.journal.apply_step(&self.netlink, &step).await?;
        }
        Ok(())
    }

    async fn why_not_up(&self) -> Failure {
        let uplinks = self.board.status().await.uplinks;
        diagnose::why_not_up(&uplinks, &self.settings.endpoints, &self.wish.endpoints).await
    }

    /// The reverse of the start. Returns how many changes were put back.
    async fn stop(&mut self) -> Result<usize, Failure> {
        let undone = self.journal.undo_all(&self.netlink).await;
        match timeout(GOODBYE, self.engine.handle.stop()).await {
            // Its thread ends now, and the TUN with it.
            Ok(()) => {
                if let Err(error) = self.engine.end() {
                    tracing::debug!("the driver ended badly: {error}");
                }
            }
            Err(_) => tracing::warn!("the driver does not end; leaving without it"),
        }
        undone
    }

    fn driver_ended(&mut self) -> Failure {
        let what = format!("the bond on {} ended", self.settings.interface);
        match self.engine.end() {
            Err(error) => Failure::io(what, &error),
            Ok(()) => Failure::new(Class::Other, what),
        }
        .with_advice("if somebody removed the interface, start again; else look into the log")
    }

    /// A piece of news, for the log and for `status`.
    fn tell(&self, text: String) {
        tracing::info!("{text}");
        self.board.tell(text);
    }

    /// The uplink's name of a path. It is remembered, as the last news about a path comes when
    /// the core knows it no more.
    async fn path_name(&mut self, path: u8) -> String {
        let snapshot = self
            .engine
            .handle
            .snapshot(&Detail::Paths)
            .await
            .unwrap_or_default();
        let paths = snapshot.bonds.into_iter().flat_map(|bond| bond.paths);
        self.path_names
            .extend(paths.map(|path| (path.id, path.name)));
        self.path_names
            .get(&path)
            .cloned()
            .unwrap_or_else(|| format!("path {path}"))
    }
}

fn path_of(snapshot: &Snapshot, socket: SocketId) -> Option<(PathState, u64)> {
    snapshot
        .bonds
        .iter()
        .flat_map(|bond| &bond.paths)
        .find(|path| path.socket == socket)
        .map(|path| (path.state, path.received))
}
