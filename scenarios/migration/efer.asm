; The guest sets a bit of EFER that only AMD processors have (FFXSR, bit 14), then is moved.
start:
        mov     ecx, 0xc0000080
        rdmsr
        bts     eax, 14
        wrmsr
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        mov     ecx, 0xc0000080
        rdmsr
        mov     r8, rax
        hlt
