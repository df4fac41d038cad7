; One hypercall at privilege level 3. VECTOR 0x80 ends the run; exceptions are noted in R8 (error code), R9 (RIP), R10 (CR2),
; R11 (vector). With READ_ONLY set, the page of the call is not writable.
start:
        cmp     byte [read_only], 0
        je      .go
        mov     eax, site
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
.go:
        push    USER_DATA
        push    0x80000                 ; stack of the user's
        push    2                       ; flags
        push    USER_CODE64
        push    user
        iretq

align 4096
user:
        mov     eax, 1
site:   db      0x0f, 0x01, LAST_BYTE
        int     0x80
        ud2

align 4096
done:   hlt
undefined:
        mov     r11d, 6
        pop     r9
        hlt
protection:
        mov     r11d, 13
        pop     r8
        pop     r9
        hlt
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
read_only:
        db      READ_ONLY
