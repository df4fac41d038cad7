; The local APIC's timer wakes the CPU from HLT three times.
APIC    equ 0xfee00000
start:
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x3e0], 0b1011        ; divide by 1
        mov     dword [rbp + 0x320], 0x20030       ; periodic, vector 0x30
        mov     dword [rbp + 0x380], 20000
        sti
.sleep: hlt
        cmp     r15d, 3
        jb      .sleep
        cli
        mov     dword [rbp + 0x320], 0x10000       ; masked
        hlt

tick:   inc     r15d
        mov     dword [rbp + 0xb0], 0
        iretq
