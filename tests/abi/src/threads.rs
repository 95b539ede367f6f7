// SPDX-License-Identifier: Apache-2.0 OR MIT
//! VPs on threads of their own, and signals for them.

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mshv_bindings::*;

use crate::guests::COUNTER;
use crate::run::{eventually, Outcome, Stop};
use crate::sys::{sleep_ms, Errno, Memory, Sys};
use crate::vm::names::HV_X64_REGISTER_RIP;
use crate::vm::Vp;

extern "C" fn ignore(_: i32) {}

/// Makes SIGUSR1 interrupt system calls and do nothing else.
fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: A zeroed sigaction without SA_RESTART is valid; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
        }
    });
}

/// Work on a thread that a signal can interrupt.
pub struct Running<T> {
    thread: JoinHandle<T>,
    stop: Arc<AtomicBool>,
}

impl<T: Send + 'static> Running<T> {
    /// Starts it; it is told when to stop.
    pub fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        install_handler();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || work(&flag));
        Self { thread, stop }
    }

    /// It has ended by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Sends one signal.
    pub fn signal(&self) {
        // SAFETY: The thread is not joined yet.
        unsafe { libc::pthread_kill(self.thread.as_pthread_t(), libc::SIGUSR1) };
    }

    /// Its result, when it ends by itself within `seconds`.
    pub fn wait(self, seconds: u64) -> Result<T, Stop> {
        eventually("the thread ends", seconds, || self.is_over())?;
        self.thread
            .join()
            .map_err(|_| Stop::Fail("the thread panicked".into()))
    }

    /// Sends signals until it ends, at most 5 seconds.
    pub fn interrupt(self) -> Result<T, Stop> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(5);
        while !self.is_over() {
            if Instant::now() > end {
                return Err(Stop::Fail("a signal does not end RUN_VP within 5 s".into()));
            }
            self.signal();
            sleep_ms(2);
        }
        self.thread
            .join()
            .map_err(|_| Stop::Fail("the thread panicked".into()))
    }
}

/// One RUN_VP.
pub fn run_once(vp: &Vp) -> Running<Sys<hv_message>> {
    let vp = vp.clone();
    Running::start(move |_| vp.run())
}

/// RUN_VP again and again, over port accesses; ends with another message, an error, or EINTR after it was told to stop.
pub fn run_on(vp: &Vp) -> Running<Sys<hv_message>> {
    let vp = vp.clone();
    Running::start(move |stop| loop {
        match vp.run() {
            Ok(message)
                if message.header.message_type == hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT =>
            {
                skip(&vp, &message)?
            }
            Err(Errno(libc::EINTR)) if !stop.load(Ordering::Relaxed) => {}
            other => return other,
        }
    })
}

/// Goes on behind an instruction that was intercepted.
pub fn skip(vp: &Vp, message: &hv_message) -> Sys<()> {
    let info = message.to_ioport_info().map_err(|_| Errno(libc::EBADMSG))?;
    let (rip, length) = (info.header.rip, info.header.instruction_length());
    vp.set(&[(HV_X64_REGISTER_RIP, (rip + u64::from(length), 0))])
        .map_err(|e| e.errno)
}

/// Waits until the guest has counted once.
pub fn started(memory: &Memory) -> Outcome {
    eventually("the guest starts", 10, || memory.word(COUNTER) != 0)
}

/// Waits until the word at `at` changes: the guest runs.
pub fn moves(memory: &Memory, at: usize) -> Outcome {
    let before = memory.word(at);
    eventually(&format!("the guest counts at {at:#x}"), 10, || {
        memory.word(at) != before
    })
}

/// Fails unless RUN_VP ended with EINTR.
pub fn interrupted(got: Sys<hv_message>) -> Outcome {
    match got {
        Err(Errno(libc::EINTR)) => Ok(()),
        Err(e) => Err(Stop::Fail(format!("RUN_VP: {e:?} instead of EINTR"))),
        Ok(message) => Err(Stop::Fail(format!(
            "RUN_VP: message {:#x} instead of EINTR",
            { message.header.message_type }
        ))),
    }
}
