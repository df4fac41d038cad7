; A foreign hypercall whose last byte, the one that differs, lies in the next page. FIRST and SECOND tell which of the two
; pages is writable.
start:
        mov     esi, 0x11000 >> 12
        cmp     byte [flags], 0
        jne     .second
        and     byte [PAGE_TABLE + rsi * 8], 0xfd
.second:
        cmp     byte [flags + 1], 0
        jne     .go
        and     byte [PAGE_TABLE + rsi * 8 + 8], 0xfd
.go:
        mov     rax, cr3
        mov     cr3, rax
        xor     eax, eax
        mov     cr2, rax
        mov     eax, 1
        jmp     site
flags:  db      FIRST, SECOND

        times   0x2000 - 2 - ($ - $$) nop
site:   db      0x0f, 0x01, FOREIGN
after:  hlt

align 4096
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
