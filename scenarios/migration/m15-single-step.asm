; Single-stepping with a move in the shadow of MOV SS: VM entry refuses that state on Intel unless the single step is marked as pending. The
; trap behind MOV SS itself never comes, on no processor. R15 counts traps, R9 is where the last of them came.
start:  xor     r15d, r15d
        mov     eax, DATA
        pushfq
        or      dword [rsp], 0x100
        popfq
        mov     ss, eax
here:   mov     rbx, [0x300000]
after:  nop
        hlt
debug:  inc     r15d
        mov     r9, [rsp]
        and     dword [rsp + 16], 0xfffffeff
        iretq
