; The guest ends its own run and says how it went.
start:
        mov     al, 3
        out     0xf4, al
        jmp     $
