; XSAVE puts PKRU where the processor wants it; XRSTOR of another vendor's processor looks elsewhere. R8 is what comes back, R14 is 13 where
; the guest may not use protection keys at all.
AREA    equ     0x200000
start:  mov     rax, cr4
        or      eax, 0x440000
        mov     cr4, rax
        mov     eax, 0x203
        xor     edx, edx
        xor     ecx, ecx
        xsetbv
        mov     eax, 0x10
        wrpkru
        mov     eax, 0x200
        xsave   [AREA]
here:   nop
        xor     eax, eax
        wrpkru
        mov     eax, 0x200
        xrstor  [AREA]
        rdpkru
        mov     r8d, eax
        hlt
protection:
        mov     r14d, 13
        hlt
