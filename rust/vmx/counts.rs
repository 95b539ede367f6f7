// SPDX-License-Identifier: GPL-2.0

//! How often each instruction that is dear on silicon ran: for `make bench`, in a build of its own
//! (`make module-count`), because counting costs what it counts. In other builds this is nothing.

#[cfg(hvrs_count)]
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($($name:ident = $text:literal,)*) => {
        /// What is counted.
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        pub(crate) enum Counted {
            $($name,)*
        }

        /// Names in the order of [`Counted`].
        #[cfg(hvrs_count)]
        const NAMES: &[&str] = &[$($text,)*];
    };
}

counted! {
    Vmxon = "vmxon",
    Vmxoff = "vmxoff",
    Vmptrld = "vmptrld",
    Vmclear = "vmclear",
    Vmread = "vmread",
    Vmwrite = "vmwrite",
    Rdmsr = "rdmsr",
    Wrmsr = "wrmsr",
    Xsave = "xsave",
    Xrstor = "xrstor",
    Xsetbv = "xsetbv",
    CrWrite = "cr_write",
    Invept = "invept",
    Invvpid = "invvpid",
    Exit = "exit",
}

#[cfg(hvrs_count)]
static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// Counts one.
#[inline(always)]
pub(crate) fn count(what: Counted) {
    #[cfg(hvrs_count)]
    if let Some(count) = COUNTS.get(what as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    #[cfg(not(hvrs_count))]
    let _ = what;
}

#[cfg(hvrs_count)]
mod file {
    use super::{COUNTS, NAMES};
    use core::sync::atomic::Ordering;
    use kernel::debugfs::{Dir, File};
    use kernel::fmt;
    use kernel::prelude::*;

    /// /sys/kernel/debug/hvrs/instructions: a line for each, name and number.
    #[pin_data]
    pub(crate) struct CountsFile {
        #[pin]
        file: File<()>,
    }

    impl CountsFile {
        /// Makes the file.
        pub(crate) fn new(dir: &Dir) -> Result<Pin<KBox<Self>>> {
            KBox::pin_init(
                try_pin_init!(Self {
                    file <- dir.read_callback_file(c"instructions", (), &|(), f: &mut fmt::Formatter<'_>| {
                        for (name, count) in NAMES.iter().zip(&COUNTS) {
                            writeln!(f, "{} {}", name, count.load(Ordering::Relaxed))?;
                        }
                        Ok(())
                    }),
                }? Error),
                GFP_KERNEL,
            )
        }
    }
}

#[cfg(hvrs_count)]
pub(crate) use file::CountsFile;
