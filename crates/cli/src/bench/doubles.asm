; Scalar double-precision arithmetic: a polynomial at one point after the other.
start:  mov     rax, cr0                ; SSE on
        and     al, 0xfb
        or      al, 2
        mov     cr0, rax
        mov     rax, cr4
        or      eax, 0x600
        mov     cr4, rax
        mov     rcx, TURNS
        movsd   xmm0, [point]
again:  movsd   xmm1, [factors]
        mulsd   xmm1, xmm0
        addsd   xmm1, [factors + 8]
        mulsd   xmm1, xmm0
        addsd   xmm1, [factors + 16]
        mulsd   xmm1, xmm0
        addsd   xmm1, [factors + 24]
        addsd   xmm0, [step]
        addsd   xmm2, xmm1
        dec     rcx
        jnz     again
        hlt
align 8
point:  dq      0x3fe0000000000000
step:   dq      0x3e70000000000000
factors:
        dq      0x3ff0000000000000, 0xbfe0000000000000, 0x3fd5555555555555, 0xbfd0000000000000
