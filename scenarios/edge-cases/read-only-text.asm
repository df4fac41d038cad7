; The guest write-protects the page of its own text, as a modern kernel does, then makes a foreign hypercall.
; R8 error code, R9 RIP, R10 CR2, R11 vector of an exception.
start:
        mov     rax, cr0
        and     eax, ~(1 << 16)
        or      eax, WP << 16
        mov     cr0, rax
        mov     eax, site
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
        xor     eax, eax
        mov     cr2, rax
        mov     eax, 1
        jmp     site

align 4096
site:   db      0x0f, 0x01, FOREIGN
after:  hlt

align 4096
undefined:
        mov     r11d, 6
        pop     r9
        mov     r10, cr2
        hlt
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
