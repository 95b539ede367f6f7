// SPDX-License-Identifier: GPL-2.0 OR MIT

//! HvCallFlushVirtualAddressSpace, HvCallFlushVirtualAddressList and their Ex forms (H-02, H-03, H-13, H-14).
//!
//! Translations are dropped for all address spaces and for global pages, too, which is more than asked for and
//! allowed: a virtual TLB may forget at any time. So what remains of the input is which VPs and which pages.

use super::input::{vp_set, Stop, Words};
use crate::{PartitionFeatures, VpMask};
use hvdef::{HvFlushFlags, HvGvaRange, HvHypercallInput, HV_STATUS_INVALID_PARAMETER};

/// Pages that are flushed one by one; for more a VP forgets everything.
pub const FLUSH_PAGES: usize = 16;

/// Translations to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushRequest {
    /// The VPs; those that do not exist are ignored.
    pub targets: VpMask,
    pages: [u64; FLUSH_PAGES],
    /// `None`: everything.
    count: Option<usize>,
}

impl FlushRequest {
    /// The pages' addresses; `None`: everything.
    #[inline(always)]
    pub fn pages(&self) -> Option<&[u64]> {
        self.pages.get(..self.count?)
    }

    /// Reads and judges the input. `list`: of pages; `ex`: with a VP set.
    #[inline(always)]
    pub fn read(
        input: &mut impl Words,
        control: HvHypercallInput,
        features: &PartitionFeatures,
        list: bool,
        ex: bool,
    ) -> Result<Self, Stop> {
        let (address_space, flags) = (input.word(0)?, HvFlushFlags(input.word(1)?));
        let targets = if flags.contains(HvFlushFlags::ALL_PROCESSORS) {
            VpMask::ALL
        } else if ex {
            vp_set(input, 2, control)?
        } else {
            match input.word(2)? {
                // An error by the TLFS, but Windows Server 2012 does it and needs the flush.
                0 => VpMask::ALL,
                mask => VpMask::first_bank(mask),
            }
        };
        let mut legal =
            HvFlushFlags::ALL_PROCESSORS.union(HvFlushFlags::ALL_VIRTUAL_ADDRESS_SPACES);
        if !list {
            legal = legal.union(HvFlushFlags::NON_GLOBAL_MAPPINGS_ONLY);
        } else if features.extended_gva_ranges() {
            legal = legal.union(HvFlushFlags::USE_EXTENDED_RANGE_FORMAT);
        }
        // A value that CR3 could not have.
        let no_space = !flags.contains(HvFlushFlags::ALL_VIRTUAL_ADDRESS_SPACES)
            && !features.gpn_in_range(address_space >> 12);
        if flags.difference(legal) != HvFlushFlags::empty() || no_space {
            return Err(HV_STATUS_INVALID_PARAMETER.into());
        }
        let mut request = Self {
            targets,
            pages: [0; FLUSH_PAGES],
            count: None,
        };
        if list {
            let extended = flags.contains(HvFlushFlags::USE_EXTENDED_RANGE_FORMAT);
            let header = if ex {
                4 + usize::from(control.variable_header_size())
            } else {
                3
            };
            request.collect(input, control, header, extended)?;
        }
        Ok(request)
    }

    /// Reads the list from word `header` on, as long as its pages are few.
    #[inline(always)]
    fn collect(
        &mut self,
        input: &mut impl Words,
        control: HvHypercallInput,
        header: usize,
        extended: bool,
    ) -> Result<(), Stop> {
        let mut count = 0;
        for element in control.rep_start()..control.rep_count() {
            let range = HvGvaRange(input.word(header + usize::from(element))?);
            let Some((first, pages)) = range.pages(extended) else {
                return Ok(());
            };
            for page in 0..pages {
                let gva = first.wrapping_add(page << 12);
                // What is not canonical, with 57 bits as a CPU may have, is never translated.
                if (gva as i64) << 7 >> 7 != gva as i64 {
                    continue;
                }
                let Some(place) = self.pages.get_mut(count) else {
                    return Ok(());
                };
                *place = gva;
                count += 1;
            }
        }
        self.count = Some(count);
        Ok(())
    }
}
