// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket of a running VM.
//!
//! A client sends one line: `console` (then the connection is the guest's console), `power-button` or `kill`
//! (then it stays open until the VM has ended).

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;

use crate::console::Console;
use crate::monitor::ConsoleFeed;
use crate::outcome::Outcome;
use crate::registry::Registration;
use crate::vcpu::Machine;

/// The longest request.
const REQUEST_MAX: usize = 64;

enum State {
    /// The request has not arrived in full.
    New(Vec<u8>),
    /// Types to the guest. Output goes to a second handle of the connection, which the console has.
    Console,
    /// Waits for the end.
    Waiting,
}

struct Client {
    stream: UnixStream,
    state: State,
}

/// Connections that last longer than one run of the VM.
#[derive(Default)]
pub struct Clients(HashMap<RawFd, Client>);

/// Serves the control socket during one run.
pub struct Control<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) clients: &'a mut Clients,
    pub(crate) console: Arc<Console>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) feed: ConsoleFeed,
}

impl Control<'_> {
    fn accept(&mut self, ops: &mut EventOps) {
        while let Ok((stream, _)) = self.registration.listener().accept() {
            if stream.set_nonblocking(true).is_ok()
                && ops.add(Events::new(&stream, EventSet::IN)).is_ok()
            {
                let state = State::New(Vec::new());
                self.clients
                    .0
                    .insert(stream.as_raw_fd(), Client { stream, state });
            }
        }
    }

    /// Takes what a client sent; false when the connection is over.
    fn receive(&mut self, client: &mut Client) -> bool {
        let mut buffer = [0; 256];
        let received = match client.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => &buffer[..n],
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        match &mut client.state {
            State::New(request) => {
                request.extend(received);
                let Some(end) = request.iter().position(|byte| *byte == b'\n') else {
                    return request.len() <= REQUEST_MAX;
                };
                let rest = request.split_off(end);
                let Some(state) = self.request(&client.stream, request, &rest[1..]) else {
                    return false;
                };
                client.state = state;
                true
            }
            State::Console => {
                self.feed.push(received);
                true
            }
            State::Waiting => true,
        }
    }

    fn request(&self, stream: &UnixStream, line: &[u8], rest: &[u8]) -> Option<State> {
        match line {
            b"console" => {
                self.console.attach(stream.try_clone().ok()?);
                self.feed.push(rest);
                Some(State::Console)
            }
            b"power-button" => {
                self.machine.bus.power.press_button();
                Some(State::Waiting)
            }
            b"kill" => {
                self.machine.exit.set(Outcome::Stopped);
                Some(State::Waiting)
            }
            _ => None,
        }
    }
}

impl MutEventSubscriber for Control<'_> {
    fn init(&mut self, ops: &mut EventOps) {
        let listener = Events::new(self.registration.listener(), EventSet::IN);
        ops.add(listener).expect("a socket can be waited for");
        self.clients
            .0
            .retain(|_, client| ops.add(Events::new(&client.stream, EventSet::IN)).is_ok());
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.registration.listener().as_raw_fd() {
            return self.accept(ops);
        }
        let Some(mut client) = self.clients.0.remove(&events.fd()) else {
            return;
        };
        if self.receive(&mut client) {
            self.clients.0.insert(events.fd(), client);
        } else {
            // Before the descriptor is closed: the console's handle would keep epoll's entry alive.
            let _ = ops.remove(events);
        }
    }
}
