// SPDX-License-Identifier: GPL-2.0
/*
 * The C side of hvrs: thin, without policy. See shim.h for what each does.
 */
#include <linux/anon_inodes.h>
#include <linux/entry-virt.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/hmm.h>
#include <linux/hrtimer.h>
#include <linux/kdebug.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/panic_notifier.h>
#include <linux/poll.h>
#include <linux/ratelimit.h>
#include <linux/rcuwait.h>
#include <linux/sched/mm.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/tracepoint.h>
#include <trace/events/ipi.h>
#include <asm/cpu_entry_area.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/nospec-branch.h>
#include <asm/tsc.h>

#include "shim.h"

/* ---- root window ---- */

/*
 * The whole section has interrupts off, kernel_fpu_begin and _end included:
 * both decide about bottom halves by irqs_disabled().
 */
u32 hvrs_window_begin(void)
{
	local_irq_disable();
	kernel_fpu_begin_mask(0);
	guest_timing_enter_irqoff();
	return smp_processor_id();
}

void hvrs_window_end(u32 cpu, bool had_exit)
{
	if (had_exit) {
		invalidate_tss_limit();
		load_fixmap_gdt(cpu);
		/* VMSCAPE: the VMM's branches must not follow the guest's predictions. */
		if (cpu_feature_enabled(X86_FEATURE_IBPB_EXIT_TO_USER))
			this_cpu_write(x86_ibpb_exit_to_user, true);
	}
	kernel_fpu_end();
	/*
	 * The pending host interrupt is taken here, so that its time is
	 * accounted to the guest's tick as KVM does.
	 */
	local_irq_enable();
	/* STI blocks interrupts for one more instruction. */
	asm volatile("nop");
	local_irq_disable();
	guest_timing_exit_irqoff();
	local_irq_enable();
}

void hvrs_guest_state_enter(void)
{
	guest_state_enter_irqoff();
}

void hvrs_guest_state_exit(void)
{
	guest_state_exit_irqoff();
}

bool hvrs_work_pending(void)
{
	return __xfer_to_guest_mode_work_pending();
}

int hvrs_handle_work(void)
{
	return xfer_to_guest_mode_handle_work();
}

void hvrs_kick_cpu(u32 cpu)
{
	smp_send_reschedule(cpu);
}

u32 hvrs_nr_cpu_ids(void)
{
	return nr_cpu_ids;
}

u32 hvrs_cpu_id(void)
{
	return raw_smp_processor_id();
}

u64 hvrs_tss_base(u32 cpu)
{
	return (u64)&get_cpu_entry_area(cpu)->tss.x86_tss;
}

u32 hvrs_tsc_khz(void)
{
	return tsc_khz;
}

bool hvrs_tsc_reliable(void)
{
	return boot_cpu_has(X86_FEATURE_CONSTANT_TSC) && !check_tsc_unstable();
}

bool hvrs_write_user_nofault(unsigned long addr, const void *from, size_t len)
{
	return !copy_to_user_nofault((void __user *)addr, from, len);
}

int hvrs_exchange_user_nofault(unsigned long addr, bool wide, u64 old, u64 new)
{
	u32 narrow = old;
	int ret;

	if (!access_ok((void __user *)addr, wide ? sizeof(u64) : sizeof(u32)))
		return -EFAULT;
	pagefault_disable();
	if (wide)
		ret = __try_cmpxchg_user((u64 __user *)addr, &old, new, fault_wide);
	else
		ret = __try_cmpxchg_user((u32 __user *)addr, &narrow, (u32)new, fault_narrow);
	pagefault_enable();
	return ret;
}

bool hvrs_fred_enabled(void)
{
	return boot_cpu_has(X86_FEATURE_FRED);
}

bool hvrs_preempt_rt(void)
{
	return IS_ENABLED(CONFIG_PREEMPT_RT);
}

bool hvrs_mitigate_itlb_multihit(void)
{
	return boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT);
}

bool hvrs_mitigate_spectre_v2(void)
{
	return boot_cpu_has(X86_FEATURE_IBPB) && boot_cpu_has_bug(X86_BUG_SPECTRE_V2);
}

bool hvrs_mitigate_l1tf(void)
{
	return boot_cpu_has(X86_FEATURE_FLUSH_L1D) && boot_cpu_has_bug(X86_BUG_L1TF);
}

void __noreturn hvrs_panic(void)
{
	panic("hvrs: the kernel failed inside a root window");
}

/* ---- oops and panic ---- */

static int hvrs_die_event(struct notifier_block *nb, unsigned long event, void *data)
{
	/* Only what ends in an oops: #DB, NMI and #GP fixups also come here. */
	if (event == DIE_OOPS && hvrs_rs_emergency())
		hvrs_panic();
	return NOTIFY_DONE;
}

static int hvrs_panic_event(struct notifier_block *nb, unsigned long event, void *data)
{
	hvrs_rs_emergency();
	return NOTIFY_DONE;
}

static struct notifier_block hvrs_die_nb = {
	.notifier_call = hvrs_die_event,
	.priority = INT_MAX,
};
static struct notifier_block hvrs_panic_nb = {
	.notifier_call = hvrs_panic_event,
	.priority = INT_MAX,
};

int hvrs_notifiers_register(void)
{
	int ret = register_die_notifier(&hvrs_die_nb);

	if (!ret)
		atomic_notifier_chain_register(&panic_notifier_list, &hvrs_panic_nb);
	return ret;
}

void hvrs_notifiers_unregister(void)
{
	atomic_notifier_chain_unregister(&panic_notifier_list, &hvrs_panic_nb);
	unregister_die_notifier(&hvrs_die_nb);
}

/* ---- signals ---- */

#define HVRS_SIGNAL_BITS 8
static atomic_t hvrs_signals[1 << HVRS_SIGNAL_BITS];
static struct tracepoint *hvrs_signal_deliver;

u32 hvrs_signals_handled(void)
{
	return atomic_read(&hvrs_signals[hash_ptr(current, HVRS_SIGNAL_BITS)]);
}

/* In the thread whose handler runs next, on its way to user mode. */
static void hvrs_signal_delivered(void *data, int sig, struct kernel_siginfo *info,
				  struct k_sigaction *action)
{
	struct pt_regs *regs = task_pt_regs(current);

	if (action->sa.sa_handler == SIG_IGN || action->sa.sa_handler == SIG_DFL)
		return;
	/* That RUN_VP tells of it itself. */
	if (regs->orig_ax == __NR_ioctl && regs->si == MSHV_RUN_VP && regs->ax == -EINTR)
		return;
	atomic_inc(&hvrs_signals[hash_ptr(current, HVRS_SIGNAL_BITS)]);
}

/* The tracepoint's own symbol is not exported. */
static void hvrs_find_tracepoint(struct tracepoint *tracepoint, void *data)
{
	if (!strcmp(tracepoint->name, "signal_deliver"))
		hvrs_signal_deliver = tracepoint;
}

int hvrs_signals_begin(void)
{
	for_each_kernel_tracepoint(hvrs_find_tracepoint, NULL);
	if (!hvrs_signal_deliver)
		return -ENOENT;
	return tracepoint_probe_register(hvrs_signal_deliver, hvrs_signal_delivered, NULL);
}

void hvrs_signals_end(void)
{
	tracepoint_probe_unregister(hvrs_signal_deliver, hvrs_signal_delivered, NULL);
	tracepoint_synchronize_unregister();
}

/* ---- waiting ---- */

struct hvrs_sleeper {
	struct rcuwait wait;
	struct hrtimer timer;
	u32 *events;
	u32 timer_event;
};

static enum hrtimer_restart hvrs_sleeper_timer(struct hrtimer *timer)
{
	struct hvrs_sleeper *s = container_of(timer, struct hvrs_sleeper, timer);

	atomic_or(s->timer_event, (atomic_t *)s->events);
	rcuwait_wake_up(&s->wait);
	return HRTIMER_NORESTART;
}

struct hvrs_sleeper *hvrs_sleeper_new(u32 *events, u32 timer_event)
{
	struct hvrs_sleeper *s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);

	if (!s)
		return NULL;
	rcuwait_init(&s->wait);
	hrtimer_setup(&s->timer, hvrs_sleeper_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	s->events = events;
	s->timer_event = timer_event;
	return s;
}

void hvrs_sleeper_free(struct hvrs_sleeper *s)
{
	if (!s)
		return;
	hrtimer_cancel(&s->timer);
	kfree(s);
}

int hvrs_sleeper_wait(struct hvrs_sleeper *s, u64 timeout_ns)
{
	int ret;

	if (timeout_ns != U64_MAX)
		hrtimer_start(&s->timer, ns_to_ktime(min_t(u64, timeout_ns, S64_MAX)),
			      HRTIMER_MODE_REL_HARD);
	ret = rcuwait_wait_event(&s->wait, READ_ONCE(*s->events), TASK_INTERRUPTIBLE);
	if (timeout_ns != U64_MAX)
		hrtimer_cancel(&s->timer);
	return ret;
}

void hvrs_sleeper_wake(struct hvrs_sleeper *s)
{
	rcuwait_wake_up(&s->wait);
}

/* ---- guest memory ---- */

struct hvrs_mapping {
	struct mmu_interval_notifier notifier;
	hvrs_invalidate_fn invalidate;
	void *context;
};

static bool hvrs_mapping_invalidate(struct mmu_interval_notifier *notifier,
				    const struct mmu_notifier_range *range, unsigned long seq)
{
	struct hvrs_mapping *m = container_of(notifier, struct hvrs_mapping, notifier);

	m->invalidate(m->context, m, range->start, range->end, seq);
	return true;
}

static const struct mmu_interval_notifier_ops hvrs_mapping_ops = {
	.invalidate = hvrs_mapping_invalidate,
};

int hvrs_mapping_new(unsigned long start, unsigned long len, hvrs_invalidate_fn invalidate,
		     void *context, struct hvrs_mapping **out)
{
	struct hvrs_mapping *m = kzalloc(sizeof(*m), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!m)
		return -ENOMEM;
	m->invalidate = invalidate;
	m->context = context;
	ret = mmu_interval_notifier_insert(&m->notifier, current->mm, start, len,
					   &hvrs_mapping_ops);
	if (ret) {
		kfree(m);
		return ret;
	}
	*out = m;
	return 0;
}

void hvrs_mapping_free(struct hvrs_mapping *m)
{
	mmu_interval_notifier_remove(&m->notifier);
	kfree(m);
}

int hvrs_mapping_fault(struct hvrs_mapping *m, unsigned long addr, bool write,
		       struct hvrs_fault *out)
{
	unsigned long pfn = 0;
	struct hmm_range range = {
		.notifier = &m->notifier,
		.start = addr & PAGE_MASK,
		.end = (addr & PAGE_MASK) + PAGE_SIZE,
		.hmm_pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
	};
	struct mm_struct *mm = m->notifier.mm;
	struct folio *folio;
	int ret;

	range.notifier_seq = mmu_interval_read_begin(&m->notifier);
	mmap_read_lock(mm);
	ret = hmm_range_fault(&range);
	/*
	 * HMM does not look at the PTE's dirty bit: what the guest writes to a
	 * page under MADV_FREE, or to one of tmpfs that a read had mapped
	 * writable, would be taken for clean and lost. Pages of other files were
	 * dirtied by the write fault that made them writable. The page is still
	 * the one that HMM found if nothing was invalidated before we held it.
	 */
	if (!ret && (pfn & HMM_PFN_WRITE)) {
		folio = page_folio(hmm_pfn_to_page(pfn));
		if (!folio_try_get(folio)) {
			ret = -EBUSY;
		} else {
			if (mmu_interval_read_retry(&m->notifier, range.notifier_seq))
				ret = -EBUSY;
			else if (folio_test_anon(folio) || folio_test_swapbacked(folio))
				folio_mark_dirty(folio);
			folio_put(folio);
		}
	}
	mmap_read_unlock(mm);
	if (ret == -EBUSY)
		return -EAGAIN;
	/* A write where the VMM has no right to write is as bad an address. */
	if (ret)
		return ret == -EPERM ? -EFAULT : ret;
	out->seq = range.notifier_seq;
	out->pfn = pfn & ~HMM_PFN_FLAGS;
	out->order = hmm_pfn_to_map_order(pfn);
	out->writable = pfn & HMM_PFN_WRITE;
	return 0;
}

bool hvrs_mapping_retry(struct hvrs_mapping *m, unsigned long seq)
{
	return mmu_interval_read_retry(&m->notifier, seq);
}

void hvrs_mapping_set_seq(struct hvrs_mapping *m, unsigned long seq)
{
	mmu_interval_set_seq(&m->notifier, seq);
}

struct hvrs_ager {
	struct mmu_notifier notifier;
	hvrs_age_fn age;
	void *context;
};

/* int up to Linux 7.2, bool from 7.3 on */
typedef typeof(((struct mmu_notifier_ops *)NULL)->test_young(NULL, NULL, 0)) hvrs_young;

static bool hvrs_age(struct mmu_notifier *notifier, unsigned long start, unsigned long end,
		     bool clear)
{
	struct hvrs_ager *a = container_of(notifier, struct hvrs_ager, notifier);

	return a->age(a->context, start, end, clear);
}

static hvrs_young hvrs_clear_young(struct mmu_notifier *notifier, struct mm_struct *mm,
				   unsigned long start, unsigned long end)
{
	return hvrs_age(notifier, start, end, true);
}

static hvrs_young hvrs_test_young(struct mmu_notifier *notifier, struct mm_struct *mm,
				  unsigned long address)
{
	return hvrs_age(notifier, address, address + 1, false);
}

/* Nothing is flushed: a stale translation makes a page look older than it is, no more. */
static const struct mmu_notifier_ops hvrs_ager_ops = {
	.clear_flush_young = hvrs_clear_young,
	.clear_young = hvrs_clear_young,
	.test_young = hvrs_test_young,
};

int hvrs_ager_new(hvrs_age_fn age, void *context, struct hvrs_ager **out)
{
	struct hvrs_ager *a = kzalloc(sizeof(*a), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!a)
		return -ENOMEM;
	a->age = age;
	a->context = context;
	a->notifier.ops = &hvrs_ager_ops;
	ret = mmu_notifier_register(&a->notifier, current->mm);
	if (ret) {
		kfree(a);
		return ret;
	}
	*out = a;
	return 0;
}

void hvrs_ager_free(struct hvrs_ager *a)
{
	mmu_notifier_unregister(&a->notifier, a->notifier.mm);
	kfree(a);
}

unsigned long hvrs_current_mm(void)
{
	return (unsigned long)current->mm;
}

void hvrs_current_comm(char *comm)
{
	strscpy(comm, current->comm, TASK_COMM_LEN);
}

s32 hvrs_current_tgid(void)
{
	return current->tgid;
}

void *hvrs_pages_alloc(u32 order, u64 *phys)
{
	void *virt = (void *)__get_free_pages(GFP_KERNEL_ACCOUNT | __GFP_ZERO, order);

	if (virt)
		*phys = __pa(virt);
	return virt;
}

void hvrs_pages_free(void *virt, u32 order)
{
	free_pages((unsigned long)virt, order);
}

void *hvrs_phys_to_virt(u64 phys)
{
	return __va(phys);
}

int hvrs_vma_insert_page(struct vm_area_struct *vma, void *page)
{
	if (vma->vm_end - vma->vm_start != PAGE_SIZE)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return vm_insert_page(vma, vma->vm_start, virt_to_page(page));
}

/* ---- files ---- */

int hvrs_anon_fd(const char *name, const struct file_operations *fops, void *priv, int flags)
{
	return anon_inode_getfd(name, fops, priv, flags);
}

/* ---- eventfds ---- */

int hvrs_eventfd_get(int fd, struct eventfd_ctx **out)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fdget(fd);

	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	*out = eventfd;
	return 0;
}

void hvrs_eventfd_put(struct eventfd_ctx *eventfd)
{
	eventfd_ctx_put(eventfd);
}

void hvrs_eventfd_signal(struct eventfd_ctx *eventfd)
{
	eventfd_signal(eventfd);
}

struct hvrs_watch {
	wait_queue_entry_t wait;
	poll_table table;
	/* NULL: not started. */
	wait_queue_head_t *queue;
	int error;
	/* Until it is started: one that is kept would never hang up. */
	struct file *file;
	struct eventfd_ctx *eventfd;
	hvrs_signalled_fn signalled;
	void *context;
};

/* Under the queue's lock, with interrupts off. */
static int hvrs_watch_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct hvrs_watch *w = container_of(wait, struct hvrs_watch, wait);
	__poll_t events = key_to_poll(key);
	u64 count;

	if (events & EPOLLIN) {
		eventfd_ctx_do_read(w->eventfd, &count);
		w->signalled(w->context, false);
	}
	if (events & EPOLLHUP)
		w->signalled(w->context, true);
	return !!(events & EPOLLIN);
}

static void hvrs_watch_queue(struct file *file, wait_queue_head_t *queue, poll_table *table)
{
	struct hvrs_watch *w = container_of(table, struct hvrs_watch, table);

	w->error = add_wait_queue_priority_exclusive(queue, &w->wait);
	if (!w->error)
		w->queue = queue;
}

int hvrs_watch_new(int fd, hvrs_signalled_fn signalled, void *context, struct hvrs_watch **out)
{
	struct hvrs_watch *w = kzalloc(sizeof(*w), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!w)
		return -ENOMEM;
	w->file = fget(fd);
	if (!w->file) {
		kfree(w);
		return -EBADF;
	}
	w->eventfd = eventfd_ctx_fileget(w->file);
	if (IS_ERR(w->eventfd)) {
		ret = PTR_ERR(w->eventfd);
		fput(w->file);
		kfree(w);
		return ret;
	}
	w->signalled = signalled;
	w->context = context;
	*out = w;
	return 0;
}

struct eventfd_ctx *hvrs_watch_eventfd(struct hvrs_watch *w)
{
	return w->eventfd;
}

int hvrs_watch_start(struct hvrs_watch *w)
{
	__poll_t events;

	w->error = -EINVAL;
	init_waitqueue_func_entry(&w->wait, hvrs_watch_wake);
	init_poll_funcptr(&w->table, hvrs_watch_queue);
	events = vfs_poll(w->file, &w->table);
	fput(w->file);
	w->file = NULL;
	return w->error ?: !!(events & EPOLLIN);
}

void hvrs_watch_sync(struct hvrs_watch *w)
{
	if (!w->queue)
		return;
	spin_lock_irq(&w->queue->lock);
	spin_unlock_irq(&w->queue->lock);
}

void hvrs_watch_free(struct hvrs_watch *w)
{
	u64 count;

	if (w->queue)
		eventfd_ctx_remove_wait_queue(w->eventfd, &w->wait, &count);
	if (w->file)
		fput(w->file);
	eventfd_ctx_put(w->eventfd);
	kfree(w);
}

/* ---- log ---- */

void hvrs_log_guest(const char *text, u64 partition, u32 vp, u64 a, u64 b)
{
	pr_notice_ratelimited("hvrs: partition %llu VP %u: %s (%#llx, %#llx)\n", partition, vp,
			      text, a, b);
}

void hvrs_log_crash(u64 partition, const u64 *p)
{
	pr_notice_ratelimited("hvrs: partition %llu: the guest crashed (%#llx, %#llx, %#llx, %#llx, %#llx)\n",
			      partition, p[0], p[1], p[2], p[3], p[4]);
}

void hvrs_log_guest_text(u64 partition, const u8 *text, u32 len)
{
	pr_notice_ratelimited("hvrs: partition %llu: \"%*pE\"\n", partition, (int)len, text);
}
