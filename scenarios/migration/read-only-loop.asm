; Nine hypercalls from text that the guest has write-protected, as a modern kernel does.
start:
        mov     eax, site
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
        xor     r15d, r15d
        jmp     again

align 4096
again:
        mov     eax, 1
site:   db      0x0f, 0x01, NATIVE
        inc     r15d
        cmp     r15d, 9
        jne     again
        hlt

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
