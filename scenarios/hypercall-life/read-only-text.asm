; Three foreign hypercalls from one place, in a page that the guest's paging makes read-only; CR0.WP is set, as the environment leaves it.
; Exceptions are counted: #UD in R14, #PF in R13, with its error code in R8 and its address in R9; the handlers go on behind the call.
start:
        mov     eax, site
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
        xor     r15d, r15d
        jmp     again

align 4096
again:
        mov     eax, 1                  ; VAPIC_POLL_IRQ
site:   db      0x0f, 0x01, FOREIGN
        mov     [results + r15 * 8], rax
        inc     r15d
        cmp     r15d, 3
        jne     again
        hlt

align 4096
undefined:
        inc     r14d
        mov     rax, -1
        add     qword [rsp], 3
        iretq
page_fault:
        inc     r13d
        mov     rax, -2
        pop     r8
        mov     r9, cr2
        add     qword [rsp], 3
        iretq

align 8
results:
        dq      0x55, 0x55, 0x55
