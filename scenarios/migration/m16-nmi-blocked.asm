; An NMI arrives while the handler of another runs, and the machine moves there. It has to wait for IRET. R15 counts NMIs, R14 is what the
; first handler found the count to be at its end.
start:  xor     r15d, r15d
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
