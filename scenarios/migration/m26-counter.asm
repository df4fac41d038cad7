; A performance counter overflows, before a move and behind it. R8 and R9: what its entry in the local vector table is in the handler.
APIC    equ     0xfee00000
start:  mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x340], 0x50
        xor     r15d, r15d
        sti
first:  nop
        nop
        nop
        mov     r8d, ebx
        mov     dword [rbp + 0x340], 0x50
second: nop
        nop
        nop
        mov     r9d, ebx
        cli
        hlt
overflow:
        inc     r15d
        mov     ebx, [rbp + 0x340]
        mov     dword [rbp + 0xb0], 0
        iretq
