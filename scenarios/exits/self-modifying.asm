; The guest rewrites the immediate of an instruction it has executed already, in a loop: each pass must see the new bytes.
start:
        xor     r15d, r15d
        mov     ecx, 10
again:
        add     r15d, 0x1
site    equ     $ - 1
        inc     byte [site]
        dec     ecx
        jnz     again
        hlt
