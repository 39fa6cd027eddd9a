//! What the command line prints for people.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use marline_io::explain::{bytes, columns, decisions, word};
use marline_io::failure::{Class, Failure};
use marline_proto::BondSnapshot;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::control::{PeerView, Status};
use crate::init::Made;
use crate::invitation::Invitation;
use crate::peers::{Moment, Standing};

/// How the server stands, a bond per line and a path per line below it; `explained`: with what is decided about each
/// bond's paths and flows, and why.
pub fn status(status: &Status, explained: bool) -> String {
    let mut text = String::new();
    let up = status.snapshot.bonds.iter().filter(|bond| bond.up).count();
    let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let _ = writeln!(
        text,
        "marline-server {}, running for {uptime}",
        status.version
    );
    let _ = writeln!(
        text,
        "interface {} ({}), MTU {}, NAT {}",
        status.interface,
        addresses.join(", "),
        status.mtu,
        if status.nat { "on" } else { "off" }
    );
    let _ = writeln!(
        text,
        "listening on {}, {} {}",
        listen.join(", "),
        status.workers,
        if status.workers == 1 {
            "worker"
        } else {
            "workers"
        }
    );
    let _ = writeln!(text, "public key {}", status.public_key);
    let _ = writeln!(
        text,
        "{} peers, {} admitted, {up} connected",
        status.peers, status.peers_admitted
    );
    for bond in status
        .snapshot
        .bonds
        .iter()
        .filter(|bond| explained || !bond.paths.is_empty())
    {
        bond_lines(&mut text, bond);
        if explained {
            let _ = write!(text, "\n{}", decisions(bond));
        }
    }
    let drops = &status.snapshot.drops;
    if !drops.is_empty() {
        let drops: Vec<String> = drops.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let _ = writeln!(
            text,
            "\ndropped before they reached a bond: {}",
            drops.join(", ")
        );
    }
    text
}

fn bond_lines(text: &mut String, bond: &BondSnapshot) {
    let state = if bond.up { "up" } else { "down" };
    let addresses: Vec<String> = bond.addresses.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        text,
        "\n{} {state} ({}): {} to it, {} from it, {} flows",
        bond.name,
        addresses.join(", "),
        bytes(bond.bytes_in),
        bytes(bond.bytes_out),
        bond.flows
    );
    for path in &bond.paths {
        let state = word(&path.state);
        let _ = writeln!(
            text,
            "  path {:<3} {:<40} {state:<10} rtt {:>6.1} ms  loss {:>4.1} %  sent {}, received {}",
            path.id,
            path.remote.to_string(),
            path.rtt_ms,
            path.loss * 100.0,
            bytes(path.sent_bytes),
            bytes(path.received_bytes)
        );
    }
}

/// All peers as a table.
pub fn peers(peers: &[PeerView], now: Moment) -> String {
    if peers.is_empty() {
        return "no peers yet: \"marline-server peer add NAME\" adds one\n".to_owned();
    }
    let row = |peer: &PeerView| {
        vec![
            peer.name.clone(),
            or_dash(peer.v4),
            or_dash(peer.v6),
            standing(peer, now),
        ]
    };
    columns(
        &["NAME", "IPV4", "IPV6", "STATE"],
        peers.iter().map(row).collect(),
    )
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn standing(peer: &PeerView, now: Moment) -> String {
    match (peer.standing, peer.connected, peer.code_expires) {
        (Standing::Known, Some(true), _) => "connected".to_owned(),
        (Standing::Known, Some(false), _) => "away".to_owned(),
        (Standing::Known, None, _) => "known".to_owned(),
        (Standing::Invited, _, Some(expires)) => {
            format!(
                "join code unused, expires in {}",
                humantime::format_duration(expires.until(now))
            )
        }
        (Standing::Invited, _, None) => "not seen yet".to_owned(),
        (Standing::Expired, ..) => format!(
            "join code expired unused; run \"marline-server peer renew {}\"",
            peer.name
        ),
    }
}

/// One peer, a fact per line.
pub fn peer(peer: &PeerView, now: Moment) -> String {
    let seen = match peer.first_seen {
        Some(moment) => moment.to_string(),
        None => "never".to_owned(),
    };
    format!(
        "name        {}\nstate       {}\nIPv4        {}\nIPv6        {}\npublic key  {}\nadded       {}\n\
         first seen  {seen}\n",
        peer.name,
        standing(peer, now),
        or_dash(peer.v4),
        or_dash(peer.v6),
        peer.public_key,
        peer.created,
    )
}

/// A join code and what to do with it.
pub fn invitation(invitation: &Invitation, now: Moment, qr: bool) -> Result<String, Failure> {
    let addresses: Vec<String> = [
        invitation.v4.as_ref().map(Ipv4Addr::to_string),
        invitation.v6.as_ref().map(Ipv6Addr::to_string),
    ]
    .into_iter()
    .flatten()
    .collect();
    let endpoints: Vec<String> = invitation
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut text = format!(
        "\"{}\" gets {} and will reach this server at {}.\n\
         On the client, within {}:\n\n  marline join {}\n\n\
         The code holds the client's secret key: pass it on over a channel you trust.\n",
        invitation.name,
        addresses.join(" and "),
        endpoints.join(" and "),
        humantime::format_duration(invitation.expires.until(now)),
        invitation.code
    );
    if qr {
        let _ = write!(text, "\n{}\n", qr_code(&invitation.code)?);
    }
    Ok(text)
}

/// The code in block characters, light on dark. In upper case it is the same join code, and the
/// QR code needs two thirds of the area.
fn qr_code(code: &str) -> Result<String, Failure> {
    let qr = QrCode::new(code.to_ascii_uppercase()).map_err(|error| {
        Failure::new(
            Class::Other,
            format!("the join code does not fit into a QR code: {error}"),
        )
        .with_advice("name fewer \"endpoints\" in the configuration")
    })?;
    // Terminals mostly are dark: what paper leaves white has to be drawn.
    Ok(qr
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}

/// What `init` made, and what comes next.
pub fn made(made: &Made) -> String {
    let mut text = format!(
        "Wrote {} and {} {}.\npublic key  {}\ninner IPv4  {}\ninner IPv6  {}\n",
        made.config.display(),
        if made.key_kept {
            "kept the key in"
        } else {
            "a new key,"
        },
        made.key_file.display(),
        made.public_key,
        made.pool_v4,
        made.pool_v6,
    );
    let endpoints: Vec<String> = made.endpoints.iter().map(ToString::to_string).collect();
    if endpoints.is_empty() {
        let _ = write!(
            text,
            "\nThis machine has no address that others could reach: write a name or address and port\n\
             into \"endpoints\" before you add peers.\n"
        );
    } else {
        let _ = writeln!(text, "endpoints   {}", endpoints.join(", "));
        if made.endpoints_guessed {
            let _ = write!(
                text,
                "\nThe endpoints were guessed from this machine's addresses. If it is behind a NAT or has a\n\
                 name, correct \"endpoints\" in the file.\n"
            );
        }
    }
    let _ = write!(
        text,
        "\nNext:\n  systemctl enable --now marline-server   (or: marline-server run)\n  \
         marline-server peer add laptop\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_of_the_longest_join_code_can_be_drawn() {
        // Eight host names of the longest kind do not fit into one code of bech32, eight addresses do.
        let drawn = qr_code(&format!("marline1{}", "q".repeat(480))).unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines.len() > 20);
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
    }
}
