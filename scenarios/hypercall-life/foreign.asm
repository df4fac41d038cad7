; Three hypercalls from one place, with the instruction of the other vendor.
; A handler of #UD, should the guest ever see one, counts in R14 and goes on behind the instruction.
start:
        xor     r14d, r14d
        xor     r15d, r15d
again:
        mov     eax, 1                  ; VAPIC_POLL_IRQ
site:   db      0x0f, 0x01, FOREIGN
        mov     [results + r15 * 8], rax
        inc     r15d
        cmp     r15d, 3
        jne     again
        hlt

undefined:
        inc     r14d
        mov     rax, -1
        add     qword [rsp], 3
        iretq

align 8
results:
        dq      0x55, 0x55, 0x55
