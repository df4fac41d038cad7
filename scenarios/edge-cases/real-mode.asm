; A foreign hypercall in real-address mode.
bits 16
start:
        mov     eax, 1
site:   db      0x0f, 0x01, FOREIGN
after:  cli
        hlt
undefined:
        mov     bx, 6
        mov     bp, sp
        mov     cx, [bp]                ; IP of the exception
        cli
        hlt
