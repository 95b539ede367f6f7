// SPDX-License-Identifier: GPL-2.0

//! Lists that ioctls change and that VPs, or interrupts, look through without a lock.

use crate::sys::published::Published;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

type List<T> = KVVec<Arc<T>>;

/// A list of `T`.
#[pin_data]
pub(crate) struct Registry<T: Send + Sync> {
    #[pin]
    list: Mutex<List<T>>,
    /// A copy of it, to read.
    published: Published<List<T>>,
}

impl<T: Send + Sync> Registry<T> {
    /// An empty one.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVVec::new()),
            published: Published::new(),
        })
    }

    /// Adds `new` unless `check`, which sees the others, objects.
    pub(crate) fn add(&self, new: Arc<T>, check: impl FnOnce(&[Arc<T>]) -> Result) -> Result {
        let mut list = self.list.lock();
        check(&list)?;
        let mut copy = copy_of(&list, 1)?;
        copy.push(new.clone(), GFP_KERNEL_ACCOUNT)?;
        let copy = KBox::new(copy, GFP_KERNEL_ACCOUNT)?;
        list.push(new, GFP_KERNEL_ACCOUNT)?;
        self.published.replace(Some(copy));
        Ok(())
    }

    /// Removes the first for which `is_it` holds, and waits until nobody looks at it.
    ///
    /// # Errors
    ///
    /// ENOENT; ENOMEM: nothing changed.
    pub(crate) fn remove(&self, is_it: impl Fn(&T) -> bool) -> Result {
        let mut list = self.list.lock();
        let at = list.iter().position(|t| is_it(t)).ok_or(ENOENT)?;
        let new = if list.len() == 1 {
            None
        } else {
            let mut copy = copy_of(&list, 0)?;
            let _ = copy.remove(at);
            Some(KBox::new(copy, GFP_KERNEL_ACCOUNT)?)
        };
        let _ = list.remove(at);
        self.published.replace(new);
        Ok(())
    }

    /// Removes all.
    pub(crate) fn clear(&self) {
        let mut list = self.list.lock();
        self.published.replace(None);
        list.clear();
    }

    /// Runs `f`, which must not sleep, on all of them. None: there are none.
    #[inline]
    pub(crate) fn read<R>(&self, f: impl FnOnce(&[Arc<T>]) -> R) -> Option<R> {
        self.published.read(|list| f(list))
    }
}

fn copy_of<T>(list: &[Arc<T>], more: usize) -> Result<KVVec<Arc<T>>> {
    let mut copy = KVVec::with_capacity(list.len() + more, GFP_KERNEL_ACCOUNT)?;
    for t in list {
        copy.push(t.clone(), GFP_KERNEL_ACCOUNT)?;
    }
    Ok(copy)
}
