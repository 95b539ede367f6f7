// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;

/// A device register of 8 bytes and RAM of 64 bytes at linear address 0x1000.
#[derive(Default)]
struct Mock {
    device: [u8; 8],
    ram: Vec<u8>,
    accesses: Vec<(char, usize)>,
}

impl Mock {
    fn new(device: u64) -> Self {
        Self {
            device: device.to_le_bytes(),
            ram: (0..64).collect(),
            accesses: Vec::new(),
        }
    }

    fn value(&self) -> u64 {
        u64::from_le_bytes(self.device)
    }
}

impl Memory for Mock {
    fn read_device(&mut self, data: &mut [u8]) {
        self.accesses.push(('r', data.len()));
        data.copy_from_slice(&self.device[..data.len()]);
    }
    fn write_device(&mut self, data: &[u8]) {
        self.accesses.push(('w', data.len()));
        self.device[..data.len()].copy_from_slice(data);
    }
    fn read_linear(&mut self, address: u64, data: &mut [u8]) -> Result<(), EmulateError> {
        let start = address
            .checked_sub(0x1000)
            .ok_or(EmulateError::Unmapped(address))? as usize;
        data.copy_from_slice(&self.ram[start..start + data.len()]);
        Ok(())
    }
    fn write_linear(&mut self, address: u64, data: &[u8]) -> Result<(), EmulateError> {
        let start = address
            .checked_sub(0x1000)
            .ok_or(EmulateError::Unmapped(address))? as usize;
        self.ram[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn segment_base(&self, segment: Register) -> u64 {
        if segment == Register::GS {
            0x1000
        } else {
            0
        }
    }
}

fn cpu() -> CpuState {
    CpuState {
        gpr: [0x1122_3344_5566_7788; 16],
        rip: 0x4000,
        rflags: 2,
    }
}

fn run(cpu: &mut CpuState, bytes: &[u8], mock: &mut Mock) {
    run_as(cpu, bytes, false, mock);
}

fn run_as(cpu: &mut CpuState, bytes: &[u8], written: bool, mock: &mut Mock) {
    let mut fetched = bytes.to_vec();
    fetched.resize(16, 0x90);
    emulate(cpu, &fetched, 64, written, mock).unwrap();
    assert_eq!(cpu.rip, 0x4000 + bytes.len() as u64);
}

#[test]
fn mov_loads() {
    let mut mock = Mock::new(0xdead_beef_8765_43f1);
    let mut c = cpu();
    run(&mut c, &[0x8b, 0x03], &mut mock); // mov eax, [rbx]
    assert_eq!(c.gpr[0], 0x8765_43f1, "a 32-bit load clears the upper half");
    let mut c = cpu();
    run(&mut c, &[0x44, 0x8a, 0x0b], &mut mock); // mov r9b, [rbx]
    assert_eq!(c.gpr[9], 0x1122_3344_5566_77f1);
    let mut c = cpu();
    run(&mut c, &[0x8a, 0x23], &mut mock); // mov ah, [rbx]
    assert_eq!(c.gpr[0], 0x1122_3344_5566_f188);
    let mut c = cpu();
    run(&mut c, &[0x48, 0x8b, 0x4b, 0x10], &mut mock); // mov rcx, [rbx+16]
    assert_eq!(c.gpr[1], 0xdead_beef_8765_43f1);
    let mut c = cpu();
    run(&mut c, &[0x0f, 0xb6, 0x13], &mut mock); // movzx edx, byte [rbx]
    assert_eq!(c.gpr[2], 0xf1);
    let mut c = cpu();
    run(&mut c, &[0x48, 0x0f, 0xbe, 0x13], &mut mock); // movsx rdx, byte [rbx]
    assert_eq!(c.gpr[2], 0xffff_ffff_ffff_fff1);
    let mut c = cpu();
    run(&mut c, &[0x48, 0x63, 0x13], &mut mock); // movsxd rdx, dword [rbx]
    assert_eq!(c.gpr[2], 0xffff_ffff_8765_43f1);
    let sizes: Vec<usize> = mock.accesses.iter().map(|a| a.1).collect();
    assert_eq!(sizes, [4, 1, 1, 8, 1, 1, 4]);
}

#[test]
fn mov_stores() {
    let mut mock = Mock::new(0);
    run(&mut cpu(), &[0x89, 0x03], &mut mock); // mov [rbx], eax
    assert_eq!(mock.value(), 0x5566_7788);
    run(
        &mut cpu(),
        &[0xc7, 0x40, 0x10, 0x78, 0x56, 0x34, 0x12],
        &mut mock,
    ); // mov dword [rax+16], imm
    assert_eq!(mock.value(), 0x1234_5678);
    run(
        &mut cpu(),
        &[0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff],
        &mut mock,
    ); // mov qword [rax], -1
    assert_eq!(mock.value(), u64::MAX);
    run(&mut cpu(), &[0x88, 0x23], &mut mock); // mov [rbx], ah
    assert_eq!(mock.value(), u64::MAX - 0xff + 0x77);
    assert_eq!(mock.accesses, [('w', 4), ('w', 4), ('w', 8), ('w', 1)]);
}

#[test]
fn alu_sets_flags_and_writes_back() {
    let mut mock = Mock::new(0xffff_ffff);
    let mut c = cpu();
    run(&mut c, &[0x83, 0x03, 0x01], &mut mock); // add dword [rbx], 1
    assert_eq!(mock.value(), 0);
    assert_eq!(c.rflags, 2 | CF | PF | AF | ZF);
    let mut c = cpu();
    run(&mut c, &[0x83, 0x2b, 0x01], &mut mock); // sub dword [rbx], 1
    assert_eq!(mock.value(), 0xffff_ffff);
    assert_eq!(c.rflags, 2 | CF | PF | AF | SF);
    mock.device = 0x7fu64.to_le_bytes();
    let mut c = cpu();
    run(&mut c, &[0xfe, 0x03], &mut mock); // inc byte [rbx]
    assert_eq!(mock.value(), 0x80);
    assert_eq!(c.rflags, 2 | AF | SF | OF);
    let mut c = cpu();
    run(&mut c, &[0x80, 0x3b, 0x80], &mut mock); // cmp byte [rbx], 0x80
    assert_eq!((mock.value(), c.rflags & ZF), (0x80, ZF));
    let mut c = cpu();
    run(&mut c, &[0x0a, 0x03], &mut mock); // or al, [rbx]
    assert_eq!(c.gpr[0] & 0xff, 0x88);
    let mut c = cpu();
    run(&mut c, &[0xf6, 0x03, 0x7f], &mut mock); // test byte [rbx], 0x7f
    assert_eq!(c.rflags & (ZF | CF | OF), ZF);
    let mut c = cpu();
    run(&mut c, &[0xf0, 0x0f, 0xba, 0x2b, 0x00], &mut mock); // lock bts dword [rbx], 0
    assert_eq!((mock.value(), c.rflags & CF), (0x81, 0));
    let mut c = cpu();
    run(&mut c, &[0x87, 0x03], &mut mock); // xchg [rbx], eax
    assert_eq!((c.gpr[0], mock.value()), (0x81, 0x5566_7788));
}

#[test]
fn adc_and_sbb_take_the_carry() {
    let mut flags = 2 | CF;
    assert_eq!(alu(Mnemonic::Adc, u64::MAX, 0, 8, &mut flags), 0);
    assert_eq!(flags, 2 | CF | PF | AF | ZF);
    assert_eq!(alu(Mnemonic::Sbb, 0, 0, 2, &mut flags), 0xffff);
    assert_eq!(flags & (CF | SF | OF), CF | SF);
    let mut flags = 2;
    assert_eq!(alu(Mnemonic::Sub, 0x80, 1, 1, &mut flags), 0x7f);
    assert_eq!(flags & (OF | SF | CF), OF);
}

#[test]
fn repeated_store_goes_step_by_step() {
    let mut mock = Mock::new(0);
    let mut c = cpu();
    c.gpr[RCX] = 2;
    c.gpr[RDI] = 0x9000;
    let bytes = [0xf3, 0xab, 0, 0, 0, 0, 0, 0]; // rep stosd
    emulate(&mut c, &bytes, 64, true, &mut mock).unwrap();
    assert_eq!((c.rip, c.gpr[RCX], c.gpr[RDI]), (0x4000, 1, 0x9004));
    emulate(&mut c, &bytes, 64, true, &mut mock).unwrap();
    assert_eq!((c.rip, c.gpr[RCX], c.gpr[RDI]), (0x4002, 0, 0x9008));
    assert_eq!(mock.accesses, [('w', 4), ('w', 4)]);
    assert_eq!(mock.value(), 0x5566_7788);
}

#[test]
fn movs_copies_between_ram_and_device() {
    let mut mock = Mock::new(0);
    let mut c = cpu();
    (c.gpr[RSI], c.gpr[RDI]) = (0x1008, 0x9000);
    run_as(&mut c, &[0x48, 0xa5], true, &mut mock); // movsq
    assert_eq!(mock.device, [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!((c.gpr[RSI], c.gpr[RDI]), (0x1010, 0x9008));
    (c.rip, c.gpr[RSI], c.gpr[RDI]) = (0x4000, 0x9000, 0x1020);
    c.rflags |= DF;
    run_as(&mut c, &[0xa4], false, &mut mock); // movsb
    assert_eq!(mock.ram[0x20], 8);
    assert_eq!((c.gpr[RSI], c.gpr[RDI]), (0x8fff, 0x101f));
    (c.rip, c.gpr[RSI]) = (0x4000, 4);
    run_as(&mut c, &[0x65, 0xa4], true, &mut mock); // movsb from gs
    assert_eq!(mock.device[0], 4);
    c.gpr[RSI] = 0;
    assert_eq!(
        emulate(&mut c, &[0xa4, 0x90], 64, true, &mut mock),
        Err(EmulateError::Unmapped(0))
    );
}

#[test]
fn narrower_modes_wrap() {
    let mut mock = Mock::new(7);
    let mut c = CpuState {
        rip: 0xffff_fffe,
        rflags: 2,
        ..Default::default()
    };
    emulate(&mut c, &[0x8b, 0x03, 0x90], 32, false, &mut mock).unwrap();
    assert_eq!((c.rip, c.gpr[0]), (0, 7));
    let mut c = CpuState {
        rip: 0xfffe,
        rflags: 2,
        ..Default::default()
    };
    c.gpr[0] = 0xffff_0000;
    emulate(&mut c, &[0x8b, 0x07, 0x90], 16, false, &mut mock).unwrap();
    assert_eq!((c.rip, c.gpr[0]), (0, 0xffff_0007));
}

#[test]
fn the_rest_is_refused() {
    let mut c = cpu();
    let before = c;
    let refused = |c: &mut CpuState, bytes: &[u8]| {
        emulate(c, bytes, 64, false, &mut Mock::new(0)).unwrap_err()
    };
    assert!(matches!(
        refused(&mut c, &[0x0f, 0x28, 0x03, 0x90]),
        EmulateError::Unsupported(_)
    )); // movaps
    assert!(matches!(
        refused(&mut c, &[0x8b]),
        EmulateError::Undecodable(_)
    ));
    assert!(matches!(refused(&mut c, &[]), EmulateError::Undecodable(_)));
    assert!(matches!(
        refused(&mut c, &[0x90]),
        EmulateError::Unsupported(_)
    ));
    assert_eq!(c, before);
}
