; Nine hypercalls from text that the guest has write-protected. Its #UD handler does what a kernel could: it puts the other vendor's
; instruction into place through a second mapping of the page, which is writable, and tries again. R14 counts that.
ALIAS   equ     0x1f0000
start:
        mov     eax, site
        shr     eax, 12
        mov     ebx, eax
        shl     ebx, 12
        or      ebx, 7
        mov     [PAGE_TABLE + (ALIAS >> 12) * 8], rbx
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
        invlpg  [ALIAS]
        xor     r15d, r15d
        xor     r14d, r14d
        jmp     again

align 4096
again:  mov     eax, 1
site:   db      0x0f, 0x01, NATIVE
        inc     r15d
        cmp     r15d, 9
        jne     again
        hlt

align 4096
undefined:
        mov     edx, [rsp]
        and     edx, 0xfff
        xor     byte [rdx + ALIAS + 2], 0xc1 ^ 0xd9
        inc     r14d
        iretq
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
