; REX.W before a foreign hypercall is ignored by the processor, but the patch is written at the prefix: three bytes replace
; the first three of four, and the last one is left over. The bytes behind are chosen so that the leftover, c1 on AMD and d9 on
; Intel, begins an instruction that changes `scratch`: SAR dword [scratch], 1 or FNSTCW [scratch].
start:
        mov     eax, 1
site:   db      0x48, 0x0f, 0x01, FOREIGN
        db      0x3c, 0x25
        dd      scratch
        db      0x01 + 0x8f * (NATIVE & 0x10 ^ 0x10) / 0x10     ; the shift's count on AMD, a NOP on Intel
after:  hlt

align 8
scratch:
        dd      0xaaaa5555
