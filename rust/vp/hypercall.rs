// SPDX-License-Identifier: GPL-2.0

//! Hypercalls of a guest that need locks, other VPs or output in its memory: the cold tier's part
//! of `exits/hypercall.rs`, where they were dispatched and their control word was judged.

use super::core::{Deferred, VpCore};
use super::exits::Leave;
use super::registers;
use super::shared::event;
use super::{Own, Vp};
use crate::partition::memory::{Access, Resolved};
use crate::partition::{Config, Partition};
use hv1::hypercall::{
    fast_input_size, Arguments, CallId, CallRow, ContextLimits, Convention, InitialVpContext,
    Requester, Stop, Words,
};
use hv1::port::{PostMessage, SignalEvent};
use hvdef::*;
use kernel::prelude::*;
use vmxdef::exit::EptViolation;

/// What became of a call.
pub(super) enum Called {
    /// It has its answer.
    Done,
    /// Its input or output is not in memory: as if the guest had accessed it.
    Unreachable(Leave),
    /// It is the VMM's, which completes it.
    Intercepted,
    /// Its memory moved: the VMCALL runs again.
    Again,
}

/// Why there is no answer.
enum Missing {
    Status(HvStatus),
    Call(Called),
}

impl From<HvStatus> for Missing {
    fn from(status: HvStatus) -> Self {
        Self::Status(status)
    }
}

impl From<Stop> for Missing {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Status(status) => Self::Status(status),
            Stop::Unreadable => Self::Call(Called::Again),
        }
    }
}

/// A copy of the input.
struct Input<'a>(&'a [u8]);

impl Words for Input<'_> {
    fn word(&mut self, index: usize) -> Result<u64, Stop> {
        let bytes = self.0.get(index * 8..).ok_or(Stop::Unreadable)?;
        u64::read(bytes).ok_or(Stop::Unreadable)
    }
}

/// A call under way.
struct Call<'a> {
    vp: &'a Vp,
    partition: &'a Partition,
    config: &'a Config,
    row: &'a CallRow,
    arguments: Arguments,
    requester: Requester,
    /// Elements done, absolute.
    done: u16,
}

/// Does the call.
///
/// # Errors
///
/// What ends RUN_VP: EINTR, ENOMEM, EFAULT.
pub(super) fn call(
    vp: &Vp,
    partition: &Partition,
    config: &Config,
    own: &mut Own,
    row: &CallRow,
    convention: Convention,
) -> Result<Called> {
    let arguments = convention.arguments(&own.core.gprs);
    let mut call = Call {
        vp,
        partition,
        config,
        row,
        arguments,
        requester: Requester {
            partition_id: partition.summary.id,
            vp_index: vp.index,
        },
        done: arguments.control.rep_start(),
    };
    own.core.deferred = Deferred::Advance;
    let status = match call.run(own) {
        Ok(()) => HV_STATUS_SUCCESS,
        Err(Ok(Missing::Status(status))) => status,
        Err(Ok(Missing::Call(called))) => {
            own.core.deferred = Deferred::Nothing;
            return Ok(called);
        }
        Err(Err(error)) => {
            own.core.deferred = Deferred::Nothing;
            return Err(error);
        }
    };
    let answer = HvHypercallResult::rep(status, call.done);
    convention.set_result(&mut own.core.gprs, answer);
    Ok(Called::Done)
}

/// A missing answer, or what ends RUN_VP.
type Outcome<T> = Result<T, Result<Missing, Error>>;

fn missing(status: HvStatus) -> Result<Missing, Error> {
    Ok(status.into())
}

impl Call<'_> {
    fn run(&mut self, own: &mut Own) -> Outcome<()> {
        let input = self.input(&mut own.core)?;
        match self.row.id {
            CallId::GetVpIndexFromApicId => self.vp_indexes(&mut own.core, &input),
            CallId::StartVirtualProcessor => self.start(&input),
            CallId::GetVpRegisters => self.get_registers(own, &input),
            CallId::SetVpRegisters => self.set_registers(own, &input),
            CallId::PostMessage => self.post_message(&input),
            CallId::SignalEvent => self.signal_event(&input),
            // Whoever gave the privilege has the debugger.
            CallId::PostDebugData | CallId::RetrieveDebugData | CallId::ResetDebugSession => {
                Err(Ok(Missing::Call(Called::Intercepted)))
            }
            // The parent's calls; the doors have kept them out.
            _ => Err(missing(HV_STATUS_INVALID_HYPERCALL_CODE)),
        }
    }

    /// A copy of the input, each byte read once.
    fn input(&self, core: &mut VpCore) -> Outcome<KVec<u8>> {
        let size = self.row.input.announced(self.arguments.control);
        let mut bytes =
            KVec::from_elem(0u8, size, GFP_KERNEL_ACCOUNT).map_err(|e| Err(e.into()))?;
        if self.arguments.control.fast() {
            let xmm = registers::xmm_0_to_5(core).map(|x| [x.low, x.high]);
            let words = [self.arguments.input, self.arguments.output];
            for (to, from) in bytes
                .chunks_mut(8)
                .zip(Iterator::chain(words.iter(), xmm.as_flattened()))
            {
                for (to, from) in to.iter_mut().zip(from.to_le_bytes()) {
                    *to = from;
                }
            }
            return Ok(bytes);
        }
        self.reach(core, self.arguments.input, Access::Read)?;
        self.partition
            .memory
            .read(self.arguments.input, &mut bytes)
            .ok_or(Ok(Missing::Call(Called::Again)))?;
        Ok(bytes)
    }

    /// Writes to the output, from its byte `at` on.
    fn output(&self, core: &mut VpCore, at: usize, bytes: &[u8]) -> Outcome<()> {
        if self.arguments.control.fast() {
            let first = fast_input_size(self.row, self.arguments.control) - 16 + at;
            registers::write_xmm(core, first, bytes);
            return Ok(());
        }
        let gpa = self.arguments.output + at as u64;
        while self.partition.memory.write(gpa, bytes).is_none() {
            crate::sys::window::handle_work().map_err(Err)?;
            self.reach(core, gpa, Access::Write)?;
        }
        Ok(())
    }

    /// Sees to it that there is a place for output.
    fn reach_output(&self, core: &mut VpCore) -> Outcome<()> {
        if self.arguments.control.fast() {
            return Ok(());
        }
        self.reach(core, self.arguments.output, Access::Write)
    }

    /// Sees to it that the guest could make the access.
    fn reach(&self, core: &mut VpCore, gpa: u64, access: Access) -> Outcome<()> {
        let memory = &self.partition.memory;
        // parameters are in memory. What an overlay hides stays hidden.
        if memory.space.has_overlay(gpa >> 12, 1) {
            return Err(missing(HV_STATUS_INVALID_ALIGNMENT));
        }
        if memory.resolve(gpa, access, &mut core.ram).map_err(Err)? == Resolved::Mapped {
            return Ok(());
        }
        let qualification = if access == Access::Write {
            EptViolation::WRITE
        } else {
            EptViolation::READ
        };
        Err(Ok(Missing::Call(Called::Unreachable(Leave::Memory {
            gpa,
            gla: 0,
            qualification,
        }))))
    }

    /// HvCallGetVpIndexFromApicId.
    fn vp_indexes(&mut self, core: &mut VpCore, input: &[u8]) -> Outcome<()> {
        let judged = self.requester.of_apic_ids(&mut Input(input));
        judged.map_err(|stop| Ok(stop.into()))?;
        self.reach_output(core)?;
        let control = self.arguments.control;
        for element in control.rep_start()..control.rep_count() {
            let at = 8 * usize::from(element);
            let id = Input(input).word(2 + usize::from(element));
            let id = id.map_err(|stop| Ok(stop.into()))? as u32;
            let (index, _) = self
                .partition
                .shared_vps()
                .find(|(_, vp)| vp.destination().apic_id() == id)
                .ok_or(missing(HV_STATUS_INVALID_PARAMETER))?;
            self.output(core, at, &u64::from(index).to_le_bytes())?;
            self.done = element + 1;
        }
        Ok(())
    }

    /// HvCallStartVirtualProcessor.
    fn start(&mut self, input: &[u8]) -> Outcome<()> {
        let stop = |stop: Stop| Ok(stop.into());
        let (index, vtl) = self.requester.of_start(&mut Input(input)).map_err(stop)?;
        let target = self
            .partition
            .vp(index)
            .ok_or(missing(HV_STATUS_INVALID_VP_INDEX))?;
        vtl.map_err(stop)?;
        let context = InitialVpContext::read(&mut Input(input)).map_err(stop)?;
        let limits = ContextLimits {
            cr4: self.config.cr4_allowed,
            efer: self.config.cpu.efer_legal_bits(),
            physical_address_bits: self.config.cpu.physical_address_bits(),
        };
        if !target.shared.start.waits() {
            return Err(missing(HV_STATUS_INVALID_VP_STATE));
        }
        if !context.is_legal(&limits) {
            return Err(missing(HV_STATUS_INVALID_REGISTER_VALUE));
        }
        if !target.shared.start.start(&context) {
            return Err(missing(HV_STATUS_INVALID_VP_STATE));
        }
        target.shared.set_event(event::START);
        target.shared.kick(&self.partition.memory.space, index);
        Ok(())
    }

    /// HvCallPostMessage.
    fn post_message(&mut self, input: &[u8]) -> Outcome<()> {
        let request = PostMessage::read(&mut Input(input)).map_err(|stop| Ok(stop.into()))?;
        let payload = input.get(PostMessage::HEADER..).unwrap_or(&[]);
        self.connection(self.partition.post_message(&request, payload))
    }

    /// HvCallSignalEvent.
    fn signal_event(&mut self, input: &[u8]) -> Outcome<()> {
        let request = SignalEvent::read(&mut Input(input)).map_err(|stop| Ok(stop.into()))?;
        self.connection(self.partition.signal_event(&request))
    }

    /// A connection that is not known here may be the VMM's.
    fn connection(&self, status: HvResult<()>) -> Outcome<()> {
        match status {
            Err(HV_STATUS_INVALID_CONNECTION_ID)
                if self.partition.intercepts.call(self.row.code) =>
            {
                Err(Ok(Missing::Call(Called::Intercepted)))
            }
            other => other.map_err(missing),
        }
    }

    /// The calling VP: what others hold of registers cannot be had while they execute.
    fn check_own(&self, input: &[u8]) -> Outcome<()> {
        let index = self.requester.of_registers(&mut Input(input));
        let index = index.map_err(|stop| Ok(stop.into()))?;
        if self.partition.vp(index).is_none() {
            return Err(missing(HV_STATUS_INVALID_VP_INDEX));
        }
        if index != self.vp.index {
            return Err(missing(HV_STATUS_INVALID_VP_STATE));
        }
        Ok(())
    }

    /// The elements to do, each `size` bytes.
    fn list<'i>(&self, input: &'i [u8], size: usize) -> &'i [u8] {
        let control = self.arguments.control;
        let header = HvInputGetVpRegisters::SIZE;
        let first = header + size * usize::from(control.rep_start());
        let end = header + size * usize::from(control.rep_count());
        input.get(first..end).unwrap_or(&[])
    }

    /// HvCallGetVpRegisters.
    fn get_registers(&mut self, own: &mut Own, input: &[u8]) -> Outcome<()> {
        self.check_own(input)?;
        self.reach_output(&mut own.core)?;
        let names = self.list(input, 4);
        let mut values =
            KVec::from_elem(0u8, names.len() * 4, GFP_KERNEL_ACCOUNT).map_err(|e| Err(e.into()))?;
        let start = self.done;
        let mut done = 0;
        let mut reach = registers::OwnVp { vp: self.vp, own };
        let status = registers::get(self.partition, &mut reach, names, &mut values, &mut done);
        let size = HvRegisterValue::SIZE;
        if let Some(values) = values.get(..size * usize::from(done)) {
            self.output(&mut own.core, size * usize::from(start), values)?;
        }
        self.done += done;
        status.map_err(missing)
    }

    /// HvCallSetVpRegisters.
    fn set_registers(&mut self, own: &mut Own, input: &[u8]) -> Outcome<()> {
        self.check_own(input)?;
        let list = self.list(input, HvRegisterAssoc::SIZE);
        let mut done = 0;
        let mut reach = registers::OwnVp { vp: self.vp, own };
        let status = registers::set(self.partition, &mut reach, list, &mut done);
        let elements = list
            .chunks_exact(HvRegisterAssoc::SIZE)
            .take(usize::from(done));
        if elements
            .filter_map(HvRegisterAssoc::read)
            .any(|assoc| assoc.name == HV_X64_REGISTER_RIP)
        {
            // The guest goes on where it said.
            own.core.deferred = Deferred::Nothing;
        }
        self.done += done;
        status.map_err(missing)
    }
}
