; An interrupt waits while interrupts are off. The instruction behind STI is the last before it, and it exits: the move finds the shadow.
; R9 is where the interrupt came.
APIC    equ     0xfee00000
start:
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x300], 0x44040
        sti
here:   mov     rax, [0x300000]
after:  nop
        cli
        hlt
interrupt:
        mov     r9, [rsp]
        mov     dword [rbp + 0xb0], 0
        iretq
