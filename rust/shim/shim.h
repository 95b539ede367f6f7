/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot call by itself: inline functions, macros and symbols that
 * <linux/...> headers define and the kernel crate has no binding for.
 *
 * hvrs_*    is implemented in shim.c or vmenter.S and called from Rust;
 * hvrs_rs_* is implemented in Rust and called from here.
 */
#ifndef HVRS_SHIM_H
#define HVRS_SHIM_H

#include <linux/types.h>
#include <asm/extable_fixup_types.h>
#include <linux/mshv.h>
#include "../../include/uapi/linux/hvrs.h"

struct file_operations;
struct module;


/* ---- root window ---- */

/* Interrupts off, FPU owned by the kernel, guest time begins. Returns the CPU. */
u32 hvrs_window_begin(void);
/* The reverse; @flushed_tables: a VM exit spoilt the limits of GDT and TSS. */
void hvrs_window_end(u32 cpu, bool had_exit);
void hvrs_guest_state_enter(void);
void hvrs_guest_state_exit(void);
/* Whether the task must go back to the scheduler or to its signals. */
bool hvrs_work_pending(void);
/* Does that work: 0 or -EINTR. May sleep. */
int hvrs_handle_work(void);
/* Makes a CPU leave guest mode. */
void hvrs_kick_cpu(u32 cpu);
u32 hvrs_nr_cpu_ids(void);
u32 hvrs_cpu_id(void);
u64 hvrs_tss_base(u32 cpu);
u32 hvrs_tsc_khz(void);
bool hvrs_tsc_reliable(void);
bool hvrs_write_user_nofault(unsigned long addr, const void *from, size_t len);
/* Atomically @old to @new, of 8 bytes or 4. 0; 1: it was not @old; -EFAULT. */
int hvrs_exchange_user_nofault(unsigned long addr, bool wide, u64 old, u64 new);
bool hvrs_fred_enabled(void);
bool hvrs_preempt_rt(void);
bool hvrs_mitigate_itlb_multihit(void);
/* The CPU has IBPB, and needs it between guests. */
bool hvrs_mitigate_spectre_v2(void);
/* The CPU has L1D_FLUSH, and needs it before a guest runs. */
bool hvrs_mitigate_l1tf(void);
void __noreturn hvrs_panic(void);

/*
 * vmenter.S: the inner loop. @gprs: the 16 general registers in the processor's
 * order (RSP is in the VMCS). Returns what hvrs_rs_exit returned, or -1: the
 * entry failed.
 */
s64 hvrs_vmx_loop(u64 *gprs, void *running, bool launched);
/* VMPTRST that survives not being in VMX operation: false then. */
bool hvrs_vmptrst_safe(u64 *vmcs);
/* RDMSR and WRMSR that survive #GP: false then. */
bool hvrs_rdmsr_safe(u32 msr, u64 *value);
/* Of an exception table's entry: go on at the fixup, and nothing else. */
enum { HVRS_EX_TYPE_DEFAULT = EX_TYPE_DEFAULT };
/* Rust: one VM exit. 0 enters the guest again. */
s64 hvrs_rs_exit(void *running);

/* ---- oops and panic ---- */

int hvrs_notifiers_register(void);
void hvrs_notifiers_unregister(void);
/* Rust: this CPU dies; true if it was in a root window, which is then closed. */
bool hvrs_rs_emergency(void);

/* ---- signals ---- */

/* Counts signals as they are delivered, until hvrs_signals_end: 0 or an errno. */
int hvrs_signals_begin(void);
void hvrs_signals_end(void);
/*
 * A count that changes when a handler of the calling thread was run, but not at
 * the end of a RUN_VP that gives EINTR. Threads with the same hash share one.
 */
u32 hvrs_signals_handled(void);

/* ---- waiting ---- */

struct hvrs_sleeper;

/* @events: woken when it is not 0. @timer_event: what the timer ORs into it. */
struct hvrs_sleeper *hvrs_sleeper_new(u32 *events, u32 timer_event);
void hvrs_sleeper_free(struct hvrs_sleeper *sleeper);
/* Sleeps until *events != 0 or @timeout_ns passed (U64_MAX: no timer): 0 or -EINTR. */
int hvrs_sleeper_wait(struct hvrs_sleeper *sleeper, u64 timeout_ns);
void hvrs_sleeper_wake(struct hvrs_sleeper *sleeper);

/* ---- guest memory ---- */

struct hvrs_mapping;

struct hvrs_fault {
	unsigned long seq;
	u64 pfn;
	u32 order;
	bool writable;
};

/* Forget [start, end); must not sleep. @seq is for hvrs_mapping_set_seq. */
typedef void (*hvrs_invalidate_fn)(void *context, struct hvrs_mapping *mapping,
				   unsigned long start, unsigned long end, unsigned long seq);

/* Follows the calling task's memory at [start, start + len). */
int hvrs_mapping_new(unsigned long start, unsigned long len, hvrs_invalidate_fn invalidate,
		     void *context, struct hvrs_mapping **out);
void hvrs_mapping_free(struct hvrs_mapping *mapping);
/* Faults one page in, may sleep. -EAGAIN: try again. */
int hvrs_mapping_fault(struct hvrs_mapping *mapping, unsigned long addr, bool write,
		       struct hvrs_fault *out);
/* Under the lock that the invalidate function takes. */
bool hvrs_mapping_retry(struct hvrs_mapping *mapping, unsigned long seq);
void hvrs_mapping_set_seq(struct hvrs_mapping *mapping, unsigned long seq);

struct hvrs_ager;

/* Whether [start, end) was accessed, which is forgotten if @clear; must not sleep. */
typedef bool (*hvrs_age_fn)(void *context, unsigned long start, unsigned long end, bool clear);

/* Answers the kernel's questions about the calling task's memory. */
int hvrs_ager_new(hvrs_age_fn age, void *context, struct hvrs_ager **out);
/* No more calls of @age afterwards. */
void hvrs_ager_free(struct hvrs_ager *ager);
/* Identity of the caller's address space; compared, never followed. */
unsigned long hvrs_current_mm(void);
void hvrs_current_comm(char *comm);
s32 hvrs_current_tgid(void);

/* Zeroed pages with their physical address, charged to the caller's memory cgroup. */
void *hvrs_pages_alloc(u32 order, u64 *phys);
void hvrs_pages_free(void *virt, u32 order);
void *hvrs_phys_to_virt(u64 phys);
struct vm_area_struct;
int hvrs_vma_insert_page(struct vm_area_struct *vma, void *page);

/* ---- files ---- */

int hvrs_anon_fd(const char *name, const struct file_operations *fops, void *priv, int flags);

/* ---- eventfds ---- */

struct eventfd_ctx;
struct hvrs_watch;

/* -EBADF, -EINVAL: not an eventfd. */
int hvrs_eventfd_get(int fd, struct eventfd_ctx **out);
void hvrs_eventfd_put(struct eventfd_ctx *eventfd);
void hvrs_eventfd_signal(struct eventfd_ctx *eventfd);

/* Atomic context. @hung_up: the eventfd's last file was closed; else it was signalled. */
typedef void (*hvrs_signalled_fn)(void *context, bool hung_up);

/* Takes the signals of an eventfd in place of its readers, once started. */
int hvrs_watch_new(int fd, hvrs_signalled_fn signalled, void *context, struct hvrs_watch **out);
/* Identity, while the watch lives. */
struct eventfd_ctx *hvrs_watch_eventfd(struct hvrs_watch *watch);
/* -EBUSY: somebody else takes its signals; 1: it is signalled already; 0. Once. */
int hvrs_watch_start(struct hvrs_watch *watch);
/* Waits until no call of a started watch's @signalled is running. */
void hvrs_watch_sync(struct hvrs_watch *watch);
/* No more calls of @signalled afterwards. */
void hvrs_watch_free(struct hvrs_watch *watch);

/* ---- log ---- */

/* Rate-limited notice about a guest. */
void hvrs_log_guest(const char *text, u64 partition, u32 vp, u64 a, u64 b);
void hvrs_log_crash(u64 partition, const u64 *p);
void hvrs_log_guest_text(u64 partition, const u8 *text, u32 len);

#endif
