// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls with their errno, mapped memory, addresses that fault.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EINTR => "EINTR",
            libc::EIO => "EIO",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::ENOTTY => "ENOTTY",
            libc::ENOSPC => "ENOSPC",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            other => return write!(f, "errno {other}"),
        };
        f.write_str(name)
    }
}

/// What a system call gives.
pub type Sys<T> = Result<T, Errno>;

/// The errno of the last call.
pub fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// `value` unless it is -1.
pub fn check(value: i64) -> Sys<i64> {
    if value == -1 {
        Err(last())
    } else {
        Ok(value)
    }
}

/// ioctl(2) with any argument.
pub fn ioctl(fd: &impl AsRawFd, number: u32, argument: usize) -> Sys<i32> {
    // SAFETY: The kernel checks the argument; what it writes goes to memory that the caller names.
    let value = unsafe { libc::ioctl(fd.as_raw_fd(), number as libc::Ioctl, argument) };
    check(value.into()).map(|value| value as i32)
}

/// ioctl(2) on a structure.
pub fn ioctl_on<T>(fd: &impl AsRawFd, number: u32, argument: &mut T) -> Sys<i32> {
    ioctl(fd, number, argument as *mut T as usize)
}

/// open(2).
pub fn open(path: &str, flags: i32) -> Sys<OwnedFd> {
    let path = CString::new(path).expect("path without NUL");
    // SAFETY: A C string; the descriptor is new.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags) }.into())?;
    Ok(owned(fd as RawFd))
}

/// A descriptor that a call just returned.
pub fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: It is new, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// FD_CLOEXEC is set.
pub fn is_cloexec(fd: &impl AsRawFd) -> bool {
    // SAFETY: No memory involved.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// Page size.
pub const PAGE: usize = 4096;

/// Memory from mmap(2).
pub struct Memory {
    addr: usize,
    len: usize,
}

impl Memory {
    /// Private, anonymous, not reserved.
    pub fn new(len: usize) -> Self {
        Self::with(len, libc::PROT_READ | libc::PROT_WRITE, -1)
    }

    /// Of a file (shared) or, for -1, anonymous.
    pub fn with(len: usize, protection: i32, fd: RawFd) -> Self {
        let kind = if fd < 0 {
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE
        } else {
            libc::MAP_SHARED
        };
        Self::map(len, protection, kind, fd)
    }

    /// Of a file, and what is written is not the file's.
    pub fn private(len: usize, fd: RawFd) -> Self {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(len, both, libc::MAP_PRIVATE, fd)
    }

    fn map(len: usize, protection: i32, kind: i32, fd: RawFd) -> Self {
        // SAFETY: A new mapping.
        let addr = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, kind, fd, 0) };
        assert!(
            addr != libc::MAP_FAILED,
            "mmap of {len} bytes: {:?}",
            last()
        );
        Self {
            addr: addr as usize,
            len,
        }
    }

    /// Anonymous and aligned to 2 MiB.
    pub fn huge(len: usize) -> Self {
        const HUGE: usize = 2 << 20;
        let whole = Self::new(len + HUGE);
        let addr = whole.addr.next_multiple_of(HUGE);
        std::mem::forget(whole);
        let memory = Self { addr, len };
        memory.advise(0, len, libc::MADV_HUGEPAGE);
        memory
    }

    /// Its address.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes in.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: Inside the mapping; a guest may race, which these tests want.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.addr + at) as *mut u8, bytes.len())
        };
    }

    /// The 32-bit word at `at`, as it is now.
    pub fn word(&self, at: usize) -> u32 {
        assert!(at + 4 <= self.len);
        // SAFETY: Inside the mapping.
        unsafe { std::ptr::read_volatile((self.addr + at) as *const u32) }
    }

    /// Sets the 32-bit word at `at`.
    pub fn set_word(&self, at: usize, value: u32) {
        assert!(at + 4 <= self.len);
        // SAFETY: Inside the mapping.
        unsafe { std::ptr::write_volatile((self.addr + at) as *mut u32, value) }
    }

    /// madvise(2).
    pub fn advise(&self, at: usize, len: usize, advice: i32) {
        let r = self.try_advise(at, len, advice);
        assert!(r.is_ok(), "madvise {advice}: {r:?}");
    }

    /// madvise(2), which may fail.
    pub fn try_advise(&self, at: usize, len: usize, advice: i32) -> Sys<i64> {
        // SAFETY: The mapping's own range.
        check(unsafe { libc::madvise((self.addr + at) as *mut _, len, advice) }.into())
    }

    /// mprotect(2).
    pub fn protect(&self, at: usize, len: usize, protection: i32) {
        // SAFETY: The mapping's own range.
        let r = unsafe { libc::mprotect((self.addr + at) as *mut _, len, protection) };
        assert!(r == 0, "mprotect: {:?}", last());
    }

    /// munmap(2) of a part.
    pub fn unmap(&self, at: usize, len: usize) {
        // SAFETY: The mapping's own range, which is not used before `map_again`.
        let r = unsafe { libc::munmap((self.addr + at) as *mut _, len) };
        assert!(r == 0, "munmap: {:?}", last());
    }

    /// Fresh anonymous memory where there was some.
    pub fn map_again(&self, at: usize, len: usize) {
        // SAFETY: The mapping's own range.
        let r = unsafe {
            libc::mmap(
                (self.addr + at) as *mut _,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        assert!(r != libc::MAP_FAILED, "mmap: {:?}", last());
    }

    /// mremap(2) of a part to where the kernel likes; its new place.
    pub fn move_away(&self, at: usize, len: usize) -> Memory {
        let to = Self::new(len);
        // SAFETY: The mapping's own range, moved over a mapping of the same size.
        let r = unsafe {
            libc::mremap(
                (self.addr + at) as *mut _,
                len,
                len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to.addr as *mut libc::c_void,
            )
        };
        assert!(r != libc::MAP_FAILED, "mremap: {:?}", last());
        to
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: The mapping's own range.
        unsafe { libc::munmap(self.addr as *mut _, self.len) };
    }
}

/// An address where nothing is mapped.
pub const NOWHERE: usize = 0x10;
/// An address of the kernel.
pub const KERNEL: usize = 0xffff_8880_0000_1000;

/// Memory whose last `room` bytes end where nothing is mapped: (the memory, their address).
pub fn edge(room: usize) -> (Memory, usize) {
    let memory = Memory::new(2 * PAGE);
    memory.unmap(PAGE, PAGE);
    let addr = memory.addr() + PAGE - room;
    (memory, addr)
}

/// Sleeps.
pub fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// A small generator of numbers, the same in each run.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}
