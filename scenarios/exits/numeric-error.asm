; An x87 error with CR0.NE clear under the hypervisor. R13 counts #MF.
start:  mov     rax, cr0
        and     al, 0xd1                ; NE, TS, EM and MP clear
        mov     cr0, rax
        xor     r13d, r13d
        fninit
        fldcw   [unmasked]
        fldz
        fldz
        fdivp   st1, st0
        nop
here:   fwait
        mov     rax, cr0
        mov     r12d, eax
        and     r12d, 0x20
        hlt
math:   inc     r13d
        fnclex
        iretq
align 2
unmasked: dw    0x37e
