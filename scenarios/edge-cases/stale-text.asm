; The guest unmaps the page it runs on but leaves its translation in the TLB: the processor can still fetch the foreign
; hypercall, the hypervisor's emulator, which walks the page tables anew, cannot.
start:
        mov     eax, 1
        jmp     text

align 4096
text:
        and     byte [PAGE_TABLE + (0x11000 >> 12) * 8], 0xfe
site:   db      0x0f, 0x01, FOREIGN
after:  hlt

align 4096
undefined:
        mov     r11d, 6
        pop     r9
        hlt
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
