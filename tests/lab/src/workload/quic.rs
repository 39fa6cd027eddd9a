//! Bulk QUIC: a real QUIC connection (quinn) per flow, with one stream that always has something
//! to send.
//!
//! The windows are raised far above what the links hold, as bulk applications do; everything
//! else is quinn's default, its congestion control (CUBIC) included.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};
use socket2::SockAddr;

use super::{Ends, Outcome, Shared, Traffic};
use crate::deliveries::Deliveries;
use crate::results::Direction;
use crate::scenario::Workload;

const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const NAME: &str = "lab";
/// How often a waiting end looks whether the run was stopped early.
const LOOK_UP: Duration = Duration::from_millis(50);

pub(super) fn start(
    traffic: &mut Traffic,
    shared: &Shared,
    ends: Ends<'_>,
    workload: &Workload,
    direction: Direction,
) -> Result<()> {
    for number in 1..=workload.flows {
        let (deliveries, outcome) =
            traffic.add_flow(workload, (number, "quic"), direction, shared.span);
        let (host, client, target) = ends.udp_pair(workload.ipv6)?;
        let any: SockAddr = match target {
            std::net::SocketAddr::V4(_) => std::net::SocketAddr::from(([0, 0, 0, 0], 0)).into(),
            std::net::SocketAddr::V6(_) => std::net::SocketAddr::from(([0u16; 8], 0)).into(),
        };
        client.bind(&any)?;
        let (server_config, client_config) = configurations()?;
        let flow = Flow {
            shared: shared.clone(),
            deliveries,
            outcome,
            direction,
        };
        let start = shared.span.at(workload.start_s);
        let host_flow = flow.clone();
        traffic.spawn("quic-host", move || {
            host_flow.drive(host_flow.accept(host.into(), server_config));
        })?;
        traffic.spawn("quic-client", move || {
            if flow.shared.sleep_until(start) {
                flow.drive(flow.connect(client.into(), client_config, target));
            }
        })?;
    }
    Ok(())
}

#[derive(Clone)]
struct Flow {
    shared: Shared,
    deliveries: Arc<Deliveries>,
    outcome: Arc<Outcome>,
    direction: Direction,
}

impl Flow {
    /// Runs one end to the end of the run.
    fn drive(&self, work: impl Future<Output = Result<()>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return self.outcome.broke(error),
        };
        runtime.block_on(async {
            let over = async {
                while !self.shared.stopped() {
                    tokio::time::sleep(LOOK_UP).await;
                }
            };
            tokio::select! {
                result = work => if let Err(error) = result && !self.shared.stopped() {
                    self.outcome.broke(format!("{error:#}"));
                },
                () = over => {}
            }
        });
    }

    async fn accept(&self, socket: UdpSocket, config: ServerConfig) -> Result<()> {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )?;
        let connection = endpoint.accept().await.context("nobody called")?.await?;
        let (send, receive) = connection.accept_bi().await?;
        match self.direction {
            Direction::Down => self.send(send).await,
            Direction::Up => self.receive(receive).await,
        }
    }

    async fn connect(
        &self,
        socket: UdpSocket,
        config: ClientConfig,
        target: std::net::SocketAddr,
    ) -> Result<()> {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )?;
        let connection = endpoint.connect_with(config, target, NAME)?.await?;
        let (mut send, receive) = connection.open_bi().await?;
        // A stream exists for the other side from its first byte on.
        send.write_all(b"!").await?;
        match self.direction {
            Direction::Down => self.receive(receive).await,
            Direction::Up => self.send(send).await,
        }
    }

    async fn send(&self, mut stream: quinn::SendStream) -> Result<()> {
        let data = vec![0x5a; 64 * 1024];
        while Instant::now() < self.shared.span.end() {
            stream.write_all(&data).await?;
        }
        Ok(())
    }

    async fn receive(&self, mut stream: quinn::RecvStream) -> Result<()> {
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
            self.deliveries.note(chunk.bytes.len());
        }
        Ok(())
    }
}

fn configurations() -> Result<(ServerConfig, ClientConfig)> {
    let certified = rcgen::generate_simple_self_signed(vec![NAME.into()])?;
    let certificate = CertificateDer::from(certified.cert);
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into());
    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_single_cert(vec![certificate], key.into())?;
    server.transport_config(transport.clone());
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
    client.transport_config(transport);
    Ok((server, client))
}
