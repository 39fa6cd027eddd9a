//! One TCP connection from the internet host to the client that always has something to send,
//! and knows when a byte is wrong or late.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::topology::Lab;

const PORT: u16 = 7700;

/// What has arrived.
struct Arrived {
    bytes: u64,
    last: Instant,
    longest: Duration,
    /// Why nothing more will come.
    end: Option<String>,
}

/// The connection; closed on drop.
pub(super) struct Stream {
    arrived: Arc<Mutex<Arrived>>,
    ends: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Connects this client with the host and starts to send.
    pub(super) fn start(lab: &Lab, client: &Namespace) -> Result<Stream> {
        let listener = lab.host().run(|| TcpListener::bind(("0.0.0.0", PORT)))??;
        let target = (crate::topology::HOST_V4.parse::<std::net::IpAddr>()?, PORT).into();
        let client = client
            .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))?
            .context("cannot connect to the internet host")?;
        let (host, _) = listener.accept()?;
        let arrived = Arc::new(Mutex::new(Arrived {
            bytes: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
            end: None,
        }));
        let ends = vec![client.try_clone()?, host.try_clone()?];
        let shared = arrived.clone();
        let threads = vec![
            std::thread::spawn(move || send(host)),
            std::thread::spawn(move || receive(client, &shared)),
        ];
        Ok(Stream {
            arrived,
            ends,
            threads,
        })
    }

    /// Forgets the longest gap so far.
    pub(super) fn mark(&self) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.longest = Duration::ZERO;
        arrived.last = Instant::now();
    }

    /// Bytes so far, the longest gap since the mark, and why it ended if it has.
    pub(super) fn look(&self) -> (u64, Duration, Option<String>) {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        (
            arrived.bytes,
            arrived.longest.max(arrived.last.elapsed()),
            arrived.end.clone(),
        )
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Byte number `n` of the stream: it repeats after a prime number of bytes, so that a piece that
/// is missing, doubled or out of its place is seen.
fn byte(n: u64) -> u8 {
    (n % 65_521 * 31 / 7) as u8
}

fn send(mut host: TcpStream) {
    let mut sent = 0;
    loop {
        let piece: Vec<u8> = (sent..sent + 16_384).map(byte).collect();
        if host.write_all(&piece).is_err() {
            return;
        }
        sent += piece.len() as u64;
    }
}

fn receive(mut client: TcpStream, shared: &Mutex<Arrived>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let got = client.read(&mut buffer);
        let mut arrived = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match got {
            Ok(0) => arrived.end = Some("the connection was closed".into()),
            Err(error) => arrived.end = Some(error.to_string()),
            Ok(length) => {
                let begin = arrived.bytes;
                if let Some(wrong) = (0..length).find(|at| buffer[*at] != byte(begin + *at as u64))
                {
                    arrived.end = Some(format!("byte {} is wrong", begin + wrong as u64));
                }
                let gap = arrived.last.elapsed();
                arrived.longest = arrived.longest.max(gap);
                arrived.last = Instant::now();
                arrived.bytes += length as u64;
            }
        }
        if arrived.end.is_some() {
            return;
        }
    }
}
