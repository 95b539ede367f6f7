// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The main thread's work while a VM runs: console input, disk requests, signals, the end of the run.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Result;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;

use crate::console::{Console, LEAVE};
use crate::devices::virtio_mmio::VirtioMmio;
use crate::outcome::Outcome;
use crate::vcpu::Machine;

type Subscriber = Box<dyn MutEventSubscriber>;

/// Serves `machine` until its run ends, and says how it ended. `signals` becomes readable when hvrsctl is told to end.
pub fn serve(
    machine: &Arc<Machine>,
    console: &Arc<Console>,
    signals: &UnixStream,
) -> Result<Outcome> {
    let mut manager = EventManager::<Subscriber>::new()?;
    manager.add_subscriber(Box::new(End {
        machine: machine.clone(),
        signals: signals.as_raw_fd(),
    }));
    manager.add_subscriber(Box::new(ConsoleInput::new(
        machine.clone(),
        console.clone(),
    )));
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

/// From the console to COM1. Input is read only when all that was read before has been taken.
struct ConsoleInput {
    machine: Arc<Machine>,
    console: Arc<Console>,
    pending: VecDeque<u8>,
    listening: bool,
}

impl ConsoleInput {
    fn new(machine: Arc<Machine>, console: Arc<Console>) -> Self {
        Self {
            machine,
            console,
            pending: VecDeque::new(),
            listening: false,
        }
    }

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
            self.pending.extend(&buffer[..n]);
        }
        self.push();
    }

    fn push(&mut self) {
        while !self.pending.is_empty() {
            let (head, _) = self.pending.as_slices();
            let taken = self.machine.bus.serial.enqueue(head);
            self.pending.drain(..taken);
            if taken == 0 {
                return;
            }
        }
    }
}

impl MutEventSubscriber for ConsoleInput {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.machine.bus.serial.room().as_raw_fd());
        self.listen(ops, true);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.machine.bus.serial.room().as_raw_fd() {
            let _ = self.machine.bus.serial.room().read();
            self.push();
        } else {
            let mut buffer = [0; 256];
            match self.console.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let mut input = &buffer[..n];
                    if self.console.is_raw_terminal() {
                        if let Some(end) = input.iter().position(|byte| *byte == LEAVE) {
                            input = &input[..end];
                            self.machine.exit.set(Outcome::Stopped);
                        }
                    }
                    self.pending.extend(input);
                    self.push();
                }
                // The end of the input, or a pseudo-terminal that nobody has open: the guest runs on without.
                _ => return self.listen(ops, false),
            }
        }
        let idle = self.pending.is_empty();
        self.listen(ops, idle);
    }
}

fn add(ops: &mut EventOps, fd: RawFd) {
    ops.add(Events::new_raw(fd, EventSet::IN))
        .expect("an eventfd or socket can be waited for");
}
