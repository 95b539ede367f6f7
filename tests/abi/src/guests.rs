// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guests' code: a few instructions each, for real mode at [`ENTRY`](crate::vm::ENTRY) with all segments at 0 unless
//! told otherwise.

/// A guest's code.
#[derive(Clone, Copy)]
pub struct Code {
    start: *const u8,
    end: *const u8,
}

impl Code {
    /// Its bytes.
    pub fn bytes(&self) -> &'static [u8] {
        // SAFETY: Two labels around the code in this program's read-only data.
        unsafe { std::slice::from_raw_parts(self.start, self.end.offset_from(self.start) as usize) }
    }
}

/// A guest: its name, and its code.
pub type Named = (&'static str, fn() -> Code);

/// Assembles code under a name, behind what the macro after `+` gives. Labels are local numbers.
macro_rules! code {
    ($($(#[$doc:meta])* $name:ident $mode:literal $(+ $before:ident)?: $($line:literal)*;)*) => {
        $(
            $(#[$doc])*
            pub fn $name() -> Code {
                extern "C" {
                    #[link_name = concat!("abi_code_", stringify!($name))]
                    static START: u8;
                    #[link_name = concat!("abi_code_", stringify!($name), "_end")]
                    static END: u8;
                }
                Code {
                    start: &raw const START,
                    end: &raw const END,
                }
            }
            std::arch::global_asm!(
                ".pushsection .rodata.abi_code, \"a\"",
                ".p2align 4",
                concat!(".code", $mode),
                concat!(".globl abi_code_", stringify!($name)),
                concat!(".hidden abi_code_", stringify!($name)),
                concat!(".globl abi_code_", stringify!($name), "_end"),
                concat!(".hidden abi_code_", stringify!($name), "_end"),
                concat!("abi_code_", stringify!($name), ":"),
                $($before!(),)?
                $($line,)*
                concat!("abi_code_", stringify!($name), "_end:"),
                ".code64",
                ".popsection",
            );
        )*
    };
}

/// x2APIC mode, software-enabled; interrupts on.
macro_rules! x2apic_on {
    () => {
        "mov ecx, 0x1b
        rdmsr
        or eax, 0xc00
        wrmsr
        mov ecx, 0x80f
        xor edx, edx
        mov eax, 0x1ff
        wrmsr
        sti"
    };
}

/// Where guests count what they do.
pub const COUNTER: usize = 0x2000;
/// A page that guests write to again and again; DS 0x1000.
pub const PLAYGROUND: usize = 0x1_0000;

code! {
    /// Halts again and again; counts before.
    halt "16":
        "1: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 1b";

    /// Spins without an exit.
    spin "16":
        "inc dword ptr ds:[0x2000]"
        "1: jmp 1b";

    /// Counts at COUNTER without an exit.
    count "16":
        "1: inc dword ptr ds:[0x2000]"
        "jmp 1b";

    /// Counts; the word behind the counter tells that the TSC went back.
    tick "16":
        "xor esi, esi"
        "xor edi, edi"
        "1: rdtsc"
        "mov ebx, eax"
        "mov ecx, edx"
        "sub ebx, esi"
        "sbb ecx, edi"
        "jns 2f"
        "mov dword ptr ds:[0x2004], 1"
        "2: mov esi, eax"
        "mov edi, edx"
        "inc dword ptr ds:[0x2000]"
        "jmp 1b";

    /// Reads and writes MSR ECX.
    msr "16":
        "mov sp, 0x8000"
        "mov eax, -1"
        "mov edx, -1"
        "cmp cx, 0xfe"
        "je 1f"
        "rdmsr"
        "1: mov esi, eax"
        "wrmsr"
        "mov eax, esi"
        "out 0x80, eax"
        "2: hlt"
        "jmp 2b";

    /// HV_X64_MSR_RESET, read and written 0, which does nothing, then 1.
    reset "16":
        "mov ecx, 0x40000003"
        "mov eax, -1"
        "rdmsr"
        "or eax, edx"
        "mov ds:[0x2000], eax"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "out 0x80, al"
        "inc eax"
        "wrmsr"
        "1: out 0x81, al"
        "jmp 1b";

    /// Writes to port 0x80 again and again.
    knock "16":
        "1: out 0x80, al"
        "jmp 1b";

    /// CPUID once.
    cpuid_once "16":
        "cpuid"
        "out 0x80, eax"
        "1: hlt"
        "jmp 1b";

    /// Long mode, for a VMM with devices: a serial port, a store to 0x40000000, two to the doorbell at 0x40000010, then HLT
    /// in x2APIC mode; its handler, at ENTRY + 2, ends the interrupt and writes to port 0x80.
    client_64 "64":
        ".byte 0xeb, 2f - 1f"
        "1: push rax"
        "push rcx"
        "push rdx"
        "inc dword ptr [0x2010]"
        "mov ecx, 0x80b"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "mov eax, [0x2010]"
        "out 0x80, al"
        "pop rdx"
        "pop rcx"
        "pop rax"
        "iretq"
        "2: mov edx, 0x3f8"
        "mov al, 0x41"
        "out dx, al"
        "in al, dx"
        "mov [0x2004], al"
        "mov ebx, 0x40000000"
        "mov [rbx], eax"
        "mov word ptr [rbx + 0x10], 2"
        "mov word ptr [rbx + 0x10], 3"
        "mov ecx, 0x1b"
        "rdmsr"
        "or eax, 0xc00"
        "wrmsr"
        "mov ecx, 0x80f"
        "xor edx, edx"
        "mov eax, 0x1ff"
        "wrmsr"
        "sti"
        "3: inc dword ptr [0x2000]"
        "hlt"
        "jmp 3b";

    /// Long mode, for a VMM with VMBus: HvCallPostMessage, port 0x80, then HLT with an xAPIC; its handler, at ENTRY + 2,
    /// ends the interrupt and writes to port 0x81.
    vmbus_64 "64":
        ".byte 0xeb, 2f - 1f"
        "1: push rax"
        "inc dword ptr [0x2010]"
        "mov eax, 0xfee000b0"
        "mov dword ptr [rax], 0"
        "out 0x81, al"
        "pop rax"
        "iretq"
        "2: mov ecx, 0x5c"
        "mov edx, 0x3000"
        "vmcall"
        "out 0x80, eax"
        "mov ebx, 0xfee000f0"
        "mov dword ptr [rbx], 0x1ff"
        "sti"
        "3: inc dword ptr [0x2000]"
        "hlt"
        "jmp 3b";

    /// Long mode, for a VMM without devices: port 0x65, INT3, a store to 0x40000000, HLT.
    sandbox_64 "64":
        "inc rax"
        "out 0x65, eax"
        "int3"
        "mov [0x40000000], eax"
        "hlt";

    /// Local APIC's timer every 2 ms; handlers for it, a direct synthetic timer and messages in slot 2 of 0x20000 at ENTRY +
    /// 2, + 4 and + 6, which count at 0x2200, 0x2204 and 0x2208. Meanwhile, whether TSC and reference counter go back: 0x220c.
    clocks "16":
        ".byte 0xeb, 5f - 1f"
        "1: .byte 0xeb, 6f - 2f"
        "2: .byte 0xeb, 7f - 3f"
        "3: .byte 0xeb, 8f - 4f"
        "4:"
        "6: inc dword ptr cs:[0x2200]"
        "jmp 9f"
        "7: inc dword ptr cs:[0x2204]"
        "jmp 9f"
        "8: inc dword ptr cs:[0x2208]"
        "push ds"
        "push 0x2000"
        "pop ds"
        "mov dword ptr ds:[0x200], 0"
        "pop ds"
        "push eax"
        "push ecx"
        "push edx"
        "mov ecx, 0x40000084"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "jmp 10f"
        "9: push eax"
        "push ecx"
        "push edx"
        "10: mov ecx, 0x80b"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "pop edx"
        "pop ecx"
        "pop eax"
        "iret"
        "5: mov ecx, 0x1b"
        "rdmsr"
        "or eax, 0xc00"
        "wrmsr"
        "xor edx, edx"
        "mov ecx, 0x80f"
        "mov eax, 0x1ff"
        "wrmsr"
        "mov ecx, 0x83e"
        "mov eax, 0xb"
        "wrmsr"
        "mov ecx, 0x832"
        "mov eax, 0x20041"
        "wrmsr"
        "mov ecx, 0x838"
        "mov eax, 400000"
        "wrmsr"
        "xor esi, esi"
        "xor edi, edi"
        "mov [0x2214], esi"
        "mov [0x2218], esi"
        "sti"
        "11: inc dword ptr ds:[0x2000]"
        "mov ecx, 0x40000020"
        "rdmsr"
        "mov ebx, eax"
        "mov ebp, edx"
        "sub ebx, esi"
        "sbb ebp, edi"
        "jns 12f"
        "inc dword ptr ds:[0x220c]"
        "12: mov esi, eax"
        "mov edi, edx"
        "rdtsc"
        "mov ebx, eax"
        "mov ebp, edx"
        "sub ebx, [0x2214]"
        "sbb ebp, [0x2218]"
        "jns 13f"
        "inc dword ptr ds:[0x220c]"
        "13: mov [0x2214], eax"
        "mov [0x2218], edx"
        "jmp 11b";

    /// x2APIC on; spins. Its handler, at ENTRY + 2, frees slot 2 of the message page at 0x20000; its first WRMSR is
    /// EOM.
    quiet "16":
        ".byte 0xeb, 2f - 1f"
        "1: push 0x2000"
        "pop ds"
        "mov dword ptr ds:[0x200], 0"
        "mov ecx, 0x40000084"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "mov ecx, 0x80b"
        "wrmsr"
        "iret"
        "2: mov ecx, 0x1b"
        "rdmsr"
        "or eax, 0xc00"
        "wrmsr"
        "mov ecx, 0x80f"
        "mov eax, 0x1ff"
        "xor edx, edx"
        "wrmsr"
        "sti"
        "inc dword ptr ds:[0x2000]"
        "3: jmp 3b";

    /// DS flat: from 2 MiB to 512 MiB, each ESI bytes, its address XOR EDI; port 0x81; how many are wrong, at port 0x80.
    fill_and_check "16":
        "mov ebx, 0x200000"
        "1: mov eax, ebx"
        "xor eax, edi"
        "mov ds:[ebx], eax"
        "add ebx, esi"
        "cmp ebx, 0x20000000"
        "jb 1b"
        "out 0x81, al"
        "xor ecx, ecx"
        "mov ebx, 0x200000"
        "2: mov eax, ebx"
        "xor eax, edi"
        "cmp ds:[ebx], eax"
        "je 3f"
        "inc ecx"
        "3: add ebx, esi"
        "cmp ebx, 0x20000000"
        "jb 2b"
        "mov eax, ecx"
        "out 0x80, eax"
        "4: jmp 4b";

    /// RDMSR for ever, counting.
    rdmsr_loop "16":
        "1: inc dword ptr ds:[0x2000]"
        "rdmsr"
        "jmp 1b";

    /// UD2, and INT 6.
    ud2_int6 "16":
        "ud2"
        "int 6"
        "1: jmp 1b";

    /// A port.
    port_80 "16":
        "out 0x80, al"
        "1: jmp 1b";

    /// INT3, two NOPs, a port.
    int3_nops "16":
        "int3"
        "nop"
        "nop"
        "out 0x80, al"
        "1: jmp 1b";

    /// Long mode: a load from 0x40201234, port 0x80, a selector that is not there.
    load_and_out_64 "64":
        "mov eax, [0x40201234]"
        "out 0x80, al"
        "mov ecx, 0xfff8"
        "mov es, ecx"
        "1: jmp 1b";

    /// Long mode: VMCALL, port 0x80.
    vmcall_64 "64":
        "vmcall"
        "out 0x80, eax"
        "1: jmp 1b";

    /// Long mode: VMCALL again and again, counting.
    calls_64 "64":
        "1: vmcall"
        "inc dword ptr [0x2000]"
        "jmp 1b";

    /// Tells the word at 0x20010 by port 0x80, then counts in the next.
    peek_simp "16":
        "mov ax, 0x2000"
        "mov ds, ax"
        "1: mov eax, ds:[0x10]"
        "out 0x80, eax"
        "inc dword ptr ds:[0x14]"
        "jmp 1b";

    /// HLT in x2APIC mode; the handler, at ENTRY + 2, counts at 0x2010 and ends the interrupt.
    ticks "16":
        ".byte 0xeb, 2f - 1f"
        "1: inc dword ptr ds:[0x2010]"
        "mov ecx, 0x80b"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "iret"
        "2: mov ecx, 0x1b"
        "rdmsr"
        "or eax, 0xc00"
        "wrmsr"
        "mov ecx, 0x80f"
        "mov eax, 0x1ff"
        "xor edx, edx"
        "wrmsr"
        "sti"
        "3: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 3b";

    /// Interrupts off, a port, and on again.
    cli_sti "16":
        "cli"
        "out 0x80, al"
        "sti"
        "nop"
        "1: jmp 1b";

    /// Two ports.
    two_ports "16":
        "out 0x80, al"
        "out 0x82, al"
        "1: jmp 1b";

    /// Long mode: CR8 5, a port, CR8 3, a port.
    two_priorities "64":
        "mov eax, 5"
        "mov cr8, rax"
        "out 0x80, al"
        "mov eax, 3"
        "mov cr8, rax"
        "out 0x81, al"
        "hlt";

    /// A handler that says that it was called.
    report_fault "16":
        "out 0x81, al"
        "1: hlt"
        "jmp 1b";

    /// PAUSE in a loop, counting.
    pause "16":
        "1: inc dword ptr ds:[0x2000]"
        "pause"
        "jmp 1b";

    /// Writes to a port for ever.
    out_loop "16":
        "1: inc dword ptr ds:[0x2000]"
        "out 0x80, al"
        "jmp 1b";

    /// CPUID for ever: exits that do not leave the window.
    cpuid_loop "16":
        "1: inc dword ptr ds:[0x2000]"
        "xor eax, eax"
        "cpuid"
        "jmp 1b";

    /// Increments one byte in each page of its megabyte, for ever, but for its own first 64 KiB.
    walk "16":
        "mov ax, 0x1000"
        "1: mov ds, ax"
        "inc byte ptr ds:[0]"
        "add ax, 0x100"
        "jnc 1b"
        "mov ax, 0"
        "mov ds, ax"
        "inc dword ptr ds:[0x2000]"
        "mov ax, 0x1000"
        "jmp 1b";

    /// Increments a word in PLAYGROUND and then COUNTER, for ever.
    play "16":
        "mov ax, 0x1000"
        "mov ds, ax"
        "xor ax, ax"
        "mov es, ax"
        "1: inc dword ptr ds:[0]"
        "inc dword ptr es:[0x2000]"
        "jmp 1b";

    /// Waits for interrupts in HLT. Its handler, at ENTRY + 2, tells type and first payload word of the message in slot 2
    /// of the message page at 0x20000, and the first of SINT 2 in the event flags page at 0x21000, and clears all three.
    messages "16":
        ".byte 0xeb, 2f - 1f"
        "1: push ds"
        "mov ax, 0x2000"
        "mov ds, ax"
        "mov eax, ds:[0x210]"
        "out 0x81, eax"
        "xor eax, eax"
        "mov ds:[0x210], eax"
        "xchg eax, ds:[0x200]"
        "out 0x80, eax"
        "xor eax, eax"
        "xchg eax, ds:[0x1200]"
        "out 0x82, eax"
        "pop ds"
        "mov ecx, 0x80b"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "iret"
        "2: mov ecx, 0x1b"
        "rdmsr"
        "or eax, 0xc00"
        "wrmsr"
        "mov ecx, 0x80f"
        "mov eax, 0x1ff"
        "xor edx, edx"
        "wrmsr"
        "sti"
        "3: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 3b";

    /// A monitor page at 0x6000: trigger 3 of group 1 is flag 1 of connection 8, with a latency of 200 us. Sets it, waits
    /// without an exit until it was taken, and writes to port 0x80, for ever.
    notify "16":
        "mov dword ptr ds:[0x6000], 2"
        "mov word ptr ds:[0x6286], 2000"
        "mov dword ptr ds:[0x6558], 8"
        "mov dword ptr ds:[0x655c], 1"
        "1: lock or dword ptr ds:[0x6010], 8"
        "2: inc dword ptr ds:[0x2000]"
        "test dword ptr ds:[0x6010], 8"
        "jnz 2b"
        "out 0x80, eax"
        "jmp 1b";

    /// The same once, and then sleeps with interrupts on.
    notify_and_halt "16":
        "mov dword ptr ds:[0x6000], 2"
        "mov word ptr ds:[0x6286], 2000"
        "mov dword ptr ds:[0x6558], 8"
        "mov dword ptr ds:[0x655c], 1"
        "sti"
        "lock or dword ptr ds:[0x6010], 8"
        "1: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 1b";

    /// Writes the word at 0x7000 to port 0x80, for ever.
    peek "16":
        "1: mov eax, dword ptr ds:[0x7000]"
        "out 0x80, eax"
        "jmp 1b";

    /// A hypercall with the registers as they are, then port 0x80. For flat protected mode.
    hypercall "32":
        "1: vmcall"
        "out 0x80, al"
        "jmp 1b";

    /// OUT and IN in all sizes, by DX and by immediate.
    ports "16":
        "mov eax, 0x12345678"
        "mov dx, 0x3f8"
        "out dx, al"
        "out dx, ax"
        "out dx, eax"
        "out 0x80, al"
        "out 0x81, eax"
        "mov dx, 0xcf8"
        "in al, dx"
        "in ax, dx"
        "in eax, dx"
        "in al, 0x71"
        "mov ds:[0x2000], eax"
        "1: hlt"
        "jmp 1b";

    /// REP OUTSB and INSW.
    strings "16":
        "mov cx, 5"
        "mov si, 0x3000"
        "mov dx, 0x3f8"
        "rep outsb"
        "mov di, 0x4000"
        "mov ax, 0x1000"
        "mov es, ax"
        "insw"
        "1: hlt"
        "jmp 1b";

    /// A load, a store and a jump beyond its memory; DS 0xf000, then beyond.
    beyond "16":
        "mov ax, 0x2000"
        "mov ds, ax"
        "mov eax, [0x10]"
        "mov word ptr [0x20], 0x55aa"
        ".byte 0xea"
        ".word 0x30, 0x2000";

    /// A store to 0x10000, which is to be read-only, after a load from it.
    read_only "16":
        "mov ax, 0x1000"
        "mov ds, ax"
        "mov eax, [0x44]"
        "mov cs:[0x2000], eax"
        "mov dword ptr [0x44], 1"
        "mov eax, [0x44]"
        "out 0x80, eax"
        "1: hlt"
        "jmp 1b";

    /// A load from 0x10044, port 0x80, a store there, port 0x81.
    read_then_write "16":
        "mov ax, 0x1000"
        "mov ds, ax"
        "mov eax, [0x44]"
        "out 0x80, al"
        "mov dword ptr [0x44], 0x55aa55aa"
        "out 0x81, al"
        "hlt";

    /// Jumps to 0x10000, which is not to be executable.
    no_execute "16":
        ".byte 0xea"
        ".word 0, 0x1000";

    /// Two OUTs around which a VMM changes registers through the register page.
    page "16":
        "mov eax, 0x11111111"
        "mov ebx, 0x22222222"
        "movd xmm0, ebx"
        "movd xmm3, eax"
        "out 0x80, al"
        "mov ds:[0x2000], eax"
        "mov ds:[0x2004], ebx"
        "movd ds:[0x2008], xmm0"
        "movd ds:[0x200c], xmm3"
        "pushfd"
        "pop dword ptr ds:[0x2010]"
        "out 0x81, al"
        "1: hlt"
        "jmp 1b";

    /// An interrupt table without entries (limit 0, from memory that is zero), and an exception.
    triple_fault "16":
        "lidt ds:[0x2000]"
        "int3";

    /// x2APIC on, interrupts on; then halts again and again, counting before.
    apic_halt "16" + x2apic_on:
        "1: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 1b";

    /// The same, but it spins.
    apic_spin "16" + x2apic_on:
        "1: inc dword ptr ds:[0x2000]"
        "jmp 1b";

    /// xAPIC by its page (EBP: 0xfee00000, DS: flat), interrupts on; then halts again and again.
    xapic_halt "16":
        "mov ebp, 0xfee00000"
        "mov dword ptr ds:[ebp + 0xf0], 0x1ff"
        "sti"
        "1: inc dword ptr ds:[0x2000]"
        "hlt"
        "jmp 1b";

    /// Counts interrupts for each APIC id at 0x2200, waits until 0x2100 is not 0, ends the interrupt.
    interrupt "16":
        "push eax"
        "push ecx"
        "push edx"
        "push bx"
        "mov ecx, 0x802"
        "rdmsr"
        "mov bx, ax"
        "shl bx, 2"
        "lock inc dword ptr cs:[bx + 0x2200]"
        "1: cmp dword ptr cs:[0x2100], 0"
        "je 1b"
        "mov ecx, 0x80b"
        "xor eax, eax"
        "xor edx, edx"
        "wrmsr"
        "pop bx"
        "pop edx"
        "pop ecx"
        "pop eax"
        "iret";

    /// The same for VP 0 with its APIC page.
    interrupt_x "16":
        "lock inc dword ptr cs:[0x2200]"
        "1: cmp dword ptr cs:[0x2100], 0"
        "je 1b"
        "mov dword ptr ds:[ebp + 0xb0], 0"
        "iret";

    /// Stores EAX to DS 0xd000 (address 0xd0000) in all sizes, by MOV and STOS, counting after each; then port 0x80.
    stores "16":
        "mov eax, 0x12345678"
        "mov dx, 0xd000"
        "mov ds, dx"
        "mov es, dx"
        "mov byte ptr ds:[0], al"
        "inc dword ptr cs:[0x2000]"
        "mov word ptr ds:[0], ax"
        "inc dword ptr cs:[0x2000]"
        "mov dword ptr ds:[0], eax"
        "inc dword ptr cs:[0x2000]"
        "xor di, di"
        "stosd"
        "inc dword ptr cs:[0x2000]"
        "out 0x80, eax"
        "hlt";

    /// Long mode: stores of 8 bytes to 0x40001230, then port 0x80.
    store_64 "64":
        "mov rax, 0x1122334455667788"
        "mov [0x40001230], rax"
        "mov qword ptr [0x40001230], -2"
        "out 0x80, eax"
        "hlt";

    /// A read-modify-write and a load of what is at 0xd0000.
    modify "16":
        "mov ax, 0xd000"
        "mov ds, ax"
        "or dword ptr ds:[0], 1"
        "hlt";

    /// OUT of EAX to port 0x500 in all sizes, to 0x501, then an IN and an OUTSB.
    outs "16":
        "mov eax, 0x12345678"
        "mov dx, 0x500"
        "out dx, al"
        "out dx, ax"
        "out dx, eax"
        "inc dx"
        "out dx, al"
        "dec dx"
        "in al, dx"
        "outsb"
        "hlt";

    /// Rings a doorbell at 0xd0000 for ever, counting.
    ring "16":
        "mov ax, 0xd000"
        "mov ds, ax"
        "1: mov dword ptr ds:[0], eax"
        "inc dword ptr cs:[0x2000]"
        "jmp 1b";

    /// Long mode (by registers): a load from the linear address 0x40001234.
    load_64 "64":
        "mov rax, [0x40001234]"
        "hlt";

    /// Long mode: CR8, then a port.
    out_64 "64":
        "out 0x80, eax"
        "hlt";

    /// Counts an exception and goes on at the next 16 bytes behind it.
    handler "16":
        "push bp"
        "mov bp, sp"
        "push ax"
        "mov ax, [bp + 2]"
        "or ax, 15"
        "inc ax"
        "mov [bp + 2], ax"
        "inc dword ptr cs:[0x2200]"
        "pop ax"
        "pop bp"
        "iret";

    /// What faults in a guest in real mode, each in 16 bytes of its own; then port 0x80.
    privileged "16":
        "mov ecx, 0xffff"
        ".p2align 4, 0x90"
        "vmcall"
        ".p2align 4, 0x90"
        "vmlaunch"
        ".p2align 4, 0x90"
        "vmresume"
        ".p2align 4, 0x90"
        "vmxoff"
        ".p2align 4, 0x90"
        ".byte 0xf3, 0x0f, 0xc7, 0x36, 0x00, 0x20" // vmxon
        ".p2align 4, 0x90"
        ".byte 0x66, 0x0f, 0xc7, 0x36, 0x00, 0x20" // vmclear
        ".p2align 4, 0x90"
        ".byte 0x0f, 0xc7, 0x36, 0x00, 0x20" // vmptrld
        ".p2align 4, 0x90"
        ".byte 0x0f, 0xc7, 0x3e, 0x00, 0x20" // vmptrst
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x78, 0xc3" // vmread
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x79, 0xc3" // vmwrite
        ".p2align 4, 0x90"
        ".byte 0x66, 0x0f, 0x38, 0x80, 0x06, 0x00, 0x20" // invept
        ".p2align 4, 0x90"
        ".byte 0x66, 0x0f, 0x38, 0x81, 0x06, 0x00, 0x20" // invvpid
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x37" // getsec
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x01, 0xc8" // monitor
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x01, 0xc9" // mwait
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x01, 0xd1" // xsetbv
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x01, 0xd4" // vmfunc
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x33" // rdpmc, of a counter that is not there
        ".p2align 4, 0x90"
        ".byte 0x0f, 0x0b" // ud2
        ".p2align 4, 0x90"
        ".byte 0x0f, 0xaa" // rsm
        ".p2align 4, 0x90"
        "out 0x80, eax"
        "hlt";

    /// RDMSR and WRMSR with garbage, of MSRs 0 to 0xfff, 0x40000000, 0xc0000000, 0xc0010000 and on; then port 0x80.
    msrs "16":
        "xor ecx, ecx"
        "call 3f"
        "mov ecx, 0x40000000"
        "call 3f"
        "mov ecx, 0xc0000000"
        "call 3f"
        "mov ecx, 0xc0010000"
        "call 3f"
        "out 0x80, eax"
        "hlt"
        ".p2align 4, 0x90"
        "3: mov edi, 0x400"
        ".p2align 4, 0x90"
        "4: rdmsr"
        ".p2align 4, 0x90"
        "imul eax, ecx, 0x9e3779b1"
        "mov edx, eax"
        "ror edx, 7"
        "wrmsr"
        ".p2align 4, 0x90"
        "inc ecx"
        "dec edi"
        "jnz 4b"
        "ret";

    /// CPUID of 128 leaves in each of the ranges, with 8 subleaves; then port 0x80.
    cpuids "16":
        "xor ebp, ebp"
        "call 3f"
        "mov ebp, 0x40000000"
        "call 3f"
        "mov ebp, 0x80000000"
        "call 3f"
        "mov ebp, 0xffffff00"
        "call 3f"
        "out 0x80, eax"
        "hlt"
        "3: mov di, 128"
        "4: mov si, 8"
        "5: mov eax, ebp"
        "movzx ecx, si"
        "dec ecx"
        "cpuid"
        "dec si"
        "jnz 5b"
        "inc ebp"
        "dec di"
        "jnz 4b"
        "ret";

    /// Interrupt 0x20, whose vector leads back here.
    int_storm "16":
        "sti"
        "mov sp, 0x8000"
        "inc dword ptr ds:[0x2000]"
        "int 0x20";

    /// CR0 := EAX, and on.
    mov_cr0 "16":
        "mov cr0, eax"
        "jmp 1f"
        "1: sti"
        "inc dword ptr [0x2000]"
        "out 0x80, al"
        "2: jmp 2b";

    /// CR4 := EAX, and on.
    mov_cr4 "16":
        "mov cr4, eax"
        ".p2align 4, 0x90"
        "1: sti"
        "inc dword ptr [0x2000]"
        "out 0x80, al"
        "2: jmp 2b";

    /// CR3 := EAX, and paging.
    mov_cr3 "16":
        "mov cr3, eax"
        "mov eax, 0x80000011"
        "mov cr0, eax"
        "1: sti"
        "inc dword ptr [0x2000]"
        "out 0x80, al"
        "2: jmp 2b";

    /// Protected mode: a push.
    push_32 "32":
        "1: push eax"
        "jmp 1b";

    /// Long mode: writes where a breakpoint is, on the stack of #DB.
    touch_64 "64":
        "1: mov dword ptr [0x6fd8], eax"
        "jmp 1b";
}
