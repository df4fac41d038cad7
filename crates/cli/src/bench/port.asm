; A write to a port without a device each turn.
start:  mov     r12, TURNS
again:  out     0x80, al
        dec     r12
        jnz     again
        hlt
