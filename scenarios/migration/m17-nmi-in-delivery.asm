; An NMI finds a stack that no nested table maps yet: a VM exit interrupts its delivery, and the machine moves then. A second NMI comes in the
; handler. R15 counts NMIs, R14 is what the first handler found the count to be at its end.
start:  mov     rsp, 0x300000
        xor     r15d, r15d
        nop
here:   nop
        nop
        hlt
nmi:    inc     r15d
        cmp     r15d, 1
        jne     second
inside: nop
        nop
        mov     r14d, r15d
second: iretq
