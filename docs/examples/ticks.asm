; Sleeps, and counts the ticks of the local APIC's timer on the serial port: a flat image for docs/checkpoints.md, loaded at 0x10000.
APIC    equ 0xfee00000
IDT     equ 0x20000
start:
        mov     edi, IDT + 0x40 * 16
        mov     eax, tick
        mov     [rdi], ax
        mov     [rdi + 2], cs
        mov     word [rdi + 4], 0x8e00
        shr     eax, 16
        mov     [rdi + 6], ax
        lidt    [pointer]
        mov     ebp, APIC
        mov     dword [rbp + 0xf0], 0x1ff
        mov     dword [rbp + 0x3e0], 0b1011        ; divide by 1
        mov     dword [rbp + 0x320], 0x20040       ; periodic, vector 0x40
        mov     dword [rbp + 0x380], 50000
        sti
asleep: hlt
        cmp     r15d, 5
        jb      asleep
        cli
        hlt

tick:   inc     r15d
        lea     eax, [r15 + '0']
        mov     edx, 0x3f8
        out     dx, al
        mov     al, 10
        out     dx, al
        mov     dword [rbp + 0xb0], 0              ; end of interrupt
        iretq
pointer:
        dw      0xfff
        dq      IDT
