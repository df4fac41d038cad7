; IA32_TSC_AUX with a bit in its upper half, before a move and behind it. R15 counts refusals; R8 and R9: what the register holds then.
start:  xor     r15d, r15d
        mov     ecx, 0xc0000103
        mov     eax, 5
        mov     edx, 1
        wrmsr
        rdtscp
        mov     r8d, ecx
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        mov     ecx, 0xc0000103
        mov     eax, 6
        mov     edx, 1
        wrmsr
        rdtscp
        mov     r9d, ecx
        hlt
protection:
        inc     r15d
        add     rsp, 8
        add     qword [rsp], 2
        iretq
