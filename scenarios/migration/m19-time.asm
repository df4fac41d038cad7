; How far the time-stamp counter goes while the machine is held for a million cycles, in units of 65,536: R8 at home, R9 abroad. R10 is one
; if it went on in between.
start:  rdtsc
        shl     rdx, 32
        lea     r12, [rdx + rax]
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        rdtsc
        shl     rdx, 32
        lea     r13, [rdx + rax]
        mov     r8, r13
        sub     r8, r12
        shr     r8, 16
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        rdtsc
        shl     rdx, 32
        lea     r12, [rdx + rax]
        xor     r10d, r10d
        cmp     r12, r13
        seta    r10b
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        rdtsc
        shl     rdx, 32
        lea     r9, [rdx + rax]
        sub     r9, r12
        shr     r9, 16
        hlt
