; One foreign hypercall in 64-bit mode at privilege level 0; handlers note what arrives instead of a result.
; R8 error code, R9 RIP, R10 CR2, R11 vector of the exception.
start:
        mov     eax, 1
site:   db      0x0f, 0x01, FOREIGN
after:  hlt

align 4096                              ; apart from the call, whose page may not be there when they run
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
