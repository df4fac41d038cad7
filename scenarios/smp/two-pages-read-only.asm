; Two CPUs at one foreign hypercall whose last byte lies on the next page, which the guest may only read.
start:
        mov     esi, (site + 2) >> 12
        and     byte [PAGE_TABLE + rsi * 8], 0xfd
        mov     rax, cr3
        mov     cr3, rax
        mov     eax, 1
        jmp     near site

align 4096
times 0xffe nop
site:   db      0x0f, 0x01, FOREIGN
        hlt

align 4096
page_fault:
        hlt
