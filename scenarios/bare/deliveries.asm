; One delivery of each kind through the interrupt descriptor table. Every handler returns; the last one cannot be reached.
start:
        and     qword [PAGE_TABLE + (0x20000 >> 12) * 8], ~1    ; not present
        invlpg  [0x20000]
first:  ud2                             ; a fault: the handler sees the RIP of the instruction
second: mov     rax, [0x20008]          ; a fault with an error code and an address
third:  int3                            ; a trap: the handler sees the RIP behind it
        int     0x80
        mov     edi, 0xfee00000         ; the local APIC: software-enabled, then an interrupt to itself
        mov     dword [rdi + 0xf0], 0x1ff
        sti
        mov     dword [rdi + 0x300], 0x44030
        nop
        cli
last:   int     0x81                    ; behind the end of the table: #GP, then #DF, and neither has a handler
        hlt

undefined:
        add     qword [rsp], 2
        iretq
page_fault:
        or      qword [PAGE_TABLE + (0x20000 >> 12) * 8], 1
        invlpg  [0x20000]
        add     rsp, 8
        iretq
interrupt:
        mov     dword [rdi + 0xb0], 0   ; end of interrupt
nothing:
        iretq
