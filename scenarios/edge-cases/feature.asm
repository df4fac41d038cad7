; SCHED_YIELD, whose feature bit (13 of leaf 0x40000001) the scenario hides. R8 is that bit, R9 the result.
start:
        mov     eax, 0x40000001
        cpuid
        shr     eax, 13
        and     eax, 1
        mov     r8d, eax
        mov     eax, 11
        xor     ebx, ebx
        db      0x0f, 0x01, NATIVE
        mov     r9, rax
        hlt
