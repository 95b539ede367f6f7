// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel does with the VMM's memory while a guest uses it: reclaim, swap, KSM, large pages made and split,
//! migration. The guest counts in each of its pages, so that one lost write is seen.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::cases::{meminfo, memory_file};
use crate::guests::{self, COUNTER, PLAYGROUND};
use crate::run::{case, ensure, equal, eventually, Case, Outcome, Stop};
use crate::sys::{self, Errno, Memory, Random, PAGE};
use crate::threads::{interrupted, moves, run_on, skip, started, Running};
use crate::vm::*;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// The pages that the guest `walk` counts in.
const WALKED: std::ops::Range<usize> = PLAYGROUND..0x10_0000;
const HUGE: usize = 2 << 20;

/// Writes a file of the kernel's, or skips: not every kernel has it.
pub(super) fn set(path: &str, value: &str) -> Outcome {
    std::fs::write(path, value).map_err(|e| Stop::Skip(format!("{path}: {e}")))
}

/// A number in a file of the kernel's.
pub(super) fn number(path: &str) -> Result<u64, Stop> {
    let text = std::fs::read_to_string(path).map_err(|e| Stop::Skip(format!("{path}: {e}")))?;
    text.trim()
        .parse()
        .map_err(|_| Stop::Fail(format!("{path}: {text}")))
}

/// A file of the kernel's that is set until this is dropped.
struct Setting(&'static str, String);

impl Setting {
    fn new(path: &'static str, value: &str) -> Result<Self, Stop> {
        let before = number(path)?.to_string();
        set(path, value)?;
        Ok(Self(path, before))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0, &self.1);
    }
}

/// KiB of this process in a line of smaps_rollup.
fn rollup(name: &str) -> Result<u64, Stop> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| Stop::Fail(format!("no {name} in smaps_rollup")))
}

/// A guest that increments the first byte of each page of WALKED in turn, then COUNTER.
struct Walker {
    guest: Guest,
    running: Running<sys::Sys<mshv_bindings::hv_message>>,
}

impl Walker {
    fn on(memory: Memory) -> Result<Self, Stop> {
        let guest = Guest::with(guests::walk(), 1, SUPER_PAGES, memory)?;
        let running = run_on(guest.vp());
        started(&guest.memory)?;
        Ok(Self { guest, running })
    }

    fn memory(&self) -> &Memory {
        &self.guest.memory
    }

    /// `change` again and again while the guest walks, then every count is right.
    fn under(self, rounds: usize, mut change: impl FnMut(&Memory) -> Outcome) -> Outcome {
        for _ in 0..rounds {
            change(self.memory())?;
            moves(self.memory(), COUNTER)?;
        }
        self.counted().map(|_| ())
    }

    /// Stops the guest. Each page has as many increments as the guest has made rounds, or, as far as it is in this round, one more.
    fn counted(self) -> Result<Guest, Stop> {
        moves(&self.guest.memory, COUNTER)?;
        interrupted(self.running.interrupt()?)?;
        let rounds = self.guest.memory.word(COUNTER) as u8;
        let mut ahead = true;
        for at in WALKED.step_by(PAGE) {
            let count = self.guest.memory.word(at) as u8;
            ahead &= count == rounds.wrapping_add(1);
            ensure(ahead || count == rounds, || {
                format!(
                    "the page {at:#x} has counted to {count} in round {rounds}: writes are lost"
                )
            })?;
        }
        Ok(self.guest)
    }

    /// Lets the guest go on.
    fn again(guest: Guest) -> Result<Self, Stop> {
        let running = run_on(guest.vp());
        moves(&guest.memory, COUNTER)?;
        Ok(Self { guest, running })
    }
}

/// MADV_PAGEOUT, page by page and in pieces.
fn page_out(random: &mut Random, memory: &Memory) -> Outcome {
    let at = WALKED.start + PAGE * random.below(0xe0) as usize;
    memory.advise(
        at,
        PAGE * (1 + random.below(16) as usize),
        libc::MADV_PAGEOUT,
    );
    Ok(())
}

pub(super) fn needs_swap() -> Outcome {
    match meminfo("SwapTotal")? {
        0 => Err(Stop::Skip("no swap".into())),
        _ => Ok(()),
    }
}

fn swapped(memory: Memory) -> Outcome {
    needs_swap()?;
    let mut random = Random(5);
    let before = vmstat("pswpout")?;
    Walker::on(memory)?.under(100, |memory| page_out(&mut random, memory))?;
    ensure(vmstat("pswpout")? > before, || {
        "nothing was swapped out".into()
    })
}

/// A line of /proc/vmstat.
fn vmstat(name: &str) -> Result<u64, Stop> {
    let text = std::fs::read_to_string("/proc/vmstat").map_err(|e| e.to_string())?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .ok_or_else(|| Stop::Fail(format!("no {name} in /proc/vmstat")))
}

/// A cgroup with this process alone in it.
pub(super) struct Cgroup(String, String);

impl Cgroup {
    pub(super) fn new() -> Result<Self, Stop> {
        let root = "/sys/fs/cgroup";
        if std::fs::metadata(format!("{root}/cgroup.controllers")).is_err() {
            return Err(Stop::Skip("no cgroup v2".into()));
        }
        set(&format!("{root}/cgroup.subtree_control"), "+memory")?;
        // Where this process was: systemd has it deep down.
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let own = own.trim().strip_prefix("0::").unwrap_or("/").to_string();
        let path = format!("{root}/abi-{}", std::process::id());
        std::fs::create_dir(&path).map_err(|e| Stop::Skip(format!("{path}: {e}")))?;
        let group = Self(path, format!("{root}{own}/cgroup.procs"));
        set(&group.file("cgroup.procs"), "0")?;
        Ok(group)
    }

    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.1, "0");
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A limit below what is in use: the kernel swaps what the guest uses all the time.
fn limited() -> Outcome {
    needs_swap()?;
    let group = Cgroup::new()?;
    let walker = Walker::on(Memory::new(RAM))?;
    let current = number(&group.file("memory.current"))?;
    set(
        &group.file("memory.max"),
        &(current - (512 << 10)).to_string(),
    )?;
    let before = vmstat("pswpin")?;
    let result = walker.under(20, |_| Ok(()));
    set(&group.file("memory.max"), "max")?;
    result?;
    ensure(vmstat("pswpin")? > before + 100, || {
        "the limit made nobody swap".into()
    })
}

/// After MADV_FREE what the guest writes is kept; what it has not written since may be zero.
fn freed() -> Outcome {
    let walker = Walker::on(Memory::new(RAM))?;
    let len = WALKED.len();
    for _ in 0..20 {
        // One round at least, so each page is written before: what is in swap is gone at once.
        for _ in 0..2 {
            moves(walker.memory(), COUNTER)?;
        }
        walker.memory().advise(WALKED.start, len, libc::MADV_FREE);
        // And after it was given away.
        for _ in 0..2 {
            moves(walker.memory(), COUNTER)?;
        }
        walker
            .memory()
            .advise(WALKED.start, len, libc::MADV_PAGEOUT);
    }
    // No page lost a write: none was paged out between MADV_FREE and the guest's write.
    walker.counted().map(|_| ())
}

/// What the guest has not written since MADV_FREE goes when memory is short, and is zero then.
fn freed_and_not_written() -> Outcome {
    let guest = Walker::on(Memory::new(RAM))?.counted()?;
    guest
        .memory
        .advise(WALKED.start, WALKED.len(), libc::MADV_FREE);
    guest
        .memory
        .advise(WALKED.start, WALKED.len(), libc::MADV_PAGEOUT);
    let mut gone = 0;
    for at in WALKED.step_by(PAGE) {
        // A page that somebody holds for a moment stays.
        gone += usize::from(guest.memory.word(at) == 0);
        guest.memory.set_word(at, guest.memory.word(COUNTER) & 0xff);
    }
    ensure(gone > WALKED.len() / PAGE / 2, || {
        format!("only {gone} pages that were given away are gone")
    })?;
    // The guest was stopped somewhere in its round: only that it goes on can be said.
    let walker = Walker::again(guest)?;
    moves(walker.memory(), WALKED.end - PAGE)?;
    interrupted(walker.running.interrupt()?)
}

/// 2 MiB, aligned, in small pages.
fn small_in_huge() -> Memory {
    let memory = Memory::huge(HUGE);
    memory.advise(0, HUGE, libc::MADV_NOHUGEPAGE);
    memory
}

/// Large pages are made of small ones under the guest, and split again.
fn collapsed() -> Outcome {
    let walker = Walker::on(small_in_huge())?;
    equal("KiB in large pages at first", rollup("AnonHugePages")?, 0)?;
    let mut random = Random(7);
    walker.under(20, |memory| {
        memory.advise(0, HUGE, libc::MADV_HUGEPAGE);
        // EAGAIN while somebody holds one of the pages, be it for a moment.
        eventually("MADV_COLLAPSE", 10, || {
            memory.try_advise(0, HUGE, libc::MADV_COLLAPSE) != Err(Errno(libc::EAGAIN))
        })?;
        equal("KiB in large pages", rollup("AnonHugePages")?, 2048)?;
        moves(memory, COUNTER)?;
        let at = PAGE * random.below(0x1ff) as usize;
        match random.below(3) {
            // Splits the mapping.
            0 => {
                memory.protect(at, PAGE, READ_WRITE | libc::PROT_EXEC);
                memory.protect(at, PAGE, READ_WRITE);
            }
            // Splits the folio, too.
            1 => memory.advise(0x18_0000, PAGE, libc::MADV_DONTNEED),
            _ => memory.advise(0x18_0000, PAGE, libc::MADV_PAGEOUT),
        }
        Ok(())
    })
}

/// Pages of equal content become one, and each write makes its own again.
fn merged() -> Outcome {
    let _scan = Setting::new("/sys/kernel/mm/ksm/pages_to_scan", "5000")?;
    let _pause = Setting::new("/sys/kernel/mm/ksm/sleep_millisecs", "0")?;
    let _run = Setting::new("/sys/kernel/mm/ksm/run", "1")?;
    let memory = Memory::new(RAM);
    memory.advise(0, RAM, libc::MADV_MERGEABLE);
    let mut walker = Walker::on(memory)?;
    for _ in 0..3 {
        // Half of the pages at least are equal while the guest does nothing.
        let guest = walker.counted()?;
        let merging = || number("/proc/self/ksm_merging_pages").unwrap_or(0);
        eventually("KSM merges the guest's pages", 20, || merging() > 100)?;
        walker = Walker::again(guest)?;
        // Now all are written again: by the guest, and then by the VMM, whose writes must find the guest's pages.
        for _ in 0..3 {
            moves(walker.memory(), COUNTER)?;
        }
        for value in [1, 0] {
            for at in WALKED.step_by(PAGE) {
                walker.memory().set_word(at + 8, value);
            }
        }
    }
    walker.counted().map(|_| ())
}

/// A file in a page of hugetlbfs, and memory of it.
fn huge_file() -> (Memory, OwnedFd) {
    let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    // SAFETY: A C string.
    let fd = sys::owned(unsafe { libc::memfd_create(c"huge".as_ptr(), flags) } as RawFd);
    // SAFETY: A file of ours.
    unsafe { libc::ftruncate(fd.as_raw_fd(), HUGE as libc::off_t) };
    (Memory::with(HUGE, READ_WRITE, fd.as_raw_fd()), fd)
}

fn on_hugetlb() -> Outcome {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    let pages = Setting::new(POOL, "2")?;
    if number(POOL)? < 2 {
        return Err(Stop::Skip("no memory for pages of hugetlbfs".into()));
    }
    let (memory, file) = huge_file();
    let other = Memory::with(HUGE, READ_WRITE, file.as_raw_fd());
    let walker = Walker::on(memory)?;
    moves(&other, COUNTER)?;
    let guest = walker.counted()?;
    // A hole: the page goes at once, and with it the guest's code.
    // SAFETY: A file of ours.
    let hole = unsafe {
        libc::fallocate(
            file.as_raw_fd(),
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            0,
            HUGE as libc::off_t,
        )
    };
    equal("fallocate", hole, 0)?;
    // Takes the page that has become free.
    let (next, _file) = huge_file();
    next.set_word(COUNTER, 0);
    equal("the counter in a new page", guest.memory.word(COUNTER), 0)?;
    guest.memory.write(ENTRY as usize, guests::walk().bytes());
    guest.vp().start_at(ENTRY)?;
    Walker::again(guest)?.counted()?;
    equal("the page that was given away", next.word(COUNTER), 0)?;
    drop((next, other, file, pages));
    Ok(())
}

/// Pages move to other places of the machine's memory.
fn migrated() -> Outcome {
    Walker::on(Memory::new(RAM))?.under(10, |_| set("/proc/sys/vm/compact_memory", "1"))
}

/// A private mapping of a file: the guest's writes are not the file's.
fn private_file() -> Outcome {
    let file = memory_file(RAM);
    let other = Memory::with(RAM, READ_WRITE, file.as_raw_fd());
    for at in WALKED.step_by(PAGE) {
        other.set_word(at + 8, at as u32);
    }
    let walker = Walker::on(Memory::private(RAM, file.as_raw_fd()))?;
    let guest = walker.counted()?;
    for at in WALKED.step_by(PAGE) {
        equal("the file", other.word(at), 0)?;
        equal(
            "the file's contents for the guest",
            guest.memory.word(at + 8),
            at as u32,
        )?;
    }
    Ok(())
}

/// A file that the VMM may only read: the guest reads it, and its write ends RUN_VP.
fn read_only_file() -> Outcome {
    let file = memory_file(RAM);
    let page = Memory::with(PAGE, libc::PROT_READ, file.as_raw_fd());
    let guest = Guest::with(guests::read_only(), 1, FLAGS, Memory::new(PLAYGROUND))?;
    guest.partition.map(PLAYGROUND as u64, &page, RWX);
    Memory::with(RAM, READ_WRITE, file.as_raw_fd()).set_word(0x44, 0x1234_5678);
    match guest.vp().run() {
        Err(Errno(libc::EFAULT)) => {}
        other => {
            return Err(Stop::Fail(format!(
                "RUN_VP: {:?} instead of EFAULT",
                other.map(|m| m.header.message_type)
            )))
        }
    }
    equal(
        "what the guest has read",
        guest.memory.word(COUNTER),
        0x1234_5678,
    )?;
    equal("the file", page.word(0x44), 0x1234_5678)
}

/// A file of a file system that writes back, and nothing of it when this is dropped.
struct DiskFile(OwnedFd, String);

impl DiskFile {
    fn new() -> Result<Self, Stop> {
        const TMPFS_MAGIC: libc::c_long = 0x0102_1994;
        const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;
        for dir in ["/disk", "/var/tmp"] {
            let path = format!("{dir}/abi-{}", std::process::id());
            let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_CREAT;
            let Ok(fd) = sys::open(&path, flags) else {
                continue;
            };
            let file = Self(fd, path);
            // SAFETY: A file of ours; a structure that the call fills.
            let kind = unsafe {
                let mut stat: libc::statfs = std::mem::zeroed();
                libc::ftruncate(file.0.as_raw_fd(), RAM as libc::off_t);
                libc::fstatfs(file.0.as_raw_fd(), &mut stat);
                stat.f_type
            };
            if kind != TMPFS_MAGIC && kind != RAMFS_MAGIC {
                return Ok(file);
            }
        }
        Err(Stop::Skip("no file system with a disk".into()))
    }

    /// Writes back what is dirty, then forgets what is not in use.
    fn write_back(&self) {
        // SAFETY: A file of ours.
        unsafe {
            libc::fdatasync(self.0.as_raw_fd());
            libc::posix_fadvise(self.0.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}

/// A file on a disk: pages are written back while the guest writes them; what the disk has at last is what the guest wrote.
fn on_disk() -> Outcome {
    let file = DiskFile::new()?;
    let memory = Memory::with(RAM, READ_WRITE, file.0.as_raw_fd());
    let walker = Walker::on(memory)?;
    for _ in 0..20 {
        file.write_back();
        moves(walker.memory(), COUNTER)?;
    }
    let guest = walker.counted()?;
    let words =
        |memory: &Memory| -> Vec<u32> { WALKED.step_by(PAGE).map(|at| memory.word(at)).collect() };
    let counted = words(&guest.memory);
    drop(guest);
    file.write_back();
    // The page cache has nothing of it now, so this is read from the disk.
    let mut resident = vec![0u8; RAM / PAGE];
    let again = Memory::with(RAM, READ_WRITE, file.0.as_raw_fd());
    // SAFETY: A mapping, and a byte for each of its pages.
    let told = unsafe { libc::mincore(again.addr() as *mut _, RAM, resident.as_mut_ptr()) };
    equal("mincore", told, 0)?;
    let cached = resident.iter().filter(|r| **r & 1 != 0).count();
    equal("pages in the cache", cached, 0)?;
    equal("the disk", words(&again), counted)
}

/// A page that the guest reads first is mapped writable with it; what is written later must not be taken for clean.
fn read_first() -> Outcome {
    let file = memory_file(RAM);
    let player = Guest::with(
        guests::read_then_write(),
        1,
        FLAGS,
        Memory::with(RAM, READ_WRITE, file.as_raw_fd()),
    )?;
    // At the first port it has read, at the second written.
    for port in [0x80, 0x81] {
        let message = player.vp().message()?;
        let got = message.to_ioport_info().map_or(0, |info| info.port_number);
        equal("port", got, port)?;
        skip(player.vp(), &message).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    }
    player.memory.advise(PLAYGROUND, PAGE, libc::MADV_PAGEOUT);
    equal(
        "what the guest wrote",
        player.memory.word(PLAYGROUND + 0x44),
        0x55aa_55aa,
    )
}

pub fn cases() -> Vec<Case> {
    let file = || {
        let file = memory_file(RAM);
        Memory::with(RAM, READ_WRITE, file.as_raw_fd())
    };
    vec![
        case(
            "guest memory, a file: read, then written, then reclaimed [V-G10]",
            read_first,
        ),
        case(
            "guest memory, a file on a disk: written back [V-G11]",
            on_disk,
        ),
        case("guest memory, a file: private [V-G12]", private_file),
        case("guest memory, a file: read-only [V-G12]", read_only_file),
        case("guest memory: MADV_FREE, written afterwards [V-G2]", freed).within(60),
        case(
            "guest memory: MADV_FREE, not written afterwards [V-G2]",
            freed_and_not_written,
        ),
        case(
            "guest memory: 100 times paged out, small pages [V-G5]",
            || swapped(Memory::new(RAM)),
        )
        .within(60),
        case(
            "guest memory: 100 times paged out, large pages [V-G5]",
            || swapped(Memory::huge(HUGE)),
        )
        .within(60),
        case(
            "guest memory: 100 times paged out, a file [V-G5]",
            move || swapped(file()),
        )
        .within(60),
        case("guest memory: swap under a cgroup's limit [V-G5]", limited).within(60),
        case("guest memory: large pages made and split [V-G3]", collapsed).within(60),
        case("guest memory: KSM [V-G4]", merged).within(90),
        case("guest memory: hugetlbfs [V-G13]", on_hugetlb),
        case("guest memory: compaction [V-G14]", migrated).within(60),
    ]
}
