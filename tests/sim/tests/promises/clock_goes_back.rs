//! A client whose clock was set back while it did not run gets in all the same.

use std::time::Duration;

use marline_proto::{PathState, Time};

use crate::ends::{End, pass};

const STEP: Duration = Duration::from_millis(1);

/// Lets time pass until the client's bond has two paths, at most a minute; returns how long that took.
fn until_up(client: &mut End, server: &mut End) -> Duration {
    let begin = client.now;
    while client.paths(PathState::Active) < 2 && client.now.since(begin) < Duration::from_secs(60) {
        pass(client, server, STEP);
    }
    client.now.since(begin)
}

#[test]
fn a_client_with_its_clock_set_back_is_let_in_within_seconds() {
    let mut server = End::server(Time::from_millis(1), 4);
    let mut before = End::client(Time::from_millis(100_000_000), 3);
    assert!(until_up(&mut before, &mut server) < Duration::from_millis(100));

    // Killed, and started again a day earlier by its own clock.
    drop(before);
    let mut after = End::client(Time::from_millis(13_600_000), 5);
    let took = until_up(&mut after, &mut server);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(
        server.dropped("handshake_old") > 0,
        "the clock did not matter"
    );
}

#[test]
fn a_client_whose_clock_goes_on_is_let_in_at_once() {
    let mut server = End::server(Time::from_millis(1), 4);
    let mut before = End::client(Time::from_millis(100_000_000), 3);
    until_up(&mut before, &mut server);
    let mut after = End::client(before.now, 5);
    let took = until_up(&mut after, &mut server);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(server.dropped("handshake_old"), 0);
}
