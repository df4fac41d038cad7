; A guest that makes nine hypercalls from one place, with the instruction of the vendor it booted on, and never looks again
; which vendor it runs on. Results go to a table.
start:
        xor     r15d, r15d
again:
        mov     eax, 1
site:   db      0x0f, 0x01, NATIVE
after:  mov     [results + r15 * 8], rax
        inc     r15d
        cmp     r15d, 9
        jne     again
        hlt

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

align 8
results:
        times 9 dq 0x55
