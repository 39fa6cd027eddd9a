//! Who the other side is, and whether it started anew.
//!
//! WireGuard proves the key. HELLO says the rest: which path this is, which
//! life of the process speaks (the boot number), what the operator allows. A new
//! boot number means that the other side has forgotten every flow, so both
//! begin at zero; without it a restarted server would wait for numbers that
//! never come.
//!
//! What was observed of a path is over as well, on both ends. It was told by the other side's clock and by its counts,
//! which have begun anew. And tags begin at 0 with each of the client's lives, so what is called 1 now may be another
//! network than what was called so before. A path keeps nothing but its session, and what one life says is
//! believed only when it has greeted over the path: what a former one sent may still be on its way.

use super::{Bond, Context, Side};
use crate::event::{Event, PathReason};
use crate::frame::{CAN_COMPLETE, CAN_JOIN, CAN_RESTORE, CloseReason, Control, Hello, VERSION};
use crate::path::{Address, Greeting, MessageContent};
use crate::session::Number;
use crate::time::Time;
use crate::transmit::Arrival;

/// Former lives of the other side that are told from the present one: their sessions end within minutes.
const FORMER_BOOTS: usize = 8;

impl Bond {
    fn hello(&self, index: usize) -> Hello {
        Hello {
            version: VERSION,
            boot: self.boot,
            peer_boot: self.peer_boot.unwrap_or(0),
            path: self.paths[index].tag,
            capabilities: CAN_RESTORE | CAN_JOIN | CAN_COMPLETE,
            mtu: self.own_fit(),
            role: self.paths[index].role,
            modes: self.modes,
        }
    }

    /// Client: says HELLO on a path, and again until it is answered.
    pub(super) fn greet(&mut self, now: Time, index: usize) {
        if self.side != Side::Client || !self.paths[index].session.is_established() {
            return;
        }
        let hello = self.hello(index);
        let path = &mut self.paths[index];
        path.messages
            .retain(|m| !matches!(m.content, MessageContent::Control(Control::Hello(_))));
        path.say(MessageContent::Control(Control::Hello(hello)));
        let again = now + path.greeting_wait();
        // A path that was greeted before goes on carrying data meanwhile.
        path.greeting = if path.greeting.is_done() {
            Greeting::Repeating(again)
        } else {
            Greeting::Waiting(again)
        };
    }

    /// Before a HELLO or its answer is noted with its path: if another life of the other side speaks than the one that
    /// greeted over the path before, the path begins anew. Whether it is a former life that speaks: a path over which the
    /// present one has not greeted yet may still bring a greeting of that one.
    pub(super) fn note_life(
        &mut self,
        now: Time,
        index: usize,
        arrival: Arrival,
        number: Number,
        control: &Control,
        ctx: &mut Context<'_>,
    ) -> bool {
        let (Control::Hello(hello) | Control::HelloAck(hello)) = control else {
            return false;
        };
        let path = &self.paths[index];
        let for_us = matches!(control, Control::Hello(_)) == (self.side == Side::Server)
            && hello.version == VERSION
            && hello.path == path.tag;
        if !for_us || path.life == Some(hello.boot) || path.is_former(now, number.session) {
            return false;
        }
        if self.former_boots.contains(&hello.boot) {
            return true;
        }
        if self.side == Side::Server && self.peer_boot.is_none() {
            super::news(
                ctx.events,
                Event::PeerSeen {
                    peer: self.peer.public,
                },
            );
        }
        if let Some(former) = self.peer_boot.filter(|boot| *boot != hello.boot) {
            self.former_boots.push_back(former);
            if self.former_boots.len() > FORMER_BOOTS {
                self.former_boots.pop_front();
            }
            self.peer_restarted(now, index, ctx);
        }
        self.peer_boot = Some(hello.boot);
        if self.paths[index].life.is_some() {
            let address = match self.side {
                Side::Client => self.paths[index].address,
                Side::Server => Address::from(arrival),
            };
            self.begin_path_anew(now, index, address);
        }
        let path = &mut self.paths[index];
        path.life = Some(hello.boot);
        path.first_session = Some((number.session, now));
        false
    }

    /// Forgets what was observed of a path.
    pub(super) fn begin_path_anew(&mut self, now: Time, index: usize, address: Address) {
        let path = self.paths.remove(index);
        self.paths.insert(index, path.begun_anew(now, address));
    }

    /// Whether a message on a path may come from a former life of the other side.
    pub(super) fn is_former(&self, now: Time, index: usize, number: Number) -> bool {
        let path = &self.paths[index];
        let greeted_before = path.life.is_some() && path.life != self.peer_boot;
        greeted_before || path.is_former(now, number.session)
    }

    /// Server: a client introduces a path.
    pub(super) fn handle_hello(
        &mut self,
        now: Time,
        index: usize,
        arrival: Arrival,
        hello: Hello,
        ctx: &mut Context<'_>,
    ) {
        if self.side != Side::Server {
            return self.drop_packet("hello_unexpected");
        }
        if hello.version != VERSION {
            self.drop_packet("hello_other_version");
            let close = Control::Close(CloseReason::Version);
            return self.paths[index].say(MessageContent::Control(close));
        }
        if hello.path != self.paths[index].tag {
            return self.drop_packet("hello_other_path");
        }
        self.modes = hello.modes;
        self.agree(index, &hello);
        let answer = self.hello(index);
        let path = &mut self.paths[index];
        path.role = hello.role;
        // The handshake and this message came from there: it is the path's address.
        if !path.greeting.is_done() {
            path.address = Address::from(arrival);
        }
        path.say(MessageContent::Control(Control::HelloAck(answer)));
        self.connected(now, index, ctx);
        self.search_sizes(now, index);
    }

    /// Client: the server answered.
    pub(super) fn handle_hello_ack(
        &mut self,
        now: Time,
        index: usize,
        hello: Hello,
        ctx: &mut Context<'_>,
    ) {
        if hello.version != VERSION {
            return self.drop_packet("hello_other_version");
        }
        if self.side != Side::Client || hello.path != self.paths[index].tag {
            return self.drop_packet("hello_unexpected");
        }
        let offered = self.own_fit();
        self.agree(index, &hello);
        self.connected(now, index, ctx);
        self.search_sizes(now, index);
        if self.own_fit() != offered {
            // It is known only now that the other side does not join halves.
            self.greet_all(now);
        }
    }

    /// What the other side takes and can do.
    fn agree(&mut self, index: usize, hello: &Hello) {
        self.peer_mtu = hello.mtu;
        let joins = hello.capabilities & CAN_JOIN != 0;
        self.peer_joins = Some(joins);
        self.squeezer.enable(hello.capabilities & CAN_RESTORE != 0);
        self.peer_completes = hello.capabilities & CAN_COMPLETE != 0;
        self.mtu = self.fitting_mtu();
        self.paths[index].mtu.agree(self.mtu, joins);
    }

    /// Client: says HELLO on every path, as something changed.
    pub(super) fn greet_all(&mut self, now: Time) {
        for index in 0..self.paths.len() {
            self.paths[index].greets_anew();
            self.greet(now, index);
        }
    }

    /// Removes every path: the peer may not connect any more.
    pub fn expel(&mut self, now: Time, ctx: &mut Context<'_>) {
        while !self.paths.is_empty() {
            self.remove_path(now, 0, PathReason::PeerClosed, ctx);
        }
    }
}
