; MAP_GPA_RANGE of one page, then of a page at an address that is none.
start:
        mov     eax, 12
        mov     ebx, 0x20000
        mov     ecx, 1
        xor     edx, edx
        db      0x0f, 0x01, NATIVE
        mov     r8, rax
        mov     eax, 12
        mov     ebx, 0x20001
        mov     ecx, 1
        xor     edx, edx
        db      0x0f, 0x01, NATIVE
        mov     r9, rax
        hlt
