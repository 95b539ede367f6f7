// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The main thread's work while a VM runs: console input, disk requests, signals, the end of the run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;

use crate::console::{Console, LEAVE};
use crate::control::{Clients, Control};
use crate::devices::virtio_mmio::VirtioMmio;
use crate::outcome::Outcome;
use crate::registry::Registration;
use crate::vcpu::Machine;

type Subscriber<'a> = Box<dyn MutEventSubscriber + 'a>;

/// What stays the same while a VM runs and reboots.
pub struct Monitor<'a> {
    /// The host's end of the console.
    pub console: Arc<Console>,
    /// The VM's entry in the registry, with its control socket.
    pub registration: &'a Registration,
    /// Becomes readable when hvrsctl is told to end.
    pub signals: UnixStream,
    /// Who is connected to the control socket.
    pub clients: Clients,
    /// What Ctrl-] does: lets the terminal go, or, when that is not possible, ends the VM (false).
    pub leave: Box<dyn Fn() -> bool + 'a>,
}

impl Monitor<'_> {
    /// Serves `machine` until its run ends, and says how it ended.
    pub fn serve(&mut self, machine: &Arc<Machine>) -> Result<Outcome> {
        let feed = ConsoleFeed::new(machine.clone());
        let mut manager = EventManager::<Subscriber>::new()?;
        let signals = self.signals.as_raw_fd();
        manager.add_subscriber(Box::new(End {
            machine: machine.clone(),
            signals,
        }));
        manager.add_subscriber(Box::new(ConsoleInput {
            console: self.console.clone(),
            feed: feed.clone(),
            listening: false,
            leave: &self.leave,
        }));
        manager.add_subscriber(Box::new(Control {
            registration: self.registration,
            clients: &mut self.clients,
            console: self.console.clone(),
            machine: machine.clone(),
            feed,
        }));
        for disk in &machine.bus.virtio {
            manager.add_subscriber(Box::new(Kick(disk.clone())));
        }
        loop {
            if let Some(outcome) = machine.exit.outcome() {
                return Ok(outcome);
            }
            manager.run()?;
        }
    }
}

/// Input on its way to COM1, from the console and from clients of the control socket.
#[derive(Clone)]
pub struct ConsoleFeed {
    machine: Arc<Machine>,
    pending: Rc<RefCell<VecDeque<u8>>>,
}

/// Input that waits at most; what a client sends beyond that is lost, as on a wire.
const PENDING_MAX: usize = 1 << 20;

impl ConsoleFeed {
    fn new(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            pending: Rc::default(),
        }
    }

    /// Adds input and passes on what the guest takes.
    pub fn push(&self, input: &[u8]) {
        let mut pending = self.pending.borrow_mut();
        let room = PENDING_MAX.saturating_sub(pending.len());
        pending.extend(&input[..input.len().min(room)]);
        while !pending.is_empty() {
            let taken = self.machine.bus.serial.enqueue(pending.as_slices().0);
            pending.drain(..taken);
            if taken == 0 {
                return;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.pending.borrow().is_empty()
    }
}

/// The end of the run: reported by a VP, or asked for by a signal.
struct End {
    machine: Arc<Machine>,
    signals: RawFd,
}

impl MutEventSubscriber for End {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.machine.exit.event().as_raw_fd());
        add(ops, self.signals);
    }

    fn process(&mut self, events: Events, _: &mut EventOps) {
        if events.fd() == self.signals {
            self.machine.exit.set(Outcome::Stopped);
        }
    }
}

/// A driver's notification.
struct Kick(Arc<VirtioMmio>);

impl MutEventSubscriber for Kick {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.0.kick().as_raw_fd());
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.0.kick().read();
        self.0.process();
    }
}

/// The console's input. It is read only when all that was read before has been taken.
struct ConsoleInput<'a> {
    console: Arc<Console>,
    feed: ConsoleFeed,
    listening: bool,
    leave: &'a (dyn Fn() -> bool + 'a),
}

impl ConsoleInput<'_> {
    fn listen(&mut self, ops: &mut EventOps, on: bool) {
        let Some(input) = self.console.input() else {
            return;
        };
        let events = Events::new(input, EventSet::IN);
        if on && !self.listening {
            match ops.add(events) {
                Ok(()) => self.listening = true,
                // A regular file or /dev/null cannot be waited for; what it holds is there now.
                Err(_) => self.read_all(),
            }
        } else if !on && self.listening {
            self.listening = ops.remove(events).is_err();
        }
    }

    fn read_all(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = self.console.read(&mut buffer) {
            self.feed.push(&buffer[..n]);
        }
    }

    /// Takes what was typed; false when nothing more will come.
    fn receive(&mut self, ops: &mut EventOps) -> bool {
        let mut buffer = [0; 256];
        // The end of the input, or a pseudo-terminal that nobody has open: the guest runs on without.
        let Ok(n @ 1..) = self.console.read(&mut buffer) else {
            return false;
        };
        let input = &buffer[..n];
        if self.console.is_raw_terminal() {
            if let Some(end) = input.iter().position(|byte| *byte == LEAVE) {
                self.feed.push(&input[..end]);
                self.listen(ops, false);
                if !(self.leave)() {
                    self.feed.machine.exit.set(Outcome::Stopped);
                }
                return false;
            }
        }
        self.feed.push(input);
        true
    }
}

impl MutEventSubscriber for ConsoleInput<'_> {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.feed.machine.bus.serial.room().as_raw_fd());
        self.listen(ops, true);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let more = if events.fd() == self.feed.machine.bus.serial.room().as_raw_fd() {
            let _ = self.feed.machine.bus.serial.room().read();
            self.feed.push(&[]);
            true
        } else {
            self.receive(ops)
        };
        if more {
            let idle = self.feed.is_empty();
            self.listen(ops, idle);
        } else {
            self.listen(ops, false);
            self.console.close_input();
        }
    }
}

fn add(ops: &mut EventOps, fd: RawFd) {
    ops.add(Events::new_raw(fd, EventSet::IN))
        .expect("an eventfd or socket can be waited for");
}
