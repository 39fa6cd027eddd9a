//! What is forged, or was said by a process that is no more, changes nothing.

use std::time::Duration;

use marline_proto::{Command, PathState, SocketId, Time};

use crate::ends::{End, Said, pass, pass_if};

const STEP: Duration = Duration::from_millis(10);
const START: Time = Time::from_millis(1_000);

/// Whether it is a message of this type, by its plain header.
fn is(kind: u8, datagram: &[u8]) -> bool {
    datagram[..4] == [kind, 0, 0, 0]
}

/// Whether it is a KEEP.
fn is_keep(datagram: &[u8]) -> bool {
    is(5, datagram) || datagram[..4] == [5, 1, 0, 0]
}

/// Two ends whose bond nobody used for four minutes, and the last KEEP of each of the two paths.
fn at_rest() -> (End, End, Vec<(SocketId, Vec<u8>)>) {
    let (mut client, mut server) = (End::client(START, 3), End::server(START, 4));
    for _ in 0..100 {
        pass(&mut client, &mut server, STEP);
    }
    assert_eq!(client.paths(PathState::Active), 2);
    let mut keeps = Vec::new();
    for _ in 0..24_000 {
        pass_if(&mut client, &mut server, STEP, |_, socket, datagram| {
            if is_keep(datagram) {
                keeps.retain(|(other, _)| *other != socket);
                keeps.push((socket, datagram.to_vec()));
            }
            true
        });
    }
    assert_eq!(client.paths(PathState::Resting), 2);
    assert_eq!(server.paths(PathState::Resting), 2);
    assert_eq!(keeps.len(), 2, "each path shows itself");
    (client, server, keeps)
}

/// The WAKE that answers a KEEP.
fn answer(keep: &[u8]) -> Vec<u8> {
    [&[6, 0, 0, 0], &keep[8..12], &keep[12..16]].concat()
}

/// The SEEN that does.
fn seen(keep: &[u8]) -> Vec<u8> {
    [&[7, 0, 0, 0], &keep[8..12], &keep[12..16]].concat()
}

fn shakes_hands(client: &mut End) -> bool {
    let mut said = client.speak();
    client.wait(Duration::from_millis(1));
    said.extend(client.speak());
    said.iter().any(|(_, datagram)| is(1, datagram))
}

#[test]
fn a_wake_is_believed_once_and_only_with_the_cookie_that_was_said() {
    let (mut client, _, keeps) = at_rest();
    let (socket, keep) = &keeps[0];
    let right = answer(keep);
    let mut wrong = right.clone();
    wrong[11] ^= 1;
    client.hear(*socket, &wrong);
    assert!(!shakes_hands(&mut client));
    assert_eq!(client.dropped("wake_forged"), 1);
    client.hear(*socket, &right);
    assert!(shakes_hands(&mut client));
    // Nothing comes of it once more, not even an entry in the list of forgeries: servers repeat themselves.
    client.hear(*socket, &right);
    assert!(!shakes_hands(&mut client));
    assert_eq!(client.dropped("wake_forged"), 1);
}

#[test]
fn a_keep_for_another_server_is_answered_with_its_cookie_and_nothing_longer() {
    let (_, _, keeps) = at_rest();
    let mut stranger = End::server(START, 9);
    let (socket, keep) = &keeps[0];
    stranger.hear(*socket, keep);
    assert_eq!(stranger.speak(), [(*socket, answer(keep))]);
}

#[test]
fn nobody_is_woken_by_the_wrong_end() {
    let (mut client, mut server, keeps) = at_rest();
    let (socket, keep) = &keeps[0];
    // The server's index is where the client's would be.
    let to_server = [&[6, 0, 0, 0], &keep[4..8], &keep[12..16]].concat();
    server.hear(*socket, &to_server);
    assert_eq!(server.dropped("wake_unexpected"), 1);
    let to_client = [&[5, 0, 0, 0], &keep[8..12], &keep[4..8], &keep[12..16]].concat();
    client.hear(*socket, &to_client);
    assert_eq!(client.dropped("keep_unexpected"), 1);
    let seen_by_client = [&[7, 0, 0, 0], &keep[4..8], &keep[12..16]].concat();
    server.hear(*socket, &seen_by_client);
    assert_eq!(server.dropped("seen_unexpected"), 1);
    assert!(server.speak().is_empty() && !shakes_hands(&mut client));
}

#[test]
fn a_keep_that_asks_is_answered_with_its_cookie_which_alone_is_believed() {
    let (mut client, mut server, keeps) = at_rest();
    let (socket, keep) = &keeps[0];
    let mut asking = keep.clone();
    asking[1] = 1;
    server.hear(*socket, &asking);
    assert_eq!(server.speak(), [(*socket, seen(keep))]);
    let mut wrong = seen(keep);
    wrong[11] ^= 1;
    client.hear(*socket, &wrong);
    assert_eq!(client.dropped("seen_forged"), 1);
    client.hear(*socket, &seen(keep));
    assert_eq!(client.dropped("seen_forged"), 1);
    assert!(!shakes_hands(&mut client));
    // What does not ask is not answered.
    server.hear(*socket, keep);
    assert_eq!(server.speak(), []);
}

#[test]
fn a_keep_in_the_name_of_another_client_is_refused() {
    let (_, mut server, keeps) = at_rest();
    let (socket, keep) = &keeps[0];
    let mut forged = keep.clone();
    forged[10] ^= 1;
    server.hear(*socket, &forged);
    assert_eq!(server.dropped("keep_forged"), 1);
    // What waits for the client goes where it really is.
    let mut packet = server.endpoint.buffer();
    packet.fill_from(&udp_to_client());
    server.endpoint.handle_packet(server.now, packet);
    assert_eq!(server.speak(), []);
    server.wait(Duration::from_millis(1));
    let wakes: Vec<_> = keeps.iter().map(|(s, keep)| (*s, answer(keep))).collect();
    assert_eq!(server.speak(), wakes);
}

#[test]
fn a_forged_keep_sends_four_wakes_to_whom_it_names_and_no_more() {
    let (mut client, mut server, keeps) = at_rest();
    for (socket, keep) in &keeps {
        let mut forged = keep.clone();
        forged[12] ^= 1;
        server.hear(*socket, &forged);
    }
    let mut wakes = 0;
    for _ in 0..90 {
        let mut packet = server.endpoint.buffer();
        packet.fill_from(&udp_to_client());
        server.endpoint.handle_packet(server.now, packet);
        for _ in 0..100 {
            wakes += server.speak().len();
            server.wait(STEP);
        }
    }
    assert_eq!(wakes, 8);
    // The client itself is woken by its next one.
    client.wait(Duration::from_secs(30));
    let shown = client.speak();
    assert_eq!(shown.len(), 2);
    for (socket, keep) in shown {
        server.hear(socket, &keep);
    }
    assert_eq!(server.speak().len(), 2);
}

#[test]
fn an_uplink_too_many_takes_the_place_of_one_that_never_answered_not_of_one_that_rests() {
    let (mut client, mut server, _) = at_rest();
    (2..9).for_each(|uplink| client.add_uplink(uplink));
    assert_eq!(client.paths(PathState::Connecting), 6);
    assert_eq!(client.paths(PathState::Resting), 2);
    for _ in 0..24_000 {
        pass(&mut client, &mut server, STEP);
    }
    client.add_uplink(9);
    assert_eq!(client.paths(PathState::Resting), 8);
}

#[test]
fn who_vanished_while_nobody_looked_is_down_when_that_is_noticed() {
    let is_up = |end: &End| end.bond().is_some_and(|bond| bond.up);
    let (mut client, mut server, _) = at_rest();
    assert!(is_up(&client) && is_up(&server));
    // Neither hears the other any more. The server misses what a client at rest shows.
    for _ in 0..200 {
        server.wait(Duration::from_secs(1));
        server.speak();
    }
    assert!(!is_up(&server));
    assert_eq!(server.bond().expect("a peer that was seen").paths, []);
    // The client learns it when it is asked to send.
    let mut packet = client.endpoint.buffer();
    packet.fill_from(&udp());
    client.endpoint.handle_packet(client.now, packet);
    for _ in 0..400 {
        client.speak();
        client.wait(STEP);
    }
    assert!(!is_up(&client));
    assert_eq!(client.paths(PathState::Connecting), 2);
}

/// One from there.
fn udp_to_client() -> [u8; 36] {
    let mut packet = udp();
    packet[12..20].copy_from_slice(&[203, 0, 113, 9, 10, 77, 0, 2]);
    packet
}

/// A datagram of 8 bytes to the internet.
fn udp() -> [u8; 36] {
    let mut packet = [0; 36];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 36]);
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 77, 0, 2, 203, 0, 113, 9]);
    packet[20..26].copy_from_slice(&[0x12, 0x34, 0x30, 0x39, 0, 16]);
    packet
}

#[test]
fn an_answer_of_a_server_that_is_no_more_brings_it_not_back() {
    let late = SocketId(1);
    let (mut client, mut former) = (End::client(START, 3), End::server(START, 4));
    // What the first server says in its sessions over the second uplink is held up.
    let mut held_up = Vec::new();
    for _ in 0..20 {
        pass_if(&mut client, &mut former, STEP, |said, socket, datagram| {
            let held = said == Said::ByServer && socket == late && is(4, datagram);
            if held {
                held_up.push(datagram.to_vec());
            }
            !held
        });
    }
    assert_eq!(client.paths(PathState::Active), 1);
    // Another one takes its place, and is heard of over the first uplink alone.
    let mut present = End::server(former.now, 5);
    client.endpoint.handle_command(client.now, Command::Woke);
    for _ in 0..50 {
        pass_if(&mut client, &mut present, STEP, |said, socket, _| {
            said == Said::ByServer || socket != late
        });
    }
    let restarts =
        |client: &End| client.bond().expect("a client has one").counters["peer_restarts"];
    assert_eq!((restarts(&client), client.paths(PathState::Active)), (1, 1));
    for datagram in &held_up {
        client.hear(late, datagram);
    }
    assert_eq!((restarts(&client), client.paths(PathState::Active)), (1, 1));
    assert!(client.dropped("datagram_former_life") > 0);
}
