; R8: what a register of one vendor holds after the move. R15 counts refusals: of a register that no guest has, before the move and behind it.
start:  xor     r15d, r15d
        mov     ecx, KEPT
        mov     eax, VALUE
        xor     edx, edx
        wrmsr
        mov     ecx, HIDDEN
        rdmsr
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        mov     ecx, KEPT
        rdmsr
        mov     r8d, eax
        mov     ecx, HIDDEN
        rdmsr
        hlt
protection:
        inc     r15d
        add     rsp, 8
        add     qword [rsp], 2
        iretq
