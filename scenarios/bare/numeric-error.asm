; An x87 error as the PC of 1984 reports it: CR0.NE is clear, so that no #MF comes, but the FERR# pin goes through a latch to IRQ13. The
; handler clears the error, R15; once it only lets the processor go on with it, by port 0F0H and IGNNE#, R14. R13 counts #MF.
start:
        mov     al, 0x11                ; both PICs: vectors from 0x20 and 0x28
        out     0x20, al
        out     0xa0, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x28
        out     0xa1, al
        mov     al, 4
        out     0x21, al
        mov     al, 2
        out     0xa1, al
        mov     al, 1
        out     0x21, al
        out     0xa1, al
        mov     al, 0xfb                ; the second controller
        out     0x21, al
        mov     al, 0xdf                ; its line 5 is IRQ13
        out     0xa1, al
        mov     rax, cr0
        and     al, 0xd1                ; NE, TS, EM and MP clear
        mov     cr0, rax
        xor     r13d, r13d
        xor     r14d, r14d
        xor     r15d, r15d

; With interrupts on it comes behind the instruction that failed.
        sti
        call    fail
        nop
        cli
        cmp     r15d, 1
        jne     wrong

; With interrupts off nothing comes; the pin is up, FNSTSW does not wait, and the next instruction that waits would freeze the processor for ever.
        call    fail
        nop
        fnstsw  ax
        test    al, 0x80
        jz      wrong
        sti
        fwait                           ; interrupts are on behind this instruction only: frozen, and the interrupt wakes it
        cmp     r15d, 2
        jne     wrong

; Port 0F0H with the error pending: IGNNE# lets instructions go on that wait.
        cli
        call    fail
        out     0xf0, al
        fwait
        fldz
        fstp    st0
        fnstsw  ax
        mov     r14d, eax
        and     r14d, 0x80              ; still there
        fnclex                          ; and over: IGNNE# with it
        call    fail
        mov     al, 0xff                ; nobody listens any more
        out     0xa1, al
        sti
here:   fwait                           ; frozen for good
wrong:  ud2

fail:   fninit
        fldcw   [unmasked]
        fldz
        fldz
        fdivp   st1, st0
        ret

error:  push    rax
        inc     r15d
        fnclex
        out     0xf0, al
        mov     al, 0x20
        out     0xa0, al
        out     0x20, al
        pop     rax
        iretq
math:   inc     r13d
        fnclex
        iretq

align 2
unmasked: dw    0x37e
