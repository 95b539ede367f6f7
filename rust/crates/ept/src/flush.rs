// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The end of every zap.

use crate::generation::RootGeneration;
use crate::guest_mode::GuestMode;

/// Returns when no VP uses a translation of `root` that was taken away before the call.
///
/// `vps` are the guest-mode words of all VPs that may use the root. `kick` makes a CPU leave guest
/// mode (an IPI) and must not wait; `relax` is called while waiting. Under the map lock, which
/// nobody in guest mode or in a window may wait for.
pub fn flush<'a>(
    root: &RootGeneration,
    vps: impl Iterator<Item = &'a GuestMode> + Clone,
    mut kick: impl FnMut(u32),
    mut relax: impl FnMut(),
) {
    let generation = root.bump();
    for vp in vps.clone() {
        if let Some(cpu) = vp.behind(generation) {
            kick(cpu);
        }
    }
    // Whoever is found behind only now has announced itself after the bump: it takes that back.
    for vp in vps {
        while vp.behind(generation).is_some() {
            relax();
        }
    }
}
