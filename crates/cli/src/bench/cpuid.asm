; A CPUID each turn, which the hypervisor answers.
start:  mov     r12, TURNS
again:  xor     eax, eax
        cpuid
        dec     r12
        jnz     again
        hlt
