; CLOCK_PAIRING answers in memory. A type other than 0 is refused.
start:
        mov     eax, 9
        mov     ebx, pairing
        xor     ecx, ecx
        db      0x0f, 0x01, NATIVE
        mov     r8, rax
        mov     eax, 9
        mov     ebx, pairing
        mov     ecx, 1
        db      0x0f, 0x01, NATIVE
        mov     r9, rax
        rdtsc                           ; the TSC of the answer lies before this one
        shl     rdx, 32
        or      rax, rdx
        xor     r10d, r10d
        cmp     [pairing.tsc], rax
        setb    r10b
        hlt

align 64
pairing:
.sec:   dq      -1
.nsec:  dq      -1
.tsc:   dq      -1
.flags: dd      -1
        times 9 dd 0
