; What CPUID says about the hypervisor: the bit that announces it, its signature, its features.
start:
        mov     eax, 1
        xor     ecx, ecx
        cpuid
        mov     r8d, ecx
        shr     r8d, 31
        mov     eax, 0x40000000
        cpuid
        mov     r9d, eax
        mov     [signature], ebx
        mov     [signature + 4], ecx
        mov     [signature + 8], edx
        xor     eax, eax
        cpuid
        mov     [vendor], ebx
        mov     [vendor + 4], edx
        mov     [vendor + 8], ecx
        hlt

align 16
signature:
        times 12 db 0
vendor: times 12 db 0
