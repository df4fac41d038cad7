; The time-stamp counter never runs backwards, also across a VM exit.
start:
        rdtsc
        shl     rdx, 32
        lea     r8, [rdx + rax]
        xor     eax, eax
        cpuid                           ; always exits on Intel, and here on AMD
        rdtsc
        shl     rdx, 32
        lea     r9, [rdx + rax]
        xor     r10d, r10d
        cmp     r8, r9
        setb    r10b
        xor     r8d, r8d
        xor     r9d, r9d
        hlt
