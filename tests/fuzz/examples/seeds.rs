//! Writes the inputs that a search starts from: one of each kind that a target accepts.
//!
//! Run it after the format of something changed: `cargo run --example seeds` in `tests/fuzz`.
//! It overwrites `corpus/*/seed-*` and leaves what a search has found alone.

use std::fs;
use std::path::Path;

use marline_io::join_code::{JoinCode, ServerEndpoint};
use marline_proto::frame::{
    Ack, CloseReason, Control, DataHeader, Frame, Half, Hello, Opening, PathAck, Probe, VERSION,
    encode,
};
use marline_proto::{Mode, Modes, Role};

fn main() -> std::io::Result<()> {
    for (name, bytes) in frames() {
        write("frame", &name, &bytes)?;
    }
    for (name, bytes) in programs() {
        write("datagram", &name, &bytes)?;
    }
    for (name, bytes) in join_codes() {
        write("join_code", name, &bytes)?;
    }
    for (name, bytes) in tun_frames() {
        write("offload", name, &bytes)?;
    }
    for (target, name, bytes) in texts() {
        write(target, name, &bytes)?;
    }
    for (name, bytes) in squeezes() {
        write("squeeze", name, &bytes)?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)
}

fn frames() -> Vec<(String, Vec<u8>)> {
    let header = DataHeader {
        more: true,
        duplicate: false,
        retransmitted: true,
        ordered: true,
        class: marline_proto::classify::Class::Interactive,
        flow: 0x0102,
        seq: 0x0a_0b0c,
        release: 3,
        opens: None,
        begun: false,
    };
    let opens = DataHeader {
        opens: Some(Opening {
            generation: 1,
            stamp: 0x12_3456,
        }),
        ..header
    };
    let hello = Hello {
        version: VERSION,
        boot: 0x1122_3344_5566_7788,
        peer_boot: 0,
        path: 1,
        capabilities: 0,
        mtu: 1400,
        role: Role::Backup,
        modes: Modes::all(Mode::Interactive),
    };
    let path = |path: u8| PathAck {
        path,
        epoch: 7,
        largest: 1_000_000,
        largest_age: 12,
        largest_delay: 0x01_0203,
        min_delay: 0x01_0100,
        bytes: 0xffff_fff0,
        last_arrival_us: 77,
        ranges: vec![(0, 10), (1, 3), (200, 1)],
    };
    let packet = udp_v4(40);
    let all = [
        ("data", Frame::Data(header, &packet)),
        ("opens", Frame::Data(opens, &packet)),
        (
            "squeezed",
            Frame::Squeezed(
                DataHeader {
                    release: 0,
                    ..header
                },
                &[1, 0, 0, 9, 9, 1, 2, 3],
            ),
        ),
        (
            "half",
            Frame::Half(Half {
                header: DataHeader {
                    release: 0,
                    ..header
                },
                form: 0,
                second: false,
                piece: &packet,
            }),
        ),
        ("size", Frame::Probe(Probe::Size { len: 200 })),
        (
            "forgotten",
            Frame::Control(Control::Forgotten {
                flow: 0x0102,
                generation: 1,
            }),
        ),
        (
            "ack-empty",
            Frame::Ack(Ack {
                seq: 1,
                paths: Vec::new(),
            }),
        ),
        (
            "ack",
            Frame::Ack(Ack {
                seq: 0xffff,
                paths: vec![path(0), path(1)],
            }),
        ),
        ("hello", Frame::Control(Control::Hello(hello))),
        ("hello-ack", Frame::Control(Control::HelloAck(hello))),
        (
            "challenge",
            Frame::Control(Control::PathChallenge(*b"12345678")),
        ),
        (
            "response",
            Frame::Control(Control::PathResponse(*b"12345678")),
        ),
        (
            "silent",
            Frame::Control(Control::Silent {
                path: 1,
                largest: 99,
            }),
        ),
        (
            "skip",
            Frame::Control(Control::Skip(vec![(1, 2), (0xffff, 0xff_ffff)])),
        ),
        (
            "close",
            Frame::Control(Control::Close(CloseReason::Removed)),
        ),
        ("ping", Frame::Probe(Probe::Ping { id: 5 })),
        ("pong", Frame::Probe(Probe::Pong { id: 5 })),
        ("tick", Frame::Probe(Probe::Tick)),
    ];
    all.into_iter()
        .map(|(name, frame)| {
            let mut bytes = Vec::new();
            encode(&frame, 0x12_3456, &mut bytes);
            (name.to_owned(), bytes)
        })
        .collect()
}

/// Programs for the target `datagram`; its module tells what an opcode means.
fn programs() -> Vec<(String, Vec<u8>)> {
    let with_content = |opcode: u8, content: &[u8]| {
        let mut step = vec![opcode, content.len() as u8];
        step.extend_from_slice(content);
        step
    };
    let mut programs: Vec<(String, Vec<u8>)> = frames()
        .into_iter()
        .map(|(name, frame)| {
            // The same frame to both sides on both paths, and some time to answer it.
            let mut program = Vec::new();
            for opcode in [1, 9, 2, 10] {
                program.extend(with_content(opcode, &frame));
            }
            program.extend([3, 20]);
            (format!("frame-{name}"), program)
        })
        .collect();
    let up = with_content(5, &udp_v4_from([10, 77, 0, 2], [10, 0, 0, 1], 60));
    let down = with_content(6, &udp_v4_from([10, 0, 0, 1], [10, 77, 0, 2], 60));
    let traffic = [
        up.clone(),
        down.clone(),
        vec![3, 10],
        up.repeat(8),
        down.repeat(8),
    ]
    .concat();
    let death = [
        up.repeat(4),
        vec![4, 40],
        down.repeat(4),
        vec![4, 250, 3, 250],
    ]
    .concat();
    // Sessions end unused; either end is woken by the other, and by who only saw their indices.
    let rest = [
        up.clone(),
        vec![3, 10, 7, 11, 7, 12, 15, 12, 3, 30, 7, 13, 15, 13],
        down.clone(),
        vec![3, 60, 7, 11],
        up.clone(),
        vec![4, 250],
        down.repeat(4),
        vec![3, 60, 7, 11, 7, 10, 7, 12, 3, 60],
    ]
    .concat();
    let commands = (0..11)
        .flat_map(|which| [7, which, 3, 30, 15, which, 3, 30])
        .collect();
    // The base, and what refers to it, on the other path as well.
    let at_client = |opcode: u8, name: &str| {
        let frames = frames();
        let frame = frames.iter().find(|(n, _)| n == name);
        with_content(opcode, &frame.expect("a seed of that name").1)
    };
    let squeezed = [
        at_client(10, "squeezed"),
        at_client(2, "opens"),
        at_client(10, "squeezed"),
        vec![3, 60],
    ]
    .concat();
    programs.push(("squeezed".to_owned(), squeezed));
    programs.push(("halves".to_owned(), halves()));
    programs.push(("large".to_owned(), large()));
    programs.push(("traffic".to_owned(), traffic));
    programs.push(("death".to_owned(), death));
    programs.push(("rest".to_owned(), rest));
    programs.push(("commands".to_owned(), commands));
    programs.push((
        "raw".to_owned(),
        [with_content(0, &[1; 148]), with_content(8, &[4; 48])].concat(),
    ));
    programs
}

/// Both halves of one packet, in either order; then two first ones.
fn halves() -> Vec<u8> {
    let frames = frames();
    let whole = frames.iter().find(|(name, _)| name == "data");
    let whole = &whole.expect("a seed of that name").1;
    let (common, rest) = whole.split_at(12);
    let (front, back) = rest.split_at(rest.len() / 2);
    let half = |second: u8| {
        let piece = if second == 0 { front } else { back };
        let mut content = [common, &[second], piece].concat();
        content[0] = 0x44;
        let mut step = vec![2, content.len() as u8];
        step.append(&mut content);
        step
    };
    let order = [0, 1, 1, 0, 0, 0].map(half).concat();
    [order, vec![3, 60]].concat()
}

/// Packets that do not fit: one that may be cut into fragments, one that may not, one of IPv6; then both interfaces turn
/// out narrow, and full packets go in halves. And datagrams that are longer than any buffer.
fn large() -> Vec<u8> {
    let long = |opcode: u8, len: u16, head: &[u8]| {
        let mut step = vec![opcode, 255];
        step.extend(len.to_be_bytes());
        step.push(head.len() as u8);
        step.extend_from_slice(head);
        step
    };
    let v4 = |source, destination, len: u16, flags: u8| {
        let mut head = udp_v4_from(source, destination, usize::from(len) - 28);
        head[6] = flags;
        mend(&mut head);
        head.truncate(28);
        head
    };
    let (client, host) = ([10, 77, 0, 2], [10, 0, 0, 1]);
    let mut v6 = vec![0x60, 0, 0, 0, 5, 180, 17, 64];
    v6.extend(
        "fd00::2"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets(),
    );
    v6.extend([0xfe; 16]);
    v6.extend([0x30, 0x39, 0, 53, 5, 180, 1, 1]);
    let full = [
        long(5, 1400, &v4(client, host, 1400, 0x40)),
        long(6, 1400, &v4(host, client, 1400, 0x40)),
    ]
    .concat();
    [
        long(5, 1500, &v4(client, host, 1500, 0)),
        long(6, 1500, &v4(host, client, 1500, 0)),
        long(5, 1500, &v4(client, host, 1500, 0x40)),
        long(5, 1500, &v6),
        long(5, 65_535, &v4(client, host, 65_535, 0)),
        full.clone(),
        vec![7, 8, 15, 8, 7, 9, 15, 9],
        full.repeat(4),
        vec![3, 60],
        long(0, 65_507, &[4; 16]),
        long(1, 65_507, &frames()[0].1),
        long(2, 2_100, &frames()[0].1),
        vec![3, 60],
    ]
    .concat()
}

/// What people and daemons write, for the targets that read text.
fn texts() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let settings = |reader: &str, text: &str| format!("{reader}{text}").into_bytes();
    let private = |text: &str, file: &str| {
        let file = format!("private_key_file = \"{file}\"");
        assert!(text.contains(&file), "the example names its key");
        text.replace(&file, &format!("private_key = \"{KEY}\""))
    };
    let client = include_str!("../../../deploy/examples/client-full.toml");
    let server = include_str!("../../../deploy/examples/server-full.toml");
    // Comments teach a search nothing.
    let bare = |text: String| -> String {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.flat_map(|line| [line, "\n"]).collect()
    };
    let client = bare(private(client, "client.key"));
    let server = bare(private(server, "server.key"));
    let peers = format!(
        "[[peer]]\nname = \"laptop\"\npublic_key = \"{KEY}\"\nv4 = \"10.77.0.2\"\nv6 = \"fd00::2\"\n\
         created = \"2027-01-31T12:00:00Z\"\ncode_expires = \"2027-02-01T12:00:00Z\"\n"
    );
    let unknown = client.replace("role", "rolle");
    let state = r#"["nothing",{"modes":{"realtime":"redundant","interactive":"aggregate","bulk":"handover"}},
        {"mode":{"mode":"interactive","role":"backup"}},{"address":["10.77.0.2",32]},
        {"server":["vpn.example.org:443","[2001:db8::1]:51900"]},{"bytes":[0,255]},{"text":"\u00e4\n"}]"#;
    vec![
        ("settings", "client", settings("c", &client)),
        ("settings", "client-unknown", settings("c", &unknown)),
        ("settings", "server", settings("s", &server)),
        ("settings", "peers", settings("p", &peers)),
        ("state", "journal", state.into()),
        ("control", "status", b"\"status\"\n".to_vec()),
        (
            "control",
            "watch",
            b"{\"watch\":{\"interval_ms\":1000}}\n".to_vec(),
        ),
        (
            "control",
            "peer-add",
            b"{\"peer_add\":{\"name\":\"a\",\"code_life_s\":86400}}".to_vec(),
        ),
        (
            "control",
            "set-mode",
            b"{\"set_mode\":{\"mode\":\"redundant\",\"class\":\"bulk\"}}".to_vec(),
        ),
        (
            "control",
            "modes",
            b"{\"reply\":{\"modes\":\"handover\"}}\n".to_vec(),
        ),
        (
            "control",
            "snapshot",
            b"{\"reply\":{\"status\":{\"bonds\":[],\"drops\":{}}}}\n".to_vec(),
        ),
        (
            "control",
            "failure",
            b"{\"failure\":{\"class\":\"usage\",\"message\":\"no\",\"advice\":null}}\n".to_vec(),
        ),
        ("key", "text", KEY.into()),
        ("key", "blanks", format!("  {KEY}\n").into_bytes()),
    ]
}

fn join_codes() -> Vec<(&'static str, Vec<u8>)> {
    let endpoint = |text: &str| text.parse::<ServerEndpoint>().expect("an endpoint");
    let code = JoinCode {
        expires_unix_s: 1_900_000_000,
        secret: [1; 32],
        server: [2; 32],
        endpoints: vec![
            endpoint("198.51.100.1:51900"),
            endpoint("[2001:db8::1]:51900"),
            endpoint("vpn.example.org:443"),
        ],
        v4: Some([10, 77, 0, 2].into()),
        v6: Some("fd00::2".parse().expect("an address")),
        mtu: Some(1400),
    };
    let text = code.encode().expect("a code");
    // The content alone, for the target to seal; see its module.
    let mut content = vec![0];
    content.extend(bech32::decode(&text).expect("our own code").1);
    let short = JoinCode {
        endpoints: vec![endpoint("192.0.2.1:1")],
        v6: None,
        mtu: None,
        ..code
    };
    vec![
        ("text", text.clone().into_bytes()),
        ("upper-case", text.to_uppercase().into_bytes()),
        ("short", short.encode().expect("a code").into_bytes()),
        ("content", content),
    ]
}

/// Frames as the TUN gives them: a virtio header and a packet, each behind its length.
fn tun_frames() -> Vec<(&'static str, Vec<u8>)> {
    let tcp4 = |flags: u8, len: usize| {
        let mut tcp = vec![
            0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 4, 0, 0, 0, 0, 0,
        ];
        tcp.extend(std::iter::repeat_n(0x61, len));
        ipv4(6, [10, 0, 0, 1], [10, 0, 0, 2], &tcp)
    };
    let tcp6 = {
        let mut tcp = vec![
            0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 4, 0, 0, 0, 0, 0,
        ];
        tcp.extend([0x62; 300]);
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        packet[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.extend(tcp);
        packet
    };
    let frame = |flags: u8, kind: u8, numbers: [u16; 4], packet: &[u8]| {
        let mut bytes = vec![flags, kind];
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend_from_slice(packet);
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend(bytes);
        out
    };
    let plain = frame(0, 0, [0; 4], &udp_v4(30));
    let unfinished = frame(1, 0, [0, 0, 20, 16], &tcp4(0x18, 50));
    let super4 = frame(1, 1, [40, 100, 20, 16], &tcp4(0x18, 350));
    let super4_cwr = frame(1, 0x81, [40, 100, 20, 16], &tcp4(0x90, 350));
    let super6 = frame(1, 4, [60, 120, 40, 16], &tcp6);
    let udp = frame(1, 5, [28, 64, 20, 6], &udp_v4(256));
    let all = [&plain[..], &unfinished, &super4, &super6, &udp].concat();
    vec![
        ("plain", plain),
        ("unfinished-checksum", unfinished),
        ("tcp4", super4),
        ("tcp4-cwr", super4_cwr),
        ("tcp6", super6),
        ("udp4", udp),
        ("several", all),
    ]
}

/// A base, packets that refer to it, and squeezed headers as a peer might write them.
fn squeezes() -> Vec<(&'static str, Vec<u8>)> {
    let chunk = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let step = |opcode: u8, bytes: &[u8]| [vec![opcode], chunk(bytes)].concat();
    let segment = |seq: u32, value: u32, extra: &[u8]| {
        let mut tcp = vec![0x30, 0x39, 0, 80];
        tcp.extend(seq.to_be_bytes());
        tcp.extend([0, 0, 0, 2, 0x80 + (extra.len() as u8 / 4 << 4), 0x10]);
        tcp.extend([4, 0, 0xaa, 0xbb, 0, 0, 1, 1, 8, 10]);
        tcp.extend(value.to_be_bytes());
        tcp.extend([0, 0, 0, 7]);
        tcp.extend_from_slice(extra);
        tcp.extend([0x61; 60]);
        tcp
    };
    let tcp4 = |seq, value, extra: &[u8]| {
        ipv4(6, [10, 0, 0, 1], [10, 0, 0, 2], &segment(seq, value, extra))
    };
    let sack = [1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let tcp6 = |seq| {
        let tcp = segment(seq, 9, &[]);
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        packet[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.extend(tcp);
        packet
    };
    let full = [0xff, 0xff]
        .into_iter()
        .chain(1..30)
        .chain([4, 1, 1, 1, 1, 9]);
    let full: Vec<u8> = full.chain([0x61; 20]).collect();
    vec![
        (
            "tcp4",
            [
                chunk(&tcp4(1, 5, &[])),
                step(2, &tcp4(61, 6, &[])),
                step(4, &tcp4(100_000, 700, &sack)),
                step(3, &[0, 0, 9, 9, 1, 2, 3]),
                step(3, &full),
            ]
            .concat(),
        ),
        (
            "tcp6",
            [chunk(&tcp6(1)), step(2, &tcp6(61)), step(1, &full)].concat(),
        ),
        (
            "udp4",
            [
                chunk(&udp_v4(30)),
                step(2, &udp_v4(31)),
                step(3, &[0xb0, 3, 9, 9, 1, 2, 3, 4, 5, 6]),
            ]
            .concat(),
        ),
        (
            "esp4",
            [
                chunk(&ipv4(50, [10, 0, 0, 1], [10, 0, 0, 2], &[7; 40])),
                step(2, &ipv4(50, [10, 0, 0, 1], [10, 0, 0, 2], &[8; 50])),
            ]
            .concat(),
        ),
    ]
}

fn udp_v4(len: usize) -> Vec<u8> {
    udp_v4_from([10, 0, 0, 1], [10, 0, 0, 2], len)
}

fn udp_v4_from(source: [u8; 4], destination: [u8; 4], len: usize) -> Vec<u8> {
    let mut udp = vec![0x30, 0x39, 0, 53, 0, 0, 0, 0];
    udp.extend(std::iter::repeat_n(0x63, len));
    let total = (udp.len() as u16).to_be_bytes();
    udp[4..6].copy_from_slice(&total);
    ipv4(17, source, destination, &udp)
}

fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend_from_slice(content);
    let total = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&total);
    mend(&mut packet);
    packet
}

/// Puts the checksum of an IPv4 header right.
fn mend(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = (!(folded as u16)).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
}
