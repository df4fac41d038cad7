; A hypercall with an unknown number in 32-bit protected mode.
bits 32
start:
        mov     eax, 0x1234
site:   db      0x0f, 0x01, NATIVE
        mov     esi, eax
        hlt
