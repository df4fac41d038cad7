; An interrupt of class 5 waits below a task priority of 0x53, the machine moves, and the priority is lowered. R14: interrupts before that;
; R15: all of them. R8: the priority as the APIC has it, R9: as CR8 has it.
APIC    equ     0xfee00000
start:  mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x80], 0x53
        mov     dword [rbp + 0x300], 0x44050
        xor     r15d, r15d
        sti
        nop
here:   nop
        nop
        mov     r14d, r15d
        mov     r8d, [rbp + 0x80]
        mov     r9, cr8
        xor     eax, eax
        mov     cr8, rax
        nop
        cli
        hlt
interrupt:
        inc     r15d
        mov     dword [rbp + 0xb0], 0
        iretq
