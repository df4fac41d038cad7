//! Runs instructions on the host: a mapping at a fixed address holds code that loads every register, jumps to the instructions and stores
//! every register again. Signals stand for exceptions.
#![expect(unsafe_code, reason = "the purpose is to execute generated machine code on the host, in one mapping that this module owns")]

use crate::state::{BASE, DATA, DATA_BYTES, Fault, FaultKind, Fpu, Outcome, Registers, SLOT, SLOT_BYTES, TOTAL_BYTES};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Where the code that stores the registers begins.
const LEAVE: u64 = BASE + 0xe00;
/// Registers to load; those stored are `STORED` bytes behind.
const STATE: u64 = BASE + 0x1000;
const STORED: u64 = 0x400;
/// Offsets of RFLAGS, MXCSR and the XMM registers in either.
const RFLAGS: u64 = 0x80;
const MXCSR: u64 = 0x90;
const XMM: u64 = 0x100;
/// Where the FXSAVE areas are, of which the x87 part is used.
const FXSAVE: u64 = BASE + 0x1a00;
const FXSAVED: u64 = BASE + 0x1c00;
/// The host's RSP and MXCSR.
const HOST_RSP: u64 = STATE + 0x800;
const HOST_MXCSR: u64 = STATE + 0x808;

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static SIGNAL_RIP: AtomicU64 = AtomicU64::new(0);

/// The mapping.
pub struct Native(());

/// Code that addresses memory absolutely.
struct Code(Vec<u8>);

impl Code {
    fn absolute(&mut self, rex: u8, opcode: &[u8], register: u8, address: u64) {
        if rex | register >> 3 != 0 {
            self.0.push(0x40 | rex | (register >> 3) << 2);
        }
        self.0.extend_from_slice(opcode);
        self.0.extend_from_slice(&[(register & 7) << 3 | 4, 0x25]);
        self.0.extend_from_slice(&(address as u32).to_le_bytes());
    }

    /// MOV RSP, imm32.
    fn set_stack(&mut self, address: u64) {
        self.0.extend_from_slice(&[0x48, 0xc7, 0xc4]);
        self.0.extend_from_slice(&(address as u32).to_le_bytes());
    }

    fn jump(&mut self, from: u64, to: u64) {
        let next = from + self.0.len() as u64 + 5;
        self.0.push(0xe9);
        self.0.extend_from_slice(&(to.wrapping_sub(next) as u32).to_le_bytes());
    }
}

fn enter_code() -> Vec<u8> {
    let mut code = Code(vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x9c]);
    code.absolute(8, &[0x89], 4, HOST_RSP);
    code.absolute(0, &[0x0f, 0xae], 3, HOST_MXCSR);
    // FXRSTOR64 first: it also loads what MXCSR and XMM registers follow with.
    code.absolute(8, &[0x0f, 0xae], 1, FXSAVE);
    code.absolute(0, &[0x0f, 0xae], 2, STATE + MXCSR);
    for number in 0..16 {
        code.absolute(0, &[0x0f, 0x10], number, STATE + XMM + 16 * u64::from(number));
    }
    code.set_stack(STATE + RFLAGS);
    code.0.push(0x9d);
    for number in 0..16 {
        code.absolute(8, &[0x8b], number, STATE + 8 * u64::from(number));
    }
    code.jump(BASE, SLOT);
    code.0
}

fn leave_code() -> Vec<u8> {
    let out = STATE + STORED;
    let mut code = Code(Vec::new());
    code.absolute(8, &[0x0f, 0xae], 0, FXSAVED);
    code.0.extend_from_slice(&[0xdb, 0xe3]);
    for number in 0..16 {
        code.absolute(8, &[0x89], number, out + 8 * u64::from(number));
    }
    code.set_stack(out + RFLAGS + 8);
    code.0.push(0x9c);
    code.absolute(0, &[0x0f, 0xae], 3, out + MXCSR);
    code.absolute(0, &[0x0f, 0xae], 2, HOST_MXCSR);
    for number in 0..16 {
        code.absolute(0, &[0x0f, 0x11], number, out + XMM + 16 * u64::from(number));
    }
    code.absolute(8, &[0x8b], 4, HOST_RSP);
    code.0.extend_from_slice(&[0x9d, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
    code.0
}

/// Notes a signal raised by the instructions under test and goes on where the registers are stored.
extern "C" fn handler(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a pointer to the interrupted context, which the handler owns until it returns.
    let rip = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] };
    let address = *rip as u64;
    if (SLOT..SLOT + SLOT_BYTES as u64).contains(&address) {
        SIGNAL.store(signal, Ordering::Relaxed);
        SIGNAL_RIP.store(address, Ordering::Relaxed);
        *rip = LEAVE as i64;
    } else {
        // Not ours: let it kill the test as it would have.
        // SAFETY: restoring the default action is allowed in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

impl Native {
    /// Maps the memory and takes over the signals; `None` if the host refuses.
    pub fn new() -> Option<Self> {
        // SAFETY: MAP_FIXED_NOREPLACE takes only addresses that nobody uses; the alternate stack is leaked, so it outlives all signals.
        unsafe {
            let wanted = BASE as *mut libc::c_void;
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            let mapped = libc::mmap(wanted, TOTAL_BYTES, protection, flags, -1, 0);
            if mapped != wanted {
                if mapped != libc::MAP_FAILED {
                    libc::munmap(mapped, TOTAL_BYTES);
                }
                return None;
            }
            let stack = Box::leak(vec![0u8; 1 << 16].into_boxed_slice());
            let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
            libc::sigaltstack(&raw const alternate, std::ptr::null_mut());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS] {
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        let mut native = Self(());
        native.write(BASE, &enter_code());
        native.write(LEAVE, &leave_code());
        Some(native)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        assert!(address >= BASE && address + bytes.len() as u64 <= BASE + TOTAL_BYTES as u64);
        // SAFETY: inside the mapping, which only this object uses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    }

    fn read(&self, address: u64, into: &mut [u8]) {
        assert!(address >= BASE && address + into.len() as u64 <= BASE + TOTAL_BYTES as u64);
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len()) };
    }

    fn read_u64(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Executes instructions.
    pub fn execute(&mut self, bytes: &[u8], registers: &Registers, memory: &[u8]) -> Outcome {
        let mut code = Code(bytes.to_vec());
        code.jump(SLOT, LEAVE);
        self.write(SLOT, &code.0);
        self.write(DATA, memory);
        for (number, value) in registers.gpr.iter().enumerate() {
            self.write(STATE + 8 * number as u64, &value.to_le_bytes());
        }
        self.write(STATE + RFLAGS, &registers.rflags.to_le_bytes());
        self.write(STATE + MXCSR, &registers.mxcsr.to_le_bytes());
        for (number, value) in registers.xmm.iter().flatten().enumerate() {
            self.write(STATE + XMM + 8 * number as u64, &value.to_le_bytes());
        }
        let mut area = [0; 512];
        area[..160].copy_from_slice(&registers.fpu.to_image());
        // MXCSR with everything masked.
        area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        self.write(FXSAVE, &area);
        SIGNAL.store(0, Ordering::Relaxed);
        // SAFETY: the code at BASE keeps the calling convention: it saves and restores the registers that a callee must keep, MXCSR and the
        // flags, leaves the x87 unit as FNINIT does, and returns. What the instructions under test do to memory stays inside the mapping: see `generate`.
        unsafe { std::mem::transmute::<*const (), extern "C" fn()>(BASE as *const ())() };
        let out = STATE + STORED;
        let mut xmm = [[0; 2]; 16];
        for (number, value) in xmm.iter_mut().flatten().enumerate() {
            *value = self.read_u64(out + XMM + 8 * number as u64);
        }
        let mut image = [0; 160];
        self.read(FXSAVED, &mut image);
        let mut after = vec![0; DATA_BYTES];
        self.read(DATA, &mut after);
        let kind = match SIGNAL.load(Ordering::Relaxed) {
            0 => None,
            libc::SIGFPE => Some(FaultKind::Arithmetic),
            libc::SIGILL => Some(FaultKind::Undefined),
            _ => Some(FaultKind::Memory),
        };
        Outcome {
            registers: Registers {
                gpr: std::array::from_fn(|number| self.read_u64(out + 8 * number as u64)),
                rflags: self.read_u64(out + RFLAGS),
                mxcsr: self.read_u64(out + MXCSR) as u32,
                xmm,
                fpu: Fpu::from_image(&image),
            },
            memory: after,
            fault: kind.map(|kind| Fault { kind, offset: SIGNAL_RIP.load(Ordering::Relaxed) - SLOT }),
        }
    }
}
