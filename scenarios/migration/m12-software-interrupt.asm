; INT 0x80 onto a stack that no nested table maps yet: a VM exit interrupts its delivery. R15 counts deliveries, R9 is where they return to.
start:  mov     rsp, 0x300000
        xor     r15d, r15d
        sti
call:   int     0x80
after:  cli
        hlt
handler:
        inc     r15d
        mov     r9, [rsp]
        iretq
