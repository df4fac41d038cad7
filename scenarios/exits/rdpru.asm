; RDPRU reads MPERF and APERF at any privilege level, and zero of what is not there, which CF tells. R8 and R9: both counters; R10: CF of each
; of three reads; R15: #UD.
start:  xor     r10d, r10d
        xor     r15d, r15d
        xor     ecx, ecx
        db      0x0f, 0x01, 0xfd
        adc     r10d, r10d
        mov     r8d, eax
        mov     ecx, 1
        db      0x0f, 0x01, 0xfd
        adc     r10d, r10d
        mov     r9d, eax
        mov     ecx, 2
        db      0x0f, 0x01, 0xfd
        adc     r10d, r10d
        mov     r11d, eax
        hlt
undefined:
        mov     r15d, 6
        hlt
